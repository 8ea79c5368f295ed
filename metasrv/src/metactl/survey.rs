//! Every replica asked at once, whether there is a leader or not.
//!
//! The replicas that were named on the command line are asked for their own status and for the replicas that they know
//! of. Whoever is mentioned in an answer and was not named is asked in a second round, so that one address is enough to
//! see the whole cluster. Nothing here is a decision: it is what the replicas say, and each is shown with its own words.

use std::collections::BTreeSet;

use futures_util::future::{join, join_all};
use metasrv_client::{ClientError, parse_address};
use metasrv_proto::admin::{FollowerView, GetStatusResponse, Member};

use crate::session::Session;

/// What was found out about every replica.
pub struct Survey {
    /// The replicas, the named ones first.
    pub replicas: Vec<Replica>,
}

/// What was found out about one replica.
pub struct Replica {
    /// Where it was asked.
    pub addr: String,
    /// What it says of itself, or why it does not.
    pub status: Result<GetStatusResponse, ClientError>,
    /// The replicas that it knows of, itself included.
    pub members: Vec<Member>,
}

/// A leader by the word of others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Where it is said to be reached.
    pub addr: String,
    /// Its term.
    pub term: u64,
}

impl Survey {
    /// Asks them all.
    ///
    /// # Errors
    /// [`ClientError::NobodyReachable`] if none answers.
    pub async fn take(session: &Session) -> Result<Survey, ClientError> {
        let named = session.client.peers().to_vec();
        let mut survey = Survey { replicas: ask(session, named).await };
        let mentioned = survey.mentioned();
        let known: BTreeSet<String> = survey.names().map(str::to_owned).collect();
        let others = ask(session, mentioned).await;
        // Two addresses may lead to one replica: the address that it was named by is enough.
        survey.replicas.extend(others.into_iter().filter(|other| match &other.status {
            Ok(status) => !known.contains(&status.name),
            Err(_) => true,
        }));
        if survey.replicas.iter().any(|replica| replica.status.is_ok()) {
            return Ok(survey);
        }
        let why = survey.replicas.iter().filter_map(|replica| replica.status.as_ref().err());
        let why: Vec<String> = why.map(ClientError::to_string).collect();
        Err(ClientError::NobodyReachable { why: why.join("; ") })
    }

    /// The replica that says of itself that it leads; the one of the highest term where several do, because an old
    /// leader that was cut off may not have noticed yet.
    pub fn leader(&self) -> Option<&GetStatusResponse> {
        self.answers().filter(|status| status.role == "leader").max_by_key(|status| status.term)
    }

    /// The leader by the word of the others, for when it does not say so itself.
    pub fn named_leader(&self) -> Option<Named> {
        self.answers()
            .filter(|status| status.role != "leader" && !status.leader_addr.is_empty())
            .max_by_key(|status| status.term)
            .map(|status| Named {
                name: status.leader_name.clone(),
                addr: status.leader_addr.clone(),
                term: status.term,
            })
    }

    /// The follower that has seen most of the store, and where it stands.
    pub fn furthest_follower(&self) -> Option<(&GetStatusResponse, FollowerView)> {
        self.answers()
            .filter_map(|status| Some((status, status.follower?)))
            .max_by_key(|(_, view)| view.revision)
    }

    /// The replicas, as the one knows them that is furthest: it has seen the highest term, and most of the others.
    pub fn members(&self) -> &[Member] {
        let furthest = self.replicas.iter().max_by_key(|replica| {
            let term = replica.members.iter().map(|member| member.term).max();
            (term, replica.members.len())
        });
        furthest.map(|replica| replica.members.as_slice()).unwrap_or_default()
    }

    fn answers(&self) -> impl Iterator<Item = &GetStatusResponse> {
        self.replicas.iter().filter_map(|replica| replica.status.as_ref().ok())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.answers().map(|status| status.name.as_str())
    }

