//! Schedules of CronJobs: five fields, read as Kubernetes reads them, and when they fire next.
//!
//! # Syntax
//! `minute hour day-of-month month day-of-week`. A field is a list (`,`) of `*` or `?`, a number, a range (`1-5`), each
//! with a step if need be (`*/15`, `8-18/2`; `5/10` is `5-59/10`). Months are `1`-`12` or `jan`-`dec`, days of the week
//! `0`-`6` or `sun`-`sat`. `@yearly` (`@annually`), `@monthly`, `@weekly`, `@daily` (`@midnight`) and `@hourly` stand for
//! what they say. When both days are restricted, one that fits is enough, as in cron; a day field that says `*` or `?`
//! restricts nothing. A step makes a restriction of a star: `*/2` as the day of the month is every odd day.
//!
//! # When clocks are changed
//! A schedule whose hours are particular ones (`30 2 * * *`, `0 9-17 * * *`) runs once for each of its times, whatever
//! happens to the clock: a time that a change skips runs at the first moment after the gap (several such times of one
//! gap run together, once), and of a time that comes twice the first counts. This is what Vixie's cron does. Kubernetes
//! leaves out what a change skips, and runs twice what comes twice; a backup that is not made or a bill that is sent
//! twice are the worse surprise.
//!
//! A schedule of every hour (`15 * * * *`, `*/10 */2 * * *`: the hour begins with a star) follows the time that passes,
//! as in Kubernetes: it runs in both hours that are called the same, and does not run in one that does not exist.

mod field;

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::AmbiguousOffset;
pub use jiff::tz::TimeZone;

use crate::time::Timestamp;
use field::{DAY_OF_MONTH, DAY_OF_WEEK, Field, HOUR, MINUTE, MONTH};

/// The 29th of February is at most so many years away.
const YEARS: i16 = 8;

/// Why a schedule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// It is not five fields.
    #[error(
        "{0:?} has {1} fields, not five: minute, hour, day of the month, month, day of the week"
    )]
    Fields(String, usize),
    /// A field is wrong.
    #[error("the {field}, {text:?}, {problem}")]
    Field {
        /// Which one: `minute`, ...
        field: &'static str,
        /// What it says.
        text: String,
        /// What is wrong, to be read after it.
        problem: String,
    },
    /// It begins with `@`, and with none of the words that there are.
    #[error(
        "{0:?} is not one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly; \
         for every so many minutes there is `*/5 * * * *`"
    )]
    Word(String),
    /// It says a time zone, which has a field of its own.
    #[error("{0:?} says a time zone; that belongs into the field timeZone")]
    TimeZone(String),
    /// No day ever fits.
    #[error("{0:?} never fires: none of its months has such a day")]
    Never(String),
}

/// Why a time zone cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time zone such as Europe/Berlin or UTC")]
pub struct BadTimeZone(pub String);

/// The time zone of a CronJob; UTC when it names none.
///
/// # Errors
/// When there is no such time zone. `Local` is none: it would mean something else on every machine.
pub fn time_zone(name: Option<&str>) -> Result<TimeZone, BadTimeZone> {
    let Some(name) = name else {
        return Ok(TimeZone::UTC);
    };
    let bad = || BadTimeZone(name.into());
    if name.eq_ignore_ascii_case("local") {
        return Err(bad());
    }
    TimeZone::get(name).map_err(|_| bad())
}

/// A time as the clocks of a time zone show it, with their distance from UTC: `2026-03-29T03:30:00+02:00`.
pub fn local_time(at: Timestamp, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from(at);
    let offset = zone.to_offset(at);
    if offset.is_zero() {
        at.to_string()
    } else {
        at.display_with_offset(offset).to_string()
    }
}

/// Times of the clock that come again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

