//! A number for a set of regions, so that two sides can compare thousands of regions by comparing sixteen bytes.
//!
//! Each region is mixed into 64 bits together with how it is held and under which epoch, and the set's sum is that of its
//! regions, modulo 2^64. So the order in which they came makes no difference, each change costs one addition, and what was
//! taken out leaves nothing behind. The count stands beside the sum: it is what people read, and it halves what is left to
//! chance.
//!
//! Two different sets have the same digest once in 2^64 comparisons, and both sides state theirs with each heartbeat: ten
//! thousand nodes that compare two different sets each second meet a false equality once in fifty thousand years. Nobody is
//! meant to forge one here: a node that lies about its regions can as well write to them.

use crate::id::{Epoch, RegionId};
use crate::procedure::instruction::{Held, HeldAs};

/// The digest of a set of regions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Digest {
    /// The sum of its regions, mixed, modulo 2^64.
    pub sum: u64,
    /// How many regions are in it.
    pub count: u64,
}

impl Digest {
    /// Of the empty set.
    pub const EMPTY: Digest = Digest { sum: 0, count: 0 };

    /// Of these regions, each of which is named once.
    pub fn of(regions: impl IntoIterator<Item = (RegionId, Held)>) -> Digest {
        let mut digest = Digest::EMPTY;
        for (region, held) in regions {
            digest.insert(region, held);
        }
        digest
    }

    /// Puts a region in, which is not in it.
    pub fn insert(&mut self, region: RegionId, held: Held) {
        self.sum = self.sum.wrapping_add(mixed(region, held));
        self.count = self.count.wrapping_add(1);
    }

    /// Takes a region out, which is in it as `held`.
    pub fn remove(&mut self, region: RegionId, held: Held) {
        self.sum = self.sum.wrapping_sub(mixed(region, held));
        self.count = self.count.wrapping_sub(1);
    }
}

/// On the wire for ever: both sides have to mix alike.
fn mixed(region: RegionId, held: Held) -> u64 {
    let Held { role, epoch: Epoch(epoch) } = held;
    let role = match role {
        HeldAs::Leader => 1,
        HeldAs::Downgraded => 2,
        HeldAs::Candidate => 3,
        HeldAs::Follower => 4,
    };
    // Each step is a permutation of the 64 bits, so that sets which differ in one number of one region never collide.
    let mut bits = scrambled(region.0.wrapping_add(0x9e37_79b9_7f4a_7c15));
    bits = scrambled(bits ^ epoch.wrapping_mul(0xd6e8_feb8_6659_fd93));
    scrambled(bits.wrapping_add(role).wrapping_mul(0xa076_1d64_78bd_642f))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014; constants by
/// Stafford): half of the result's bits change with each bit of the argument.
fn scrambled(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};

    fn held(role: HeldAs, epoch: u64) -> Held {
        Held { role, epoch: Epoch(epoch) }
    }

    fn any_held() -> impl Strategy<Value = Held> {
        let role = prop::sample::select(vec![HeldAs::Leader, HeldAs::Downgraded, HeldAs::Candidate]);
        (role, 0_u64..5).prop_map(|(role, epoch)| held(role, epoch))
    }

    /// Goal: the mix is what is on the wire, whatever this file is changed to. Method: values worked out once.
    #[test]
    fn both_sides_mix_alike_for_ever() {
        let one = Digest::of([(RegionId(1), held(HeldAs::Leader, 1))]);
        let two = Digest::of([(RegionId(2), held(HeldAs::Candidate, 7))]);
        assert_eq!((one.sum, one.count), (GOLDEN.0, 1));
        assert_eq!((two.sum, two.count), (GOLDEN.1, 1));
    }

    const GOLDEN: (u64, u64) = (0x93d2_8dc5_eaab_4a2e, 0x6fac_e1cb_315d_f3cc);

    /// Goal: sets that differ little, as real ones do, have different digests. Method: a hundred thousand regions with near
    /// numbers, and all pairs of neighbours that swap their epochs.
    #[test]
    fn near_sets_differ() {
        let mut seen = HashSet::new();
        let mut bits = [0_u32; 64];
        for region in 0..25_000 {
            for (role, epoch) in
                [(HeldAs::Leader, 1), (HeldAs::Leader, 2), (HeldAs::Candidate, 1), (HeldAs::Downgraded, 1)]
            {
                let sum = Digest::of([(RegionId(region), held(role, epoch))]).sum;
                assert!(seen.insert(sum), "region {region} {role:?} {epoch} is like another one");
                for (bit, count) in bits.iter_mut().enumerate() {
                    *count += u32::from(sum >> bit & 1 == 1);
                }
            }
        }
        assert!(bits.iter().all(|ones| (48_500..51_500).contains(ones)), "a bit leans to one side: {bits:?}");
        for region in 0..1_000 {
            let with = |first, second| {
                Digest::of([
                    (RegionId(region), held(HeldAs::Leader, first)),
                    (RegionId(region + 1), held(HeldAs::Leader, second)),
                ])
            };
            assert_ne!(with(1, 2), with(2, 1));
            assert_ne!(with(region, region + 1), with(region + 1, region));
        }
    }

    proptest! {
        #[test]
        fn the_order_makes_no_difference(
            (set, shuffled) in prop::collection::btree_map(any::<u64>(), any_held(), 0..20)
                .prop_flat_map(|set| { let list: Vec<_> = set.into_iter().collect(); (Just(list.clone()), Just(list).prop_shuffle()) }),
        ) {
            let digest = |list: Vec<(u64, Held)>| Digest::of(list.into_iter().map(|(region, held)| (RegionId(region), held)));
            prop_assert_eq!(digest(set), digest(shuffled));
        }

        /// Goal: after any changes the digest is that of what is left. Method: random changes of few regions.
        #[test]
        fn taking_out_undoes_putting_in(changes in prop::collection::vec((0_u64..6, prop::option::of(any_held())), 0..60)) {
            let (mut digest, mut set) = (Digest::EMPTY, BTreeMap::new());
            for (region, change) in changes {
                if let Some(before) = set.remove(&RegionId(region)) {
                    digest.remove(RegionId(region), before);
                }
                if let Some(held) = change {
                    digest.insert(RegionId(region), held);
                    set.insert(RegionId(region), held);
                }
                prop_assert_eq!(digest, Digest::of(set.clone()));
                prop_assert_eq!(digest.count, set.len() as u64);
            }
        }

        #[test]
        fn different_sets_differ(
            first in prop::collection::btree_map(0_u64..8, any_held(), 0..8),
            second in prop::collection::btree_map(0_u64..8, any_held(), 0..8),
        ) {
            let digest = |set: &BTreeMap<u64, Held>| Digest::of(set.iter().map(|(region, held)| (RegionId(*region), *held)));
            prop_assert_eq!(first == second, digest(&first) == digest(&second));
        }
    }
}
