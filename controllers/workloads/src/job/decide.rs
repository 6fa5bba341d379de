//! What to do for a Job: a pure function of what is, and of the time.
//!
//! # How pods are counted
//! Nothing holds a pod back from being deleted (there are no finalizers), and a controller may end between any two writes.
//! Counts are exact all the same:
//!
//! - Every pod has a number among all that were made for the Job. The status says, in ranges, whose are counted; counts
//!   and ranges are one value under one key. So a pod is either counted or not, at every revision, and a pass that is
//!   repeated counts nothing twice. A new pod gets a number above all that are counted or there.
//! - A pod that has ended stays until its Job is deleted. So whoever comes next counts what is not counted yet.
//! - What is deleted has not ended: the delete holds only while its node reports what was seen. One that ends in that
//!   moment stays, and is counted.
//! - When the Job fails, the pods that still run count as failed. The status says so first; they go in a later pass.
//! - A pod that has ended and runs again (its node was removed, with its record) is counted once: it goes.
//!
//! A pod that somebody else deletes has not failed: it is replaced, and one that had ended and was not yet counted has to
//! run again.

mod manage;
mod verdict;

use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::batch::{CountedPods, JobCondition, JobStatus};

use super::count::{Counted, per_index_limit};
use super::plan::{JobPod, Outcome, Plan, Removal, Snapshot, Told};
use crate::conditions::INVALID;
use crate::standing::{OVERLAPS, SELECTOR_OVERLAP};
use verdict::{COMPLETE, FAILED, Verdict};

const SUSPENDED: &str = "Suspended";

/// Decides.
///
/// # Guarantees
/// A Job that has ended stays as it is, whatever becomes of its pods. Nothing is created or deleted while its document or
/// its status does not parse, or in the same pass in which pods are adopted or released.
pub fn decide(s: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let elsewhere = s.spec.other_manager();
    // Whoever was to look after it from the beginning; what follows is about documents that were changed by hand.
    if let Some(other) = elsewhere.filter(|_| s.status.is_none()) {
        return left_to(other, plan);
    }
    if let Some(error) = &s.lost_count {
        plan.notes
            .push(format!("what is counted cannot be read: frozen: {error}"));
        return plan;
    }
    if let Some(unusable) = &s.invalid {
        plan.notes.push(unusable.note().into());
        if s.is_unknown() {
            return plan;
        }
        let mut status = s.status.clone().unwrap_or_default();
        let (reason, message) = (unusable.reason, &*unusable.message);
        let conditions = &mut status.conditions;
        set(conditions, INVALID, true, reason, message, now);
        if s.status.as_ref() != Some(&status) {
            plan.status = Some(status);
            plan.tell.push(Told {
                warning: true,
                reason: reason.into(),
                message: message.into(),
            });
        }
        return plan;
    }
    if let Some(other) = elsewhere {
        return left_to(other, plan);
    }
    if let Some(status) = s.status.as_ref().filter(|status| status.is_finished()) {
        ended(&mut plan, s, status, now);
        return plan;
    }
    let settled = s.adoptable.is_empty() && s.releasable.is_empty();
    if !settled && !s.terminating {
        plan.adopt.clone_from(&s.adoptable);
        plan.release.clone_from(&s.releasable);
        return plan;
    }
    Decision::new(s, now, plan).decide()
}

/// A Job that another controller looks after.
fn left_to(other: &str, mut plan: Plan) -> Plan {
    plan.notes.push(format!("{other} looks after it"));
    plan
}

/// A Job that has ended: what runs all the same goes, and so does the Job when its time is over.
fn ended(plan: &mut Plan, s: &Snapshot, status: &JobStatus, now: Timestamp) {
    if s.terminating {
        return;
    }
    let left = s.pods.iter().filter(|p| p.outcome == Outcome::None);
    plan.delete.extend(left.filter_map(removal));
    let Some(ttl) = s.spec.ttl_seconds_after_finished else {
        return;
    };
    let mut conditions = status.conditions.iter();
    let end = conditions.find(|c| [COMPLETE, FAILED].contains(&&*c.type_) && c.status == "True");
    let end = end.and_then(|c| c.last_transition_time).unwrap_or(now);
    let due = end.saturating_add(seconds(i64::from(ttl)));
    if due <= now {
        plan.expire = true;
    } else {
        plan.look_again_in(due.duration_since(now));
    }
}

