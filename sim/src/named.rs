//! The guards that a transaction names for each key that it writes: what a group commit puts together is told apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_store::{Compare, Txn, TxnOp};

/// Keys, each with its mod revision as demanded.
pub(crate) type Guards = Vec<(String, i64)>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    keys: BTreeMap<String, Arc<Guards>>,
    /// First key, first key past the range.
    ranges: Vec<(String, String, Arc<Guards>)>,
}

impl Named {
    /// Those of a transaction. Only what is done when conditions hold is looked at: nobody here writes otherwise.
    pub(crate) fn of(txn: &Txn) -> Self {
        let mut named = Self::default();
        named.add(txn, &Guards::new());
        named
    }

    /// The guards of a key; `None` when the transaction does not write it.
    pub(crate) fn guards(&self, key: &str) -> Option<&Guards> {
        let ranges = || {
            let mut ranges = self.ranges.iter();
            ranges.find(|(start, end, _)| start.as_str() <= key && key < end.as_str())
        };
        let found = self.keys.get(key);
        found
            .or_else(|| ranges().map(|(_, _, guards)| guards))
            .map(Arc::as_ref)
    }

    /// The guards of everything that is written.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Guards> {
        let ranges = self.ranges.iter().map(|(_, _, guards)| guards);
        self.keys.values().chain(ranges).map(Arc::as_ref)
    }

    fn add(&mut self, txn: &Txn, outer: &Guards) {
        let own = txn.compares.iter().filter_map(|compare| match compare {
            Compare::ModRevision(key, revision) => Some((key.clone(), *revision)),
            _ => None,
        });
        let guards: Arc<Guards> = Arc::new(outer.iter().cloned().chain(own).collect());
        for op in &txn.then {
            match op {
                TxnOp::Put(put) => drop(self.keys.insert(put.key.clone(), guards.clone())),
                TxnOp::Delete(key) => drop(self.keys.insert(key.clone(), guards.clone())),
                TxnOp::DeleteRange { start, end } => {
                    self.ranges
                        .push((start.clone(), end.clone(), guards.clone()));
                }
                TxnOp::Txn(inner) => self.add(inner, &guards),
                TxnOp::Get(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_the_guards_of_its_own_part_of_a_batch() {
        let part = |fence: &str, key: &str| {
            let guard = Compare::ModRevision(fence.to_owned(), 7);
            TxnOp::Txn(Box::new(Txn::new().when(guard).put(key, "x")))
        };
        let mut batch = Txn::new();
        batch.then = vec![part("f1", "a"), part("f2", "b")];
        let named = Named::of(&batch);
        assert_eq!(named.guards("a"), Some(&vec![("f1".to_owned(), 7)]));
        assert_eq!(named.guards("b"), Some(&vec![("f2".to_owned(), 7)]));
        assert_eq!(named.guards("c"), None);
    }
}
