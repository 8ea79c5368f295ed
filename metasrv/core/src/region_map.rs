//! A map from region ids for which a region costs little more than its entry.
//!
//! Region ids are given in ascending order, so that each node's regions are mostly put at the end. A `BTreeMap` that is filled
//! so has leaves that are half empty: 11 entries and their links in 6 entries' worth. Here entries stand in sorted rows of up to 128,
//! each in an allocation of its own that is nearly full; a `BTreeMap` has the rows, by an id that no entry of them is below.
//!
//! | change | what happens | cost |
//! | --- | --- | --- |
//! | an id above all others | it is put at the end of the last row; a full row stays full, and a new one begins | O(log n) |
//! | an id in between | its row's tail moves; a full row is cut in two | O(log n), and the moving of a few kilobytes |
//! | an id is removed | its row's tail moves; rows that are nearly empty are put together | the same |
//!
//! Iteration is in the order of ids. It is no place for large values: they would be moved.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use crate::id::RegionId;

/// Entries of a row. A row of the largest entries here, of 48 bytes, takes 6 kB: moved in a tenth of a microsecond.
const ROW: usize = 128;

/// A row grows by a quarter: as little is empty on average as an eighth.
const GROWTH: usize = 4;

type Row<V> = Vec<(RegionId, V)>;

/// See the module.
#[derive(Clone)]
pub struct RegionMap<V> {
    /// No row is empty. A row's key is at most the id of its first entry, and above all ids of the row before it.
    rows: BTreeMap<RegionId, Row<V>>,
    len: usize,
}

impl<V> RegionMap<V> {
    /// An empty map.
    pub fn new() -> RegionMap<V> {
        RegionMap { rows: BTreeMap::new(), len: 0 }
    }

    /// How many regions are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a region.
    pub fn get(&self, region: &RegionId) -> Option<&V> {
        let (_, row) = self.rows.range(..=*region).next_back()?;
        let at = find(row, *region).ok()?;
        row.get(at).map(|(_, value)| value)
    }

    /// The value of a region, to be changed.
    pub fn get_mut(&mut self, region: &RegionId) -> Option<&mut V> {
        let (_, row) = self.rows.range_mut(..=*region).next_back()?;
        let at = find(row, *region).ok()?;
        row.get_mut(at).map(|(_, value)| value)
    }

    /// Whether a region is in it.
    pub fn contains_key(&self, region: &RegionId) -> bool {
        self.get(region).is_some()
    }

    /// Puts a value; returns the one that was there.
    pub fn insert(&mut self, region: RegionId, value: V) -> Option<V> {
        let Some(key) = self.key_of(region) else {
            self.rows.insert(region, vec![(region, value)]);
            self.len = self.len.saturating_add(1);
            return None;
        };
        let row = self.rows.get_mut(&key)?;
        let at = match find(row, region) {
            Ok(at) => return row.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => at,
        };
        self.len = self.len.saturating_add(1);
        if row.len() < ROW {
            make_room(row);
            row.insert(at, (region, value));
        } else if at == ROW {
            // The next row begins above it: this one stays full.
            self.rows.insert(region, vec![(region, value)]);
        } else {
            let mut upper = row.split_off(ROW / 2);
            row.shrink_to_fit();
            match at.checked_sub(ROW / 2) {
                Some(above) => upper.insert(above, (region, value)),
                None => {
                    make_room(row);
                    row.insert(at, (region, value));
                }
            }
            if let Some((first, _)) = upper.first() {
                self.rows.insert(*first, upper);
            }
        }
        None
    }

    /// Takes a region out.
    pub fn remove(&mut self, region: &RegionId) -> Option<V> {
        let (key, row) = self.rows.range_mut(..=*region).next_back()?;
        let (key, at) = (*key, find(row, *region).ok()?);
        let (_, value) = row.remove(at);
        self.len = self.len.saturating_sub(1);
        let left = row.len();
        if left == 0 {
            self.rows.remove(&key);
        } else if left <= ROW / GROWTH {
            self.join(key);
        } else if row.capacity() > left.saturating_mul(2) {
            row.shrink_to_fit();
        }
        Some(value)
    }

