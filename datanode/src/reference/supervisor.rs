//! `datanode run --supervised`: a small parent that knows when its worker has ended, and says so.
//!
//! A datanode that is killed takes the answer to "does it still write?" with it, and metasrv would have to wait for its
//! lease. Its parent knows: once the kernel has given it the worker's exit status, no thread of the worker runs any more.
//! So the parent chooses the worker's incarnation, starts it, reaps it, certifies its end to metasrv's leader, and starts
//! the next one under a new incarnation.
//!
//! The parent does nothing else, so that there is little that could end it. If it ends all the same, the kernel kills the
//! worker: nobody would certify its end otherwise, nor start it again. The kernel watches the parent's **thread**: the
//! worker is started by the main thread, which is why the parent runs on a runtime of one thread.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use datanode::{Clock as _, Incarnation, SystemClock, new_incarnation};
use metasrv_client::{BackOff, MetaClient};
use metasrv_proto::admin::CertifyEndRequest;
use metasrv_proto::admin::certify_end_request::How;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinSet;

use super::directory::installation_in;
use super::options::{Options, Settings};
use super::{FAILED, SUPERSEDED, USAGE};

/// The command that the worker is started with.
pub const WORKER: &str = "worker";

/// Waits before a worker is started again. The first is too short to be noticed beside a failover; the last one keeps a
/// worker that cannot start from being a load.
const RESTART: BackOff = BackOff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

/// A worker that ran for so long did start: the waits begin anew.
const STEADY: Duration = Duration::from_secs(10);

/// So long a certificate is worth telling: any lease is over by then, and with it all that a certificate is good for.
const WORTH_TELLING: Duration = Duration::from_secs(60);

/// A parent that was told to end takes so long for its last certificate.
const FAREWELL: Duration = Duration::from_secs(2);

/// Certificates under way. A worker that ends more often than metasrv answers is not waited for on each of them.
const CERTIFICATES: usize = 8;

/// What a worker is told by its parent.
#[derive(Args, Debug)]
pub struct WorkerOptions {
    /// Who it is: node epoch and nonce
    #[arg(long, value_name = "EPOCH:NONCE", value_parser = parse_incarnation)]
    pub incarnation: Incarnation,
    /// The parent's process id
    #[arg(long, value_name = "PID")]
    parent: i32,
    /// As the parent was told
    #[command(flatten)]
    pub options: Options,
}

fn parse_incarnation(text: &str) -> Result<Incarnation, String> {
    let parsed = text.split_once(':').and_then(|(epoch, nonce)| {
        Some(Incarnation { epoch: epoch.parse().ok()?, nonce: nonce.parse().ok()? })
    });
    parsed.filter(|incarnation| incarnation.nonce != 0).ok_or_else(|| "is not EPOCH:NONCE".to_owned())
}

impl WorkerOptions {
    /// Ties this process to its parent. To be called before anything else is done.
    ///
    /// # Errors
    /// The parent has ended already, or the kernel does not tie.
    pub fn tie(&self) -> Result<(), String> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| format!("the kernel does not tie this process to its parent: {error}"))?;
        // If the parent was gone before the line above, there is nobody left whose end would end this process.
        if getppid().map(Pid::as_raw_nonzero).is_none_or(|parent| parent.get() != self.parent) {
            return Err("the supervisor ended while this process was started".to_owned());
        }
        Ok(())
    }
}

/// The signals that end a supervisor, passed on to its worker.
struct Stop {
    terminate: Signals,
    interrupt: Signals,
}

