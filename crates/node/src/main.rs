//! The storage node's program; everything it does is in the library.

use anyhow::Context as _;
use atomix_node::{Options, RecoverOptions, Service};
use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The one command beside serving; it has options of its own.
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == "recover").is_some() {
        let named = std::iter::once("atomix-node recover".into()).chain(arguments);
        let options = RecoverOptions::parse_from(named);
        let mut report = std::io::stdout();
        let recovering = atomix_node::recover_offline(&options, &mut report);
        return Box::pin(recovering).await.context("nothing was recovered");
    }
    let options = Options::parse();
    atomix_process::logging::init_with(options.log_format, options.log_filter.as_deref());
    let shutdown = atomix_process::shutdown::on_signals().context("cannot handle signals")?;
    let node = Box::pin(Service::new(options).start(shutdown)).await?;
    node.join().await.context("the node broke")
}
