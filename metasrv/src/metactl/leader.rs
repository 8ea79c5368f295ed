//! `metactl leader show` and `metactl leader transfer`.

use metasrv_client::{ClientError, Leader};
use metasrv_proto::admin::GetStatusResponse;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Column, Row, Shown, print_one};
use crate::session::{Look, Session, Waited};
use crate::survey::{Named, Survey};
use crate::text::cell;

/// Who leads.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct LeaderRow {
    /// The replica's name.
    pub name: String,
    /// Where it is reached.
    pub addr: String,
    /// Its term.
    pub term: u64,
    /// Whether it says so itself. If not, others named it, and it may be gone.
    pub confirmed: bool,
}

impl Row for LeaderRow {
    const COLUMNS: &'static [Column<LeaderRow>] = &[
        Column { title: "NAME", shown: Shown::Always, cell: |leader, _| cell(&leader.name) },
        Column { title: "ADDR", shown: Shown::Always, cell: |leader, _| cell(&leader.addr) },
        Column { title: "TERM", shown: Shown::Always, cell: |leader, _| leader.term.to_string() },
        Column {
            title: "CONFIRMED",
            shown: Shown::Always,
            cell: |leader, _| if leader.confirmed { "yes" } else { "no" }.to_owned(),
        },
    ];
}

impl LeaderRow {
    /// The leader by its own word, else by that of the others.
    pub fn of(survey: &Survey) -> Option<LeaderRow> {
        let named = |Named { name, addr, term }| LeaderRow { name, addr, term, confirmed: false };
        survey.leader().map(LeaderRow::confirmed).or_else(|| survey.named_leader().map(named))
    }

    fn confirmed(status: &GetStatusResponse) -> LeaderRow {
        LeaderRow {
            name: status.name.clone(),
            addr: status.leader_addr.clone(),
            term: status.term,
            confirmed: true,
        }
    }
}

/// What a transfer came to.
#[derive(Serialize)]
struct TransferRow {
    name: String,
    addr: String,
    term: u64,
    /// The term that was given up.
    ended_term: u64,
}

impl Row for TransferRow {
    const COLUMNS: &'static [Column<TransferRow>] = &[
        Column { title: "NAME", shown: Shown::Always, cell: |leader, _| cell(&leader.name) },
        Column { title: "ADDR", shown: Shown::Always, cell: |leader, _| cell(&leader.addr) },
        Column { title: "TERM", shown: Shown::Always, cell: |leader, _| leader.term.to_string() },
        Column { title: "ENDED TERM", shown: Shown::Always, cell: |leader, _| leader.ended_term.to_string() },
    ];
}

/// Shows who leads, or whom the followers take for the leader.
pub async fn show(session: &Session) -> Result<(), Failure> {
    let leader = LeaderRow::of(&Survey::take(session).await?);
    if let Some(leader) = &leader {
        print_one(leader, session.format)?;
    }
    match leader {
        Some(leader) if leader.confirmed => Ok(()),
        Some(leader) => Err(no_leader(&format!("others name {}, which does not say so itself", leader.name))),
        None => Err(no_leader("replicas answer, and none of them leads or names a leader")),
    }
}

/// Makes the leader hand over, waits for a leader of a higher term, and shows it.
pub async fn transfer(session: &Session, to: &str, reason: &str) -> Result<(), Failure> {
    const FOLLOW: &str = "`metactl leader show` tells who leads.";
    let admin = session.admin();
    let ended_term = session.change(admin.transfer_leadership(to, reason), FOLLOW).await?;
    // Followers may name the old leader for a moment; as a failed one it is believed only if nobody else is named.
    if let Some(old) = session.client.leader() {
        session.client.forget_leader(&old);
    }
    match session.wait(async || look_for_successor(session, ended_term).await).await? {
        Waited::Done(leader) => {
            let LeaderRow { name, addr, term, .. } = leader;
            print_one(&TransferRow { name, addr, term, ended_term }, session.format)
        }
        Waited::TimedOut(so_far) => Err(Failure::new(
            Exit::TimedOut,
            format!("no new leader within {}: {so_far}; the election goes on", session.limit()),
        )
        .advise(FOLLOW)),
        Waited::Interrupted(so_far) => {
            let what = format!("interrupted: {so_far}; the election goes on without this command");
            Err(Failure::new(Exit::Failed, what).advise(FOLLOW))
        }
    }
}

/// Whether a leader of a term after this one says that it leads.
async fn look_for_successor(session: &Session, ended_term: u64) -> Result<Look<LeaderRow>, ClientError> {
    let waiting = || Ok(Look::NotYet(format!("term {ended_term} has ended, and no later one has begun")));
    let Leader { addr, term } = session.client.ask_leader().await?;
    if term <= ended_term {
        return waiting();
    }
    let status = session.admin().status_of(&addr).await?;
    if status.role != "leader" || status.term <= ended_term {
        return waiting();
    }
    Ok(Look::Done(LeaderRow::confirmed(&status)))
}

fn no_leader(what: &str) -> Failure {
    Failure::new(Exit::Unhealthy, format!("there is no leader at the moment: {what}"))
        .advise("An election takes seconds. `metactl status` shows what each replica knows.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::document;
    use crate::survey::tests::{answer, silence};

    #[test]
    fn a_leader_is_confirmed_by_itself_alone() {
        let replicas = vec![answer("a", "follower", 4, "b"), answer("b", "leader", 4, "b")];
        let confirmed = LeaderRow::of(&Survey { replicas });
        let expected =
            |confirmed| LeaderRow { name: "b".to_owned(), addr: "b:3002".to_owned(), term: 4, confirmed };
        assert_eq!(confirmed, Some(expected(true)));
        let replicas = vec![answer("a", "follower", 4, "b"), silence("b")];
        assert_eq!(LeaderRow::of(&Survey { replicas }), Some(expected(false)));
        let replicas = vec![answer("a", "candidate", 0, ""), silence("b")];
        assert_eq!(LeaderRow::of(&Survey { replicas }), None);
    }

    #[test]
    fn the_names_of_its_fields_stay() {
        let shown = LeaderRow { name: "b".to_owned(), addr: "b:1".to_owned(), term: 4, confirmed: true };
        let json = document(&shown, Format::Jsonl);
        assert_eq!(json.as_deref(), Ok("{\"name\":\"b\",\"addr\":\"b:1\",\"term\":4,\"confirmed\":true}\n"));
        let moved = TransferRow { name: "c".to_owned(), addr: "c:1".to_owned(), term: 5, ended_term: 4 };
        let json = document(&moved, Format::Jsonl);
        assert_eq!(json.as_deref(), Ok("{\"name\":\"c\",\"addr\":\"c:1\",\"term\":5,\"ended_term\":4}\n"));
    }
}
