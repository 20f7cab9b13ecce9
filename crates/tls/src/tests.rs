#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

/// The service that the tests call.
const HEALTH: &str = "grpc.health.v1.Health";
const LIMIT: Duration = Duration::from_secs(20);

/// Makes certificates as the operator does.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    fn sign(&self, identity: &str, expires_in: i64, trusted: &[&Self]) -> Material {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        if !identity.is_empty() {
            let uri = Ia5String::try_from(identity).unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = time::OffsetDateTime::from(SystemTime::now());
        params.not_before = now - time::Duration::seconds(3600);
        params.not_after = now + time::Duration::seconds(expires_in);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let authorities: String = trusted.iter().map(|one| one.pem.as_str()).collect();
        Material {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authorities: authorities.into_bytes(),
        }
    }

    fn credentials(&self, identity: &str) -> Credentials {
        let credentials = Credentials::default();
        credentials.set(&self.sign(identity, 60, &[self])).unwrap();
        credentials
    }
}

fn node() -> Identity {
    "spiffe://atomix.io/node/meadow/tulip".parse().unwrap()
}

fn runtime_of(namespace: &str) -> Identity {
    let namespace = namespace.to_owned();
    Identity::Runtime { namespace }
}

struct Serving {
    address: SocketAddr,
    allowed: AllowedNamespaces,
    _shutdown: DropGuard,
}

