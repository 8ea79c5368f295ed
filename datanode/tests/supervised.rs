//! The reference datanode as a process: supervised, named, and holding the lock of its directory.
//!
//! Method throughout: the real binary, and a small replica in this process that says what each test needs and keeps the
//! certificates that it is told.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../client/src/fake.rs"]
#[allow(dead_code)]
mod fake;

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use metasrv_proto::admin::certify_end_request::How;
use metasrv_proto::admin::supervisor_server::{Supervisor, SupervisorServer};
use metasrv_proto::admin::{CertifyEndRequest, CertifyEndResponse};
use metasrv_proto::code;
use metasrv_proto::meta::HeartbeatRequest;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use fake::{FakeMetasrv, FakeStream, error, eventually, within};

/// Keeps what it is told.
struct Clerk(mpsc::Sender<CertifyEndRequest>);

#[tonic::async_trait]
impl Supervisor for Clerk {
    async fn certify_end(
        &self,
        request: Request<CertifyEndRequest>,
    ) -> Result<Response<CertifyEndResponse>, Status> {
        let told = self.0.send(request.into_inner()).await;
        told.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(CertifyEndResponse { term: 1, newer_is_known: false }))
    }
}

/// A replica, a datanode that was started against it, and its directories.
struct Bench {
    fake: FakeMetasrv,
    certificates: mpsc::Receiver<CertifyEndRequest>,
    node: Child,
    place: tempfile::TempDir,
}

impl Bench {
    async fn start(further: &[&str]) -> Bench {
        let (sender, certificates) = mpsc::channel(16);
        let fake = FakeMetasrv::start_with(|routes| {
            routes.add_service(SupervisorServer::new(Clerk(sender)));
        })
        .await;
        let place = tempfile::tempdir().unwrap();
        let port = fake::nobody();
        let node = Command::new(env!("CARGO_BIN_EXE_datanode"))
            .args(["run", "--node-id", "7", "--metasrv", &fake.addr, "--grpc-addr", &port, "--data"])
            .arg(place.path().join("data"))
            .args(further)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(place.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Bench { fake, certificates, node, place }
    }

    /// The stream of its next process, and the handshake.
    async fn process(&mut self) -> (HeartbeatRequest, FakeStream) {
        let mut stream = self.fake.stream().await;
        let handshake = stream.welcome(1).await;
        (handshake, stream)
    }

    async fn certificate(&mut self) -> CertifyEndRequest {
        within("a certificate is told", self.certificates.recv()).await.unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.node), signal).unwrap();
    }

    /// The process ids of its children.
    fn workers(&self) -> Vec<i32> {
        let id = self.node.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.node.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It may have ended already. Its worker ends with it.
        let _ = self.node.kill();
        let _ = self.node.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.place.path().join("log"));
            eprintln!("{}", log.unwrap_or_default());
        }
    }
}

fn is_alive(pid: i32) -> bool {
    // A process that nobody reaped yet has ended all the same.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Goal: the end of a worker that is killed is certified, by its incarnation and its signal, and another one is started
/// under a new incarnation. Method: kill -9 of the worker, twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_certified_and_started_again() {
    let mut bench = Bench::start(&["--supervised"]).await;
    let (mut handshake, mut stream) = bench.process().await;
    for _ in 0..2 {
        let workers = bench.workers();
        assert_eq!(workers.len(), 1, "{workers:?}");
        kill_process(Pid::from_raw(workers[0]).unwrap(), Signal::KILL).unwrap();
        let certificate = bench.certificate().await;
        assert_eq!((certificate.node_id, certificate.how), (7, Some(How::Signal(9))));
        assert_eq!(certificate.incarnation_nonce, handshake.incarnation_nonce);
        assert_eq!(certificate.node_epoch, handshake.node_epoch);
        assert!(!is_alive(workers[0]), "it is certified while it runs");
        stream.ended().await;
        let (next, next_stream) = bench.process().await;
        assert_ne!(next.incarnation_nonce, handshake.incarnation_nonce);
        assert!(next.node_epoch > handshake.node_epoch);
        assert_eq!(next.directory_lock, handshake.directory_lock, "the same lock, on the same machine");
        (handshake, stream) = (next, next_stream);
    }
}

/// Goal: no worker outlives its supervisor, whatever ends that. Method: kill -9 of the supervisor.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_leaves_no_worker_behind() {
    let mut bench = Bench::start(&["--supervised"]).await;
    let (_, mut stream) = bench.process().await;
    let workers = bench.workers();
    bench.signal(Signal::KILL);
    stream.ended().await;
    eventually("the worker is gone", || !is_alive(workers[0])).await;
    assert!(bench.fake.stream_within(Duration::from_millis(500)).await.is_none(), "another one was started");
    assert!(bench.certificates.try_recv().is_err(), "nobody was there to see its end");
}

/// Goal: a supervisor that is told to end ends its worker in good order, and certifies that as well. Method: SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_passes_signals_on() {
    let mut bench = Bench::start(&["--supervised"]).await;
    let (handshake, mut stream) = bench.process().await;
    bench.signal(Signal::TERM);
    stream.ended().await;
    let certificate = bench.certificate().await;
    assert_eq!(certificate.how, Some(How::ExitCode(0)));
    assert_eq!(certificate.incarnation_nonce, handshake.incarnation_nonce);
    assert!(bench.ended().await.success());
}

/// Goal: a node that was taken over by a newer process elsewhere is not started again. Method: a refusal by the fake.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_worker_is_not_started_again() {
    let mut bench = Bench::start(&["--supervised"]).await;
    let (_, stream) = bench.process().await;
    stream.refuse(1, error(code::SUPERSEDED, 0), None).await;
    assert_eq!(bench.certificate().await.how, Some(How::ExitCode(3)));
    assert_eq!(bench.ended().await.code(), Some(3));
    assert!(bench.fake.stream_within(Duration::from_millis(500)).await.is_none());
}

/// Goal: a node says what it fails together with, what it can carry, and which lock it holds; without a supervisor
/// nothing is certified. Method: the handshake against the files.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_where_it_is_and_which_lock_it_holds() {
    use std::os::unix::fs::MetadataExt as _;
    let mut bench = Bench::start(&["--zone", "a", "--host", "rack-3", "--weight", "4"]).await;
    let (handshake, _stream) = bench.process().await;
    let info = handshake.info.unwrap();
    assert_eq!((info.zone.as_str(), info.host.as_str(), info.weight), ("a", "rack-3", 4));
    let lock = handshake.directory_lock.expect("the directory is on a local file system");
    let data = bench.place.path().join("data");
    let file = std::fs::metadata(data.join("LOCK")).unwrap();
    assert_eq!((lock.device, lock.inode), (file.dev(), file.ino()));
    let identity = std::fs::read_to_string(data.join("identity")).unwrap();
    assert_eq!(u64::from_str_radix(identity.trim(), 16).unwrap(), lock.directory_id);
    bench.signal(Signal::TERM);
    assert!(bench.ended().await.success());
    assert!(bench.certificates.try_recv().is_err());
}
