//! Points in time as documents write them. This crate never asks the clock: whoever needs `now` hands it in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, with millisecond precision, written as RFC 3339 in UTC.
///
/// Whole seconds are written as Kubernetes writes them (`2026-11-23T15:25:03Z`); a part of a second, when there is one,
/// as three digits, so what is written is read back equal. [`Timestamp::whole_seconds`] takes it off.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    millis: i64,
}

/// A point in time, with microsecond precision, written with exactly six digits as Kubernetes' `MicroTime` wants it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroTime {
    micros: i64,
}

/// A text that is no point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time such as 2026-11-23T15:25:03Z")]
pub struct BadTimestamp(pub String);

/// The first and the last millisecond that can be written: years -9999 to 9999, a day less at both ends.
const MILLIS: std::ops::RangeInclusive<i64> = -377_705_000_000_000..=253_402_200_000_000;

impl Timestamp {
    /// The beginning of Unix time.
    pub const EPOCH: Self = Self { millis: 0 };

    /// The time so many milliseconds after the beginning of Unix time; out of range (year 9999) saturates.
    pub fn from_unix_millis(millis: i64) -> Self {
        Self {
            millis: millis.clamp(*MILLIS.start(), *MILLIS.end()),
        }
    }

    /// The time so many seconds after the beginning of Unix time; out of range saturates.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the beginning of Unix time.
    pub fn as_unix_millis(self) -> i64 {
        self.millis
    }

    /// Seconds since the beginning of Unix time, rounded down.
    pub fn as_unix_seconds(self) -> i64 {
        self.millis.div_euclid(1000)
    }

    /// The same without the part of a second, as Kubernetes keeps it.
    #[must_use]
    pub fn whole_seconds(self) -> Self {
        Self {
            millis: self.as_unix_seconds() * 1000,
        }
    }

    /// How much later this is than `earlier`; zero when it is not later.
    pub fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(
            self.millis
                .saturating_sub(earlier.millis)
                .max(0)
                .unsigned_abs(),
        )
    }

    /// This much later; out of range saturates.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_millis(self.millis.saturating_add(millis))
    }

    /// This much earlier; out of range saturates.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_millis(self.millis.saturating_sub(millis))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(t: jiff::Timestamp) -> Self {
        Self::from_unix_millis(t.as_millisecond())
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(t: Timestamp) -> Self {
        Self::from_millisecond(t.millis).unwrap_or_default()
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(t: std::time::SystemTime) -> Self {
        match t.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self::EPOCH.saturating_add(after),
            Err(before) => Self::EPOCH.saturating_sub(before.duration()),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.millis % 1000 == 0 { 0 } else { 3 };
        write!(f, "{:.*}", digits, jiff::Timestamp::from(*self))
    }
}

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(s: &str) -> Result<Self, BadTimestamp> {
        s.parse::<jiff::Timestamp>()
            .map(Self::from)
            .map_err(|_| BadTimestamp(s.into()))
    }
}

impl MicroTime {
    /// The time so many microseconds after the beginning of Unix time; out of range saturates.
    pub fn from_unix_micros(micros: i64) -> Self {
        Self {
            micros: micros.clamp(MILLIS.start() * 1000, MILLIS.end() * 1000),
        }
    }

    /// Microseconds since the beginning of Unix time.
    pub fn as_unix_micros(self) -> i64 {
        self.micros
    }
}

impl From<Timestamp> for MicroTime {
    fn from(t: Timestamp) -> Self {
        Self {
            micros: t.millis * 1000,
        }
    }
}

impl From<MicroTime> for Timestamp {
    fn from(t: MicroTime) -> Self {
        Self {
            millis: t.micros.div_euclid(1000),
        }
    }
}

impl fmt::Display for MicroTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.6}",
            jiff::Timestamp::from_microsecond(self.micros).unwrap_or_default()
        )
    }
}

impl FromStr for MicroTime {
    type Err = BadTimestamp;

    fn from_str(s: &str) -> Result<Self, BadTimestamp> {
        let t: jiff::Timestamp = s.parse().map_err(|_| BadTimestamp(s.into()))?;
        Ok(Self::from_unix_micros(t.as_microsecond()))
    }
}

macro_rules! text_time {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct V;
                impl de::Visitor<'_> for V {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a time such as 2026-11-23T15:25:03Z")
                    }
                    fn visit_str<E: de::Error>(self, v: &str) -> Result<$name, E> {
                        v.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(V)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": "date-time" })
            }
        }
    };
}
text_time!(Timestamp);
text_time!(MicroTime);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_written_as_kubernetes_writes_them() {
        let t: Timestamp = "2026-11-23T15:25:03Z".parse().unwrap();
        assert_eq!(t.to_string(), "2026-11-23T15:25:03Z");
        assert_eq!(t.as_unix_millis() % 1000, 0);
        assert_eq!("2026-11-23T16:25:03+01:00".parse::<Timestamp>().unwrap(), t);
    }

    #[test]
    fn what_is_written_is_read_back_equal() {
        for millis in [0, 1, 999, 1_700_000_000_123, -1, i64::MAX, i64::MIN] {
            let t = Timestamp::from_unix_millis(millis);
            assert_eq!(t.to_string().parse::<Timestamp>().unwrap(), t, "{t}");
            let m = MicroTime::from_unix_micros(millis);
            assert_eq!(m.to_string().parse::<MicroTime>().unwrap(), m, "{m}");
        }
        assert_eq!(
            Timestamp::from_unix_millis(1_500).to_string(),
            "1970-01-01T00:00:01.500Z"
        );
        assert_eq!(
            MicroTime::from_unix_micros(1).to_string(),
            "1970-01-01T00:00:00.000001Z"
        );
    }

    #[test]
    fn durations_do_not_go_below_zero() {
        let (a, b) = (
            Timestamp::from_unix_seconds(5),
            Timestamp::from_unix_seconds(7),
        );
        assert_eq!(b.duration_since(a), Duration::from_secs(2));
        assert_eq!(a.duration_since(b), Duration::ZERO);
        assert_eq!(a + Duration::from_secs(2), b);
    }
}
