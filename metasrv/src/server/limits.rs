//! Bad input gets a clear error that names the field, and changes nothing.

use metasrv_core::id::{Incarnation, NodeKey, Role, Term};
use metasrv_proto::PROTOCOL_VERSION;
use metasrv_proto::admin::RegionSet;
use metasrv_proto::meta::{HeartbeatRequest, RequestHeader};
use tonic::Status;

use crate::wire;

/// Bytes of one inbound message: a node with 100,000 regions at 100 bytes each, and room.
pub const MESSAGE_BYTES: usize = 16 << 20;
/// Regions in one heartbeat.
const REGION_STATS: usize = 100_000;
/// Bytes of an address.
const ADDR_BYTES: usize = 256;
/// Bytes of a name, version, engine, or subject.
const NAME_BYTES: usize = 256;
/// Terms that a backup may lie behind: a change of leader a second, for twelve days.
const TERMS_AHEAD: u64 = 1 << 20;
/// Entries of a map.
const MAP_ENTRIES: usize = 64;
/// No clock shows so many milliseconds since 1970. A process that said so could never be followed by another one.
const LATEST_NODE_EPOCH: u64 = 1 << 48;
/// No number of changes leads here. A route that was raised above it could not be raised much further.
const HIGHEST_EPOCH: u64 = 1 << 62;
/// Bytes of a map's values in all, and of a mailbox message's JSON.
const PAYLOAD_BYTES: usize = 1 << 20;

/// A field of the message that breaks a rule.
fn invalid(field: &str, rule: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {rule}"))
}

/// A field of the message that is too large.
fn exceeded(field: &str, limit: usize, found: usize) -> Status {
    Status::resource_exhausted(format!("{field}: at most {limit} are accepted, this message has {found}"))
}

fn text(field: &str, value: &str, limit: usize) -> Result<(), Status> {
    if value.len() > limit { Err(exceeded(&format!("{field} (bytes)"), limit, value.len())) } else { Ok(()) }
}

/// host:port with a port other than 0.
fn address(field: &str, value: &str) -> Result<(), Status> {
    text(field, value, ADDR_BYTES)?;
    let parsed = value.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '@')
            && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if parsed { Ok(()) } else { Err(invalid(field, format!("{value:?} is not host:port"))) }
}

/// Checks a header; returns the node it names.
///
/// # Errors
/// INVALID_ARGUMENT naming the field.
pub fn header(header: Option<&RequestHeader>) -> Result<(&RequestHeader, NodeKey), Status> {
    let header = header.ok_or_else(|| invalid("header", "is missing"))?;
    if header.protocol_version != PROTOCOL_VERSION {
        let rule = format!("{} is not spoken here, only {PROTOCOL_VERSION}", header.protocol_version);
        return Err(invalid("header.protocol_version", rule));
    }
    map("header.tracing_context", header.tracing_context.iter().map(|(key, value)| key.len() + value.len()))?;
    let node = wire::node_key(header)
        .ok_or_else(|| invalid("header.role", format!("{} is unknown", header.role)))?;
    Ok((header, node))
}

fn map(field: &str, sizes: impl ExactSizeIterator<Item = usize>) -> Result<(), Status> {
    if sizes.len() > MAP_ENTRIES {
        return Err(exceeded(&format!("{field} (entries)"), MAP_ENTRIES, sizes.len()));
    }
    let bytes = sizes.fold(0_usize, usize::saturating_add);
    if bytes > PAYLOAD_BYTES {
        Err(exceeded(&format!("{field} (bytes)"), PAYLOAD_BYTES, bytes))
    } else {
        Ok(())
    }
}

/// Checks the highest term that a sender has seen. One that is above our own comes from before the store was set back;
/// one that is far above it comes from a mistake, and would use the terms up.
///
/// # Errors
/// INVALID_ARGUMENT naming the field.
pub fn term(header: &RequestHeader, own: Term) -> Result<(), Status> {
    if header.term > own.0.saturating_add(TERMS_AHEAD) {
        let rule = format!("{} is more than {TERMS_AHEAD} above the present one, {own}", header.term);
        return Err(invalid("header.term", rule));
    }
    Ok(())
}

