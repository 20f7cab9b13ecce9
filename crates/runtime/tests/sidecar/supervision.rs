//! A sidecar does not live on without a task that it needs.

use std::fs::write;
use std::path::Path;
use std::process::Stdio;

use atomix_process::panics::{PANICS_AT, panics_at};
use atomix_runtime::{Options, Sidecar, built_in_drivers};
use clap::Parser as _;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
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

#[tokio::test]
async fn a_task_that_panics_ends_the_process_with_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let mut sidecar = Command::new(env!("CARGO_BIN_EXE_atomix-runtime"))
        .args(["control", "app", "admin"].map(|port| format!("--{port}-addr=127.0.0.1:0")))
        .arg(format!("--tls-directory={}", folder.path().display()))
        .env("RUST_LOG", "info")
        .env(PANICS_AT, "atomix_tls::credentials")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(sidecar.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        let read = within("the sidecar to serve", said.read_line(&mut line)).await;
        assert_ne!(read.unwrap(), 0, "it ended");
    }

    write_certificate(folder.path());
    let mut rest = String::new();
    let read = within("the process to end", said.read_to_string(&mut rest)).await;
    read.unwrap();
    let ended = within("the process to end", sidecar.wait()).await.unwrap();
    assert!(!ended.success(), "{rest}");
    assert!(
        rest.contains(r#"Panicked { name: "certificates""#),
        "{rest}"
    );
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
