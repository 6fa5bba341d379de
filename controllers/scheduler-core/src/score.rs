//! How good a node is for a pod. Higher is better. Every part of the score goes up to 10,000 times its weight.
//!
//! - Resources: by the profile's strategy, of cpu and memory after the pod is placed; for each the higher of what is
//!   requested and what was measured. Pods that ask for nothing are counted with a little, or all of them would end on
//!   one node. The free share goes below zero where such pods over-fill a node, so that they stay spread.
//! - Preferred node affinity: by the matched share of the weights.
//! - Untolerated `PreferNoSchedule` taints: the whole part is taken off for the first, a little more for others.
//! - Images: by the size of those that are there already, less for those that few nodes have, so that pods do not heap
//!   up on one node.
//! - Affinity to pods, and spreading: from the worst to the best of the nodes that can run the pod.

use crate::profile::Strategy;
use crate::resources::{CPU, MEMORY};

/// A part of the score that is all that it can be, with weight 1.
pub(crate) const FULL: i64 = 10_000;

/// A pod that asks for no cpu counts as 0.1 core, one that asks for no memory as 200 MiB: Kubernetes' figures.
const UNSAID: [i64; 2] = [100, 200 << 20];

/// From which size on images count, and from which on more does not count more, per container: Kubernetes' figures.
const IMAGE_LEAST_BYTES: u128 = 23 << 20;
const IMAGE_MOST_BYTES: u128 = 1000 << 20;

/// Cpu and memory as the score counts them.
pub(crate) fn weighed(cpu: i64, memory: i64) -> [i64; 2] {
    [
        if cpu > 0 { cpu } else { UNSAID[CPU] },
        if memory > 0 { memory } else { UNSAID[MEMORY] },
    ]
}

/// The part of the score that changes with what is placed on the node.
pub(crate) fn resources(
    load: [i64; 2],
    reciprocal: [f64; 2],
    ask: [i64; 2],
    strategy: Strategy,
    weight: i32,
) -> i32 {
    let mut shares = [0.0; 2];
    let mut count = 0;
    for ((load, ask), reciprocal) in load.into_iter().zip(ask).zip(reciprocal) {
        if reciprocal > 0.0 {
            shares[count] = load.saturating_add(ask) as f64 * reciprocal;
            count += 1;
        }
    }
    let shares = &shares[..count];
    if shares.is_empty() {
        return 0;
    }
    let mean = |sum: f64| sum / count as f64;
    let good = match strategy {
        // No node is a thousand times over-full; the bounds keep the numbers small.
        Strategy::LeastAllocated => mean(shares.iter().map(|s| (1.0 - s).max(-1000.0)).sum()),
        Strategy::MostAllocated => {
            mean(shares.iter().map(|s| if *s > 1.0 { 0.0 } else { *s }).sum())
        }
        Strategy::Balanced => match shares {
            [a, b] => 1.0 - (a.min(1.0) - b.min(1.0)).abs() / 2.0,
            _ => 1.0,
        },
    };
    floor(FULL as f64 * good) * weight
}

/// The greatest whole number that is not above a small number; the library's own is a call where the processor that is
/// compiled for has no instruction for it.
fn floor(value: f64) -> i32 {
    let whole = value as i32;
    whole - i32::from(f64::from(whole) > value)
}

/// The score for `matched` of `all` weight of preferences.
pub(crate) fn share(matched: i32, all: i32, weight: i32) -> i32 {
    if all <= 0 {
        0
    } else {
        (i64::from(matched) * FULL * i64::from(weight) / i64::from(all)) as i32
    }
}

/// What `taints` untolerated `PreferNoSchedule` taints take off.
pub(crate) fn avoided(taints: usize, weight: i32) -> i32 {
    if taints == 0 || weight == 0 {
        0
    } else {
        FULL as i32 * weight + 1000 * (taints - 1).min(10) as i32
    }
}

/// The score for images of so many bytes, for a pod that uses so many images.
pub(crate) fn images(bytes: u128, images: usize, weight: i32) -> i32 {
    let most = IMAGE_MOST_BYTES * images as u128;
    let bytes = bytes.clamp(IMAGE_LEAST_BYTES, most.max(IMAGE_LEAST_BYTES));
    let range = most.saturating_sub(IMAGE_LEAST_BYTES).max(1);
    ((bytes - IMAGE_LEAST_BYTES) * FULL as u128 / range) as i32 * weight
}

/// Where `value` is between the least and the greatest; nothing when they are the same.
pub(crate) fn between(value: i64, least: i64, most: i64, weight: i32) -> i64 {
    if most <= least {
        0
    } else {
        let part = i128::from(value - least) * i128::from(FULL) / i128::from(most - least);
        part as i64 * i64::from(weight)
    }
}

/// How good a place with `value` is, where few is good: Kubernetes' way, by which the best place loses what the worst
/// is better than nothing.
pub(crate) fn fewest(value: i64, least: i64, most: i64, weight: i32) -> i64 {
    if most <= 0 {
        FULL * i64::from(weight)
    } else {
        let part = i128::from(most + least - value) * i128::from(FULL) / i128::from(most);
        part as i64 * i64::from(weight)
    }
}
