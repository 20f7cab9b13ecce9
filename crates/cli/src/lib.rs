//! kubectl-atomix: what kubectl does not show of Stores and Sessions, and counters by hand.
//!
//! Reaches the operator and sidecars through the API server, as `kubectl port-forward` does: whoever
//! may forward ports may use it, and nothing else must be open.

mod cluster;
mod counter;
mod status;
mod store;
mod table;
mod tunnel;
mod uninstall;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use cluster::Cluster;

/// Shows Stores, their partitions and Sessions, and uses primitives by hand.
///
/// Installed on the PATH, kubectl runs it as `kubectl atomix`.
#[derive(Debug, Parser)]
#[command(version, name = "kubectl-atomix", bin_name = "kubectl atomix")]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster, and where in it.
#[derive(Debug, Args)]
struct Target {
    /// Context of the kubeconfig; default: its current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Namespace; default: that of the context.
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    /// Namespace of the operator.
    #[arg(long, global = true, default_value = "atomix-system")]
    operator_namespace: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows Stores and Sessions; of one Store also its nodes and partitions.
    ///
    /// Examples:
    ///   kubectl atomix status              everything in the namespace
    ///   kubectl atomix status --all        everything in the cluster
    ///   kubectl atomix status counts       nodes, partitions, leaders and members of one Store
    #[command(verbatim_doc_comment)]
    Status(status::Options),
    /// Replaces disks, recovers partitions, hands leaderships over: for bad days.
    #[command(subcommand)]
    Store(store::Command),
    /// Stops the operator and lets go of all its objects, so that it can be uninstalled. Data, pods
    /// and connections stay as they are. `helm uninstall` does the same by itself.
    ///
    /// Examples:
    ///   kubectl atomix uninstall --operator-namespace atomix-system
    ///   kubectl atomix uninstall --served-namespace garden    after its Deployment was deleted by hand
    #[command(verbatim_doc_comment)]
    Uninstall(uninstall::Options),
    /// Reads or changes a counter, through the sidecar of a pod.
    ///
    /// Examples:
    ///   kubectl atomix counter get visits
    ///   kubectl atomix counter increment visits 5
    ///   kubectl atomix counter decrement visits
    ///   kubectl atomix counter set visits 0 --pod visits-6d4cf56db6-abcde
    #[command(verbatim_doc_comment)]
    Counter(counter::Options),
}

/// Does what the arguments say; prints errors.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&cli.target).await?;
    match cli.command {
        Command::Status(options) => status::run(&cluster, &options).await,
        Command::Store(command) => store::run(&cluster, &command).await,
        Command::Uninstall(options) => uninstall::run(&cluster, &options).await,
        Command::Counter(options) => counter::run(&cluster, &options).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_example_and_every_argument_is_explained() {
        explains_itself(&super::Cli::command(), "");
    }

    /// `taught` is what the commands around it say.
    fn explains_itself(command: &Command, taught: &str) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} says nothing");
        for argument in command.get_arguments() {
            let help = argument.get_help().or(argument.get_long_help());
            assert!(help.is_some(), "{name} {} says nothing", argument.get_id());
        }
        let own = command.get_long_about().map(ToString::to_string);
        let taught = format!("{taught}{}", own.unwrap_or_default());
        for subcommand in command.get_subcommands() {
            explains_itself(subcommand, &taught);
        }
        let is_leaf = command.get_subcommands().next().is_none();
        let mut examples = taught
            .lines()
            .filter(|line| line.contains("kubectl atomix "));
        assert!(
            !is_leaf || examples.any(|line| line.contains(&format!(" {name} "))),
            "{name} has no example"
        );
    }
}
