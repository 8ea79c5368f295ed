//! Labels of groups as numbers: a route keeps four bytes, and each label stands once.
//!
//! A number is used again when no route has its label any more, and when the ring has forgotten every change that may
//! speak of it: until then a reader who lags behind would be told another label.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The number of a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(u32);

impl Label {
    /// No label.
    pub const NONE: Label = Label(u32::MAX);
}

struct Slot {
    text: Arc<str>,
    /// Routes that have it.
    used: usize,
    /// The number of the first change after its last use.
    freed: u64,
    /// It stands in the queue of free numbers.
    queued: bool,
}

/// See the module.
#[derive(Default)]
pub struct Labels {
    slots: Vec<Slot>,
    numbers: HashMap<Arc<str>, u32>,
    /// Numbers that no route has, or had at some time; each once.
    free: VecDeque<u32>,
}

impl Labels {
    /// The number of a label that one more route has. `kept` is the number of the oldest change that is still told.
    pub fn take(&mut self, text: &str, kept: u64) -> Label {
        if text.is_empty() {
            return Label::NONE;
        }
        if let Some(slot) = self.numbers.get(text).and_then(|number| self.slots.get_mut(index(*number))) {
            slot.used = slot.used.saturating_add(1);
            return self.numbers.get(text).copied().map_or(Label::NONE, Label);
        }
        let text: Arc<str> = Arc::from(text);
        let number = match self.reusable(kept) {
            Some(number) => number,
            // Four billion different labels do not fit into the store: the last number is never reached.
            None => u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
        };
        let slot = Slot { text: Arc::clone(&text), used: 1, freed: 0, queued: false };
        match self.slots.get_mut(index(number)) {
            Some(before) => {
                self.numbers.remove(&before.text);
                *before = slot;
            }
            None => self.slots.push(slot),
        }
        self.numbers.insert(text, number);
        Label(number)
    }

    /// One route less has this label. `next` is the number that the next change will get.
    pub fn release(&mut self, label: Label, next: u64) {
        let Some(slot) = self.slots.get_mut(index(label.0)) else { return };
        slot.used = slot.used.saturating_sub(1);
        if slot.used == 0 {
            slot.freed = next;
            if !slot.queued {
                slot.queued = true;
                self.free.push_back(label.0);
            }
        }
    }

    /// The label; empty where there is none.
    pub fn text(&self, label: Label) -> &str {
        self.slots.get(index(label.0)).map_or("", |slot| &slot.text)
    }

    /// A number that nobody speaks of any more.
    fn reusable(&mut self, kept: u64) -> Option<u32> {
        for _ in 0..self.free.len() {
            let number = self.free.pop_front()?;
            let Some(slot) = self.slots.get_mut(index(number)) else { continue };
            match slot.used {
                0 if slot.freed <= kept => return Some(number),
                0 => {
                    // Those behind it were freed later, nearly all of them.
                    self.free.push_back(number);
                    return None;
                }
                _ => slot.queued = false,
            }
        }
        None
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_once_and_none_is_empty() {
        let mut labels = Labels::default();
        let (a, b) = (labels.take("a", 0), labels.take("b", 0));
        assert_eq!(labels.take("a", 0), a);
        assert_eq!((labels.text(a), labels.text(b), labels.text(Label::NONE)), ("a", "b", ""));
        assert_eq!(labels.take("", 0), Label::NONE);
        labels.release(Label::NONE, 0);
    }

    /// Goal: a reader who lags behind is told the label that the change had.
    #[test]
    fn a_number_is_used_again_only_when_no_change_speaks_of_it() {
        let mut labels = Labels::default();
        let old = labels.take("old", 0);
        labels.release(old, 5);
        assert_ne!(labels.take("new", 4), old, "change 4 may have the old label");
        assert_eq!(labels.text(old), "old");
        let newer = labels.take("newer", 5);
        assert_eq!((newer, labels.text(newer)), (old, "newer"));
    }

    #[test]
    fn a_label_that_came_back_is_not_given_away() {
        let mut labels = Labels::default();
        let back = labels.take("back", 0);
        labels.release(back, 1);
        assert_eq!(labels.take("back", 9), back, "it comes back under its number");
        let other = labels.take("other", 9);
        assert_ne!(other, back);
        labels.release(back, 2);
        labels.release(other, 2);
        assert_eq!(labels.take("back", 9), back);
        for number in 0..100 {
            let text = format!("label {number}");
            let label = labels.take(&text, 9);
            assert_ne!(label, back);
            assert_eq!((labels.text(label), labels.text(back)), (text.as_str(), "back"));
        }
    }
}