impl Schedule {
    /// The schedule of a text.
    ///
    /// # Errors
    /// When it is no schedule, or one that never fires.
    pub fn parse(text: &str) -> Result<Self, BadSchedule> {
        let trimmed = text.trim();
        if trimmed.starts_with("TZ=") || trimmed.starts_with("CRON_TZ=") {
            return Err(BadSchedule::TimeZone(text.into()));
        }
        let expanded = match trimmed {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            word if word.starts_with('@') => return Err(BadSchedule::Word(text.into())),
            fields => fields,
        };
        let parts: Vec<&str> = expanded.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(BadSchedule::Fields(text.into(), parts.len()));
        };
        let schedule = Self {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY_OF_MONTH.parse(day)?,
            months: MONTH.parse(month)?,
            weekdays: DAY_OF_WEEK.parse(weekday)?,
        };
        if schedule.fires() {
            Ok(schedule)
        } else {
            Err(BadSchedule::Never(text.into()))
        }
    }

    /// Whether some day fits: only the 30th and 31st (and the 29th) of months that are too short could keep it from that.
    fn fires(&self) -> bool {
        let longest = |month: i8| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        !self.weekdays.any
            || (1..=12)
                .filter(|m| self.months.has(*m))
                .any(|m| (1..=longest(m)).any(|d| self.days.has(d)))
    }

    fn fits(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let days = if self.days.any || self.weekdays.any {
            // The one that restricts nothing always fits.
            day && weekday
        } else {
            day || weekday
        };
        days && self.months.has(date.month())
    }

    /// The first time of the clock that fits, from `from` on.
    fn civil(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let last_year = date.year().saturating_add(YEARS);
        let mut earliest = from.time();
        while date.year() <= last_year {
            if !self.months.has(date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else {
                if self.fits(date)
                    && let Some(time) = self.time(earliest)
                {
                    return Some(date.to_datetime(time));
                }
                date = date.tomorrow().ok()?;
            }
            earliest = Time::midnight();
        }
        None
    }

    /// The first time of a day that fits, from `from` on. Times have no seconds.
    fn time(&self, from: Time) -> Option<Time> {
        let (hour, mut minute) = (from.hour(), from.minute());
        if from.second() > 0 || from.subsec_nanosecond() > 0 {
            minute += 1;
        }
        (hour..24).filter(|h| self.hours.has(*h)).find_map(|h| {
            let first = if h == hour { minute } else { 0 };
            let m = (first..60).find(|m| self.minutes.has(*m))?;
            Some(Time::constant(h, m, 0, 0))
        })
    }

    /// The first time after `after` at which it fires. `None` only at the end of the calendar, which is far away.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let from = jiff::Timestamp::from(after);
        let next = if self.hours.starred {
            self.next_elapsed(from, zone)
        } else {
            self.next_of_clock(from, zone)
        };
        // Ours end a moment before jiff's.
        next.map(Timestamp::from).filter(|next| *next > after)
    }

    /// Each time of the clock once.
    fn next_of_clock(&self, after: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        // Later times of the clock never come earlier: of two that are called the same the first counts, and those
        // that are skipped come when the gap ends. So nothing before the clock of `after` is missed.
        let mut from = zone.to_datetime(after);
        loop {
            let civil = self.civil(from)?;
            let ambiguous = zone.to_ambiguous_timestamp(civil);
            let at = match ambiguous.offset() {
                AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok()?,
                AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok()?,
                AmbiguousOffset::Gap { after: later, .. } => {
                    // With the offset of afterwards it is a moment before the gap.
                    let before = later.to_timestamp(civil).ok()?;
                    zone.following(before).next()?.timestamp()
                }
            };
            if at > after {
                return Some(at);
            }
            from = civil.checked_add(jiff::SignedDuration::from_mins(1)).ok()?;
        }
    }

    /// Each time of the clock as often as it comes.
    fn next_elapsed(&self, after: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        let mut start = after
            .checked_add(jiff::SignedDuration::from_nanos(1))
            .ok()?;
        loop {
            let offset = zone.to_offset(start);
            let end = zone.following(start).next().map(|t| t.timestamp());
            let civil = self.civil(offset.to_datetime(start));
            let at = civil.and_then(|c| offset.to_timestamp(c).ok());
            match (at, end) {
                (Some(at), None) => return Some(at),
                (Some(at), Some(end)) if at < end => return Some(at),
                (_, Some(end)) => start = end,
                (None, None) => return None,
            }
        }
    }
}

impl std::str::FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(s: &str) -> Result<Self, BadSchedule> {
        Self::parse(s)
    }
}

impl fmt::Display for Schedule {
    /// The five fields, with everything written out: not what was read, and of the same meaning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {}",
            self.minutes, self.hours, self.days, self.months, self.weekdays
        )
    }
}

#[cfg(test)]
mod tests;
