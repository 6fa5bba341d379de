//! What the node loop knows and what follows from it: a pure function from work, what runs, and what etcd was told, to
//! the next writes and the next calls of the pod layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{
    ClaimFence, PodActual, StopOrder, Tombstone, WorkHeader, never_twice,
};

/// A pod in the work tree.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// The mod revision of the work key: the claim is guarded on it.
    pub(crate) mod_revision: i64,
    pub(crate) header: WorkHeader,
    pub(crate) pod: Arc<Pod>,
    /// The document as it stands in etcd, for the disk copy.
    pub(crate) text: Arc<str>,
}

impl Work {
    pub(crate) fn placement(&self) -> u32 {
        self.header.placement.unwrap_or_default()
    }

    /// Whether the pod must never run twice: it is claimed under a fence.
    pub(crate) fn never_twice(&self) -> bool {
        never_twice(&self.pod.metadata)
    }
}

/// Where a pod stands between work tree, machine and actual tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The pod layer has it.
    Running,
    /// The pod layer was told to stop it.
    Stopping,
    /// Nothing of it runs. Its actual record, when it has one, is to be deleted.
    Gone,
}

/// A pod that this node has claimed.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) uid: String,
    pub(crate) placement: u32,
    /// The work key's mod revision that the pod layer has.
    pub(crate) work_revision: i64,
    pub(crate) phase: Phase,
    /// The fence under which it was claimed, and without which it must not run.
    pub(crate) fence: Option<ClaimFence>,
    /// What the pod layer said last.
    pub(crate) actual: Option<Arc<PodActual>>,
    /// What etcd was told last; `None` when it is not known to have a record.
    pub(crate) written: Option<Arc<PodActual>>,
}

impl Local {
    fn status_due(&self) -> bool {
        let Some(actual) = self.actual.as_ref().filter(|_| self.phase != Phase::Gone) else {
            return false;
        };
        // The same record mostly: a plan looks at every pod.
        let told = |written: &Arc<PodActual>| Arc::ptr_eq(actual, written) || actual == written;
        !self.written.as_ref().is_some_and(told)
    }
}

/// A fence that this node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldFence {
    pub(crate) claim: ClaimFence,
    /// Whether it has just been renewed.
    pub(crate) fresh: bool,
}

/// Everything that decides.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) work: BTreeMap<ObjectKey, Work>,
    /// Work keys whose documents do not parse: whatever runs of them stays as it is.
    pub(crate) frozen: BTreeSet<ObjectKey>,
    /// In how many seconds pods are to be stopped that are withdrawn, where somebody has asked for that.
    pub(crate) stops: BTreeMap<ObjectKey, StopOrder>,
    pub(crate) locals: BTreeMap<ObjectKey, Local>,
    /// Pods from before this session that are not this node's any more. Nothing is claimed until they are gone.
    pub(crate) stale: BTreeSet<Incarnation>,
    /// Claims that failed are not repeated before their work changes or the retry timer clears this.
    pub(crate) refused: BTreeMap<ObjectKey, i64>,
    /// The fence that this node holds.
    pub(crate) fence: Option<HeldFence>,
    /// Whether etcd is known to keep the promises that fences rest on.
    pub(crate) trusted: bool,
    /// Volume claims that are gone, by the name of their tombstone.
    pub(crate) tombstones: BTreeMap<String, Grave>,
}

/// A tombstone, and whether it has been obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grave {
    /// Its mod revision.
    pub(crate) revision: i64,
    pub(crate) tombstone: Tombstone,
    pub(crate) obeyed: bool,
}

impl State {
    /// Whether there is a pod to be claimed that must never run twice.
    pub(crate) fn waits_for_trust(&self) -> bool {
        self.work.iter().any(|(key, work)| {
            work.never_twice()
                && !self.locals.contains_key(key)
                && self.refused.get(key) != Some(&work.mod_revision)
        })
    }

    /// Whether there are pods that must never run twice, here or to be claimed.
    pub(crate) fn wants_fence(&self) -> bool {
        let runs = |local: &Local| local.fence.is_some() && local.phase != Phase::Gone;
        self.locals.values().any(runs) || self.work.values().any(Work::never_twice)
    }

    /// The tombstones that are to be obeyed now. While the end of a pod of the claim's namespace is not yet on record it
    /// is not, since the claim may have been that pod's; nothing of it runs, and it takes a moment.
    pub(crate) fn due_tombstones(&self) -> Vec<&Grave> {
        let ending: BTreeSet<&str> = self
            .locals
            .iter()
            .filter(|(_, local)| local.phase == Phase::Gone)
            .map(|(key, _)| &*key.namespace)
            .collect();
        let graves = self.tombstones.values();
        graves
            .filter(|g| !g.obeyed && !ending.contains(g.tombstone.namespace.as_str()))
            .collect()
    }

