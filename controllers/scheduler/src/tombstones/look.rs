//! From the view to what is decided on, and from a step to a guarded transaction.

use std::sync::Arc;

use setpoint_apis::core::{Node, PersistentVolumeClaim, Pod};
use setpoint_apis::keyspace::uid_name;
use setpoint_apis::records::{PodStage, Tombstone};
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::{Entry, View, Write};
use setpoint_store::{Compare, TxnOp};

use super::{Claim, ClaimFacts, ClaimStep, Place, StoneStep};
use crate::claims;
use crate::decide::{Session, belongs};
use crate::observe::{node_exists, node_session};
use crate::writes::put;

/// What is known of the claim of a name, and whether a pod that waits for it is bound to a node without a session. `used`:
/// whether pods that are bound, or are about to be, use it.
pub(super) fn facts(view: &View<'_>, key: &ObjectKey, used: bool) -> (ClaimFacts, bool) {
    let status = view.actual::<PersistentVolumeClaim>().entry(key);
    let place =
        match status {
            None => Place::Absent,
            // What was last known of it is better than nothing: a directory would be left.
            Some(entry) => entry.last_good().map_or(Place::Unreadable, |s| {
                match (&s.value.node, &s.value.uid) {
                    (Some(node), Some(uid)) => Place::On {
                        node: node.as_str().into(),
                        uid: uid.clone(),
                    },
                    _ => Place::Nowhere,
                }
            }),
        };
    let claim = match view.desired::<PersistentVolumeClaim>().entry(key) {
        None => Claim::Absent,
        Some(entry) => entry.valid().map_or(Claim::Frozen, |claim| {
            identify(
                claim.uid(),
                claim.create_revision,
                &place,
                status.map_or(0, revision),
            )
        }),
    };
    let node_exists = match &place {
        Place::On { node, .. } => node_exists(view, node),
        _ => false,
    };
    let unplaced = matches!(claim, Claim::Is(_)) && matches!(place, Place::Absent | Place::Nowhere);
    let (waited_for_on, lost) = match used && unplaced {
        true => waits(view, key),
        false => (None, false),
    };
    let facts = ClaimFacts {
        claim,
        place,
        node_exists,
        waited_for_on,
    };
    (facts, lost)
}

/// Which claim one is that was created at this revision, where its place was written at that one. A place is written after
/// its claim: what is older than its place is what the place is about, and has got another uid by hand since. Its data are
/// not to be given up for that.
fn identify(uid: String, created: i64, place: &Place, placed: i64) -> Claim {
    match place {
        Place::On { uid: known, .. } if *known != uid && created < placed => Claim::Frozen,
        _ => Claim::Is(uid),
    }
}

/// Where a pod that is bound waits for a claim: the first node with a session; whether there is one without.
fn waits(view: &View<'_>, claim: &ObjectKey) -> (Option<Arc<str>>, bool) {
    let (mut on, mut lost) = (None, false);
    for (key, entry) in view.bindings().namespace(&claim.namespace) {
        let Some(binding) = entry.valid().filter(|b| b.value.withdrawn.is_none()) else {
            continue;
        };
        let pod = view.desired::<Pod>().get(key);
        let uses = pod.is_some_and(|pod| {
            belongs(pod, &binding.value) && pod.value.spec.claim_names().contains(&*claim.name)
        });
        let node = binding.value.node.as_str();
        // One that runs has the directory of the claim before, and keeps it.
        let waits = match view.pod_on(node, key) {
            None => true,
            Some(actual) => actual
                .valid()
                .is_some_and(|a| a.value.stage == PodStage::Starting),
        };
        if !(uses && waits) {
            continue;
        }
        match node_session(view, node) {
            Session::Alive(_) => {
                on = on.or_else(|| Some(node.into()));
            }
            _ => lost = true,
        }
    }
    (on, lost)
}

