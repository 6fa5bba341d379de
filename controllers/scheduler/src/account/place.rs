//! Placing: pods that want a node get one from the core, or a reason.

use std::cmp::Reverse;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_runtime::Stored;
use setpoint_scheduler_core::{Decision, Placement, PodRequest};

use super::{Account, Planned, PodState, Tell, Then, Turn, uses_content};
use crate::pending::{Order, Pending, Wish};
use crate::specs::SpecInfo;
use crate::writes::{GATED, UNSCHEDULABLE, hash};

/// Bindings in one turn up to which each gets an event. In a flood the bindings themselves tell as much, and the events
/// would cost the store half as much again.
const MOST_EVENTS: usize = 100;

/// Lines a pod up, unless its own document holds it back: then that is written.
pub(super) fn want(
    pending: &mut Pending,
    state: &PodState,
    key: &ObjectKey,
    pod: &Stored<Pod>,
    info: &SpecInfo,
    turn: &Turn<'_>,
) -> Option<Planned> {
    let spec = &pod.value.spec;
    if spec.scheduling_gates.is_empty() {
        pending.add(Wish {
            order: Order {
                priority: Reverse(spec.priority.unwrap_or_default()),
                created: pod.create_revision,
                pod: key.clone(),
            },
            revision: pod.mod_revision,
            class: info.class.clone(),
        });
        return None;
    }
    pending.remove(key);
    let message = "Scheduling is blocked due to non-empty scheduling gates";
    if state
        .recorded
        .as_ref()
        .is_some_and(|r| r.message == hash(GATED, message))
    {
        return None;
    }
    let (write, effects) = turn
        .writer(key)
        .record(pod, state.recorded.as_ref(), GATED, message);
    Some(Planned {
        write,
        then: Then::Pod {
            key: key.clone(),
            effects,
            binds: false,
            tell: None,
        },
    })
}

impl Account {
    /// Places up to `limit` pods.
    pub(super) fn place(&mut self, turn: &Turn<'_>, limit: usize, out: &mut Vec<Planned>) {
        let wishes = self.pending.take(limit, &mut self.cluster);
        if wishes.is_empty() {
            return;
        }
        let mut candidates = Vec::with_capacity(wishes.len());
        let mut requests = Vec::with_capacity(wishes.len());
        for mut wish in wishes {
            let key = &wish.order.pod;
            let ready = self
                .pods
                .get(key)
                .is_some_and(|s| !s.busy && s.not_before <= turn.revision());
            let pod = turn
                .view
                .desired::<Pod>()
                .get(key)
                .filter(|_| ready && !turn.view.bindings().contains(key));
            let Some(pod) = pod else {
                // It changed, or a write about it is under way: decided from scratch.
                let key = key.clone();
                self.touch(key);
                continue;
            };
            let info = self.specs.get(&pod.value, &mut self.cluster);
            wish.class = info.class.clone();
            wish.revision = pod.mod_revision;
            requests.push(PodRequest {
                pod: wish.order.pod.clone(),
                class: info.class.clone(),
            });
            candidates.push((wish, pod, info));
        }
        let quiet = requests.len() > MOST_EVENTS;
        let decisions = self.cluster.schedule(&requests, self.seed);
        for ((wish, pod, info), decision) in candidates.into_iter().zip(decisions) {
            match decision {
                Decision::Bind(placement) => {
                    out.push(self.bind(turn, &wish.order.pod, pod, &info, &placement, quiet));
                }
                Decision::Unschedulable(verdict) => {
                    let key = wish.order.pod.clone();
                    let class = wish.class.clone();
                    self.pending.wait(wish, &verdict);
                    let message = verdict.message(&pod.value.spec);
                    match self.pods.get(&key).and_then(|s| s.recorded.as_ref()) {
                        Some(r) if r.message == hash(UNSCHEDULABLE, &message) => {}
                        // Not the first attempt: the reasons change with every node, and are written now and then.
                        Some(r) if r.unschedulable => self.pending.refresh_later(&class, turn.tick),
                        _ => out.extend(self.explain(turn, &key, pod, &message)),
                    }
                }
            }
        }
    }

    fn bind(
        &mut self,
        turn: &Turn<'_>,
        key: &ObjectKey,
        pod: &Stored<Pod>,
        info: &SpecInfo,
        placement: &Placement,
        quiet: bool,
    ) -> Planned {
        let Self { pods, contents, .. } = self;
        let state = pods.entry(key.clone()).or_default();
        uses_content(contents, key, state, Some((&placement.node, &info.uses)));
        let recorded = state.recorded.as_ref();
        let (write, effects) =
            turn.writer(key)
                .bind(pod, info.text(), placement, recorded, turn.revision());
        state.busy = true;
        self.binding += 1;
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

    /// Writes why a pod waits.
    fn explain(
        &mut self,
        turn: &Turn<'_>,
        key: &ObjectKey,
        pod: &Stored<Pod>,
        message: &str,
    ) -> Option<Planned> {
        let state = self.pods.get_mut(key).filter(|s| !s.busy)?;
        let (write, effects) =
            turn.writer(key)
                .record(pod, state.recorded.as_ref(), UNSCHEDULABLE, message);
        state.busy = true;
        let tell = Tell {
            uid: pod.uid(),
            warning: true,
            reason: "FailedScheduling",
            message: message.into(),
        };
        Some(Planned {
            write,
            then: Then::Pod {
                key: key.clone(),
                effects,
                binds: false,
                tell: Some(tell),
            },
        })
    }

    /// Writes the reasons of waiting pods anew where they changed.
    pub(super) fn refresh_reasons(&mut self, turn: &Turn<'_>, out: &mut Vec<Planned>) {
        for (key, verdict) in self.pending.refresh(&mut self.cluster, turn.tick) {
            let Some(pod) = turn.view.desired::<Pod>().get(&key) else {
                continue;
            };
            let message = verdict.message(&pod.value.spec);
            let state = self.pods.get(&key).and_then(|s| s.recorded.as_ref());
            if state.is_none_or(|r| r.message != hash(UNSCHEDULABLE, &message)) {
                out.extend(self.explain(turn, &key, pod, &message));
            }
        }
    }
}