/// Says that an older workload selects the same pods, when it does.
fn overlap(status: &mut JobStatus, plan: &mut Plan, s: &Snapshot, now: Timestamp) {
    let conditions = &mut status.conditions;
    let Some(message) = &s.overlap else {
        conditions.retain(|c| c.type_ != SELECTOR_OVERLAP);
        return;
    };
    let same = |c: &JobCondition| c.message.as_ref() == Some(message);
    if !conditions
        .iter()
        .any(|c| c.type_ == SELECTOR_OVERLAP && same(c))
    {
        set(conditions, SELECTOR_OVERLAP, true, OVERLAPS, message, now);
        plan.tell.push(Told {
            warning: true,
            reason: OVERLAPS.into(),
            message: message.clone(),
        });
    }
}

struct Decision<'a> {
    s: &'a Snapshot,
    now: Timestamp,
    plan: Plan,
    status: JobStatus,
    counted: Counted,
    /// Pods that have not ended and are not counted.
    live: Vec<&'a JobPod>,
    /// Pods that have not ended though they are counted.
    again: Vec<&'a JobPod>,
}

impl<'a> Decision<'a> {
    fn new(s: &'a Snapshot, now: Timestamp, plan: Plan) -> Self {
        let counted = Counted::new(s);
        let running = s.pods.iter().filter(|p| p.outcome == Outcome::None);
        let (again, live) = running.partition(|p| counted.has(p));
        let mut status = s.status.clone().unwrap_or_default();
        status.conditions.retain(|c| c.type_ != INVALID);
        status.fixed.clone_from(&s.fixed);
        let mut plan = plan;
        overlap(&mut status, &mut plan, s, now);
        Self {
            s,
            now,
            plan,
            status,
            counted,
            live,
            again,
        }
    }

    fn decide(mut self) -> Plan {
        let s = self.s;
        if self.status.start_time.is_none() && !s.spec.is_suspended() {
            self.status.start_time = Some(self.now.whole_seconds());
        }
        let stored = Verdict::stored(&self.status);
        let found = stored.clone().or_else(|| self.verdict());
        match &found {
            // What it will be is written down and counted; now everything goes.
            Some(_) if stored.is_some() => self.delete_all(),
            Some(verdict) if !verdict.success => {
                let going = self.s.pods.iter();
                let going = going.filter(|p| p.outcome == Outcome::None && !p.facts.frozen);
                self.counted.fail(s, going);
            }
            Some(_) => {}
            None if s.terminating => {
                self.plan
                    .notes
                    .push("it is being deleted, dependents first".into());
            }
            None => self.manage(),
        }
        let complete = found.is_none() && self.has_all() && self.live.is_empty();
        let reached = complete.then(|| {
            Verdict::success(
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            )
        });
        if let Some(verdict) = found.or(reached) {
            self.conclude(&verdict);
        } else if !s.terminating {
            self.suspension();
        }
        self.settle()
    }

    /// Whether as many as are wanted have succeeded.
    fn has_all(&self) -> bool {
        match self.s.spec.completions {
            Some(completions) => self.counted.succeeded >= completions,
            None => self.counted.succeeded > 0,
        }
    }

    fn delete_all(&mut self) {
        let all = self.live.iter().chain(&self.again);
        self.plan.delete.extend(all.filter_map(|p| removal(p)));
    }

