//! The operator's program: options, logging, signals. What it does is in the library.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use atomix_controller::dialer::PodDialer;
use atomix_controller::lease::LeaseOptions;
use atomix_controller::metrics::Metrics;
use atomix_controller::queue::chain;
use atomix_operator::Scope;
use atomix_operator::check::CheckArgs;
use atomix_operator::identities::args::IdentityArgs;
use atomix_operator::operator::{Listeners, Operator, Options};
use atomix_operator::session::SessionOptions;
use atomix_operator::store::StoreOptions;
use atomix_operator::webhook::args::WebhookArgs;
use atomix_process::logging::{self, LogFormat};
use atomix_process::shutdown;
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Kubernetes operator for Atomix: runs Stores, connects Sessions, serves Drivers.
#[derive(Debug, Parser)]
#[command(version, bin_name = "atomix-operator")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the operator; the default.
    Run(Box<RunArgs>),
    /// Asks a running operator whether it answers.
    Check(CheckArgs),
    /// Stops the operator's Deployment and removes its finalizers, so that it can be uninstalled.
    /// Data and pods stay as they are.
    Uninstall(UninstallArgs),
    /// Prints the custom resource definitions as YAML.
    Crds {
        /// Writes one file each into this directory instead.
        #[arg(long)]
        output_dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Serves only this namespace; default: all.
    #[arg(long, env = "ATOMIX_NAMESPACE")]
    namespace: Option<String>,
    /// Image of storage nodes whose Store names none.
    #[arg(long, env = "ATOMIX_NODE_IMAGE", default_value = "atomix-node:latest")]
    node_image: String,
    /// Namespace of the lease; default: the namespace the operator runs in.
    #[arg(long, env = "ATOMIX_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of the lease. Two operators that serve different namespaces need different ids.
    #[arg(long, env = "ATOMIX_OPERATOR_ID", default_value = "atomix-operator")]
    operator_id: String,
    /// Where probes and metrics are served.
    #[arg(long, env = "ATOMIX_ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    admin_addr: SocketAddr,
    /// Where SessionService and Stores are served (gRPC, plain text): at a loopback address only who
    /// may forward a port to the operator's pod reaches it.
    #[arg(long, env = "ATOMIX_API_ADDR", default_value = "127.0.0.1:5682")]
    api_addr: SocketAddr,
    /// Namespaces whose Secrets with the label atomix.io/config=true Stores may name in configFrom,
    /// with commas in between; default: none.
    #[arg(long, env = "ATOMIX_SECRET_NAMESPACES", value_delimiter = ',')]
    secret_namespaces: Vec<String>,
    /// How log lines look.
    #[arg(long, env = "ATOMIX_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// OpenTelemetry collector that gets traces by OTLP over gRPC, such as http://collector:4317;
    /// default: no traces.
    #[arg(long, env = "ATOMIX_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// Makes a NetworkPolicy for each Store's nodes.
    #[arg(long, env = "ATOMIX_NETWORK_POLICIES")]
    network_policies: bool,
    #[command(flatten)]
    identities: IdentityArgs,
    #[command(flatten)]
    webhook: WebhookArgs,
}

#[derive(Debug, Args)]
struct UninstallArgs {
    /// Only objects of this namespace; default: all, and Drivers.
    #[arg(long, env = "ATOMIX_NAMESPACE")]
    namespace: Option<String>,
    /// The operator's Deployment.
    #[arg(long)]
    deployment: String,
    /// Its namespace; default: the namespace this runs in.
    #[arg(long)]
    deployment_namespace: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Crds { output_dir }) => print_crds(output_dir.as_deref()),
        Some(Command::Check(args)) => check(&args),
        Some(Command::Uninstall(args)) => uninstall(args),
        Some(Command::Run(args)) => run(*args),
        None => run(cli.run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("atomix-operator: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn print_crds(output_dir: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let Some(directory) = output_dir else {
        print!("{}", atomix_resources::all_yaml()?);
        return Ok(());
    };
    std::fs::create_dir_all(directory)?;
    for file in atomix_resources::files()? {
        std::fs::write(directory.join(file.name), file.yaml)?;
    }
    Ok(())
}

#[tokio::main]
async fn check(args: &CheckArgs) -> Result<(), Box<dyn Error>> {
    atomix_operator::check::check(args).await?;
    println!("the operator is ready");
    Ok(())
}

#[tokio::main]
async fn uninstall(args: UninstallArgs) -> Result<(), Box<dyn Error>> {
    let config = kube::Config::infer().await?;
    let of_operator = args
        .deployment_namespace
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = atomix_controller::client::connect(config, &Metrics::default())?;
    let scope = args.namespace.map_or(Scope::Cluster, Scope::Namespace);
    let released =
        atomix_operator::uninstall::uninstall(&client, &scope, &of_operator, &args.deployment)
            .await?;
    println!("released {released} objects; data and pods stay as they are");
    Ok(())
}

#[tokio::main]
async fn run(args: RunArgs) -> Result<(), Box<dyn Error>> {
    let endpoint = args.otlp_endpoint.as_deref();
    let _traces = logging::init_traced(args.log_format, "atomix-operator", endpoint)?;
    let shutdown = shutdown::on_signals()?;
    let metrics = Metrics::default();
    let config = kube::Config::infer().await?;
    let admin = TcpListener::bind(args.admin_addr)
        .await
        .map_err(|error| format!("cannot serve probes on {}: {error}", args.admin_addr))?;
    let api = TcpListener::bind(args.api_addr)
        .await
        .map_err(|error| format!("cannot serve gRPC on {}: {error}", args.api_addr))?;
    let lease_namespace = args
        .lease_namespace
        .or_else(|| args.namespace.clone())
        .unwrap_or_else(|| config.default_namespace.clone());
    let identities = args.identities.options(&lease_namespace)?;
    let network_policies = args.network_policies.then(|| lease_namespace.clone());
    let webhook = args.webhook.open(&lease_namespace, identities.is_some())?;
    let credentials = identities.as_ref();
    let credentials = credentials.map(|identities| identities.credentials.clone());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = args.namespace.as_deref().unwrap_or("all"),
        node_image = %args.node_image,
        lease = %format!("{lease_namespace}/{}", args.operator_id),
        webhook = webhook.is_some(),
        tls = identities.is_some(),
        "starting"
    );
    let options = Options {
        client: atomix_controller::client::connect(config.clone(), &metrics)?,
        lease_client: atomix_controller::client::connect(config, &metrics)?,
        dialer: Arc::new(PodDialer::new(credentials)),
        scope: args.namespace.map_or(Scope::Cluster, Scope::Namespace),
        lease: LeaseOptions::new(lease_namespace, args.operator_id, identity()),
        secret_namespaces: args.secret_namespaces,
        stores: StoreOptions {
            node_image: args.node_image,
            tls: identities.is_some(),
            network_policies,
        },
        sessions: SessionOptions::default(),
        identities,
        metrics,
    };
    let listeners = Listeners {
        admin: Some(admin),
        api: Some(api),
        webhook,
    };
    let handle = Operator::new(options, listeners).start(shutdown);
    handle.wait().await?;
    Ok(())
}

/// Names this process for the lease: the pod, and a number, since a pod's container may be
/// started again.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    format!("{host}-{:08x}", rand::random::<u32>())
}
