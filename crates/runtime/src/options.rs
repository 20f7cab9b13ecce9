//! Command line and environment of the runtime.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use atomix_process::logging::LogFormat;
use clap::Parser;

/// The Atomix runtime: the sidecar that connects an application to its stores.
#[derive(Debug, Clone, Parser)]
#[command(name = "atomix-runtime", bin_name = "atomix-runtime", version)]
pub struct Options {
    /// Where the operator reaches the sidecar.
    #[arg(long, env = "ATOMIX_CONTROL_ADDR", default_value = "0.0.0.0:5679")]
    pub control_addr: SocketAddr,

    /// Where the application reaches the sidecar; may be given several times.
    #[arg(
        long,
        env = "ATOMIX_APP_ADDR",
        value_delimiter = ',',
        default_values = ["127.0.0.1:5678", "[::1]:5678"]
    )]
    pub app_addr: Vec<SocketAddr>,

    /// Where probes and metrics are served.
    #[arg(long, env = "ATOMIX_ADMIN_ADDR", default_value = "0.0.0.0:5677")]
    pub admin_addr: SocketAddr,

    /// Folder in which connections and routes are kept over a restart. Without it they are lost, and
    /// the operator restores them.
    #[arg(long, env = "ATOMIX_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// Folder with tls.crt, tls.key and ca.crt, read again when they change: the control port is then
    /// served by mutual TLS, for the operator alone, and storage nodes are asked by TLS. Without it
    /// everything is plain text, for development only.
    #[arg(long, env = "ATOMIX_TLS_DIRECTORY")]
    pub tls_directory: Option<PathBuf>,

    /// Refuses changes by callers that do not say which operator they are.
    #[arg(long, env = "ATOMIX_REQUIRE_OPERATOR")]
    pub require_operator: bool,

    /// File with lines "NAME ADDRESS" that are used before DNS.
    #[arg(long, env = "ATOMIX_HOSTS_FILE")]
    pub hosts_file: Option<PathBuf>,

    /// Deadline of application calls that have none, in seconds. Long enough for a storage pod that
    /// is replaced, short enough that callers notice.
    #[arg(
        long,
        env = "ATOMIX_DEFAULT_DEADLINE",
        default_value = "30",
        value_parser = seconds
    )]
    pub default_deadline: Duration,

    /// What is logged, for example "info,atomix_driver=debug".
    #[arg(long = "log", env = "RUST_LOG")]
    pub log_filter: Option<String>,

    /// How log lines look.
    #[arg(long, env = "ATOMIX_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of seconds above 0".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
