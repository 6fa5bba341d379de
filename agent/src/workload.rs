//! The seam between the node loop, which talks to the store, and the pod layer, which runs pods.
//!
//! The node loop (`node.rs`) owns session, claims and status writes; it starts, updates and stops pods through
//! [`PodRunner`] and hears of them through [`PodReport`]s. The pod layer (`pod.rs`) knows nothing of etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{ClaimFence, PodActual, WorkHeader};
use tokio::sync::Notify;

use crate::deadline::Deadline;
use crate::volumes::Discarded;

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
    /// The fence under which it was claimed. Nothing of it runs beyond that fence's deadline ([`PodRunner::extend`]).
    pub fence: Option<ClaimFence>,
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
#[derive(Clone, Debug, PartialEq)]
pub enum PodReport {
    /// The status of a pod changed. Key and placement.
    Status(ObjectKey, u32, Box<PodActual>),
    /// A pod that was asked to stop has stopped: nothing of it runs, its directory is removed. Key and placement.
    Stopped(ObjectKey, u32),
}

/// Where the pod layer leaves its reports: the newest status per placement, so that a node loop that is behind makes
/// nobody wait and nothing grow.
#[derive(Debug, Default)]
pub struct Reports {
    pending: Mutex<BTreeMap<(ObjectKey, u32), Latest>>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Latest {
    status: Option<Box<PodActual>>,
    stopped: bool,
}

impl Reports {
    /// Leaves a report.
    pub fn post(&self, report: PodReport) {
        let mut pending = self.pending.lock();
        match report {
            PodReport::Status(key, placement, actual) => {
                pending.entry((key, placement)).or_default().status = Some(actual)
            }
            PodReport::Stopped(key, placement) => {
                pending.entry((key, placement)).or_default().stopped = true
            }
        }
        drop(pending);
        self.notify.notify_one();
    }

    /// Waits for reports and takes all there are. Cancel safe.
    pub async fn take(&self) -> Vec<PodReport> {
        loop {
            let taken = std::mem::take(&mut *self.pending.lock());
            if !taken.is_empty() {
                return taken
                    .into_iter()
                    .flat_map(|((key, placement), latest)| latest.reports(key, placement))
                    .collect();
            }
            self.notify.notified().await;
        }
    }
}

impl Latest {
    fn reports(self, key: ObjectKey, placement: u32) -> impl Iterator<Item = PodReport> {
        let stopped = self
            .stopped
            .then(|| PodReport::Stopped(key.clone(), placement));
        self.status
            .map(|actual| PodReport::Status(key, placement, actual))
            .into_iter()
            .chain(stopped)
    }
}

/// Runs pods. Calls return at once; what happens is reported.
pub trait PodRunner: Send + Sync + 'static {
    /// Begins to run a pod. There is none of this key running or stopping: the node loop waits for
    /// [`PodReport::Stopped`] before it starts another placement of the same pod.
    fn start(&self, work: PodWork, begin: Begin, last: Option<PodActual>);

    /// The pod's document changed (labels, annotations, image); the placement is the same.
    fn update(&self, work: PodWork);

    /// Stops a pod: TERM, the grace period, KILL; then removes its directory and reports [`PodReport::Stopped`].
    fn stop(&self, key: &ObjectKey, placement: u32);

    /// Stops a pod within so long instead of its own grace period, and otherwise as [`PodRunner::stop`]; of several times the
    /// one that ends first counts. Returns `false`, and does nothing, when there is no such pod.
    fn stop_within(&self, key: &ObjectKey, placement: u32, within: Duration) -> bool;

    /// What runs under a fence may run until this deadline: then it is killed, whether an agent is there or not. Until a
    /// fence has a deadline nothing is started under it.
    fn extend(&self, fence: i64, deadline: Deadline);

    /// Nothing runs under a fence any more, and nothing will.
    fn forget_fence(&self, fence: i64);

    /// Kills and removes whatever the data directory holds of pods that are not among `known` (uid and placement).
    fn purge_all_but(&self, known: BTreeSet<(String, u32)>);

    /// Gives up the directories of the volume claims of these uids, which are gone for good, those excepted that pods
    /// here use. May be called again with the same.
    fn discard_claims(&self, uids: Vec<String>) -> BoxFuture<'static, Discarded>;
}
