//! Spans reach a collector that speaks OTLP; one that does not costs no work.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use atomix_process::traces;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

/// Spans of work in a time in which a healthy program waits for nothing; more than are kept in memory.
const SPANS: usize = 10_000;

/// What the end may cost (two seconds, by the documentation), on a busy machine.
const END: Duration = Duration::from_secs(4);

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_spans_reach_the_collector_and_no_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut exports) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(sender)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);

    let (layer, sent) = traces::layer::<Registry>("bees", &endpoint).unwrap();
    let subscriber = Registry::default().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let outer = tracing::info_span!(target: "atomix_garden", "reconcile", object = "tulip");
        let _outer = outer.enter();
        tracing::debug_span!(target: "atomix_garden", "call").in_scope(|| {});
        tracing::info_span!(target: "h2", "foreign").in_scope(|| {});
    });
    tokio::task::spawn_blocking(move || drop(sent))
        .await
        .unwrap();

    let mut spans = Vec::new();
    while spans.len() < 2 {
        let export = tokio::time::timeout(Duration::from_secs(10), exports.recv());
        let export = export.await.unwrap().unwrap();
        for resource in export.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let is_named = |name: &str| attributes.iter().any(|found| found.key == name);
            assert!(is_named("service.name"), "{attributes:?}");
            for scope in resource.scope_spans {
                spans.extend(scope.spans);
            }
        }
    }
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["call", "reconcile"]);
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(of("call").parent_span_id, of("reconcile").span_id);
    let attributes = &of("reconcile").attributes;
    let mut attributes = attributes.iter();
    assert!(
        attributes.any(|found| found.key == "object"),
        "{attributes:?}"
    );
}

struct Refusing;

#[tonic::async_trait]
impl TraceService for Refusing {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Err(Status::resource_exhausted("the test takes nothing"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_silent_or_refuses_costs_spans_and_no_work() {
    let bind = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let closed = bind().await.local_addr().unwrap();
    // The kernel takes connections for it.
    let silent = bind().await;
    let refusing = bind().await;
    let addresses = [
        ("away", closed),
        ("silent", silent.local_addr().unwrap()),
        ("refusing", refusing.local_addr().unwrap()),
    ];
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Refusing))
        .serve_with_incoming(TcpListenerStream::new(refusing));
    tokio::spawn(server);

    for (what, address) in addresses {
        let endpoint = format!("http://{address}");
        let (layer, sent) = traces::layer::<Registry>("bees", &endpoint).unwrap();
        let subscriber = Registry::default().with(layer);
        let began = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..SPANS {
                tracing::info_span!(target: "atomix_garden", "reconcile").in_scope(|| {});
            }
        });
        let worked = began.elapsed();
        assert!(worked < Duration::from_secs(2), "{what}: {worked:?}");
        let ending = Instant::now();
        tokio::task::spawn_blocking(move || drop(sent))
            .await
            .unwrap();
        let ended = ending.elapsed();
        assert!(ended < END, "{what}: {ended:?}");
    }
}

#[tokio::test]
async fn what_is_no_url_is_refused() {
    let refused = traces::layer::<Registry>("bees", "not a url")
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("http://collector:4317"),
        "{refused}"
    );
}
