//! Where the sidecar serves applications.

use std::env;

/// Set in the containers of a pod that gets its sidecar by injection.
const HOST: &str = "ATOMIX_RUNTIME_HOST";
/// As [`HOST`].
const PORT: &str = "ATOMIX_RUNTIME_PORT";
const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: &str = "5678";

/// As the environment says; what it does not say is the default.
pub(crate) fn from_environment() -> String {
    address(env::var(HOST).ok(), env::var(PORT).ok())
}

fn address(host: Option<String>, port: Option<String>) -> String {
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let host = given(host).unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let port = given(port).unwrap_or_else(|| DEFAULT_PORT.to_owned());
    if host.contains(':') && !host.starts_with('[') {
        return format!("[{host}]:{port}");
    }
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_followed_and_what_it_leaves_out_is_the_default() {
        let of = |host: Option<&str>, port: Option<&str>| {
            address(host.map(str::to_owned), port.map(str::to_owned))
        };
        assert_eq!(of(None, None), "127.0.0.1:5678");
        assert_eq!(of(Some(""), Some("")), "127.0.0.1:5678");
        assert_eq!(of(Some("localhost"), None), "localhost:5678");
        assert_eq!(of(None, Some("1234")), "127.0.0.1:1234");
        assert_eq!(of(Some("::1"), Some("1")), "[::1]:1");
        assert_eq!(of(Some("[::1]"), None), "[::1]:5678");
    }
}