    /// Puts this row and one beside it together, where both leave room.
    fn join(&mut self, key: RegionId) {
        let before = self.rows.range(..key).next_back().map(|(before, _)| *before);
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        let behind = self.rows.range(behind).next().map(|(behind, _)| *behind);
        for (lower, upper) in
            before.map(|before| (before, key)).into_iter().chain(behind.map(|behind| (key, behind)))
        {
            let length = |key| self.rows.get(&key).map_or(0, Vec::len);
            if length(lower).saturating_add(length(upper)) > ROW / 2 {
                continue;
            }
            if let Some(mut tail) = self.rows.remove(&upper)
                && let Some(row) = self.rows.get_mut(&lower)
            {
                row.reserve_exact(tail.len());
                row.append(&mut tail);
            }
            return;
        }
        if let Some(row) = self.rows.get_mut(&key) {
            row.shrink_to_fit();
        }
    }

    /// The key of the row that a region belongs to. Where it is below all, the first row's is lowered to it.
    fn key_of(&mut self, region: RegionId) -> Option<RegionId> {
        if let Some((key, _)) = self.rows.range(..=region).next_back() {
            return Some(*key);
        }
        let (_, row) = self.rows.pop_first()?;
        self.rows.insert(region, row);
        Some(region)
    }

    /// The regions and their values, in the order of ids.
    pub fn iter(&self) -> Iter<'_, V> {
        self.rows.values().flatten().map(pair)
    }

    /// The same, from the first one above this id on; from the first one of all for none.
    pub fn iter_after(&self, after: Option<RegionId>) -> impl Iterator<Item = (&RegionId, &V)> {
        let key = after.and_then(|after| self.rows.range(..=after).next_back()).map(|(key, _)| *key);
        let rows = key.map_or_else(|| self.rows.range(..), |key| self.rows.range(key..));
        rows.flat_map(move |(_, row)| {
            let begin = after.map_or(0, |after| row.partition_point(|(id, _)| *id <= after));
            row.get(begin..).unwrap_or_default().iter().map(pair)
        })
    }

    /// The regions and their values, to be changed, in the order of ids.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&RegionId, &mut V)> {
        self.rows.values_mut().flatten().map(|(region, value)| (&*region, value))
    }

    /// The regions, in the order of ids.
    pub fn keys(&self) -> impl Iterator<Item = &RegionId> {
        self.iter().map(|(region, _)| region)
    }

    /// The values, in the order of ids.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

