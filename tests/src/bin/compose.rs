//! `make test-compose`: the cluster of deploy/compose in real containers, and what is done to it.
//!
//! Ends within five minutes, whatever happens, and removes what it made: containers, network and volumes of its own project.
//! The images stay (`metasrv:offline`, `metasrv-etcd:offline`, `metasrv-base:offline`). What is done is in
//! `tests/src/compose/run.rs`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use metasrv_tests::compose::project::{lock, remove_everything};
use metasrv_tests::compose::run::run;
use metasrv_tests::figures::Figures;
use tokio::signal::unix::{SignalKind, signal};

/// Everything.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Parser)]
#[command(about = "The cluster of deploy/compose in real containers")]
struct Options {
    /// What reads compose.yaml: `docker compose` or another command [default: the first of `docker compose` and
    /// `docker-compose` that there is]
    #[arg(long)]
    tool: Option<String>,
    /// Where metasrv, metactl and datanode are; images are made of them
    #[arg(long, env = "METASRV_BIN_DIR")]
    binaries: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let _lock = match lock() {
        Ok(lock) => lock,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut figures = Figures::default();
    let result = tokio::select! {
        biased;
        () = interrupted() => Err("interrupted".to_owned()),
        result = tokio::time::timeout(LIMIT, run(options.tool.as_deref(), &options.binaries, &mut figures)) => match result {
            Ok(result) => result,
            Err(_) => Err(format!("not done within {LIMIT:?}")),
        },
    };
    if let Err(why) = figures.write("compose") {
        eprintln!("error: the figures cannot be written: {why}");
    }
    let Err(why) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {why}");
    if let Err(why) = remove_everything().await {
        eprintln!("error: not everything is removed: {why}");
    }
    ExitCode::FAILURE
}

async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let signals = kinds.into_iter().filter_map(|kind| signal(kind).ok());
    let waits = signals.map(|mut signal| Box::pin(async move { signal.recv().await }));
    futures_util::future::select_all(waits).await;
}
