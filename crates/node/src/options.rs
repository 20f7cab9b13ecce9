//! What a storage node is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;

use atomix_process::logging::LogFormat;
use clap::Parser;

/// The Atomix storage node: hosts partitions of a Store.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "atomix-node",
    version,
    after_help = "`atomix-node recover --help`: how to go on with one member of a partition that has \
                  lost its quorum for good."
)]
pub struct Options {
    /// Folder that holds the log and the snapshots; created when it does not exist.
    #[arg(long, env = "ATOMIX_DATA_DIR")]
    pub data_dir: PathBuf,

    /// Where the Node service listens, for the operator.
    #[arg(long, env = "ATOMIX_CONTROL_ADDR", default_value = "0.0.0.0:5680")]
    pub control_addr: SocketAddr,

    /// Where other nodes and the runtimes' drivers connect.
    #[arg(long, env = "ATOMIX_PEER_ADDR", default_value = "0.0.0.0:5681")]
    pub peer_addr: SocketAddr,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "ATOMIX_ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    pub admin_addr: SocketAddr,

    /// Refuses changes by callers that do not say which operator they are.
    #[arg(long, env = "ATOMIX_REQUIRE_OPERATOR")]
    pub require_operator: bool,

    /// A file with lines "name address", used instead of DNS for the names that it lists; it is
    /// read again when it changes.
    #[arg(long, env = "ATOMIX_HOSTS_FILE")]
    pub hosts_file: Option<PathBuf>,

    /// What is logged, for example "info,atomix_node=debug"; the default leaves the Raft library's
    /// warnings out.
    #[arg(long = "log", env = "RUST_LOG")]
    pub log_filter: Option<String>,

    /// How log lines look.
    #[arg(long, env = "ATOMIX_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}
