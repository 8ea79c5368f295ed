//! A region on its way from one node to another: stopped here, taken over there.

use std::sync::Arc;

use metasrv_core::id::{Epoch, RegionId};
use metasrv_proto::admin::instruction::Action;
use metasrv_proto::admin::{
    CatchUpRegions, DowngradeRegions, Instruction, OpenRegions, RegionOutcome, RegionTarget, UpgradeRegions,
};
use metasrv_proto::meta::{
    HeartbeatRequest, HeartbeatResponse, MailboxMessage, RegionRole, RegionStat, mailbox_message,
};
use tokio::sync::Semaphore;

use super::fake::{FakeStream, eventually, header};
use super::instruction::{close, open, push, report, targets};
use super::{Node, renewal};
use crate::NotWritable;

const REGION: RegionId = RegionId(3);

fn downgrade(region: u64, epoch: u64) -> Action {
    Action::DowngradeRegions(DowngradeRegions { regions: targets(&[(region, epoch)]) })
}

fn upgrade(region: u64, epoch: u64) -> Action {
    Action::UpgradeRegions(UpgradeRegions { regions: targets(&[(region, epoch)]) })
}

fn candidate(region_id: u64, epoch: u64) -> Action {
    let target = RegionTarget { region_id, epoch, candidate: true, position: 0 };
    Action::OpenRegions(OpenRegions { regions: vec![target] })
}

fn catch_up(region_id: u64, epoch: u64, position: u64) -> Action {
    let target = RegionTarget { region_id, epoch, candidate: false, position };
    Action::CatchUpRegions(CatchUpRegions { regions: vec![target] })
}

/// The next request that carries a reply, and the outcome for its only region.
async fn outcome(stream: &mut FakeStream, id: u64) -> RegionOutcome {
    loop {
        let request = stream.request().await;
        let Some(message) = request.mailbox_message else { continue };
        assert_eq!(message.id, id);
        let Some(mailbox_message::Payload::InstructionReply(reply)) = message.payload else {
            panic!("no reply: {message:?}");
        };
        return reply.outcomes[0].clone();
    }
}

async fn done(stream: &mut FakeStream, id: u64) -> RegionOutcome {
    let outcome = outcome(stream, id).await;
    assert_eq!(outcome.error, "", "{outcome:?}");
    outcome
}

/// The next heartbeat that reports regions, and what it says of the only one.
async fn stat(stream: &mut FakeStream) -> (HeartbeatRequest, RegionStat) {
    loop {
        let request = stream.request().await;
        if let [stat] = &request.region_stats[..] {
            let stat = stat.clone();
            return (request, stat);
        }
    }
}

/// Answers heartbeats until the region is writable. The first one may be of the same millisecond as the opening, so that
/// its lease does not count; then there is another one.
async fn leads(node: &Node, stream: &mut FakeStream) {
    while node.task.keeper().write_guard(REGION).is_err() {
        let request = stream.request().await;
        if request.mailbox_message.is_none() {
            stream.respond(renewal(&request, 1)).await;
        }
    }
}

/// A node that leads region 3 under epoch 5, its stream, and a heartbeat that reported it.
async fn leader() -> (Node, FakeStream, HeartbeatRequest) {
    let mut node = Node::start(|_| {}).await;
    let (_, mut stream) = node.stream().await;
    push(&stream, 1, 1, 1, open(&[(3, 5)])).await;
    let request = report(&mut stream, &[(3, 5)]).await;
    stream.respond(renewal(&request, 1)).await;
    leads(&node, &mut stream).await;
    (node, stream, request)
}

