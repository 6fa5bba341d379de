//! What waits, what is under way, and what goes next. Synchronous, and free of IO.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::footprint::{Footprint, Uses, intersect};
use super::{Item, ItemOutcome, Options};

/// While fewer items than this are under way, the next one goes at once: so few cost etcd little, and whoever writes now
/// and then waits for nobody.
const FEW: usize = 4;

/// How many times the items under way have to be waiting before another transaction joins them.
const GATHER: usize = 2;

/// How many items may be passed over in search of one that can go. Bounds the work when everybody wants one key.
const MAX_PASSED_OVER: usize = 512;

/// A submitted item.
pub(super) struct Entry {
    pub(super) item: Item,
    pub(super) footprint: Footprint,
    /// Bytes of room it holds while it waits.
    pub(super) cost: u32,
    pub(super) reply: oneshot::Sender<ItemOutcome>,
}

/// Items that go together.
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    footprints: Vec<Footprint>,
}

/// A batch, and who waits for its outcomes.
pub(super) struct Taken {
    pub(super) batch: Arc<Batch>,
    pub(super) replies: Vec<oneshot::Sender<ItemOutcome>>,
    /// The room that its items held.
    pub(super) cost: usize,
}

/// Counters of a [`GroupCommit`](super::GroupCommit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items that were sent.
    pub items: u64,
    /// Transactions that they were sent in, attempts alone not counted.
    pub batches: u64,
    /// How often an item was passed over because one before it touches the same key.
    pub deferred: u64,
    /// Items that were tried again alone, because their whole transaction was refused.
    pub alone: u64,
    /// Items that wait now.
    pub queued: usize,
    /// Transactions that are under way now.
    pub in_flight: usize,
}

/// What waits and what is under way.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Entry>,
    in_flight: Vec<Arc<Batch>>,
    items_in_flight: usize,
    /// Single keys of what is under way.
    held: Uses,
    stats: Stats,
}

