//! I13: once everything is healed, everything is as it should be, within a bound.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::routes;
use crate::world::World;

/// What is still not as it should be; none where all is.
pub fn missing(world: &World) -> Option<String> {
    let Some((leader, term)) = world.leader() else { return Some("nobody stands in the queue".to_owned()) };
    if term == 0 {
        return Some(format!("{leader} has won and does not lead yet"));
    }
    if !world.desk.settled.load(Ordering::Relaxed) {
        return Some("the operator could not take back its orders".to_owned());
    }
    for (region, route) in routes(world) {
        let writes = world
            .processes
            .iter()
            .find(|process| process.node == route.node_id && process.writes(region) == Some(route.epoch));
        if writes.is_none() {
            return Some(format!(
                "region {region} is not writable on node {} under epoch {}",
                route.node_id, route.epoch
            ));
        }
    }
    let check = world.desk.check.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(check) = check else { return Some("the operator has no answer yet".to_owned()) };
    if !check.findings.is_empty() {
        return Some(format!("the store does not fit together: {}", check.findings.join("; ")));
    }
    if check.procedures > 0 {
        return Some(format!("{} procedures are at work", check.procedures));
    }
    if !check.not_writable.is_empty() {
        return Some(format!("the leader says that regions {:?} are not writable", check.not_writable));
    }
    None
}
