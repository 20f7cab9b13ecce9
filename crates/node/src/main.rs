//! The storage node's program; everything it does is in the library.

use anyhow::Context as _;
use atomix_node::{Options, Service};
use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    atomix_process::logging::init_with(options.log_format, options.log_filter.as_deref());
    let shutdown = atomix_process::shutdown::on_signals().context("cannot handle signals")?;
    let node = Box::pin(Service::new(options).start(shutdown)).await?;
    node.join().await.context("the node broke")
}
