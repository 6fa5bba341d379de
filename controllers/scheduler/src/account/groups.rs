//! Groups: pods that are placed together or not at all.

use std::time::Duration;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_apis::placement::{PodGroup, pod_group_of};
use setpoint_apis::records::ConstraintKind;
use setpoint_runtime::{Stored, View};
use setpoint_scheduler_core::{Decision, record};

use super::place::{Candidate, MOST_EVENTS};
use super::{Account, Planned, Retry, Turn};
use crate::asks::Hold;
use crate::decide::{Facts, Seen, Step as PodStep, Why, belongs, is_terminal};
use crate::gangs::{Member, Step};
use crate::observe;
use crate::pending::Wish;
use crate::quota::Trial;
use crate::verdict;
use crate::writes::Says;

/// How long the reasons of a group's pods stay before they are written again: every pod that comes or goes changes them.
const REASONS_REST: Duration = Duration::from_secs(2);

/// How long a group that does not fit rests until it is tried again: so long for each pod, times the groups that rest, so
/// that all of them together take a tenth of the time at the most.
const REST_PER_POD: Duration = Duration::from_micros(50);
const REST_LEAST: Duration = Duration::from_millis(10);
const REST_MOST: Duration = Duration::from_secs(10);
/// How long a group may take until all its bindings stand, when its document does not say.
const PLACING: Duration = Duration::from_secs(60);

/// The groups whose reasons were written a short while ago. Each has a timer, which takes it out again.
#[derive(Debug, Default)]
pub(super) struct GroupReasons(FxHashMap<ObjectKey, bool>);

impl GroupReasons {
    fn rests(&self, group: &ObjectKey) -> bool {
        self.0.contains_key(group)
    }

    fn rest(&mut self, group: &ObjectKey) {
        self.0.insert(group.clone(), false);
    }

    /// They have changed meanwhile, and are to be written once they have stood for a while.
    fn again(&mut self, group: &ObjectKey) {
        if let Some(again) = self.0.get_mut(group) {
            *again = true;
        }
    }

    /// They have stood for a while. Whether they are to be written anew.
    pub(super) fn is_over(&mut self, group: &ObjectKey) -> bool {
        self.0.remove(group).unwrap_or_default()
    }
}

impl Account {
    /// Tells the groups of a pod that has not been decided about yet: so all members are known before anything is done
    /// about their group, and a group that was placed is not taken for half of one because some of its pods are decided
    /// about later than others.
    pub(super) fn foretell_group(&mut self, key: &ObjectKey, view: &View<'_>) {
        if self.gangs.of(key).is_some() {
            return;
        }
        let Some(pod) = observe::last_good(view.desired::<Pod>().entry(key)) else {
            return;
        };
        let Some(group) = group_of(key, pod) else {
            return;
        };
        let stands = observe::binding(view, key)
            .is_some_and(|b| b.value.withdrawn.is_none() && belongs(pod, &b.value));
        let member = if stands { Member::Bound } else { Member::Soon };
        self.gangs.set_member(key, &group, member);
    }

    /// Tells the groups how a pod is that wants no node now.
    pub(super) fn tell_group(&mut self, key: &ObjectKey, facts: &Facts<'_>, step: &PodStep) {
        self.tell_member(key, facts, step);
        // Whoever waits until it has left would wait in vain.
        let ended = matches!(facts.actual, Seen::Valid(actual) if is_terminal(&actual.value));
        let fixed = match step {
            PodStep::Frozen(_) | PodStep::Invalid | PodStep::Stuck { .. } => true,
            PodStep::Withdraw { .. } => false,
            _ => ended && matches!(facts.binding, Seen::Valid(b) if b.value.withdrawn.is_none()),
        };
        if fixed {
            // It is asked again if that is still called for when it can leave.
            self.leave.remove(key);
        }
        self.gangs.set_fixed(key, fixed);
    }

    fn tell_member(&mut self, key: &ObjectKey, facts: &Facts<'_>, step: &PodStep) {
        let pod = match facts.desired {
            Seen::Valid(pod) => pod,
            // It stays what it was while its document cannot be read.
            Seen::Frozen => return,
            Seen::Absent => return self.gangs.remove_member(key),
        };
        let Some(group) = group_of(key, pod) else {
            return self.gangs.remove_member(key);
        };
        let member = match (step, facts.binding) {
            // The pod tells what it wants.
            (PodStep::Place, _) => return,
            (PodStep::Withdraw { .. }, _) => Member::Soon,
            (_, Seen::Valid(binding))
                if binding.value.withdrawn.is_none() && belongs(pod, &binding.value) =>
            {
                Member::Bound
            }
            _ => Member::Soon,
        };
        self.gangs.set_member(key, &group, member);
    }

