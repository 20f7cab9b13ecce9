//! A kubelet's probes, from the probe that a container names.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For how long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether the probe succeeds at this address; without a probe it does. A gRPC probe counts as
/// succeeded when its port accepts a connection.
pub async fn succeeds(probe: Option<&Probe>, container: &Container, address: Ipv4Addr) -> bool {
    let Some(probe) = probe else { return true };
    let attempt = async {
        if let Some(get) = &probe.http_get {
            let port = number(&get.port, container)?;
            return http_get(address, port, get.path.as_deref().unwrap_or("/")).await;
        }
        let port = match (&probe.tcp_socket, &probe.grpc) {
            (Some(socket), _) => number(&socket.port, container)?,
            (None, Some(grpc)) => u16::try_from(grpc.port).ok()?,
            (None, None) => return None,
        };
        TcpStream::connect((address, port)).await.ok().map(|_| ())
    };
    matches!(tokio::time::timeout(LIMIT, attempt).await, Ok(Some(())))
}

fn number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.ports.as_ref()?;
            let named = ports.iter().find(|port| port.name.as_ref() == Some(name))?;
            named.container_port
        }
    };
    u16::try_from(number).ok()
}

async fn http_get(address: Ipv4Addr, port: u16, path: &str) -> Option<()> {
    let mut stream = TcpStream::connect((address, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut status_line = [0; 12];
    stream.read_exact(&mut status_line).await.ok()?;
    let code = std::str::from_utf8(&status_line)
        .ok()?
        .strip_prefix("HTTP/1.1 ")?;
    matches!(code.as_bytes(), [b'2' | b'3', ..]).then_some(())
}
