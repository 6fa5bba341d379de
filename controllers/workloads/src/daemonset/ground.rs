//! The nodes of a pass with the pods that are on each.

use std::sync::Arc;

use setpoint_apis::Timestamp;

use super::fit::{Fit, Placement};
use super::plan::{DaemonPod, Snapshot};
use super::revision::Target;
use crate::pod::available_at;

/// A node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) name: &'a Arc<str>,
    /// What it is to the DaemonSet.
    pub(super) fit: Fit,
    /// Nobody knows how its pods are.
    pub(super) lost: bool,
    /// Its document is gone, and something of it is still there.
    pub(super) removed: bool,
    /// Its pods, oldest first.
    pub(super) pods: &'a [DaemonPod],
    /// A pod there is not wanted any more and has not stopped.
    pub(super) stopping: bool,
}

/// All nodes.
pub(super) struct Ground<'a> {
    pub(super) rows: Vec<Row<'a>>,
    /// Pods of nodes that there are not.
    pub(super) strays: Vec<&'a DaemonPod>,
    /// How many pods there are of which nobody knows the node.
    pub(super) homeless: usize,
    hash: Option<&'a str>,
    min_ready: std::time::Duration,
    now: Timestamp,
}

impl<'a> Ground<'a> {
    pub(super) fn new(s: &'a Snapshot, target: &'a Target<'_>, now: Timestamp) -> Self {
        let placement = Placement::of(&target.template.spec);
        let homeless = s.pods.iter().take_while(|p| p.node.is_none()).count();
        let mut ground = Self {
            rows: Vec::with_capacity(s.nodes.len()),
            strays: Vec::new(),
            homeless,
            hash: target.name.as_deref().map(|name| s.hash_of(name)),
            min_ready: s.min_ready,
            now,
        };
        // Both come in the order of the nodes' names.
        let mut rest = &s.pods[homeless..];
        for (name, facts) in s.nodes.iter() {
            let before = |p: &DaemonPod| p.node.as_deref() < Some(&**name);
            let (strays, behind) = rest.split_at(rest.iter().take_while(|p| before(p)).count());
            let here = |p: &DaemonPod| p.node.as_deref() == Some(&**name);
            let (pods, behind) = behind.split_at(behind.iter().take_while(|p| here(p)).count());
            ground.strays.extend(strays);
            rest = behind;
            ground.rows.push(Row {
                name,
                fit: placement.fit(name, facts),
                lost: facts.lost,
                removed: facts.removed,
                pods,
                stopping: !s.stopping.is_empty() && s.stopping.contains(name),
            });
        }
        ground.strays.extend(rest);
        ground
    }

    /// How many nodes are to have a pod.
    pub(super) fn desired(&self) -> usize {
        self.rows.iter().filter(|r| r.fit == Fit::Runs).count()
    }

    /// Whether a pod is of the revision that is to run.
    pub(super) fn is_new(&self, pod: &DaemonPod) -> bool {
        self.hash.is_some() && pod.hash.as_deref() == self.hash
    }

    /// Whether a pod is ready, as far as anybody knows.
    pub(super) fn is_ready(&self, row: &Row<'_>, pod: &DaemonPod) -> bool {
        !row.lost && pod.facts.ready_since.is_some()
    }

    /// Whether a pod is available, as far as anybody knows.
    pub(super) fn is_available(&self, row: &Row<'_>, pod: &DaemonPod) -> bool {
        let at = |since| available_at(since, self.min_ready);
        !row.lost
            && pod
                .facts
                .ready_since
                .is_some_and(|since| at(since) <= self.now)
    }

    /// Whether every node that is to have a pod, and of which anybody knows, has one of the revision that is to run,
    /// which is available, and no other.
    pub(super) fn is_complete(&self) -> bool {
        let done = |row: &Row<'_>| match row.pods {
            [pod] => pod.is_active() && self.is_new(pod) && self.is_available(row, pod),
            _ => false,
        };
        // Pods whose documents do not parse are left alone, and not waited for.
        let left_alone = |r: &Row<'_>| r.pods.iter().any(|p| p.facts.frozen);
        let known = |r: &&Row<'_>| r.fit == Fit::Runs && !r.lost && !left_alone(r);
        let mut known = self.rows.iter().filter(known);
        !self.is_blind() && known.all(done)
    }

    /// Whether every node that has a pod is lost: then nobody can say how a rollout goes.
    pub(super) fn is_blind(&self) -> bool {
        let mut rows = self.rows.iter().filter(|r| !r.pods.is_empty()).peekable();
        rows.peek().is_some() && rows.all(|r| r.lost)
    }
}
