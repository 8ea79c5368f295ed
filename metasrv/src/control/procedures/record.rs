//! What is stored of a procedure, between its record and the core's value.
//!
//! Nothing is lost on the way in either direction, and nothing is guessed: a record that makes no sense is an error that
//! names the field. A leader that finds one leads without it, and leaves it alone: a check of the store names it.
//!
//! | checked | why |
//! | --- | --- |
//! | the id is that of the key | two records of one procedure would both go on |
//! | source and target differ, and no id is 0 | 0 stands for "none" |
//! | an epoch is left above the region's | the target needs one |
//! | the target's process is known from Flushing on | only its word counts |
//! | the state, and why it is undone, have names that are known | an older version must not guess at a newer one's |

use metasrv_core::id::{ClusterId, Epoch, Incarnation, NodeId, RegionId};
use metasrv_core::procedure::ProcedureId;
use metasrv_core::procedure::drain::Drain;
use metasrv_core::procedure::migrate::{Migration, State, Why};
use metasrv_proto::admin::procedure_record::Kind;
use metasrv_proto::admin::{DrainRecord, MigrationRecord, ProcedureRecord};

use crate::keys::Keys;
use crate::mirror::state::Held;
use crate::record::RecordError;

/// A procedure as it is stored, with what only the shell needs to know of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stored {
    /// A region moves.
    Migration(StoredMigration),
    /// A node is emptied.
    Drain(StoredDrain),
}

/// A migration as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredMigration {
    /// The namespace of its nodes.
    pub cluster: ClusterId,
    /// Wall clock, in milliseconds since 1970, for people.
    pub started_ms: u64,
    /// The drain that began it.
    pub drain: Option<ProcedureId>,
    /// What the core decides by.
    pub migration: Migration,
}

/// A drain as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredDrain {
    /// The namespace of its node.
    pub cluster: ClusterId,
    /// What the core decides by.
    pub drain: Drain,
}

/// A field of a record that makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Senseless {
    /// Which.
    pub field: &'static str,
    /// Why not.
    pub why: String,
}

impl Stored {
    /// The record to be written by this term.
    pub fn to_record(&self, term: u64) -> ProcedureRecord {
        match self {
            Stored::Migration(stored) => stored.to_record(term),
            Stored::Drain(stored) => stored.to_record(term),
        }
    }

    /// What a record says.
    ///
    /// # Errors
    /// [`Senseless`]: the field that makes no sense.
    pub fn from_record(record: &ProcedureRecord) -> Result<Stored, Senseless> {
        let id = ProcedureId(not_zero("id", record.id)?);
        let cluster = ClusterId(record.cluster_id);
        match &record.kind {
            Some(Kind::Migration(of)) => Ok(Stored::Migration(StoredMigration {
                cluster,
                started_ms: record.started_at_ms,
                drain: (of.drain_id != 0).then_some(ProcedureId(of.drain_id)),
                migration: migration(id, of)?,
            })),
            Some(Kind::Drain(of)) => Ok(Stored::Drain(StoredDrain {
                cluster,
                drain: Drain {
                    id,
                    node: NodeId(not_zero("node_id", of.node_id)?),
                    started_ms: record.started_at_ms,
                    reason: of.reason.clone(),
                    total: usize::try_from(of.total)
                        .map_err(|error| senseless("total", error.to_string()))?,
                },
            })),
            None => Err(senseless("kind", "none that this version knows")),
        }
    }
}

impl StoredMigration {
    /// The record to be written by this term.
    pub fn to_record(&self, term: u64) -> ProcedureRecord {
        let of = &self.migration;
        let candidate = of.candidate.unwrap_or_default();
        let mut record = MigrationRecord {
            region_id: of.region.0,
            from_node: of.from.0,
            from_epoch: of.leader.epoch,
            from_nonce: of.leader.nonce,
            to_node: of.to.0,
            to_epoch: candidate.epoch,
            to_nonce: candidate.nonce,
            region_epoch: of.epoch.0,
            state: state_name(&of.state).to_owned(),
            reason: of.reason.clone(),
            drain_id: self.drain.map_or(0, |drain| drain.0),
            ..MigrationRecord::default()
        };
        match &of.state {
            State::CatchingUp { position } => record.position = *position,
            State::Undoing { why, owes_epoch } => {
                why_name(why).clone_into(&mut record.why);
                record.owes_epoch = *owes_epoch;
                if let Why::Cancelled(words) = why {
                    record.why_words.clone_from(words);
                }
            }
            State::Preparing | State::Flushing | State::Downgrading | State::Upgrading | State::Closing => {}
        }
        ProcedureRecord {
            id: of.id.0,
            cluster_id: self.cluster.0,
            term,
            started_at_ms: self.started_ms,
            kind: Some(Kind::Migration(record)),
        }
    }
}

impl StoredDrain {
    /// The record to be written by this term.
    pub fn to_record(&self, term: u64) -> ProcedureRecord {
        let of = &self.drain;
        ProcedureRecord {
            id: of.id.0,
            cluster_id: self.cluster.0,
            term,
            started_at_ms: of.started_ms,
            kind: Some(Kind::Drain(DrainRecord {
                node_id: of.node.0,
                total: u64::try_from(of.total).unwrap_or(u64::MAX),
                reason: of.reason.clone(),
            })),
        }
    }
}

