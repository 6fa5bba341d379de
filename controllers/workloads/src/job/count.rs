//! What a Job's pods have come to: counts, indexes, failures. Pure arithmetic over a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::batch::{
    ExitCodeOperator, PodFailurePolicyAction, PodFailurePolicyRule, SuccessPolicyRule, indexes,
};

use super::numbers::Numbers;
use super::plan::{Counts, Failure, JobPod, Outcome, Snapshot};

/// The first replacement of a pod that failed waits this long, each further one twice as long.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
/// The longest of these waits, as Kubernetes' documentation has it.
const LONGEST_BACKOFF: Duration = Duration::from_secs(360);

/// How long a replacement waits after so many failures in a row, the last of them at `last`.
pub(super) fn backoff(failures: i32, last: Timestamp, now: Timestamp) -> Duration {
    if failures <= 0 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(16);
    let wait = (FIRST_BACKOFF * 2_u32.pow(doublings)).min(LONGEST_BACKOFF);
    wait.saturating_sub(now.duration_since(last))
}

/// What to do about a failure, and the rule that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// What to do.
    pub(super) action: PodFailurePolicyAction,
    /// Why the Job fails, when it does.
    pub(super) message: String,
}

impl Judgement {
    pub(super) fn counts(&self) -> bool {
        self.action != PodFailurePolicyAction::Ignore
    }
}

/// What the Job's policy makes of a failure.
pub(super) fn judge(s: &Snapshot, pod: &JobPod, failure: &Failure) -> Judgement {
    let rules = s.spec.pod_failure_policy.iter().flat_map(|p| &p.rules);
    for (i, rule) in rules.enumerate() {
        if let Some(what) = fits(rule, pod, failure) {
            return Judgement {
                action: rule.action,
                message: format!("{what} matching {} rule at index {i}", rule.action),
            };
        }
    }
    Judgement {
        action: PodFailurePolicyAction::Count,
        message: String::new(),
    }
}

/// What of the failure a rule fits.
fn fits(rule: &PodFailurePolicyRule, pod: &JobPod, failure: &Failure) -> Option<String> {
    let key = &pod.facts.key;
    if let Some(wanted) = &rule.on_exit_codes {
        let (container, code) = failure.exits.iter().find(|(container, code)| {
            let named = wanted.container_name.as_ref();
            let listed = wanted.values.contains(code);
            named.is_none_or(|n| n == container)
                && listed == (wanted.operator == ExitCodeOperator::In)
        })?;
        return Some(format!(
            "Container {container} for pod {key} failed with exit code {code}"
        ));
    }
    let (type_, _) = failure.conditions.iter().find(|(type_, status)| {
        let mut patterns = rule.on_pod_conditions.iter();
        patterns.any(|p| p.type_ == *type_ && p.status.as_deref().unwrap_or("True") == status)
    })?;
    Some(format!("Pod {key} has condition {type_}"))
}

/// The counts after a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Numbers and indexes.
    pub(super) ranges: Counts,
    /// The uids of pods without a number.
    pub(super) adopted: BTreeSet<String>,
    /// How many have succeeded; of an Indexed Job: how many indexes.
    pub(super) succeeded: i32,
    /// How many have failed.
    pub(super) failed: i32,
    /// Why the Job is to fail, by its policy.
    pub(super) fails: Option<String>,
}

impl Counted {
    /// Adds to the stored counts the pods that have ended since.
    pub(super) fn new(s: &Snapshot) -> Self {
        let status = s.status.clone().unwrap_or_default();
        let there: BTreeSet<&str> = s.pods.iter().filter_map(|p| p.uid.as_deref()).collect();
        let adopted = status.counted.iter().flat_map(|c| &c.adopted);
        let mut counted = Self {
            ranges: s.stored.clone(),
            adopted: adopted
                .filter(|uid| there.contains(uid.as_str()))
                .cloned()
                .collect(),
            succeeded: status.succeeded.unwrap_or(0),
            failed: status.failed.unwrap_or(0),
            fails: None,
        };
        counted.add(s);
        counted
    }

    fn add(&mut self, s: &Snapshot) {
        let mut done = Vec::new();
        let mut failed_indexes = Vec::new();
        let mut numbers = Vec::new();
        let limit = per_index_limit(s);
        for pod in s.pods.iter().filter(|p| has_place(s, p)) {
            let fresh = !self.has(pod);
            match &pod.outcome {
                Outcome::None => {}
                Outcome::Succeeded { .. } if fresh => {
                    done.extend(pod.index);
                    self.succeeded = self.succeeded.saturating_add(1);
                    self.note(pod, &mut numbers);
                }
                Outcome::Succeeded { .. } => {}
                Outcome::Failed(failure) => {
                    let judgement = judge(s, pod, failure);
                    if judgement.action == PodFailurePolicyAction::FailJob && self.fails.is_none() {
                        self.fails = Some(judgement.message.clone());
                    }
                    if judgement.counts() && fresh {
                        self.failed = self.failed.saturating_add(1);
                        self.note(pod, &mut numbers);
                    }
                    let spent =
                        judgement.counts() && limit.is_some_and(|l| pod.failures_before >= l);
                    if limit.is_some()
                        && (spent || judgement.action == PodFailurePolicyAction::FailIndex)
                    {
                        failed_indexes.extend(pod.index);
                    }
                }
            }
        }
        let ranges = &mut self.ranges;
        ranges.pods = std::mem::take(&mut ranges.pods).with_each(numbers);
        if s.spec.is_indexed() {
            let completions = s.spec.completions.unwrap_or(0);
            let within = |n: &mut Numbers, more: Vec<i32>| {
                *n = std::mem::take(n).with_each(more).below(completions);
            };
            within(&mut ranges.completed, done);
            within(&mut ranges.failed_indexes, failed_indexes);
            self.succeeded = ranges.completed.count();
        }
    }

