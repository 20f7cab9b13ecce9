//! A sidecar does not live on without a task that it needs.

use std::fs::write;
use std::path::Path;

use atomix_process::panics::panics_at;
use atomix_runtime::{Options, Sidecar, built_in_drivers};
use clap::Parser as _;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio_util::sync::CancellationToken;

use crate::harness::within;

#[tokio::test]
async fn what_renews_the_certificate_ends_the_sidecar_when_it_panics() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let options = Options::parse_from([
        "atomix-runtime",
        "--control-addr=127.0.0.1:0",
        "--app-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
        &format!("--tls-directory={}", folder.path().display()),
    ]);
    let sidecar = Sidecar::start(&options, built_in_drivers, CancellationToken::new())
        .await
        .unwrap();

    let _panics = panics_at("atomix_tls::credentials");
    write_certificate(folder.path());
    let ended = within("the sidecar to end", sidecar.run()).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("task certificates panicked"), "{error}");
}

fn write_certificate(folder: &Path) {
    let mut params = CertificateParams::default();
    let identity = Ia5String::try_from("spiffe://atomix.io/runtime/garden").unwrap();
    params.subject_alt_names = vec![SanType::URI(identity)];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    for name in ["tls.crt", "ca.crt"] {
        write(folder.join(name), &certificate).unwrap();
    }
}
