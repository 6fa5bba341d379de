//! Values under small numbers, which are also found by a name that is part of them: the name is in memory once.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// What is found by a part of itself.
pub(crate) trait Named {
    type Name: Hash + Eq + ?Sized;

    fn name(&self) -> &Self::Name;
}

/// A number of [`Slots`]. It means the value that it was given for until that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const LAST: Self = Self(u32::MAX);
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    values: Vec<Option<T>>,
    free: Vec<Slot>,
    by_name: HashTable<Slot>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            free: Vec::new(),
            by_name: HashTable::new(),
        }
    }
}

impl<T: Named> Slots<T> {
    pub(crate) fn find(&self, name: &T::Name) -> Option<Slot> {
        let hash = FxBuildHasher.hash_one(name);
        let is = |slot: &Slot| self.get(*slot).is_some_and(|value| value.name() == name);
        self.by_name.find(hash, is).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&T> {
        self.values.get(slot.0 as usize)?.as_ref()
    }

    /// The value, whose name is to stay as it is.
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.values.get_mut(slot.0 as usize)?.as_mut()
    }

    /// The slot of a name, with a new value when it has none.
    pub(crate) fn find_or_insert(&mut self, name: &T::Name, make: impl FnOnce() -> T) -> Slot {
        self.find(name).unwrap_or_else(|| self.insert(make()))
    }

    fn insert(&mut self, value: T) -> Slot {
        let hash = FxBuildHasher.hash_one(value.name());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.values.push(None);
            let last = u32::try_from(self.values.len() - 1);
            Slot(last.expect("no etcd holds as many keys as there are numbers"))
        });
        let values = &mut self.values;
        values[slot.0 as usize] = Some(value);
        let rehash = |slot: &Slot| {
            let value = values[slot.0 as usize].as_ref();
            value.map_or(0, |value| FxBuildHasher.hash_one(value.name()))
        };
        self.by_name.insert_unique(hash, slot, rehash);
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        let value = self.values.get_mut(slot.0 as usize)?.take()?;
        let hash = FxBuildHasher.hash_one(value.name());
        if let Ok(entry) = self.by_name.find_entry(hash, |found| *found == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Word(String, u64);

    impl Named for Word {
        type Name = str;

        fn name(&self) -> &str {
            &self.0
        }
    }

    #[test]
    fn values_are_found_by_name_and_number_as_in_a_map() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut slots: Slots<Word> = Slots::default();
        let mut model: BTreeMap<String, (Slot, u64)> = BTreeMap::new();
        for step in 0..4_000 {
            // More names than stay, so that numbers are used again, and enough for the table to grow.
            let name = format!("w{}", rng.u32(..400));
            let found = slots.find(&name);
            assert_eq!(found, model.get(&name).map(|(slot, _)| *slot));
            if rng.bool() {
                let slot = slots.find_or_insert(&name, || Word(name.clone(), step));
                assert_eq!(found.unwrap_or(slot), slot);
                model.entry(name).or_insert((slot, step));
            } else if let Some(slot) = found {
                let (_, value) = model.remove(&name).unwrap();
                assert_eq!(slots.remove(slot), Some(Word(name, value)));
                assert_eq!(slots.remove(slot), None);
            }
        }
        for (name, (slot, value)) in &model {
            assert_eq!(slots.get(*slot), Some(&Word(name.clone(), *value)));
        }
        assert_eq!(slots.iter().count(), model.len());
        assert!(slots.values.len() <= 400);
    }
}
