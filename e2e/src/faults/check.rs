//! What every run is held against, each promise by its name.
//!
//! | Check | Promise |
//! |---|---|
//! | `history` | the record itself is whole: nothing else is worth checking otherwise |
//! | `fencing` | every write was made by the process that held the fence it needed, under the epoch that held |
//! | `single placement` | no pod is on record at two nodes; claims follow the binding |
//! | `watch completeness` | every cache equals the store at the cache's revision, whenever it is looked at |
//! | `no lost desired` | what users want stays, and controllers delete only what has an owner |
//!
//! That actual matches desired in the end (`convergence`) is a question to the running cluster: [`super::goal`].

mod completeness;
mod desired;
mod fencing;
mod placement;
mod record;

use std::fmt;

use setpoint_apis::Keyspace;

use super::history::History;

pub use fencing::{Fenced, fenced};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check, by its name.
    pub check: &'static str,
    /// At which revision.
    pub revision: i64,
    /// What happened.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at r{}: {}", self.check, self.revision, self.message)
    }
}

/// Holds a run against all checks. What is found is in the order of the checks; when the record is not whole, only that
/// is said.
pub fn all(history: &History) -> Vec<Finding> {
    let keyspace = Keyspace::default();
    let found = record::check(history);
    if !found.is_empty() {
        return found;
    }
    [
        fencing::check(history, &keyspace),
        placement::check(history, &keyspace),
        completeness::check(history, &keyspace),
        desired::check(history, &keyspace),
    ]
    .concat()
}

#[cfg(test)]
mod tests;