    /// The tombstones that were obeyed, as the node's status names them.
    pub(crate) fn obeyed_tombstones(&self) -> BTreeMap<String, i64> {
        let obeyed = self.tombstones.iter().filter(|(_, grave)| grave.obeyed);
        obeyed
            .map(|(name, grave)| (name.clone(), grave.revision))
            .take(MOST_OBEYED)
            .collect()
    }

    fn may_run_under(&self, claimed: ClaimFence) -> bool {
        self.fence
            .is_some_and(|held| held.claim.revision == claimed.revision)
    }
}

/// How many tombstones a status names: the others come when these are gone.
const MOST_OBEYED: usize = 1000;

/// A call of the pod layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Update(ObjectKey),
    Stop(ObjectKey),
    /// At once: the fence under which it was claimed is gone.
    Kill(ObjectKey),
}

/// A guarded write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeWrite {
    /// Put the claim, if the work key is still at this revision and there is no actual record.
    Claim(ObjectKey, i64),
    /// Put the status.
    Status(ObjectKey),
    /// Put the status of a claim whose record is not there, if the work key is still at this revision and there is no
    /// record: what was taken from this node meanwhile must not look claimed again.
    Restore(ObjectKey, i64),
    /// Delete the actual record.
    Forget(ObjectKey),
}

/// What follows from a [`State`].
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) calls: Vec<Call>,
    pub(crate) writes: Vec<NodeWrite>,
}

/// A pod with its uid and placement. The same pod may be this node's again, as another placement.
pub(crate) type Incarnation = (ObjectKey, String, u32);

/// At the beginning of a session: what this node had claimed and is not its own any more.
pub(crate) fn stale(state: &State) -> BTreeSet<Incarnation> {
    state
        .locals
        .iter()
        .filter(|(key, local)| {
            !state.frozen.contains(*key) && !is_current(state.work.get(*key), local)
        })
        .map(|(key, local)| (key.clone(), local.uid.clone(), local.placement))
        .collect()
}

/// Whether something of what was stale is still here.
fn stale_left(state: &State) -> bool {
    state.stale.iter().any(|(key, uid, placement)| {
        state
            .locals
            .get(key)
            .is_some_and(|l| l.uid == *uid && l.placement == *placement && l.phase != Phase::Gone)
    })
}

/// Decides the next step. Stops and deletions come before claims.
pub(crate) fn plan(state: &State) -> Plan {
    let mut plan = Plan::default();
    for (key, local) in &state.locals {
        if local.phase == Phase::Gone {
            plan.writes.push(NodeWrite::Forget(key.clone()));
            continue;
        }
        let work = state.work.get(key);
        if local.phase != Phase::Stopping && local.fence.is_some_and(|f| !state.may_run_under(f)) {
            plan.calls.push(Call::Kill(key.clone()));
        } else if local.phase == Phase::Running && !state.frozen.contains(key) {
            match work {
                Some(work) if is_current(Some(work), local) => {
                    if work.mod_revision != local.work_revision {
                        plan.calls.push(Call::Update(key.clone()));
                    }
                }
                _ => plan.calls.push(Call::Stop(key.clone())),
            }
        }
        // Without a record, what is not this node's any more was released: it may be claimed elsewhere by now, and is
        // stopped here without another word.
        if local.status_due() {
            let current = work.filter(|work| is_current(Some(work), local));
            if local.written.is_some() {
                plan.writes.push(NodeWrite::Status(key.clone()));
            } else if let Some(work) = current {
                plan.writes
                    .push(NodeWrite::Restore(key.clone(), work.mod_revision));
            }
        }
    }
    if !stale_left(state) {
        for (key, work) in &state.work {
            let fenced =
                !work.never_twice() || state.trusted && state.fence.is_some_and(|held| held.fresh);
            if fenced
                && !state.locals.contains_key(key)
                && state.refused.get(key) != Some(&work.mod_revision)
            {
                plan.writes
                    .push(NodeWrite::Claim(key.clone(), work.mod_revision));
            }
        }
    }
    plan
}

pub(crate) fn is_current(work: Option<&Work>, local: &Local) -> bool {
    work.is_some_and(|w| w.placement() == local.placement && w.header.uid == local.uid)
}

