//! The heartbeat's straight line: an ordered list of handlers, each of which adds to the response or ends it.
//!
//! | order | handler | file |
//! | --- | --- | --- |
//! | 1 | CheckLeader | `check_leader.rs` |
//! | 2 | Probe | `probe.rs` |
//! | 3 | Mailbox | `mailbox_reply.rs` |
//! | 4 | KeepLease | `keep_lease.rs` |
//! | 5 | CollectStats | `collect_stats.rs` |
//! | 6 | RegionLease | `region_lease.rs` |
//! | 7 | PersistStats | `persist_stats.rs` |
//!
//! A handler is a plain function: it does no I/O and does not wait. What must reach the store is queued for the
//! write-behind; what must be decided in the store's presence is asked of the leader's registrar.

mod check_leader;
mod collect_stats;
mod keep_lease;
mod mailbox_reply;
mod persist_stats;
mod probe;
mod region_lease;

use std::sync::Arc;

use metasrv_core::id::{Incarnation, NodeKey, Role};
use metasrv_core::stats::NodeStat;
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse, MailboxMessage, RegionLease, ResponseHeader};

pub use check_leader::CheckLeaderHandler;
pub use collect_stats::CollectStatsHandler;
pub use keep_lease::KeepLeaseHandler;
pub use mailbox_reply::MailboxHandler;
pub use persist_stats::PersistStatsHandler;
pub use probe::ProbeHandler;
pub use region_lease::RegionLeaseHandler;

use crate::leader::Leader;
use crate::mailbox::HeartbeatMailbox;
use crate::metrics::Metrics;
use crate::pusher::Pushers;
use crate::wire;

/// What a handler knows besides the request. Typed fields only.
pub struct Context {
    /// Who sent the request, fixed by the first message of its stream.
    pub node: NodeKey,
    /// Which process of that node; absent while it has not named itself (a bare handshake of a public peer).
    pub process: Option<Incarnation>,
    /// What this replica has as leader; absent where it does not lead.
    pub leader: Option<Arc<Leader>>,
    /// Address and term of the leader that this replica knows of, as a hint for nodes that asked the wrong one.
    pub known_leader: Option<KnownLeader>,
    /// Where `now` comes from: leadership is compared with the clock at each use.
    pub clock: Arc<dyn Clock>,
    /// The instant at which the request was taken up.
    pub now: BootTime,
    /// Wall clock, for people.
    pub wall_ms: u64,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
}

/// A leader as others know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownLeader {
    /// host:port of its gRPC service.
    pub addr: String,
    /// Its name.
    pub name: String,
    /// Its term.
    pub term: metasrv_core::id::Term,
}

/// What the handlers of one request have gathered; becomes the response.
#[derive(Default)]
pub struct HeartbeatAccumulator {
    /// Header of the response; an error in it ends the stream after the response.
    pub header: ResponseHeader,
    /// The node's stat, if the request carried one.
    pub stat: Option<NodeStat>,
    /// The leases granted.
    pub region_lease: Option<RegionLease>,
    /// An instruction that goes with this response.
    pub mailbox_message: Option<MailboxMessage>,
    /// The node is asked for the list of its regions.
    pub list_regions: bool,
}

impl HeartbeatAccumulator {
    fn into_response(self, sequence: u64) -> HeartbeatResponse {
        HeartbeatResponse {
            header: Some(self.header),
            mailbox_message: self.mailbox_message,
            region_lease: self.region_lease,
            heartbeat_config: None,
            sequence,
            list_regions: self.list_regions,
            ..HeartbeatResponse::default()
        }
    }
}

/// Whether the handlers after this one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandleControl {
    /// They do.
    Continue,
    /// The response is complete.
    Done,
}

/// A handler could not do its part; ends the stream with an internal error.
#[derive(Debug, thiserror::Error)]
#[error("{handler}: {why}")]
pub struct HandlerError {
    /// Name of the handler.
    pub handler: &'static str,
    /// What went wrong.
    pub why: String,
}

/// One step of the line.
pub trait HeartbeatHandler: Send + Sync {
    /// Its name, by which embedders place their own handlers. Read once, when the group is built.
    fn name(&self) -> &'static str;

    /// Whether it has anything to do for nodes of this role.
    fn is_acceptable(&self, role: Role) -> bool;

    /// Does its part for one request.
    ///
    /// # Errors
    /// [`HandlerError`] ends the stream of this node and nothing else.
    fn handle(
        &self,
        request: &HeartbeatRequest,
        context: &Context,
        accumulator: &mut HeartbeatAccumulator,
    ) -> Result<HandleControl, HandlerError>;
}

struct NamedHandler {
    name: &'static str,
    handler: Box<dyn HeartbeatHandler>,
}

/// The handlers in their order, the pushers of the connected nodes, and the mailbox.
pub struct HeartbeatHandlerGroup {
    handlers: Vec<NamedHandler>,
    pushers: Arc<Pushers>,
    mailbox: Arc<HeartbeatMailbox>,
}

