//! The invariants of a run, one a file. They look at the whole cluster from outside, after every tick.
//!
//! | file | invariant |
//! | --- | --- |
//! | `i01_one_writer.rs` | I1: one writable holder per region at any instant |
//! | `i02_storage_epochs.rs` | I2: writes of non-decreasing epochs, one process per epoch |
//! | `i03_fence.rs` | I3: no guarded write of an older fence after a newer one wrote; no unguarded one |
//! | `i04_route_epochs.rs` | I4: a route's epoch rises with each change of who leads, and is never used again |
//! | `i05_final.rs` | I5: nothing is granted after a resignation |
//! | `i06_deadline.rs` | I6: nobody grants past its deadline |
//! | `i07_accounted.rs` | I7: a right has ended when the store gives its region away |
//! | `i08_acknowledged.rs` | I8: no acknowledged change is lost, one of unknown outcome happens at most once |
//! | `i09_watch.rs` | I9: the watched routes never go back, and end where the store stands |
//! | `i10_procedures.rs` | I10: each procedure begins once and ends once |
//! | `i12_no_reason.rs` | I11, I12: no region fails over from a node that nothing was wrong with |
//! | `i13_converges.rs` | I13: healed, everything is as it should be within a bound |
//! | `i14_progress.rs` | I14: something happened |
//! | `i15_explained.rs` | I15: the timeline explains each change of who leads |

mod i01_one_writer;
mod i02_storage_epochs;
mod i03_fence;
mod i04_route_epochs;
mod i05_final;
mod i06_deadline;
mod i07_accounted;
mod i08_acknowledged;
mod i09_watch;
mod i10_procedures;
mod i12_no_reason;
pub mod i13_converges;
pub mod i14_progress;
mod i15_explained;

use metasrv_proto::admin::RouteRecord;

use crate::datanode::Grant;
use crate::etcd::{Change, Commit};
use crate::replica::PREFIX;
use crate::world::World;

/// What happened in a tick.
pub struct Moment<'a> {
    /// The cluster as it is afterwards.
    pub world: &'a World,
    /// What was committed.
    pub commits: &'a [Commit],
    /// What was granted.
    pub grants: &'a [Grant],
}

/// An invariant, and what it has to remember.
pub trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at one tick.
    ///
    /// # Errors
    /// What is broken.
    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String>;

    /// Looks at the end, when everything is healed and has come to rest.
    ///
    /// # Errors
    /// What is broken.
    fn end(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}

/// All of those that look at every tick.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(i01_one_writer::OneWriter::default()),
        Box::new(i02_storage_epochs::StorageEpochs),
        Box::new(i03_fence::FenceOnly::default()),
        Box::new(i04_route_epochs::RouteEpochs::default()),
        Box::new(i05_final::Final::default()),
        Box::new(i06_deadline::Deadline::default()),
        Box::new(i07_accounted::Accounted),
        Box::new(i08_acknowledged::Acknowledged::default()),
        Box::new(i09_watch::Watched),
        Box::new(i10_procedures::Procedures::default()),
        Box::new(i12_no_reason::NoReason),
        Box::new(i15_explained::Explained),
    ]
}

/// A change of a region's route.
pub struct RouteChange {
    /// The region.
    pub region: u64,
    /// The route before; none where it is new.
    pub before: Option<RouteRecord>,
    /// The route afterwards; none where it was dropped.
    pub after: Option<RouteRecord>,
}

/// The number at the end of a key below this directory of the store.
fn number(key: &str, directory: &str) -> Option<u64> {
    key.strip_prefix(PREFIX)?.strip_prefix("/v1/")?.strip_prefix(directory)?.parse().ok()
}

/// A stored record: a byte of format, then protobuf.
pub fn decoded<T: prost::Message + Default>(value: Option<&Vec<u8>>) -> Option<T> {
    let (format, message) = value?.split_first()?;
    (*format == 1).then(|| T::decode(message).ok()).flatten()
}

/// The routes that a commit changes.
pub fn route_changes(commit: &Commit) -> Vec<RouteChange> {
    let change = |change: &Change| {
        let region = number(&change.key, "region/")?;
        Some(RouteChange {
            region,
            before: decoded(change.before.as_ref()),
            after: decoded(change.value.as_ref()),
        })
    };
    commit.changes.iter().filter_map(change).collect()
}

/// The routes that are stored.
pub fn routes(world: &World) -> Vec<(u64, RouteRecord)> {
    let stored = world.etcd.stored(&format!("{PREFIX}/v1/region/"));
    let routes =
        stored.iter().filter_map(|(key, value)| Some((number(key, "region/")?, decoded(Some(value))?)));
    routes.collect()
}
