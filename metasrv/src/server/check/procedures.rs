//! Procedures fit to the routes that they are to change, and keep out of each other's way.
//!
//! | a migration that is | the route's epoch | and at that epoch the region is led by |
//! | --- | --- | --- |
//! | before the commit, or undone | the one it began with, or higher | the source |
//! | past the commit: upgrading, closing | one higher than it began with, or more | the target |
//!
//! Epochs grow, so what follows a migration may have raised the route above; it never stands below. From `downgrading` to
//! `upgrading` nothing else takes a route away, so there must be one.

use std::collections::{HashMap, HashSet};

use metasrv_core::id::{ClusterId, Epoch, NodeId, NodeKey};
use metasrv_core::procedure::migrate::{Migration, State};

use super::Findings;
use super::ground::Ground;
use super::record::Route;
use crate::control::procedures::record::Stored;

/// Checks these procedures.
pub fn check(
    ground: &Ground,
    routes: &HashMap<u64, Route>,
    procedures: &[(String, Stored)],
    findings: &mut Findings,
) {
    let (mut claimed, mut drained) = (HashSet::new(), HashSet::new());
    for (key, procedure) in procedures {
        match procedure {
            Stored::Migration(stored) => {
                let of = &stored.migration;
                if claims_route(&of.state) {
                    if !claimed.insert(of.region) {
                        let what =
                            format!("another procedure may change the route of region {} too", of.region);
                        findings.add(key, what);
                    }
                    known(ground, key, stored.cluster, of.from, findings);
                    known(ground, key, stored.cluster, of.to, findings);
                }
                if let Some(last) = ground.region.filter(|last| of.region.0 > *last) {
                    findings
                        .add(key, format!("region {} was never created: the last one is {last}", of.region));
                }
                match routes.get(&of.region.0) {
                    Some(route) => fits(key, stored.cluster, of, route, findings),
                    None if needs_route(&of.state) => {
                        findings.add(key, format!("region {} has no route", of.region));
                    }
                    None => {}
                }
            }
            Stored::Drain(stored) => {
                let node = NodeKey::datanode(stored.cluster, stored.drain.node);
                if !drained.insert(node) {
                    findings.add(key, format!("another drain of {node} is at work too"));
                }
                known(ground, key, node.cluster, node.id, findings);
            }
        }
    }
}

fn known(ground: &Ground, key: &str, cluster: ClusterId, node: NodeId, findings: &mut Findings) {
    let node = NodeKey::datanode(cluster, node);
    if !ground.nodes.contains(&node) {
        findings.add(key, format!("it names {node}, which has neither a record nor a lease"));
    }
}

fn fits(key: &str, cluster: ClusterId, of: &Migration, route: &Route, findings: &mut Findings) {
    let (epoch, node) = match of.state {
        State::Upgrading | State::Closing => (of.epoch.next(), of.to),
        _ => (of.epoch, of.from),
    };
    let node = NodeKey::datanode(cluster, node);
    let stands = Epoch(route.epoch);
    if stands < epoch {
        let what = format!("region {} stands at epoch {stands}, below the procedure's {epoch}", of.region);
        findings.add(key, what);
    } else if stands == epoch && route.node != node {
        let what = format!(
            "at epoch {epoch} region {} is to be led by {node}, and its route names {}",
            of.region, route.node
        );
        findings.add(key, what);
    }
}

/// Whether nothing else may change the region's route: as `Claim::Route` of the procedure.
fn claims_route(state: &State) -> bool {
    !matches!(state, State::Closing | State::Undoing { owes_epoch: false, .. })
}

fn needs_route(state: &State) -> bool {
    matches!(state, State::Downgrading | State::CatchingUp { .. } | State::Upgrading)
}
