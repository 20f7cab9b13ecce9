#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

type Serving = tokio::task::JoinHandle<Result<(), tonic::transport::Error>>;

async fn start() -> (SocketAddr, CancellationToken, Serving) {
    let (_, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(
        Server::builder(),
        Routes::new(health),
        TcpListenerStream::new(listener),
        shutdown.clone(),
    ));
    (address, shutdown, serving)
}

#[tokio::test]
async fn an_open_stream_ends_at_the_shutdown_and_does_not_hold_the_server() {
    let (address, shutdown, serving) = start().await;
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let request = HealthCheckRequest::default();
    let mut watch = client.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();

    let began = Instant::now();
    shutdown.cancel();
    let ended = watch.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    serving.await.unwrap().unwrap();
    assert!(began.elapsed() < DRAIN, "it was not cut off");
}

#[tokio::test]
async fn a_connection_that_says_nothing_holds_the_server_no_longer_than_the_drain() {
    let (address, shutdown, serving) = start().await;
    let _silent = TcpStream::connect(address).await.unwrap();
    // A call that works shows that the connection before it was accepted.
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    client.check(HealthCheckRequest::default()).await.unwrap();

    shutdown.cancel();
    let ended = tokio::time::timeout(DRAIN * 2, serving).await;
    ended.unwrap().unwrap().unwrap();
}