    /// The same of a pod that its own document holds back.
    pub(super) fn tell_group_held(&mut self, key: &ObjectKey, pod: &Stored<Pod>) {
        if let Some(group) = group_of(key, pod) {
            self.gangs.set_member(key, &group, Member::Held);
        }
    }

    /// A pod wants a node. Whether it has to wait for its group.
    pub(super) fn wants_with_group(&mut self, wish: &Wish, pod: &Stored<Pod>) -> bool {
        let key = &wish.order.pod;
        let Some(group) = group_of(key, pod) else {
            return false;
        };
        self.gangs
            .set_member(key, &group, Member::Wants(wish.clone()));
        true
    }

    /// Does what is to be done about the first group.
    pub(super) fn place_group(&mut self, turn: &Turn<'_>, out: &mut Vec<Planned>) {
        let Some((group, step)) = self.gangs.next() else {
            return;
        };
        match step {
            Step::Rest => {}
            Step::Hold(mut hold) => {
                // As `setpoint why` has it.
                hold.detail = record::group_waits(&group.name, &hold.detail).detail;
                let wishes: Vec<_> = self.gangs.wishes(&group).cloned().collect();
                self.void_together(wishes.iter().map(|w| w.order.pod.clone()));
                self.hold_group(turn, &group, wishes, |_| Says::held(&hold), out);
            }
            Step::Singly(wishes) => {
                for wish in wishes {
                    if !self.pending.is_known(&wish) {
                        self.pending.add(wish.clone());
                    }
                    // It may have waited for the others.
                    self.pending.unpark(&wish.order.pod);
                }
            }
            Step::Place { wishes, need } => self.place_together(turn, &group, wishes, need, out),
            Step::TakeApart(pods) => self.take_apart(pods),
        }
    }

    fn place_together(
        &mut self,
        turn: &Turn<'_>,
        group: &ObjectKey,
        wishes: Vec<Wish>,
        need: usize,
        out: &mut Vec<Planned>,
    ) {
        let mut trial = Trial::default();
        let (mut candidates, mut refused) = (Vec::new(), Vec::new());
        for wish in wishes {
            let key = wish.order.pod.clone();
            if let Some(wish) = self.pending.remove(&key) {
                self.quotas.wait_no_more(&wish.order);
            }
            let Some(candidate) = self.candidate(turn, wish) else {
                // It changed, or a write about it is under way: decided from scratch, and the group then.
                self.gangs.set_member(&key, group, Member::Soon);
                self.touch(key);
                continue;
            };
            match self.admit(&mut trial, &candidate) {
                Ok(()) => candidates.push(candidate),
                Err(refusal) => refused.push((candidate, refusal)),
            }
        }
        if candidates.len() + refused.len() < need {
            return;
        }
        if candidates.len() < need {
            let pods = candidates.iter().map(|c| c.wish.order.pod.clone());
            self.void_together(pods);
            let why = refused.first().map(|(_, r)| r.clone());
            for (candidate, refusal) in refused {
                self.refused(turn, candidate, &refusal, out);
            }
            if let Some(why) = why {
                let hold = Hold::new(
                    ConstraintKind::Quota,
                    &why.detail,
                    format!("pod group: another member waits: {}", why.message),
                );
                let wishes = candidates.into_iter().map(|c| c.wish).collect();
                self.hold_group(turn, group, wishes, |_| Says::held(&hold), out);
            }
            let apart = self.gangs.failed(group, false);
            return self.take_apart(apart);
        }
        for (candidate, refusal) in refused {
            self.refused(turn, candidate, &refusal, out);
        }
        let requests: Vec<_> = candidates.iter().map(Candidate::request).collect();
        match self.cluster.schedule_gang(&requests, need, self.seed) {
            Ok(decisions) => {
                let quiet = candidates.len() > MOST_EVENTS;
                if let Some(attempt) = self.gangs.begin(group) {
                    self.set_group_deadline(turn, group.clone(), attempt);
                }
                for (candidate, decision) in candidates.into_iter().zip(decisions) {
                    match decision {
                        Decision::Bind(placement) => {
                            let planned =
                                self.bind(turn, &candidate, &placement, Vec::new(), quiet);
                            out.push(planned);
                        }
                        // One more than needed: it waits by itself.
                        Decision::Unschedulable(_) => self.pending.add(candidate.wish),
                    }
                }
            }
            Err(verdict) => {
                // Trying costs as many steps as there are pods, and the cluster changes all the time.
                if !self.gangs.is_resting(group) {
                    let resting = u32::try_from(self.gangs.rest(group)).unwrap_or(u32::MAX);
                    let pods = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
                    let rest = REST_PER_POD.saturating_mul(pods).saturating_mul(resting);
                    let rest = rest.clamp(REST_LEAST, REST_MOST);
                    self.retry(turn.tick + rest, Retry::GroupRested(group.clone()));
                }
                let promised = self.preempt_together(group, need, &candidates);
                let wishes = candidates.into_iter().map(|c| c.wish).collect();
                let says = |pod: &Stored<Pod>| {
                    let mut says = verdict::says(&verdict, &pod.value.spec, None);
                    if let Some((fit, needed)) = verdict.gang {
                        let reason = record::group_fits_in_part(&group.name, fit, needed);
                        says.reasons.insert(0, reason);
                    }
                    says
                };
                self.hold_group(turn, group, wishes, says, out);
                let social = verdict.helps().arrivals;
                if promised {
                    // Half of it need not be taken back: those who leave make room for the rest.
                    self.gangs.waits(group, social);
                } else {
                    let apart = self.gangs.failed(group, social);
                    self.take_apart(apart);
                }
            }
        }
    }