    fn note(&mut self, pod: &JobPod, numbers: &mut Vec<i32>) {
        numbers.extend(pod.number);
        if pod.number.is_none() {
            self.adopted.extend(pod.uid.clone());
        }
    }

    /// Whether a pod is counted.
    pub(super) fn has(&self, pod: &JobPod) -> bool {
        match (pod.number, &pod.uid) {
            (Some(number), _) => self.ranges.pods.contains(number),
            (None, Some(uid)) => self.adopted.contains(uid),
            (None, None) => false,
        }
    }

    /// Counts pods that have not ended as failed: the Job has failed, and they go.
    pub(super) fn fail<'a>(&mut self, s: &Snapshot, pods: impl Iterator<Item = &'a JobPod>) {
        let mut numbers = Vec::new();
        for pod in pods {
            if has_place(s, pod) && !self.has(pod) {
                self.failed = self.failed.saturating_add(1);
                self.note(pod, &mut numbers);
            }
        }
        let pods = &mut self.ranges.pods;
        *pods = std::mem::take(pods).with_each(numbers);
    }
}

/// Whether a pod is one that the Job has a place for: of an Indexed Job, one with an index that there is.
pub(super) fn has_place(s: &Snapshot, pod: &JobPod) -> bool {
    let completions = s.spec.completions.unwrap_or(0);
    !s.spec.is_indexed() || pod.index.is_some_and(|i| (0..completions).contains(&i))
}

/// How often each index may fail, of a Job that has a limit per index.
pub(super) fn per_index_limit(s: &Snapshot) -> Option<i32> {
    s.spec
        .backoff_limit_per_index
        .filter(|_| s.spec.is_indexed())
}

/// How many pods have failed since the last one succeeded, and when the last of them did.
pub(super) fn failures_in_a_row(s: &Snapshot) -> (i32, Timestamp) {
    let successes = s.pods.iter().filter_map(|p| match p.outcome {
        Outcome::Succeeded { at } => Some(at),
        _ => None,
    });
    let success = successes.max();
    let failures = s.pods.iter().filter_map(|p| match &p.outcome {
        Outcome::Failed(f) if success.is_none_or(|s| f.at > s) => Some(f.at),
        _ => None,
    });
    failures.fold((0, Timestamp::EPOCH), |(n, last), at| {
        (n.saturating_add(1), last.max(at))
    })
}

/// What has become of an index, when its last pod has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct IndexFailures {
    /// Failures that count.
    pub(super) counted: i32,
    /// Failures that were ignored.
    pub(super) ignored: i32,
    /// When the last one was.
    pub(super) last: Timestamp,
}

impl IndexFailures {
    pub(super) fn all(&self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }
}

/// The failures of each index. A pod says how many there were before it, so they are known while the last pod is there.
pub(super) fn failures_by_index(s: &Snapshot) -> BTreeMap<i32, IndexFailures> {
    let mut all: BTreeMap<i32, IndexFailures> = BTreeMap::new();
    for pod in &s.pods {
        let (Some(index), Outcome::Failed(failure)) = (pod.index, &pod.outcome) else {
            continue;
        };
        let counts = judge(s, pod, failure).counts();
        let this = IndexFailures {
            counted: pod.failures_before.saturating_add(i32::from(counts)),
            ignored: pod.ignored_before.saturating_add(i32::from(!counts)),
            last: failure.at,
        };
        let known = all.entry(index).or_default();
        if (this.all(), this.last) > (known.all(), known.last) {
            *known = this;
        }
    }
    all
}

/// The rule of the success policy that holds, by its place.
pub(super) fn success_rule(s: &Snapshot, completed: &Numbers) -> Option<usize> {
    let rules = &s.spec.success_policy.as_ref()?.rules;
    // Also a rule that asks for none of them waits for the first one, as in Kubernetes.
    if completed.count() == 0 {
        return None;
    }
    rules.iter().position(|rule| holds(rule, completed))
}

fn holds(rule: &SuccessPolicyRule, completed: &Numbers) -> bool {
    let about: Option<Vec<RangeInclusive<i32>>> = match &rule.succeeded_indexes {
        // Validated; one that does not parse holds never.
        Some(text) => match indexes::parse(text) {
            Ok(ranges) => Some(ranges),
            Err(_) => return false,
        },
        None => None,
    };
    let (there, all) = match &about {
        Some(ranges) => (completed.shared(ranges), indexes::count(ranges)),
        None => (i64::from(completed.count()), i64::MAX),
    };
    there >= rule.succeeded_count.map_or(all, i64::from)
}
