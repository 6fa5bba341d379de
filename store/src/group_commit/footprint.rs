//! What an item touches, and how much room it takes.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use super::Item;
use crate::types::{Compare, Txn, TxnOp};

/// Bytes of a message around a key and a value, roughly and from above.
const OVERHEAD: usize = 32;

/// What an item touches, and how much room it takes.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    /// Hashes of single keys: those that are written, then those that are only looked at. Two keys with one hash are
    /// taken for one, which costs a round and nothing else.
    points: Vec<u64>,
    written: usize,
    /// Whether it touches ranges as well. They are compared by their keys.
    pub(super) ranged: bool,
    /// The longest list of operations along its nesting.
    pub(super) depth: usize,
    /// Bytes of keys and values.
    pub(super) bytes: usize,
}

impl Footprint {
    pub(super) fn of(item: &Item) -> Self {
        let mut footprint = Self {
            points: Vec::with_capacity(item.guards.len() + item.then.len()),
            ..Self::default()
        };
        // Two passes, so that written keys come first.
        visit(&item.guards, &item.then, &[], &mut |touch| {
            footprint.bytes += touch.bytes;
            footprint.ranged |= touch.end.is_some();
            if touch.writes && touch.end.is_none() {
                footprint.points.push(hash(touch.start));
            }
        });
        footprint.written = footprint.points.len();
        visit(&item.guards, &item.then, &[], &mut |touch| {
            if !touch.writes && touch.end.is_none() {
                footprint.points.push(hash(touch.start));
            }
        });
        footprint.depth = depth(&item.guards, &item.then, &[]);
        footprint
    }

    fn writes(&self) -> &[u64] {
        &self.points[..self.written]
    }

    fn looks(&self) -> &[u64] {
        &self.points[self.written..]
    }
}

/// How often single keys are written and looked at by some set of items.
#[derive(Debug, Default)]
pub(super) struct Uses {
    keys: FxHashMap<u64, Use>,
}

#[derive(Debug, Default)]
struct Use {
    written: u32,
    looked_at: u32,
}

impl Uses {
    /// Whether an item touches a key of the set, one of the two writing it.
    pub(super) fn meets(&self, footprint: &Footprint) -> bool {
        if self.keys.is_empty() {
            return false;
        }
        footprint
            .writes()
            .iter()
            .any(|key| self.keys.contains_key(key))
            || footprint
                .looks()
                .iter()
                .any(|key| self.keys.get(key).is_some_and(|uses| uses.written > 0))
    }

    pub(super) fn add(&mut self, footprint: &Footprint) {
        for key in footprint.writes() {
            self.keys.entry(*key).or_default().written += 1;
        }
        for key in footprint.looks() {
            self.keys.entry(*key).or_default().looked_at += 1;
        }
    }

    pub(super) fn remove(&mut self, footprint: &Footprint) {
        for (at, key) in footprint.points.iter().enumerate() {
            if let Some(uses) = self.keys.get_mut(key) {
                if at < footprint.written {
                    uses.written -= 1;
                } else {
                    uses.looked_at -= 1;
                }
                if uses.written == 0 && uses.looked_at == 0 {
                    self.keys.remove(key);
                }
            }
        }
    }
}

/// Whether two items touch a common key, one of them writing it. Exact, and slow: for ranges.
pub(super) fn intersect(one: &Item, other: &Item) -> bool {
    let mut touches = Vec::new();
    visit(&one.guards, &one.then, &[], &mut |touch| {
        touches.push(touch)
    });
    let mut met = false;
    visit(&other.guards, &other.then, &[], &mut |touch| {
        met = met
            || touches
                .iter()
                .any(|known| (known.writes || touch.writes) && known.overlaps(&touch));
    });
    met
}

/// A key or a range that an item touches.
struct Touch<'a> {
    start: &'a str,
    /// The first key past the range; `None` for a single key.
    end: Option<&'a str>,
    writes: bool,
    bytes: usize,
}

impl Touch<'_> {
    fn overlaps(&self, other: &Touch<'_>) -> bool {
        self.begins_before_end_of(other) && other.begins_before_end_of(self)
    }

    fn begins_before_end_of(&self, other: &Touch<'_>) -> bool {
        match other.end {
            None => self.start <= other.start,
            // etcd's sign for "to the end of all keys".
            Some("\0") => true,
            Some(end) => self.start < end,
        }
    }
}

