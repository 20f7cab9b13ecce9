//! `atomix-operator check`: asks a running operator whether it is ready, for `helm test`.

use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Between two attempts.
const PERIOD: Duration = Duration::from_secs(1);

/// For how long one attempt waits.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Which operator is asked.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Its admin port, such as atomix-operator.atomix-system.svc:9090.
    #[arg(long)]
    pub address: String,
    /// How long it is waited for, in seconds.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
}

/// The operator was not ready in time.
#[derive(Debug, Error)]
#[error(
    "the operator at {address} is not ready within {seconds} s: {last}; give its admin port as \
     HOST:PORT, and look at its log"
)]
pub struct NotReady {
    address: String,
    seconds: u64,
    last: String,
}

/// Asks until the operator says that it is ready: its controllers work, or stand by.
///
/// # Errors
/// When it does not say so in time.
pub async fn check(args: &CheckArgs) -> Result<(), NotReady> {
    let mut last = "no attempt has ended".to_owned();
    let asked = async {
        loop {
            match tokio::time::timeout(ATTEMPT, ask(&args.address)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => last = error,
                Err(_elapsed) => last = format!("no answer within {ATTEMPT:?}"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    let answered = tokio::time::timeout(Duration::from_secs(args.timeout), asked).await;
    answered.map_err(|_elapsed| NotReady {
        address: args.address.clone(),
        seconds: args.timeout,
        last,
    })
}

async fn ask(address: &str) -> Result<(), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        return Ok(());
    }
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Err(format!("it answers {status}: {}", body.trim()))
}
