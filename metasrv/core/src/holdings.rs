//! The regions that the routes give to one node, beside what its process is known to hold: what a heartbeat renews that lists
//! no regions.
//!
//! A process lists its regions once on each stream, and from then on what has changed; with each request it states the
//! [`Digest`] of all that it holds. What it holds is kept here as the *difference* to the routes: nothing, in the steady state.
//! The difference is carried along when a route changes and when the process says that it opened or closed something, and
//! whatever was lost or misunderstood shows in the digest: then the process is asked for the whole list.
//!
//! | the process holds a region | it counts as | the heartbeat |
//! | --- | --- | --- |
//! | to lead it, under the route's epoch | as routed | renews it, unless it is withheld |
//! | not, though it is routed here | missing | has it opened, unless it is withheld |
//! | under an older epoch | missing and extra | has it opened anew |
//! | under a higher epoch | missing and extra | has the route's epoch raised |
//! | with no route to here | extra | has it closed, unless it is kept open |
//! | as a candidate, or stopped for good | extra, and missing where it is routed | renews nothing |
//!
//! # Why an answer never renews what it must not
//!
//! 1. *The answer is about the request.* It names the version and the digest of the set that the request stated, and the node
//!    renews only what it has held unchanged since it sent that request. What was opened, raised, stopped or closed since then has a
//!    later version. The lease counts from the send time of that request.
//! 2. *The comparison is with the routes of one instant.* What is held, the routes and what is withheld are compared under the
//!    lock of the node, at the moment of the grant, while leadership holds: whoever withholds a region under the same lock is
//!    either seen by the grant, or finds it in the accounts. Each change of routes or of what is withheld raises the
//!    *revision*, which the answer names, and a node takes no answer of a lower revision than one that it has taken of that term.
//! 3. *The accounts cover it.* A grant of the whole set is one instant for the node, [`Holdings::granted_at`]. It covers every
//!    region that was renewed by it and no other: a region that is withheld, missing, new or raised stands *apart*, with the instant
//!    up to which it was covered. So what a node believes never ends later than what is accounted for, and a region that is being
//!    taken away becomes free though its neighbours are renewed.
//! 4. *Another leader knows nothing of the set.* It begins without a difference, so it renews nothing before it has seen a whole
//!    list on a stream of its own; an answer of a lower term is refused before it comes this far. The same is so for another process of the
//!    node: what its predecessor said counts for its predecessor alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crate::digest::Digest;
use crate::grant::{Decision, Reported, decide};
use crate::id::{Epoch, Incarnation, RegionId};
use crate::procedure::instruction::{Held, HeldAs};
use crate::region_map::RegionMap;
use crate::time::BootTime;

/// Regions by which what a process holds may differ from the routes. Beyond it, it is asked for the whole list, which is
/// limited to as many.
const MOST_DIFFERENT: usize = 100_000;

/// What the routes keep for a region.
pub trait Route {
    /// The epoch of the route.
    fn epoch(&self) -> Epoch;
    /// When it was last renewed by itself.
    fn own_grant(&self) -> Option<BootTime>;
    /// It is renewed by itself.
    fn grant(&mut self, at: BootTime);
}

/// See the module. Reads like the map of its routes.
#[derive(Clone, Debug)]
pub struct Holdings<R> {
    routes: RegionMap<R>,
    /// Raised by each change of a route or of what is withheld.
    revision: u64,
    /// Routes that nothing is granted for: something is about to take them away.
    withheld: BTreeSet<RegionId>,
    known: Option<Known>,
    /// When all that was not apart was last renewed.
    whole: Option<BootTime>,
    /// Regions that the last grant of the whole set did not cover.
    apart: BTreeSet<RegionId>,
}

/// What a process holds, as the difference to the routes.
#[derive(Clone, Debug)]
struct Known {
    process: Incarnation,
    digest: Digest,
    missing: BTreeSet<RegionId>,
    extra: BTreeMap<RegionId, Held>,
}

/// What a heartbeat without a list comes to. Everything that the process holds is renewed, but `except`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SetDecision {
    /// How many regions are renewed.
    pub renewed: usize,
    /// Those of the set that are not renewed, and a few that are not in it.
    pub except: Vec<RegionId>,
    /// As in [`Decision`].
    pub open: Vec<Reported>,
    /// As in [`Decision`].
    pub close: Vec<RegionId>,
    /// As in [`Decision`].
    pub ahead: Vec<Reported>,
    /// Of the routes that it was compared with.
    pub revision: u64,
}

