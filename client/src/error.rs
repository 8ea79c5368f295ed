//! What can go wrong between a node or a tool and metasrv, told apart by what the caller does next.

use std::time::Duration;

use tonic::{Code, Status};

use crate::config::ConfigError;

/// Why a call to metasrv, or a stream, did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration cannot work.
    #[error("bad configuration: {0}")]
    Config(#[from] ConfigError),

    /// None of the configured replicas answered.
    #[error("no metasrv replica could be reached: {why}")]
    NobodyReachable {
        /// Each replica with what happened.
        why: String,
    },

    /// Replicas answered, but none could name a leader.
    #[error("metasrv has no leader at the moment: {why}")]
    NoLeader {
        /// Each replica with what it answered.
        why: String,
    },

    /// The replica that was asked does not lead.
    #[error("{addr} does not lead{}", leader.as_deref().map(|leader| format!("; {leader} does")).unwrap_or_default())]
    NotLeader {
        /// Who was asked.
        addr: String,
        /// Who leads, as far as it knows.
        leader: Option<String>,
        /// The term of that leader. 0: not told.
        term: u64,
    },

    /// While one replica kept us waiting, another one became leader.
    #[error("{addr} leads now, in term {term}")]
    LeaderChanged {
        /// The new leader.
        addr: String,
        /// Its term.
        term: u64,
    },

    /// An answer of a leader that was succeeded long ago.
    #[error("{addr} speaks for term {term}, but term {highest} has been seen")]
    LowerTerm {
        /// Who spoke.
        addr: String,
        /// The term of its answer.
        term: u64,
        /// The highest one seen before.
        highest: u64,
    },

    /// A process of this node with a higher `node_epoch` is known.
    #[error("a newer process of this node is known, with node epoch {known}: {message}")]
    StaleIncarnation {
        /// The `node_epoch` that stands.
        known: u64,
        /// As metasrv put it.
        message: String,
    },

    /// A newer process of this node took over.
    #[error("this process was superseded by a newer one of the same node: {message}")]
    Superseded {
        /// As metasrv put it.
        message: String,
    },

    /// The peer belongs to another metasrv installation than this node.
    #[error("{addr} belongs to another metasrv installation ({theirs:#018x}) than this node ({ours:#018x})")]
    OtherInstallation {
        /// Who answered.
        addr: String,
        /// The installation this node belongs to.
        ours: u64,
        /// The installation that answered. 0: it did not say.
        theirs: u64,
    },

    /// The peer ended the stream without an error.
    #[error("{addr} ended the stream")]
    Ended {
        /// The other end.
        addr: String,
    },

    /// The connection failed, or the peer ended a stream with an error.
    #[error("{addr}: {why}")]
    Transport {
        /// The other end.
        addr: String,
        /// What was reported.
        why: String,
    },

    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(String),

    /// The request cannot be right.
    #[error("{0}")]
    InvalidArgument(String),

    /// The leader understood and refused.
    #[error("{0}")]
    Refused(String),

    /// The call failed for a reason that another attempt would meet again.
    #[error("{0}")]
    Failed(String),

    /// The answer to a change was lost. It may have been done, and it may still be done: look before asking again.
    #[error(
        "{what}: the answer was lost, so it may or may not have been done; look before you repeat it ({why})"
    )]
    Unknown {
        /// What was asked.
        what: &'static str,
        /// How the answer was lost.
        why: String,
    },

    /// The deadline passed. What was asked has certainly not been done, or changes nothing.
    #[error("{what}: no success within {after:?} ({why})")]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// The deadline.
        after: Duration,
        /// The last thing that went wrong.
        why: String,
    },
}

impl ClientError {
    /// Whether another attempt may end differently without anybody changing a configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            ClientError::NobodyReachable { .. }
            | ClientError::NoLeader { .. }
            | ClientError::NotLeader { .. }
            | ClientError::LeaderChanged { .. }
            | ClientError::LowerTerm { .. }
            | ClientError::OtherInstallation { .. }
            | ClientError::Ended { .. }
            | ClientError::Transport { .. }
            | ClientError::TimedOut { .. } => true,
            ClientError::Config(_)
            | ClientError::StaleIncarnation { .. }
            | ClientError::Superseded { .. }
            | ClientError::NotFound(_)
            | ClientError::InvalidArgument(_)
            | ClientError::Refused(_)
            | ClientError::Failed(_)
            | ClientError::Unknown { .. } => false,
        }
    }

    /// Whether the error itself says where the leader is, so that the next attempt needs no wait.
    pub fn names_leader(&self) -> bool {
        matches!(self, ClientError::NotLeader { leader: Some(_), .. } | ClientError::LeaderChanged { .. })
    }

    /// A failed call or stream, as a transport error.
    pub(crate) fn transport(addr: &str, status: &Status) -> ClientError {
        ClientError::Transport { addr: addr.to_owned(), why: describe(status) }
    }
}

/// A status as one readable line, with the innermost cause.
pub(crate) fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    if text.is_empty() || status.code() != Code::Unknown {
        text = format!("{:?}: {text}", status.code());
    }
    text.trim_end_matches(": ").to_owned()
}