#[cfg(test)]
mod tests {
    use setpoint_apis::records::PodStage;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::namespaced("default", name)
    }

    fn mk_work(placement: u32, revision: i64) -> Work {
        let header = WorkHeader {
            placement: Some(placement),
            uid: "u".into(),
            source_revision: 1,
        };
        Work {
            mod_revision: revision,
            header,
            pod: Arc::default(),
            text: Arc::from(""),
        }
    }

    fn mk_local(placement: u32, phase: Phase) -> Local {
        Local {
            uid: "u".into(),
            placement,
            work_revision: 5,
            phase,
            fence: None,
            actual: None,
            written: None,
        }
    }

    const FENCE: ClaimFence = ClaimFence {
        revision: 3,
        lease_ttl_seconds: 30,
    };

    fn held(revision: i64, fresh: bool) -> Option<HeldFence> {
        let claim = ClaimFence { revision, ..FENCE };
        Some(HeldFence { claim, fresh })
    }

    fn mk_single(placement: u32, revision: i64) -> Work {
        let mut pod = Pod::default();
        let policy = setpoint_apis::records::PARTITION_POLICY;
        pod.metadata
            .annotations
            .insert(policy.into(), "stop".into());
        Work {
            pod: Arc::new(pod),
            ..mk_work(placement, revision)
        }
    }

    fn state(work: &[(&str, Work)], locals: &[(&str, Local)]) -> State {
        State {
            work: work.iter().map(|(n, w)| (key(n), w.clone())).collect(),
            locals: locals.iter().map(|(n, l)| (key(n), l.clone())).collect(),
            ..State::default()
        }
    }

    #[test]
    fn a_tombstone_waits_until_the_end_of_the_pods_around_it_is_on_record() {
        let mut s = state(
            &[],
            &[
                ("a", mk_local(1, Phase::Gone)),
                ("b", mk_local(1, Phase::Running)),
            ],
        );
        let grave = |revision, namespace: &str, obeyed| Grave {
            revision,
            tombstone: Tombstone {
                namespace: namespace.into(),
                ..Tombstone::default()
            },
            obeyed,
        };
        s.tombstones = BTreeMap::from([
            ("u1".into(), grave(7, "default", false)),
            ("u2".into(), grave(8, "other", false)),
            ("u3".into(), grave(9, "other", true)),
        ]);
        let due = |s: &State| -> Vec<i64> {
            let due = s.due_tombstones().into_iter();
            due.map(|grave| grave.revision).collect()
        };
        assert_eq!(due(&s), [8]);
        s.locals.remove(&key("a"));
        assert_eq!(due(&s), [7, 8], "whether one runs the disk knows");
        assert_eq!(s.obeyed_tombstones(), BTreeMap::from([("u3".into(), 9)]));
    }

    #[test]
    fn new_work_is_claimed_at_the_revision_that_was_seen() {
        let s = state(&[("a", mk_work(1, 7))], &[]);
        assert_eq!(
            plan(&s),
            Plan {
                calls: vec![],
                writes: vec![NodeWrite::Claim(key("a"), 7)]
            }
        );
    }

    #[test]
    fn a_pod_that_must_never_run_twice_is_claimed_under_a_fresh_fence_only() {
        let mut s = state(&[("a", mk_single(1, 7)), ("b", mk_work(1, 8))], &[]);
        let (a, b) = (NodeWrite::Claim(key("a"), 7), NodeWrite::Claim(key("b"), 8));
        assert!(s.wants_fence() && s.waits_for_trust());
        assert_eq!(plan(&s).writes, std::slice::from_ref(&b));
        s.trusted = true;
        s.fence = held(3, false);
        assert_eq!(plan(&s).writes, std::slice::from_ref(&b));
        s.fence = held(3, true);
        s.trusted = false;
        assert_eq!(
            plan(&s).writes,
            std::slice::from_ref(&b),
            "etcd is not trusted"
        );
        s.trusted = true;
        assert_eq!(plan(&s).writes, [a, b]);
        s.work.remove(&key("a"));
        assert!(!s.wants_fence() && !s.waits_for_trust());
    }

    #[test]
    fn what_was_claimed_under_a_fence_that_is_gone_is_killed_whatever_its_work_says() {
        let mut local = mk_local(1, Phase::Running);
        local.fence = Some(FENCE);
        let mut s = state(&[("a", mk_single(1, 5))], &[("a", local)]);
        let kill = [Call::Kill(key("a"))];
        assert_eq!(plan(&s).calls, kill);
        s.fence = held(4, true);
        assert_eq!(plan(&s).calls, kill, "another one does not do");
        s.frozen.insert(key("a"));
        assert_eq!(plan(&s).calls, kill);
        s.fence = held(3, false);
        assert_eq!(plan(&s), Plan::default());
        s.work.clear();
        assert!(s.wants_fence(), "it runs");
        s.fence = None;
        s.locals.get_mut(&key("a")).unwrap().phase = Phase::Stopping;
        assert_eq!(plan(&s), Plan::default());
        s.locals.get_mut(&key("a")).unwrap().phase = Phase::Gone;
        assert!(!s.wants_fence(), "nothing of it runs");
    }

    #[test]
    fn a_claim_that_was_refused_waits_for_the_work_to_change() {
        let mut s = state(&[("a", mk_work(1, 7))], &[]);
        s.refused.insert(key("a"), 7);
        assert_eq!(plan(&s), Plan::default());
        s.work.insert(key("a"), mk_work(1, 8));
        assert_eq!(plan(&s).writes, [NodeWrite::Claim(key("a"), 8)]);
    }

    #[test]
    fn withdrawn_work_is_stopped_then_forgotten() {
        let mut s = state(&[], &[("a", mk_local(1, Phase::Running))]);
        assert_eq!(
            plan(&s),
            Plan {
                calls: vec![Call::Stop(key("a"))],
                writes: vec![]
            }
        );
        s.locals.get_mut(&key("a")).unwrap().phase = Phase::Stopping;
        assert_eq!(plan(&s), Plan::default());
        s.locals.get_mut(&key("a")).unwrap().phase = Phase::Gone;
        assert_eq!(plan(&s).writes, [NodeWrite::Forget(key("a"))]);
    }

    #[test]
    fn another_placement_of_a_pod_waits_for_the_end_of_the_former_one() {
        let mut s = state(
            &[("a", mk_work(2, 9))],
            &[("a", mk_local(1, Phase::Running))],
        );
        assert_eq!(
            plan(&s),
            Plan {
                calls: vec![Call::Stop(key("a"))],
                writes: vec![]
            }
        );
        s.locals.get_mut(&key("a")).unwrap().phase = Phase::Gone;
        assert_eq!(plan(&s).writes, [NodeWrite::Forget(key("a"))]);
        s.locals.clear();
        assert_eq!(plan(&s).writes, [NodeWrite::Claim(key("a"), 9)]);
    }

    #[test]
    fn a_session_claims_nothing_before_what_is_no_longer_its_own_is_gone() {
        let mut s = state(
            &[("new", mk_work(1, 7))],
            &[("old", mk_local(1, Phase::Stopping))],
        );
        s.stale = stale(&s);
        assert_eq!(s.stale, BTreeSet::from([(key("old"), "u".into(), 1)]));
        assert_eq!(plan(&s), Plan::default());
        s.locals.get_mut(&key("old")).unwrap().phase = Phase::Gone;
        assert_eq!(
            plan(&s).writes,
            [
                NodeWrite::Forget(key("old")),
                NodeWrite::Claim(key("new"), 7)
            ]
        );
    }

    #[test]
    fn a_pod_that_is_this_nodes_again_is_not_what_it_was_before() {
        let mut s = state(&[], &[("a", mk_local(1, Phase::Running))]);
        s.stale = stale(&s);
        // It has stopped, and its record is known to be gone from a listing; then it is bound here once more.
        s.locals.clear();
        s.locals.insert(key("a"), mk_local(2, Phase::Running));
        s.work.insert(key("a"), mk_work(2, 5));
        s.work.insert(key("b"), mk_work(1, 6));
        assert_eq!(plan(&s).writes, [NodeWrite::Claim(key("b"), 6)]);
    }

    #[test]
    fn work_that_does_not_parse_freezes_what_runs() {
        let mut s = state(&[], &[("a", mk_local(1, Phase::Running))]);
        s.frozen.insert(key("a"));
        assert_eq!(stale(&s), BTreeSet::new());
        assert_eq!(plan(&s), Plan::default());
    }

    #[test]
    fn a_status_is_written_once() {
        let mut local = mk_local(1, Phase::Running);
        let running = PodActual {
            stage: PodStage::Running,
            ..PodActual::default()
        };
        local.actual = Some(Arc::new(running.clone()));
        let mut s = state(&[("a", mk_work(1, 5))], &[("a", local)]);
        assert_eq!(plan(&s).writes, [NodeWrite::Restore(key("a"), 5)]);
        s.locals.get_mut(&key("a")).unwrap().written = Some(Arc::new(running));
        assert_eq!(plan(&s), Plan::default());
    }

    #[test]
    fn what_was_released_while_the_node_was_away_gets_no_record_again() {
        let mut local = mk_local(1, Phase::Running);
        local.actual = Some(Arc::default());
        let mut s = state(&[], &[("a", local)]);
        assert_eq!(plan(&s).calls, [Call::Stop(key("a"))]);
        assert_eq!(plan(&s).writes, []);
        // A record that is still there is kept true until the pod has stopped.
        let old = PodActual {
            placement: 1,
            ..PodActual::default()
        };
        s.locals.get_mut(&key("a")).unwrap().written = Some(Arc::new(old));
        assert_eq!(plan(&s).writes, [NodeWrite::Status(key("a"))]);
    }

    #[test]
    fn a_changed_document_of_the_same_placement_is_handed_on() {
        let s = state(
            &[("a", mk_work(1, 6))],
            &[("a", mk_local(1, Phase::Running))],
        );
        assert_eq!(
            plan(&s),
            Plan {
                calls: vec![Call::Update(key("a"))],
                writes: vec![]
            }
        );
    }
}
