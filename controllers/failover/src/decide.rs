//! The decision: which pods of lost nodes to ask the release of, in which order, and which requests to take back.
//! No clock, no store.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::records::NodeState;

pub use setpoint_apis::records::PARTITION_POLICY;

/// What becomes of a pod when its node is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionPolicy {
    /// It runs elsewhere as soon as possible, though the lost node may still be running it.
    #[default]
    Replace,
    /// It stays bound to its node until that comes back.
    Keep,
    /// It never runs twice: released when the fence lease is gone too, by which time its agent has stopped it. Kept when it
    /// was claimed without a fence.
    Stop,
}

impl PartitionPolicy {
    /// Reads the annotation. A word that is none of the three keeps the pod: moving it could be what was not wanted.
    pub fn parse(annotation: Option<&str>) -> Self {
        match annotation {
            None | Some("replace") => Self::Replace,
            Some("stop") => Self::Stop,
            Some(_) => Self::Keep,
        }
    }
}

/// What is known, at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// While a node is silent: whether there are bindings that do not parse. A pod of that node may be among them, so
    /// bindings are watched until that is known.
    pub unreadable_bindings: bool,
    /// The nodes that have no session, or that own requests are about, by name.
    pub nodes: BTreeMap<Arc<str>, NodeFacts>,
    /// The pods that are bound to them, and those that own requests are about, by key.
    pub pods: BTreeMap<ObjectKey, PodFacts>,
    /// Own requests that have not been carried out yet, as far as is known: what they are about.
    pub requested: BTreeMap<ObjectKey, Request>,
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Whether it has a session.
    pub alive: bool,
    /// Whether its fence lease stands.
    pub fenced: bool,
    /// What node-lifecycle concludes, when that can be read.
    pub health: Option<Health>,
}

/// What node-lifecycle concludes about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The conclusion.
    pub state: NodeState,
    /// The revision of the record.
    pub revision: i64,
}

/// What is known of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// Where it is bound, when it is and the binding can be read.
    pub binding: Option<BindingFacts>,
    /// Its desired document.
    pub desired: Desired,
    /// What its node last said of it.
    pub stage: Stage,
    /// Whether its node claimed it without a fence, so that the absence of one proves nothing.
    pub claimed_unfenced: bool,
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingFacts {
    /// The node.
    pub node: Arc<str>,
    /// The node's session when it was bound there.
    pub session: i64,
    /// The revision of the binding.
    pub revision: i64,
    /// Whether the scheduler is taking it back already (evicted, for example), so that the pod is to run elsewhere.
    pub withdrawn: bool,
}

/// The desired document of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Desired {
    /// There is none, or one of a later incarnation: the pod that is bound is to go.
    #[default]
    Absent,
    /// It cannot be read: the pod is frozen.
    Unreadable,
    /// What matters of it; also of one that is gone and said `stop`, which is not given up for that.
    Wanted {
        /// Higher ones first.
        priority: i32,
        /// What becomes of it when its node is lost.
        policy: PartitionPolicy,
    },
}

/// How far a pod has come on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Not finished, or never begun.
    #[default]
    Unfinished,
    /// Succeeded or failed: it will not run again.
    Finished,
    /// What the node said cannot be read.
    Unreadable,
}

/// An own request: to release a pod from a node and session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The node.
    pub node: Arc<str>,
    /// The session that the binding names.
    pub session: i64,
    /// The revision of the node's health record that it was made on, or a later one. When the node is lost anew the
    /// scheduler may have dropped the request in between, and it is made again.
    pub health_revision: i64,
    /// Whether it was read back from the store. One that is only remembered is gone once it has been carried out,
    /// because the scheduler removes it; one that was read may have been left over.
    pub read: bool,
}

