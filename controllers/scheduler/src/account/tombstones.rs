//! Volume claims that are gone: the book of tombstones ([`crate::tombstones`]) among the rest of the account.

use std::time::Duration;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::PersistentVolumeClaim;
use setpoint_runtime::WriteOutcome;
use tokio::time::Instant;

use super::changes::keys;
use super::{Account, Planned, Retry, TOMBSTONES, Then, Turn};
use crate::content::{Contents, Source, SourceKind};
use crate::tombstones::{Effect, Item};

/// When a claim is looked at that is used on a node that it is not on: mostly it is about to be, by a binding under way.
const MISPLACED: Duration = Duration::from_secs(1);

impl Account {
    /// Plans what is to be written about claims and tombstones.
    pub(super) fn plan_tombstones(&mut self, turn: &Turn<'_>, out: &mut Vec<Planned>) {
        for key in self.contents.take_misplaced() {
            self.retry(turn.tick + MISPLACED, Retry::Claim(Item::Claim(key)));
        }
        let contents = &self.contents;
        let used = |key: &ObjectKey| is_used(contents, key);
        let planned = self
            .tombstones
            .plan(turn.view, turn.keyspace, TOMBSTONES, used);
        out.extend(planned.into_iter().map(|p| Planned {
            write: p.write,
            then: Then::Claim {
                item: p.item,
                effect: p.effect,
            },
        }));
    }

    /// What became of such a write.
    pub(super) fn claim_finished(
        &mut self,
        item: Item,
        effect: &Effect,
        outcome: &WriteOutcome,
        tick: Instant,
    ) {
        let WriteOutcome::Committed(revision) = outcome else {
            let failures = self.tombstones.failed(&item);
            let delay = self.delay(outcome, failures, &item.object());
            self.retry(tick + delay, Retry::Claim(item));
            return;
        };
        self.tombstones.committed(&item, effect, revision.0);
        if let (Item::Claim(object), Effect::Buried((node, _))) = (item, effect) {
            self.contents
                .deleted((node.clone(), source(object)), revision.0);
        }
    }

    /// How many claims and tombstones nobody has noticed.
    pub(super) fn audit_claims(&mut self, turn: &Turn<'_>) -> usize {
        let all = keys::<PersistentVolumeClaim>(turn.view);
        let contents = &self.contents;
        let used = |key: &ObjectKey| is_used(contents, key);
        self.tombstones.missed(turn.view, &all, used)
    }
}

fn source(object: ObjectKey) -> Source {
    let kind = SourceKind::Claim;
    Source { kind, object }
}

fn is_used(contents: &Contents, claim: &ObjectKey) -> bool {
    contents.is_used(&source(claim.clone()))
}
