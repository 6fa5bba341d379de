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
//! Semantics are Kubernetes' where Kubernetes has them. What is particular, or was left open there:
//!
//! - A pod that names its node (`nodeName`) is refused for room, ports, labels and `NoExecute` taints, as a kubelet
//!   does, and not for affinity, spreading, `NoSchedule` or a cordon.
//! - A node that is not ready, and one that is cordoned, counts as one with a taint where `nodeTaintsPolicy: Honor` asks.
//! - A [nominated](Cluster::nominate) pod keeps its resources and ports, and by anti-affinity its domains, from pods of
//!   equal or lower priority, and their spread constraints have to hold in its domain both without it and once it has
//!   come. Kubernetes counts it for its node alone; here it counts in all of its domain. It satisfies nobody's affinity
//!   before it is placed.
//! - A pod that must be near pods of lower priority does not displace others next to them: victims are chosen among the
//!   pods of one node after all of lower priority were thought away, as Kubernetes documents.
//! - The score of affinity and spreading compares the nodes that can run the pod; all other parts are absolute.
//!
//! The same cluster (built by the same calls), the same pods and the same seed give the same decisions.

mod admission;
mod affinity;
pub mod bench;
pub mod budgets;
pub mod claims;
mod class;
mod cluster;
mod few;
mod intern;
mod log;
mod node;
mod own;
mod ports;
mod preempt;
mod profile;
mod rank;
mod reasons;
pub mod record;
mod reserve;
mod resources;
mod room;
mod score;
mod shape;
mod slab;
mod state;
mod tally;
mod terms;
mod topology;

pub use class::{Class, Pin, PodAsk};
pub use cluster::{Cluster, Decision, NodeScore, Part, Placement, PodRequest, RunnerUp};
pub use node::{NodeFacts, NodeImage, NotReady, Usage};
pub use preempt::{BudgetState, Preemption};
pub use profile::{Profile, Strategy, Weights};
pub use reasons::{Helps, Miss, Reason, Unschedulable};
pub use reserve::{MOST_SHARES, ReservationFacts, share, stand_in};
