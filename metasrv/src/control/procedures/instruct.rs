//! One instruction of a procedure on its way to a node, and what its reply says to the core.
//!
//! | instruction | the reply is waited for | a success says | a failure says |
//! | --- | --- | --- | --- |
//! | open as a candidate | as long as it is not repeated | nothing: the node's report does | nothing |
//! | flush | as long as flushing may take | flushed | nothing: it is repeated |
//! | downgrade | as long as the gap may last | stopped, and at which position | nothing: it is repeated |
//! | catch up | as long as the gap may last | caught up | it cannot catch up |
//! | upgrade, close | as long as it is not repeated | nothing: the node's report does | nothing |
//!
//! A reply counts only for the process that was meant: any other one refuses, by the nonce.

use std::time::Duration;

use metasrv_core::id::{Epoch, NodeKey, RegionId};
use metasrv_core::procedure::instruction::{Answer, Instruction, Reply, Tell};
use metasrv_core::procedure::migrate::Patience;
use metasrv_proto::admin::{
    self, CatchUpRegions, CloseRegions, DowngradeRegions, FlushRegions, InstructionReply, OpenRegions,
    RegionTarget, UpgradeRegions, instruction,
};
use metasrv_proto::meta::mailbox_message::Payload;

use crate::leader::Leader;
use crate::mailbox::{HeartbeatMailbox, MailboxError};
use crate::wire;

/// Sends an instruction and waits for its reply. `None`: there is none that says anything.
pub(super) async fn send(
    leader: &Leader,
    mailbox: &HeartbeatMailbox,
    node: &NodeKey,
    tell: &Tell,
    patience: &Patience,
) -> Option<Reply> {
    let subject = name(&tell.instruction);
    let message = mailbox.message(node, subject, Payload::Instruction(on_wire(leader.term().0, tell)));
    let header = wire::response_header(node, leader.term(), leader.installation());
    let sent = mailbox.send(node, header, message, wait(&tell.instruction, patience)).await;
    let outcome = match &sent {
        Ok(_) => "replied",
        Err(MailboxError::NotSent { .. }) => "not_sent",
        Err(MailboxError::TimedOut { .. }) => "timed_out",
    };
    leader.count_instruction(subject, outcome);
    match sent.map(|message| message.payload) {
        Ok(Some(Payload::InstructionReply(reply))) => understand(tell, &reply),
        Ok(_) => {
            tracing::warn!(%node, instruction = subject, "the reply says nothing that is known here");
            None
        }
        Err(error) => {
            tracing::debug!(%error, instruction = subject, "an instruction of a procedure has no reply");
            None
        }
    }
}

/// How long a reply is worth waiting for.
fn wait(instruction: &Instruction, patience: &Patience) -> Duration {
    match instruction {
        Instruction::Flush { .. } => patience.flush,
        Instruction::Downgrade { .. } | Instruction::CatchUp { .. } => patience.gap,
        Instruction::OpenCandidate { .. } | Instruction::Upgrade { .. } | Instruction::Close { .. } => {
            patience.repeat
        }
    }
}

/// Its name in subjects, logs and metrics.
fn name(instruction: &Instruction) -> &'static str {
    match instruction {
        Instruction::OpenCandidate { .. } => "open_candidate",
        Instruction::Flush { .. } => "flush",
        Instruction::Downgrade { .. } => "downgrade",
        Instruction::CatchUp { .. } => "catch_up",
        Instruction::Upgrade { .. } => "upgrade",
        Instruction::Close { .. } => "close",
    }
}

fn on_wire(term: u64, tell: &Tell) -> admin::Instruction {
    let target = |region: RegionId, epoch: Epoch| RegionTarget {
        region_id: region.0,
        epoch: epoch.0,
        ..RegionTarget::default()
    };
    let action = match tell.instruction {
        Instruction::OpenCandidate { region, epoch } => instruction::Action::OpenRegions(OpenRegions {
            regions: vec![RegionTarget { candidate: true, ..target(region, epoch) }],
        }),
        Instruction::Flush { region, epoch } => {
            instruction::Action::FlushRegions(FlushRegions { regions: vec![target(region, epoch)] })
        }
        Instruction::Downgrade { region, epoch } => {
            instruction::Action::DowngradeRegions(DowngradeRegions { regions: vec![target(region, epoch)] })
        }
        Instruction::CatchUp { region, epoch, position } => {
            // 0 stands for "to the end".
            let position = position.unwrap_or_default();
            let regions = vec![RegionTarget { position, ..target(region, epoch) }];
            instruction::Action::CatchUpRegions(CatchUpRegions { regions })
        }
        Instruction::Upgrade { region, epoch } => {
            instruction::Action::UpgradeRegions(UpgradeRegions { regions: vec![target(region, epoch)] })
        }
        Instruction::Close { region, epoch } => {
            instruction::Action::CloseRegions(CloseRegions { regions: vec![target(region, epoch)] })
        }
    };
    admin::Instruction { term, incarnation_nonce: tell.process.nonce, action: Some(action) }
}