impl<R> Default for Holdings<R> {
    fn default() -> Holdings<R> {
        Holdings::from(RegionMap::new())
    }
}

impl<R> From<RegionMap<R>> for Holdings<R> {
    /// Of a node of which nothing is known but its routes.
    fn from(routes: RegionMap<R>) -> Holdings<R> {
        let (withheld, apart) = (BTreeSet::new(), BTreeSet::new());
        Holdings { routes, revision: 0, withheld, known: None, whole: None, apart }
    }
}

impl<R> Deref for Holdings<R> {
    type Target = RegionMap<R>;

    fn deref(&self) -> &RegionMap<R> {
        &self.routes
    }
}

impl<R: Route> Holdings<R> {
    /// Raised by each change of a route or of what is withheld.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// From now on the routes give this region to the node.
    pub fn insert(&mut self, region: RegionId, route: R) {
        self.rerouted(region, |routes| {
            routes.insert(region, route);
        });
    }

    /// Not any more.
    pub fn remove(&mut self, region: &RegionId) {
        self.rerouted(*region, |routes| {
            routes.remove(region);
        });
        self.apart.remove(region);
        self.withheld.remove(region);
    }

    /// Changes the route of a region, if there is one.
    pub fn change(&mut self, region: RegionId, change: impl FnOnce(&mut R)) {
        if self.whole.is_some() {
            self.stand_apart(region);
        }
        self.rerouted(region, |routes| {
            if let Some(route) = routes.get_mut(&region) {
                change(route);
            }
        });
    }

    fn rerouted(&mut self, region: RegionId, change: impl FnOnce(&mut RegionMap<R>)) {
        let held = self.holds(region);
        change(&mut self.routes);
        if self.whole.is_some() {
            self.apart.insert(region);
        }
        self.revision = self.revision.saturating_add(1);
        self.sort_in(region, held);
    }

    /// From now on nothing is granted for this region, and the node is not told to open it.
    pub fn withhold(&mut self, region: RegionId) {
        if self.withheld.insert(region) {
            self.revision = self.revision.saturating_add(1);
        }
    }

    /// What its route says is granted again.
    pub fn release(&mut self, region: &RegionId) {
        if self.withheld.remove(region) {
            self.revision = self.revision.saturating_add(1);
        }
    }

    /// Whether nothing is granted for this region.
    pub fn is_withheld(&self, region: &RegionId) -> bool {
        self.withheld.contains(region)
    }

    /// All of them.
    pub fn withheld(&self) -> &BTreeSet<RegionId> {
        &self.withheld
    }

    /// When this region was last renewed under its present route.
    pub fn granted_at(&self, region: &RegionId) -> Option<BootTime> {
        let own = self.routes.get(region)?.own_grant();
        if self.apart.contains(region) { own } else { own.max(self.whole) }
    }

    /// A process lists all that it holds, and says of which digest that is. Whether they fit together.
    pub fn listed(
        &mut self,
        process: Incarnation,
        all: impl IntoIterator<Item = (RegionId, Held)>,
        stated: Digest,
    ) -> bool {
        let missing = self.routes.keys().copied().collect();
        self.known = Some(Known { process, digest: Digest::EMPTY, missing, extra: BTreeMap::new() });
        for (region, held) in all {
            self.take_note(region, Some(held));
        }
        self.verify(process, stated)
    }

    /// A process names what has changed since its last request, and says of which digest all that it holds is. `false`: its
    /// whole list is needed.
    pub fn changed(
        &mut self,
        process: Incarnation,
        changes: impl IntoIterator<Item = (RegionId, Option<Held>)>,
        stated: Digest,
    ) -> bool {
        for (region, held) in changes {
            self.take_note(region, held);
        }
        self.verify(process, stated)
    }

    fn verify(&mut self, process: Incarnation, stated: Digest) -> bool {
        let fits = |known: &Known| {
            let different = known.missing.len().saturating_add(known.extra.len());
            known.process == process && known.digest == stated && different <= MOST_DIFFERENT
        };
        let holds = self.known.as_ref().is_some_and(fits);
        if !holds {
            self.known = None;
        }
        holds
    }

