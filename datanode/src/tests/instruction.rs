//! Instructions: carried out beside the stream, answered on it, judged by what is reported.

use std::time::Duration;

use metasrv_core::id::RegionId;
use metasrv_proto::admin::{
    CloseRegions, FlushRegions, Instruction, InstructionReply, OpenRegions, RegionTarget, instruction,
};
use metasrv_proto::meta::{
    HeartbeatRequest, HeartbeatResponse, MailboxMessage, RegionLease, mailbox_message,
};

use super::fake::{FakeStream, answer, eventually, header};
use super::{Node, renewal};

pub(super) fn open(regions: &[(u64, u64)]) -> instruction::Action {
    instruction::Action::OpenRegions(OpenRegions { regions: targets(regions) })
}

pub(super) fn close(regions: &[(u64, u64)]) -> instruction::Action {
    instruction::Action::CloseRegions(CloseRegions { regions: targets(regions) })
}

pub(super) fn targets(regions: &[(u64, u64)]) -> Vec<RegionTarget> {
    let target = |(region_id, epoch): &(u64, u64)| RegionTarget {
        region_id: *region_id,
        epoch: *epoch,
        ..RegionTarget::default()
    };
    regions.iter().map(target).collect()
}

/// Pushes an instruction; the stream's header speaks for a term of its own.
pub(super) async fn push(
    stream: &FakeStream,
    stream_term: u64,
    id: u64,
    term: u64,
    action: instruction::Action,
) {
    let instruction = Instruction { term, action: Some(action), ..Instruction::default() };
    let payload = mailbox_message::Payload::Instruction(instruction);
    let message = MailboxMessage {
        id,
        from: "metasrv".to_owned(),
        payload: Some(payload),
        ..MailboxMessage::default()
    };
    let header = Some(header(stream_term));
    stream
        .respond(HeartbeatResponse { header, mailbox_message: Some(message), ..HeartbeatResponse::default() })
        .await;
}

/// The reply to an instruction, and the last heartbeat with stats that came before or after it.
async fn reply(stream: &mut FakeStream, id: u64) -> Vec<(u64, u64, String)> {
    loop {
        let request = stream.request().await;
        let Some(message) = request.mailbox_message else { continue };
        assert!(request.region_stats.is_empty(), "a request that carries a reply carries no stats");
        assert_eq!(message.id, id);
        let Some(mailbox_message::Payload::InstructionReply(InstructionReply { outcomes })) = message.payload
        else {
            panic!("no reply: {message:?}");
        };
        return outcomes
            .into_iter()
            .map(|outcome| (outcome.region_id, outcome.epoch, outcome.error))
            .collect();
    }
}

pub(super) async fn report(stream: &mut FakeStream, regions: &[(u64, u64)]) -> HeartbeatRequest {
    loop {
        let request = stream.request().await;
        let reported: Vec<_> = request.region_stats.iter().map(|stat| (stat.region_id, stat.epoch)).collect();
        if request.mailbox_message.is_none() && reported == regions {
            return request;
        }
    }
}

/// Goal: regions are opened under their epochs, reported and leased; a repetition is a success; a higher epoch takes
/// the lease away until it is granted anew; closing ends it. Method: one after the other.
#[tokio::test]
async fn regions_are_opened_raised_and_closed() {
    let mut node = Node::start(|_| {}).await;
    let (_, mut stream) = node.stream().await;
    push(&stream, 1, 11, 1, open(&[(3, 1), (4, 1)])).await;
    let done = |region, epoch| (region, epoch, String::new());
    assert_eq!(reply(&mut stream, 11).await, [done(3, 1), done(4, 1)]);
    let request = report(&mut stream, &[(3, 1), (4, 1)]).await;
    stream.respond(renewal(&request, 1)).await;
    let keeper = node.task.keeper().clone();
    eventually("both are writable", || [3, 4].iter().all(|id| keeper.write_guard(RegionId(*id)).is_ok()))
        .await;
    push(&stream, 1, 12, 1, open(&[(3, 1)])).await;
    assert_eq!(reply(&mut stream, 12).await, [done(3, 1)], "a repetition is a success");
    assert!(keeper.write_guard(RegionId(3)).is_ok(), "and changes nothing");

    push(&stream, 1, 13, 1, open(&[(3, 5)])).await;
    assert_eq!(reply(&mut stream, 13).await, [done(3, 5)]);
    eventually("the lease of the old epoch is gone", || keeper.write_guard(RegionId(3)).is_err()).await;
    assert_eq!(node.server.open_regions(), [(3, 5), (4, 1)]);

    push(&stream, 1, 14, 1, close(&[(3, 5), (4, 1), (9, 1)])).await;
    let closed = reply(&mut stream, 14).await;
    assert!(
        closed.iter().all(|(_, _, error)| error.is_empty()),
        "closing what is closed is a success: {closed:?}"
    );
    eventually("nothing is open", || keeper.is_empty() && node.server.open_regions().is_empty()).await;
}