/// What to do, and what is not done, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order: requests that are taken back, then new ones.
    pub steps: Vec<Step>,
    /// Own requests that are settled: the pod is no longer where it was. The scheduler removes them itself.
    pub settled: Vec<ObjectKey>,
    /// Pods of lost nodes that are left alone.
    pub held: Vec<(ObjectKey, Held)>,
    /// Whether there are more to be released than fit in a batch.
    pub more: bool,
    /// Whether any node is without a session and has pods, or there are requests: changes of pods matter.
    pub losing: bool,
}

/// One guarded write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for a release.
    Release {
        /// The pod.
        pod: ObjectKey,
        /// Where it is.
        binding: BindingFacts,
        /// The revision of the node's health that says it is lost.
        health_revision: i64,
        /// Whether the fence lease must be gone as well.
        unfenced: bool,
    },
    /// Take a request back.
    Withdraw {
        /// The pod.
        pod: ObjectKey,
        /// The node that it was about.
        node: Arc<str>,
    },
}

/// Why a pod of a lost node is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Its policy is `keep`, or a word that is no policy.
    Kept,
    /// Its policy is `stop`, and it was claimed without a fence: it is kept.
    Unfenceable,
    /// Its policy is `stop`, and the fence lease stands: it is released when that has ended.
    Fenced,
    /// It has finished: what remains is a record.
    Finished,
    /// Its document, or what its node said of it, cannot be read.
    Frozen,
    /// The outage brake is engaged.
    Suspended,
    /// Its node is silent and node-lifecycle has yet to draw its conclusion.
    Undecided,
    /// Some other node is silent and node-lifecycle has yet to draw its conclusion: this may become an outage.
    Unsettled,
}

impl Held {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "partition policy keep",
            Self::Unfenceable => "partition policy stop, and it was claimed without a fence",
            Self::Fenced => "partition policy stop, and the fence stands",
            Self::Finished => "finished",
            Self::Frozen => "a document cannot be read",
            Self::Suspended => "outage brake",
            Self::Undecided => "node-lifecycle has not concluded yet",
            Self::Unsettled => "node-lifecycle has not concluded yet about another node",
        }
    }
}

impl Plan {
    fn withdraw(&mut self, pod: &ObjectKey, request: &Request) {
        self.steps.push(Step::Withdraw {
            pod: pod.clone(),
            node: request.node.clone(),
        });
    }

    /// The request has been carried out, or something else has moved the pod.
    fn settle(&mut self, pod: &ObjectKey, request: &Request) {
        if request.read {
            self.withdraw(pod, request)
        } else {
            self.settled.push(pod.clone())
        }
    }

    /// How many releases are asked for.
    pub fn releases(&self) -> usize {
        self.steps
            .iter()
            .filter(|s| matches!(s, Step::Release { .. }))
            .count()
    }

    /// How many pods are left alone for which reason.
    pub fn held_by_reason(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (_, held) in &self.held {
            *counts.entry(held.as_str()).or_default() += 1;
        }
        counts
    }
}

