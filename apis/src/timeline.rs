//! Which revision was written when. etcd keeps revisions and no times, and forgets old revisions when it is compacted;
//! so one key, `meta/clock`, holds a bounded record of samples, and documents are dated from it.
//!
//! Each value says the time of its own writing, and its revision is the key's mod revision, which no writer could know
//! beforehand. The next writer keeps it as a sample. Samples are thinned with age, so that the distance between two of
//! them, which bounds the error of what is estimated between them, stays a small part of their age.
//!
//! Writers' clocks may differ and jump: [`Timeline::curve`] reads the samples through a monotone fit, in which one
//! sample that contradicts the others moves nothing but itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::time::Timestamp;

/// The key under `meta/` that holds the record.
pub const KEY: &str = "clock";

/// How many samples a record holds; with 35 bytes each, not more than 7 kB. One sample a minute for ten years, thinned
/// to this many, stands at distances of about a tenth of their age.
pub const MAX_SAMPLES: usize = 192;

/// While documents change, whoever keeps the record adds to it at least as often as this. What was written after the
/// newest sample was therefore written within this time of it, as long as anybody keeps the record.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// The youngest age for which samples are thinned: those of the last minute are all as dear.
const YOUNG_MILLIS: i64 = 60_000;

/// How many lines of a stored value are read: enough for a record that a later version makes longer, and a bound on
/// what somebody else has put there.
const MAX_LINES: usize = 4 * MAX_SAMPLES;

/// Samples of which revision was written when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    samples: BTreeMap<i64, Timestamp>,
}

/// When a revision was written, as far as the samples tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Not before this; `None` when it is older than the oldest sample.
    pub earliest: Option<Timestamp>,
    /// Not after this; `None` when it is younger than the newest sample.
    pub latest: Option<Timestamp>,
    /// The best guess, between the two. Never decreases with the revision.
    pub time: Timestamp,
}

/// The samples as a curve that never falls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curve {
    points: Vec<(i64, Timestamp)>,
}

impl Timeline {
    /// Reads a stored record. A line that does not read is left out, and the others are kept: whatever somebody put
    /// there, a record comes out of it, and the next writer goes on with that.
    ///
    /// `mod_revision` is the key's. Samples of later revisions are of another etcd's history, and left out too.
    pub fn parse(value: &[u8], mod_revision: i64) -> Self {
        let mut timeline = Self::default();
        let text = String::from_utf8_lossy(value);
        let mut own = None;
        for line in text.lines().take(MAX_LINES) {
            let Some((key, rest)) = line.split_once(':') else {
                continue;
            };
            let time = rest.split_whitespace().next().unwrap_or_default();
            let Ok(time) = time.trim_matches(['"', '\'']).parse::<Timestamp>() else {
                continue;
            };
            match key.trim().trim_matches(['"', '\'']) {
                "time" => own = Some(time),
                revision => match revision.parse::<i64>() {
                    Ok(revision) if revision < mod_revision => timeline.insert(revision, time),
                    _ => {}
                },
            }
        }
        if let Some(time) = own {
            timeline.insert(mod_revision, time);
        }
        timeline
    }

    /// Adds a sample.
    pub fn insert(&mut self, revision: i64, time: Timestamp) {
        if revision > 0 {
            self.samples.insert(revision, time);
        }
    }

    /// Adds what is known at the time of reading: that the store was at `revision` by `now`, and that what came after
    /// the newest sample came within [`INTERVAL`] of it.
    pub fn insert_present(&mut self, revision: i64, now: Timestamp) {
        if let Some((newest, time)) = self.samples.last_key_value()
            && *newest < revision
        {
            let time = now.min(time.saturating_add(INTERVAL));
            self.insert(revision, time);
        }
    }

