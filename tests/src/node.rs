//! A heartbeat peer on the bare generated client: what a stranger with the .proto files would write.
//!
//! It uses nothing of the client or datanode crates, so that a mistake made on both sides shows. [`HeartbeatStream`]
//! sends whatever it is given, also nonsense; [`FakeNode`] is a well-behaved node that answers instructions.

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_proto::admin::{Instruction, InstructionReply, RegionOutcome, instruction};
use metasrv_proto::meta::heartbeat_client::HeartbeatClient;
use metasrv_proto::meta::{
    HeartbeatRequest, HeartbeatResponse, MailboxMessage, NodeInfo, Peer, RegionRole, RegionStat,
    RequestHeader, Role, mailbox_message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::replica::channel;
use crate::wait::now;

/// Requests on their way: a stream that does not take four is stuck.
const OUTGOING: usize = 4;

/// How long a peer waits for an answer before the test fails.
pub const ANSWER: Duration = Duration::from_secs(10);

/// The largest answer that a peer takes.
const MESSAGE_LIMIT: usize = 256 << 20;

/// One open stream.
pub struct HeartbeatStream {
    requests: mpsc::Sender<HeartbeatRequest>,
    responses: Streaming<HeartbeatResponse>,
}

impl HeartbeatStream {
    /// Opens a stream to a replica; `first` goes out with it.
    ///
    /// # Errors
    /// What the replica, or the transport, refused it with.
    pub async fn open(addr: &str, first: HeartbeatRequest) -> Result<HeartbeatStream, Status> {
        HeartbeatStream::open_on(channel(addr), first).await
    }

    /// The same on a connection that is there.
    ///
    /// # Errors
    /// What the replica, or the transport, refused it with.
    pub async fn open_on(channel: Channel, first: HeartbeatRequest) -> Result<HeartbeatStream, Status> {
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        // There is room: the channel is new.
        let _ = requests.try_send(first);
        let mut client = HeartbeatClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        let opening = client.heartbeat(ReceiverStream::new(outgoing));
        match tokio::time::timeout(ANSWER, opening).await {
            Ok(opened) => Ok(HeartbeatStream { requests, responses: opened?.into_inner() }),
            Err(_) => Err(Status::deadline_exceeded("the stream did not open in time")),
        }
    }

    /// Sends a request; an error where the stream has ended.
    ///
    /// # Errors
    /// `UNAVAILABLE` where nobody takes it.
    pub async fn send(&self, request: HeartbeatRequest) -> Result<(), Status> {
        match tokio::time::timeout(ANSWER, self.requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::unavailable("the stream has ended")),
            Err(_) => Err(Status::deadline_exceeded("the stream takes no requests")),
        }
    }

    /// The next response; `None` where the stream ended without error.
    ///
    /// # Errors
    /// The status with which the stream ended; `DEADLINE_EXCEEDED` where nothing came.
    pub async fn next(&mut self) -> Result<Option<HeartbeatResponse>, Status> {
        match tokio::time::timeout(ANSWER, self.responses.message()).await {
            Ok(response) => response,
            Err(_) => Err(Status::deadline_exceeded("no response came in time")),
        }
    }
}

/// Whether a peer knows more than the public protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Fields below 100 only.
    Public,
    /// Incarnations, sequences, epochs, terms, instructions.
    Extended,
}

/// Who a peer says it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What it is.
    pub role: Role,
    /// The namespace of its id.
    pub cluster_id: u64,
    /// Its id.
    pub node_id: u64,
    /// Where it says its service is.
    pub addr: String,
    /// Creation of this process, milliseconds since 1970.
    pub node_epoch: u64,
    /// Random number of this process; 0 in the public dialect.
    pub nonce: u64,
    /// How much it knows.
    pub dialect: Dialect,
}

impl Identity {
    /// A datanode's new process that speaks our dialect.
    pub fn datanode(node_id: u64) -> Identity {
        Identity {
            role: Role::Datanode,
            cluster_id: 0,
            node_id,
            addr: format!("127.0.0.1:{}", 40_000 + node_id % 20_000),
            node_epoch: metasrv::clock::wall_clock_ms(),
            nonce: rand::random::<u64>().max(1),
            dialect: Dialect::Extended,
        }
    }

    /// A datanode's new process of the public protocol.
    pub fn public_datanode(node_id: u64) -> Identity {
        Identity { nonce: 0, dialect: Dialect::Public, ..Identity::datanode(node_id) }
    }

