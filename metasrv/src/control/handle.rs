//! The way to the control loop: commands with answers, and a word that there is something to look at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metasrv_core::id::NodeKey;
use metasrv_proto::admin::{
    AnnounceRestartRequest, AnnounceRestartResponse, CancelProcedureRequest, CancelProcedureResponse,
    CordonNodeRequest, CordonNodeResponse, DecommissionNodeRequest, DecommissionNodeResponse,
    DrainNodeRequest, DrainNodeResponse, DropRegionRequest, DropRegionResponse, ExplainRegionRequest,
    ExplainRegionResponse, GetFailoverRequest, GetFailoverResponse, ListProceduresRequest,
    ListProceduresResponse, MigrateRegionRequest, MigrateRegionResponse, RebalanceRequest, RebalanceResponse,
    SetFailoverRequest, SetMaintenanceRequest,
};
use tokio::sync::{Notify, mpsc, oneshot};

use super::duty::NodeDuty;
use crate::store::fenced::CommitError;

/// Commands that wait for the loop, which waits for nothing.
const QUEUE: usize = 1_024;

/// A command is answered within this time, or its outcome is not known.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// What an operator asks for.
#[derive(Debug)]
#[allow(missing_docs)] // The service says what they mean.
pub enum Command {
    MigrateRegion(MigrateRegionRequest, Reply<MigrateRegionResponse>),
    DropRegion(DropRegionRequest, Reply<DropRegionResponse>),
    ExplainRegion(ExplainRegionRequest, Reply<ExplainRegionResponse>),
    CordonNode(CordonNodeRequest, Reply<CordonNodeResponse>),
    DrainNode(DrainNodeRequest, Reply<DrainNodeResponse>),
    DecommissionNode(DecommissionNodeRequest, Reply<DecommissionNodeResponse>),
    AnnounceRestart(AnnounceRestartRequest, Reply<AnnounceRestartResponse>),
    GetFailover(GetFailoverRequest, Reply<GetFailoverResponse>),
    SetFailover(SetFailoverRequest, Reply<GetFailoverResponse>),
    SetMaintenance(SetMaintenanceRequest, Reply<GetFailoverResponse>),
    Rebalance(RebalanceRequest, Reply<RebalanceResponse>),
    ListProcedures(ListProceduresRequest, Reply<ListProceduresResponse>),
    CancelProcedure(CancelProcedureRequest, Reply<CancelProcedureResponse>),
    Duties(Reply<BTreeMap<NodeKey, NodeDuty>>),
}

/// Why a command is not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// The leader has ended; whether the command was carried out is not known.
    #[error("leadership ended; whether this was done is unknown")]
    NotLeading,
    /// Too many wait.
    #[error("too many commands wait; nothing was done")]
    Busy,
    /// No answer came in time.
    #[error("no answer within {PATIENCE:?}; whether this was done is unknown")]
    TimedOut,
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A field makes no sense.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why not.
        why: String,
    },
    /// A safety check refuses it.
    #[error("{0}")]
    Refused(String),
    /// No node can take what is to be placed.
    #[error("{0}")]
    Exhausted(String),
    /// The store did not take it.
    #[error("{0}")]
    Store(#[from] CommitError),
}

/// Clones reach the same loop.
#[derive(Clone)]
pub struct ControlHandle {
    commands: mpsc::Sender<Command>,
    wake: Arc<Notify>,
    /// The nodes are to be counted anew.
    recount: Arc<AtomicBool>,
}

impl ControlHandle {
    /// A handle, and the end that the loop takes.
    pub fn new() -> (ControlHandle, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(QUEUE);
        (ControlHandle { commands, wake: Arc::default(), recount: Arc::default() }, receiver)
    }

    /// Something happened that the loop should look at now, and that may tell of a node that it is gone.
    pub fn wake(&self) {
        self.recount.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// A procedure may go on. Nothing is known of nodes that was not known before, so that they are not counted for it.
    pub fn wake_procedures(&self) {
        self.wake.notify_one();
    }

    /// Whether the nodes are to be counted anew since this was asked last.
    pub(super) fn takes_recount(&self) -> bool {
        self.recount.swap(false, Ordering::AcqRel)
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Hands a command to the loop and waits for the answer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => ControlError::Busy,
            mpsc::error::TrySendError::Closed(_) => ControlError::NotLeading,
        })?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ControlError::NotLeading),
            Err(_) => Err(ControlError::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_anew_once_for_what_may_tell_of_one_that_is_gone() {
        let (handle, _commands) = ControlHandle::new();
        handle.wake_procedures();
        assert!(!handle.takes_recount(), "a step of a procedure tells nothing of nodes");
        handle.wake();
        handle.wake_procedures();
        assert!(handle.clone().takes_recount());
        assert!(!handle.takes_recount(), "once is enough");
    }
}
