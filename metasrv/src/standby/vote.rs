//! The other evidence: a majority of the replicas has heard nothing of the leader for a second.
//!
//! | what is broken | what its probes show |
//! | --- | --- |
//! | its process stands still (SIGSTOP, a frozen host) | no answer |
//! | its network swallows what comes, what goes, or both | no answer |
//! | its election's loop stands still, and the rest goes on | answers that say so |
//!
//! When this replica suspects the leader, it asks the others in the queue whether they do. The accused is not asked, and
//! counts as one of them, so that of two replicas neither deposes the other: there the TTL decides, as it does where
//! this replica does not reach the others (`metasrv_core::suspicion`).

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use metasrv_core::id::Term;
use metasrv_core::suspicion::is_majority;
use metasrv_proto::admin::SuspectsRequest;
use metasrv_proto::admin::replica_client::ReplicaClient;
use tokio::sync::watch;

use super::Standby;
use crate::dial::Dialer;
use crate::handler::KnownLeader;
use crate::observer::View;
use crate::peer;
use crate::probe::{self, Answer};

/// Time between two looks at what was heard.
const LOOK: Duration = Duration::from_millis(50);

/// Deadline of one question; a replica that does not answer it does not agree.
const QUESTION: Duration = Duration::from_millis(250);

/// Comes back once a majority suspects this leader.
pub async fn deposed(standby: &Standby, leader: &KnownLeader, view: &watch::Receiver<View>) {
    let (answering, answers) = watch::channel(None);
    let probing = probe::probe(leader.addr.clone(), standby.dialer.clone(), standby.clock.clone(), answering);
    tokio::select! {
        // Ends only with its receiver.
        () = probing => {}
        () = listen(standby, leader, view, answers) => {}
    }
}

async fn listen(
    standby: &Standby,
    leader: &KnownLeader,
    view: &watch::Receiver<View>,
    answers: watch::Receiver<Option<Answer>>,
) {
    let mut said = false;
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(Answer { sent_at, term: Some(term) }) = *answers.borrow() {
            standby.heard(term, sent_at);
        }
        let opinion = standby.opinion(leader.term);
        if !opinion.suspects {
            said = false;
            continue;
        }
        let (others, replicas) = electorate(&view.borrow(), leader);
        let votes = count(&standby.dialer, leader.term, others).await.saturating_add(1);
        let decided = is_majority(votes, replicas);
        if decided || !said {
            said = true;
            tracing::warn!(
                term = %leader.term, leader = leader.name, silence = ?opinion.silence, votes, replicas, decided,
                "nothing was heard of the leader for too long"
            );
        }
        // It may have spoken while the others were asked.
        if decided && standby.opinion(leader.term).suspects {
            return;
        }
    }
}

/// Whom to ask, and how many there are, the accused and this one included.
fn electorate(view: &View, leader: &KnownLeader) -> (Vec<String>, usize) {
    // A replica may stand in the queue twice for a moment, under an old lease and a new one.
    let mut all: Vec<&str> = view.members.iter().map(|member| member.addr.as_str()).collect();
    all.extend(view.own_addr.as_deref());
    all.push(&leader.addr);
    all.sort_unstable();
    all.dedup();
    let others = all.iter().filter(|addr| **addr != leader.addr && Some(**addr) != view.own_addr.as_deref());
    (others.map(|addr| (*addr).to_owned()).collect(), all.len())
}

/// How many of these suspect the leader of this term.
async fn count(dialer: &Dialer, term: Term, others: Vec<String>) -> usize {
    let asked: FuturesUnordered<_> = others
        .into_iter()
        .map(|addr| async move {
            let answer = tokio::time::timeout(QUESTION, ask(dialer, &addr, term)).await;
            matches!(answer, Ok(Some(true)))
        })
        .collect();
    asked.filter(|agrees| std::future::ready(*agrees)).count().await
}

async fn ask(dialer: &Dialer, addr: &str, term: Term) -> Option<bool> {
    let mut replica = ReplicaClient::new(peer::connect(dialer, addr).await.ok()?);
    let answer = replica.suspects(SuspectsRequest { term: term.0 }).await.ok()?;
    Some(answer.into_inner().suspects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_proto::admin::CandidateRecord;

    fn electorate_of(own: &str, members: &[&str]) -> (Vec<String>, usize) {
        let member = |addr: &&str| CandidateRecord { addr: (*addr).to_owned(), ..CandidateRecord::default() };
        let members = members.iter().map(member).collect();
        let view = View { own_addr: Some(own.to_owned()), members, ..View::default() };
        let leader = KnownLeader { addr: "a:1".to_owned(), name: "a".to_owned(), term: Term(1) };
        electorate(&view, &leader)
    }

    #[test]
    fn everybody_counts_once_and_the_accused_is_not_asked() {
        assert_eq!(electorate_of("b:1", &["a:1", "b:1", "c:1"]), (vec!["c:1".to_owned()], 3));
        assert_eq!(electorate_of("b:1", &["a:1", "c:1", "b:1", "c:1"]), (vec!["c:1".to_owned()], 3));
        assert_eq!(electorate_of("b:1", &["a:1", "b:1"]), (vec![], 2));
    }

    #[test]
    fn a_replica_that_is_between_two_attempts_counts_itself() {
        assert_eq!(electorate_of("b:1", &["a:1", "c:1"]), (vec!["c:1".to_owned()], 3));
    }
}
