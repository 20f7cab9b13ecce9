//! What a storage node is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use atomix_process::logging::LogFormat;
use atomix_raft::Timings;
use clap::Parser;

/// The Atomix storage node: hosts partitions of a Store.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "atomix-node",
    bin_name = "atomix-node",
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

    /// Folder with tls.crt, tls.key and ca.crt, read again when they change: both ports are then
    /// served by mutual TLS. Without it everything is plain text, for development only.
    #[arg(long, env = "ATOMIX_TLS_DIRECTORY")]
    pub tls_directory: Option<PathBuf>,

    /// A file with the names of further namespaces, one a line, whose runtimes are served; it is read
    /// again when it changes. Default: only runtimes of the namespace in the node's own certificate.
    #[arg(long, env = "ATOMIX_ALLOWED_NAMESPACES", requires = "tls_directory")]
    pub allowed_namespaces: Option<PathBuf>,

    /// Refuses changes by callers that do not say which operator they are.
    #[arg(long, env = "ATOMIX_REQUIRE_OPERATOR")]
    pub require_operator: bool,

    /// A file with lines "name address", used instead of DNS for the names that it lists; it is
    /// read again when it changes.
    #[arg(long, env = "ATOMIX_HOSTS_FILE")]
    pub hosts_file: Option<PathBuf>,

    /// About how long a partition is without a leader when the leader dies, in milliseconds; by
    /// default as the partition's first members were told.
    #[arg(long, env = "ATOMIX_ELECTION_TIMEOUT_MILLIS", value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub election_timeout_millis: Option<u64>,

    /// Log entries since the last snapshot before which none is taken, 0 for the program's own
    /// number; by default as the partition's first members were told.
    #[arg(long, env = "ATOMIX_SNAPSHOT_ENTRY_THRESHOLD")]
    pub snapshot_entry_threshold: Option<u64>,

    /// What is logged, for example "info,atomix_node=debug"; the default leaves the Raft library's
    /// warnings out.
    #[arg(long = "log", env = "RUST_LOG")]
    pub log_filter: Option<String>,

    /// How log lines look.
    #[arg(long, env = "ATOMIX_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The settings of Raft that a process runs its groups with, in place of those that a group's record
/// holds: the record is from the group's first day, and compared with plans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RaftSettings {
    election_timeout: Option<Duration>,
    snapshot_entry_threshold: Option<u64>,
}

impl RaftSettings {
    pub(crate) fn of(options: &Options) -> Self {
        let threshold = options
            .snapshot_entry_threshold
            .map(|entries| match entries {
                0 => Timings::default().snapshot_entry_threshold,
                entries => entries,
            });
        Self {
            election_timeout: options.election_timeout_millis.map(Duration::from_millis),
            snapshot_entry_threshold: threshold,
        }
    }

    /// The settings in force, where a record says `stored`.
    pub(crate) fn over(&self, stored: Timings) -> Timings {
        Timings {
            election_timeout: self.election_timeout.unwrap_or(stored.election_timeout),
            snapshot_entry_threshold: self
                .snapshot_entry_threshold
                .unwrap_or(stored.snapshot_entry_threshold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(arguments: &[&str]) -> Timings {
        let program = ["atomix-node", "--data-dir=unused"];
        let options = Options::parse_from(program.iter().chain(arguments));
        RaftSettings::of(&options).over(Timings {
            election_timeout: Duration::from_secs(7),
            snapshot_entry_threshold: 70,
        })
    }

    #[test]
    fn what_the_process_is_told_is_in_force_over_what_was_stored() {
        for (arguments, seconds, entries) in [
            (&[][..], 7, 70),
            (&["--election-timeout-millis=3000"], 3, 70),
            (&["--snapshot-entry-threshold=9"], 7, 9),
            (&["--snapshot-entry-threshold=0"], 7, 10_000),
        ] {
            let expected = Timings {
                election_timeout: Duration::from_secs(seconds),
                snapshot_entry_threshold: entries,
            };
            assert_eq!(in_force(arguments), expected, "{arguments:?}");
        }
        let refused = [
            "atomix-node",
            "--data-dir=unused",
            "--election-timeout-millis=1",
        ];
        assert!(Options::try_parse_from(refused).is_err());
    }
}
