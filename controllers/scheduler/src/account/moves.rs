//! Moves: the other node is chosen here, and what a pod takes there is counted.
//!
//! A pod takes room on two nodes from when its move begins until the one it leaves has stopped it. The core knows pods
//! by their names, so what it takes on the other node is counted under a name that no object has.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::{
    NodeSelector, NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
};
use setpoint_apis::placement::profile_of;
use setpoint_apis::records::{Binding, Intent, MOST_MOVE_SECONDS, MOVE_TIMEOUT_SECONDS};
use setpoint_runtime::{Stored, View};
use setpoint_scheduler_core::{Decision, Placement, PodAsk, PodRequest, record};
use tokio::time::Instant;

use super::count::uses_content_aside;
use super::{Account, MOVES, Planned, PodState, Retry, Tell, Then, Turn};
use crate::content::Uses;
use crate::decide::{Facts, Seen, Session, is_terminal, look_again, ready_there};
use crate::specs::SpecInfo;
use crate::writes::{Extras, NewMove, Refusal};

/// How many of the best nodes are kept with the decision.
const BEST: usize = 3;

/// How long a refusal is put off at most until the view has reached the request. The view says that only with the next
/// change that it follows, or seconds later, so in a quiet cluster every refusal waits for so long; a view that is
/// further behind is that of a process which has worse troubles.
const LEVEL: Duration = Duration::from_secs(1);
/// How long until it is looked whether the view has. Choosing a node costs as much each time.
const LEVEL_STEP: Duration = Duration::from_millis(200);

/// What a pod takes of a node beside its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aside {
    pub(super) node: Arc<str>,
    /// It is counted as a user of content there.
    pub(super) uses: Uses,
}

/// See [`Account::puts_off_refusal`].
#[derive(Clone, Copy, Debug)]
pub(super) struct InVain {
    /// The revision of the request.
    request: i64,
    /// When it is refused in any case.
    until: Instant,
    /// Whether the view has been seen to have reached it.
    level: bool,
}

impl InVain {
    /// Whether it is not to be refused yet.
    pub(super) fn is_put_off(&self, now: Instant) -> bool {
        now < self.until
    }
}

/// The name under which it is counted.
fn name(pod: &ObjectKey) -> ObjectKey {
    ObjectKey {
        namespace: pod.namespace.clone(),
        name: format!("{}#aside", pod.name).into(),
    }
}

impl Account {
    /// Counts what a pod takes on the other node of its binding: all of it while it moves there; and while it leaves that
    /// node, until nothing of it is on record there.
    pub(super) fn count_aside(
        &mut self,
        key: &ObjectKey,
        state: &mut PodState,
        now: Option<(&Arc<Stored<Binding>>, Option<&SpecInfo>)>,
        view: &View<'_>,
    ) {
        self.set_other_node(key, state, now.and_then(|(b, _)| b.value.other_node()));
        let there = now.and_then(|(binding, info)| {
            let node = takes(key, &binding.value, view)?;
            Some((binding, info, Arc::<str>::from(node)))
        });
        let Some((binding, info, node)) = there else {
            self.forget_aside(key, state);
            return;
        };
        if state.aside.as_ref().is_some_and(|a| a.node != node) {
            self.forget_aside(key, state);
        }
        let class = self.class_there(key, binding, info, view);
        let name = name(key);
        self.cluster
            .place(&name, &node, &class, binding.create_revision);
        // It makes room for nobody while it comes; and is about to make room while it leaves.
        let leaves = binding.value.moving.is_none();
        self.cluster.set_staying(&name, !leaves);
        if self
            .nominations
            .set_leaving(&name, leaves.then_some(&*node))
            || leaves
        {
            self.cluster.set_leaving(&name, leaves);
        }
        self.mark_reserved(&node);
        let uses = match (info, &state.aside) {
            (Some(info), _) => info.uses.clone(),
            (None, Some(aside)) => aside.uses.clone(),
            (None, None) => Uses::default(),
        };
        self.set_aside(key, state, Some(Aside { node, uses }));
    }

