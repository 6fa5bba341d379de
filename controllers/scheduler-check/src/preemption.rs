//! Whether victims are the right ones.
//!
//! What is promised: a node is considered when the pod fits there without all pods of lower priority. Victims are what
//! is left of these after as many as possible have been spared, one at a time: those whose budget would be violated
//! first, among them the most important first (higher priority, then older). Of the nodes the one is taken that costs
//! least: fewest violations, then the lowest of the highest priorities, then the smallest sum of priorities (counted from
//! the least that there is, so that fewer victims are less), then the fewest victims, then the newest: whose oldest of
//! the most important victims is the newest.
//!
//! Victims of nominated pods leave their node anyway. They are counted as gone from there and cost nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::ObjectKey;
use setpoint_apis::core::PreemptionPolicy;

use crate::checks::Complaint;
use crate::filters::feasible;
use crate::world::{Pod, World};

/// Disruption budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Each budget: the pods it covers, and how many of them may be disrupted now.
    pub budgets: BTreeMap<String, (BTreeSet<ObjectKey>, u32)>,
}

/// A node and who has to leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The node.
    pub node: String,
    /// Who leaves.
    pub victims: Vec<ObjectKey>,
    /// How many of them have a budget that this violates.
    pub violations: u32,
}

impl Budgets {
    /// Of pods that would all leave, in this order, those with a budget that has nothing left for them.
    fn violated<'a>(&self, leaving: &[&'a ObjectKey]) -> BTreeSet<&'a ObjectKey> {
        let mut left: BTreeMap<&str, u32> = self
            .budgets
            .iter()
            .map(|(name, (_, allowed))| (name.as_str(), *allowed))
            .collect();
        let mut violated = BTreeSet::new();
        for key in leaving {
            for (name, (covered, _)) in &self.budgets {
                if covered.contains(*key) {
                    match left.get_mut(name.as_str()) {
                        Some(n) if *n > 0 => *n -= 1,
                        _ => {
                            violated.insert(*key);
                        }
                    }
                }
            }
        }
        violated
    }
}

/// What victims cost; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    violations: u32,
    highest: i32,
    sum: i64,
    count: usize,
    newest: Reverse<i64>,
}

fn cost(world: &World, victims: &[ObjectKey], violations: u32) -> Cost {
    let pods: Vec<&Pod> = victims.iter().filter_map(|v| world.pods.get(v)).collect();
    let highest = pods.iter().map(|p| p.priority).max().unwrap_or(i32::MIN);
    let oldest = pods
        .iter()
        .filter(|p| p.priority == highest)
        .map(|p| p.since)
        .min();
    Cost {
        violations,
        highest,
        sum: pods
            .iter()
            .map(|p| i64::from(p.priority) - i64::from(i32::MIN))
            .sum(),
        count: pods.len(),
        newest: Reverse(oldest.unwrap_or(i64::MAX)),
    }
}

/// Every node where preemption helps the pod, with the victims there.
pub fn proposals(world: &World, pod: &ObjectKey, budgets: &Budgets) -> Vec<Proposal> {
    let Some(own) = world.pods.get(pod) else {
        return Vec::new();
    };
    if own.spec.preemption_policy == Some(PreemptionPolicy::Never) {
        return Vec::new();
    }
    world
        .nodes
        .keys()
        .filter_map(|node| proposal(world, pod, own.priority, node, budgets))
        .collect()
}

/// The world without the victims of nominated pods on a node.
fn without_leaving(world: &World, node: &str) -> World {
    let there = world.nominations.values().filter(|n| n.node == node);
    world.without(there.flat_map(|n| world.leaving(n)))
}

