//! Turns names into addresses: DNS, or a hosts file where there is no DNS.
//!
//! Nothing is cached here: a pod that comes back under another address must be found.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use async_trait::async_trait;

/// A host name and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A DNS name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host`, `host:port`, an IPv4 address, or an IPv6 address (in brackets before a port).
    /// `None` when it is none of these, or when the port is missing and there is no default.
    #[must_use]
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self {
                host: ip.to_string(),
                port: default_port?,
            });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then(|| Self {
                host: address.ip().to_string(),
                port: address.port(),
            });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (text, default_port?),
        };
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(valid) {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Looks names up.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of a name, sorted, without duplicates and never empty.
    ///
    /// # Errors
    /// When the name cannot be looked up or has no address.
    async fn resolve(&self, name: &HostPort) -> io::Result<Vec<SocketAddr>>;
}

/// Asks the system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct DnsResolver;

#[async_trait]
impl Resolver for DnsResolver {
    async fn resolve(&self, name: &HostPort) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((name.host.as_str(), name.port)).await?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(no_address(name));
        }
        Ok(addresses)
    }
}

/// Reads a file with lines `NAME ADDRESS`; a name may stand on several lines, `#` begins a comment.
/// The file is read for each look-up, so it may change at any time. Names that it does not list are
/// asked of DNS.
#[derive(Debug, Clone)]
pub struct HostsFileResolver {
    path: PathBuf,
}

impl HostsFileResolver {
    /// A resolver over the file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

#[async_trait]
impl Resolver for HostsFileResolver {
    async fn resolve(&self, name: &HostPort) -> io::Result<Vec<SocketAddr>> {
        let text = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let listed = parse_hosts(&text).remove(name.host.as_str());
        match listed {
            Some(ips) => {
                let mut addresses: Vec<_> = ips
                    .iter()
                    .map(|ip| SocketAddr::new(*ip, name.port))
                    .collect();
                addresses.sort_unstable();
                addresses.dedup();
                Ok(addresses)
            }
            None => DnsResolver.resolve(name).await,
        }
    }
}

fn parse_hosts(text: &str) -> HashMap<&str, Vec<IpAddr>> {
    let mut hosts: HashMap<&str, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let entry = line.split('#').next().unwrap_or_default();
        let mut words = entry.split_whitespace();
        let (Some(name), Some(address)) = (words.next(), words.next()) else {
            continue;
        };
        match address.parse() {
            Ok(ip) => hosts.entry(name).or_default().push(ip),
            Err(_) => tracing::warn!(name, address, "not an IP address in the hosts file"),
        }
    }
    hosts
}

fn no_address(name: &HostPort) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("no address is known for {}", name.host),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_with_and_without_ports_are_read_or_refused() {
        let cases = [
            ("store-a.team.svc", Some(("store-a.team.svc", 5681))),
            ("store-a.team.svc:7000", Some(("store-a.team.svc", 7000))),
            ("127.0.0.7", Some(("127.0.0.7", 5681))),
            ("127.0.0.7:1", Some(("127.0.0.7", 1))),
            ("[::1]:9", Some(("::1", 9))),
            ("::1", Some(("::1", 5681))),
            ("", None),
            (":80", None),
            ("a:0", None),
            ("127.0.0.7:0", None),
            ("a:70000", None),
            ("a b", None),
            ("http://a", None),
        ];
        for (text, expected) in cases {
            let parsed = HostPort::parse(text, Some(5681));
            let parsed = parsed.as_ref().map(|name| (name.host.as_str(), name.port));
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert_eq!(HostPort::parse("store-a", None), None);
    }

    #[tokio::test]
    async fn a_name_has_all_its_lines_and_changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let resolver = HostsFileResolver::new(path.clone());
        let name = HostPort::parse("nodes.invalid:7", None).unwrap();
        assert!(resolver.resolve(&name).await.is_err());

        let text = "nodes.invalid 127.0.0.3 # third\nnodes.invalid 127.0.0.2\nother 127.0.0.9\n";
        std::fs::write(&path, text).unwrap();
        let expected: Vec<SocketAddr> = vec![
            "127.0.0.2:7".parse().unwrap(),
            "127.0.0.3:7".parse().unwrap(),
        ];
        assert_eq!(resolver.resolve(&name).await.unwrap(), expected);

        std::fs::write(&path, "nodes.invalid 127.0.0.4\n").unwrap();
        let expected: Vec<SocketAddr> = vec!["127.0.0.4:7".parse().unwrap()];
        assert_eq!(resolver.resolve(&name).await.unwrap(), expected);
    }
}
