//! Placing: pods that want a node get one from the core, or a reason.

use std::cmp::Reverse;
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_apis::placement::profile_of;
use setpoint_apis::records::ConstraintKind;
use setpoint_runtime::Stored;
use setpoint_scheduler_core::{Decision, Placement, PodRequest, Unschedulable, record};

use super::count::uses_content;
use super::{Account, Planned, PodState, Tell, Then, Turn};
use crate::asks::{GATED, Hold};
use crate::claims;
use crate::pending::{Order, Wish};
use crate::quota::{Refusal, Trial};
use crate::specs::SpecInfo;
use crate::verdict;
use crate::writes::{Extras, Says};

/// Bindings in one turn up to which each gets an event. In a flood the bindings themselves tell as much, and the events
/// would cost the store half as much again.
pub(super) const MOST_EVENTS: usize = 100;
/// Pods in one turn up to which the best few nodes of each are kept with the parts of their scores.
const MOST_EXPLAINED: usize = 16;
/// How many nodes are kept then.
const BEST: usize = 3;

/// A pod that is about to be decided on.
pub(super) struct Candidate<'a> {
    pub(super) wish: Wish,
    pub(super) pod: &'a Arc<Stored<Pod>>,
    pub(super) info: Arc<SpecInfo>,
}

impl Candidate<'_> {
    pub(super) fn request(&self) -> PodRequest {
        PodRequest {
            pod: self.wish.order.pod.clone(),
            class: self.wish.class.clone(),
        }
    }
}

impl Account {
    /// Lines a pod up, unless something holds it back that no node can help with: then that is written.
    pub(super) fn want(
        &mut self,
        state: &PodState,
        key: &ObjectKey,
        pod: &Stored<Pod>,
        info: Option<&Arc<SpecInfo>>,
        turn: &Turn<'_>,
    ) -> Option<Planned> {
        let spec = &pod.value.spec;
        self.claims.note(key, spec);
        let asked = |a: &Self| a.asks.of_waiting(turn.view, &key.namespace, spec);
        let hold = Hold::of_gates(spec).or_else(|| asked(self).err());
        if let Some(hold) = hold {
            self.unwant(key);
            self.tell_group_held(key, pod);
            let tell = (hold.reason != GATED).then(|| Tell {
                uid: pod.uid(),
                warning: true,
                reason: "FailedScheduling",
                message: hold.message.clone(),
            });
            return self.record(turn, key, pod, state, Says::held(&hold), tell);
        }
        let info = info?;
        let wish = Wish {
            order: Order {
                priority: Reverse(info.asked.priority),
                created: pod.create_revision,
                pod: key.clone(),
            },
            revision: pod.mod_revision,
            class: info.class.clone(),
        };
        if self.wants_with_group(&wish, pod) {
            return None;
        }
        if !self.pending.is_known(&wish) {
            if let Some(former) = self.pending.remove(key) {
                self.quotas.wait_no_more(&former.order);
            }
            // It may ask for something else now than what it was woken for.
            self.quotas.forgo(key);
            self.pending.add(wish);
        }
        None
    }

    /// A pod wants no node, or not now.
    pub(super) fn unwant(&mut self, key: &ObjectKey) {
        if let Some(wish) = self.pending.remove(key) {
            self.quotas.wait_no_more(&wish.order);
        }
        self.quotas.forgo(key);
        if self.void_nomination(key).is_some() && self.cluster.placed(key).is_none() {
            self.room_freed |= self.cluster.forget(key);
        }
    }

    /// Wakes those who wait, where what changed since the last turn can help them.
    pub(super) fn wake_waiting(&mut self, turn: &Turn<'_>) {
        for order in self.quotas.admitted() {
            match self.gangs.of(&order.pod).cloned() {
                // Whether the pod is lined up is for its group to say: alone it may not be placed.
                Some(group) => self.gangs.retry(&group),
                None => self.pending.unpark(&order.pod),
            }
        }
        let changed = crate::pending::Changed {
            nodes: std::mem::take(&mut self.nodes_changed),
            room: std::mem::take(&mut self.room_freed),
            arrivals: std::mem::take(&mut self.arrived),
        };
        if !changed.any() {
            return;
        }
        if changed.nodes {
            self.rouse_stranded();
        }
        let preempting = self
            .pending
            .changed(changed, self.lowest, &mut self.cluster, turn.tick);
        for class in preempting {
            self.rouse_preemptor(&class);
        }
        let Self { gangs, cluster, .. } = self;
        let arrivals_alone = !changed.nodes && !changed.room;
        gangs.wake(arrivals_alone, |wish| cluster.has_room(&wish.class));
        if !arrivals_alone {
            self.dirty_reservations.extend(self.reservations.waiting());
        }
    }