fn proposal(
    world: &World,
    pod: &ObjectKey,
    priority: i32,
    node: &str,
    budgets: &Budgets,
) -> Option<Proposal> {
    let without = without_leaving(world, node);
    let anybody_leaves = world.nominations.values().any(|n| n.node == node);
    let world = &without;
    let mut lower: Vec<(&ObjectKey, &Pod)> = world
        .pods_on(node)
        .filter(|(_, p)| p.priority < priority)
        .collect();
    lower.sort_by_key(|(key, p)| (Reverse(p.priority), p.since, (*key).clone()));
    let order: Vec<&ObjectKey> = lower.iter().map(|(key, _)| *key).collect();
    let mut reduced = world.without(order.iter().copied());
    if (lower.is_empty() && !anybody_leaves) || feasible(&reduced, pod, node).is_err() {
        return None;
    }
    let violated = budgets.violated(&order);
    let protected = order.iter().filter(|k| violated.contains(*k));
    let others = order.iter().filter(|k| !violated.contains(*k));
    let (mut victims, mut violations) = (Vec::new(), 0);
    for key in protected.chain(others) {
        let spared = reduced.with(key, &world.pods[*key], node);
        if feasible(&spared, pod, node).is_ok() {
            reduced = spared;
        } else {
            victims.push((*key).clone());
            violations += u32::from(violated.contains(*key));
        }
    }
    Some(Proposal {
        node: node.into(),
        victims,
        violations,
    })
}

/// That a preemption (or that there is none) is right, for a pod that has no feasible node.
///
/// # Errors
///
/// What is wrong with it. Another choice of victims on the same node is no complaint as long as none of them could be
/// spared and no node costs less.
pub fn check_preemption(
    world: &World,
    pod: &ObjectKey,
    budgets: &Budgets,
    told: Option<&Proposal>,
) -> Result<(), Complaint> {
    let possible = proposals(world, pod, budgets);
    let Some(told) = told else {
        return match possible.into_iter().next() {
            None => Ok(()),
            Some(missed) => Err(Complaint::MissedPreemption {
                pod: pod.clone(),
                node: missed.node,
                victims: missed.victims,
            }),
        };
    };
    check_victims(world, pod, told)?;
    let own = cost(world, &told.victims, told.violations);
    for other in possible {
        let theirs = cost(world, &other.victims, other.violations);
        if other.node == told.node && other.violations != told.violations {
            return Err(Complaint::Violations {
                pod: pod.clone(),
                node: told.node.clone(),
                told: told.violations,
                counted: other.violations,
            });
        }
        if theirs < own {
            return Err(Complaint::CheaperElsewhere {
                pod: pod.clone(),
                node: told.node.clone(),
                costs: format!("{own:?}, {theirs:?}"),
                better: Box::new(other),
            });
        }
    }
    Ok(())
}

/// That victims are of lower priority and on the node, that they are enough, and that each is needed.
fn check_victims(world: &World, pod: &ObjectKey, told: &Proposal) -> Result<(), Complaint> {
    let Some(own) = world.pods.get(pod) else {
        return Ok(());
    };
    let needless = |why| {
        Err(Complaint::NeedlessPreemption {
            pod: pod.clone(),
            why,
        })
    };
    if own.spec.preemption_policy == Some(PreemptionPolicy::Never) {
        return needless("its preemptionPolicy is Never");
    }
    if told.victims.is_empty() && world.nominations.is_empty() {
        return needless("the list is empty");
    }
    for victim in &told.victims {
        let wrong = |why| {
            Err(Complaint::WrongVictim {
                pod: pod.clone(),
                victim: victim.clone(),
                why,
            })
        };
        match world.pods.get(victim) {
            Some(v) if v.node.as_deref() != Some(&told.node) => {
                return wrong("it is on another node");
            }
            Some(v) if v.priority >= own.priority => return wrong("its priority is not lower"),
            Some(_) => {}
            None => return wrong("there is no such pod"),
        }
    }
    let after = without_leaving(world, &told.node).without(&told.victims);
    if let Err(violations) = feasible(&after, pod, &told.node) {
        return Err(Complaint::NotEnoughVictims {
            pod: pod.clone(),
            node: told.node.clone(),
            victims: told.victims.clone(),
            violations,
        });
    }
    for victim in &told.victims {
        let spared = after.with(victim, &world.pods[victim], &told.node);
        if feasible(&spared, pod, &told.node).is_ok() {
            return Err(Complaint::Spareable {
                pod: pod.clone(),
                node: told.node.clone(),
                victim: victim.clone(),
            });
        }
    }
    Ok(())
}
