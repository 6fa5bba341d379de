//! Volume claims that are gone: the nodes that have their directories are told so, and the records of them end.
//!
//! Where a claim's directory is stands in the claim's status, which is therefore the scheduler's alone to remove. When the
//! claim is gone, or another one has its name, the status becomes a tombstone in the work of that node: both in one
//! transaction, so that whoever ends between any two writes leaves one of the two. The agent gives the directory up when
//! no pod there uses it, says in its node's status which tombstones it has obeyed, and these go. Claims whose node is
//! gone for good leave nothing.
//!
//! A tombstone says that something is gone; nothing is ever removed because something is not there.

mod book;
mod look;

use std::sync::Arc;

pub(crate) use book::{Effect, Item, Stone, Tombstones};
pub(crate) use look::no_tombstone;

/// What is known of the claim of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimFacts {
    /// The claim.
    pub(crate) claim: Claim,
    /// What the status of that name says.
    pub(crate) place: Place,
    /// Whether the node that the status names exists in any way.
    pub(crate) node_exists: bool,
    /// A node with a living agent on which a pod that is bound there waits for the claim.
    pub(crate) waited_for_on: Option<Arc<str>>,
}

/// A claim that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// There is none.
    Absent,
    /// There is one, and it does not parse, or has another uid than when it was placed: which one it is nobody knows.
    Frozen,
    /// There is the one of this uid.
    Is(String),
}

/// Where the directory is that a status is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is no status.
    Absent,
    /// The status says nothing of a directory.
    Nowhere,
    /// It has never been readable.
    Unreadable,
    /// It is on this node, and that of the claim of this uid.
    On {
        /// The node.
        node: Arc<str>,
        /// The uid.
        uid: String,
    },
}

/// What to do about the claim of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClaimStep {
    /// Nothing.
    Rest,
    /// Say that it is on this node: a pod that was bound there when another claim had the name waits for it.
    Place(Arc<str>),
    /// Turn the status into a tombstone for this node and uid.
    Bury(Arc<str>, String),
    /// Delete the status: there is no directory, or nobody who has it.
    Forget,
}

/// Decides about the claim of a name.
pub(crate) fn claim_step(facts: &ClaimFacts) -> ClaimStep {
    match (&facts.claim, &facts.place) {
        (Claim::Frozen, _) => ClaimStep::Rest,
        (Claim::Is(uid), Place::On { uid: placed, .. }) if uid == placed => ClaimStep::Rest,
        (_, Place::On { node, uid }) if facts.node_exists => {
            ClaimStep::Bury(node.clone(), uid.clone())
        }
        (_, Place::On { .. }) => ClaimStep::Forget,
        (Claim::Absent, Place::Nowhere | Place::Unreadable) => ClaimStep::Forget,
        (Claim::Is(_), Place::Absent | Place::Nowhere) => match &facts.waited_for_on {
            Some(node) => ClaimStep::Place(node.clone()),
            None => ClaimStep::Rest,
        },
        // Placed again it would be without its data.
        (Claim::Is(_), Place::Unreadable) => ClaimStep::Rest,
        (Claim::Absent, Place::Absent) => ClaimStep::Rest,
    }
}

/// Why a tombstone goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoneStep {
    /// It stays.
    Rest,
    /// The node says that it has obeyed it.
    Obeyed,
    /// The node is gone for good.
    NodeGone,
}

/// Decides about a tombstone that was written at `revision`. `obeyed`: what the node's status says of it.
pub(crate) fn stone_step(revision: i64, node_exists: bool, obeyed: Option<i64>) -> StoneStep {
    if !node_exists {
        StoneStep::NodeGone
    } else if obeyed == Some(revision) {
        StoneStep::Obeyed
    } else {
        StoneStep::Rest
    }
}

#[cfg(test)]
mod tests;