    fn forget_aside(&mut self, key: &ObjectKey, state: &mut PodState) {
        if state.aside.is_some() {
            self.uncount(&name(key));
            self.set_aside(key, state, None);
        }
    }

    fn set_aside(&mut self, key: &ObjectKey, state: &mut PodState, now: Option<Aside>) {
        if state.aside == now {
            return;
        }
        uses_content_aside(&mut self.contents, key, state.aside.as_ref(), now.as_ref());
        state.aside = now;
    }

    /// Which node its binding speaks of beside its own, whether or not anything counts there.
    fn set_other_node(&mut self, key: &ObjectKey, state: &mut PodState, now: Option<&str>) {
        if state.other_node.as_deref() == now {
            return;
        }
        if let Some(before) = state.other_node.take()
            && let Some(pods) = self.movers.get_mut(&before)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.movers.remove(&before);
            }
        }
        if let Some(now) = now {
            let now = Arc::<str>::from(now);
            let pods = self.movers.entry(now.clone()).or_default();
            pods.insert(key.clone());
            state.other_node = Some(now);
        }
    }

    /// Whether what a pod takes on another node is counted wrongly.
    pub(super) fn aside_is_wrong(
        &self,
        key: &ObjectKey,
        binding: &Binding,
        view: &View<'_>,
    ) -> bool {
        let counted = self.cluster.placed(&name(key)).map(|(node, _)| &**node);
        counted != takes(key, binding, view)
    }

    /// Moves depend on the sessions of the nodes that pods go to or leave.
    pub(super) fn touch_movers(&mut self, node: &str) {
        let pods = self.movers.get(node).into_iter().flatten();
        let pods: Vec<_> = pods.cloned().collect();
        for pod in pods {
            self.touch(pod);
        }
    }

    /// Since when a pod has been ready on the node that it moves to is measured here, because clocks differ. A new leader
    /// begins anew.
    pub(super) fn note_ready(&self, state: &mut PodState, facts: &mut Facts<'_>) {
        let ready = ready_there(facts);
        if state.ready_seen.map(|(ready, _)| ready) != ready {
            state.ready_seen = ready.map(|ready| (ready, facts.now));
        }
        if let Some(other) = &mut facts.other {
            other.ready_seen = state.ready_seen.map(|(_, at)| at);
        }
    }

    /// A pod that is being moved is looked at again when its time is over.
    pub(super) fn look_again(
        &mut self,
        key: &ObjectKey,
        state: &mut PodState,
        facts: &Facts<'_>,
        turn: &Turn<'_>,
    ) {
        let due = look_again(facts).filter(|at| *at > turn.now);
        let Some(at) = due else {
            state.look_again = None;
            return;
        };
        // A timer that was early, because clocks drift, is set anew.
        if state
            .look_again
            .is_some_and(|(for_, tick)| for_ == at && tick > turn.tick)
        {
            return;
        }
        let tick = turn.tick + at.duration_since(turn.now);
        state.look_again = Some((at, tick));
        self.retry(tick, Retry::Pod(key.clone()));
    }

    /// Whether nodes may be chosen now for pods that are to be moved: it is known where reservations keep room, and this
    /// turn has not chosen so many already that others would wait for it.
    pub(super) fn may_move(&self) -> bool {
        self.moves < MOVES && self.unread_reservations.is_empty()
    }

    /// Finds a node for a pod that is to be moved, or says why there is none.
    pub(super) fn begin_move(
        &mut self,
        key: &ObjectKey,
        state: &mut PodState,
        facts: &Facts<'_>,
        which: usize,
        stop_first: bool,
        turn: &Turn<'_>,
    ) -> Option<Planned> {
        let (Seen::Valid(pod), Seen::Valid(binding)) = (facts.desired, facts.binding) else {
            return None;
        };
        let intent = facts.intents.get(which)?.intent.clone()?;
        let from = binding.value.node.as_str();
        let to = intent.to.as_deref().filter(|to| !to.is_empty());
        self.moves += 1;
        let chosen = self.choose(key, facts, pod, from, to, &intent, turn);
        let (placement, extras, info) = match chosen {
            Ok(chosen) => chosen,
            Err(message) => {
                if self.puts_off_refusal(key, state, facts.intents[which].revision, turn) {
                    return None;
                }
                let refusal = Refusal {
                    which,
                    to,
                    message: &message,
                };
                let (write, effects) = turn.writer(key).refuse_move(facts, &refusal)?;
                let tell = Tell {
                    uid: pod.uid(),
                    warning: true,
                    reason: "NotMoved",
                    message: format!("cannot move: {message}"),
                };
                return Some(planned(key, write, effects, tell));
            }
        };
        let node = placement.node.clone();
        let uses = info.uses.clone();
        self.set_aside(
            key,
            state,
            Some(Aside {
                node: node.clone(),
                uses,
            }),
        );
        // Those who ask for the same are content with it.
        let consume: Vec<usize> = facts
            .intents
            .iter()
            .enumerate()
            .filter(|(i, other)| *i == which || asks_for(other, &node))
            .map(|(i, _)| i)
            .collect();
        let new = NewMove {
            which,
            consume: &consume,
            placement: &placement,
            extras,
            revision: turn.revision(),
            stop_first,
            spec: info.text(),
        };
        let (write, effects) = turn.writer(key).begin_move(facts, pod, new)?;
        let how = match stop_first {
            true => format!("moving from {from} to {node}: stops it first"),
            false => format!("moving from {from} to {node}: starts it there first"),
        };
        let reason = match intent.reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let tell = Tell {
            uid: pod.uid(),
            warning: false,
            reason: "Moving",
            message: how + &reason,
        };
        Some(planned(key, write, effects, tell))
    }

    /// Whether a request that nothing can be found for is looked at once more. Requests have a watch of their own, so one
    /// may be seen before what was written ahead of it, such as the session of a node that has just joined; and a refusal
    /// stands. Hence nothing is refused before the view has reached the request, and what is known to have changed then
    /// has been counted.
    fn puts_off_refusal(
        &mut self,
        key: &ObjectKey,
        state: &mut PodState,
        request: i64,
        turn: &Turn<'_>,
    ) -> bool {
        let before = state.in_vain.filter(|v| v.request == request);
        let level = turn.revision() >= request;
        let until = before.map_or(turn.tick + LEVEL, |v| v.until);
        let vain = InVain {
            request,
            until,
            level,
        };
        state.in_vain = Some(vain);
        if !vain.is_put_off(turn.tick) {
            return false;
        }
        if !level {
            let next = until.min(turn.tick + LEVEL_STEP);
            self.retry(next, Retry::Pod(key.clone()));
            return true;
        }
        // It comes after all that is to be looked at now.
        let uncounted = !before.is_some_and(|v| v.level) && !self.dirty.is_empty();
        if uncounted {
            self.later_moves.push(key.clone());
        }
        uncounted
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, and all of it is at hand there"
    )]
    fn choose(
        &mut self,
        key: &ObjectKey,
        facts: &Facts<'_>,
        pod: &Stored<Pod>,
        from: &str,
        to: Option<&str>,
        intent: &Intent,
        turn: &Turn<'_>,
    ) -> Result<(Placement, Extras, Arc<SpecInfo>), String> {
        check(intent)?;
        if facts.session == Session::Absent {
            return Err(format!(
                "{from}, where it is, is lost: it is released from there when failover says so"
            ));
        }
        if to == Some(from) {
            return Err(format!("it is on {from} already"));
        }
        if let Some(to) = to
            && self.cluster.node(to).is_none()
        {
            return Err(format!("there is no node {to}"));
        }
        let named = pod
            .value
            .spec
            .node_name
            .as_deref()
            .filter(|n| !n.is_empty());
        if let Some(named) = named {
            return Err(format!("its spec.nodeName says {named}"));
        }
        if let Some(claim) = pod.value.spec.claim_names().first() {
            return Err(format!(
                "its volume claim {claim} is a directory of {from}, which would stay there"
            ));
        }
        let asked = self.asks.of(&pod.value.spec).map_err(|hold| hold.message)?;
        let specs = &mut self.specs;
        let info = specs.get(&pod.value, &key.namespace, &asked, &mut self.cluster);
        let spec = elsewhere(&pod.value.spec, from, to);
        let class = self.cluster.class(&PodAsk {
            namespace: &key.namespace,
            labels: &pod.value.metadata.labels,
            spec: &spec,
            priority: asked.priority,
            profile: asked.profile.clone(),
        });
        // What it takes and says where it is will be gone when the move is over.
        let counted = self
            .cluster
            .placed(key)
            .map(|(node, class)| (node.clone(), class.clone()));
        self.cluster.forget(key);
        let name = name(key);
        let request = PodRequest {
            pod: name.clone(),
            class,
        };
        let (decision, scores) = self.cluster.schedule_explained(&request, self.seed, BEST);
        if let (Some((node, class)), Seen::Valid(binding)) = (counted, facts.binding) {
            self.cluster
                .place(key, &node, &class, binding.create_revision);
        }
        match decision {
            Decision::Bind(placement) => {
                // As what it is, and not as what it was looked for.
                self.cluster
                    .place(&name, &placement.node, &info.class, turn.revision());
                self.cluster.set_staying(&name, true);
                self.arrived = true;
                let extras = Extras {
                    best: record::best(&scores, &placement, BEST),
                    profile: profile_of(&pod.value.spec).map(Into::into),
                    preempted: Vec::new(),
                };
                Ok((placement, extras, info))
            }
            Decision::Unschedulable(verdict) => Err(verdict.message(&spec)),
        }
    }
}