    /// How the process holds a region, as far as it is known.
    pub fn holds(&self, region: RegionId) -> Option<Held> {
        let known = self.known.as_ref()?;
        if let Some(held) = known.extra.get(&region) {
            return Some(*held);
        }
        let route = self.routes.get(&region).filter(|_| !known.missing.contains(&region))?;
        Some(Held { role: HeldAs::Leader, epoch: route.epoch() })
    }

    /// The process says that it holds a region in another way, or not any more.
    fn take_note(&mut self, region: RegionId, held: Option<Held>) {
        let before = self.holds(region);
        let Some(known) = &mut self.known else { return };
        if let Some(before) = before {
            known.digest.remove(region, before);
        }
        if let Some(held) = held {
            known.digest.insert(region, held);
        }
        self.sort_in(region, held);
    }

    /// Puts a region where the table of the module has it.
    fn sort_in(&mut self, region: RegionId, held: Option<Held>) {
        let Some(known) = &mut self.known else { return };
        let routed = self.routes.get(&region).map(Route::epoch);
        let as_routed = |held: Held| held.role == HeldAs::Leader && routed == Some(held.epoch);
        match held {
            Some(held) if !as_routed(held) => known.extra.insert(region, held),
            Some(_) | None => known.extra.remove(&region),
        };
        if routed.is_some() && !held.is_some_and(as_routed) {
            known.missing.insert(region);
        } else {
            known.missing.remove(&region);
        }
    }

    /// Renews all that the process holds as routed: for one that was [`Holdings::listed`] or [`Holdings::changed`] just now. It
    /// costs what is different, and nothing where nothing is.
    pub fn grant_set(&mut self, kept_open: &BTreeSet<RegionId>, now: BootTime) -> Option<SetDecision> {
        let known = self.known.as_ref()?;
        let mut decision = SetDecision { revision: self.revision, ..SetDecision::default() };
        let epoch_of = |region: &RegionId| self.routes.get(region).map(Route::epoch);
        for (region, held) in &known.extra {
            decision.except.push(*region);
            match epoch_of(region) {
                None if !kept_open.contains(region) => decision.close.push(*region),
                Some(epoch) if held.epoch > epoch => {
                    decision.ahead.push(Reported { region: *region, epoch: held.epoch });
                }
                _ => {}
            }
        }
        for region in &known.missing {
            let stays = |held: &Held| Some(held.epoch) >= epoch_of(region);
            if self.withheld.contains(region) || known.extra.get(region).is_some_and(stays) {
                continue;
            }
            decision.open.extend(epoch_of(region).map(|epoch| Reported { region: *region, epoch }));
        }
        let is_held =
            |region: &&RegionId| self.routes.contains_key(region) && !known.missing.contains(region);
        decision.except.extend(self.withheld.iter().filter(is_held));
        let left_out = known.missing.len().saturating_add(self.withheld.iter().filter(is_held).count());
        decision.renewed = self.routes.len().saturating_sub(left_out);
        let uncovered: Vec<RegionId> = self.withheld.iter().chain(&known.missing).copied().collect();
        for region in &uncovered {
            self.stand_apart(*region);
        }
        let (withheld, missing) = (&self.withheld, self.known.as_ref().map(|known| &known.missing));
        self.apart.retain(|region| {
            withheld.contains(region) || missing.is_some_and(|missing| missing.contains(region))
        });
        self.whole = Some(now);
        Some(decision)
    }

    /// From now on a region is covered by no grant of the whole set, but by those so far.
    fn stand_apart(&mut self, region: RegionId) {
        let granted = self.granted_at(&region);
        if self.apart.insert(region)
            && let (Some(route), Some(granted)) = (self.routes.get_mut(&region), granted)
        {
            route.grant(granted);
        }
    }

    /// Renews those of the listed regions that are held as the routes want it, each by itself: for peers that state no digest.
    pub fn grant_list(
        &mut self,
        reported: Vec<Reported>,
        kept_open: &BTreeSet<RegionId>,
        now: BootTime,
    ) -> Decision {
        let mut decision = decide(&self.routes, Route::epoch, reported);
        if !self.withheld.is_empty() {
            decision.renew.retain(|region| !self.withheld.contains(&region.region));
            decision.open.retain(|region| !self.withheld.contains(&region.region));
        }
        decision.close.retain(|region| !kept_open.contains(region));
        for region in &decision.renew {
            if let Some(route) = self.routes.get_mut(&region.region) {
                route.grant(now);
            }
        }
        decision
    }
}

#[cfg(test)]
#[path = "holdings_tests.rs"]
mod tests;