/// What [`RegionMap::iter`] returns.
pub type Iter<'a, V> = std::iter::Map<
    std::iter::Flatten<std::collections::btree_map::Values<'a, RegionId, Row<V>>>,
    fn(&'a (RegionId, V)) -> (&'a RegionId, &'a V),
>;

fn pair<V>((region, value): &(RegionId, V)) -> (&RegionId, &V) {
    (region, value)
}

fn find<V>(row: &Row<V>, region: RegionId) -> Result<usize, usize> {
    match row.last() {
        // As nearly always.
        Some((last, _)) if *last < region => Err(row.len()),
        _ => row.binary_search_by_key(&region, |(id, _)| *id),
    }
}

fn make_room<V>(row: &mut Row<V>) {
    let length = row.len();
    if length == row.capacity() {
        row.reserve_exact((length / GROWTH).max(GROWTH).min(ROW.saturating_sub(length)));
    }
}

impl<V> Default for RegionMap<V> {
    fn default() -> RegionMap<V> {
        RegionMap::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for RegionMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Where rows are cut makes no difference.
impl<V: PartialEq> PartialEq for RegionMap<V> {
    fn eq(&self, other: &RegionMap<V>) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<V> FromIterator<(RegionId, V)> for RegionMap<V> {
    fn from_iter<I: IntoIterator<Item = (RegionId, V)>>(entries: I) -> RegionMap<V> {
        let mut map = RegionMap::new();
        map.extend(entries);
        map
    }
}

impl<V> Extend<(RegionId, V)> for RegionMap<V> {
    fn extend<I: IntoIterator<Item = (RegionId, V)>>(&mut self, entries: I) {
        for (region, value) in entries {
            self.insert(region, value);
        }
    }
}

impl<'a, V> IntoIterator for &'a RegionMap<V> {
    type Item = (&'a RegionId, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes that the rows take, by their capacity.
    fn capacity(map: &RegionMap<u64>) -> usize {
        map.rows.values().map(Vec::capacity).sum()
    }

    fn sound(map: &RegionMap<u64>) {
        let rows: Vec<_> = map.rows.iter().collect();
        assert!(rows.iter().all(|(_, row)| !row.is_empty() && row.len() <= ROW));
        assert!(rows.iter().all(|(key, row)| **key <= row[0].0));
        assert!(rows.windows(2).all(|pair| pair[0].1.last().map(|(id, _)| id) < Some(pair[1].0)));
        assert!(map.keys().is_sorted_by(|a, b| a < b));
        assert_eq!(map.len(), map.iter().count());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Append,
        Remove(u64),
        /// All of a range, as a drain does it.
        RemoveFrom(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..2_000).prop_map(Step::Insert),
            4 => Just(Step::Append),
            4 => (0_u64..2_000).prop_map(Step::Remove),
            1 => (0_u64..2_000, 1_u64..400).prop_map(|(from, count)| Step::RemoveFrom(from, count)),
        ]
    }

    proptest! {
        /// Goal: it is a map. Method: random changes of it and of the standard library's.
        #[test]
        fn it_does_what_the_standard_map_does(
            begin in 0_u64..1_500,
            steps in proptest::collection::vec(step(), 0..400),
            after in proptest::option::of(0_u64..2_500),
        ) {
            let mut map: RegionMap<u64> = (0..begin).map(|id| (RegionId(id), id)).collect();
            let mut model: BTreeMap<RegionId, u64> = (0..begin).map(|id| (RegionId(id), id)).collect();
            for (number, step) in (10_000_u64..).zip(steps) {
                match step {
                    Step::Insert(id) => {
                        prop_assert_eq!(map.insert(RegionId(id), number), model.insert(RegionId(id), number));
                    }
                    Step::Append => {
                        let id = RegionId(model.keys().next_back().map_or(0, |last| last.0 + 1));
                        prop_assert_eq!(map.insert(id, number), model.insert(id, number));
                    }
                    Step::Remove(id) => {
                        prop_assert_eq!(map.remove(&RegionId(id)), model.remove(&RegionId(id)));
                    }
                    Step::RemoveFrom(from, count) => {
                        for id in (from..from + count).map(RegionId) {
                            prop_assert_eq!(map.remove(&id), model.remove(&id));
                        }
                    }
                }
            }
            sound(&map);
            prop_assert!(map.iter().eq(model.iter()));
            for id in (0..2_500).map(RegionId) {
                prop_assert_eq!(map.get(&id), model.get(&id));
            }
            let after = after.map(RegionId);
            let rest = model.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
            prop_assert!(map.iter_after(after).eq(rest));
            for (_, value) in map.iter_mut() {
                *value += 1;
            }
            prop_assert!(map.values().copied().eq(model.values().map(|value| value + 1)));
        }
    }

    /// Goal: what the module says of its memory. Method: ids in ascending order, as they are given; then a part of them goes.
    #[test]
    fn little_is_empty_whatever_comes_and_goes() {
        let mut map: RegionMap<u64> = (0..10_000).map(|id| (RegionId(id), id)).collect();
        assert!(capacity(&map) <= 10_000 + ROW, "{}", capacity(&map));
        assert_eq!(map.rows.len(), 10_000_usize.div_ceil(ROW));
        for id in (0..10_000).filter(|id| id % 10 != 0).map(RegionId) {
            map.remove(&id);
        }
        sound(&map);
        assert_eq!(map.len(), 1_000);
        assert!(capacity(&map) <= 2_000, "{}", capacity(&map));
        assert!(map.rows.len() <= 1_000 / (ROW / 8), "{}", map.rows.len());
    }

    #[test]
    fn equal_maps_may_be_cut_differently() {
        let ascending: RegionMap<u64> = (0..1_000).map(|id| (RegionId(id), id)).collect();
        let descending: RegionMap<u64> = (0..1_000).rev().map(|id| (RegionId(id), id)).collect();
        assert_ne!(ascending.rows.len(), descending.rows.len());
        assert_eq!(ascending, descending);
        assert_eq!(ascending.get(&RegionId(7)), Some(&7));
        assert!(
            !ascending.contains_key(&RegionId(1_000)) && !RegionMap::<u64>::new().contains_key(&RegionId(0))
        );
    }
}