/// The node beside its own on which a pod takes something.
fn takes<'a>(key: &ObjectKey, binding: &'a Binding, view: &View<'_>) -> Option<&'a str> {
    if let Some(moving) = &binding.moving {
        return Some(&moving.to);
    }
    let leaving = binding.leaving.as_deref()?;
    let actual = view.pod_on(leaving, key)?;
    let ended = actual.valid().is_some_and(|a| is_terminal(&a.value));
    (!ended).then_some(leaving)
}

/// Whether what is asked makes sense.
fn check(intent: &Intent) -> Result<(), String> {
    let timeout = intent.timeout_seconds.unwrap_or(MOVE_TIMEOUT_SECONDS);
    if !(1..=MOST_MOVE_SECONDS).contains(&timeout) {
        return Err(format!(
            "timeoutSeconds of the request must be between 1 and {MOST_MOVE_SECONDS}, and is {timeout}"
        ));
    }
    let ready = intent.min_ready_seconds.unwrap_or(0);
    if !(0..timeout).contains(&ready) {
        return Err(format!(
            "minReadySeconds of the request must be at least 0 and less than its timeoutSeconds ({timeout}), and is {ready}"
        ));
    }
    Ok(())
}

/// Whether a request is carried out by a move to a node.
fn asks_for(intent: &crate::decide::IntentFacts, node: &str) -> bool {
    intent.verb == crate::decide::Verb::Move
        && intent
            .intent
            .as_ref()
            .is_some_and(|i| i.to.as_deref().is_none_or(|to| to == node))
}

/// The spec of a pod that must not be where it is, and, when a node is named, must be there.
fn elsewhere(spec: &PodSpec, from: &str, to: Option<&str>) -> PodSpec {
    let requirement = |operator, name: &str| NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator,
        values: vec![name.into()],
    };
    let mut requirements = vec![requirement(NodeSelectorOperator::NotIn, from)];
    requirements.extend(to.map(|to| requirement(NodeSelectorOperator::In, to)));
    let mut spec = spec.clone();
    let affinity = spec.affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    let restricted = affinity
        .required_during_scheduling_ignored_during_execution
        .is_some();
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm::default()],
        });
    for term in &mut required.node_selector_terms {
        // One without requirements matches nothing, and must not begin to.
        if !restricted || *term != NodeSelectorTerm::default() {
            term.match_fields.extend(requirements.iter().cloned());
        }
    }
    spec
}

fn planned(
    key: &ObjectKey,
    write: setpoint_runtime::Write,
    effects: crate::writes::Effects,
    tell: Tell,
) -> Planned {
    Planned {
        write,
        then: Then::Pod {
            key: key.clone(),
            effects,
            binds: false,
            tell: Some(tell),
        },
    }
}
