//! The guarded writes of an election of shards, and what comes of them.

use setpoint_apis::Keyspace;
use setpoint_store::group_commit::{Item, ItemOutcome};
use setpoint_store::{Compare, LeaseId, Put, TxnOp};

use super::Shard;
use super::decide::Member;
use crate::leader::Seat;

/// What came of a request.
pub(super) enum Answer {
    Registered(ItemOutcome),
    Claimed {
        claims: Vec<(Shard, Seat)>,
        outcomes: Vec<ItemOutcome>,
        /// How much was known when it was decided.
        news: u64,
    },
    Freed(Vec<Shard>, Vec<ItemOutcome>),
    /// Of the key of the whole, which a stranger had put.
    Removed(ItemOutcome),
    Left,
}

/// Registers a member, or says that it leaves.
pub(super) fn membership(own: String, member: &Member, lease: LeaseId, controller: &str) -> Item {
    Item {
        guards: Vec::new(),
        then: vec![TxnOp::Put(Put {
            key: own,
            value: member.document().into(),
            lease: Some(lease),
        })],
        context: format!("membership of {controller}"),
    }
}

/// Ends a membership.
pub(super) fn departure(own: String, controller: &str) -> Item {
    Item {
        guards: Vec::new(),
        then: vec![TxnOp::Delete(own)],
        context: format!("leaving the members of {controller}"),
    }
}

/// Takes the key of a shard if it is still at the mod revision `over`, `unchanged` holds, and nobody leads the controller
/// as a whole (`whole` is that key).
pub(super) fn claim(
    seat: &Seat,
    over: i64,
    unchanged: Compare,
    whole: &str,
    keyspace: &Keyspace,
    shard: Shard,
) -> Item {
    Item {
        guards: vec![
            Compare::ModRevision(seat.key().into(), over),
            unchanged,
            Compare::absent(whole),
        ],
        then: seat.claim(keyspace),
        context: format!("claim of shard {shard} ({})", seat.key()),
    }
}

/// Deletes an election key if it is still at this mod revision: one that is somebody else's by now stays.
pub(super) fn release(key: String, revision: i64) -> Item {
    Item {
        guards: vec![Compare::ModRevision(key.clone(), revision)],
        context: format!("release of {key}"),
        then: vec![TxnOp::Delete(key)],
    }
}
