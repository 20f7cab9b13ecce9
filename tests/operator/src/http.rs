//! Plain HTTP, as probes and Prometheus ask it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For how long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// Gets a page: its status code, and its text.
///
/// # Errors
/// When nobody answers.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(LIMIT, asked)
        .await
        .context("no answer in time")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let code = head.split(' ').nth(1).context("no status code")?;
    Ok((code.parse()?, body.to_owned()))
}
