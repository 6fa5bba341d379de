//! From times to figures.

use std::time::Instant;

use serde::Serialize;

use super::super::round;
use super::watch::Seen;

/// What the times of a run amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) pods_per_second: f64,
    pub(super) middle80_pods_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Rates and latencies. The first binding counts from `begin`, or is where time begins.
pub(super) fn figures(seen: &Seen, begin: Option<Instant>) -> Figures {
    let mut bound: Vec<Instant> = seen.bound.iter().copied().flatten().collect();
    bound.sort_unstable();
    let (Some(first), Some(last)) = (bound.first(), bound.last()) else {
        return Figures::default();
    };
    let mut latencies: Vec<f64> = seen
        .created
        .iter()
        .zip(&seen.bound)
        .filter_map(|(created, bound)| {
            Some(millis(bound.as_ref()?.duration_since(*created.as_ref()?)))
        })
        .collect();
    latencies.sort_by(f64::total_cmp);
    let rate = |count: usize, from: Instant, to: Instant| {
        let seconds = to.duration_since(from).as_secs_f64();
        // All in one message of the watch: there is no rate.
        if seconds > 0.0 {
            (count as f64 / seconds).round()
        } else {
            0.0
        }
    };
    let tenth = bound.len() / 10;
    let (low, high) = (tenth, bound.len() - 1 - tenth);
    Figures {
        pods_per_second: rate(bound.len(), begin.unwrap_or(*first), *last),
        middle80_pods_per_second: rate(high - low, bound[low], bound[high]),
        p50_ms: round(quantile(&latencies, 0.5)),
        p99_ms: round(quantile(&latencies, 0.99)),
    }
}

/// The nearest-rank quantile of a sorted sample; 0 of none.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

pub(super) fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_from_the_first_to_the_last_binding() {
        let start = Instant::now();
        let at = |ms: usize| Some(start + Duration::from_millis(ms as u64));
        // One every 10 ms, created 50 ms before.
        let seen = Seen {
            created: (0..100).map(|n| at(n * 10)).collect(),
            bound: (0..100).map(|n| at(n * 10 + 50)).collect(),
        };
        let found = figures(&seen, None);
        assert_eq!(found.pods_per_second, 101.0);
        assert_eq!(found.middle80_pods_per_second, 100.0);
        assert_eq!((found.p50_ms, found.p99_ms), (50.0, 50.0));
        // 100 pods in 1.04 s.
        assert_eq!(figures(&seen, at(0)).pods_per_second, 96.0);
    }

    #[test]
    fn nothing_bound_gives_no_figures() {
        let seen = Seen {
            created: vec![Some(Instant::now())],
            bound: vec![None],
        };
        assert_eq!(figures(&seen, None), Figures::default());
    }
}
