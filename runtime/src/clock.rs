//! Where wall time enters the system. Decisions get a timestamp as an argument; shells take it from a [`Clock`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use setpoint_apis::time::Timestamp;
use tokio::time::Instant;

/// A source of wall time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Virtual {
        base_unix_millis: i64,
        start: Instant,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `base` now and moves with tokio's, so that paused tokio time moves both.
    pub fn starting_at(base: Timestamp) -> Self {
        Self(Source::Virtual {
            base_unix_millis: base.as_unix_millis(),
            start: Instant::now(),
        })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.unix_millis())
    }

    fn unix_millis(&self) -> i64 {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match &self.0 {
            Source::System => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "this is the one place that reads the machine's clock"
                )]
                let now = SystemTime::now();
                now.duration_since(UNIX_EPOCH)
                    .map_or_else(|e| -millis(e.duration()), millis)
            }
            Source::Virtual {
                base_unix_millis,
                start,
            } => base_unix_millis.saturating_add(millis(start.elapsed())),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}
