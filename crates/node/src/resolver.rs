//! Turns the names in plans into addresses: DNS, or a hosts file where there is no DNS.
//!
//! Nothing is cached here: a name is looked up for each new connection, so that a pod that came back
//! under another address is found.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use thiserror::Error;

/// Why an address could not be resolved.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// Not of the form host:port.
    #[error("address {address:?} is not of the form host:port")]
    Malformed {
        /// The address.
        address: String,
    },
    /// The name has no address at the moment.
    #[error("no address is known for {name:?}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Asking failed.
    #[error("cannot resolve {name:?}")]
    Failed {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Finds where a host:port is reached.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// The first address of `address`, a host:port whose host is a name or an IP address.
    ///
    /// # Errors
    /// When it is malformed, unknown, or asking failed.
    async fn resolve(&self, address: &str) -> Result<SocketAddr, ResolveError>;
}

/// Splits host:port; the host of an IPv6 address stands in brackets.
///
/// # Errors
/// When it is not of that form, the host is empty or the port is 0.
pub(crate) fn split_host_port(address: &str) -> Result<(&str, u16), ResolveError> {
    let malformed = || ResolveError::Malformed {
        address: address.to_owned(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port: u16 = port.parse().map_err(|_| malformed())?;
    let known_shape = !host.is_empty() && !host.contains(char::is_whitespace);
    if !known_shape || port == 0 || (host.contains(':') && host.parse::<IpAddr>().is_err()) {
        return Err(malformed());
    }
    Ok((host, port))
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct DnsResolver;

#[async_trait]
impl Resolver for DnsResolver {
    async fn resolve(&self, address: &str) -> Result<SocketAddr, ResolveError> {
        let (host, port) = split_host_port(address)?;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, port));
        }
        let mut addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|source| ResolveError::Failed {
                name: host.to_owned(),
                source,
            })?;
        addresses.next().ok_or_else(|| ResolveError::NotFound {
            name: host.to_owned(),
        })
    }
}

/// Names from a file with lines "name address"; names that it does not list are asked of DNS.
#[derive(Debug)]
pub struct HostsFileResolver {
    path: PathBuf,
    read: Mutex<ReadHosts>,
}

#[derive(Debug, Default)]
struct ReadHosts {
    /// Modification time and length of what was read last; `None` = nothing yet.
    version: Option<(SystemTime, u64)>,
    addresses: HashMap<String, IpAddr>,
}

impl HostsFileResolver {
    /// Reads the file at the first look-up, so it may appear later.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: Mutex::default(),
        }
    }

    fn look_up(&self, name: &str) -> io::Result<Option<IpAddr>> {
        let metadata = std::fs::metadata(&self.path)?;
        let version = Some((metadata.modified()?, metadata.len()));
        let mut read = self.read.lock();
        if read.version != version {
            read.addresses = parse_hosts(&self.path, &std::fs::read_to_string(&self.path)?);
            read.version = version;
        }
        Ok(read.addresses.get(name).copied())
    }
}

fn parse_hosts(path: &Path, text: &str) -> HashMap<String, IpAddr> {
    let mut addresses = HashMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (Some(name), Some(address)) = (words.next(), words.next()) else {
            continue;
        };
        match address.parse() {
            Ok(address) => {
                addresses.insert(name.to_owned(), address);
            }
            Err(_) => {
                tracing::warn!(path = %path.display(), name, address, "not an IP address in the hosts file");
            }
        }
    }
    addresses
}

#[async_trait]
impl Resolver for HostsFileResolver {
    async fn resolve(&self, address: &str) -> Result<SocketAddr, ResolveError> {
        let (host, port) = split_host_port(address)?;
        let found = self.look_up(host).map_err(|source| ResolveError::Failed {
            name: host.to_owned(),
            source,
        })?;
        match found {
            Some(ip) => Ok(SocketAddr::new(ip, port)),
            None => DnsResolver.resolve(address).await,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn host_and_port_are_split_or_refused() {
        let cases = [
            ("node-0.nodes:5681", Some(("node-0.nodes", 5681))),
            ("127.0.0.1:80", Some(("127.0.0.1", 80))),
            ("[::1]:80", Some(("::1", 80))),
            ("node-0", None),
            (":5681", None),
            ("node-0:0", None),
            ("node-0:65536", None),
            ("node 0:1", None),
            ("a:b:1", None),
        ];
        for (address, expected) in cases {
            assert_eq!(split_host_port(address).ok(), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn a_changed_hosts_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let resolver = HostsFileResolver::new(path.clone());
        assert!(resolver.resolve("node-0.nodes:7").await.is_err());

        std::fs::write(
            &path,
            "# nodes\nnode-0.nodes 127.0.0.2 # the first\nbroken\n",
        )
        .unwrap();
        let first = resolver.resolve("node-0.nodes:7").await.unwrap();
        assert_eq!(first, "127.0.0.2:7".parse().unwrap());

        std::fs::write(&path, "node-0.nodes 127.0.0.33\n").unwrap();
        let second = resolver.resolve("node-0.nodes:7").await.unwrap();
        assert_eq!(second, "127.0.0.33:7".parse().unwrap());
    }
}
