//! Whether a Store's nodes speak mutual TLS, and what their pods need for it. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, KeyToPath, SecretVolumeSource, Volume, VolumeMount,
};

use crate::identities::NODES_SECRET;
use crate::store::names;
use crate::store::objects::build::Owner;
use atomix_resources::StoreStatus;

/// Where the pods find their certificate.
const CERTIFICATES: &str = "/etc/atomix/tls";
/// Where they find the list of allowed namespaces.
const PERMISSIONS: &str = "/etc/atomix/store";
const CERTIFICATES_VOLUME: &str = "tls";
const PERMISSIONS_VOLUME: &str = "permissions";

/// A Store keeps what it was made with: nodes that speak TLS and nodes that do not cannot form a
/// group, and runtimes that are connected would be cut off. `enabled` = new Stores speak it.
#[must_use]
pub fn is_spoken(previous: &StoreStatus, enabled: bool) -> bool {
    match (previous.tls, previous.bootstrapped) {
        (Some(tls), _) => tls,
        // Made by an operator that did not know TLS.
        (None, Some(true)) => false,
        (None, Some(false) | None) => enabled,
    }
}

/// Mounts the certificate of this Store alone, and the list of allowed namespaces.
pub(super) fn add(owner: &Owner, container: &mut Container, volumes: &mut Vec<Volume>) {
    let item = |key: String, path: &str| KeyToPath {
        key,
        path: path.to_owned(),
        ..KeyToPath::default()
    };
    volumes.push(Volume {
        name: CERTIFICATES_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(NODES_SECRET.to_owned()),
            // The kubelet waits for the operator to make it.
            optional: Some(false),
            items: Some(vec![
                item(format!("{}.crt", owner.name), "tls.crt"),
                item(format!("{}.key", owner.name), "tls.key"),
                item("ca.crt".to_owned(), "ca.crt"),
            ]),
            // By the group of the pod.
            default_mode: Some(0o440),
        }),
        ..Volume::default()
    });
    volumes.push(Volume {
        name: PERMISSIONS_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::config_map(&owner.name),
            items: Some(vec![item(
                names::ALLOWED_NAMESPACES.to_owned(),
                names::ALLOWED_NAMESPACES,
            )]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.push(mount(CERTIFICATES_VOLUME, CERTIFICATES));
    mounts.push(mount(PERMISSIONS_VOLUME, PERMISSIONS));
    let arguments = container.args.get_or_insert_default();
    arguments.push(format!("--tls-directory={CERTIFICATES}"));
    arguments.push(format!(
        "--allowed-namespaces={PERMISSIONS}/{}",
        names::ALLOWED_NAMESPACES
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_what_it_was_made_with() {
        let status = |tls, bootstrapped| StoreStatus {
            tls,
            bootstrapped,
            ..StoreStatus::default()
        };
        for (tls, bootstrapped, enabled, expected) in [
            (None, None, true, true),
            (None, None, false, false),
            (None, Some(false), true, true),
            (None, Some(true), true, false),
            (Some(true), Some(true), false, true),
            (Some(false), Some(true), true, false),
            (Some(false), None, true, false),
        ] {
            let spoken = is_spoken(&status(tls, bootstrapped), enabled);
            assert_eq!(spoken, expected, "{tls:?} {bootstrapped:?} {enabled}");
        }
    }
}
