//! One metasrv, and what can be asked of it from outside.

use std::path::Path;
use std::time::Duration;

use metasrv_proto::admin::admin_client::AdminClient;
use metasrv_proto::admin::operations_client::OperationsClient;
use metasrv_proto::admin::{GetStatusRequest, GetStatusResponse};
use metasrv_proto::meta::heartbeat_client::HeartbeatClient;
use metasrv_proto::meta::{AskLeaderRequest, AskLeaderResponse, RequestHeader};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Channel, Endpoint};

use crate::binaries::binary;
use crate::place::Place;
use crate::ports::free_port;
use crate::process::Process;
use crate::wait::eventually;

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(10);

/// Large enough for the answers about the largest nodes that the tests make.
const MESSAGE_LIMIT: usize = 64 << 20;

/// A metasrv: its ports stay the same when its process is started again.
pub struct Replica {
    /// Its name in the cluster.
    pub name: String,
    /// Where its gRPC service is.
    pub grpc_port: u16,
    /// Where its HTTP service is.
    pub http_port: u16,
    /// Its process, while it runs.
    pub process: Option<Process>,
    /// What comes after `metasrv serve --name … --grpc-addr … --http-addr …`.
    arguments: Vec<String>,
    place: Place,
    channel: Channel,
}

impl Replica {
    /// A replica that is not started yet.
    pub fn new(name: &str, arguments: Vec<String>) -> Replica {
        Replica::new_at(Place::here(), name, arguments)
    }

    /// A replica at this place that is not started yet.
    pub fn new_at(place: Place, name: &str, arguments: Vec<String>) -> Replica {
        let grpc_port = free_port();
        Replica {
            name: name.to_owned(),
            grpc_port,
            http_port: free_port(),
            process: None,
            arguments,
            channel: channel(&format!("{}:{grpc_port}", place.host)),
            place,
        }
    }

    /// Its gRPC address, as clients name it.
    pub fn addr(&self) -> String {
        format!("{}:{}", self.place.host, self.grpc_port)
    }

    /// Its HTTP address.
    pub fn http_addr(&self) -> String {
        format!("{}:{}", self.place.host, self.http_port)
    }

    /// Starts its process, again or for the first time.
    pub fn start(&mut self, directory: &Path) {
        let mut arguments = vec![
            "serve".to_owned(),
            "--name".to_owned(),
            self.name.clone(),
            "--grpc-addr".to_owned(),
            self.addr(),
            "--http-addr".to_owned(),
            self.http_addr(),
        ];
        arguments.extend(self.arguments.iter().cloned());
        let namespace = self.place.namespace.as_deref();
        let process = Process::start_in(namespace, &self.name, &binary("metasrv"), arguments, directory);
        self.process = Some(process);
    }

    /// Its running process. Panics where there is none.
    pub fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Kills it as a power failure would.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks it to end, and waits for that.
    pub async fn terminate(&mut self, limit: Duration) -> std::process::ExitStatus {
        let process = self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        process.terminate(limit).await
    }

    /// Waits until it answers.
    pub async fn answers(&self) {
        let what = format!("{} answers", self.name);
        eventually(Duration::from_secs(20), &what, async || self.status().await).await;
    }

    /// What it says of itself.
    pub async fn status(&self) -> Result<GetStatusResponse, tonic::Status> {
        let mut request = tonic::Request::new(GetStatusRequest::default());
        request.set_timeout(Duration::from_secs(2));
        self.admin().get_status(request).await.map(tonic::Response::into_inner)
    }

    /// Asks it for the leader, as a datanode does.
    pub async fn ask_leader(&self) -> Result<AskLeaderResponse, tonic::Status> {
        let header = RequestHeader { protocol_version: 1, member_id: 1, ..RequestHeader::default() };
        let mut request = tonic::Request::new(AskLeaderRequest { header: Some(header), failed_term: 0 });
        request.set_timeout(Duration::from_secs(2));
        self.heartbeat().ask_leader(request).await.map(tonic::Response::into_inner)
    }

    /// The bare generated client of the admin service.
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// The bare generated client of the operators' service.
    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// The bare generated client of the heartbeat service.
    pub fn heartbeat(&self) -> HeartbeatClient<Channel> {
        HeartbeatClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Makes it suffer a fault for so long; it must have been started with `--fault-injection`.
    pub async fn suffer(&self, fault: &str, duration: Duration) {
        let path = format!("/faults/{fault}?ms={}", duration.as_millis());
        let answer = http_exchange(&self.http_addr(), "POST", &path, "").await;
        assert!(answer.as_ref().is_ok_and(|page| page.starts_with("HTTP/1.1 200 ")), "{path}: {answer:?}");
    }

    /// Reads a page of its HTTP service: status line, headers and body. An error where nobody answers.
    pub async fn http(&self, path: &str) -> Result<String, String> {
        http_exchange(&self.http_addr(), "GET", path, "").await
    }

    /// The value of a metric: the sum over its labels. An error where it is not there.
    pub async fn metric(&self, name: &str) -> Result<f64, String> {
        let page = self.http("/metrics").await?;
        let values: Vec<f64> = page
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(' ') || rest.starts_with('{'))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
            .collect();
        if values.is_empty() { Err(format!("there is no metric {name}")) } else { Ok(values.iter().sum()) }
    }
}

/// A connection that is made when it is first used, and again after it was lost.
pub fn channel(addr: &str) -> Channel {
    Endpoint::from_shared(format!("http://{addr}"))
        .unwrap_or_else(|error| panic!("{addr} is no address: {error}"))
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .connect_lazy()
}

/// Reads a page from a port of this machine.
pub async fn http_get(port: u16, path: &str) -> Result<String, String> {
    http_exchange(&format!("127.0.0.1:{port}"), "GET", path, "").await
}

/// Sends a request and reads all of its answer: status line, headers and body.
///
/// # Errors
/// Nobody answers there in time.
pub async fn http_exchange(addr: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
    let exchange = async {
        let mut socket = tokio::net::TcpStream::connect(addr).await?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut page = Vec::new();
        socket.read_to_end(&mut page).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&page).into_owned())
    };
    match tokio::time::timeout(CALL, exchange).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(format!("{addr}: {error}")),
        Err(_) => Err(format!("{addr}: no answer within {CALL:?}")),
    }
}
