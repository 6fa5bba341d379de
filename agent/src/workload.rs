//! The seam between the node loop, which talks to the store, and the pod layer, which runs pods.
//!
//! The node loop (`node.rs`) owns session, claims and status writes; it starts, updates and stops pods through
//! [`PodRunner`] and hears of them through [`PodReport`]s. The pod layer (`pod.rs`) knows nothing of etcd.

use std::net::IpAddr;
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{PodActual, WorkHeader};
use tokio::sync::{mpsc, watch};

use crate::content::Content;

/// A pod as its node must run it.
#[derive(Clone, Debug)]
pub struct PodWork {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Placement, uid, source revision.
    pub header: WorkHeader,
    /// The pod, with defaults filled in.
    pub pod: Arc<Pod>,
    /// The pod's own address, when the node gives pods addresses; otherwise pods have the node's.
    pub pod_ip: Option<IpAddr>,
}

/// How to begin with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It was claimed just now: nothing of it runs.
    Fresh,
    /// It was claimed earlier: containers of it may run, or may have ended while no agent looked. With the status that
    /// was last reported ([`PodRunner::start`]'s `last`), restart counts and last states go on from there.
    Adopt,
}

/// What the pod layer tells the node loop.
#[derive(Debug)]
pub enum PodReport {
    /// The status of a pod changed. Only real changes are reported.
    Status(ObjectKey, u32, Box<PodActual>),
    /// A pod that was asked to stop has stopped: nothing of it runs, its directory is removed. Key and placement.
    Stopped(ObjectKey, u32),
}

/// Facts about the node that pods may ask for.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The node's address.
    pub host_ip: Option<IpAddr>,
    /// Allocatable cpu in millis, the default of `limits.cpu` in `resourceFieldRef`.
    pub allocatable_cpu_millis: i64,
    /// Allocatable memory in bytes, the default of `limits.memory`.
    pub allocatable_memory_bytes: i64,
}

/// Runs pods. Calls return at once; what happens is reported.
pub trait PodRunner: Send + Sync + 'static {
    /// Begins to run a pod. There is none of this key running or stopping: the node loop waits for
    /// [`PodReport::Stopped`] before it starts another placement of the same pod.
    fn start(&self, work: PodWork, begin: Begin, last: Option<PodActual>);

    /// The pod's document changed (labels, annotations, image); the placement is the same.
    fn update(&self, work: PodWork);

    /// Stops a pod: TERM, the grace period, KILL; then removes its directory and reports [`PodReport::Stopped`]. A pod
    /// that is not known here but has left a directory (`uid`-`placement` under the data directory) is stopped as well.
    fn stop(&self, key: &ObjectKey, uid: &str, placement: u32);

    /// Pods of which the data directory holds something, whoever started them: key, uid, placement.
    fn found_on_disk(&self) -> Vec<(ObjectKey, String, u32)>;
}

/// What a pod layer is made of, besides its own configuration.
pub struct RunnerInputs {
    /// Where reports go. Bounded: the pod layer waits when the node loop is behind.
    pub reports: mpsc::Sender<PodReport>,
    /// The config maps and secrets that the node was given. A document that does not parse is absent when it never did,
    /// and the last good one otherwise.
    pub content: Arc<Content>,
    /// Counts the changes of `content`.
    pub content_version: watch::Receiver<u64>,
    /// Facts about the node.
    pub facts: NodeFacts,
}