    /// Addresses from answers that were not asked yet, and do not belong to a replica that answered elsewhere.
    fn mentioned(&self) -> Vec<String> {
        let asked: BTreeSet<&str> = self.replicas.iter().map(|replica| replica.addr.as_str()).collect();
        let answered: BTreeSet<&str> = self.names().collect();
        let members = self
            .replicas
            .iter()
            .flat_map(|replica| &replica.members)
            .map(|member| (member.name.as_str(), member.addr.as_str()));
        let leaders = self.answers().map(|status| (status.leader_name.as_str(), status.leader_addr.as_str()));
        let new: BTreeSet<String> = members
            .chain(leaders)
            .filter(|(name, _)| !answered.contains(name))
            .filter_map(|(_, addr)| parse_address(addr).ok())
            .filter(|addr| !asked.contains(addr.as_str()))
            .collect();
        new.into_iter().collect()
    }
}

/// Asks these replicas, all at once, each within the client's deadline for one replica.
async fn ask(session: &Session, addrs: Vec<String>) -> Vec<Replica> {
    let admin = session.admin();
    let asked = addrs.into_iter().map(async |addr| {
        let (status, members) = join(admin.status_of(&addr), admin.members_of(&addr)).await;
        Replica { members: members.unwrap_or_default(), status, addr }
    });
    join_all(asked).await
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A replica that answers.
    pub fn answer(name: &str, role: &str, term: u64, leader: &str) -> Replica {
        let addr = |name: &str| if name.is_empty() { String::new() } else { format!("{name}:3002") };
        let status = GetStatusResponse {
            name: name.to_owned(),
            role: role.to_owned(),
            term,
            leader_name: leader.to_owned(),
            leader_addr: addr(leader),
            ..GetStatusResponse::default()
        };
        Replica { addr: addr(name), status: Ok(status), members: Vec::new() }
    }

    /// A replica that does not.
    pub fn silence(name: &str) -> Replica {
        let addr = format!("{name}:3002");
        let why = "connection refused".to_owned();
        Replica { status: Err(ClientError::Transport { addr: addr.clone(), why }), addr, members: Vec::new() }
    }

    fn member(name: &str, term: u64) -> Member {
        Member { name: name.to_owned(), addr: format!("{name}:3002"), term, ..Member::default() }
    }

    #[test]
    fn of_two_that_say_they_lead_the_higher_term_does() {
        let replicas = vec![answer("a", "leader", 3, "a"), answer("b", "leader", 4, "b")];
        let survey = Survey { replicas };
        assert_eq!(survey.leader().map(|leader| leader.name.as_str()), Some("b"));
        assert_eq!(survey.named_leader(), None, "their own word is not the word of others");
    }

    #[test]
    fn without_a_leader_the_others_name_the_last_one_they_saw() {
        let replicas = vec![answer("a", "follower", 3, "c"), answer("b", "candidate", 0, ""), silence("c")];
        let survey = Survey { replicas };
        assert!(survey.leader().is_none());
        let named = Named { name: "c".to_owned(), addr: "c:3002".to_owned(), term: 3 };
        assert_eq!(survey.named_leader(), Some(named));
    }

    #[test]
    fn whoever_is_mentioned_and_was_not_asked_is_asked_once() {
        let mut localhost = answer("a", "follower", 3, "c");
        localhost.addr = "localhost:3002".to_owned();
        localhost.members = vec![member("a", 0), member("b", 0), member("c", 3)];
        localhost.members.push(Member { addr: "no address".to_owned(), ..member("d", 0) });
        let survey = Survey { replicas: vec![localhost, silence("b")] };
        assert_eq!(survey.mentioned(), ["c:3002"], "a answered elsewhere, b was asked, d cannot be");
    }

    #[test]
    fn members_come_from_whoever_has_seen_most() {
        let mut stale = answer("a", "follower", 2, "a");
        stale.members = vec![member("a", 2), member("b", 0), member("c", 0)];
        let mut current = answer("b", "leader", 3, "b");
        current.members = vec![member("b", 3), member("c", 0)];
        let survey = Survey { replicas: vec![stale, current, silence("c")] };
        assert_eq!(survey.members().len(), 2);
        assert_eq!(survey.members()[0].name, "b");
    }
}
