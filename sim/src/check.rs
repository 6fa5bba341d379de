//! The invariants that every change of the store is held against, as it takes effect.
//!
//! None of them trusts what it checks: who may write is told from who sent a change and when, not from the guards that
//! the change carried; requests and owners are read from the documents.
//!
//! | Module | Invariant |
//! |---|---|
//! | `fences` | no effective write of an old epoch or session, none by a stranger to the key |
//! | `pods` | no pod claimed on two nodes at once, no node over its allocatable, no `stop` pod running twice |
//! | `rollouts` | no rollout asks for more pods than it may, or deletes one that is available when too few are left |
//! | `budgets` | no eviction leaves fewer healthy pods than a disruption budget demands |
//! | `claims` | pods run where the data of their claims is, and no data is given up while its claim is there |
//! | `jobs`, `cron_jobs` | every pod that ends is counted once; no more at a time than wanted; a time has one Job |
//! | `namespaces` | nothing is created where no namespace is, and nothing stays when one goes |
//! | `quotas` | nothing is created or bound beyond a quota, no pod is made without what a LimitRange gives |
//! | `desired` | nothing wanted is lost, nothing is garbage-collected because of an Invalid document |

mod budgets;
mod claims;
mod cron_jobs;
mod desired;
mod fences;
mod jobs;
mod known;
mod namespaces;
mod pods;
mod quotas;
mod rollouts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, PodActual};
use setpoint_apis::{Key, Keyspace, Timestamp, document};

pub(crate) use known::pinned;

use crate::ledger::Entry;
use crate::world::Role;

pub(crate) use fences::Fences;

