#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use atomix_resources::labels::INJECT;

struct Running {
    address: SocketAddr,
    authority: CertificateDer<'static>,
    shutdown: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

fn start() -> Running {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let authority = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![authority.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let options = SidecarOptions::default();
    let serving = serve(
        listener,
        Arc::new(tls),
        Scope::Cluster,
        options,
        shutdown.clone(),
    );
    Running {
        address,
        authority,
        shutdown,
        server: tokio::spawn(serving),
    }
}

impl Running {
    /// The whole answer to one request.
    async fn ask(&self, request: Vec<u8>) -> String {
        let (address, authority) = (self.address, self.authority.clone());
        let asked = tokio::task::spawn_blocking(move || ask(address, authority, &request));
        asked.await.unwrap()
    }
}

fn ask(address: SocketAddr, authority: CertificateDer<'static>, request: &[u8]) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream
        .sock
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // A server that refuses may close before it has read everything.
    let _sent = stream.write_all(request);
    let mut answer = Vec::new();
    let _ended = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn request(method: &str, path: &str, body: &[u8], connection: &str) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn question() -> Vec<u8> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bee", "labels": {INJECT: "true"}},
        "spec": {"containers": [{"name": "hive", "image": "hive:1"}]},
    });
    let question = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "7",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "userInfo": {},
        "object": pod,
    }});
    question.to_string().into_bytes()
}

#[tokio::test]
async fn questions_are_answered_and_anything_else_is_refused() {
    let running = start();
    let answer = running
        .ask(request("POST", PATH, &question(), "close"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body.pointer("/response/uid").unwrap(), "7");
    assert_eq!(body.pointer("/response/patchType").unwrap(), "JSONPatch");

    for (request, expected) in [
        (request("POST", PATH, b"{}", "close"), "HTTP/1.1 400"),
        (request("GET", PATH, b"", "close"), "HTTP/1.1 405"),
        (request("POST", "/", &question(), "close"), "HTTP/1.1 404"),
        (
            request("POST", PATH, &vec![b' '; LARGEST_QUESTION + 1], "close"),
            "HTTP/1.1 413",
        ),
    ] {
        let answer = running.ask(request).await;
        assert!(answer.starts_with(expected), "{expected}: {answer}");
    }
}

/// A question whose rest never comes is given up, and the others are not held up by it.
#[tokio::test]
async fn a_question_that_never_ends_is_given_up() {
    let running = start();
    let mut unfinished = request("POST", PATH, &question(), "close");
    unfinished.truncate(unfinished.len() - 1);
    let unfinished = running.ask(unfinished);
    let other = running.ask(request("POST", PATH, &question(), "close"));
    let (unfinished, other) = tokio::join!(unfinished, other);
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    assert!(unfinished.starts_with("HTTP/1.1 503"), "{unfinished}");
}

#[tokio::test]
async fn after_the_shutdown_questions_are_still_answered_for_a_while_on_connections_that_close() {
    let running = start();
    running.shutdown.cancel();
    let answer = running
        .ask(request("POST", PATH, &question(), "keep-alive"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let ended = tokio::time::timeout(LINGER + DRAIN * 2, running.server).await;
    ended.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(running.address).is_err());
}