/// What an inherited record says, or an error that names its key.
///
/// # Errors
/// [`RecordError`] for what makes no sense.
pub fn understand(keys: &Keys, held: &Held<ProcedureRecord>) -> Result<Stored, RecordError> {
    Stored::from_record(&held.value).map_err(|error| RecordError {
        key: keys.procedure(ProcedureId(held.value.id)),
        why: error.to_string(),
    })
}

/// The name of a migration's state, in records and for people.
pub fn state_name(state: &State) -> &'static str {
    match state {
        State::Preparing => "preparing",
        State::Flushing => "flushing",
        State::Downgrading => "downgrading",
        State::CatchingUp { .. } => "catching_up",
        State::Upgrading => "upgrading",
        State::Closing => "closing",
        State::Undoing { .. } => "undoing",
    }
}

/// Why a migration is undone, by name; the words of a cancellation stand beside it.
fn why_name(why: &Why) -> &'static str {
    match why {
        Why::Cancelled(_) => "cancelled",
        Why::RegionDropped => "region_dropped",
        Why::RouteChanged => "route_changed",
        Why::SourceLost => "source_lost",
        Why::SourceRestarted => "source_restarted",
        Why::SourceSlow => "source_slow",
        Why::SourceSilent => "source_silent",
        Why::TargetLost => "target_lost",
        Why::TargetRestarted => "target_restarted",
        Why::TargetLeft => "target_left",
        Why::TargetSlow => "target_slow",
        Why::TargetBehind => "target_behind",
        Why::TargetFailed => "target_failed",
    }
}

fn migration(id: ProcedureId, of: &MigrationRecord) -> Result<Migration, Senseless> {
    let state = state(of)?;
    let candidate = Incarnation { epoch: of.to_epoch, nonce: of.to_nonce };
    let candidate = (candidate != Incarnation::default()).then_some(candidate);
    match (&state, candidate) {
        (State::Preparing, Some(_)) => return Err(senseless("to_nonce", "none has opened the region yet")),
        (State::Preparing | State::Undoing { .. }, _) | (_, Some(_)) => {}
        (_, None) => return Err(senseless("to_nonce", format!("missing in the state {}", of.state))),
    }
    let epoch = Epoch(not_zero("region_epoch", of.region_epoch)?);
    if epoch.next() <= epoch {
        return Err(senseless("region_epoch", "no higher one is left"));
    }
    let from = NodeId(not_zero("from_node", of.from_node)?);
    let to = NodeId(not_zero("to_node", of.to_node)?);
    if from == to {
        return Err(senseless("to_node", "it is the source as well"));
    }
    Ok(Migration {
        id,
        region: RegionId(not_zero("region_id", of.region_id)?),
        from,
        leader: Incarnation { epoch: of.from_epoch, nonce: of.from_nonce },
        to,
        candidate,
        epoch,
        state,
        reason: of.reason.clone(),
    })
}

fn state(of: &MigrationRecord) -> Result<State, Senseless> {
    let state = match of.state.as_str() {
        "preparing" => State::Preparing,
        "flushing" => State::Flushing,
        "downgrading" => State::Downgrading,
        "catching_up" => State::CatchingUp { position: of.position },
        "upgrading" => State::Upgrading,
        "closing" => State::Closing,
        "undoing" => State::Undoing { why: why(of)?, owes_epoch: of.owes_epoch },
        unknown => return Err(senseless("state", format!("{unknown:?} is none that this version knows"))),
    };
    let is_undone = matches!(state, State::Undoing { .. });
    if of.position.is_some() && !matches!(state, State::CatchingUp { .. }) {
        return Err(senseless("position", format!("there is none in the state {}", of.state)));
    }
    if !is_undone && (!of.why.is_empty() || !of.why_words.is_empty() || of.owes_epoch) {
        return Err(senseless("why", format!("nothing is undone in the state {}", of.state)));
    }
    Ok(state)
}

fn why(of: &MigrationRecord) -> Result<Why, Senseless> {
    let why = match of.why.as_str() {
        "cancelled" => return Ok(Why::Cancelled(of.why_words.clone())),
        "region_dropped" => Why::RegionDropped,
        "route_changed" => Why::RouteChanged,
        "source_lost" => Why::SourceLost,
        "source_restarted" => Why::SourceRestarted,
        "source_slow" => Why::SourceSlow,
        "source_silent" => Why::SourceSilent,
        "target_lost" => Why::TargetLost,
        "target_restarted" => Why::TargetRestarted,
        "target_left" => Why::TargetLeft,
        "target_slow" => Why::TargetSlow,
        "target_behind" => Why::TargetBehind,
        "target_failed" => Why::TargetFailed,
        unknown => return Err(senseless("why", format!("{unknown:?} is none that this version knows"))),
    };
    if of.why_words.is_empty() {
        Ok(why)
    } else {
        Err(senseless("why_words", "only a cancellation has words"))
    }
}

fn not_zero(field: &'static str, value: u64) -> Result<u64, Senseless> {
    if value == 0 { Err(senseless(field, "it is 0")) } else { Ok(value) }
}

fn senseless(field: &'static str, why: impl Into<String>) -> Senseless {
    Senseless { field, why: why.into() }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
