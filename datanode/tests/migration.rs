//! Two datanodes as processes on one shared directory, and a region that moves from one to the other.
//!
//! Method throughout: the real binaries; a small replica in this process gives the instructions in the order of a migration
//! and grants what is reported; the regions' files and the notes of the nodes are the witnesses.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../client/src/fake.rs"]
#[allow(dead_code)]
mod fake;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use metasrv_proto::admin::instruction::Action;
use metasrv_proto::admin::key_value_client::KeyValueClient;
use metasrv_proto::admin::{
    CatchUpRegions, DowngradeRegions, GetRequest, Instruction, OpenRegions, PutRequest, RegionOutcome,
    RegionTarget, UpgradeRegions,
};
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse, MailboxMessage, RegionRole, mailbox_message};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use fake::{FakeMetasrv, FakeStream, header, renewal, within};

const REGION: u64 = 3;

/// One datanode and the replica's end of its stream.
struct Node {
    process: Child,
    stream: FakeStream,
    kv: KeyValueClient<Channel>,
    sent: u64,
}

impl Node {
    async fn start(fake: &mut FakeMetasrv, place: &Path, id: u64) -> Node {
        let addr = fake::nobody();
        let process = Command::new(env!("CARGO_BIN_EXE_datanode"))
            .args(["run", "--node-id", &id.to_string(), "--metasrv", &fake.addr, "--grpc-addr", &addr])
            .args(["--heartbeat-interval", "60s", "--data"])
            .arg(place.join(format!("data-{id}")))
            .arg("--shared")
            .arg(place.join("shared"))
            .arg("--write-intervals")
            .arg(place.join("intervals"))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(place.join(format!("log-{id}"))).unwrap())
            .spawn()
            .unwrap();
        let mut stream = fake.stream().await;
        stream.welcome(1).await;
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy();
        Node { process, stream, kv: KeyValueClient::new(channel), sent: 0 }
    }

    /// Tells it something and waits for its reply; heartbeats that come before are answered.
    async fn tell(&mut self, action: Action) -> RegionOutcome {
        self.sent += 1;
        let instruction = Instruction { term: 1, action: Some(action), ..Instruction::default() };
        let payload = Some(mailbox_message::Payload::Instruction(instruction));
        let message = MailboxMessage { id: self.sent, payload, ..MailboxMessage::default() };
        let response = HeartbeatResponse {
            header: Some(header(1)),
            mailbox_message: Some(message),
            ..HeartbeatResponse::default()
        };
        self.stream.respond(response).await;
        loop {
            let request = self.stream.request().await;
            let Some(message) = &request.mailbox_message else {
                self.renew(&request).await;
                continue;
            };
            let Some(mailbox_message::Payload::InstructionReply(reply)) = &message.payload else {
                panic!("no reply: {message:?}");
            };
            assert_eq!(message.id, self.sent);
            let outcome = reply.outcomes[0].clone();
            assert_eq!(outcome.error, "");
            return outcome;
        }
    }

    /// Grants everything that it reports, for a minute: what it may not write to, it has to refuse itself.
    async fn renew(&self, request: &HeartbeatRequest) {
        self.stream.respond(renewal(request, 1)).await;
    }

    /// Answers heartbeats until it reports that it writes under this epoch.
    async fn leads(&mut self, epoch: u64) {
        loop {
            let request = self.stream.request().await;
            self.renew(&request).await;
            let leads = |stat: &metasrv_proto::meta::RegionStat| {
                stat.epoch == epoch && stat.role() == RegionRole::Leader
            };
            if request.region_stats.iter().any(leads) {
                return;
            }
        }
    }

    async fn put(&self, key: &str) -> Result<u64, Status> {
        put(self.kv.clone(), key).await
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let request = GetRequest { region_id: REGION, key: key.into() };
        self.kv.clone().get(request).await.unwrap().into_inner().value
    }
}

