//! The binary `datanode`, an embedder of the SDK like any other.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the command line; build, run, drain |
//! | `options.rs` | what can be set, checked as a whole |
//! | `directory.rs` | the data directory: its lock, and the installation it belongs to |
//! | `record.rs` | what the regions' files are made of |
//! | `segment.rs` | the files of one region: a segment for each epoch, claimed, then sealed |
//! | `region.rs` | one region: a key-value store whose older writers are fenced; the argument why nothing is lost |
//! | `regions.rs` | all open regions, as the SDK's `RegionServer` |
//! | `supervisor.rs` | `--supervised`: the parent that certifies the end of its worker |
//! | `health.rs` | a probe for images without a shell |
//! | `inspect.rs` | what the regions' files say about who wrote what |
//! | `write_intervals.rs` | a witness for tests: when was written, by whom |
//! | `kept_rights.rs` | a node that breaks the rule, for a test of the tests |
//! | `service.rs` | the gRPC service `KeyValue` |

mod directory;
mod health;
mod inspect;
mod kept_rights;
mod options;
mod record;
mod region;
mod regions;
mod segment;
mod service;
mod supervisor;
mod write_intervals;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use datanode::{HeartbeatTask, HeartbeatTaskOptions, Incarnation, TaskEnd, wall_clock_ms};
use metasrv_client::MetaClient;
use metasrv_proto::admin::key_value_server::KeyValueServer;
use metasrv_proto::meta::NodeInfo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tracing_subscriber::EnvFilter;

use directory::DataDirectory;
use health::HealthOptions;
use inspect::InspectOptions;
use options::{Options, Settings};
use record::Owner;
use regions::Regions;
use service::KeyValueService;
use supervisor::WorkerOptions;
use write_intervals::WriteIntervals;

/// The command line is wrong: EX_USAGE of sysexits.h. Nothing was started.
const USAGE: u8 = 64;

/// It did not work, or ended without being asked to.
const FAILED: u8 = 1;

/// A newer process with the same id took over: starting this one again would take it back, and so on for ever.
const SUPERSEDED: u8 = 3;

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
    Run(Box<Options>),
    /// Say what the files of all regions contain, and whether they are consistent
    Inspect(InspectOptions),
    /// Ask the datanode on this machine whether it serves: exit code 0 or 1
    Health(HealthOptions),
    /// What `run --supervised` starts
    #[command(name = supervisor::WORKER, hide = true)]
    Worker(Box<WorkerOptions>),
}

/// Why it ended without being asked to.
struct Failure {
    code: u8,
    why: String,
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure { code: FAILED, why }
    }
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
    let (options, incarnation) = match cli.command {
        Command::Inspect(options) => {
            return match inspect::inspect(&options, &mut std::io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(FAILED, &error.to_string()),
            };
        }
        Command::Health(options) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            return match runtime
                .map_err(|error| error.to_string())
                .and_then(|it| it.block_on(health::ask(&options)))
            {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => failed(FAILED, &why),
            };
        }
        Command::Run(options) => (*options, None),
        Command::Worker(worker) => match worker.tie() {
            Ok(()) => (worker.options, Some(worker.incarnation)),
            Err(error) => return failed(FAILED, &error),
        },
    };
    let settings = match options.check() {
        Ok(settings) => settings,
        Err(problems) => {
            for problem in problems {
                eprintln!("error: {problem}");
            }
            return ExitCode::from(USAGE);
        }
    };
    let result = start_logging(&settings.log_level).map_err(Failure::from).and_then(|()| {
        match settings.supervised && incarnation.is_none() {
            true => begin_supervisor(settings),
            false => begin(settings, incarnation).map(|()| 0),
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, why }) => failed(code, &why),
    }
}

fn failed(code: u8, why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(code)
}

fn begin_supervisor(settings: Settings) -> Result<u8, Failure> {
    // One thread: see the module.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    // What follows `run` is the worker's as well.
    let arguments = std::env::args_os().skip(2).collect();
    Ok(runtime.block_on(supervisor::supervise(settings, arguments))?)
}

fn begin(settings: Settings, incarnation: Option<Incarnation>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let result = runtime.block_on(run(settings, incarnation));
    // Whatever still blocks a thread has had its time.
    runtime.shutdown_background();
    result
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

async fn run(settings: Settings, incarnation: Option<Incarnation>) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let directory = DataDirectory::open(&settings.data).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(settings.grpc_addr)
        .await
        .map_err(|error| format!("cannot listen on {} (--grpc-addr): {error}", settings.grpc_addr))?;

    let shared = settings.shared.unwrap_or_else(|| directory.regions());
    std::fs::create_dir_all(&shared).map_err(|error| format!("{} (--shared): {error}", shared.display()))?;
    let node = settings.client.member_id;
    let intervals = settings.write_intervals.map(|path| {
        WriteIntervals::open(&path, node)
            .map_err(|error| format!("{} (--write-intervals): {error}", path.display()))
    });
    let owner = Owner { node, directory: directory.identity() };
    let regions = Arc::new(Regions::new(shared, owner, intervals.transpose()?, settings.write_without_right));
    let mut client_config = settings.client;
    client_config.installation = directory.installation().map_err(|error| error.to_string())?;
    let client = MetaClient::try_new(client_config).map_err(|error| error.to_string())?;
    let mut options = HeartbeatTaskOptions::new(client.clone(), settings.advertise_addr, regions.clone());
    options.interval = settings.heartbeat_interval;
    options.info = NodeInfo { zone: settings.zone, weight: settings.weight, ..describe_this_process() };
    options.info.host = settings.host.unwrap_or_else(|| options.info.hostname.clone());
    options.directory_lock = directory.evidence();
    options.incarnation = incarnation;
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
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), told(closed));
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
                TaskEnd::Superseded(why) => {
                    let why = format!("this process is superseded: {why}");
                    Err(Failure { code: SUPERSEDED, why })
                }
                TaskEnd::Failed(why) => Err(why.into()),
            },
            result = &mut server => break result.map_err(|error| format!("the gRPC server failed: {error}").into()),
            result = &mut remember, if !remembered => match result {
                Ok(()) => remembered = true,
                Err(error) => break Err(error.to_string().into()),
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