/// Goal: a downgraded region takes no new write at once, is confirmed when the write under way has ended, and takes no
/// grant for its epoch from then on; a raised epoch counts again. Method: a guard that is held; then an answer that renews
/// what was reported before.
#[tokio::test]
async fn a_downgraded_region_waits_for_its_writes_and_refuses_its_epoch_for_good() {
    let (node, mut stream, before) = leader().await;
    let keeper = node.task.keeper().clone();
    let guard = keeper.write_guard(REGION).unwrap();
    push(&stream, 1, 2, 1, downgrade(3, 5)).await;
    eventually("new writes are refused", || {
        matches!(keeper.write_guard(REGION), Err(NotWritable::Downgraded(REGION)))
    })
    .await;
    assert_eq!(
        *node.server.flushed.lock().unwrap(),
        Vec::<u64>::new(),
        "a write is under way: nothing is final yet"
    );
    assert_eq!(guard.check(), Ok(()));
    drop(guard);
    assert_eq!(done(&mut stream, 2).await.epoch, 5);
    assert_eq!(*node.server.flushed.lock().unwrap(), [3]);
    let (after, reported) = loop {
        let (request, stat) = stat(&mut stream).await;
        if stat.role() == RegionRole::DowngradingLeader {
            break (request, stat);
        }
    };
    assert_eq!((reported.epoch, reported.candidate), (5, false));

    let answered = node.task.responses();
    stream.respond(renewal(&before, 1)).await;
    stream.respond(renewal(&after, 1)).await;
    eventually("both are heard", || node.task.responses() == answered + 2).await;
    assert_eq!(keeper.write_guard(REGION).unwrap_err(), NotWritable::Downgraded(REGION));
    push(&stream, 1, 3, 1, upgrade(3, 5)).await;
    assert!(outcome(&mut stream, 3).await.error.contains("stopped writing under epoch 5"));

    push(&stream, 1, 4, 1, open(&[(3, 6)])).await;
    done(&mut stream, 4).await;
    leads(&node, &mut stream).await;
}

/// Goal: a write that does not end is not confirmed as ended, and asking again helps once it has. Method: a guard that
/// outlives the patience.
#[tokio::test]
async fn a_write_that_does_not_end_is_said_so() {
    let (node, mut stream, _) = leader().await;
    let guard = node.task.keeper().write_guard(REGION).unwrap();
    push(&stream, 1, 2, 1, downgrade(3, 5)).await;
    let outcome = outcome(&mut stream, 2).await;
    assert!(outcome.error.contains("have not ended"), "{outcome:?}");
    assert!(node.task.keeper().write_guard(REGION).is_err(), "it is stopped all the same");
    drop(guard);
    push(&stream, 1, 3, 1, downgrade(3, 5)).await;
    done(&mut stream, 3).await;
}

/// Goal: a write that outlives its region's closing is waited for all the same. Method: a guard that is held while the
/// region is closed and opened again.
#[tokio::test]
async fn a_write_that_outlives_a_closing_is_waited_for() {
    let (node, mut stream, _) = leader().await;
    for (first, reopen) in [(2, false), (5, true)] {
        let guard = node.task.keeper().write_guard(REGION).unwrap();
        let epoch = guard.epoch().0;
        push(&stream, 1, first, 1, close(&[(3, epoch)])).await;
        done(&mut stream, first).await;
        if reopen {
            push(&stream, 1, first + 1, 1, open(&[(3, epoch)])).await;
            done(&mut stream, first + 1).await;
        }
        push(&stream, 1, first + 2, 1, downgrade(3, epoch)).await;
        let refused = outcome(&mut stream, first + 2).await;
        assert!(refused.error.contains("have not ended"), "{refused:?}");
        drop(guard);
        push(&stream, 1, first + 3, 1, downgrade(3, epoch)).await;
        done(&mut stream, first + 3).await;
        if !reopen {
            push(&stream, 1, 20, 1, open(&[(3, 6)])).await;
            done(&mut stream, 20).await;
            leads(&node, &mut stream).await;
        }
    }
}

/// Goal: a process that does not hold the region confirms that it will not write, and means it: the region is not opened
/// under that epoch any more, and a later one is. Method: downgrade first, open afterwards.
#[tokio::test]
async fn what_was_stopped_before_it_was_open_is_never_led_under_that_epoch() {
    let mut node = Node::start(|_| {}).await;
    let (_, mut stream) = node.stream().await;
    push(&stream, 1, 1, 1, downgrade(3, 5)).await;
    done(&mut stream, 1).await;
    push(&stream, 1, 2, 1, open(&[(3, 5)])).await;
    let refused = outcome(&mut stream, 2).await;
    assert!(refused.error.contains("stopped writing under epoch 5"), "{refused:?}");
    push(&stream, 1, 3, 1, open(&[(3, 6)])).await;
    done(&mut stream, 3).await;
}