/// Checks everything of a request but its header.
///
/// # Errors
/// INVALID_ARGUMENT or RESOURCE_EXHAUSTED naming the field.
pub fn body(request: &HeartbeatRequest, node: &NodeKey) -> Result<(), Status> {
    match &request.peer {
        Some(peer) => {
            if peer.id != 0 && peer.id != node.id.0 {
                let rule = format!("{} is not header.member_id, {}", peer.id, node.id);
                return Err(invalid("peer.id", rule));
            }
            address("peer.addr", &peer.addr)?;
        }
        None if !request.region_stats.is_empty() => {
            return Err(invalid("peer", "is missing in a request with region_stats"));
        }
        None => {}
    }
    if request.node_epoch > LATEST_NODE_EPOCH {
        return Err(invalid(
            "node_epoch",
            format!("{} ms since 1970 are not reached yet", request.node_epoch),
        ));
    }
    if node.role != Role::Datanode && !request.region_stats.is_empty() {
        return Err(invalid("region_stats", format!("a {} has none", node.role)));
    }
    if request.region_stats.len() > REGION_STATS {
        return Err(exceeded("region_stats", REGION_STATS, request.region_stats.len()));
    }
    for stat in &request.region_stats {
        text("region_stats.engine", &stat.engine, NAME_BYTES)?;
        if stat.epoch > HIGHEST_EPOCH {
            return Err(invalid("region_stats.epoch", format!("{} was never given", stat.epoch)));
        }
        map("region_stats.extensions", stat.extensions.iter().map(|(key, value)| key.len() + value.len()))?;
    }
    if let Some(info) = &request.info {
        text("info.version", &info.version, NAME_BYTES)?;
        text("info.git_commit", &info.git_commit, NAME_BYTES)?;
        text("info.hostname", &info.hostname, NAME_BYTES)?;
        text("info.zone", &info.zone, NAME_BYTES)?;
        text("info.host", &info.host, NAME_BYTES)?;
    }
    if let Some(lock) = &request.directory_lock {
        text("directory_lock.boot_id", &lock.boot_id, NAME_BYTES)?;
    }
    if let Some(set) = &request.region_set {
        region_set(request, set, node)?;
    }
    if request.capabilities.len() > MAP_ENTRIES {
        return Err(exceeded("capabilities", MAP_ENTRIES, request.capabilities.len()));
    }
    map("extensions", request.extensions.iter().map(|(key, value)| key.len() + value.len()))?;
    if let Some(message) = &request.mailbox_message {
        text("mailbox_message.subject", &message.subject, NAME_BYTES)?;
        text("mailbox_message.from", &message.from, NAME_BYTES)?;
        text("mailbox_message.to", &message.to, NAME_BYTES)?;
        if let Some(metasrv_proto::meta::mailbox_message::Payload::Json(json)) = &message.payload {
            text("mailbox_message.json", json, PAYLOAD_BYTES)?;
        }
    }
    Ok(())
}

fn region_set(request: &HeartbeatRequest, set: &RegionSet, node: &NodeKey) -> Result<(), Status> {
    if node.role != Role::Datanode {
        return Err(invalid("region_set", format!("a {} has none", node.role)));
    }
    if request.peer.is_none() || request.mailbox_message.is_some() {
        return Err(invalid("region_set", "belongs into a request with peer and without mailbox_message"));
    }
    if set.closed_region_ids.len() > REGION_STATS {
        return Err(exceeded("region_set.closed_region_ids", REGION_STATS, set.closed_region_ids.len()));
    }
    if set.rcus < 0 || set.wcus < 0 || set.approximate_bytes < 0 {
        return Err(invalid("region_set", "a sum is negative"));
    }
    if request.region_stats.iter().any(|stat| stat.epoch == 0) {
        return Err(invalid("region_stats.epoch", "is 0, and a region_set knows of epochs"));
    }
    Ok(())
}