    /// A frontend that has no id yet.
    pub fn frontend() -> Identity {
        Identity { role: Role::Frontend, ..Identity::datanode(0) }
    }

    /// A request that names this peer and carries nothing else.
    pub fn request(&self) -> HeartbeatRequest {
        let header = RequestHeader {
            protocol_version: 1,
            cluster_id: self.cluster_id,
            member_id: self.node_id,
            role: self.role.into(),
            ..RequestHeader::default()
        };
        HeartbeatRequest {
            header: Some(header),
            peer: Some(Peer { id: self.node_id, addr: self.addr.clone() }),
            node_epoch: self.node_epoch,
            incarnation_nonce: self.nonce,
            ..HeartbeatRequest::default()
        }
    }

    /// A heartbeat with the stats of these regions, by id and epoch.
    pub fn heartbeat<'a>(&self, regions: impl IntoIterator<Item = (&'a u64, &'a u64)>) -> HeartbeatRequest {
        let region_stats = regions
            .into_iter()
            .map(|(region_id, epoch)| RegionStat {
                region_id: *region_id,
                rcus: 1,
                wcus: 2,
                approximate_bytes: 4096,
                engine: "test".to_owned(),
                role: RegionRole::Leader.into(),
                epoch: if self.dialect == Dialect::Extended { *epoch } else { 0 },
                ..RegionStat::default()
            })
            .collect();
        HeartbeatRequest { region_stats, ..self.request() }
    }
}

/// A well-behaved node: it reports its regions, opens and closes what it is told to, and replies.
pub struct FakeNode {
    /// Who it says it is.
    pub identity: Identity,
    /// Its open regions and their epochs.
    pub regions: BTreeMap<u64, u64>,
    /// Highest term it has seen.
    pub term: u64,
    /// The installation that it belongs to, as it was told; 0: not told yet.
    pub installation: u64,
    /// Instructions it has carried out.
    pub instructions: Vec<Instruction>,
    keeper_created: BootTime,
    stream: Option<HeartbeatStream>,
    sequence: u64,
}

/// What a heartbeat was answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The response.
    pub response: HeartbeatResponse,
    /// When the request went out.
    pub sent_at: BootTime,
}

impl Answer {
    /// The error code in the header; 0: none.
    pub fn error_code(&self) -> i32 {
        error_code(&self.response)
    }

    /// Regions that were renewed.
    pub fn granted(&self) -> Vec<u64> {
        self.response
            .region_lease
            .iter()
            .flat_map(|lease| &lease.regions)
            .map(|region| region.region_id)
            .collect()
    }
}

/// The error code in a response's header; 0: none.
pub fn error_code(response: &HeartbeatResponse) -> i32 {
    response.header.as_ref().and_then(|header| header.error.as_ref()).map_or(0, |error| error.code)
}

impl FakeNode {
    /// A node that is not connected yet.
    pub fn new(identity: Identity) -> FakeNode {
        FakeNode {
            identity,
            regions: BTreeMap::new(),
            term: 0,
            installation: 0,
            instructions: Vec::new(),
            keeper_created: now(),
            stream: None,
            sequence: 0,
        }
    }

    /// Connects to a replica; its first heartbeat goes out with the stream.
    ///
    /// # Errors
    /// What the stream, or the first heartbeat, was refused with.
    pub async fn connect(&mut self, addr: &str) -> Result<Answer, Status> {
        self.connect_on(channel(addr)).await
    }

    /// The same on a connection that is there.
    ///
    /// # Errors
    /// What the stream, or the first heartbeat, was refused with.
    pub async fn connect_on(&mut self, channel: Channel) -> Result<Answer, Status> {
        self.sequence = 0;
        let (mut first, sent_at) = self.next_request();
        first.info = Some(NodeInfo {
            version: "fake".to_owned(),
            hostname: "test".to_owned(),
            start_time_ms: self.identity.node_epoch,
            ..NodeInfo::default()
        });
        self.stream = Some(HeartbeatStream::open_on(channel, first).await?);
        self.answer(sent_at).await
    }

    /// Sends a heartbeat and waits for its answer. Instructions that arrive meanwhile are carried out.
    ///
    /// # Errors
    /// The status with which the stream ended.
    pub async fn beat(&mut self) -> Result<Answer, Status> {
        let (request, sent_at) = self.next_request();
        // Where it cannot be sent the stream has ended, and what is read next says why.
        let _ = self.stream()?.send(request).await;
        self.answer(sent_at).await
    }