/// Goal: an instruction of an older term or epoch is refused, region by region, and a failure is told.
/// Method: a term that was succeeded, an epoch below the one held, a region that does not open.
#[tokio::test]
async fn what_is_older_than_what_was_seen_is_refused() {
    let mut node = Node::start(|_| {}).await;
    let mut stream = node.fake.stream().await;
    stream.welcome(4).await;
    node.server.refused.lock().unwrap().push(6);
    push(&stream, 4, 21, 4, open(&[(3, 5), (6, 1)])).await;
    let outcomes = reply(&mut stream, 21).await;
    assert_eq!(outcomes[0], (3, 5, String::new()));
    assert_eq!(outcomes[1].1, 0, "it holds nothing of it");
    assert!(outcomes[1].2.contains("its disk is gone"));
    report(&mut stream, &[(3, 5)]).await;
    for (id, term, action) in [(22, 4, open(&[(3, 4)])), (23, 3, open(&[(3, 6)])), (24, 4, close(&[(3, 4)]))]
    {
        push(&stream, 4, id, term, action).await;
        let outcomes = reply(&mut stream, id).await;
        assert_eq!((outcomes[0].0, outcomes[0].1), (3, 5), "what it holds is told");
        assert!(!outcomes[0].2.is_empty());
    }
    assert_eq!(node.server.open_regions(), [(3, 5)]);
    let flush = instruction::Action::FlushRegions(FlushRegions { regions: targets(&[(3, 5)]) });
    push(&stream, 4, 25, 4, flush).await;
    assert_eq!(reply(&mut stream, 25).await, [(3, 5, String::new())]);
    assert_eq!(*node.server.flushed.lock().unwrap(), [3]);
}

/// Goal: a region that no route gives to this node is closed, unless it was opened after the request that the answer
/// speaks of. Method: an answer to an old request, then one to a new request.
#[tokio::test]
async fn closeable_regions_are_closed_unless_they_are_newer_than_the_request() {
    let mut node = Node::start(|_| {}).await;
    let (handshake, mut stream) = node.stream().await;
    push(&stream, 1, 31, 1, open(&[(3, 1)])).await;
    let request = report(&mut stream, &[(3, 1)]).await;
    let closeable = |request: &HeartbeatRequest| {
        let lease = RegionLease {
            duration_since_epoch: request.duration_since_epoch,
            lease_ms: 1_000,
            closeable_region_ids: vec![3],
            ..RegionLease::default()
        };
        HeartbeatResponse { region_lease: Some(lease), ..answer(request, 1) }
    };
    stream.respond(closeable(&handshake)).await;
    push(&stream, 1, 32, 1, open(&[(3, 1)])).await;
    // Orders are carried out one after another: the reply comes after the closing, if there was one.
    while reply_id(&mut stream).await != 32 {}
    assert_eq!(node.server.open_regions(), [(3, 1)], "the handshake did not know of it");
    stream.respond(closeable(&request)).await;
    eventually("it is closed", || node.server.open_regions().is_empty()).await;
    report(&mut stream, &[]).await;
}

async fn reply_id(stream: &mut FakeStream) -> u64 {
    loop {
        if let Some(message) = stream.request().await.mailbox_message {
            return message.id;
        }
    }
}

/// Goal: what arrives on a stream that was given up is not heard. Method: an answer that renews, sent on the old
/// stream after the new one was opened.
#[tokio::test]
async fn answers_on_a_stream_that_was_given_up_renew_nothing() {
    let mut node = Node::start(|options| options.interval = Duration::from_millis(100)).await;
    let (_, mut old) = node.stream().await;
    push(&old, 1, 41, 1, open(&[(3, 1)])).await;
    let request = report(&mut old, &[(3, 1)]).await;
    // It falls silent, is left, and answers too late.
    let (_, _new) = node.stream().await;
    let late = old.responses.send(Ok(renewal(&request, 1))).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(node.task.keeper().write_guard(RegionId(3)).is_err(), "{late:?}");
}
