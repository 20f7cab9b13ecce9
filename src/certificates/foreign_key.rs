//! Private keys as other programs write them. Keys are read here as PKCS #8 alone; OpenSSL, Go and so
//! cert-manager also write PKCS #1 (RSA) and SEC 1 (elliptic curves), which PKCS #8 wraps.

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::x509::{X509Error, unreadable};

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

/// Version 0 and the kind of key, as RFC 5958 puts them before the key itself: rsaEncryption.
const RSA: &[u8] = b"\x02\x01\x00\
    \x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// The same: id-ecPublicKey with prime256v1, and with secp384r1.
const CURVES: [&[u8]; 2] = [
    b"\x02\x01\x00\
    \x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
    b"\x02\x01\x00\
    \x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
];

/// The first private key of a PEM text.
///
/// # Errors
/// When there is none, or of a kind that cannot sign here.
pub(crate) fn read(what: &'static str, pem: &[u8]) -> Result<KeyPair, X509Error> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| unreadable(what, error))?;
    let candidates = match &key {
        PrivateKeyDer::Pkcs8(key) => vec![key.secret_pkcs8_der().to_vec()],
        PrivateKeyDer::Pkcs1(key) => vec![wrapped(RSA, key.secret_pkcs1_der())],
        // Which curve it is, is said only inside.
        PrivateKeyDer::Sec1(key) => CURVES
            .iter()
            .map(|curve| wrapped(curve, key.secret_sec1_der()))
            .collect(),
        _ => Vec::new(),
    };
    let pair = |der: Vec<u8>| KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).ok();
    candidates.into_iter().find_map(pair).ok_or_else(|| {
        unreadable(
            what,
            "use an RSA key of 2048 bits or more, ECDSA on P-256 or P-384, or Ed25519",
        )
    })
}

fn wrapped(kind: &[u8], key: &[u8]) -> Vec<u8> {
    let key = tagged(OCTET_STRING, key);
    tagged(SEQUENCE, &[kind, &key].concat())
}

/// A value of DER: tag, length, content.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = length.iter().skip_while(|byte| **byte == 0);
    let digits: Vec<u8> = digits.copied().collect();
    let mut value = vec![tag];
    match (digits.as_slice(), u8::try_from(digits.len())) {
        ([], _) => value.push(0),
        ([short], _) if *short < 0x80 => value.push(*short),
        (long, count) => {
            // At most the eight bytes of a length.
            value.push(0x80 | count.unwrap_or(8));
            value.extend(long);
        }
    }
    value.extend(content);
    value
}
