//! What a member does with each shard, as a pure function of what it sees.
//!
//! Nothing here is exact knowledge: members and seats are seen as of two revisions of the store, both a little old. That
//! is harmless, because a claim is guarded on both (no member has come since, the seat is as seen), and because a member
//! that has gone changes nothing for the shards that were not its own.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::hash::owner;
use super::{Shard, Shards};

/// The document of a member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Member {
    /// How many shards it splits the work into.
    pub(super) shards: u16,
    /// It hands over what it holds and wants nothing.
    #[serde(default)]
    pub(super) leaving: bool,
}

impl Member {
    /// As it is stored.
    pub(super) fn document(&self) -> String {
        format!("shards: {}\nleaving: {}\n", self.shards, self.leaving)
    }
}

/// Who has the key of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// It hangs on the lease of this process.
    Me,
    /// It hangs on another lease.
    Other,
    /// It hangs on no lease, as no leader writes it: a stranger's, and whoever led before has lost its fence by it.
    Stranger,
}

/// The key of a shard, as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) holder: Holder,
    /// The key's mod revision.
    pub(super) revision: i64,
}

/// What this process does with a shard at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mine {
    /// Leads it, since this epoch.
    Leading(i64),
    /// Claims it, or gives it up, or waits to see what became of that.
    Busy,
}

/// What a member sees.
pub(super) struct Observed<'a> {
    pub(super) me: &'a str,
    pub(super) shards: Shards,
    /// Those whose key hangs on a lease. `None`: the document says nothing that can be read.
    pub(super) members: &'a BTreeMap<String, Option<Member>>,
    /// The keys that exist.
    pub(super) taken: &'a BTreeMap<Shard, Taken>,
    /// The store's revision at which they were seen.
    pub(super) taken_at: i64,
    pub(super) mine: &'a BTreeMap<Shard, Mine>,
    /// The controller is led as a whole: in mode `lease`, or by a stranger's key.
    pub(super) led_whole: bool,
}

/// What to do. A shard is in one list at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Claim these if their key is still at this mod revision (0: absent) and no member has come.
    pub(super) claim: Vec<(Shard, i64)>,
    /// Stop leading these, then delete their keys: they belong to others now.
    pub(super) hand_over: Vec<Shard>,
    /// Stop leading these: their keys are gone or somebody else's.
    pub(super) lost: Vec<Shard>,
    /// Delete these keys, left over from claims that nobody knew the outcome of, if they are at this mod revision.
    pub(super) free: Vec<(Shard, i64)>,
    /// Not done: these are due to this process and still held by another.
    pub(super) awaited: Vec<Shard>,
    /// Nothing is claimed: a member that splits the work otherwise is here.
    pub(super) disagreement: Option<String>,
}

/// See the module.
pub(super) fn decide(seen: &Observed<'_>) -> Plan {
    let disagreement = seen
        .members
        .iter()
        .find(|(_, member)| {
            member
                .as_ref()
                .is_none_or(|m| m.shards != seen.shards.count())
        })
        .map(|(name, _)| name.clone());
    // What nobody could claim is not handed over either.
    let blocked = disagreement.is_some() || seen.led_whole;
    let staying: Vec<&str> = seen
        .members
        .iter()
        .filter(|(_, member)| member.as_ref().is_some_and(|m| !m.leaving))
        .map(|(name, _)| name.as_str())
        .collect();
    let mut plan = Plan::default();
    for shard in seen.shards.iter() {
        let due = owner(shard, staying.iter().copied()) == Some(seen.me);
        let taken = seen.taken.get(&shard);
        match (seen.mine.get(&shard), taken.map(|t| (t.holder, t.revision))) {
            (Some(Mine::Busy), _) => {}
            (Some(Mine::Leading(epoch)), holder) => {
                // The key is seen as it was before the claim, until the watch has caught up.
                let seen_since = seen.taken_at >= *epoch;
                if seen_since && !matches!(holder, Some((Holder::Me, _))) {
                    plan.lost.push(shard);
                } else if !due && !blocked {
                    plan.hand_over.push(shard);
                }
            }
            (None, Some((Holder::Me, revision))) if !due => plan.free.push((shard, revision)),
            (None, _) if !due || blocked => {}
            (None, None) => plan.claim.push((shard, 0)),
            (None, Some((Holder::Me | Holder::Stranger, revision))) => {
                plan.claim.push((shard, revision));
            }
            (None, Some((Holder::Other, _))) => plan.awaited.push(shard),
        }
    }
    plan.disagreement = disagreement;
    plan
}

#[cfg(test)]
mod tests;
