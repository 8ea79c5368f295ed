//! Whether failovers go on: what an operator wants of them, and how they stand.

use std::time::Duration;

use metasrv_core::brake::Verdict;
use metasrv_core::id::{ClusterId, RegionId};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::set_failover_request::Order;
use metasrv_proto::admin::{GetFailoverResponse, SetFailoverRequest, SetMaintenanceRequest, StuckRegion};

use super::{answer, given};
use crate::control::orders::{self, Answer, LONGEST_PAUSE, Told};
use crate::control::{Control, ControlError, Reply, event};

/// Pauses failovers, or resumes them.
pub fn set(
    control: &mut Control,
    request: &SetFailoverRequest,
    reply: Reply<GetFailoverResponse>,
    now: BootTime,
) {
    let given = given(control, &request.reason, now);
    let (pauses, lasts_ms) = match request.order {
        Some(Order::PauseMs(ms)) => (true, ms),
        Some(Order::ResumeMs(ms)) => (false, ms),
        None => {
            let why = "pause_ms or resume_ms must be set".to_owned();
            return answer(reply, Err(ControlError::Invalid { field: "order", why }));
        }
    };
    let lasts = Duration::from_millis(lasts_ms);
    if lasts > LONGEST_PAUSE {
        let why = format!(
            "{} h is longer than the {} h that are allowed: a pause that is forgotten must end",
            lasts.as_secs() / 3_600,
            LONGEST_PAUSE.as_secs() / 3_600
        );
        return answer(reply, Err(ControlError::Refused(why)));
    }
    let keys = control.leader.keys();
    let (change, event) = if pauses {
        (control.orders.pause(keys, lasts, given), event::failover_paused(lasts, &request.reason))
    } else {
        (control.orders.resume(keys, lasts, given), event::failover_resumed(lasts, &request.reason))
    };
    orders::begin(control, change, Told { event, by_itself: false }, Answer::Failover(reply));
}

/// Switches maintenance on or off.
pub fn maintain(
    control: &mut Control,
    request: &SetMaintenanceRequest,
    reply: Reply<GetFailoverResponse>,
    now: BootTime,
) {
    let given = given(control, &request.reason, now);
    match control.orders.maintain(control.leader.keys(), request.on, given) {
        None => answer(reply, Ok(standing(control, None))),
        Some(change) => {
            let tell = if request.on { event::maintenance_on } else { event::maintenance_off };
            let told = Told { event: tell(&request.reason), by_itself: false };
            orders::begin(control, change, told, Answer::Failover(reply));
        }
    }
}

/// How failovers stand, with the regions of a cluster (of all, where none is named) that wait.
pub fn standing(control: &Control, cluster: Option<ClusterId>) -> GetFailoverResponse {
    let now = control.leader.clock().now();
    let order = control.orders.failovers(now);
    let (verdict, why) = if order.maintenance {
        ("hold", format!("maintenance is on, nothing moves by itself: {}", order.reason))
    } else {
        // The brake hears of an order with the next turn of the loop; whoever gave it shall see it now.
        let mut brake = control.brake.clone();
        control.orders.apply_to(&mut brake, now);
        match brake.verdict(control.failover.in_flight(), now) {
            Verdict::Proceed { .. } => ("proceed", String::new()),
            Verdict::ReapedOnly { why, .. } => ("reaped_only", why.describe(now).to_string()),
            Verdict::Hold { why } => ("hold", why.describe(now).to_string()),
        }
    };
    let in_cluster = |region: RegionId| {
        cluster.is_none_or(|cluster| {
            control.leader.route_of(region).is_some_and(|(node, _)| node.cluster == cluster)
        })
    };
    let waiting = control.failover.waiting.iter().filter(|(region, _)| in_cluster(*region));
    GetFailoverResponse {
        verdict: verdict.to_owned(),
        why,
        nodes: count(control.census.counted.nodes),
        silent: count(control.census.counted.silent),
        paused_until_ms: order.paused_until_ms,
        resumed_until_ms: order.resumed_until_ms,
        maintenance: order.maintenance,
        reason: order.reason,
        term: control.leader.term().0,
        waiting: waiting.map(|(region, why)| StuckRegion { region_id: region.0, why: why.clone() }).collect(),
    }
}

fn count(nodes: usize) -> u64 {
    u64::try_from(nodes).unwrap_or(u64::MAX)
}
