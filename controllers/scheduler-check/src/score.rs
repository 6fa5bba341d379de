//! The part of the score that is for free room, from its description: for cpu and memory each, the higher of what the pods
//! of the node request and of what was measured, with the pod that asks, as a share of what the node has.

use setpoint_apis::ObjectKey;

use crate::amounts::{Amounts, amounts, pod_amounts};
use crate::world::World;

/// How free room is valued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Much of it is good.
    #[default]
    LeastAllocated,
    /// Little of it is good.
    MostAllocated,
    /// Cpu and memory used alike are good.
    Balanced,
}

/// What a pod that asks for nothing is counted with: a tenth of a cpu, 200 MiB.
const UNSAID: [(&str, i128); 2] = [("cpu", 100), ("memory", 200 << 20)];

/// How good a node's room is for a pod: 1 is all free, or all taken, or in balance. Over-full nodes are below 0 by
/// `LeastAllocated`.
pub fn room_score(world: &World, key: &ObjectKey, node: &str, strategy: Strategy) -> f64 {
    let (Some(pod), Some(known)) = (world.pods.get(key), world.nodes.get(node)) else {
        return 0.0;
    };
    let (has, measured) = (amounts(&known.allocatable), amounts(&known.usage));
    let mut shares = Vec::new();
    for (resource, unsaid) in UNSAID {
        let of = |list: &Amounts| list.get(resource).copied().unwrap_or(0);
        let counted = |spec| match of(&pod_amounts(spec)) {
            0 => unsaid,
            asked => asked,
        };
        let all = of(&has);
        if all == 0 {
            continue;
        }
        let requested: i128 = world.pods_on(node).map(|(_, p)| counted(&p.spec)).sum();
        let taken = requested.max(of(&measured)) + counted(&pod.spec);
        shares.push(taken as f64 / all as f64);
    }
    if shares.is_empty() {
        return 0.0;
    }
    let mean = |of: &dyn Fn(f64) -> f64| {
        shares.iter().map(|share| of(*share)).sum::<f64>() / shares.len() as f64
    };
    match strategy {
        Strategy::LeastAllocated => mean(&|share| 1.0 - share),
        Strategy::MostAllocated => mean(&|share| if share > 1.0 { 0.0 } else { share }),
        Strategy::Balanced => match shares[..] {
            // The standard deviation of two shares.
            [cpu, memory] => 1.0 - (cpu.min(1.0) - memory.min(1.0)).abs() / 2.0,
            _ => 1.0,
        },
    }
}
