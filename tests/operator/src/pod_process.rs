//! From a container of a pod to the process that stands for it: the container's own command,
//! arguments and environment, with the pod's address for "every address" and folders for volumes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PersistentVolumeClaim, Pod, Secret, Volume,
};
use kube::{Api, Client, ResourceExt as _};

use crate::mounts::{self, Mount, Mounts};
use crate::processes::{Program, program_path};

/// Programs that a container may run for real; other containers only appear to run.
const PROGRAMS: [&str; 2] = ["atomix-node", "atomix-runtime"];

/// What the programs log, as in `RUST_LOG`.
const LOG_FILTER_VARIABLE: &str = "ATOMIX_POD_LOG";

/// Where the pods of a namespace keep things.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Holds one folder a disk or pod.
    pub root: PathBuf,
    /// The file that stands for DNS.
    pub hosts: PathBuf,
    /// Folders that hold what ConfigMaps and Secrets hold.
    pub mounts: Mounts,
}

/// Whether a container runs one of this project's programs.
pub fn runs_a_program(container: &Container) -> bool {
    program_of(container).is_some()
}

/// The program that the command names or, without one, the image: an image is named as its program.
fn program_of(container: &Container) -> Option<&'static str> {
    let command = container.command.iter().flatten().next();
    let image = container.image.as_deref().unwrap_or_default();
    let named = command.map_or(image, String::as_str);
    let name = named.rsplit('/').next()?.split(':').next()?;
    PROGRAMS.into_iter().find(|program| *program == name)
}

/// What to start for a container of a pod.
///
/// # Errors
/// When a volume is not there yet or of a kind that nobody needs so far, or the program has not
/// been built.
pub async fn program(
    client: &Client,
    pod: &Pod,
    container: &Container,
    address: Ipv4Addr,
    folders: &Folders,
) -> Result<Program> {
    let name = program_of(container).context("the container runs no program of this project")?;
    let uid = pod.uid().context("the pod has no uid")?;
    let pod_folder = folders.root.join("pods").join(uid);
    std::fs::create_dir_all(&pod_folder)?;

    let mut places: Vec<(String, String)> = vec![("0.0.0.0".to_owned(), address.to_string())];
    for mount in container.volume_mounts.iter().flatten() {
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let volume = volumes
            .into_iter()
            .find(|volume| volume.name == mount.name)
            .with_context(|| format!("the pod has no volume {}", mount.name))?;
        let folder = volume_folder(client, pod, volume, &pod_folder, folders).await?;
        places.push((mount.mount_path.clone(), folder.display().to_string()));
    }
    let translate = |text: &str| {
        places
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };

    let mut environment = BTreeMap::from([
        (
            "ATOMIX_CONTROL_ADDR",
            format!("{address}:{}", control_port(name)),
        ),
        ("ATOMIX_PEER_ADDR", format!("{address}:5681")),
        ("ATOMIX_APP_ADDR", format!("{address}:5678")),
        (
            "ATOMIX_ADMIN_ADDR",
            format!("{address}:{}", admin_port(name)),
        ),
        (
            "ATOMIX_DATA_DIR",
            pod_folder.join("data").display().to_string(),
        ),
        (
            "ATOMIX_STATE_DIR",
            pod_folder.join("state").display().to_string(),
        ),
        ("ATOMIX_HOSTS_FILE", folders.hosts.display().to_string()),
    ])
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect::<BTreeMap<String, String>>();
    let filter = std::env::var(LOG_FILTER_VARIABLE);
    let filter = filter.unwrap_or_else(|_| "warn,atomix_node=info,atomix_runtime=info".to_owned());
    environment.insert("RUST_LOG".to_owned(), filter);
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => translate(value),
            (None, Some(source)) => {
                let path = source
                    .field_ref
                    .as_ref()
                    .map(|field| field.field_path.as_str());
                field_of(pod, path.unwrap_or_default(), address)?
            }
            (None, None) => String::new(),
        };
        environment.insert(variable.name.clone(), value);
    }

    let rest_of_command = container.command.iter().flatten().skip(1);
    Ok(Program {
        path: program_path(name)?,
        arguments: rest_of_command
            .chain(container.args.iter().flatten())
            .map(|argument| translate(argument))
            .collect(),
        environment,
        log: folders.root.join(format!("{}.log", pod.name_any())),
    })
}

fn control_port(program: &str) -> u16 {
    if program == "atomix-node" { 5680 } else { 5679 }
}

fn admin_port(program: &str) -> u16 {
    if program == "atomix-node" { 9090 } else { 5677 }
}

/// The folder of a volume: a disk's lives as long as its claim, another's as long as the pod.
async fn volume_folder(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    pod_folder: &Path,
    folders: &Folders,
) -> Result<PathBuf> {
    let namespace = pod.namespace().context("the pod has no namespace")?;
    let folder = if let Some(claim) = &volume.persistent_volume_claim {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
        let claim = claims.get(&claim.claim_name).await?;
        let uid = claim.uid().context("the claim has no uid")?;
        folders.root.join("disks").join(uid)
    } else if volume.empty_dir.is_some() {
        pod_folder.join(&volume.name)
    } else if let Some(source) = &volume.config_map {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        let folder = pod_folder.join(&volume.name);
        let mount = Mount::new(folder.clone(), source.items.as_deref())?;
        mount.write(&mounts::of_config_map(&maps.get(&source.name).await?))?;
        folders.mounts.add("ConfigMap", &source.name, mount);
        folder
    } else if let Some(source) = &volume.secret {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let folder = pod_folder.join(&volume.name);
        let mount = Mount::new(folder.clone(), source.items.as_deref())?;
        mount.write(&mounts::of_secret(&secrets.get(name).await?))?;
        folders.mounts.add("Secret", name, mount);
        folder
    } else {
        bail!(
            "volume {} is of a kind that this harness does not know",
            volume.name
        );
    };
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn field_of(pod: &Pod, path: &str, address: Ipv4Addr) -> Result<String> {
    Ok(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "status.podIP" | "status.podIPs" => address.to_string(),
        _ => bail!("the field {path} of a pod is not known to this harness"),
    })
}
