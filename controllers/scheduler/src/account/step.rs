//! One pod is decided about: what is known of it becomes a step, and the step a write.

use setpoint_apis::core::Pod;
use setpoint_apis::{Key, ObjectKey};
use tracing::{debug, warn};

use super::tell::{stuck, tell, uid};
use super::{Account, Planned, PodState, Tell, Then, Turn};
use crate::decide::{Facts, Seen, Stale, Step, Verb, Why, decide, stops_first};
use crate::observe;
use setpoint_scheduler_core::budgets::Blocked;

impl Account {
    /// Decides about one pod.
    pub(super) fn decide(&mut self, key: ObjectKey, turn: &Turn<'_>) -> Option<Planned> {
        let mut state = self.pods.remove(&key).unwrap_or_default();
        if state.busy {
            state.again = true;
            self.pods.insert(key, state);
            return None;
        }
        let broken = observe::broken(turn.view, &key);
        // What is concluded from where there is work holds only with all that agents have made of it.
        let not_before = match broken {
            Some(_) => state.not_before.max(state.changed_at),
            None => state.not_before,
        };
        if not_before > turn.revision() {
            self.deferred
                .entry(not_before)
                .or_default()
                .push(key.clone());
            self.pods.insert(key, state);
            return None;
        }
        let info = self.count(&key, &mut state, turn.view);
        let recorded = state.recorded.as_ref().map(|r| r.placements);
        let intents = self.intents.about(&key).to_vec();
        let work = state.work.clone();
        let mut facts = observe::facts(
            turn.view,
            &key,
            broken.as_ref(),
            &work,
            recorded,
            &intents,
            turn.now,
        );
        self.note_ready(&mut state, &mut facts);
        let blocked = self.ask_to_leave(&key, &mut facts);
        let step = decide(&facts);
        if let Some(blocked) = blocked {
            self.blocked(&key, &mut state, &facts, &step, &blocked);
        }
        match &step {
            Step::Frozen(what) => debug!(object = %key, what, "frozen: a document does not parse"),
            Step::Wait(what) => debug!(object = %key, what, "waiting"),
            Step::Stuck { places } => {
                let told = broken.as_ref().map(|b| b.mod_revision);
                if state.told != told {
                    state.told = told;
                    let tell = stuck(
                        &facts,
                        places,
                        &turn.keyspace.build(&Key::Binding(key.clone())),
                    );
                    warn!(object = %key, places = ?places, "a binding does not parse, and where its pod is cannot be told: {}", tell.message);
                    self.notices.push((key.clone(), tell));
                }
            }
            Step::Restore { .. } | Step::Forget { .. } => warn!(
                object = %key,
                error = broken.as_ref().map_or("", |b| b.message),
                step = ?step,
                "a binding does not parse; mending it"
            ),
            Step::DropIntents {
                why: Stale::NeverTwice(_),
                ..
            } => warn!(
                object = %key,
                "a release is refused: the partition policy is stop, and the pod was claimed without a fence: nothing proves that the lost node has stopped it"
            ),
            _ => {}
        }
        self.tell_group(&key, &facts, &step);
        self.look_again(&key, &mut state, &facts, turn);
        let planned = if let Step::Move { which, stop_first } = step {
            self.unwant(&key);
            if self.may_move() {
                self.begin_move(&key, &mut state, &facts, which, stop_first, turn)
            } else {
                self.later_moves.push(key.clone());
                None
            }
        } else if let (Step::Place, Seen::Valid(pod)) = (&step, facts.desired) {
            self.want(&state, &key, pod, info.as_ref(), turn)
        } else if let Step::Invalid = step {
            self.unwant(&key);
            self.say_invalid(turn, &key, &state)
        } else {
            self.unwant(&key);
            let preemptor = self
                .nominations
                .wants_room_of(&key)
                .map(|(pod, n)| (pod.clone(), n.node.clone()));
            let spec = |_: &Pod| {
                info.as_ref()
                    .map_or_else(String::new, |i| i.text().to_owned())
            };
            turn.writer(&key)
                .step(&facts, &step, spec)
                .map(|(write, effects)| {
                    let detail = preemptor
                        .as_ref()
                        .map(|(pod, node)| format!("preempted by {pod} on {node}"));
                    let tell = tell(&facts, &step, detail);
                    Planned {
                        write,
                        then: Then::Pod {
                            key: key.clone(),
                            effects,
                            binds: false,
                            tell,
                        },
                    }
                })
        };
        let known = !matches!((facts.desired, facts.binding), (Seen::Absent, Seen::Absent));
        state.busy = planned.is_some();
        let withdraws = matches!(
            step,
            Step::Withdraw { .. }
                | Step::Move {
                    stop_first: true,
                    ..
                }
        );
        if withdraws && planned.is_some() {
            self.budgets.disrupt(&key);
        }
        if known || state.busy || !state.work.is_empty() || state.recorded.is_some() {
            self.pods.insert(key, state);
        }
        planned
    }

    /// Fills in what the scheduler itself wants of a pod, and whether budgets let it go. Returns the budget that does not
    /// while somebody asks for it.
    fn ask_to_leave(&mut self, key: &ObjectKey, facts: &mut Facts<'_>) -> Option<Blocked> {
        let Seen::Valid(binding) = facts.binding else {
            self.leave.remove(key);
            return None;
        };
        if binding.value.withdrawn.is_some() {
            self.leave.remove(key);
            return None;
        }
        facts.leave = self.leave.get(key).copied().or_else(|| {
            self.is_asked_to_leave(key, Some(&binding.value))
                .then_some(Why::Preempted)
        });
        let stops = match facts.desired {
            Seen::Valid(pod) => stops_first(&pod.value, &binding.value),
            _ => false,
        };
        if !facts.intents.iter().any(|i| is_disruptive(i.verb, stops)) {
            return None;
        }
        let blocked = self.budgets.may_disrupt(key).err();
        facts.may_evict = blocked.is_none();
        blocked
    }

    /// An eviction is not allowed now: it waits, and people are told once.
    fn blocked(
        &mut self,
        key: &ObjectKey,
        state: &mut PodState,
        facts: &Facts<'_>,
        step: &Step,
        blocked: &Blocked,
    ) {
        if let Step::Withdraw { .. } | Step::Move { .. } = step {
            return;
        }
        self.budgets.wait(key, blocked);
        let asked = facts
            .intents
            .iter()
            .filter(|i| is_disruptive(i.verb, true))
            .max_by_key(|i| i.revision);
        let what = match asked.map(|i| i.verb) {
            Some(Verb::Move) => "moved",
            _ => "evicted",
        };
        let asked = asked.map(|i| i.revision);
        if state.told_blocked == asked {
            return;
        }
        state.told_blocked = asked;
        let tell = Tell {
            uid: uid(facts),
            warning: true,
            reason: "EvictionBlocked",
            message: format!("not {what} yet: {}", blocked.message()),
        };
        self.notices.push((key.clone(), tell));
    }
}

/// Whether a request takes the pod down, so that it needs the leave of the budgets. `stops`: to be moved, it has to be
/// stopped first.
fn is_disruptive(verb: Verb, stops: bool) -> bool {
    match verb {
        Verb::Evict => true,
        Verb::Move => stops,
        Verb::Release => false,
    }
}
