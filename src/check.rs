//! `atomix-operator check`: asks a running operator whether it answers, for `helm test`.

use std::time::Duration;

use atomix_proto::runtime::v1::ListSessionsRequest;
use atomix_proto::runtime::v1::session_service_client::SessionServiceClient;
use clap::Args;
use thiserror::Error;
use tonic::transport::Endpoint;

/// Between two attempts.
const PERIOD: Duration = Duration::from_secs(1);

/// Which operator is asked.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the operator serves gRPC, such as http://atomix-operator.atomix-system.svc:5682.
    #[arg(long)]
    pub address: String,
    /// How long it is waited for, in seconds.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
}

/// Why an operator did not answer.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It cannot be an address.
    #[error("{0} is no address: give one such as http://atomix-operator.atomix-system.svc:5682")]
    Address(String),
    /// It did not answer in time.
    #[error("the operator at {address} did not answer within {seconds} s: {last}; look at its log")]
    Silent {
        /// Where.
        address: String,
        /// How long it was waited for.
        seconds: u64,
        /// What was wrong last.
        last: String,
    },
}

/// Asks until it answers; returns how many Sessions it serves.
///
/// # Errors
/// When it does not answer in time.
pub async fn check(args: &CheckArgs) -> Result<usize, CheckError> {
    let endpoint = Endpoint::from_shared(args.address.clone())
        .map_err(|_| CheckError::Address(args.address.clone()))?
        .connect_timeout(PERIOD * 5)
        .timeout(PERIOD * 10);
    let mut last = "no attempt has ended".to_owned();
    let asked = async {
        loop {
            match ask(&endpoint).await {
                Ok(sessions) => return sessions,
                Err(error) => last = error,
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    let answered = tokio::time::timeout(Duration::from_secs(args.timeout), asked).await;
    answered.map_err(|_| CheckError::Silent {
        address: args.address.clone(),
        seconds: args.timeout,
        last,
    })
}

async fn ask(endpoint: &Endpoint) -> Result<usize, String> {
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let request = ListSessionsRequest::default();
    let answer = SessionServiceClient::new(channel)
        .list_sessions(request)
        .await;
    let answer = answer.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner().sessions.len())
}
