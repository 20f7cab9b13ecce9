//! The program `atomix-runtime`.

use std::error::Error;

use atomix_process::{logging, shutdown};
use atomix_runtime::{Options, Sidecar, built_in_drivers};
use clap::Parser as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    logging::init_with(options.log_format, options.log_filter.as_deref());
    let shutdown = shutdown::on_signals()?;
    let sidecar = Sidecar::start(&options, built_in_drivers, shutdown).await?;
    sidecar.run().await?;
    Ok(())
}