async fn put(mut kv: KeyValueClient<Channel>, key: &str) -> Result<u64, Status> {
    let request = PutRequest { region_id: REGION, key: key.into(), value: b"v".to_vec() };
    kv.put(request).await.map(|response| response.into_inner().epoch)
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn target(epoch: u64) -> RegionTarget {
    RegionTarget { region_id: REGION, epoch, ..RegionTarget::default() }
}

fn inspect(shared: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_datanode")).arg("inspect").arg(shared).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A number of a line of JSON.
fn field(line: &str, name: &str) -> u64 {
    let rest = line.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name}: {line}")).1;
    rest.split([',', '}']).next().unwrap().parse().unwrap_or_else(|_| panic!("{name}: {line}"))
}

/// Goal: a region moves under constant writes: nothing that was acknowledged is lost, and no two nodes write at one time.
/// Method: a writer that puts as fast as it is answered, at whichever node takes it; the instructions of a migration; then
/// every acknowledged key is read at the new leader, and the witnesses are asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_moves_under_constant_writes_and_loses_nothing() {
    let mut fake = FakeMetasrv::start().await;
    let place = tempfile::tempdir().unwrap();
    let mut from = Node::start(&mut fake, place.path(), 1).await;
    let mut to = Node::start(&mut fake, place.path(), 2).await;
    from.tell(Action::OpenRegions(OpenRegions { regions: vec![target(5)] })).await;
    from.leads(5).await;
    from.put("first").await.unwrap();
    let candidate = RegionTarget { candidate: true, ..target(5) };
    to.tell(Action::OpenRegions(OpenRegions { regions: vec![candidate] })).await;
    assert_eq!(to.put("x").await.unwrap_err().code(), Code::FailedPrecondition);

    let nodes = [from.kv.clone(), to.kv.clone()];
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            if *stopped.borrow_and_update() {
                break;
            }
            let key = format!("{number:06}");
            match put(nodes[0].clone(), &key).await {
                Ok(epoch) => acknowledged.push((key, epoch)),
                Err(_) => {
                    let epoch = put(nodes[1].clone(), &key).await;
                    acknowledged.extend(epoch.ok().map(|epoch| (key, epoch)));
                }
            }
        }
        acknowledged
    });
    while from.get("000005").await.is_none() {
        tokio::task::yield_now().await;
    }
    let stopped = from.tell(Action::DowngradeRegions(DowngradeRegions { regions: vec![target(5)] })).await;
    assert!(stopped.position > 5);
    assert_eq!(from.put("late").await.unwrap_err().code(), Code::FailedPrecondition);
    let behind = RegionTarget { position: stopped.position, ..target(5) };
    let caught_up = to.tell(Action::CatchUpRegions(CatchUpRegions { regions: vec![behind] })).await;
    assert_eq!(caught_up.position, stopped.position, "nobody writes meanwhile");
    to.tell(Action::UpgradeRegions(UpgradeRegions { regions: vec![target(6)] })).await;
    to.leads(6).await;
    within("the new leader takes puts", async { while to.put("second").await.is_err() {} }).await;
    tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await.unwrap_err();
    stop.send_replace(true);
    let acknowledged = within("the writer ends", writer).await.unwrap();

    for epoch in [5, 6] {
        assert!(acknowledged.iter().any(|(_, under)| *under == epoch), "nothing was written under {epoch}");
    }
    for (key, _) in &acknowledged {
        assert!(to.get(key).await.is_some(), "{key} is lost");
    }
    assert!(to.get("first").await.is_some());
    assert_eq!(to.get("late").await, None);

    let segments = inspect(&place.path().join("shared"));
    let seen: Vec<_> = segments.iter().map(|line| (field(line, "epoch"), field(line, "node"))).collect();
    assert_eq!(seen, [(5, 1), (6, 2)]);
    assert_eq!(field(&segments[0], "counted"), stopped.position);
    let intervals = std::fs::read_to_string(place.path().join("intervals")).unwrap();
    let of = |epoch| intervals.lines().filter(move |line| field(line, "epoch") == epoch);
    let last = of(5).map(|line| field(line, "until")).max().unwrap();
    let first = of(6).map(|line| field(line, "from")).min().unwrap();
    assert!(last < first, "two nodes wrote at one time");
    println!("nobody wrote for {:?}", Duration::from_nanos(first - last));
}
