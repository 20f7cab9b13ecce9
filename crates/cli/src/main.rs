//! See the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    atomix_cli::main().await
}
