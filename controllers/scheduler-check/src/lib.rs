//! An independent checker of scheduling decisions: slow, plain, and written from the documentation of the semantics.
//!
//! A [`World`] is a few maps. [`feasible`] evaluates every filter for one pod and one node by looking at all of it. The
//! `check_` functions hold decisions against that: a binding, that nothing is feasible, a preemption, a gang. Nothing is
//! indexed, cached or shared with `setpoint-scheduler-core`; of `setpoint-apis` only the types of documents are used.
//!
//! Where the documentation of Kubernetes is silent the behaviour of its scheduler is followed: the pod that satisfies
//! several terms of affinity must be one that all of them mean, and a pod on a node without the topology key does not
//! make a self-affine pod wait.
//!
//! Of scores only the part for free room is computed ([`room_score`]); for all parts [`tables`] has cases in which one
//! node must come out best.
//!
//! [`tables`] holds cases as data, for this checker and for the core alike; [`generate`] makes random clusters.

mod amounts;
mod checks;
mod filters;
mod gang;
pub mod generate;
mod matching;
mod neighbours;
mod preemption;
mod room;
mod score;
mod spread;
pub mod tables;
mod world;

pub use checks::{Complaint, check_binding, check_unschedulable};
pub use filters::{Violation, feasible, feasible_nodes};
pub use gang::{Search, check_gang_placed, check_gang_refused, gang_placement};
pub use preemption::{Budgets, Proposal, check_preemption, proposals};
pub use score::{Strategy, room_score};
pub use world::{Node, Nomination, Pod, Reservation, World};