impl HeartbeatHandlerGroup {
    /// The standard line.
    pub fn standard() -> HeartbeatHandlerGroup {
        let pushers = Arc::new(Pushers::default());
        let mailbox = Arc::new(HeartbeatMailbox::new(Arc::clone(&pushers)));
        let mut group =
            HeartbeatHandlerGroup { handlers: Vec::new(), pushers, mailbox: Arc::clone(&mailbox) };
        group.push_back(Box::new(CheckLeaderHandler));
        group.push_back(Box::new(ProbeHandler));
        group.push_back(Box::new(MailboxHandler::new(Arc::clone(&mailbox))));
        group.push_back(Box::new(KeepLeaseHandler));
        group.push_back(Box::new(CollectStatsHandler));
        group.push_back(Box::new(RegionLeaseHandler::new(mailbox)));
        group.push_back(Box::new(PersistStatsHandler));
        group
    }

    fn push_back(&mut self, handler: Box<dyn HeartbeatHandler>) {
        self.handlers.push(NamedHandler { name: handler.name(), handler });
    }

    /// Puts a handler of an embedder's in front of the one with this name.
    ///
    /// # Errors
    /// [`UnknownHandler`] where there is none of this name.
    pub fn add_before(
        &mut self,
        name: &str,
        handler: Box<dyn HeartbeatHandler>,
    ) -> Result<(), UnknownHandler> {
        let at = self.position(name)?;
        self.handlers.insert(at, NamedHandler { name: handler.name(), handler });
        Ok(())
    }

    /// Puts a handler of an embedder's behind the one with this name.
    ///
    /// # Errors
    /// [`UnknownHandler`] where there is none of this name.
    pub fn add_after(
        &mut self,
        name: &str,
        handler: Box<dyn HeartbeatHandler>,
    ) -> Result<(), UnknownHandler> {
        let at = self.position(name)?.saturating_add(1);
        self.handlers.insert(at, NamedHandler { name: handler.name(), handler });
        Ok(())
    }

    fn position(&self, name: &str) -> Result<usize, UnknownHandler> {
        self.handlers
            .iter()
            .position(|named| named.name == name)
            .ok_or_else(|| UnknownHandler(name.to_owned()))
    }

    /// The names of the handlers, in their order.
    pub fn names(&self) -> Vec<&'static str> {
        self.handlers.iter().map(|named| named.name).collect()
    }

    /// The pushers of the connected nodes.
    pub fn pushers(&self) -> &Arc<Pushers> {
        &self.pushers
    }

    /// The mailbox.
    pub fn mailbox(&self) -> &Arc<HeartbeatMailbox> {
        &self.mailbox
    }

    /// Runs the line for one request.
    ///
    /// # Errors
    /// The first [`HandlerError`].
    pub fn handle(
        &self,
        request: &HeartbeatRequest,
        context: &Context,
    ) -> Result<HeartbeatResponse, HandlerError> {
        let mut accumulator = HeartbeatAccumulator::default();
        if let Some(leader) = &context.leader {
            accumulator.header = wire::response_header(&context.node, leader.term(), leader.installation());
        }
        for named in self.handlers.iter().filter(|named| named.handler.is_acceptable(context.node.role)) {
            if named.handler.handle(request, context, &mut accumulator)? == HandleControl::Done {
                break;
            }
        }
        Ok(accumulator.into_response(request.sequence))
    }
}

/// There is no handler of this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no heartbeat handler named {0:?}")]
pub struct UnknownHandler(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    struct Extra;

    impl HeartbeatHandler for Extra {
        fn name(&self) -> &'static str {
            "Extra"
        }

        fn is_acceptable(&self, _: Role) -> bool {
            true
        }

        fn handle(
            &self,
            _: &HeartbeatRequest,
            _: &Context,
            _: &mut HeartbeatAccumulator,
        ) -> Result<HandleControl, HandlerError> {
            Ok(HandleControl::Continue)
        }
    }

    #[test]
    fn the_handlers_stand_in_their_order() {
        let group = HeartbeatHandlerGroup::standard();
        let order =
            ["CheckLeader", "Probe", "Mailbox", "KeepLease", "CollectStats", "RegionLease", "PersistStats"];
        assert_eq!(group.names(), order);
    }

    #[test]
    fn an_embedder_adds_handlers_by_the_name_of_a_neighbour() {
        let mut group = HeartbeatHandlerGroup::standard();
        group.add_before("KeepLease", Box::new(Extra)).unwrap();
        group.add_after("PersistStats", Box::new(Extra)).unwrap();
        assert_eq!(group.names()[3], "Extra");
        assert_eq!(group.names().last(), Some(&"Extra"));
        assert!(group.add_after("Nobody", Box::new(Extra)).is_err());
    }
}
