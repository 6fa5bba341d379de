//! Sets of numbers as a few ranges: which indexes have succeeded, which pods are counted.

use std::ops::RangeInclusive;

use setpoint_apis::batch::indexes;

/// A set of numbers that are not negative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Vec<RangeInclusive<i32>>);

impl Numbers {
    /// The set that a status writes as `0,2-4`.
    ///
    /// # Errors
    /// What is wrong with the text, to be read after it.
    pub fn parse(text: &str) -> Result<Self, String> {
        indexes::parse(text).map(Self)
    }

    /// The set as a status writes it.
    pub fn text(&self) -> String {
        indexes::format_ranges(self.ranges())
    }

    /// How many there are.
    pub fn count(&self) -> i32 {
        i32::try_from(indexes::count(&self.0)).unwrap_or(i32::MAX)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The greatest.
    pub fn last(&self) -> Option<i32> {
        self.0.last().map(|r| *r.end())
    }

    /// Whether it is in the set.
    pub fn contains(&self, number: i32) -> bool {
        let after = self.0.partition_point(|r| *r.end() < number);
        self.0.get(after).is_some_and(|r| r.contains(&number))
    }

    /// Those that are less than `limit`.
    #[must_use]
    pub fn below(mut self, limit: i32) -> Self {
        self.0.retain(|r| *r.start() < limit);
        if let Some(last) = self.0.last_mut()
            && *last.end() >= limit
        {
            *last = *last.start()..=limit - 1;
        }
        self
    }

    /// Both sets in one.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = RangeInclusive<i32>>) -> Self {
        self.0.extend(more);
        self.0.sort_by_key(|r| *r.start());
        let mut merged: Vec<RangeInclusive<i32>> = Vec::with_capacity(self.0.len());
        for range in self.0 {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The set and some numbers more.
    #[must_use]
    pub fn with_each(self, more: impl IntoIterator<Item = i32>) -> Self {
        self.with(more.into_iter().map(|n| n..=n))
    }

    /// The ranges.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<i32>> + '_ {
        self.0.iter().cloned()
    }

    /// The numbers less than `limit` that are not in the set, in rising order.
    pub fn missing(&self, limit: i32) -> impl Iterator<Item = i32> + '_ {
        let starts = std::iter::once(0).chain(self.0.iter().map(|r| r.end().saturating_add(1)));
        let ends = self.0.iter().map(|r| *r.start()).chain([limit]);
        starts
            .zip(ends)
            .flat_map(move |(start, end)| start..end.min(limit))
    }

    /// How many are in both sets.
    pub fn shared(&self, other: &[RangeInclusive<i32>]) -> i64 {
        let (mut a, mut b) = (self.0.iter().peekable(), other.iter().peekable());
        let mut shared = 0;
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let (first, last) = (*x.start().max(y.start()), *x.end().min(y.end()));
            if first <= last {
                shared += i64::from(last) - i64::from(first) + 1;
            }
            if x.end() < y.end() {
                a.next();
            } else {
                b.next();
            }
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Numbers {
        Numbers::parse(text).unwrap()
    }

    #[test]
    fn a_set_is_what_was_put_into_it() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut plain = std::collections::BTreeSet::new();
            let mut ranges = Numbers::default();
            for _ in 0..rng.usize(0..5) {
                let some: Vec<i32> = (0..rng.usize(0..9)).map(|_| rng.i32(0..30)).collect();
                plain.extend(some.iter().copied());
                ranges = ranges.with_each(some);
            }
            assert_eq!(ranges.text(), indexes::format(plain.iter().copied()));
            assert_eq!(set(&ranges.text()), ranges);
            assert_eq!(ranges.count() as usize, plain.len());
            assert_eq!(ranges.last(), plain.last().copied());
            for n in 0..32 {
                assert_eq!(ranges.contains(n), plain.contains(&n), "{n} of {ranges:?}");
                let below = plain.range(..n).copied();
                assert_eq!(ranges.clone().below(n).text(), indexes::format(below));
                let missing: Vec<i32> = (0..n).filter(|m| !plain.contains(m)).collect();
                assert_eq!(ranges.missing(n).collect::<Vec<_>>(), missing);
            }
        }
    }

    #[test]
    fn a_wide_range_is_written_and_counted_as_one() {
        // Number by number this would take minutes.
        let all = set("0-2147483647");
        assert_eq!(all.text(), "0-2147483647");
        assert_eq!((all.count(), all.last()), (i32::MAX, Some(i32::MAX)));
        assert_eq!(all.clone().below(3).text(), "0-2");
        assert_eq!(all.missing(i32::MAX).next(), None);
        assert_eq!(all.clone().with_each([5]), all);
    }

    #[test]
    fn what_two_sets_share_is_counted() {
        for (a, b, shared) in [
            ("0-9", "2-4,8-12", 5),
            ("", "0-3", 0),
            ("1,3,5", "0-9", 3),
            ("0,2", "1,3", 0),
        ] {
            let other: Vec<_> = set(b).ranges().collect();
            assert_eq!(set(a).shared(&other), shared, "{a} and {b}");
        }
    }
}
