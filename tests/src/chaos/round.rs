//! One round: the world is whole, a fault happens, it is healed, the world is whole again; and what that cost.

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_proto::admin::TransferLeadershipRequest;
use rustix::process::Signal;

use super::fault::Fault;
use super::gateway::Gateway;
use super::network::Direction;
use super::nodes::look;
use super::servers::{MEMBERS, PATIENCE, reach};
use super::world::{INTERVAL, World};
use crate::cluster::Leadership;
use crate::wait::now;

/// What the log of a deposed leader says when it is awake again and its fence refuses what it still wanted to write.
pub const REFUSED: &str = "fenced write refused";

/// A process that was told to end has so long.
const ENDING: Duration = Duration::from_secs(30);

/// Time between two looks at what a round waits for; finer than anything that is measured by looking.
const LOOK: Duration = Duration::from_millis(10);

/// Beats are spread over the interval before a fault: a round measures its fault, not the end of the last one.
const QUIET: Duration = Duration::from_secs(2);

/// Heartbeats of a full etcd are watched for so long before our leader is killed.
const FULL: Duration = Duration::from_secs(6);

/// Bytes of one write that fills etcd; below its limit for a request.
const FILLING: usize = 1 << 20;

/// Writes after which etcd must be full, whatever its quota here.
const MOST_FILLINGS: usize = 500;

/// What a round cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// What happened.
    pub fault: Fault,
    /// The longest time between two accepted heartbeats of any node.
    pub gap: Duration,
    /// From the fault to the first accepted heartbeat of a higher term. Absent: there was none.
    pub serving: Option<Duration>,
    /// From the last accepted heartbeat of the old term to the first of the next one.
    pub leaderless: Option<Duration>,
    /// From the first write that etcd took again until every region was leased.
    pub leased_again: Option<Duration>,
    /// Regions that turned read-only at some instant.
    pub read_only: usize,
    /// Regions that are on another node than before, or gone.
    pub moved: usize,
    /// Terms that began.
    pub leader_changes: usize,
    /// The old leader's log says that a write of it was refused.
    pub refused: bool,
}

/// Runs a round; the world is whole before and after.
///
/// # Errors
/// What did not come in time: the world did not recover, or a tool failed.
pub async fn run(world: &mut World, fault: Fault, round: usize) -> Result<Measured, String> {
    if fault.deposes_the_living() {
        start_anew(world).await?;
    }
    let leader = world.settle().await?;
    tokio::time::sleep(QUIET).await;
    let before = world.servers.routes().await?;
    let log_before = log_of(world, leader).len();
    let etcd_leader = world.servers.etcd_leader().await?;
    if fault == Fault::EtcdNospace {
        fill(world).await?;
    }
    look(&world.ledger).begin_round(fault.deposes_the_living());
    if fault == Fault::EtcdNospace {
        // A part of the round: heartbeats go on.
        tokio::time::sleep(FULL).await;
        let gap = look(&world.ledger).longest_gap(now());
        println!("etcd is full for {FULL:?}: the longest gap between accepted heartbeats is {gap:.2?}");
    }
    let happened = happen(world, fault, round, leader, etcd_leader).await?;
    if fault.replaces_the_leader() {
        let what = format!("a heartbeat of a term above {} after {}", leader.term, fault.name());
        reach(&what, async || {
            look(&world.ledger).term_after(leader.term).map(|_| ()).ok_or_else(|| "there is none".to_owned())
        })
        .await?;
        // What follows takes the processors, and to look is not to disturb: every node has come back before.
        tokio::time::sleep(INTERVAL * 2).await;
    }
    // Healing may take longer than the hold, as with a quorum that is lost.
    restore(world, fault, leader, etcd_leader).await?;
    world.settle().await?;
    // A gap that is open ends with the next beat.
    tokio::time::sleep(INTERVAL).await;
    let after = world.servers.routes().await?;
    let moved = before
        .iter()
        .filter(|(region, (node, _))| after.get(*region).is_none_or(|(now_on, _)| now_on != node))
        .count();
    let ledger = look(&world.ledger);
    let next = ledger.term_after(leader.term);
    let ended = ledger.term(leader.term);
    Ok(Measured {
        fault,
        gap: ledger.longest_gap(now()),
        serving: next.map(|(_, seen)| seen.first.since(happened.at)),
        leaderless: next.zip(ended).map(|((_, next), ended)| next.first.since(ended.last)),
        leased_again: happened.leased_again,
        read_only: ledger.read_only(),
        moved,
        leader_changes: ledger.terms_after(leader.term),
        refused: log_of(world, leader).get(log_before..).is_some_and(|log| log.contains(REFUSED)),
    })
}

/// Starts every replica again, the leader last. The patience of a replica with a silent leader doubles with each one
/// that is deposed within a minute of the last, so as not to flap; these rounds measure the first one of a quiet day,
/// and a minute of calm before each of them would take longer than all the rest.
async fn start_anew(world: &mut World) -> Result<(), String> {
    let leader = world.settle().await?;
    let followers = (0..world.servers.replicas.len()).filter(|replica| *replica != leader.replica);
    for replica in followers.chain([leader.replica]).collect::<Vec<_>>() {
        world.servers.replicas[replica].terminate(ENDING).await;
        world.servers.start_replica(replica);
        world.settle().await?;
    }
    Ok(())
}

/// When a fault happened, and what was measured while it was healed.
struct Happened {
    at: BootTime,
    leased_again: Option<Duration>,
}

