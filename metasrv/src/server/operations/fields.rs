//! What the fields of an operator's requests may hold. Whatever breaks a rule is refused with the field's name, before anything
//! is done with it.

use metasrv_proto::admin::set_failover_request::Order;
use metasrv_proto::admin::{
    AnnounceRestartRequest, CancelProcedureRequest, CordonNodeRequest, DecommissionNodeRequest,
    DrainNodeRequest, DropRegionRequest, ExplainRegionRequest, GetFailoverRequest, ListProceduresRequest,
    MigrateRegionRequest, RebalanceRequest, SetFailoverRequest, SetMaintenanceRequest,
};
use tonic::Status;

use crate::control::orders::LONGEST_RESTART;
use crate::server::refusal;

/// The shortest pause, resumption or announced restart. Less is over before anybody has read the answer.
const SHORTEST_MS: u64 = 1_000;

fn invalid(field: &str, rule: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {rule}"))
}

/// 0 is nobody's id: an empty message names it.
fn id(field: &str, kind: &str, value: u64) -> Result<(), Status> {
    if value == 0 { Err(invalid(field, format!("0 is no {kind}"))) } else { Ok(()) }
}

fn node(node_id: u64, reason: &str) -> Result<(), Status> {
    id("node_id", "node", node_id)?;
    refusal::reason(reason)
}

pub(super) fn migrate_region(request: &MigrateRegionRequest) -> Result<(), Status> {
    id("region_id", "region", request.region_id)?;
    request.to_node.map_or(Ok(()), |to| id("to_node", "node", to))?;
    refusal::reason(&request.reason)
}

pub(super) fn drop_region(request: &DropRegionRequest) -> Result<(), Status> {
    id("region_id", "region", request.region_id)?;
    refusal::reason(&request.reason)
}

pub(super) fn explain_region(request: &ExplainRegionRequest) -> Result<(), Status> {
    id("region_id", "region", request.region_id)
}

pub(super) fn cordon_node(request: &CordonNodeRequest) -> Result<(), Status> {
    node(request.node_id, &request.reason)
}

pub(super) fn drain_node(request: &DrainNodeRequest) -> Result<(), Status> {
    node(request.node_id, &request.reason)
}

pub(super) fn decommission_node(request: &DecommissionNodeRequest) -> Result<(), Status> {
    node(request.node_id, &request.reason)
}

pub(super) fn announce_restart(request: &AnnounceRestartRequest) -> Result<(), Status> {
    node(request.node_id, &request.reason)?;
    let longest = u64::try_from(LONGEST_RESTART.as_millis()).unwrap_or(u64::MAX);
    match request.for_ms {
        0 => Ok(()),
        for_ms if (SHORTEST_MS..=longest).contains(&for_ms) => Ok(()),
        for_ms => Err(invalid("for_ms", format!("{for_ms} is neither 0 nor in {SHORTEST_MS}..={longest}"))),
    }
}

pub(super) fn get_failover(_: &GetFailoverRequest) -> Result<(), Status> {
    Ok(())
}

/// How long a pause may last at most is a safety check, which the leader makes.
pub(super) fn set_failover(request: &SetFailoverRequest) -> Result<(), Status> {
    refusal::reason(&request.reason)?;
    let short = |field, ms| Err(invalid(field, format!("{ms} is less than {SHORTEST_MS}")));
    match request.order {
        None => Err(invalid("order", "pause_ms or resume_ms must be set")),
        Some(Order::PauseMs(ms)) if ms < SHORTEST_MS => short("pause_ms", ms),
        Some(Order::ResumeMs(ms)) if ms != 0 && ms < SHORTEST_MS => short("resume_ms", ms),
        Some(_) => Ok(()),
    }
}

pub(super) fn set_maintenance(request: &SetMaintenanceRequest) -> Result<(), Status> {
    refusal::reason(&request.reason)
}

pub(super) fn rebalance(request: &RebalanceRequest) -> Result<(), Status> {
    refusal::reason(&request.reason)
}

pub(super) fn list_procedures(_: &ListProceduresRequest) -> Result<(), Status> {
    Ok(())
}

pub(super) fn cancel_procedure(request: &CancelProcedureRequest) -> Result<(), Status> {
    id("id", "procedure", request.id)?;
    refusal::reason(&request.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn refused(result: Result<(), Status>, code: Code, field: &str) {
        let status = result.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().starts_with(field), "{status:?} does not name {field}");
    }

    #[test]
    fn an_empty_request_is_refused_by_the_field_that_is_missing() {
        let invalid = Code::InvalidArgument;
        refused(migrate_region(&MigrateRegionRequest::default()), invalid, "region_id");
        refused(drop_region(&DropRegionRequest::default()), invalid, "region_id");
        refused(explain_region(&ExplainRegionRequest::default()), invalid, "region_id");
        refused(cordon_node(&CordonNodeRequest::default()), invalid, "node_id");
        refused(drain_node(&DrainNodeRequest::default()), invalid, "node_id");
        refused(decommission_node(&DecommissionNodeRequest::default()), invalid, "node_id");
        refused(announce_restart(&AnnounceRestartRequest::default()), invalid, "node_id");
        refused(set_failover(&SetFailoverRequest::default()), invalid, "order");
        refused(cancel_procedure(&CancelProcedureRequest::default()), invalid, "id");
    }

    #[test]
    fn times_that_are_too_short_or_too_long_are_refused_and_zero_ends_what_is() {
        let restart = |for_ms| AnnounceRestartRequest { node_id: 1, for_ms, ..Default::default() };
        for for_ms in [0, 1_000, 3_600_000] {
            assert!(announce_restart(&restart(for_ms)).is_ok(), "{for_ms}");
        }
        for for_ms in [1, 999, 3_600_001, u64::MAX] {
            refused(announce_restart(&restart(for_ms)), Code::InvalidArgument, "for_ms");
        }
        let order = |order| SetFailoverRequest { order: Some(order), ..Default::default() };
        for fine in [Order::PauseMs(1_000), Order::ResumeMs(0), Order::ResumeMs(1_000)] {
            assert!(set_failover(&order(fine)).is_ok(), "{fine:?}");
        }
        refused(set_failover(&order(Order::PauseMs(0))), Code::InvalidArgument, "pause_ms");
        refused(set_failover(&order(Order::ResumeMs(10))), Code::InvalidArgument, "resume_ms");
    }

    #[test]
    fn a_reason_that_is_too_long_is_refused_wherever_there_is_one() {
        let reason = "x".repeat(1_025);
        let too_long = Code::ResourceExhausted;
        refused(
            set_maintenance(&SetMaintenanceRequest { reason: reason.clone(), on: true }),
            too_long,
            "reason",
        );
        refused(
            rebalance(&RebalanceRequest { reason: reason.clone(), ..Default::default() }),
            too_long,
            "reason",
        );
        let cordon = CordonNodeRequest { node_id: 1, reason: reason.clone(), ..Default::default() };
        refused(cordon_node(&cordon), too_long, "reason");
        let migrate = MigrateRegionRequest { region_id: 1, to_node: None, reason };
        refused(migrate_region(&migrate), too_long, "reason");
        let to_nobody = MigrateRegionRequest { region_id: 1, to_node: Some(0), reason: String::new() };
        refused(migrate_region(&to_nobody), Code::InvalidArgument, "to_node");
    }
}
