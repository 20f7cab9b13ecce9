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
    let credentials = atomix_tls::open_or_plaintext(options.tls_directory.as_deref(), &shutdown)?;
    let drivers = built_in_drivers(&options, credentials.clone());
    Sidecar::start(&options, drivers, credentials, shutdown)
        .await?
        .run()
        .await?;
    Ok(())
}
