//! Which node runs which pod: the scheduler's decisions, without a clock, a store or a runtime.
//!
//! A [`Cluster`] is an incremental snapshot: nodes and placed pods are set and removed one by one. Pods whose specs ask
//! the same of a node share a [`Class`]; for every class in use the cluster keeps the nodes that can run it ordered by
//! score, and repairs that order only for the nodes that changed since the class was last looked at. So every feasible
//! node is considered for every pod, at the cost of a few steps of a tree and not of a walk over all nodes.
//!
//! [`Cluster::schedule`] decides on pods in the order given and counts each decision as done, so that the next pod
//! sees it. Whoever carries decisions out takes back what failed with [`Cluster::forget`].
//!
//! The same cluster (built by the same calls), the same pods and the same seed give the same decisions.

mod affinity;
mod candidates;
mod class;
mod cluster;
mod intern;
mod node;
mod reasons;
mod resources;
mod score;
mod tree;

pub use class::Class;
pub use cluster::{Cluster, Decision, Placement, PodRequest};
pub use node::{NodeFacts, NotReady};
pub use reasons::{Helps, Reason, Unschedulable};