/// What the first message of a stream fixed, and what must not change after it.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// Cluster and role; the id as the node sent it.
    pub sent: NodeKey,
    /// The process, once it has named itself.
    pub process: Option<Incarnation>,
    /// A message came before this one.
    pub begun: bool,
    /// The node's own time at its last request with stats, in milliseconds.
    pub last_duration_ms: u64,
}

impl Fixed {
    /// Checks a later message of the same stream against what was fixed, and takes note of what it adds.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the field that changed.
    pub fn follow(
        &mut self,
        request: &HeartbeatRequest,
        node: &NodeKey,
        assigned: &NodeKey,
    ) -> Result<(), Status> {
        if node != &self.sent && node != assigned {
            let field = if node.role != self.sent.role {
                "header.role"
            } else if node.cluster != self.sent.cluster {
                "header.cluster_id"
            } else {
                "header.member_id"
            };
            return Err(invalid(field, format!("names {node}, but this stream began as {}", self.sent)));
        }
        // A bare handshake, or a reply to an instruction, need not name the process.
        let names_process = request.node_epoch != 0
            || (request.peer.is_some()
                && request.mailbox_message.is_none()
                && (self.begun || !request.region_stats.is_empty()));
        self.begun = true;
        if names_process {
            let process = Incarnation { epoch: request.node_epoch, nonce: request.incarnation_nonce };
            match self.process {
                Some(before) if before != process => {
                    let rule =
                        format!("{} is not the one this stream began with, {}", process.epoch, before.epoch);
                    return Err(invalid("node_epoch", rule));
                }
                _ => self.process = Some(process),
            }
        }
        if request.mailbox_message.is_none() && request.peer.is_some() {
            if request.duration_since_epoch < self.last_duration_ms {
                let rule = format!(
                    "{} ms is earlier than the request before it, {} ms: the node's time runs backwards",
                    request.duration_since_epoch, self.last_duration_ms
                );
                return Err(invalid("duration_since_epoch", rule));
            }
            self.last_duration_ms = request.duration_since_epoch;
        }
        Ok(())
    }
}

/// An id that must be there.
///
/// # Errors
/// INVALID_ARGUMENT.
pub fn member_id(node: &NodeKey) -> Result<(), Status> {
    if node.id.0 == 0 {
        Err(invalid("header.member_id", format!("a {} needs one", node.role)))
    } else {
        Ok(())
    }
}

