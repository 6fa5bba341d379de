//! Decisions held against the world they were made in.

use setpoint_apis::ObjectKey;

use crate::filters::{self, Violation, feasible, nominated_over};
use crate::preemption::Proposal;
use crate::world::World;

/// What is wrong with a decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// A pod was placed where it cannot be.
    #[error("{pod} was placed on {node}, against {violations:?}")]
    Infeasible {
        /// The pod.
        pod: ObjectKey,
        /// The node.
        node: String,
        /// What is against it.
        violations: Vec<Violation>,
    },
    /// A pod was said to have no node, and has.
    #[error("{pod} was said to have no node, but fits on {node}")]
    Missed {
        /// The pod.
        pod: ObjectKey,
        /// A node that can take it.
        node: String,
    },
    /// Victims were chosen for a pod that may not displace others, or that needs none.
    #[error("{pod} was given victims, but {why}")]
    NeedlessPreemption {
        /// The pod.
        pod: ObjectKey,
        /// Why it should not have been.
        why: &'static str,
    },
    /// A victim that may not be one.
    #[error("{victim} is no victim for {pod}: {why}")]
    WrongVictim {
        /// The pod that would take the room.
        pod: ObjectKey,
        /// The victim.
        victim: ObjectKey,
        /// Why not.
        why: &'static str,
    },
    /// The pod does not fit even when the victims are gone.
    #[error("{pod} does not fit on {node} without {victims:?}: {violations:?}")]
    NotEnoughVictims {
        /// The pod.
        pod: ObjectKey,
        /// The node.
        node: String,
        /// The victims.
        victims: Vec<ObjectKey>,
        /// What is still against it.
        violations: Vec<Violation>,
    },
    /// The pod fits as well when this victim stays.
    #[error("{victim} could be spared on {node} for {pod}")]
    Spareable {
        /// The pod.
        pod: ObjectKey,
        /// The node.
        node: String,
        /// The victim.
        victim: ObjectKey,
    },
    /// Another node would cost less.
    #[error("{pod} should not take {node}: {better:?} is better; {costs}")]
    CheaperElsewhere {
        /// The pod.
        pod: ObjectKey,
        /// The node that was chosen.
        node: String,
        /// What is better.
        better: Box<Proposal>,
        /// What both cost.
        costs: String,
    },
    /// The number of budgets that are violated was told wrong.
    #[error("{pod} on {node} violates budgets {counted} times, not {told}")]
    Violations {
        /// The pod.
        pod: ObjectKey,
        /// The node.
        node: String,
        /// What was told.
        told: u32,
        /// What is.
        counted: u32,
    },
    /// No victims were found, yet there is a node where preemption helps.
    #[error("{pod} was given no victims, but fits on {node} without {victims:?}")]
    MissedPreemption {
        /// The pod.
        pod: ObjectKey,
        /// The node.
        node: String,
        /// The victims there.
        victims: Vec<ObjectKey>,
    },
    /// A gang that was placed in part.
    #[error("{placed} pods of a gang were placed, which needs {min}")]
    PartialGang {
        /// How many were placed.
        placed: usize,
        /// How many are needed.
        min: usize,
    },
    /// A gang that was refused although every way of choosing nodes one after the other places it.
    #[error("a gang of {members} was refused, though {min} of them find nodes however one chooses")]
    RefusedGang {
        /// How many asked.
        members: usize,
        /// How many are needed.
        min: usize,
    },
}

/// That a pod may be placed on a node now.
///
/// # Errors
///
/// What is against it.
pub fn check_binding(world: &World, pod: &ObjectKey, node: &str) -> Result<(), Complaint> {
    feasible(world, pod, node).map_err(|violations| Complaint::Infeasible {
        pod: pod.clone(),
        node: node.into(),
        violations,
    })
}

/// That no node can take a pod now.
///
/// Of nodes with room that is kept for nominated pods this is lenient: it is enough when the pod does not fit beside
/// nominated pods *and* their victims, which may be told apart only later.
///
/// # Errors
///
/// A node that can.
pub fn check_unschedulable(world: &World, pod: &ObjectKey) -> Result<(), Complaint> {
    let mut crowded = world.clone();
    for key in nominated_over(world, pod) {
        if let Some(nominated) = world.pods.get(&key) {
            crowded = crowded.with(&key, nominated, &world.nominations[&key].node);
        }
    }
    for node in world.nodes.keys() {
        if feasible(world, pod, node).is_ok()
            && filters::violations_now(&crowded, pod, node).is_empty()
        {
            return Err(Complaint::Missed {
                pod: pod.clone(),
                node: node.clone(),
            });
        }
    }
    Ok(())
}