/// An invariant that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// The invariant, one word or two: `session fence`.
    pub invariant: &'static str,
    /// When, in milliseconds since the simulation began.
    pub millis: u64,
    /// At which revision; 0 when it is about no write.
    pub revision: i64,
    /// What happened.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms", self.invariant, self.millis)?;
        if self.revision > 0 {
            write!(f, ", revision {}", self.revision)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All checks with what they know.
#[derive(Debug)]
pub(crate) struct Checks {
    keyspace: Keyspace,
    times: Times,
    known: known::Known,
    rollouts: rollouts::RolloutCheck,
    budgets: budgets::BudgetCheck,
    claims: claims::ClaimCheck,
    jobs: jobs::JobCheck,
    cron_jobs: cron_jobs::CronJobCheck,
    fences: fences::FenceCheck,
    pods: pods::PodCheck,
    desired: desired::DesiredCheck,
    namespaces: namespaces::NamespaceCheck,
    quotas: quotas::QuotaCheck,
    violations: Vec<Violation>,
}

/// A run that goes wrong goes wrong everywhere: the first findings are the ones to read.
const MOST: usize = 20;

impl Checks {
    pub(crate) fn new(keyspace: Keyspace, times: Times) -> Self {
        Self {
            keyspace,
            times,
            known: known::Known::default(),
            rollouts: rollouts::RolloutCheck::default(),
            budgets: budgets::BudgetCheck::default(),
            claims: claims::ClaimCheck::default(),
            jobs: jobs::JobCheck::default(),
            cron_jobs: cron_jobs::CronJobCheck::default(),
            fences: fences::FenceCheck::default(),
            pods: pods::PodCheck::default(),
            desired: desired::DesiredCheck::default(),
            namespaces: namespaces::NamespaceCheck::default(),
            quotas: quotas::QuotaCheck::default(),
            violations: Vec::new(),
        }
    }

    /// The fences now.
    pub(crate) fn fences(&self) -> Arc<Fences> {
        self.fences.now()
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(crate) fn enter(&mut self, entry: &Entry<'_>) {
        let Ok(key) = self.keyspace.split(entry.key) else {
            return;
        };
        let mut found = Vec::new();
        let change = Change::new(entry, key);
        self.rollouts.enter(&change, &self.known, &mut found);
        self.claims.enter(&change, &mut found);
        self.budgets.enter(&change, &self.known, &mut found);
        self.jobs.enter(&change, &self.known, &mut found);
        self.cron_jobs.enter(&change, &self.times, &mut found);
        self.known.enter(&change);
        self.budgets.note(&change, &self.known);
        self.jobs.note(&change, &self.known);
        // The fences are told last: a write counts under those it was made under.
        self.desired.enter(&change, &mut found);
        self.namespaces.enter(&change, &mut found);
        self.quotas.enter(&change, &self.known, &mut found);
        self.pods.enter(&change, &self.known, &mut found);
        self.fences.enter(&change, &mut found);
        self.report(entry.millis, entry.revision, found);
    }

    /// An instance of a pod begins to run, on this node.
    pub(crate) fn started(&mut self, millis: u64, pod: &setpoint_apis::ObjectKey, node: &str) {
        let found = self.pods.started(pod, node);
        self.report(millis, 0, found.into_iter().collect());
    }

    /// An instance of a pod has ended.
    pub(crate) fn ended(&mut self, pod: &setpoint_apis::ObjectKey, node: &str) {
        self.pods.ended(pod, node);
    }

    /// The share of a resource of all nodes that bound pods request.
    pub(crate) fn requested(&self, resource: &str) -> f64 {
        self.pods.requested(resource)
    }

    fn report(&mut self, millis: u64, revision: i64, found: Vec<Finding>) {
        let room = MOST.saturating_sub(self.violations.len());
        let violations = found
            .into_iter()
            .take(room)
            .map(|(invariant, message)| Violation {
                invariant,
                millis,
                revision,
                message,
            });
        self.violations.extend(violations);
    }
}

/// An invariant, and how it was broken.
type Finding = (&'static str, String);

/// A change with what it is about, read once for all checks.
struct Change<'a> {
    entry: &'a Entry<'a>,
    key: Key<'a>,
    /// The pod, binding or record that it brings, when that parses.
    pod: Option<Pod>,
    binding: Option<Binding>,
    record: Option<PodActual>,
}

impl<'a> Change<'a> {
    fn new(entry: &'a Entry<'a>, key: Key<'a>) -> Self {
        let (mut pod, mut binding, mut record) = (None, None, None);
        match (&key, entry.value) {
            (Key::Desired("pods", key), Some(v)) => pod = document::decode_keyed(key, v).ok(),
            (Key::Binding(_), Some(v)) => binding = document::decode_value(v).ok(),
            (Key::NodePod(..), Some(v)) => record = document::decode_value(v).ok(),
            _ => {}
        }
        Self {
            entry,
            key,
            pod,
            binding,
            record,
        }
    }

    /// Whether a process of controllers made it.
    fn by_controllers(&self) -> bool {
        let sent = self.entry.sent;
        sent.is_some_and(|sent| Role::of(&sent.process) == Role::Controllers)
    }
}

/// What time it is, and how wrong clocks may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When the simulation began.
    pub(crate) begun: Timestamp,
    /// By how much clocks are wrong then, at most.
    pub(crate) error: Duration,
    /// By how many millionths they drift, at most.
    pub(crate) drift_ppm: u32,
}

impl Times {
    /// The true time so many milliseconds after the beginning, and by how much a clock differs from it at most.
    fn now(&self, millis: u64) -> (Timestamp, Duration) {
        let passed = Duration::from_millis(millis);
        let drift = passed * self.drift_ppm / 1_000_000;
        // Clocks of whole seconds.
        let error = self.error + drift + Duration::from_secs(1);
        (self.begun.saturating_add(passed), error)
    }
}

/// A check of changes.
trait Check {
    /// Takes note of a change, and says what is wrong with it.
    fn enter(&mut self, change: &Change<'_>, found: &mut Vec<Finding>);
}

#[cfg(test)]
mod tests;
