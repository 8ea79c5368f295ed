//! A small replica for tests: it says what the test tells it to say, and hands each stream to the test. Each one runs in
//! a runtime of its own, so that killing it resets its connections like the death of a process does.
//!
//! The tests of the datanode's SDK use the same file.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metasrv_proto::meta::heartbeat_server::{Heartbeat, HeartbeatServer};
use metasrv_proto::meta::{
    AskLeaderRequest, AskLeaderResponse, Error, GrantedRegion, HeartbeatRequest, HeartbeatResponse, Peer,
    RegionLease, ResponseHeader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

/// Nothing in these tests takes longer, unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(20);
/// The installation that all fakes belong to, unless told otherwise.
pub const INSTALLATION: u64 = 0xfeed;

/// One replica.
pub struct FakeMetasrv {
    pub addr: String,
    shared: Arc<Shared>,
    streams: mpsc::Receiver<FakeStream>,
    runtime: Option<Runtime>,
}

struct Shared {
    says: Mutex<Says>,
    asked: AtomicUsize,
    /// The term that the last question called failed.
    failed_term: AtomicU64,
    streams: mpsc::Sender<FakeStream>,
}

/// What the replica answers to `AskLeader`.
#[derive(Clone, Debug)]
struct Says {
    leader: Option<(String, u64)>,
    installation: u64,
    after: Duration,
}

impl FakeMetasrv {
    /// Starts one that names itself as leader of term 1.
    pub async fn start() -> FakeMetasrv {
        FakeMetasrv::start_with(|_| {}).await
    }

    /// The same, with further services.
    pub async fn start_with(add: impl FnOnce(&mut RoutesBuilder)) -> FakeMetasrv {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, streams) = mpsc::channel(64);
        let says = Says { leader: None, installation: INSTALLATION, after: Duration::ZERO };
        let shared = Arc::new(Shared {
            says: Mutex::new(says),
            asked: AtomicUsize::new(0),
            failed_term: AtomicU64::new(0),
            streams: sender,
        });
        let service = HeartbeatServer::new(Service(Arc::clone(&shared)))
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20);
        let mut routes = RoutesBuilder::default();
        routes.add_service(service);
        add(&mut routes);
        let serve = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let server = tonic::transport::Server::builder().add_routes(routes.routes());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            addr
        };
        let addr = runtime.spawn(serve).await.unwrap().to_string();
        let fake = FakeMetasrv { addr: addr.clone(), shared, streams, runtime: Some(runtime) };
        fake.names(Some((&addr, 1)));
        fake
    }

    fn says(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.shared.says.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Names this leader from now on.
    pub fn names(&self, leader: Option<(&str, u64)>) {
        self.says(|says| says.leader = leader.map(|(addr, term)| (addr.to_owned(), term)));
    }

    /// Belongs to this installation from now on.
    pub fn belongs_to(&self, installation: u64) {
        self.says(|says| says.installation = installation);
    }

    /// Takes so long to answer `AskLeader` from now on.
    pub fn answers_after(&self, after: Duration) {
        self.says(|says| says.after = after);
    }

    /// The term of the leader that had failed whoever asked last.
    pub fn failed_term(&self) -> u64 {
        self.shared.failed_term.load(Ordering::SeqCst)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The next stream that is opened to it.
    pub async fn stream(&mut self) -> FakeStream {
        within("a stream is opened", self.streams.recv()).await.expect("the service lives")
    }

    /// The next stream, if one is opened within this time.
    pub async fn stream_within(&mut self, limit: Duration) -> Option<FakeStream> {
        tokio::time::timeout(limit, self.streams.recv()).await.ok().flatten()
    }

    /// Dies; its connections are reset.
    pub fn kill(self) {}
}

impl Drop for FakeMetasrv {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The replica's end of one stream.
pub struct FakeStream {
    pub requests: Streaming<HeartbeatRequest>,
    pub responses: mpsc::Sender<Result<HeartbeatResponse, Status>>,
}

impl FakeStream {
    /// The next request.
    pub async fn request(&mut self) -> HeartbeatRequest {
        let received = within("a request comes", self.requests.message()).await;
        received.expect("the stream lives").expect("the stream has not ended")
    }

    /// Waits until the other side has ended this stream, or reset it.
    pub async fn ended(&mut self) {
        within("the stream ends", async { while let Ok(Some(_)) = self.requests.message().await {} }).await;
    }

    /// Sends a response.
    pub async fn respond(&self, response: HeartbeatResponse) {
        within("the response is taken", self.responses.send(Ok(response))).await.expect("the stream lives");
    }

    /// Answers a request with nothing but a header of this term.
    pub async fn acknowledge(&self, request: &HeartbeatRequest, term: u64) {
        self.respond(answer(request, term)).await;
    }

    /// Takes the handshake and acknowledges it; returns it.
    pub async fn welcome(&mut self, term: u64) -> HeartbeatRequest {
        let handshake = self.request().await;
        self.acknowledge(&handshake, term).await;
        handshake
    }

    /// Answers with an error in the header.
    pub async fn refuse(&self, term: u64, error: Error, leader: Option<&str>) {
        let leader = leader.map(|addr| Peer { id: 0, addr: addr.to_owned() });
        let header = ResponseHeader { error: Some(error), leader, ..header(term) };
        self.respond(HeartbeatResponse { header: Some(header), ..Default::default() }).await;
    }

    /// Ends the stream with an error of the transport.
    pub async fn fail(self, status: Status) {
        let _ = self.responses.send(Err(status)).await;
    }
}

/// A header of a fake's response.
pub fn header(term: u64) -> ResponseHeader {
    ResponseHeader { protocol_version: 1, term, installation: INSTALLATION, ..Default::default() }
}

/// The plain answer to a request.
pub fn answer(request: &HeartbeatRequest, term: u64) -> HeartbeatResponse {
    HeartbeatResponse { header: Some(header(term)), sequence: request.sequence, ..Default::default() }
}

/// An error for a response header.
pub fn error(code: i32, known_node_epoch: u64) -> Error {
    Error { code, err_msg: "said by the fake".to_owned(), known_node_epoch }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Heartbeat for Service {
    type HeartbeatStream = ReceiverStream<Result<HeartbeatResponse, Status>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (responses, receiver) = mpsc::channel(64);
        let stream = FakeStream { requests: request.into_inner(), responses };
        self.0.streams.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn ask_leader(
        &self,
        request: Request<AskLeaderRequest>,
    ) -> Result<Response<AskLeaderResponse>, Status> {
        self.0.failed_term.store(request.get_ref().failed_term, Ordering::SeqCst);
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let says = self.0.says.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::time::sleep(says.after).await;
        let term = says.leader.as_ref().map_or(0, |(_, term)| *term);
        let header = ResponseHeader { installation: says.installation, ..header(term) };
        let leader = says.leader.map(|(addr, _)| Peer { id: 0, addr });
        Ok(Response::new(AskLeaderResponse { header: Some(header), leader, revision: 0 }))
    }
}

/// The answer to a request that renews everything it lists, for a minute.
pub fn renewal(request: &HeartbeatRequest, term: u64) -> HeartbeatResponse {
    let regions = request.region_stats.iter().map(|stat| GrantedRegion {
        region_id: stat.region_id,
        epoch: stat.epoch,
        ..GrantedRegion::default()
    });
    let lease = RegionLease {
        regions: regions.collect(),
        duration_since_epoch: request.duration_since_epoch,
        lease_ms: 60_000,
        ..RegionLease::default()
    };
    HeartbeatResponse { region_lease: Some(lease), ..answer(request, term) }
}

/// A future that must end.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LIMIT:?} for this: {what}"),
    }
}

/// Looks at a condition until it holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A peer that takes connections and never says a word, like a stopped process.
pub struct Silent {
    pub addr: String,
    _listener: std::net::TcpListener,
}

impl Silent {
    pub fn start() -> Silent {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Silent { addr: listener.local_addr().unwrap().to_string(), _listener: listener }
    }
}

/// An address where nobody listens.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A wire that can be cut without a reset: bytes stop, connections stay.
pub struct Wire {
    pub addr: String,
    cut: Arc<AtomicBool>,
}

impl Wire {
    pub async fn to(target: &str) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let target: SocketAddr = target.parse().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(forward(near_read, far_write, Arc::clone(&is_cut)));
                tokio::spawn(forward(far_read, near_write, Arc::clone(&is_cut)));
            }
        });
        Wire { addr, cut }
    }

    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Connections that are opened from now on work; those that were cut while something was sent stay so.
    pub fn heal(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cut: Arc<AtomicBool>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if cut.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
