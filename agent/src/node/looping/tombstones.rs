//! Tombstones: volume claims that are gone, whose directories this node gives up.
//!
//! What is to be done is tried at once when a tombstone comes or a pod has gone, and otherwise after a while. Which of them
//! are obeyed stands in the node's status, so that one write answers all of them, and an agent that is started again
//! finds out anew: the directories of those are not there.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use setpoint_apis::ObjectKey;
use setpoint_apis::core::{Node, PersistentVolumeClaim};
use setpoint_apis::keyspace::uid_name;
use setpoint_apis::records::Tombstone;
use setpoint_runtime::backoff::Backoff;
use setpoint_runtime::events::EventRef;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::NodeLoop;
use crate::volumes::{DiscardProblem, Discarded};

/// The wait before directories that could not be given up are tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// What comes meanwhile is looked at together.
const COALESCE: Duration = Duration::from_millis(50);
/// How often the same is told of the same claim: before its event has expired.
const TELL_AGAIN: Duration = Duration::from_secs(30 * 60);

/// The reason of the events.
const REASON: &str = "VolumeNotRemoved";

/// What is under way.
#[derive(Default)]
pub(super) struct Discards {
    pub(super) under_way: Option<BoxFuture<'static, Discarded>>,
    /// Not before this.
    pub(super) again_at: Option<Instant>,
    failures: u32,
    /// What is under way is about: by uid, the revision of the tombstone.
    asked: BTreeMap<String, i64>,
    /// The revision of the newest tombstone that was looked at.
    newest: i64,
    /// What was told of which tombstone, and when.
    told: BTreeMap<String, (String, Instant)>,
}

impl Discards {
    /// The end of a pod is on record: what it used can go.
    pub(super) fn pod_gone(&mut self) {
        self.failures = 0;
        self.again_at = None;
    }
}

impl NodeLoop {
    /// Before each plan: tombstones that are to be obeyed are.
    pub(super) fn tend_tombstones(&self, discards: &mut Discards) {
        if self.state.tombstones.is_empty() || discards.under_way.is_some() {
            return;
        }
        let revisions = self.state.tombstones.values().map(|grave| grave.revision);
        let newest = revisions.max().unwrap_or_default();
        if newest > discards.newest {
            discards.newest = newest;
            discards.failures = 0;
            let soon = Instant::now() + COALESCE;
            let at = discards.again_at.map_or(soon, |at| at.min(soon));
            discards.again_at = Some(at);
        }
        if discards.again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let due = self.state.due_tombstones();
        if due.is_empty() {
            return;
        }
        discards.again_at = None;
        let asked = due
            .into_iter()
            .map(|g| (g.tombstone.uid.clone(), g.revision));
        discards.asked = asked.collect();
        let uids = discards.asked.keys().cloned().collect();
        discards.under_way = Some(self.parts.runner.discard_claims(uids));
    }

    /// The directories have been given up, or not. Returns whether the node's status has something new to say.
    pub(super) fn discarded(&mut self, discards: &mut Discards, discarded: Discarded) -> bool {
        discards.under_way = None;
        // Without an answer it is asked again.
        let (mut news, mut left) = (false, discarded.is_empty());
        for (uid, done) in discarded {
            let name = uid_name(&uid);
            let asked = discards.asked.get(&uid);
            let grave = self.state.tombstones.get_mut(&name);
            let Some(grave) = grave.filter(|grave| Some(&grave.revision) == asked) else {
                continue;
            };
            let claim = &grave.tombstone;
            let problem = match done {
                Ok(()) => {
                    info!(
                        namespace = claim.namespace,
                        claim = claim.name,
                        uid,
                        "the directory of a volume claim that is gone is given up"
                    );
                    grave.obeyed = true;
                    news = true;
                    continue;
                }
                Err(problem) => problem,
            };
            left = true;
            let claim = claim.clone();
            self.tell_left(discards, name, &claim, &problem);
        }
        if left {
            discards.failures = discards.failures.saturating_add(1);
            let wait = AGAIN.delay(discards.failures, &mut self.rng);
            discards.again_at = Some(Instant::now() + wait);
        }
        let left = |name: &String| self.state.tombstones.get(name).is_some_and(|g| !g.obeyed);
        discards.told.retain(|name, _| left(name));
        news
    }

    fn tell_left(
        &self,
        discards: &mut Discards,
        name: String,
        claim: &Tombstone,
        problem: &DiscardProblem,
    ) {
        let (namespace, uid) = (claim.namespace.as_str(), claim.uid.as_str());
        if !problem.needs_help() {
            debug!(namespace, claim = claim.name, uid, %problem, "the directory of a volume claim that is gone stays for now");
            return;
        }
        let message = format!(
            "the directory of the deleted volume claim {namespace}/{} (uid {uid}) is not removed from node {}, and its space not freed: {problem}. It is tried again",
            claim.name, self.parts.config.node
        );
        let now = Instant::now();
        let known = discards.told.get(&name).is_some_and(|(told, at)| {
            *told == message && now.saturating_duration_since(*at) < TELL_AGAIN
        });
        if known {
            return;
        }
        warn!(namespace, claim = claim.name, uid, "{message}");
        let recorder = &self.parts.recorder;
        let of_claim = ObjectKey::namespaced(namespace, claim.name.as_str());
        let of_claim = EventRef::of::<PersistentVolumeClaim>(&of_claim, uid);
        recorder.warning(of_claim, REASON, message.clone());
        let node = ObjectKey::cluster(self.parts.config.node.as_str());
        recorder.warning(EventRef::of::<Node>(&node, ""), REASON, message.clone());
        discards.told.insert(name, (message, now));
    }
}
