//! The invariants that every change of the store is held against, as it takes effect.
//!
//! None of them trusts what it checks: who may write is told from who sent a change and when, not from the guards that
//! the change carried; requests and owners are read from the documents.
//!
//! | Module | Invariant |
//! |---|---|
//! | `fences` | no effective write of an old epoch or session, none by a stranger to the key |
//! | `pods` | no pod claimed on two nodes at once, no node over its allocatable, no `stop` pod running twice |
//! | `desired` | nothing wanted is lost, nothing is garbage-collected because of an Invalid document |

mod desired;
mod fences;
mod pods;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use setpoint_apis::{Key, Keyspace};

use crate::ledger::Entry;

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
    fences: fences::FenceCheck,
    pods: pods::PodCheck,
    desired: desired::DesiredCheck,
    violations: Vec<Violation>,
}

/// A run that goes wrong goes wrong everywhere: the first findings are the ones to read.
const MOST: usize = 20;

impl Checks {
    pub(crate) fn new(keyspace: Keyspace) -> Self {
        Self {
            keyspace,
            fences: fences::FenceCheck::default(),
            pods: pods::PodCheck::default(),
            desired: desired::DesiredCheck::default(),
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
        // The fences are told last: a write counts under those it was made under.
        self.desired.enter(entry, &key, &mut found);
        self.pods.enter(entry, &key, &mut found);
        self.fences.enter(entry, &key, &mut found);
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

/// A check of changes.
trait Check {
    /// Takes note of a change, and says what is wrong with it.
    fn enter(&mut self, entry: &Entry<'_>, key: &Key<'_>, found: &mut Vec<Finding>);
}
