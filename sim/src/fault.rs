//! What goes wrong: the faults by name, and what each of them does to whom, when, and until when.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::etcd::MEMBERS;

macro_rules! faults {
    ($($name:ident = $says:literal,)*) => {
        /// A fault.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Fault {
            $(#[doc = $says] $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Fault] = &[$(Fault::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$name => $says,)*
                }
            }
        }
    };
}

faults! {
    LeaderKilled = "leader-killed",
    LeaderStopped = "leader-stopped",
    LeaderDark = "leader-dark",
    LeaderShutDown = "leader-shut-down",
    LeaderLoopBlocked = "leader-loop-blocked",
    LeaderHoldsHeartbeats = "leader-holds-heartbeats",
    LeaderCutFromEtcd = "leader-cut-from-etcd",
    LeaderCutFromNodes = "leader-cut-from-nodes",
    LeaderCutFromReplicas = "leader-cut-from-replicas",
    LeaderDeaf = "leader-deaf",
    LeaderMute = "leader-mute",
    ReplicaKilled = "replica-killed",
    ReplicaStopped = "replica-stopped",
    ReplicaCutFromEtcd = "replica-cut-from-etcd",
    NodeKilled = "node-killed",
    NodeStopped = "node-stopped",
    NodeDark = "node-dark",
    NodeTwin = "node-twin",
    NodeCutOff = "node-cut-off",
    NodeDeaf = "node-deaf",
    NodeMute = "node-mute",
    NodeReset = "node-reset",
    NodeSlow = "node-slow",
    LeaderAndNodeKilled = "leader-and-node-killed",
    EtcdLeaderChange = "etcd-leader-change",
    EtcdMemberAlone = "etcd-member-alone",
    EtcdNoQuorum = "etcd-no-quorum",
    EtcdLostAnswers = "etcd-lost-answers",
    EtcdSlow = "etcd-slow",
    EtcdFull = "etcd-full",
    EtcdCompacted = "etcd-compacted",
}

/// One step of a fault, or of its end. Hosts by their names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A process ends at once.
    Kill(String),
    /// A process is told to end.
    ShutDown(String),
    /// A process is started where there is none.
    Start(String),
    /// A process is stopped where it stands.
    Stop(String),
    /// It goes on.
    GoOn(String),
    /// A machine loses power and network at once.
    Darken(String),
    /// It is back.
    Lighten(String),
    /// Nothing arrives in this direction.
    Cut(String, String),
    /// It does again.
    Mend(String, String),
    /// Connections between these two are reset.
    Reset(String, String),
    /// What goes in this direction takes so much longer.
    Slow(String, String, Duration),
    /// A replica's election stands still for so long.
    BlockLoop(String, Duration),
    /// A replica answers no heartbeat for so long.
    HoldHeartbeats(String, Duration),
    /// etcd's members elect another leader, which takes so long.
    ChangeEtcdLeader(Duration),
    /// A member of etcd reaches the others, or does not.
    Isolate(usize, bool),
    /// Of a thousand writes so many lose their answers.
    LoseAnswers(u32),
    /// Writes take up to so many milliseconds.
    SlowWrites(u64),
    /// etcd has no space, or has some again.
    Full(bool),
    /// etcd forgets its history.
    Compact,
}

/// A fault as it is drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which.
    pub fault: Fault,
    /// What happens, by the time since its beginning.
    pub steps: Vec<(Duration, Action)>,
    /// Until when it lasts.
    pub lasts: Duration,
    /// The hosts that it is about.
    pub about: Vec<String>,
}

/// Who is there.
pub struct Cast<'a> {
    /// Whoever leads, as far as etcd shows.
    pub leader: &'a str,
    /// All replicas.
    pub replicas: &'a [String],
    /// All datanodes.
    pub nodes: &'a [String],
}

struct Draft {
    steps: Vec<(Duration, Action)>,
    about: Vec<String>,
    lasts: Duration,
}

impl Draft {
    fn begin(&mut self, action: Action) {
        self.steps.push((Duration::ZERO, action));
    }

    fn end(&mut self, action: Action) {
        self.steps.push((self.lasts, action));
    }

    fn kill(&mut self, host: &str) {
        self.begin(Action::Kill(host.to_owned()));
        self.end(Action::Start(host.to_owned()));
        self.about.push(host.to_owned());
    }

    fn stop(&mut self, host: &str) {
        self.begin(Action::Stop(host.to_owned()));
        self.end(Action::GoOn(host.to_owned()));
        self.about.push(host.to_owned());
    }

    fn darken(&mut self, host: &str) {
        self.begin(Action::Darken(host.to_owned()));
        self.end(Action::Lighten(host.to_owned()));
        self.about.push(host.to_owned());
    }

    fn cut(&mut self, from: &str, to: &str) {
        self.begin(Action::Cut(from.to_owned(), to.to_owned()));
        self.end(Action::Mend(from.to_owned(), to.to_owned()));
    }