    /// Writes down how the Job ends, and when nothing of it runs any more, that it has ended.
    fn conclude(&mut self, verdict: &Verdict) {
        let (will_be, is) = verdict.types();
        let conditions = &mut self.status.conditions;
        let (reason, message) = (verdict.reason.as_str(), verdict.message.as_str());
        set(conditions, will_be, true, reason, message, self.now);
        let left = self.live.len() + self.again.len() + self.s.stopping.len();
        if left > 0 {
            self.plan.notes.push(format!(
                "it ends ({}) when {left} pods have stopped",
                verdict.reason
            ));
            return;
        }
        set(conditions, is, true, reason, message, self.now);
        if verdict.success {
            self.status.completion_time = Some(self.now.whole_seconds());
            self.tell(false, "Completed", "Job completed");
        } else {
            self.tell(true, reason, message);
        }
    }

    fn suspension(&mut self) {
        let suspended = self.s.spec.is_suspended();
        let was = self.status.is(SUSPENDED);
        let conditions = &mut self.status.conditions;
        if suspended {
            set(
                conditions,
                SUSPENDED,
                true,
                "JobSuspended",
                "Job suspended",
                self.now,
            );
        } else {
            set(
                conditions,
                SUSPENDED,
                false,
                "JobResumed",
                "Job resumed",
                self.now,
            );
        }
        if suspended && !was {
            self.tell(false, "Suspended", "Job suspended");
        } else if was && !suspended {
            self.tell(false, "Resumed", "Job resumed");
            // The deadline is about the time that it runs.
            let start = self.now.whole_seconds();
            self.status.start_time = Some(start);
            if let Some(limit) = self.s.spec.active_deadline_seconds {
                let due = start.saturating_add(seconds(limit));
                self.plan.look_again_in(due.duration_since(self.now));
            }
        }
    }

    fn tell(&mut self, warning: bool, reason: &str, message: &str) {
        self.plan.tell.push(Told {
            warning,
            reason: reason.into(),
            message: message.into(),
        });
    }

    fn settle(self) -> Plan {
        let Self {
            s,
            mut plan,
            mut status,
            counted,
            live,
            again,
            ..
        } = self;
        let count = |n: i32| (n != 0).then_some(n);
        let running = live.iter().chain(&again);
        let ready = running.clone().filter(|p| p.facts.ready_since.is_some());
        status.ready = Some(size(ready.count()));
        status.active = count(size(running.count()));
        status.terminating = Some(size(s.stopping.len()));
        status.succeeded = count(counted.succeeded);
        status.failed = count(counted.failed);
        if s.spec.is_indexed() {
            let text = counted.ranges.completed.text();
            status.completed_indexes = Some(text).filter(|t| !t.is_empty());
            let failed = counted.ranges.failed_indexes.text();
            status.failed_indexes = per_index_limit(s).map(|_| failed);
        }
        status.counted = Some(CountedPods {
            of: s.uid.clone(),
            pods: counted.ranges.pods.text(),
            adopted: counted.adopted.into_iter().collect(),
        });
        if s.status.as_ref() == Some(&status) {
            plan.tell.clear();
        } else {
            plan.status = Some(status);
        }
        plan
    }
}

/// The deletion of a pod; `None` for one that cannot be read, which is left alone.
fn removal(pod: &JobPod) -> Option<Removal> {
    (!pod.facts.frozen).then(|| Removal {
        pod: pod.facts.seen(),
        record: pod.record.clone(),
    })
}

/// Sets a condition, as Kubernetes does for Jobs: one that is not so and was not there stays away.
fn set(
    conditions: &mut Vec<JobCondition>,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let now = Some(now.whole_seconds());
    let condition = JobCondition {
        type_: type_.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: some(reason),
        message: some(message),
        last_probe_time: now,
        last_transition_time: now,
    };
    let same = |c: &JobCondition| {
        (&c.status, &c.reason, &c.message)
            == (&condition.status, &condition.reason, &condition.message)
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(c) if same(c) => {}
        Some(c) => *c = condition,
        None if holds => conditions.push(condition),
        None => {}
    }
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

fn size(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