    /// Places up to `limit` pods, and groups in between in their order.
    pub(super) fn place(&mut self, turn: &Turn<'_>, limit: usize, out: &mut Vec<Planned>) {
        self.no_victims.clear();
        let end = out.len() + limit;
        while out.len() < end {
            let Some((half, first)) = self.gangs.first() else {
                break;
            };
            if !half {
                let first = first.clone();
                let room = end - out.len();
                let wishes = self.pending.take(room, Some(&first), &mut self.cluster);
                if wishes.len() >= room {
                    return self.place_singly(turn, wishes, out);
                }
                self.place_singly(turn, wishes, out);
            }
            self.place_group(turn, out);
        }
        let wishes = self
            .pending
            .take(end.saturating_sub(out.len()), None, &mut self.cluster);
        self.place_singly(turn, wishes, out);
    }

    fn place_singly(&mut self, turn: &Turn<'_>, wishes: Vec<Wish>, out: &mut Vec<Planned>) {
        if wishes.is_empty() {
            return;
        }
        let mut trial = Trial::default();
        let mut candidates = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let order = wish.order.clone();
            let Some(candidate) = self.candidate(turn, wish) else {
                // It changed, or a write about it is under way: decided from scratch.
                self.touch(order.pod);
                continue;
            };
            match self.admit(&mut trial, &candidate) {
                Ok(()) => candidates.push(candidate),
                Err(refusal) => self.refused(turn, candidate, &refusal, out),
            }
        }
        let many = candidates.len() > MOST_EXPLAINED;
        let quiet = candidates.len() > MOST_EVENTS;
        let mut all_bound = true;
        let mut rest = candidates.into_iter().peekable();
        while let Some(first) = rest.next() {
            // Those of one priority are decided on together. Whoever has been promised room, and whoever is to be
            // explained, is decided on alone.
            let alone = |a: &Self, c: &Candidate<'_>| {
                !many || a.nominations.get(&c.wish.order.pod).is_some()
            };
            let mut run = vec![first];
            if !alone(self, &run[0]) {
                while let Some(next) = rest.next_if(|c| {
                    c.wish.order.priority == run[0].wish.order.priority && !alone(self, c)
                }) {
                    run.push(next);
                }
            }
            let (decisions, scores) = if many {
                let requests: Vec<_> = run.iter().map(Candidate::request).collect();
                (self.cluster.schedule(&requests, self.seed), Vec::new())
            } else {
                let request = run[0].request();
                let (decision, scores) = self.cluster.schedule_explained(&request, self.seed, BEST);
                (vec![decision], scores)
            };
            for (candidate, decision) in run.into_iter().zip(decisions) {
                match decision {
                    Decision::Bind(placement) => {
                        let best = record::best(&scores, &placement, BEST);
                        out.push(self.bind(turn, &candidate, &placement, best, quiet));
                    }
                    Decision::Unschedulable(verdict) => {
                        all_bound = false;
                        self.unschedulable(turn, candidate, &verdict, out);
                    }
                }
            }
        }
        if !all_bound {
            self.quotas.reconsider(trial);
        }
    }

    /// A pod as it is now, when nothing stands in the way of deciding on it.
    pub(super) fn candidate<'a>(
        &mut self,
        turn: &'a Turn<'_>,
        mut wish: Wish,
    ) -> Option<Candidate<'a>> {
        let key = &wish.order.pod;
        let state = self.pods.get(key)?;
        if state.busy || state.not_before > turn.revision() || turn.view.bindings().contains(key) {
            return None;
        }
        let pod = turn.view.desired::<Pod>().get(key)?;
        let asks = &self.asks;
        let asked = asks.of_waiting(turn.view, &key.namespace, &pod.value.spec);
        let asked = asked.ok()?;
        let specs = &mut self.specs;
        let info = specs.get(&pod.value, &key.namespace, &asked, &mut self.cluster);
        wish.class = info.class.clone();
        wish.revision = pod.mod_revision;
        Some(Candidate { wish, pod, info })
    }

    pub(super) fn admit(
        &self,
        trial: &mut Trial,
        candidate: &Candidate<'_>,
    ) -> Result<(), Refusal> {
        let pod = &candidate.wish.order.pod;
        if !self.quotas.covers(&pod.namespace) {
            return Ok(());
        }
        self.quotas.admit(trial, pod, candidate.info.usage())
    }

    /// A quota does not let a pod in: it waits for that.
    pub(super) fn refused(
        &mut self,
        turn: &Turn<'_>,
        candidate: Candidate<'_>,
        refusal: &Refusal,
        out: &mut Vec<Planned>,
    ) {
        let Candidate { wish, pod, info } = candidate;
        let hold = Hold {
            hope: refusal.hope,
            ..Hold::new(
                ConstraintKind::Quota,
                &refusal.detail,
                refusal.message.clone(),
            )
        };
        let key = wish.order.pod.clone();
        if self.gangs.of(&key).is_some() {
            self.quotas
                .wait_in_group(wish.order.clone(), info.usage().clone());
        } else {
            self.quotas.wait(wish.order.clone(), info.usage().clone());
        }
        if self.void_nomination(&key).is_some() {
            self.room_freed |= self.cluster.forget(&key);
        }
        self.pending.park(wish);
        out.extend(self.say(turn, &key, pod, Says::held(&hold)));
    }

    fn unschedulable(
        &mut self,
        turn: &Turn<'_>,
        candidate: Candidate<'_>,
        verdict: &Arc<Unschedulable>,
        out: &mut Vec<Planned>,
    ) {
        let Candidate { wish, pod, info } = candidate;
        self.preempt(&wish, pod, &info);
        let key = wish.order.pod.clone();
        let class = wish.class.clone();
        self.pending.wait(wish, verdict, info.asked.preempts);
        let says = self.says(&key, pod, verdict);
        let recorded = self.pods.get(&key).and_then(|s| s.recorded.as_ref());
        match recorded {
            _ if says.is_said_by(recorded) => {}
            // Not the first attempt: the reasons change with every node, and are written now and then.
            Some(r) if r.unschedulable && r.nominated == says.nominated => {
                self.pending.refresh_later(&class, turn.tick);
            }
            _ => out.extend(self.say(turn, &key, pod, says)),
        }
    }

    pub(super) fn bind(
        &mut self,
        turn: &Turn<'_>,
        candidate: &Candidate<'_>,
        placement: &Placement,
        best: Vec<setpoint_apis::records::NodeScore>,
        quiet: bool,
    ) -> Planned {
        let Candidate { wish, pod, info } = candidate;
        let key = &wish.order.pod;
        self.arrived = true;
        self.lowest = self.lowest.min(info.asked.priority);
        if self.quotas.covers(&key.namespace) {
            self.quotas.charge(key, info.usage());
        }
        let promised = self.void_nomination(key);
        let promised = promised.filter(|n| n.node == placement.node);
        let extras = Extras {
            best,
            profile: profile_of(&pod.value.spec).map(Into::into),
            preempted: promised.map_or_else(Vec::new, |n| {
                n.victims.iter().map(ToString::to_string).collect()
            }),
        };
        let Self { pods, contents, .. } = self;
        let state = pods.entry(key.clone()).or_default();
        uses_content(contents, key, state, Some((&placement.node, &info.uses)));
        let recorded = state.recorded.as_ref();
        let (mut write, effects) = turn.writer(key).bind(
            pod,
            info.text(),
            placement,
            extras,
            recorded,
            turn.revision(),
        );
        let (spec, node) = (&pod.value.spec, &placement.node);
        let claims = claims::place(turn.view, turn.keyspace, &key.namespace, spec, node);
        write.guards.extend(claims.guards);
        write.ops.extend(claims.ops);
        state.busy = true;
        self.binding += 1;
        self.gangs.is_binding(key);
        let tell = (!quiet).then(|| Tell {
            uid: pod.uid(),
            warning: false,
            reason: "Scheduled",
            message: format!("Successfully assigned {key} to {}", placement.node),
        });
        Planned {
            write,
            then: Then::Pod {
                key: key.clone(),
                effects,
                binds: true,
                tell,
            },
        }
    }

    fn says(&self, key: &ObjectKey, pod: &Stored<Pod>, verdict: &Unschedulable) -> Says {
        let nominated = self.nominations.get(key).map(|n| n.node.clone());
        verdict::says(verdict, &pod.value.spec, nominated)
    }

    /// Writes why a pod waits, when that is not what stands there.
    pub(super) fn say(
        &mut self,
        turn: &Turn<'_>,
        key: &ObjectKey,
        pod: &Stored<Pod>,
        says: Says,
    ) -> Option<Planned> {
        let mut state = self.pods.remove(key)?;
        let planned = if state.busy {
            None
        } else {
            let tell = Tell {
                uid: pod.uid(),
                warning: true,
                reason: "FailedScheduling",
                message: says.message.clone(),
            };
            self.record(turn, key, pod, &state, says, Some(tell))
        };
        state.busy |= planned.is_some();
        self.pods.insert(key.clone(), state);
        planned
    }

    /// The same of a pod whose state is at hand.
    fn record(
        &self,
        turn: &Turn<'_>,
        key: &ObjectKey,
        pod: &Stored<Pod>,
        state: &PodState,
        says: Says,
        tell: Option<Tell>,
    ) -> Option<Planned> {
        let recorded = state.recorded.as_ref();
        if says.is_said_by(recorded) {
            return None;
        }
        let (write, effects) = turn.writer(key).record(pod, recorded, says);
        Some(Planned {
            write,
            then: Then::Pod {
                key: key.clone(),
                effects,
                binds: false,
                tell,
            },
        })
    }

    /// Writes the reasons of waiting pods anew where they changed.
    pub(super) fn refresh_reasons(&mut self, turn: &Turn<'_>, out: &mut Vec<Planned>) {
        for (key, verdict) in self.pending.refresh(&mut self.cluster, turn.tick) {
            if let Some(pod) = turn.view.desired::<Pod>().get(&key) {
                let says = self.says(&key, pod, &verdict);
                out.extend(self.say(turn, &key, pod, says));
            }
        }
    }
}
