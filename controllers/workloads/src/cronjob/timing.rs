//! Which time of a schedule is due: pure arithmetic.

use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::cron::{Schedule, TimeZone};

/// Beyond so many missed times something is wrong: a clock, or a long outage.
pub const MANY: usize = 100;

/// A time whose Job is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The latest one.
    pub at: Timestamp,
    /// Whether more than [`MANY`] times went by.
    pub many_missed: bool,
}

/// The latest time of the schedule after `after` and not after `now`. Earlier ones have been missed, and stay so.
pub fn due(schedule: &Schedule, zone: &TimeZone, after: Timestamp, now: Timestamp) -> Option<Due> {
    let next = |after| schedule.next_after(after, zone).filter(|t| *t <= now);
    let first = next(after)?;
    // There is nothing between `high` and now; `at` is a time of the schedule.
    let (mut at, mut high) = (first, now);
    while at < high {
        let half = high.duration_since(at).as_millis() / 2;
        let half = Duration::from_millis(u64::try_from(half).unwrap_or(u64::MAX));
        let middle = at.saturating_add(half);
        match next(middle) {
            Some(later) => at = later,
            None if middle < high => high = middle,
            None => break,
        }
    }
    let times = std::iter::successors(Some(first), |t| next(*t));
    Some(Due {
        at,
        many_missed: times.take(MANY + 1).count() > MANY,
    })
}

#[cfg(test)]
mod tests {
    use setpoint_apis::cron;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_latest_of_the_missed_times_is_due_however_many_there_are() {
        let utc = TimeZone::UTC;
        for (schedule, after, now, latest, many) in [
            (
                "0 * * * *",
                "2026-01-01T10:00:00Z",
                "2026-01-01T10:59:59Z",
                None,
                false,
            ),
            (
                "0 * * * *",
                "2026-01-01T10:00:00Z",
                "2026-01-01T11:00:00Z",
                Some("2026-01-01T11:00:00Z"),
                false,
            ),
            (
                "0 * * * *",
                "2026-01-01T10:30:00Z",
                "2026-01-05T15:00:00Z",
                Some("2026-01-05T15:00:00Z"),
                true,
            ),
            (
                "0 * * * *",
                "2026-01-01T10:30:00Z",
                "2026-01-01T15:10:00Z",
                Some("2026-01-01T15:00:00Z"),
                false,
            ),
            (
                "*/5 * * * *",
                "2016-01-01T00:00:00Z",
                "2026-01-01T00:04:59.999Z",
                Some("2026-01-01T00:00:00Z"),
                true,
            ),
            // Many in a month, then none for eleven.
            (
                "* * * 2 *",
                "2020-01-01T00:00:00Z",
                "2026-01-15T00:00:00Z",
                Some("2025-02-28T23:59:00Z"),
                true,
            ),
            (
                "0 0 29 2 *",
                "2021-01-01T00:00:00Z",
                "2026-01-15T00:00:00Z",
                Some("2024-02-29T00:00:00Z"),
                false,
            ),
            // A time that has just come is not over.
            (
                "0 0 1 1 *",
                "2025-06-01T00:00:00Z",
                "2026-01-01T00:00:00Z",
                Some("2026-01-01T00:00:00Z"),
                false,
            ),
        ] {
            let schedule: Schedule = schedule.parse().unwrap();
            let found = due(&schedule, &utc, at(after), at(now));
            let expected = latest.map(|t| Due {
                at: at(t),
                many_missed: many,
            });
            assert_eq!(found, expected, "{schedule} from {after} to {now}");
        }
    }

    #[test]
    fn the_search_finds_what_going_through_all_times_finds() {
        let mut rng = fastrand::Rng::with_seed(5);
        let zone = cron::time_zone(Some("Europe/Berlin")).unwrap();
        for schedule in [
            "30 2 * * *",
            "*/20 * * * *",
            "0 9-17/4 * * 1-5",
            "15 3 31 * *",
        ] {
            let schedule: Schedule = schedule.parse().unwrap();
            for _ in 0..20 {
                let after = at("2026-03-20T00:00:00Z")
                    .saturating_add(Duration::from_secs(rng.u64(0..900_000)));
                let now = after.saturating_add(Duration::from_secs(rng.u64(0..1_500_000)));
                let times = std::iter::successors(Some(after), |t| schedule.next_after(*t, &zone));
                let last = times.skip(1).take_while(|t| *t <= now).last();
                let found = due(&schedule, &zone, after, now).map(|d| d.at);
                assert_eq!(found, last, "{schedule} from {after} to {now}");
            }
        }
    }
}
