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
        drift_ppm: i32,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `base` now and moves with tokio's, so that paused tokio time moves both.
    pub fn starting_at(base: Timestamp) -> Self {
        Self::drifting(base, 0)
    }

    /// As [`Clock::starting_at`], of a clock that gains so many millionths on tokio's time, or loses them.
    pub fn drifting(base: Timestamp, drift_ppm: i32) -> Self {
        Self(Source::Virtual {
            base_unix_millis: base.as_unix_millis(),
            start: Instant::now(),
            drift_ppm,
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
                drift_ppm,
            } => {
                let elapsed = millis(start.elapsed());
                base_unix_millis.saturating_add(drifted(elapsed, *drift_ppm))
            }
        }
    }
}

/// What a clock that gains so many millionths shows when so many milliseconds have passed.
pub fn drifted(millis: i64, ppm: i32) -> i64 {
    let gained = i128::from(millis) * i128::from(ppm) / 1_000_000;
    millis.saturating_add(i64::try_from(gained).unwrap_or_default())
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_drifts_gains_or_loses_its_share() {
        let base = Timestamp::from_unix_millis(1_000_000);
        let clocks = [0, 1_000, -1_000].map(|ppm| Clock::drifting(base, ppm));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(
            clocks.map(|clock| clock.now().as_unix_millis()),
            [1_100_000, 1_100_100, 1_099_900]
        );
    }
}
