//! How good a node is for a pod. Higher is better; 10,000 is an empty node.
//!
//! - Least allocated: the free share of cpu and of memory after the pod is placed, their mean. Pods that ask for
//!   nothing are counted with a little, or all of them would end on one node. The share goes below zero where such
//!   pods over-fill a node, so that they stay spread.
//! - Preferred node affinity: up to 20,000, by the matched share of the weights.
//! - Untolerated `PreferNoSchedule` taints: 30,000 less for the first, a little more for others.
//!
//! The weights stand to each other as Kubernetes' do by default (1, 2, 3).

use crate::node::Node;
use crate::resources::{CPU, MEMORY};

const FULL: f64 = 10_000.0;
const PREFERRED: i64 = 20_000;
const AVOIDED: i32 = 30_000;

/// A pod that asks for no cpu counts as 0.1 core, one that asks for no memory as 200 MiB: Kubernetes' figures.
const UNSAID: [i64; 2] = [100, 200 << 20];

/// Cpu and memory as the score counts them.
pub(crate) fn weighed(cpu: i64, memory: i64) -> [i64; 2] {
    [
        if cpu > 0 { cpu } else { UNSAID[CPU] },
        if memory > 0 { memory } else { UNSAID[MEMORY] },
    ]
}

/// The part of the score that changes with what is placed on the node.
pub(crate) fn least_allocated(node: &Node, weighed: [i64; 2]) -> i32 {
    let mut sum = 0.0;
    let mut count = 0.0;
    for (i, ask) in weighed.into_iter().enumerate() {
        if node.reciprocal[i] > 0.0 {
            let used = node.weighed[i].saturating_add(ask) as f64;
            // No node is a thousand times over-full; the bound keeps the number small.
            sum += (1.0 - used * node.reciprocal[i]).max(-1000.0);
            count += 1.0;
        }
    }
    if count > 0.0 {
        (FULL * sum / count).floor() as i32
    } else {
        0
    }
}

/// The score for `matched` of `all` weight of preferences.
pub(crate) fn preferred(matched: i32, all: i32) -> i32 {
    if all <= 0 {
        0
    } else {
        (i64::from(matched) * PREFERRED / i64::from(all)) as i32
    }
}

/// What `taints` untolerated `PreferNoSchedule` taints take off.
pub(crate) fn avoided(taints: i32) -> i32 {
    if taints == 0 {
        0
    } else {
        AVOIDED + 1000 * (taints - 1).min(10)
    }
}
