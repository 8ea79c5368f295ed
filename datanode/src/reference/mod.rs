//! The binary `datanode`, an embedder of the SDK like any other.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the command line; build, run, drain |
//! | `options.rs` | what can be set, checked as a whole |
//! | `directory.rs` | the data directory: its lock, and the installation it belongs to |
//! | `region.rs` | one region: a key-value store in one file, which knows its epoch |
//! | `regions.rs` | all open regions, as the SDK's `RegionServer` |
//! | `service.rs` | the gRPC service `KeyValue` |

mod directory;
mod options;
mod region;
mod regions;
mod service;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use datanode::{HeartbeatTask, HeartbeatTaskOptions, TaskEnd, wall_clock_ms};
use metasrv_client::MetaClient;
use metasrv_proto::admin::key_value_server::KeyValueServer;
use metasrv_proto::meta::NodeInfo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::ServingStatus;
use tracing_subscriber::EnvFilter;

use directory::DataDirectory;
use options::{Options, Settings};
use regions::Regions;
use service::KeyValueService;

/// The command line is wrong: EX_USAGE of sysexits.h. Nothing was started.
const USAGE: u8 = 64;

/// It did not work, or ended without being asked to.
const FAILED: u8 = 1;

/// Requests that are under way when the datanode is told to end have so long.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Time between two looks whether metasrv has told its identity.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Parser)]
#[command(name = "datanode", version, about = "The reference datanode: regions that are key-value stores")]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a datanode until SIGTERM or SIGINT
    Run(Options),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nobody left to tell if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let Command::Run(options) = cli.command;
    let settings = match options.check() {
        Ok(settings) => settings,
        Err(problems) => {
            for problem in problems {
                eprintln!("error: {problem}");
            }
            return ExitCode::from(USAGE);
        }
    };
    let started = start_logging(&settings.log_level).and_then(|()| {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())
    });
    let result = started.and_then(|runtime| {
        let result = runtime.block_on(run(settings));
        // Whatever still blocks a thread has had its time.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn start_logging(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log-level: {error}"))?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain);
    builder.try_init().map_err(|error| format!("logging cannot be set up: {error}"))
}

async fn run(settings: Settings) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let directory = DataDirectory::open(&settings.data).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(settings.grpc_addr)
        .await
        .map_err(|error| format!("cannot listen on {} (--grpc-addr): {error}", settings.grpc_addr))?;

    let regions = Arc::new(Regions::new(directory.regions()));
    let mut client_config = settings.client;
    client_config.installation = directory.installation().map_err(|error| error.to_string())?;
    let client = MetaClient::try_new(client_config).map_err(|error| error.to_string())?;
    let mut options = HeartbeatTaskOptions::new(client.clone(), settings.advertise_addr, regions.clone());
    options.interval = settings.heartbeat_interval;
    options.info = describe_this_process();
    let task = Arc::new(HeartbeatTask::try_new(options).map_err(|error| error.to_string())?);
    task.start();

    let (close, closed) = watch::channel(false);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(
            KeyValueServer::new(KeyValueService::new(Arc::clone(&regions), Arc::clone(task.keeper())))
                .max_decoding_message_size(service::MESSAGE_BYTES),
        )
        .add_service(health_service)
        .add_service(reflection()?)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), told(closed));
    tokio::pin!(server);
    let remember = remember_installation(&client, &directory);
    tokio::pin!(remember);
    let mut remembered = false;

    let ended = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            ended = task.ended() => break match ended {
                TaskEnd::Stopped => Ok(()),
                TaskEnd::Superseded(why) => Err(format!("this process is superseded: {why}")),
                TaskEnd::Failed(why) => Err(why),
            },
            result = &mut server => break result.map_err(|error| format!("the gRPC server failed: {error}")),
            result = &mut remember, if !remembered => match result {
                Ok(()) => remembered = true,
                Err(error) => break Err(error.to_string()),
            },
        }
    };
    tracing::info!("ending: requests under way are answered, leases run out by themselves");
    task.stop();
    close.send_replace(true);
    tokio::select! {
        biased;
        _ = tokio::time::timeout(SHUTDOWN, &mut server) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    ended
}

async fn told(mut closed: watch::Receiver<bool>) {
    // The sender is gone only when the process ends.
    let _ = closed.wait_for(|closed| *closed).await.map(|closed| *closed);
}

/// Writes down which installation this node belongs to, once it was told: a later start refuses another one.
async fn remember_installation(client: &MetaClient, directory: &DataDirectory) -> std::io::Result<()> {
    loop {
        match client.installation() {
            0 => tokio::time::sleep(LOOK).await,
            installation => return directory.remember(installation),
        }
    }
}

fn describe_this_process() -> NodeInfo {
    let uname = rustix::system::uname();
    NodeInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        start_time_ms: wall_clock_ms(),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(0)),
        ..NodeInfo::default()
    }
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    String,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(metasrv_proto::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| format!("our own descriptor does not decode: {error}"))
}