impl Queue {
    pub(super) fn push(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.waiting.extend(entries);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            queued: self.waiting.len(),
            in_flight: self.in_flight.len(),
            ..self.stats
        }
    }

    pub(super) fn count_alone(&mut self, items: usize) {
        self.stats.alone += items as u64;
    }

    /// Forgets a batch whose outcome is there.
    pub(super) fn finish(&mut self, batch: &Arc<Batch>) {
        if let Some(at) = self
            .in_flight
            .iter()
            .position(|known| Arc::ptr_eq(known, batch))
        {
            self.in_flight.swap_remove(at);
            self.items_in_flight -= batch.items.len();
            for footprint in &batch.footprints {
                self.held.remove(footprint);
            }
        }
    }

    /// The next batch, if one may and can go now.
    pub(super) fn take(&mut self, options: &Options) -> Option<Taken> {
        if !self.may_start(options) {
            return None;
        }
        let mut taken = Vec::new();
        let mut passed_over: Vec<Entry> = Vec::new();
        // Keys of everything that is ahead: taken, or passed over and to go first.
        let mut ahead = Uses::default();
        let mut ahead_ranged = self
            .in_flight
            .iter()
            .any(|batch| batch.footprints.iter().any(|f| f.ranged));
        let (mut bytes, mut depth) = (0, 0);
        while let Some(entry) = self.waiting.front() {
            let footprint = &entry.footprint;
            let must_wait = self.held.meets(footprint)
                || ahead.meets(footprint)
                || ((ahead_ranged || footprint.ranged)
                    && self.ranges_meet(&entry.item, taken.iter().chain(&passed_over)));
            if !must_wait && !taken.is_empty() {
                let fits = taken.len() < options.max_items
                    && taken.len() + 1 + depth.max(footprint.depth) <= options.max_ops
                    && bytes + footprint.bytes <= options.max_bytes;
                if !fits {
                    break;
                }
            }
            ahead.add(footprint);
            ahead_ranged |= footprint.ranged;
            if must_wait {
                self.stats.deferred += 1;
                passed_over.extend(self.waiting.pop_front());
                if passed_over.len() >= MAX_PASSED_OVER {
                    break;
                }
            } else {
                bytes += footprint.bytes;
                depth = depth.max(footprint.depth);
                taken.extend(self.waiting.pop_front());
            }
        }
        for entry in passed_over.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        (!taken.is_empty()).then(|| self.send_off(taken))
    }

    /// On an idle line at once. While transactions are under way another one pays when it is full, or much bigger than
    /// all of those together: a few big ones cost etcd less than many small ones, and items that come back after a big
    /// one gather to a big one again, rather than each going off alone. (With 64 items in flight on etcd 3.6, half as
    /// big gave 0.65 of the best loop of fixed batches, as big 0.75, twice as big 0.9 and never 1.0; `bench store`.)
    fn may_start(&self, options: &Options) -> bool {
        let (waiting, in_flight) = (self.waiting.len(), self.in_flight.len());
        waiting > 0
            && (in_flight == 0
                || (in_flight < options.max_in_flight
                    && (waiting >= options.max_items
                        || self.items_in_flight < FEW
                        || waiting >= self.items_in_flight * GATHER)))
    }

    fn ranges_meet<'a>(&self, item: &Item, mut ahead: impl Iterator<Item = &'a Entry>) -> bool {
        self.in_flight
            .iter()
            .flat_map(|batch| &batch.items)
            .any(|other| intersect(other, item))
            || ahead.any(|entry| intersect(&entry.item, item))
    }

    fn send_off(&mut self, entries: Vec<Entry>) -> Taken {
        let count = entries.len();
        let mut batch = Batch {
            items: Vec::with_capacity(count),
            footprints: Vec::with_capacity(count),
        };
        let mut replies = Vec::with_capacity(count);
        let mut cost = 0;
        for entry in entries {
            self.held.add(&entry.footprint);
            cost += entry.cost as usize;
            batch.items.push(entry.item);
            batch.footprints.push(entry.footprint);
            replies.push(entry.reply);
        }
        let batch = Arc::new(batch);
        self.in_flight.push(Arc::clone(&batch));
        self.items_in_flight += count;
        self.stats.items += count as u64;
        self.stats.batches += 1;
        Taken {
            batch,
            replies,
            cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Compare, Txn, TxnOp};

    fn entry(item: Item) -> Entry {
        let (reply, _) = oneshot::channel();
        Entry {
            footprint: Footprint::of(&item),
            cost: 1,
            reply,
            item,
        }
    }

    fn put(key: &str) -> Item {
        let txn = Txn::new().when(Compare::absent("epoch")).put(key, "v");
        Item {
            guards: txn.compares,
            then: txn.then,
            context: key.to_owned(),
        }
    }

    fn names(taken: &Taken) -> Vec<&str> {
        taken
            .batch
            .items
            .iter()
            .map(|item| item.context.as_str())
            .collect()
    }

    /// A queue with the line busy, so that what is pushed gathers.
    fn queue(items: impl IntoIterator<Item = Item>) -> Queue {
        let mut queue = Queue::default();
        queue.push(items.into_iter().map(entry));
        queue
    }

    #[test]
    fn an_item_that_meets_one_ahead_waits_and_keeps_its_place() {
        let options = Options::default();
        let mut queue = queue(["a", "b", "a", "c"].map(put));
        let first = queue.take(&options).unwrap();
        assert_eq!(names(&first), ["a", "b", "c"]);
        assert!(
            queue.take(&options).is_none(),
            "the second a waits for the first"
        );
        queue.push([entry(put("a")), entry(put("d"))]);
        let second = queue.take(&options).unwrap();
        assert_eq!(names(&second), ["d"]);
        queue.finish(&first.batch);
        let third = queue.take(&options).unwrap();
        assert_eq!(names(&third), ["a"], "and the third for the second");
        assert!(queue.take(&options).is_none());
        queue.finish(&third.batch);
        assert_eq!(names(&queue.take(&options).unwrap()), ["a"]);
    }

    #[test]
    fn an_item_behind_a_waiting_one_with_a_common_key_waits_too() {
        let both = Item {
            then: vec![TxnOp::Delete("a".into()), TxnOp::Delete("b".into())],
            context: "ab".into(),
            ..Item::default()
        };
        let mut queue = queue([put("a"), both, put("b"), put("c")]);
        let first = queue.take(&Options::default()).unwrap();
        assert_eq!(names(&first), ["a", "c"], "b must not overtake ab");
    }

    #[test]
    fn guards_on_a_written_key_wait_in_both_directions() {
        let guarded = |context: &str| Item {
            guards: vec![Compare::absent("a")],
            then: vec![TxnOp::Delete(format!("{context}-result"))],
            context: context.into(),
        };
        let mut queue = queue([guarded("before"), put("a"), guarded("after")]);
        let options = Options::default();
        for expected in ["before", "a", "after"] {
            let taken = queue.take(&options).unwrap();
            assert_eq!(names(&taken), [expected]);
            queue.finish(&taken.batch);
        }
        assert!(queue.is_idle());
    }

    #[test]
    fn ranges_wait_for_the_keys_in_them() {
        let range = Item {
            then: vec![TxnOp::DeleteRange {
                start: "a".into(),
                end: "c".into(),
            }],
            context: "range".into(),
            ..Item::default()
        };
        let mut queue = queue([put("b"), range, put("d"), put("bb")]);
        let options = Options::default();
        let first = queue.take(&options).unwrap();
        assert_eq!(names(&first), ["b", "d"]);
        queue.finish(&first.batch);
        let second = queue.take(&options).unwrap();
        assert_eq!(names(&second), ["range"]);
        queue.finish(&second.batch);
        assert_eq!(names(&queue.take(&options).unwrap()), ["bb"]);
    }

    #[test]
    fn a_batch_ends_at_each_of_its_limits() {
        let many = || (0..300).map(|n| put(&format!("k{n}")));
        let take = |options: &Options| names(&queue(many()).take(options).unwrap()).len();
        assert_eq!(take(&Options::default()), 120);
        assert_eq!(
            take(&Options {
                max_items: 1000,
                ..Options::default()
            }),
            127,
            "and one for what is within an item"
        );
        let one = Footprint::of(&put("k1")).bytes;
        assert_eq!(
            take(&Options {
                max_bytes: one * 5,
                ..Options::default()
            }),
            5
        );
        assert_eq!(
            take(&Options {
                max_bytes: 1,
                ..Options::default()
            }),
            1,
            "an item that is too big goes alone"
        );
    }

    #[test]
    fn a_deep_item_makes_room_for_itself() {
        let deep = Item {
            then: (0..100)
                .map(|n| TxnOp::Delete(format!("deep{n}")))
                .collect(),
            context: "deep".into(),
            ..Item::default()
        };
        let mut queue = queue((0..50).map(|n| put(&format!("k{n}"))).chain([deep]));
        let first = queue.take(&Options::default()).unwrap();
        assert_eq!(names(&first).len(), 50);
        queue.finish(&first.batch);
        assert_eq!(names(&queue.take(&Options::default()).unwrap()), ["deep"]);
    }

    #[test]
    fn small_batches_wait_while_big_ones_are_under_way() {
        let options = Options::default();
        let mut queue = queue((0..40).map(|n| put(&format!("k{n}"))));
        let big = queue.take(&options).unwrap();
        queue.push((0..79).map(|n| entry(put(&format!("l{n}")))));
        assert!(queue.take(&options).is_none());
        queue.push([entry(put("m"))]);
        assert_eq!(names(&queue.take(&options).unwrap()).len(), 80);
        queue.push((0..119).map(|n| entry(put(&format!("n{n}")))));
        assert!(queue.take(&options).is_none());
        queue.push([entry(put("o"))]);
        assert_eq!(
            names(&queue.take(&options).unwrap()).len(),
            120,
            "a full one"
        );
        queue.push([entry(put("p"))]);
        queue.finish(&big.batch);
        assert!(queue.take(&options).is_none());
    }

    #[test]
    fn a_few_items_wait_for_nobody() {
        let options = Options::default();
        let mut queue = Queue::default();
        for n in 0..4 {
            queue.push([entry(put(&format!("k{n}")))]);
            assert!(queue.take(&options).is_some(), "item {n}");
        }
        queue.push([entry(put("k4"))]);
        assert!(queue.take(&options).is_none());
    }
}