/// Decides what to ask for, at most `batch` releases.
pub fn decide(snapshot: &Snapshot, batch: usize) -> Plan {
    let mut plan = Plan::default();
    let unsettled = snapshot.nodes.values().any(undecided);
    let mut due = Vec::new();
    for (key, pod) in &snapshot.pods {
        let request = snapshot.requested.get(key);
        let verdict = pod
            .binding
            .as_ref()
            .map(|binding| (judge(snapshot, pod, binding, unsettled), binding));
        match (request, verdict) {
            (None, None) => {}
            (Some(request), None) => plan.settle(key, request),
            (Some(request), Some((verdict, binding))) => {
                let same = *request.node == *binding.node && request.session == binding.session;
                match verdict {
                    _ if !same => plan.settle(key, request),
                    Verdict::Release { health_revision }
                        if health_revision > request.health_revision =>
                    {
                        due.push((rank(pod), key, pod, binding, health_revision));
                    }
                    Verdict::Release { .. } => {}
                    // A request that stands while a conclusion is awaited does no harm that it would not have done
                    // before, and is likely to be right.
                    Verdict::Hold(Held::Unsettled) => {
                        plan.held.push((key.clone(), Held::Unsettled))
                    }
                    Verdict::Hold(held) => {
                        plan.held.push((key.clone(), held));
                        plan.withdraw(key, request);
                    }
                    Verdict::Stay => plan.withdraw(key, request),
                }
            }
            (None, Some((Verdict::Release { health_revision }, binding))) => {
                due.push((rank(pod), key, pod, binding, health_revision));
            }
            (None, Some((Verdict::Hold(held), _))) => plan.held.push((key.clone(), held)),
            (None, Some((Verdict::Stay, _))) => {}
        }
    }
    plan.losing = !due.is_empty()
        || !plan.held.is_empty()
        || !snapshot.requested.is_empty()
        || snapshot.unreadable_bindings;
    plan.more = due.len() > batch;
    due.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    plan.steps.extend(due.into_iter().take(batch).map(
        |(_, key, pod, binding, health_revision)| Step::Release {
            pod: key.clone(),
            binding: binding.clone(),
            health_revision,
            unfenced: matches!(
                pod.desired,
                Desired::Wanted {
                    policy: PartitionPolicy::Stop,
                    ..
                }
            ),
        },
    ));
    plan
}

/// What is to become of a bound pod.
enum Verdict {
    Release {
        health_revision: i64,
    },
    Hold(Held),
    /// Its node is there.
    Stay,
}

fn judge(snapshot: &Snapshot, pod: &PodFacts, binding: &BindingFacts, unsettled: bool) -> Verdict {
    let Some(node) = snapshot.nodes.get(&*binding.node) else {
        return Verdict::Stay;
    };
    if node.alive {
        return Verdict::Stay;
    }
    let Some(health) = node.health else {
        return Verdict::Hold(Held::Undecided);
    };
    match health.state {
        NodeState::Unreachable => {}
        NodeState::Suspended => return Verdict::Hold(Held::Suspended),
        NodeState::Ready | NodeState::Removed => return Verdict::Hold(Held::Undecided),
    }
    match (pod.desired, pod.stage) {
        // Nobody is left to stop it or to say that it has stopped.
        (Desired::Absent, _) => {}
        (Desired::Unreadable, _) | (_, Stage::Unreadable) => return Verdict::Hold(Held::Frozen),
        (_, Stage::Finished) if !binding.withdrawn => return Verdict::Hold(Held::Finished),
        (
            Desired::Wanted {
                policy: PartitionPolicy::Keep,
                ..
            },
            _,
        ) => return Verdict::Hold(Held::Kept),
        (
            Desired::Wanted {
                policy: PartitionPolicy::Stop,
                ..
            },
            _,
        ) if pod.claimed_unfenced => return Verdict::Hold(Held::Unfenceable),
        (
            Desired::Wanted {
                policy: PartitionPolicy::Stop,
                ..
            },
            _,
        ) if node.fenced => return Verdict::Hold(Held::Fenced),
        (Desired::Wanted { .. }, Stage::Unfinished | Stage::Finished) => {}
    }
    if unsettled {
        Verdict::Hold(Held::Unsettled)
    } else {
        Verdict::Release {
            health_revision: health.revision,
        }
    }
}

/// Whether a node is silent and node-lifecycle is about to say what that means.
fn undecided(node: &NodeFacts) -> bool {
    !node.alive && node.health.is_some_and(|h| h.state == NodeState::Ready)
}

/// Smaller ones are released first: high priorities, and last what nobody wants any more.
fn rank(pod: &PodFacts) -> (bool, i64) {
    match pod.desired {
        Desired::Wanted { priority, .. } => (false, -i64::from(priority)),
        Desired::Absent | Desired::Unreadable => (true, 0),
    }
}

#[cfg(test)]
mod tests;
