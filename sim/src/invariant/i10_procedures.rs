//! I10: a procedure begins once and ends once, whoever leads; in the end none is left.

use std::collections::BTreeSet;

use super::{Invariant, Moment, number};
use crate::replica::PREFIX;
use crate::world::World;

/// See the module.
#[derive(Default)]
pub struct Procedures {
    ended: BTreeSet<u64>,
}

impl Invariant for Procedures {
    fn name(&self) -> &'static str {
        "I10 procedures end once"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for change in moment.commits.iter().flat_map(|commit| &commit.changes) {
            let Some(procedure) = number(&change.key, "procedure/") else { continue };
            if change.value.is_none() {
                self.ended.insert(procedure);
            } else if self.ended.contains(&procedure) {
                return Err(format!("procedure {procedure} has ended, and goes on"));
            }
        }
        Ok(())
    }

    fn end(&mut self, world: &World) -> Result<(), String> {
        let left: Vec<String> =
            world.etcd.stored(&format!("{PREFIX}/v1/procedure/")).into_iter().map(|(key, _)| key).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("procedures are left: {left:?}")) }
    }
}