    /// All bindings of an attempt to place a group have to stand after a while.
    pub(super) fn set_group_deadline(&mut self, turn: &Turn<'_>, group: ObjectKey, attempt: u64) {
        let document = turn.view.desired::<PodGroup>().get(&group);
        let timeout = document
            .and_then(|g| g.value.spec.schedule_timeout_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(PLACING, Duration::from_secs);
        let deadline = Retry::GroupDeadline(group, attempt);
        self.retry(turn.tick + timeout, deadline);
    }

    /// Members of a group wait for something that they share.
    fn hold_group(
        &mut self,
        turn: &Turn<'_>,
        group: &ObjectKey,
        wishes: Vec<Wish>,
        says: impl Fn(&Stored<Pod>) -> Says,
        out: &mut Vec<Planned>,
    ) {
        let rests = self.group_reasons.rests(group);
        let mut any = false;
        let mut later = false;
        for wish in wishes {
            let key = wish.order.pod.clone();
            // Whatever it was lined up for: alone it is not placed.
            self.pending.park(wish);
            // What it was woken for is of no use to it now, and may be to others.
            self.quotas.give_up(&key);
            let Some(pod) = turn.view.desired::<Pod>().get(&key) else {
                continue;
            };
            let mut says = says(pod);
            if let Some(nomination) = self.nominations.get(&key) {
                says = verdict::while_others_leave(says, nomination.node.clone());
            }
            let recorded = self.pods.get(&key).and_then(|s| s.recorded.as_ref());
            if says.is_said_by(recorded) {
                continue;
            }
            if rests && recorded.is_some_and(|r| r.unschedulable && r.nominated == says.nominated) {
                later = true;
                continue;
            }
            any = true;
            out.extend(self.say(turn, &key, pod, says));
        }
        if rests && later {
            self.group_reasons.again(group);
        }
        if !rests && any {
            self.group_reasons.rest(group);
            self.retry(turn.tick + REASONS_REST, Retry::Group(group.clone()));
        }
    }

    pub(super) fn take_apart(&mut self, pods: Vec<ObjectKey>) {
        for pod in pods {
            self.leave.insert(pod.clone(), Why::GroupIncomplete);
            self.touch(pod);
        }
    }
}

fn group_of(key: &ObjectKey, pod: &Stored<Pod>) -> Option<ObjectKey> {
    let name = pod_group_of(&pod.value.metadata)?;
    Some(ObjectKey {
        namespace: key.namespace.clone(),
        name: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_rested_are_written_anew_if_they_changed_and_are_forgotten_in_any_case() {
        let (a, b) = ("a", "b");
        let key = |name: &str| ObjectKey::namespaced("default", name);
        let mut reasons = GroupReasons::default();
        reasons.again(&key(a));
        assert!(!reasons.rests(&key(a)), "nothing was written yet");
        reasons.rest(&key(a));
        reasons.rest(&key(b));
        reasons.again(&key(a));
        assert!(reasons.rests(&key(a)) && reasons.rests(&key(b)));
        assert!(reasons.is_over(&key(a)));
        assert!(!reasons.is_over(&key(b)));
        assert!(reasons.0.is_empty());
    }
}