/// Goal: a candidate is reported as one, is granted nothing, catches up, and leads once it is upgraded under a higher epoch;
/// the upgrade is reported right behind its reply. Method: one instruction after the other; regular heartbeats are minutes
/// apart.
#[tokio::test]
async fn a_candidate_catches_up_and_is_upgraded() {
    let mut node = Node::start(|_| {}).await;
    let (_, mut stream) = node.stream().await;
    push(&stream, 1, 1, 1, candidate(3, 5)).await;
    assert_eq!(done(&mut stream, 1).await.epoch, 5);
    let (request, reported) = stat(&mut stream).await;
    assert_eq!((reported.role(), reported.epoch, reported.candidate), (RegionRole::Follower, 5, true));
    let keeper = node.task.keeper().clone();
    let answered = node.task.responses();
    stream.respond(renewal(&request, 1)).await;
    eventually("it is heard", || node.task.responses() == answered + 1).await;
    assert_eq!(keeper.write_guard(REGION).unwrap_err(), NotWritable::Candidate(REGION));

    for (id, action) in [(2, open(&[(3, 5)])), (3, upgrade(3, 5)), (4, catch_up(3, 6, 1))] {
        push(&stream, 1, id, 1, action).await;
        let refused = outcome(&mut stream, id).await;
        assert!(!refused.error.is_empty(), "its epoch has another leader: {id}");
    }
    push(&stream, 1, 5, 1, catch_up(3, 5, 42)).await;
    assert_eq!(done(&mut stream, 5).await.position, 42);
    // The heartbeats that follow each reply are out of the way.
    loop {
        if stream.request().await.mailbox_message.is_none() {
            break;
        }
    }

    push(&stream, 1, 6, 1, upgrade(3, 6)).await;
    assert_eq!(done(&mut stream, 6).await.epoch, 6);
    let behind = stream.request().await;
    assert_eq!(behind.region_stats[0].epoch, 6, "the reply is followed by the heartbeat that is leased");
    assert!(!behind.region_stats[0].candidate);
    stream.respond(renewal(&behind, 1)).await;
    leads(&node, &mut stream).await;
    push(&stream, 1, 7, 1, upgrade(3, 6)).await;
    done(&mut stream, 7).await;
    assert!(keeper.write_guard(REGION).is_ok(), "a repetition changes nothing");
}

/// Goal: a region without a writer does not wait for regions that open slowly. Method: an opening that hangs, then a
/// downgrade, a candidate's upgrade, and the end of the opening.
#[tokio::test]
async fn what_a_region_without_a_writer_waits_for_overtakes_slow_openings() {
    let (node, mut stream, _) = leader().await;
    let gate = Arc::new(Semaphore::new(0));
    *node.server.slow.lock().unwrap() = Some(Arc::clone(&gate));
    push(&stream, 1, 2, 1, open(&[(9, 1)])).await;
    push(&stream, 1, 3, 1, open(&[(10, 1)])).await;
    push(&stream, 1, 4, 1, downgrade(3, 5)).await;
    done(&mut stream, 4).await;
    gate.add_permits(2);
    done(&mut stream, 2).await;
    done(&mut stream, 3).await;
}

/// Goal: what is meant for another process of the node is refused. Method: a nonce that is not this process's, then its own.
#[tokio::test]
async fn an_instruction_for_another_process_is_refused() {
    let (node, mut stream, before) = leader().await;
    for (id, nonce) in [(2, before.incarnation_nonce ^ 1), (3, before.incarnation_nonce)] {
        let instruction = Instruction { term: 1, incarnation_nonce: nonce, action: Some(downgrade(3, 5)) };
        let payload = Some(mailbox_message::Payload::Instruction(instruction));
        let message = MailboxMessage { id, payload, ..MailboxMessage::default() };
        let header = Some(header(1));
        let response = HeartbeatResponse { header, mailbox_message: Some(message), ..Default::default() };
        stream.respond(response).await;
        let outcome = outcome(&mut stream, id).await;
        assert_eq!(outcome.error.is_empty(), nonce == before.incarnation_nonce, "{outcome:?}");
        assert_eq!(node.task.keeper().write_guard(REGION).is_ok(), !outcome.error.is_empty());
    }
}

/// Goal: metasrv learns of an epoch that it does not know, because its store was set back, from the storage that refuses.
/// Method: a storage that has seen epoch 9.
#[tokio::test]
async fn a_storage_that_refuses_says_which_epoch_it_has_seen() {
    let mut node = Node::start(|_| {}).await;
    let (_, mut stream) = node.stream().await;
    *node.server.storage.lock().unwrap() = Epoch(9);
    push(&stream, 1, 1, 1, open(&[(3, 5)])).await;
    let refused = outcome(&mut stream, 1).await;
    assert_eq!((refused.storage_epoch, refused.epoch, refused.error.as_str()), (9, 0, "fenced"));
    push(&stream, 1, 2, 1, open(&[(3, 10)])).await;
    assert_eq!(done(&mut stream, 2).await.storage_epoch, 0);
}
