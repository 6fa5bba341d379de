//! Whether and how a Job ends.

use setpoint_apis::batch::{JobCondition, JobStatus};
use setpoint_apis::core::RestartPolicy;

use super::{Decision, SUSPENDED, seconds};
use crate::job::count::{per_index_limit, success_rule};

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
const CRITERIA_MET: &str = "SuccessCriteriaMet";
const FAILURE_TARGET: &str = "FailureTarget";

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Verdict {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self {
            success: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    pub(super) fn success(reason: &str, message: impl Into<String>) -> Self {
        Self {
            success: true,
            ..Self::failure(reason, message)
        }
    }

    /// What the status says it will be.
    pub(super) fn stored(status: &JobStatus) -> Option<Self> {
        let found = |type_: &str| {
            let mut all = status.conditions.iter();
            all.find(|c| c.type_ == type_ && c.status == "True")
        };
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let of = |c: &JobCondition, success| Self {
            success,
            reason: text(&c.reason),
            message: text(&c.message),
        };
        let met = found(CRITERIA_MET).map(|c| of(c, true));
        met.or_else(|| found(FAILURE_TARGET).map(|c| of(c, false)))
    }

    /// The types of its conditions: of what it will be, and of what it is.
    pub(super) fn types(&self) -> (&'static str, &'static str) {
        if self.success {
            (CRITERIA_MET, COMPLETE)
        } else {
            (FAILURE_TARGET, FAILED)
        }
    }
}

impl Decision<'_> {
    /// Whether the Job has failed, or its success policy holds.
    pub(super) fn verdict(&mut self) -> Option<Verdict> {
        let (s, counted) = (self.s, &self.counted);
        if let Some(message) = &counted.fails {
            return Some(Verdict::failure("PodFailurePolicy", message.as_str()));
        }
        let limit = s.spec.backoff_limit.unwrap_or(6);
        if counted.failed > limit || self.restarted_too_often(limit) {
            let message = "Job has reached the specified backoff limit";
            return Some(Verdict::failure("BackoffLimitExceeded", message));
        }
        if self.past_deadline() {
            let message = "Job was active longer than specified deadline";
            return Some(Verdict::failure("DeadlineExceeded", message));
        }
        if !s.spec.is_indexed() {
            return None;
        }
        let counted = &self.counted;
        let (failed, completed) = (&counted.ranges.failed_indexes, &counted.ranges.completed);
        if per_index_limit(s).is_some() && !failed.is_empty() {
            if s.spec
                .max_failed_indexes
                .is_some_and(|most| failed.count() > most)
            {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Verdict::failure("MaxFailedIndexesExceeded", message));
            }
            let over = failed.clone().with(completed.ranges()).count();
            if over >= s.spec.completions.unwrap_or(0) {
                return Some(Verdict::failure("FailedIndexes", "Job has failed indexes"));
            }
        }
        let rule = success_rule(s, completed)?;
        let message = format!("Matched rules at index {rule}");
        Some(Verdict::success("SuccessPolicy", message))
    }

    /// Whether the containers of pods that restart in place were restarted too often.
    fn restarted_too_often(&self, limit: i32) -> bool {
        if self.s.spec.template.spec.restart_policy() != RestartPolicy::OnFailure {
            return false;
        }
        let restarts: i64 = self.live.iter().map(|p| i64::from(p.restarts)).sum();
        restarts > 0 && restarts >= i64::from(limit)
    }

    fn past_deadline(&mut self) -> bool {
        let spec = &self.s.spec;
        let (Some(limit), Some(start)) = (spec.active_deadline_seconds, self.status.start_time)
        else {
            return false;
        };
        // A Job that is resumed begins anew, in this pass.
        let begins = self.status.is(SUSPENDED);
        if spec.is_suspended() || begins {
            return false;
        }
        let due = start.saturating_add(seconds(limit));
        if due > self.now {
            self.plan.look_again_in(due.duration_since(self.now));
        }
        due <= self.now
    }
}
