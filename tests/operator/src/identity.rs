//! Identities for the test itself: it calls nodes and runtimes as their operator does, or as
//! somebody else, with certificates that it signs by the operator's authority.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use atomix_controller::ObjectKey;
use atomix_operator::identities::{NODES_SECRET, RUNTIME_SECRET};
use atomix_tls::{Credentials, Identity, Material};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tonic::transport::{Channel, Endpoint};

use crate::api_server::ApiServer;
use crate::mounts;

/// Name of the Secret with the authority of a test bed's operators.
pub const AUTHORITY: &str = "lily-authority";

/// Name of the Secret with an authority that somebody else makes for them.
pub const SOURCE: &str = "company-authority";

/// A pod that speaks TLS: its namespace, and who it is.
#[derive(Clone, Debug)]
struct Secured {
    namespace: String,
    identity: Identity,
}

fn secured() -> &'static Mutex<HashMap<Ipv4Addr, Secured>> {
    static SECURED: OnceLock<Mutex<HashMap<Ipv4Addr, Secured>>> = OnceLock::new();
    SECURED.get_or_init(Mutex::default)
}

fn authorities() -> &'static Mutex<HashMap<String, ObjectKey>> {
    static AUTHORITIES: OnceLock<Mutex<HashMap<String, ObjectKey>>> = OnceLock::new();
    AUTHORITIES.get_or_init(Mutex::default)
}

/// Says whose authority the pods of a namespace have, if it is not [`AUTHORITY`] there.
pub fn use_authority(namespace: &str, authority: &ObjectKey) {
    let entry = (namespace.to_owned(), authority.clone());
    authorities().lock().extend([entry]);
}

/// Notes that a pod runs at this address, if it mounts certificates.
pub fn register(address: Ipv4Addr, namespace: &str, pod: &Pod) {
    let spec = pod.spec.as_ref();
    let volumes = spec.and_then(|spec| spec.volumes.as_ref());
    let secrets = volumes.into_iter().flatten();
    let secrets = secrets.filter_map(|volume| volume.secret.as_ref()?.secret_name.as_deref());
    let pod_name = pod.name_any();
    for secret in secrets {
        let namespace = namespace.to_owned();
        let identity = match secret {
            NODES_SECRET => Identity::Node {
                namespace: namespace.clone(),
                store: pod_name.rsplit_once('-').unwrap_or_default().0.to_owned(),
            },
            RUNTIME_SECRET => Identity::Runtime {
                namespace: namespace.clone(),
            },
            _ => continue,
        };
        let entry = Secured {
            namespace,
            identity,
        };
        secured().lock().insert(address, entry);
    }
}

/// The pod is gone.
pub fn unregister(address: Ipv4Addr) {
    secured().lock().remove(&address);
}

/// Connects to a pod as its operator does.
///
/// # Errors
/// When nobody answers there, or somebody else.
pub async fn connect(endpoint: Endpoint, pod: Ipv4Addr) -> Result<Channel> {
    let Some(secured) = secured().lock().get(&pod).cloned() else {
        return Ok(endpoint.connect().await?);
    };
    let credentials = credentials(&secured.namespace, &Identity::Operator).await?;
    Ok(atomix_tls::connect(endpoint, Some(&credentials), &secured.identity).await?)
}

/// Connects to a pod as somebody else.
///
/// # Errors
/// When nobody answers there.
pub async fn connect_as(
    endpoint: Endpoint,
    pod: Ipv4Addr,
    credentials: &Credentials,
) -> Result<Channel> {
    let known = secured().lock().get(&pod).cloned();
    let expected = known.context("the pod speaks no TLS")?.identity;
    Ok(atomix_tls::connect(endpoint, Some(credentials), &expected).await?)
}

/// A certificate of the namespace's authority for this identity.
///
/// # Errors
/// When there is no authority yet.
pub async fn credentials(namespace: &str, identity: &Identity) -> Result<Credentials> {
    let credentials = Credentials::default();
    credentials.set(&issue(namespace, identity, Duration::from_secs(600)).await?)?;
    Ok(credentials)
}

/// As [`credentials`], for so long.
///
/// # Errors
/// When there is no authority yet.
pub async fn issue(namespace: &str, identity: &Identity, life: Duration) -> Result<Material> {
    let server = ApiServer::connect().await?;
    let known = authorities().lock().get(namespace).cloned();
    let key = known.unwrap_or_else(|| ObjectKey::new(namespace, AUTHORITY));
    let secrets: Api<Secret> = Api::namespaced(server.client(), &key.namespace);
    let content = mounts::of_secret(&secrets.get(&key.name).await?);
    let field = |name: &str| -> Result<String> {
        let bytes = content.get(name).with_context(|| format!("no {name}"))?;
        Ok(String::from_utf8(bytes.clone())?)
    };
    let authorities = field("ca.crt")?;
    // The one that signs comes first.
    let issuer = Issuer::from_ca_cert_pem(&authorities, KeyPair::from_pem(&field("ca.key")?)?)?;
    let mut params = CertificateParams::new(Vec::new())?;
    let uri = Ia5String::try_from(identity.to_string())?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let now = SystemTime::now();
    params.not_before = time::OffsetDateTime::from(now - Duration::from_secs(300));
    params.not_after = time::OffsetDateTime::from(now + life);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Material {
        certificate: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
        authorities: authorities.into_bytes(),
    })
}