    /// The value to store: the samples, thinned, to the second, and the time of this writing.
    pub fn encode(&self, now: Timestamp) -> String {
        let mut kept = self.clone();
        kept.thin();
        let mut text = format!(
            "# Which revision was written when; documents are dated from it. This key's own revision was written at:\ntime: {}\n",
            now.whole_seconds()
        );
        if !kept.samples.is_empty() {
            text.push_str("samples:\n");
        }
        for (revision, time) in &kept.samples {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {revision}: {}", time.whole_seconds());
        }
        text
    }

    /// The samples as a curve that never falls: a monotone fit of least absolute error. Samples that agree with their
    /// order are kept as they are; those that do not share the median of the smallest group that makes them agree.
    pub fn curve(&self) -> Curve {
        struct Group {
            revisions: Vec<i64>,
            times: Vec<Timestamp>,
        }
        impl Group {
            fn median(&self) -> Timestamp {
                let middle = self.times.len().saturating_sub(1) / 2;
                self.times.get(middle).copied().unwrap_or_default()
            }
        }
        let mut groups: Vec<Group> = Vec::with_capacity(self.samples.len());
        for (revision, time) in &self.samples {
            let mut group = Group {
                revisions: vec![*revision],
                times: vec![*time],
            };
            while let Some(mut before) = groups.pop_if(|g| g.median() > group.median()) {
                before.revisions.append(&mut group.revisions);
                before.times.append(&mut group.times);
                before.times.sort_unstable();
                group = before;
            }
            groups.push(group);
        }
        let points = groups
            .iter()
            .flat_map(|g| g.revisions.iter().map(|r| (*r, g.median())))
            .collect();
        Curve { points }
    }

    /// Takes samples away until there are [`MAX_SAMPLES`]: each time the one whose neighbours are closest, measured by
    /// their age. The oldest and the newest stay. One at a time, so that a clock far ahead, before which everything
    /// looks old, costs one sample and not the record.
    fn thin(&mut self) {
        if self.samples.len() <= MAX_SAMPLES {
            return;
        }
        let mut points = self.curve().points;
        while points.len() > MAX_SAMPLES {
            let newest = points.last().map_or(0, |(_, t)| t.as_unix_millis());
            let cost = |three: &[(i64, Timestamp)]| {
                let [before, _, after] = three else {
                    return i128::MAX;
                };
                let (before, after) = (before.1.as_unix_millis(), after.1.as_unix_millis());
                let age = newest.saturating_sub(after).max(YOUNG_MILLIS);
                // Per million, so that small gaps of great ages still differ.
                i128::from(after.saturating_sub(before)) * 1_000_000 / i128::from(age)
            };
            let cheapest = points
                .windows(3)
                .enumerate()
                .min_by_key(|(_, three)| cost(three))
                .map_or(0, |(i, _)| i + 1);
            let (revision, _) = points.remove(cheapest);
            self.samples.remove(&revision);
        }
    }
}

impl Curve {
    /// When a revision was written; `None` when there are no samples.
    pub fn at(&self, revision: i64) -> Option<Estimate> {
        let next = self.points.partition_point(|(r, _)| *r < revision);
        let after = self.points.get(next);
        let before = match after {
            Some((r, _)) if *r == revision => after,
            _ => next.checked_sub(1).and_then(|i| self.points.get(i)),
        };
        let time = match (before, after) {
            (Some(before), Some(after)) => between(*before, *after, revision),
            (one, other) => one.or(other)?.1,
        };
        Some(Estimate {
            earliest: before.map(|(_, t)| *t),
            latest: after.map(|(_, t)| *t),
            time,
        })
    }
}

/// On the straight line between two points.
fn between((r0, t0): (i64, Timestamp), (r1, t1): (i64, Timestamp), revision: i64) -> Timestamp {
    let (t0, t1) = (t0.as_unix_millis(), t1.as_unix_millis());
    let run = i128::from(r1) - i128::from(r0);
    if run == 0 {
        return Timestamp::from_unix_millis(t0);
    }
    let rise = (i128::from(t1) - i128::from(t0)) * (i128::from(revision) - i128::from(r0)) / run;
    Timestamp::from_unix_millis(t0.saturating_add(i64::try_from(rise).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
