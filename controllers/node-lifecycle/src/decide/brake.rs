//! The outage brake: when more than half of the nodes fall silent together, it is more likely that we are cut off from
//! them, or that something they share is down, than that each of them died. Moving their pods would then load the rest
//! with what it cannot carry, and run twice what still runs over there.
//!
//! # The rule
//! Members are the nodes that are there, and those whose silence is recent (a minute) or has been suspended; nodes that
//! were silent and given up long before do not count on either side. The brake is engaged while more than half of the
//! members are silent or late. Late is who is still there but has missed a renewal of its lease: nodes that are cut off
//! at one moment lose their leases within a third of the leases' time, and when the first is gone, all are late. While
//! those of whom there is no answer could engage it, nobody is given up whom its user has not deleted; for how long is up
//! to who asks (`probe::PATIENCE`).
//!
//! So in a cluster of one or two nodes, the loss of the only node, or of both, engages the brake, and the loss of one of
//! two does not; of three, the loss of two does.
//!
//! # Its end
//! When at most half are silent, those that are still silent are given up, but not within [`GRACE`] of the last node
//! that came back: after a partition heals, the others are likely to follow. Deleting the desired document of a silent
//! node gives it up at once, also under the brake: its user has said so.

use std::fmt;
use std::time::Duration;

use setpoint_apis::records::NodeState;
use setpoint_apis::time::Timestamp;

use super::{NodeFacts, Session, Snapshot};

/// Silences that begin within this time are taken to have one cause.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How long suspended nodes have to come back after another one did.
pub const GRACE: Duration = Duration::from_secs(10);

/// What the brake is decided on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrakeFacts {
    /// Members that have no session.
    pub silent: usize,
    /// Members that have one and have missed a renewal.
    pub late: usize,
    /// Members that have one and of which nobody could say.
    pub in_doubt: usize,
    /// All members.
    pub members: usize,
    /// When the last node became ready.
    pub last_return: Option<Timestamp>,
}

impl BrakeFacts {
    pub(super) fn of(snapshot: &Snapshot, now: Timestamp) -> Self {
        let mut facts = Self::default();
        for node in snapshot.nodes.values() {
            let health = node.health.as_ref();
            match (node.session, health.map(|h| h.state)) {
                (Session::Unreadable, _) => {}
                // Its user does not want it, so its pods do not count on it.
                (Session::Alive(session), _) if node.is_unwanted(session) => {}
                (Session::Alive(_), state) => {
                    facts.members += 1;
                    facts.late += usize::from(node.late);
                    facts.in_doubt += usize::from(node.in_doubt);
                    let returned = match state {
                        Some(NodeState::Ready) => health.map(|h| h.since),
                        // Coming back at this moment.
                        Some(NodeState::Suspended | NodeState::Unreachable) => Some(now),
                        Some(NodeState::Removed) | None => None,
                    };
                    facts.last_return = facts.last_return.max(returned);
                }
                // Given up by its user.
                (Session::Absent, _) if !node.desired => {}
                (Session::Absent, None) if node.never_seen() => {}
                (Session::Absent, _) => {
                    let recent = usize::from(recently_silent(node, now));
                    facts.members += recent;
                    facts.silent += recent;
                }
            }
        }
        facts
    }

    /// Whether nothing is to be moved.
    pub fn engaged(&self) -> bool {
        (self.silent + self.late) * 2 > self.members
    }

    /// Whether nothing is to be moved, or would be if all that are in doubt were late.
    pub fn could_engage(&self) -> bool {
        (self.silent + self.late + self.in_doubt) * 2 > self.members
    }

    /// Until when a suspended node is still waited for; `None` when it is not.
    pub(super) fn grace(&self, node: &NodeFacts, now: Timestamp) -> Option<Timestamp> {
        let suspended = node
            .health
            .as_ref()
            .is_some_and(|h| h.state == NodeState::Suspended);
        // A return that lies ahead is a clock that was set back: waiting for it could take for ever.
        let last_return = self.last_return.filter(|at| *at <= now)?;
        let until = last_return + GRACE;
        (suspended && now < until).then_some(until)
    }
}

/// Whether a node without a session counts: one that was given up long ago does not.
pub(super) fn recently_silent(node: &NodeFacts, now: Timestamp) -> bool {
    node.health
        .as_ref()
        .is_none_or(|h| h.state != NodeState::Unreachable || now.duration_since(h.since) < WINDOW)
}

impl fmt::Display for BrakeFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (silent, members) = (self.silent + self.late, self.members);
        if members == 1 {
            f.write_str("the only node is silent: nothing is moved")
        } else {
            write!(
                f,
                "{silent} of {members} nodes are silent: nothing is moved"
            )
        }
    }
}