/// Serves as a node of the Store meadow/tulip: its health is for that node and for runtimes.
async fn serve(credentials: Credentials) -> Serving {
    let allowed = AllowedNamespaces::only("meadow");
    let rules = Rules::new()
        .allow(HEALTH, Party::Exactly(node()))
        .allow(HEALTH, Party::RuntimesOf(allowed.clone()))
        .allow("some.Other", Party::Exactly(Identity::Operator));
    let guard = Guard::new(credentials, rules);
    let shutdown = CancellationToken::new();
    tokio::spawn(guard.clone().enforce(allowed.clone(), shutdown.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let routes = guard.protect(Routes::new(health));
    let connections = accept(listener, Some(guard));
    let serving = Server::builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    tokio::spawn(serving);
    Serving {
        address,
        allowed,
        _shutdown: shutdown.drop_guard(),
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_timeout(Duration::from_secs(5))
}

async fn check(channel: Channel) -> Result<(), Status> {
    let request = HealthCheckRequest::default();
    HealthClient::new(channel).check(request).await.map(|_| ())
}

/// Connects and calls; the error with all its causes.
async fn call(address: SocketAddr, credentials: &Credentials) -> Result<(), String> {
    let channel = connect(endpoint(address), Some(credentials), &node())
        .await
        .map_err(|error| with_sources(&error))?;
    check(channel).await.map_err(|status| {
        let cause = std::error::Error::source(&status).map(with_sources);
        format!("{:?}: {} {cause:?}", status.code(), status.message())
    })
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn only_those_are_served_whom_a_rule_names() {
    let authority = Authority::new("one");
    let stranger = Authority::new("other");
    let serving = serve(authority.credentials(&node().to_string())).await;
    let expired = Credentials::default();
    expired
        .set(&authority.sign(&node().to_string(), -1, &[&authority]))
        .unwrap();
    let of_a_stranger = Credentials::default();
    of_a_stranger
        .set(&stranger.sign(&node().to_string(), 60, &[&authority]))
        .unwrap();
    let of = |identity: &str| authority.credentials(identity);
    let cases = [
        (of("spiffe://atomix.io/node/meadow/tulip"), None),
        (of("spiffe://atomix.io/runtime/meadow"), None),
        (
            of("spiffe://atomix.io/node/meadow/rose"),
            Some("PermissionDenied"),
        ),
        (
            of("spiffe://atomix.io/node/field/tulip"),
            Some("PermissionDenied"),
        ),
        (
            of("spiffe://atomix.io/runtime/field"),
            Some("spec.allowedNamespaces: add the namespace"),
        ),
        (of("spiffe://atomix.io/operator"), Some("PermissionDenied")),
        (of("spiffe://atomix.io/registry"), Some("PermissionDenied")),
        (expired, Some("xpired")),
        (of_a_stranger, Some("UnknownCA")),
    ];
    for (credentials, refused) in cases {
        let answer = call(serving.address, &credentials).await;
        match (refused, answer) {
            (None, answer) => answer.unwrap_or_else(|error| panic!("{credentials:?}: {error}")),
            (Some(part), Err(error)) => assert!(error.contains(part), "{credentials:?}: {error}"),
            (Some(_), Ok(())) => panic!("{credentials:?} was served"),
        }
    }
}

#[tokio::test]
async fn who_shows_no_certificate_or_speaks_no_tls_is_not_served() {
    let authority = Authority::new("one");
    let serving = serve(authority.credentials(&node().to_string())).await;

    let plain = endpoint(serving.address).connect().await;
    let plain = match plain {
        Ok(channel) => check(channel).await.unwrap_err().code(),
        Err(_) => Code::Unavailable,
    };
    assert!(
        [Code::Unavailable, Code::Unknown].contains(&plain),
        "{plain:?}"
    );

    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.pem.as_bytes();
    for root in
        <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::pem_slice_iter(
            pem,
        )
    {
        roots.add(root.unwrap()).unwrap();
    }
    let verifier = client::ExpectsIdentity::new(node(), roots.into(), material::provider());
    let mut config = rustls::ClientConfig::builder_with_provider(material::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let address = serving.address;
    let channel = endpoint(address)
        .connect_with_connector(tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let name = rustls::pki_types::ServerName::try_from("nobody").unwrap();
                let stream = connector.connect(name, stream).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        }))
        .await
        .unwrap();
    let refused = check(channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("--tls-directory"), "{refused}");
}

#[tokio::test]
async fn a_client_connects_only_to_the_identity_that_it_expects() {
    let authority = Authority::new("one");
    let stranger = Authority::new("other");
    let client = authority.credentials("spiffe://atomix.io/runtime/meadow");
    let other_store = serve(authority.credentials("spiffe://atomix.io/node/meadow/rose")).await;
    let error = call(other_store.address, &client).await.unwrap_err();
    let expected = "spiffe://atomix.io/node/meadow/rose answers there, not spiffe://atomix.io/node/meadow/tulip";
    assert!(error.contains(expected), "{error}");

    let credentials = Credentials::default();
    let by_stranger = stranger.sign(&node().to_string(), 60, &[&authority]);
    credentials.set(&by_stranger).unwrap();
    let pretender = serve(credentials).await;
    let error = call(pretender.address, &client).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");

    let credentials = Credentials::default();
    let expired = authority.sign(&node().to_string(), -1, &[&authority]);
    credentials.set(&expired).unwrap();
    let expired = serve(credentials).await;
    let error = call(expired.address, &client).await.unwrap_err();
    assert!(error.contains("xpired"), "{error}");
}

#[tokio::test]
async fn a_permission_that_is_taken_back_ends_the_open_stream() {
    let authority = Authority::new("one");
    let serving = serve(authority.credentials(&node().to_string())).await;
    let client = authority.credentials(&runtime_of("field").to_string());
    assert!(call(serving.address, &client).await.is_err());

    serving.allowed.set(["field".to_owned()].into());
    let channel = connect(endpoint(serving.address), Some(&client), &node())
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest::default();
    let mut stream = health.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();

    serving.allowed.set([].into());
    let ended = tokio::time::timeout(LIMIT, stream.message()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    let refused = call(serving.address, &client).await.unwrap_err();
    assert!(refused.contains("PermissionDenied"), "{refused}");
    // Others are not touched.
    let own = authority.credentials(&runtime_of("meadow").to_string());
    call(serving.address, &own).await.unwrap();
}

#[tokio::test]
async fn a_folder_is_read_again_and_what_is_in_between_two_changes_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let write = |material: &Material| {
        for (name, bytes) in [
            ("ca.crt", &material.authorities),
            ("tls.crt", &material.certificate),
            ("tls.key", &material.key),
        ] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
    };
    let shutdown = CancellationToken::new();
    let missing = Credentials::of_folder(folder.path(), shutdown.clone());
    let missing = missing.map(|_| ()).unwrap_err().to_string();
    assert!(missing.contains("mount the Secret"), "{missing}");

    let authority = Authority::new("one");
    let first = authority.sign(&node().to_string(), 60, &[&authority]);
    write(&first);
    let (credentials, follow) = Credentials::of_folder(folder.path(), shutdown.clone()).unwrap();
    let following = tokio::spawn(follow);
    assert_eq!(credentials.identity(), Some(node()));

    // The new certificate with the old key: the folder is being changed.
    let renamed = "spiffe://atomix.io/runtime/meadow";
    let second = authority.sign(renamed, 60, &[&authority]);
    std::fs::write(folder.path().join("tls.crt"), &second.certificate).unwrap();
    tokio::time::sleep(LOOK_EVERY * 2).await;
    assert_eq!(credentials.identity(), Some(node()));

    write(&second);
    let deadline = Instant::now() + LIMIT;
    while credentials.identity() != Some(runtime_of("meadow")) {
        assert!(Instant::now() < deadline, "the change was not seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shutdown.cancel();
    following.await.unwrap().unwrap();
}

/// As cert-manager renews it: nothing but the key is another one.
#[tokio::test]
async fn authorities_of_the_same_name_are_told_apart_by_their_signatures() {
    let [first, second, foreign] = [(); 3].map(|()| Authority::new("garden"));
    let both = [&first, &second];
    let shown = Credentials::default();
    let text = node().to_string();
    for of_node in both {
        shown.set(&of_node.sign(&text, 60, &both)).unwrap();
        let serving = serve(shown.clone()).await;
        for of_caller in both {
            let caller = Credentials::default();
            caller.set(&of_caller.sign(&text, 60, &both)).unwrap();
            call(serving.address, &caller).await.unwrap();
        }
        let stranger = Credentials::default();
        stranger.set(&foreign.sign(&text, 60, &both)).unwrap();
        let refused = call(serving.address, &stranger).await;
        assert!(refused.is_err(), "the name alone opens the port");
    }
}

#[tokio::test]
async fn authorities_are_replaced_without_a_refused_connection() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = old.credentials(&node().to_string());
    let client = old.credentials(&runtime_of("meadow").to_string());
    let serving = serve(server.clone()).await;
    let name = |credentials: &Credentials| credentials.identity().unwrap().to_string();
    let both = [&old, &new];
    // Each step reaches one side before the other, in either order.
    let steps: [(&Authority, &[&Authority]); 3] = [(&old, &both), (&new, &both), (&new, &[&new])];
    for (step, (signer, trusted)) in steps.into_iter().enumerate() {
        let mut sides = [&server, &client];
        if step % 2 == 0 {
            sides.reverse();
        }
        for side in sides {
            side.set(&signer.sign(&name(side), 60, trusted)).unwrap();
            call(serving.address, &client).await.unwrap();
        }
    }
}
