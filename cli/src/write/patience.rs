//! How long a command tries again when others were faster: with pauses, up to a limit.
//!
//! Who creates all the time what a quota counts leaves gaps, and a command needs one. Commands that wait for the same gap
//! come at different moments, so that they do not take it from each other again and again.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::random;

/// How long it is tried. A command that has nothing else to wait for takes milliseconds.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// About how long the first pause is; each further one is twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(4);
/// See [`FIRST`]. Gaps are short, so it comes back often.
const LONGEST: Duration = Duration::from_millis(100);

/// What is left of it.
#[derive(Debug)]
pub(super) struct Patience {
    until: Instant,
    next: Duration,
    rng: fastrand::Rng,
}

impl Patience {
    /// It begins now.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub(super) fn new() -> Result<Self> {
        let seed = u64::from_le_bytes(random::bytes()?);
        Ok(Self::since(Instant::now(), seed))
    }

    fn since(now: Instant, seed: u64) -> Self {
        Self {
            until: now + LIMIT,
            next: FIRST,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Pauses before the next try. `false` when there is to be none.
    pub(super) async fn pause(&mut self) -> bool {
        let wait = self.next(Instant::now());
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        wait.is_some()
    }

    /// How long the next pause is: between half of what is due and one and a half.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        let due = self.next;
        self.next = (due * 2).min(LONGEST);
        (now < self.until).then(|| due / 2 + due.mul_f64(self.rng.f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_end_after_the_limit() {
        for seed in 0..20 {
            let begin = Instant::now();
            let mut patience = Patience::since(begin, seed);
            let (mut now, mut pauses) = (begin, Vec::new());
            while let Some(pause) = patience.next(now) {
                now += pause;
                pauses.push(pause);
            }
            assert!(pauses[0] <= FIRST * 3 / 2, "{:?}", pauses[0]);
            assert!(pauses.iter().all(|p| *p <= LONGEST * 3 / 2));
            assert!(pauses.len() > 150, "seed {seed}: {} tries", pauses.len());
            assert!((LIMIT..LIMIT + LONGEST * 2).contains(&(now - begin)));
        }
    }
}