/// The write of a step about the claim of a name; `None` when there is nothing to write.
pub(super) fn claim_write(
    view: &View<'_>,
    keyspace: &Keyspace,
    key: &ObjectKey,
    step: &ClaimStep,
) -> Option<Write> {
    let plural = PersistentVolumeClaim::PLURAL;
    let desired = keyspace.build(&Key::Desired(plural, key.clone()));
    let actual = keyspace.build(&Key::Actual(plural, key.clone()));
    let claim = view.desired::<PersistentVolumeClaim>().get(key);
    let as_seen = Compare::ModRevision(desired, claim.map_or(0, |c| c.mod_revision));
    let status = view.actual::<PersistentVolumeClaim>().entry(key);
    let place_as_seen = Compare::ModRevision(actual.clone(), status.map_or(0, revision));
    let mut write = Write {
        guards: vec![as_seen, place_as_seen],
        ops: Vec::new(),
        context: String::new(),
    };
    match step {
        ClaimStep::Rest => return None,
        ClaimStep::Place(node) => {
            let status = claims::bound(claim?, node);
            write
                .guards
                .push(no_tombstone(keyspace, node, &claim?.uid()));
            write.ops.push(put(actual, document::encode(&status)));
            write.context = format!("place of volume claim {key}");
        }
        ClaimStep::Bury(node, uid) => {
            let stone = Tombstone {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                uid: uid.clone(),
            };
            let at = keyspace.build(&Key::WorkTombstone(node, &uid_name(uid)));
            let content = keyspace.build(&Key::WorkContent(node, plural, key.clone()));
            write.ops = vec![
                TxnOp::Delete(actual),
                put(at, document::encode(&stone)),
                // In the same moment: an agent that has the tombstone makes that directory no more.
                TxnOp::Delete(content),
            ];
            write.context = format!("tombstone of volume claim {key} for node {node}");
        }
        ClaimStep::Forget => {
            if let Some(status) = status.and_then(Entry::last_good)
                && let Some(node) = status.value.node.as_deref()
            {
                write.guards.extend(node_is_gone(keyspace, node));
            }
            write.ops.push(TxnOp::Delete(actual));
            write.context = format!("status of volume claim {key}");
        }
    }
    Some(write)
}

/// The write that removes a tombstone; `None` when it stays.
pub(super) fn stone_write(
    keyspace: &Keyspace,
    node: &str,
    name: &str,
    revision: i64,
    step: StoneStep,
) -> Option<Write> {
    let key = keyspace.build(&Key::WorkTombstone(node, name));
    let mut guards = vec![Compare::ModRevision(key.clone(), revision)];
    match step {
        StoneStep::Rest => return None,
        StoneStep::Obeyed => {}
        StoneStep::NodeGone => guards.extend(node_is_gone(keyspace, node)),
    }
    Some(Write {
        guards,
        ops: vec![TxnOp::Delete(key)],
        context: format!("removal of tombstone {name} from node {node}"),
    })
}

/// That no directory of a claim of this uid is still to be given up on a node: restored documents keep their uids.
pub(crate) fn no_tombstone(keyspace: &Keyspace, node: &str, uid: &str) -> Compare {
    Compare::absent(keyspace.build(&Key::WorkTombstone(node, &uid_name(uid))))
}

/// That nothing says any more that a node exists.
fn node_is_gone(keyspace: &Keyspace, node: &str) -> [Compare; 4] {
    let desired = Key::Desired(Node::PLURAL, ObjectKey::cluster(node));
    let all = [
        desired,
        Key::NodeAlive(node),
        Key::NodeStatus(node),
        Key::Health(node),
    ];
    all.map(|key| Compare::absent(keyspace.build(&key)))
}

/// The revision of a key, whether it parses or not.
fn revision<T>(entry: &Entry<T>) -> i64 {
    let invalid = entry.invalid().map(|i| i.mod_revision);
    invalid
        .or_else(|| entry.last_good().map(|s| s.mod_revision))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_got_another_uid_by_hand_is_no_other_claim() {
        let place = Place::On {
            node: "n1".into(),
            uid: "u1".into(),
        };
        for (uid, created, is) in [
            ("u1", 5, Claim::Is("u1".into())),
            ("u2", 5, Claim::Frozen),
            // It was made when the former one was placed already.
            ("u2", 8, Claim::Is("u2".into())),
        ] {
            assert_eq!(
                identify(uid.into(), created, &place, 7),
                is,
                "{uid} {created}"
            );
        }
        assert_eq!(
            identify("u2".into(), 5, &Place::Absent, 0),
            Claim::Is("u2".into())
        );
    }
}