    /// Between one host and others: both ways, or one of them.
    fn part(&mut self, host: &str, others: &[String], random: &mut StdRng) {
        let way = random.random_range(0..4);
        for other in others.iter().filter(|other| *other != host) {
            if way != 1 {
                self.cut(host, other);
            }
            if way != 2 {
                self.cut(other, host);
            }
        }
        self.about.push(host.to_owned());
    }
}

/// The addresses of etcd's members.
pub fn members() -> Vec<String> {
    (0..MEMBERS).map(|member| format!("e{member}")).collect()
}

/// Draws what a fault does to whom, and for how long.
pub fn draw(fault: Fault, cast: &Cast<'_>, random: &mut StdRng) -> Plan {
    // Shorter than a keep-alive, about a lease, and longer than any wait.
    let most = *[900, 6_000, 20_000].choose(random).unwrap_or(&6_000);
    let lasts = Duration::from_millis(random.random_range(50..most));
    let mut draft = Draft { steps: Vec::new(), about: Vec::new(), lasts };
    let leader = cast.leader.to_owned();
    let replica = cast.replicas.choose(random).cloned().unwrap_or_else(|| leader.clone());
    let node = cast.nodes.choose(random).cloned().unwrap_or_default();
    let all: Vec<String> = cast.replicas.iter().chain(cast.nodes).cloned().chain(members()).collect();
    match fault {
        Fault::LeaderKilled => draft.kill(&leader),
        Fault::LeaderStopped => draft.stop(&leader),
        Fault::LeaderDark => draft.darken(&leader),
        Fault::LeaderShutDown => {
            draft.begin(Action::ShutDown(leader.clone()));
            draft.about.push(leader);
        }
        Fault::LeaderLoopBlocked => draft.begin(Action::BlockLoop(leader, lasts)),
        Fault::LeaderHoldsHeartbeats => draft.begin(Action::HoldHeartbeats(leader, lasts)),
        Fault::LeaderCutFromEtcd => draft.part(&leader, &members(), random),
        Fault::LeaderCutFromNodes => draft.part(&leader, cast.nodes, random),
        Fault::LeaderCutFromReplicas => draft.part(&leader, cast.replicas, random),
        Fault::LeaderDeaf => {
            all.iter().filter(|other| **other != leader).for_each(|other| draft.cut(other, &leader))
        }
        Fault::LeaderMute => {
            all.iter().filter(|other| **other != leader).for_each(|other| draft.cut(&leader, other))
        }
        Fault::ReplicaKilled => draft.kill(&replica),
        Fault::ReplicaStopped => draft.stop(&replica),
        Fault::ReplicaCutFromEtcd => draft.part(&replica, &members(), random),
        Fault::NodeKilled => draft.kill(&node),
        Fault::NodeStopped => draft.stop(&node),
        Fault::NodeDark => draft.darken(&node),
        Fault::NodeTwin => {
            let twin = format!("{node}b");
            draft.begin(Action::Start(twin.clone()));
            draft.end(Action::Kill(twin.clone()));
            draft.about.extend([node, twin]);
        }
        Fault::NodeCutOff => draft.part(&node, &all, random),
        Fault::NodeDeaf => {
            cast.replicas.iter().for_each(|other| draft.cut(other, &node));
            draft.about.push(node);
        }
        Fault::NodeMute => {
            cast.replicas.iter().for_each(|other| draft.cut(&node, other));
            draft.about.push(node);
        }
        Fault::NodeReset => {
            draft.begin(Action::Reset(node.clone(), leader));
            draft.about.push(node);
        }
        Fault::NodeSlow => {
            let by = Duration::from_millis(random.random_range(50..2_000));
            for replica in cast.replicas {
                draft.begin(Action::Slow(node.clone(), replica.clone(), by));
                draft.end(Action::Mend(node.clone(), replica.clone()));
            }
            draft.about.push(node);
        }
        Fault::LeaderAndNodeKilled => {
            draft.kill(&leader);
            draft.kill(&node);
        }
        Fault::EtcdLeaderChange => {
            draft.begin(Action::ChangeEtcdLeader(lasts.min(Duration::from_millis(2_500))));
        }
        Fault::EtcdMemberAlone => {
            let member = random.random_range(0..MEMBERS);
            draft.begin(Action::Isolate(member, true));
            draft.end(Action::Isolate(member, false));
        }
        Fault::EtcdNoQuorum => {
            for member in 0..MEMBERS - 1 {
                draft.begin(Action::Isolate(member, true));
                draft.end(Action::Isolate(member, false));
            }
        }
        Fault::EtcdLostAnswers => {
            draft.begin(Action::LoseAnswers(random.random_range(20..300)));
            draft.end(Action::LoseAnswers(0));
        }
        Fault::EtcdSlow => {
            draft.begin(Action::SlowWrites(random.random_range(50..1_500)));
            draft.end(Action::SlowWrites(2));
        }
        Fault::EtcdFull => {
            draft.begin(Action::Full(true));
            draft.end(Action::Full(false));
        }
        Fault::EtcdCompacted => draft.begin(Action::Compact),
    }
    Plan { fault, steps: draft.steps, lasts, about: draft.about }
}
