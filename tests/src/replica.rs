//! One metasrv, and what can be asked of it from outside.

use std::path::Path;
use std::time::Duration;

use metasrv_proto::admin::admin_client::AdminClient;
use metasrv_proto::admin::{GetStatusRequest, GetStatusResponse};
use metasrv_proto::meta::heartbeat_client::HeartbeatClient;
use metasrv_proto::meta::{AskLeaderRequest, AskLeaderResponse, RequestHeader};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Channel, Endpoint};

use crate::binaries::binary;
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
    channel: Channel,
}

impl Replica {
    /// A replica that is not started yet.
    pub fn new(name: &str, arguments: Vec<String>) -> Replica {
        let grpc_port = free_port();
        Replica {
            name: name.to_owned(),
            grpc_port,
            http_port: free_port(),
            process: None,
            arguments,
            channel: channel(&format!("127.0.0.1:{grpc_port}")),
        }
    }

    /// Its gRPC address, as clients name it.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.grpc_port)
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
            format!("127.0.0.1:{}", self.http_port),
        ];
        arguments.extend(self.arguments.iter().cloned());
        self.process = Some(Process::start(&self.name, &binary("metasrv"), arguments, directory));
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
        let mut request = tonic::Request::new(GetStatusRequest {});
        request.set_timeout(Duration::from_secs(2));
        self.admin().get_status(request).await.map(tonic::Response::into_inner)
    }

    /// Asks it for the leader, as a datanode does.
    pub async fn ask_leader(&self) -> Result<AskLeaderResponse, tonic::Status> {
        let header = RequestHeader { protocol_version: 1, member_id: 1, ..RequestHeader::default() };
        let mut request = tonic::Request::new(AskLeaderRequest { header: Some(header) });
        request.set_timeout(Duration::from_secs(2));
        self.heartbeat().ask_leader(request).await.map(tonic::Response::into_inner)
    }

    /// The bare generated client of the admin service.
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// The bare generated client of the heartbeat service.
    pub fn heartbeat(&self) -> HeartbeatClient<Channel> {
        HeartbeatClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Reads a page of its HTTP service: status line, headers and body. An error where nobody answers.
    pub async fn http(&self, path: &str) -> Result<String, String> {
        http_get(self.http_port, path).await
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
    let exchange = async {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut page = Vec::new();
        socket.read_to_end(&mut page).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&page).into_owned())
    };
    match tokio::time::timeout(CALL, exchange).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(format!("port {port}: {error}")),
        Err(_) => Err(format!("port {port}: no answer within {CALL:?}")),
    }
}