impl Stop {
    async fn asked(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

/// Keeps a worker running until it is told to end; `arguments` are those of `run`. Returns the exit code.
///
/// # Errors
/// It cannot begin.
pub async fn supervise(settings: Settings, arguments: Vec<OsString>) -> Result<u8, String> {
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let mut stop =
        Stop { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? };
    let client = MetaClient::try_new(settings.client.clone()).map_err(|error| error.to_string())?;
    let mut certificates = JoinSet::new();
    let mut waits = RESTART.start();
    loop {
        let incarnation = new_incarnation();
        let started = SystemClock.now();
        let mut worker = start(&arguments, incarnation)?;
        tracing::info!(pid = worker.id(), node_epoch = incarnation.epoch, "worker started");
        let (status, stopped) = reap(&mut worker, &mut stop).await?;
        let ran = SystemClock.now().since(started);
        tracing::warn!(%status, ?ran, node_epoch = incarnation.epoch, "worker ended");

        while certificates.len() >= CERTIFICATES {
            certificates.join_next().await;
        }
        while certificates.try_join_next().is_some() {}
        certificates.spawn(certify(client.clone(), certificate(&settings, incarnation, status)));
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if stopped || code == Some(USAGE) || code == Some(SUPERSEDED) {
            // Two processes of one node must not fight for ever: the newer one, elsewhere, has it.
            farewell(certificates).await;
            return Ok(code.unwrap_or(FAILED));
        }
        if ran >= STEADY {
            waits = RESTART.start();
        }
        let wait = waits.next_wait();
        tracing::info!(?wait, "the worker is started again");
        tokio::select! {
            biased;
            _ = stop.asked() => {
                farewell(certificates).await;
                return Ok(code.unwrap_or(FAILED));
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Gives the last certificates a moment.
async fn farewell(mut certificates: JoinSet<()>) {
    let told = async { while certificates.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, told).await.is_err() {
        tracing::warn!("metasrv was not told that the worker has ended; its lease decides");
    }
}

fn start(arguments: &[OsString], incarnation: Incarnation) -> Result<Child, String> {
    // The program that runs, also where its file was replaced by a newer one since.
    Command::new("/proc/self/exe")
        .arg0("datanode")
        .arg(WORKER)
        .arg(format!("--incarnation={}:{}", incarnation.epoch, incarnation.nonce))
        .arg(format!("--parent={}", std::process::id()))
        .args(arguments)
        // A terminal's Ctrl-C is for the parent, which passes it on; twice would mean: at once.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the worker cannot be started: {error}"))
}

/// Waits until the worker has ended, passing signals on; says whether there was one.
async fn reap(worker: &mut Child, stop: &mut Stop) -> Result<(ExitStatus, bool), String> {
    let mut stopped = false;
    // It has an id until its end was seen, and nobody else has that id before.
    let pid = worker.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    loop {
        tokio::select! {
            biased;
            ended = worker.wait() => {
                return ended.map(|status| (status, stopped)).map_err(|error| format!("the worker: {error}"));
            }
            signal = stop.asked() => {
                stopped = true;
                if let Some(pid) = pid {
                    // It may have ended in this moment.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

fn certificate(settings: &Settings, incarnation: Incarnation, status: ExitStatus) -> CertifyEndRequest {
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    let how = match status.signal() {
        Some(signal) => How::Signal(number(signal)),
        None => How::ExitCode(number(status.code().unwrap_or(0))),
    };
    CertifyEndRequest {
        cluster_id: settings.client.cluster_id,
        node_id: settings.client.member_id,
        node_epoch: incarnation.epoch,
        incarnation_nonce: incarnation.nonce,
        how: Some(how),
        installation: installation_in(&settings.data).unwrap_or(0),
    }
}

async fn certify(client: MetaClient, certificate: CertifyEndRequest) {
    let node_epoch = certificate.node_epoch;
    match client.certify_end(&certificate, WORTH_TELLING).await {
        Ok(response) => tracing::info!(
            node_epoch,
            term = response.term,
            newer_is_known = response.newer_is_known,
            "the worker's end is certified"
        ),
        Err(error) => {
            tracing::warn!(node_epoch, %error, "the worker's end is not certified; its lease decides")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_handed_over_as_text() {
        assert_eq!(parse_incarnation("5:7"), Ok(Incarnation { epoch: 5, nonce: 7 }));
        for wrong in ["", "5", "5:", ":7", "5:0", "5:x", "5:7:9"] {
            assert!(parse_incarnation(wrong).is_err(), "{wrong}");
        }
    }
}
