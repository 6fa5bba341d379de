//! Exponential backoff with seeded jitter.

use std::time::Duration;

/// How long to wait after failures: `base * 2^n`, at most `max`, less up to a quarter of it at random so that many
/// failing at once do not come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Backoff {
    /// A backoff from `base` to `max`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max }
    }

    /// The wait after the `failures`-th failure in a row, counted from 1.
    pub fn delay(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let exponent = failures.saturating_sub(1).min(30);
        let full = self.base.saturating_mul(1 << exponent).min(self.max);
        full.mul_f64(1.0 - rng.f64() / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_keep_three_quarters() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut rng = fastrand::Rng::with_seed(1);
        for (failures, full) in [
            (1, 100),
            (2, 200),
            (5, 1600),
            (6, 2000),
            (40, 2000),
            (u32::MAX, 2000),
        ] {
            let d = backoff.delay(failures, &mut rng).as_millis();
            assert!(d <= full && d >= full * 3 / 4, "{failures}: {d}");
        }
    }
}
