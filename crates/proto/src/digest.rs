//! Digests by which the operator compares what a runtime has with what it should have.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::runtime::v1::Route;

/// Lower-case hex SHA-256 of a JSON document with its keys sorted and without white space, so that
/// documents that mean the same have the same digest. Text that is not JSON is digested as it is.
pub fn config_digest(config: &[u8]) -> String {
    // serde_json's map is ordered by key.
    match serde_json::from_slice::<serde_json::Value>(config) {
        Ok(value) => hex_sha256(value.to_string().as_bytes()),
        Err(_) => hex_sha256(config),
    }
}

/// Lower-case hex SHA-256 of a routing table. The order of the routes counts: older ones win.
pub fn routes_digest(routes: &[Route]) -> String {
    let mut encoded = Vec::new();
    for route in routes {
        encoded.extend(route.encode_length_delimited_to_vec());
    }
    hex_sha256(&encoded)
}

fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_digest_ignores_key_order_and_white_space() {
        assert_eq!(
            config_digest(br#"{"b": [1, 2], "a": {"y": 1, "x": 2}}"#),
            config_digest(br#"{"a":{"x":2,"y":1},"b":[1,2]}"#)
        );
        assert_ne!(config_digest(b"{}"), config_digest(br#"{"a":1}"#));
    }

    #[test]
    fn routes_digest_depends_on_order() {
        let route = |tag: &str| Route {
            tags: vec![tag.to_owned()],
            ..Route::default()
        };
        assert_ne!(
            routes_digest(&[route("a"), route("b")]),
            routes_digest(&[route("b"), route("a")])
        );
    }
}
