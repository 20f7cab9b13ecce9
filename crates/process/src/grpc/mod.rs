//! What every gRPC server of Atomix does alike: the code for oversized messages, callers'
//! deadlines, and its end.
//!
//! Not for limits, windows and services: those are each program's own.

pub mod deadline;
pub mod fencing;
mod open_streams;
mod oversized;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::util::MapResponseLayer;

pub use oversized::next_message;

/// How long calls in flight may take after the shutdown began. Less than the grace period of
/// [`crate::tasks::Tasks`], so that a peer that does not read cannot make an orderly end a failure.
pub const DRAIN: Duration = Duration::from_secs(3);

/// Serves until `shutdown` is cancelled. Then no call is accepted any more, streams that have
/// nothing left to send end with UNAVAILABLE, and calls in flight may take [`DRAIN`].
///
/// # Errors
/// When accepting connections fails.
pub async fn serve<I, IO>(
    server: Server,
    routes: Routes,
    connections: I,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    I: Stream<Item = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    let streams_end = shutdown.clone();
    let mut server = server.layer(MapResponseLayer::new(move |response| {
        open_streams::end_at(oversized::correct(response), &streams_end)
    }));
    let serving = server
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = drained => {
            tracing::warn!("calls did not end within {DRAIN:?} of the shutdown; they are cut off");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
