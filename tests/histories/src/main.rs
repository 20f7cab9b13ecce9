//! The program `atomix-histories`.

use atomix_histories::{Options, record};
use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    record(&options).await
}
