//! gRPC to a pod's port, through the API server.

use std::io;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Opens a channel; it forwards anew if the first connection breaks.
///
/// # Errors
/// When the port cannot be forwarded or nothing answers.
pub(crate) async fn open(pods: Api<Pod>, pod: &str, port: u16) -> Result<Channel> {
    let name = pod.to_owned();
    let connector = service_fn(move |_: Uri| {
        let (pods, name) = (pods.clone(), name.clone());
        async move {
            let mut forwarder = pods
                .portforward(&name, &[port])
                .await
                .map_err(io::Error::other)?;
            let stream = forwarder
                .take_stream(port)
                .ok_or_else(|| io::Error::other("the port was not forwarded"))?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The host is not used: the connector knows where to go.
    Endpoint::from_static("http://pod")
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("cannot reach port {port} of pod {pod}"))
}
