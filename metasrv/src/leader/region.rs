//! A region as a leader keeps it, and a replica that may become one: 40 bytes, and 8 for its id.
//!
//! What people say of it (why it is there, and which regions it belongs with) is the same for all that were created together,
//! and stands once. The term of the route's last change is in the store; nothing here is decided by it.

use std::collections::HashSet;
use std::sync::Arc;

use metasrv_core::holdings::Route;
use metasrv_core::id::{Epoch, RegionId};
use metasrv_core::time::BootTime;

/// A region's route, and what was granted under it.
#[derive(Clone, PartialEq, Debug)]
pub struct Region {
    /// The epoch of the route.
    pub epoch: Epoch,
    /// Mod revision of the route.
    pub revision: i64,
    /// Wall clock, for people.
    pub created_at_ms: u64,
    /// For people, and for placement.
    pub about: Arc<About>,
    /// When it was last renewed by itself, and not with all regions of its node. The latest instant of all: never under this
    /// route by this leader.
    granted: BootTime,
}

const _: () = assert!(size_of::<(RegionId, Region)>() <= 48, "README.md says what a region takes");

/// What regions have in common that were created together.
#[derive(PartialEq, Eq, Hash, Default, Debug)]
pub struct About {
    /// Why the route is as it is.
    pub reason: String,
    /// Label of the group that it belongs to.
    pub group: Option<Arc<str>>,
}

impl About {
    /// Of these texts; an empty group is none.
    pub fn new(reason: &str, group: &str) -> About {
        About { reason: reason.to_owned(), group: (!group.is_empty()).then(|| Arc::from(group)) }
    }
}

impl Region {
    /// One that was granted to nobody yet.
    pub fn new(epoch: Epoch, revision: i64, created_at_ms: u64, about: Arc<About>) -> Region {
        Region { epoch, revision, created_at_ms, about, granted: BootTime::MAX }
    }

    /// The same under another epoch, which was granted to nobody yet.
    pub fn under(&self, epoch: Epoch, revision: i64) -> Region {
        Region { epoch, revision, granted: BootTime::MAX, ..self.clone() }
    }

    /// Label of the group that it belongs to.
    pub fn group(&self) -> Option<&Arc<str>> {
        self.about.group.as_ref()
    }
}

impl Route for Region {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn own_grant(&self) -> Option<BootTime> {
        (self.granted != BootTime::MAX).then_some(self.granted)
    }

    fn grant(&mut self, at: BootTime) {
        self.granted = at;
    }
}

/// What is said of regions, each once.
#[derive(Clone, Default, Debug)]
pub struct Abouts {
    known: HashSet<Arc<About>>,
    /// What nobody needs any more is dropped when so many are known.
    sweep_at: usize,
}

/// Below this nothing is swept.
const FEW: usize = 64;

impl Abouts {
    /// These texts, shared with whoever has the same.
    pub fn share(&mut self, about: About) -> Arc<About> {
        if let Some(known) = self.known.get(&about) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(FEW) {
            self.known.retain(|about| Arc::strong_count(about) > 1);
            // So that sweeping costs each of them a constant.
            self.sweep_at = self.known.len().saturating_mul(2);
        }
        let about = Arc::new(about);
        self.known.insert(Arc::clone(&about));
        about
    }
}

/// What is shared is no part of what is known.
impl PartialEq for Abouts {
    fn eq(&self, _: &Abouts) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_stand_once_and_go_with_the_last_region() {
        let mut abouts = Abouts::default();
        let first = abouts.share(About::new("why", "g"));
        assert!(Arc::ptr_eq(&first, &abouts.share(About::new("why", "g"))));
        assert!(!Arc::ptr_eq(&first, &abouts.share(About::new("why", ""))));
        assert_eq!(About::new("why", "").group, None);
        for number in 0..10_000 {
            abouts.share(About::new(&format!("reason {number}"), ""));
        }
        assert!(abouts.known.len() <= FEW + 1, "{} are known, though one is used", abouts.known.len());
        assert!(Arc::ptr_eq(&first, &abouts.share(About::new("why", "g"))), "what is used stays");
    }

    #[test]
    fn a_grant_counts_until_the_route_changes() {
        let mut region = Region::new(Epoch(1), 5, 0, Arc::default());
        let now = BootTime::from_millis(1_000);
        assert_eq!(region.own_grant(), None);
        region.grant(now);
        assert_eq!(region.own_grant(), Some(now));
        let raised = region.under(Epoch(2), 6);
        assert_eq!((raised.epoch, raised.revision, raised.own_grant()), (Epoch(2), 6, None));
    }
}