/// A frontend brought an id that metasrv never gave.
pub fn foreign_frontend_id(node: &NodeKey) -> Status {
    invalid(
        "header.member_id",
        format!("{} was not given by metasrv; send 0 and take the one in the response", node.id),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::id::{ClusterId, NodeId};
    use metasrv_proto::meta::{Peer, RegionStat};
    use proptest::prelude::*;
    use prost::Message as _;

    fn node() -> NodeKey {
        NodeKey::datanode(ClusterId(0), NodeId(1))
    }

    fn request() -> HeartbeatRequest {
        HeartbeatRequest {
            peer: Some(Peer { id: 1, addr: "127.0.0.1:4001".to_owned() }),
            node_epoch: 7,
            ..HeartbeatRequest::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut HeartbeatRequest)) -> String {
        let mut request = request();
        change(&mut request);
        body(&request, &node()).expect_err("was accepted").message().to_owned()
    }

    #[test]
    fn each_refusal_names_its_field() {
        assert!(body(&request(), &node()).is_ok());
        assert!(refusal(|r| r.peer = Some(Peer { id: 2, addr: "a:1".to_owned() })).starts_with("peer.id"));
        for addr in ["", "host", "host:", "host:0", ":1", "a b:1", "host:99999", "http://host:1", "::1:80"] {
            assert!(
                refusal(|r| r.peer = Some(Peer { id: 1, addr: addr.to_owned() })).starts_with("peer.addr"),
                "{addr}"
            );
        }
        assert!(
            body(
                &HeartbeatRequest { peer: Some(Peer { id: 0, addr: "[::1]:80".to_owned() }), ..request() },
                &node()
            )
            .is_ok()
        );
        assert!(
            refusal(|r| {
                r.peer = None;
                r.region_stats = vec![RegionStat::default()];
            })
            .starts_with("peer")
        );
        assert!(
            refusal(|r| r.region_stats = vec![RegionStat::default(); 100_001]).starts_with("region_stats")
        );
        assert!(refusal(|r| r.node_epoch = u64::MAX).starts_with("node_epoch"));
        let set = RegionSet { wcus: -1, ..RegionSet::default() };
        assert!(refusal(|r| r.region_set = Some(set)).starts_with("region_set"));
        let many = RegionSet { closed_region_ids: vec![1; 100_001], ..RegionSet::default() };
        assert!(refusal(|r| r.region_set = Some(many)).starts_with("region_set.closed_region_ids"));
        let without_epoch = refusal(|r| {
            r.region_set = Some(RegionSet::default());
            r.region_stats = vec![RegionStat::default()];
        });
        assert!(without_epoch.starts_with("region_stats.epoch"), "{without_epoch}");
        let beyond = RegionStat { epoch: u64::MAX, ..RegionStat::default() };
        assert!(refusal(|r| r.region_stats = vec![beyond]).starts_with("region_stats.epoch"));
        let engine = "x".repeat(300);
        assert!(
            refusal(|r| r.region_stats = vec![RegionStat { engine, ..RegionStat::default() }])
                .starts_with("region_stats.engine")
        );
    }

    #[test]
    fn a_header_is_needed_and_its_version_and_role_known() {
        let good = RequestHeader { protocol_version: 1, member_id: 1, ..RequestHeader::default() };
        assert!(header(Some(&good)).is_ok());
        assert!(header(None).is_err());
        let version = RequestHeader { protocol_version: 2, ..good.clone() };
        assert!(
            header(Some(&version)).expect_err("version").message().starts_with("header.protocol_version")
        );
        let role = RequestHeader { role: 9, ..good };
        assert!(header(Some(&role)).expect_err("role").message().starts_with("header.role"));
    }

    #[test]
    fn what_the_first_message_fixed_does_not_change() {
        let mut fixed = Fixed { sent: node(), process: None, begun: false, last_duration_ms: 0 };
        let mut next = request();
        next.duration_since_epoch = 100;
        assert!(fixed.follow(&next, &node(), &node()).is_ok());
        let other = NodeKey::datanode(ClusterId(0), NodeId(2));
        let refused = fixed.follow(&next, &other, &node()).expect_err("another node");
        assert!(refused.message().starts_with("header.member_id"));
        let restarted = HeartbeatRequest { node_epoch: 8, ..next.clone() };
        assert!(
            fixed
                .follow(&restarted, &node(), &node())
                .expect_err("epoch")
                .message()
                .starts_with("node_epoch")
        );
        let backwards = HeartbeatRequest { duration_since_epoch: 99, ..next };
        let refused = fixed.follow(&backwards, &node(), &node()).expect_err("time");
        assert!(refused.message().starts_with("duration_since_epoch"));
    }

    proptest! {
        /// Goal: no request that decodes panics what looks at it first. Method: noise, and good requests with some bytes
        /// changed, one after another as on one stream.
        #[test]
        fn no_request_panics(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let sent = RequestHeader { protocol_version: 1, member_id: 1, ..RequestHeader::default() };
            let stat = RegionStat { region_id: 1, engine: "engine".to_owned(), ..RegionStat::default() };
            let good = HeartbeatRequest { header: Some(sent), region_stats: vec![stat; 3], ..request() };
            let mut changed = good.encode_to_vec();
            for (at, byte) in changes {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
            let mut fixed = Fixed { sent: node(), process: None, begun: false, last_duration_ms: 0 };
            for bytes in [good.encode_to_vec(), noise, changed] {
                let Ok(request) = HeartbeatRequest::decode(bytes.as_slice()) else { continue };
                let Ok((_, sent)) = header(request.header.as_ref()) else { continue };
                let _ = (member_id(&sent), body(&request, &sent));
                let _ = fixed.follow(&request, &sent, &node());
            }
            prop_assert!(fixed.begun, "the good request was not looked at: this proves nothing");
        }
    }
}
