#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::ByteString;
use kube::core::ObjectMeta;
use rcgen::{CustomExtension, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints};

use super::super::authority::{Authority, Origin, Step};
use super::super::company;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn key() -> ObjectKey {
    ObjectKey::new("garden", "company")
}

fn secret(chain: &str, key: &str) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta::default(),
        data: Some(Data::from([
            (CHAIN.to_owned(), bytes(chain)),
            (KEY.to_owned(), bytes(key)),
        ])),
        ..Secret::default()
    }
}

fn of(pair: &Pair) -> Secret {
    secret(&pair.certificate.pem, &pair.key)
}

fn take(secret: &Secret) -> Result<Pair, SourceError> {
    read(&key(), Some(secret), now(), &Lifetimes::default())
}

/// The operator takes it over, and those who trust it take what it signs.
fn signs(taken: &Pair) {
    let origin = Origin::Source(Some(taken));
    let lifetimes = Lifetimes::default();
    let authority = Authority::after(Step::Begin, None, origin, now(), &lifetimes).unwrap();
    let stored = Authority::of(&authority.data()).unwrap();
    assert_eq!(stored, authority);
    let leaf = stored
        .sign(&Identity::Operator, now(), &lifetimes)
        .unwrap()
        .certificate;
    leaf.is_trusted_by(&taken.certificate, now()).unwrap();
    assert!(leaf.expires <= taken.certificate.expires);
}

/// Certificates and keys that OpenSSL has made, of the kinds that cert-manager writes.
#[test]
fn keys_of_other_programs_are_read() {
    for (kind, pem) in [
        ("PKCS #1", include_str!("tests/rsa.pem")),
        ("SEC 1", include_str!("tests/p256.pem")),
        ("SEC 1", include_str!("tests/p384.pem")),
        ("PKCS #8", include_str!("tests/ed25519.pem")),
    ] {
        let taken = take(&secret(pem, pem)).unwrap_or_else(|error| panic!("{kind}: {error}"));
        signs(&taken);
    }
    let refused = take(&secret(
        include_str!("tests/p521.pem"),
        include_str!("tests/p521.pem"),
    ));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("P-256"), "{refused}");
}

#[test]
fn of_a_chain_the_first_certificate_alone_is_taken() {
    let above = company::authority(now(), HOUR * 9);
    let taken = company::intermediate(&above, &company::params(now(), HOUR * 5));
    let chain = [&taken, &above].map(|pair| pair.certificate.pem.clone());
    let found = take(&secret(&chain.concat(), &taken.key)).unwrap();
    assert_eq!(found.certificate, taken.certificate);
    signs(&found);
    let sibling = company::intermediate(&above, &company::params(now(), HOUR));
    let refused = sibling.certificate.is_trusted_by(&found.certificate, now());
    assert!(refused.is_err(), "what another signed is trusted");
}

#[test]
fn what_cannot_be_taken_over_says_why_and_what_to_do() {
    let good = company::authority(now(), HOUR);
    let other = company::authority(now(), HOUR);
    signs(&take(&of(&good)).unwrap());

    let made = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = company::params(now(), HOUR);
        change(&mut params);
        of(&company::self_signed(
            &params,
            &rcgen::KeyPair::generate().unwrap(),
        ))
    };
    let leaf = made(&|params| params.is_ca = IsCa::ExplicitNoCa);
    let silent = made(&|params| params.is_ca = IsCa::NoCa);
    let used_otherwise =
        made(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let limited = made(&|params| {
        let names = GeneralSubtree::DnsName(".garden.example".to_owned());
        let limits = NameConstraints {
            permitted_subtrees: vec![names],
            excluded_subtrees: Vec::new(),
        };
        params.name_constraints = Some(limits);
    });
    // Names of hosts are not what identities are made of.
    signs(&take(&limited).unwrap());

    // Name constraints (2.5.29.30) that exclude the URIs of a host.
    let without_uris = made(&|params| {
        let limits = b"\x30\x07\xa1\x05\x30\x03\x86\x01x".to_vec();
        let limits = CustomExtension::from_oid_content(&[2, 5, 29, 30], limits);
        params.custom_extensions.push(limits);
    });

    let past = company::authority(now() - HOUR, HOUR);
    let short = company::authority(now(), Duration::from_secs(1700));
    let (pem, secret_key) = (good.certificate.pem.as_str(), good.key.as_str());
    for (case, secret, words) in [
        ("no certificate", secret("", secret_key), "tls.crt has no"),
        ("no key", secret(pem, ""), "cannot read tls.key"),
        (
            "rubbish",
            secret(&pem.replace('M', "?"), secret_key),
            "cannot read tls.crt",
        ),
        ("another's key", secret(pem, &other.key), "not the key of"),
        ("a leaf", leaf, "isCA: true"),
        ("nothing said", silent, "isCA: true"),
        ("for something else", used_otherwise, "isCA: true"),
        ("no URIs", without_uris, "takes what it signs"),
        ("expired", of(&past), "2027-01-15T08:00:00Z: renew it"),
        ("short-lived", of(&short), "at least 1800 s"),
        ("empty", Secret::default(), "tls.crt has no"),
    ] {
        let refused = take(&secret).unwrap_err().to_string();
        assert!(refused.contains(words), "{case}: {refused}");
        assert!(refused.contains("garden/company"), "{case}: {refused}");
    }
    let missing = read(&key(), None, now(), &Lifetimes::default()).unwrap_err();
    assert!(missing.to_string().contains("there is no Secret"));
}