/// What the reply says of the one region that the instruction named.
fn understand(tell: &Tell, reply: &InstructionReply) -> Option<Reply> {
    let (region, epoch) = named(&tell.instruction);
    let outcome = reply.outcomes.iter().find(|outcome| outcome.region_id == region.0)?;
    let is_done = outcome.error.is_empty();
    if !is_done {
        tracing::warn!(
            node = %tell.node, %region, %epoch, instruction = name(&tell.instruction), error = outcome.error,
            "an instruction of a procedure was not carried out"
        );
    }
    let answer = match (tell.instruction, is_done) {
        (Instruction::Flush { .. }, true) => Answer::Flushed,
        (Instruction::Downgrade { .. }, true) => {
            Answer::Stopped { position: (outcome.position != 0).then_some(outcome.position) }
        }
        (Instruction::CatchUp { .. }, true) => Answer::CaughtUp,
        (Instruction::CatchUp { .. }, false) => Answer::CannotCatchUp,
        _ => return None,
    };
    Some(Reply { node: tell.node, process: tell.process, epoch, answer })
}

fn named(instruction: &Instruction) -> (RegionId, Epoch) {
    match *instruction {
        Instruction::OpenCandidate { region, epoch }
        | Instruction::Flush { region, epoch }
        | Instruction::Downgrade { region, epoch }
        | Instruction::CatchUp { region, epoch, .. }
        | Instruction::Upgrade { region, epoch }
        | Instruction::Close { region, epoch } => (region, epoch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::id::{Incarnation, NodeId};
    use metasrv_proto::admin::RegionOutcome;

    const REGION: RegionId = RegionId(7);
    const EPOCH: Epoch = Epoch(3);

    fn tell(instruction: Instruction) -> Tell {
        Tell { node: NodeId(1), process: Incarnation { epoch: 5, nonce: 6 }, instruction }
    }

    fn said(instruction: Instruction, error: &str, position: u64) -> Option<Answer> {
        let outcome =
            RegionOutcome { region_id: 7, error: error.to_owned(), position, ..RegionOutcome::default() };
        let reply = understand(&tell(instruction), &InstructionReply { outcomes: vec![outcome] })?;
        assert_eq!((reply.process.nonce, reply.epoch), (6, EPOCH), "the answer is of whom it was meant for");
        Some(reply.answer)
    }

    #[test]
    fn a_reply_says_what_the_table_says() {
        let (region, epoch) = (REGION, EPOCH);
        let downgrade = Instruction::Downgrade { region, epoch };
        let catch_up = Instruction::CatchUp { region, epoch, position: Some(9) };
        assert_eq!(said(Instruction::Flush { region, epoch }, "", 0), Some(Answer::Flushed));
        assert_eq!(said(Instruction::Flush { region, epoch }, "full", 0), None);
        assert_eq!(said(downgrade, "", 9), Some(Answer::Stopped { position: Some(9) }));
        assert_eq!(said(downgrade, "", 0), Some(Answer::Stopped { position: None }));
        assert_eq!(said(downgrade, "writes under way", 0), None, "it may still write");
        assert_eq!(said(catch_up, "", 9), Some(Answer::CaughtUp));
        assert_eq!(said(catch_up, "closed", 0), Some(Answer::CannotCatchUp));
        assert_eq!(said(Instruction::Upgrade { region, epoch }, "", 0), None, "its report says so");
        let nothing = understand(&tell(downgrade), &InstructionReply::default());
        assert_eq!(nothing, None, "a reply that does not name the region says nothing of it");
        let other = RegionOutcome { region_id: 8, ..RegionOutcome::default() };
        assert_eq!(understand(&tell(downgrade), &InstructionReply { outcomes: vec![other] }), None);
    }

    #[test]
    fn an_instruction_names_the_process_it_is_meant_for() {
        let (region, epoch) = (REGION, EPOCH);
        let sent = on_wire(4, &tell(Instruction::CatchUp { region, epoch, position: None }));
        assert_eq!((sent.term, sent.incarnation_nonce), (4, 6));
        let Some(instruction::Action::CatchUpRegions(action)) = sent.action else { panic!("{sent:?}") };
        assert_eq!(action.regions, [RegionTarget { region_id: 7, epoch: 3, candidate: false, position: 0 }]);
        let sent = on_wire(4, &tell(Instruction::OpenCandidate { region, epoch }));
        let Some(instruction::Action::OpenRegions(action)) = sent.action else { panic!("{sent:?}") };
        assert!(action.regions[0].candidate, "opened to lead, it would get a lease");
    }
}