/// Makes a fault happen, and heals it where it ends by itself.
async fn happen(
    world: &mut World,
    fault: Fault,
    round: usize,
    leader: Leadership,
    etcd_leader: usize,
) -> Result<Happened, String> {
    let ours = leader.replica;
    let follower = (etcd_leader + 1 + round % (MEMBERS - 1)) % MEMBERS;
    let mut leased_again = None;
    let at = now();
    match fault {
        Fault::LeaderKill | Fault::EtcdNospace => world.servers.replicas[ours].kill(),
        Fault::LeaderTerm => {
            world.servers.replicas[ours].terminate(ENDING).await;
        }
        Fault::LeaderTransfer => {
            let request = TransferLeadershipRequest {
                reason: "chaos".to_owned(),
                ..TransferLeadershipRequest::default()
            };
            let transferred = world.servers.replicas[ours].admin().transfer_leadership(request).await;
            transferred.map_err(|status| format!("the leader does not hand over: {status}"))?;
        }
        Fault::LeaderHang => {
            world.servers.replicas[ours].process().signal(Signal::STOP);
            tokio::time::sleep(fault.hold()).await;
            world.servers.replicas[ours].process().signal(Signal::CONT);
        }
        Fault::LeaderBlackhole | Fault::LeaderBlackholeIn | Fault::LeaderBlackholeOut => {
            let direction = match fault {
                Fault::LeaderBlackholeIn => Direction::In,
                Fault::LeaderBlackholeOut => Direction::Out,
                _ => Direction::Both,
            };
            let place = &world.servers.replica_places[ours];
            world.servers.network.black_hole(place, direction)?;
            tokio::time::sleep(fault.hold()).await;
            world.servers.network.heal(place)?;
        }
        Fault::LeaderBlocked => {
            world.servers.replicas[ours].suffer("block-loop", fault.hold()).await;
            tokio::time::sleep(fault.hold()).await;
        }
        Fault::EtcdLeaderKill => {
            world.servers.etcd.kill_member(etcd_leader);
            tokio::time::sleep(fault.hold()).await;
        }
        Fault::EtcdMemberBlackhole | Fault::EtcdLeaderBlackhole => {
            let member = if fault == Fault::EtcdMemberBlackhole { follower } else { etcd_leader };
            let place = &world.servers.etcd_places[member];
            world.servers.network.black_hole(place, Direction::Both)?;
            tokio::time::sleep(fault.hold()).await;
            world.servers.network.heal(place)?;
        }
        Fault::EtcdAndLeaderKill => {
            world.servers.etcd.kill_member(etcd_leader);
            world.servers.replicas[ours].kill();
        }
        Fault::EtcdQuorumLoss => {
            for member in [etcd_leader, follower] {
                world.servers.etcd.pause_member(member);
            }
            tokio::time::sleep(fault.hold()).await;
            for member in [etcd_leader, follower] {
                world.servers.etcd.resume_member(member);
            }
            leased_again = Some(leased_after_return(world, leader.term, etcd_leader).await?);
        }
    }
    Ok(Happened { at, leased_again })
}

/// From the first write that etcd takes until every region is leased under a higher term.
async fn leased_after_return(world: &World, term: u64, member: usize) -> Result<Duration, String> {
    let addr = world.servers.etcd.addr(member);
    reach("etcd takes a write", async || Gateway(&addr).writes().await).await?;
    let returned = now();
    // Looked at more finely than by `reach`: this is what is measured.
    loop {
        if world.is_leased(term + 1) {
            return Ok(now().since(returned));
        }
        if now().since(returned) > PATIENCE {
            return Err("not every region was leased again after etcd's return".to_owned());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Starts again what was killed, and makes room in a full etcd.
async fn restore(
    world: &mut World,
    fault: Fault,
    leader: Leadership,
    etcd_leader: usize,
) -> Result<(), String> {
    if fault == Fault::EtcdNospace {
        world.leased().await?;
        make_room(world).await?;
    }
    if matches!(fault, Fault::EtcdLeaderKill | Fault::EtcdAndLeaderKill) {
        world.servers.etcd.start_member(etcd_leader);
    }
    let ended = matches!(
        fault,
        Fault::LeaderKill | Fault::LeaderTerm | Fault::EtcdAndLeaderKill | Fault::EtcdNospace
    );
    if ended {
        // Whoever follows has taken over with all nodes, before another replica asks for its share of the machine.
        world.leased().await?;
        world.servers.start_replica(leader.replica);
    }
    Ok(())
}

/// Fills etcd until its alarm is raised.
async fn fill(world: &World) -> Result<(), String> {
    let addr = world.servers.etcd.addr(0);
    let mut refusal = None;
    for _ in 0..MOST_FILLINGS {
        if let Err(why) = Gateway(&addr).fill(FILLING).await {
            refusal = Some(why);
            break;
        }
    }
    let refusal = refusal.ok_or("etcd does not get full")?;
    reach("etcd raises its alarm", async || {
        let alarms = Gateway(&addr).alarms().await?;
        if alarms.iter().any(|alarm| alarm["alarm"] == "NOSPACE") { Ok(()) } else { Err(refusal.clone()) }
    })
    .await
}

/// Makes room in a full etcd, as its operator does.
async fn make_room(world: &World) -> Result<(), String> {
    let addr = world.servers.etcd.addr(0);
    reach("etcd is compacted", async || Gateway(&addr).compact().await).await?;
    for member in 0..world.servers.etcd.members() {
        Gateway(&world.servers.etcd.addr(member)).defragment().await?;
    }
    Gateway(&addr).disarm().await
}

/// What a replica has logged. Its log is one file over all of its processes.
fn log_of(world: &World, leader: Leadership) -> String {
    let process = world.servers.replicas[leader.replica].process.as_ref();
    process.map(crate::process::Process::log).unwrap_or_default()
}

/// Rounds by their fault.
pub type Rounds = BTreeMap<Fault, Vec<Measured>>;