fn visit<'a>(
    guards: &'a [Compare],
    then: &'a [TxnOp],
    or_else: &'a [TxnOp],
    see: &mut impl FnMut(Touch<'a>),
) {
    for guard in guards {
        let (start, end) = match guard {
            Compare::ModRevision(key, _)
            | Compare::CreateRevision(key, _)
            | Compare::Exists(key) => (key, None),
            Compare::RangeUnchangedSince { start, end, .. } => (start, Some(end.as_str())),
        };
        let bytes = start.len() + end.map_or(0, str::len) + OVERHEAD;
        see(Touch {
            start,
            end,
            writes: false,
            bytes,
        });
    }
    for op in then.iter().chain(or_else) {
        match op {
            TxnOp::Put(put) => {
                let bytes = put.key.len() + put.value.len() + OVERHEAD;
                see(Touch {
                    start: &put.key,
                    end: None,
                    writes: true,
                    bytes,
                });
            }
            TxnOp::Delete(key) => see(Touch {
                start: key,
                end: None,
                writes: true,
                bytes: key.len() + OVERHEAD,
            }),
            TxnOp::DeleteRange { start, end } => {
                see(Touch {
                    start,
                    end: Some(end),
                    writes: true,
                    bytes: start.len() + end.len() + OVERHEAD,
                });
            }
            TxnOp::Get(key) => see(Touch {
                start: key,
                end: None,
                writes: false,
                bytes: key.len() + OVERHEAD,
            }),
            TxnOp::Txn(txn) => visit(&txn.compares, &txn.then, &txn.or_else, see),
        }
    }
}

/// etcd's count of a transaction's operations: along the nesting, the longest list of each level.
fn depth(guards: &[Compare], then: &[TxnOp], or_else: &[TxnOp]) -> usize {
    let nested = |op: &TxnOp| match op {
        TxnOp::Txn(txn) => {
            let Txn {
                compares,
                then,
                or_else,
            } = &**txn;
            depth(compares, then, or_else)
        }
        _ => 0,
    };
    let longest = guards.len().max(then.len()).max(or_else.len());
    longest + then.iter().chain(or_else).map(nested).max().unwrap_or(0)
}

fn hash(key: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(txn: Txn) -> Item {
        Item {
            guards: txn.compares,
            then: txn.then,
            context: String::new(),
        }
    }

    fn range(start: &str, end: &str) -> Item {
        Item {
            then: vec![TxnOp::DeleteRange {
                start: start.into(),
                end: end.into(),
            }],
            ..Item::default()
        }
    }

    fn meet(one: &Item, other: &Item) -> bool {
        let mut uses = Uses::default();
        uses.add(&Footprint::of(one));
        let met = uses.meets(&Footprint::of(other));
        uses.remove(&Footprint::of(one));
        assert!(uses.keys.is_empty());
        met
    }

    #[test]
    fn items_meet_where_one_of_them_writes() {
        let write = item(Txn::new().put("a", "1"));
        let guard = item(Txn::new().when(Compare::absent("a")).put("b", "1"));
        let other = item(Txn::new().when(Compare::absent("a")).put("c", "1"));
        for met in [meet, intersect] {
            assert!(met(&write, &write));
            assert!(met(&write, &guard) && met(&guard, &write));
            assert!(!met(&guard, &other), "looking at one key is no conflict");
        }
    }

    #[test]
    fn ranges_are_all_keys_in_them() {
        let point = item(Txn::new().put("b", "1"));
        assert!(intersect(&point, &range("a", "c")));
        assert!(intersect(&range("a", "b\0"), &point));
        assert!(!intersect(&point, &range("a", "b")));
        assert!(!intersect(&point, &range("c", "d")));
        assert!(intersect(&range("a", "\0"), &point));
        assert!(intersect(&range("a", "c"), &range("b", "d")));
        assert!(!intersect(&range("a", "b"), &range("b", "d")));
        let guard = |start: &str, end: &str| Item {
            guards: vec![Compare::RangeUnchangedSince {
                start: start.into(),
                end: end.into(),
                revision: 1,
            }],
            ..Item::default()
        };
        assert!(intersect(&guard("a", "c"), &point));
        assert!(!intersect(&guard("a", "c"), &guard("a", "c")));
    }

    #[test]
    fn operations_count_along_the_nesting() {
        let inner = Txn::new().put("a", "1").put("b", "1").put("c", "1");
        let nested = Item {
            guards: vec![Compare::absent("x")],
            then: vec![TxnOp::Delete("y".into()), TxnOp::Txn(Box::new(inner))],
            context: String::new(),
        };
        let footprint = Footprint::of(&nested);
        assert_eq!(footprint.depth, 5);
        assert_eq!((footprint.writes().len(), footprint.looks().len()), (4, 1));
    }
}