    /// Waits for something that the server says of itself: a push, or the end of the stream (`None`).
    ///
    /// # Errors
    /// The status with which the stream ended.
    pub async fn pushed(&mut self) -> Result<Option<HeartbeatResponse>, Status> {
        let response = self.stream()?.next().await?;
        if let Some(response) = &response {
            self.take(response).await?;
        }
        Ok(response)
    }

    /// Ends the stream from this side.
    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    /// The bare stream, for requests that a well-behaved node would not send.
    ///
    /// # Errors
    /// `UNAVAILABLE` where the node is not connected.
    pub fn stream(&mut self) -> Result<&mut HeartbeatStream, Status> {
        self.stream.as_mut().ok_or_else(|| Status::unavailable("not connected"))
    }

    /// The heartbeat that is due now, and its send time.
    pub fn next_request(&mut self) -> (HeartbeatRequest, BootTime) {
        let sent_at = now();
        let mut request = self.identity.heartbeat(&self.regions);
        let since_created = sent_at.since(self.keeper_created).as_millis();
        request.duration_since_epoch = u64::try_from(since_created).unwrap_or(u64::MAX);
        if self.identity.dialect == Dialect::Extended {
            self.sequence += 1;
            request.sequence = self.sequence;
            if let Some(header) = &mut request.header {
                header.term = self.term;
                header.installation = self.installation;
            }
        }
        (request, sent_at)
    }

    async fn answer(&mut self, sent_at: BootTime) -> Result<Answer, Status> {
        loop {
            let Some(response) = self.stream()?.next().await? else {
                self.stream = None;
                return Err(Status::unavailable("the stream ended without error"));
            };
            let extended = self.identity.dialect == Dialect::Extended;
            // A public peer's requests have no numbers: what carries no message is an answer to it.
            let answers = if extended {
                response.sequence == self.sequence
            } else {
                response.mailbox_message.is_none()
            };
            // An error is the last word of a stream, whatever it answers.
            let answers = answers || error_code(&response) != 0;
            self.take(&response).await?;
            if answers {
                return Ok(Answer { response, sent_at });
            }
        }
    }

    /// Learns term and installation from a response, and carries out its instruction.
    async fn take(&mut self, response: &HeartbeatResponse) -> Result<(), Status> {
        if let Some(header) = response.header.as_ref().filter(|header| header.error.is_none()) {
            self.term = self.term.max(header.term);
            self.installation = header.installation;
            if self.identity.role != Role::Datanode && header.member_id != 0 {
                self.identity.node_id = header.member_id;
            }
        }
        let Some(message) = &response.mailbox_message else { return Ok(()) };
        let Some(mailbox_message::Payload::Instruction(instruction)) = &message.payload else {
            return Ok(());
        };
        let outcomes = self.carry_out(instruction);
        let reply = MailboxMessage {
            id: message.id,
            subject: message.subject.clone(),
            from: message.to.clone(),
            to: message.from.clone(),
            payload: Some(mailbox_message::Payload::InstructionReply(InstructionReply { outcomes })),
            ..MailboxMessage::default()
        };
        let mut request = HeartbeatRequest { mailbox_message: Some(reply), ..self.identity.request() };
        if let Some(header) = &mut request.header {
            header.term = self.term;
            header.installation = self.installation;
        }
        // As in `beat`.
        let _ = self.stream()?.send(request).await;
        Ok(())
    }

    fn carry_out(&mut self, instruction: &Instruction) -> Vec<RegionOutcome> {
        self.instructions.push(instruction.clone());
        let done = |region_id, epoch| RegionOutcome { region_id, epoch, ..RegionOutcome::default() };
        match &instruction.action {
            Some(instruction::Action::OpenRegions(open)) => open
                .regions
                .iter()
                .map(|target| {
                    let epoch = self.regions.entry(target.region_id).or_default();
                    *epoch = (*epoch).max(target.epoch);
                    done(target.region_id, *epoch)
                })
                .collect(),
            Some(instruction::Action::CloseRegions(close)) => close
                .regions
                .iter()
                .map(|target| {
                    self.regions.remove(&target.region_id);
                    done(target.region_id, target.epoch)
                })
                .collect(),
            Some(instruction::Action::FlushRegions(flush)) => {
                flush.regions.iter().map(|target| done(target.region_id, target.epoch)).collect()
            }
            // It takes no part in migrations.
            _ => Vec::new(),
        }
    }
}
