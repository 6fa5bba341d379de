//! Whether etcd can be relied on for pods that must never run twice.
//!
//! The fence proves that such a pod has ended only if a lease ends when etcd says so. Some versions of etcd break that
//! (`docs/testing.md`), so none of these pods is claimed before every member that answers has told a version without known
//! holes, a moment ago: members are exchanged under a running agent. Until then the pod waits, and an event says why.
//! What runs already is left running; that etcd has become worse is told of it too.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_runtime::events::EventRef;
use setpoint_store::StoreError;
use setpoint_store::etcd::version::distrust;
use tokio::time::Instant;
use tracing::warn;

use super::NodeLoop;
use crate::node::state::Phase;

/// How long an answer counts, good or bad.
const LASTS: Duration = Duration::from_secs(10);
/// The wait before an etcd that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the same is told of the same pod: before its event has expired.
const TELL_AGAIN: Duration = Duration::from_secs(30 * 60);

/// The reason of the events.
const REASON: &str = "EtcdNotTrusted";

/// What is known of etcd's versions.
#[derive(Default)]
pub(super) struct Trust {
    pub(super) asking: Option<BoxFuture<'static, Result<Vec<String>, StoreError>>>,
    /// Not before this.
    pub(super) again_at: Option<Instant>,
    /// Until then the last answer, a good one, counts.
    good_until: Option<Instant>,
    /// To be asked though nothing is to be claimed.
    due: bool,
    /// What was told of which pod, and when.
    told: BTreeMap<ObjectKey, (String, Instant)>,
}

impl Trust {
    /// A slow pass begins: what runs is worth a question, too.
    pub(super) fn round(&mut self) {
        self.due = true;
    }
}

impl NodeLoop {
    /// Before each plan: whether etcd may be relied on is known to the state, and asked where it matters.
    pub(super) fn tend_trust(&mut self, trust: &mut Trust) {
        if self.parts.config.allow_known_holes {
            self.state.trusted = true;
            return;
        }
        let now = Instant::now();
        self.state.trusted = trust.good_until.is_some_and(|until| now < until);
        let runs = || self.state.locals.values().any(|l| l.fence.is_some());
        let wanted = !self.state.trusted && self.state.waits_for_trust() || trust.due && runs();
        if wanted && trust.asking.is_none() && trust.again_at.is_none() {
            let store = self.parts.store.clone();
            trust.asking = Some(Box::pin(async move { store.versions().await }));
        }
    }

    /// Etcd has told its versions, or not.
    pub(super) fn versions_came(
        &mut self,
        trust: &mut Trust,
        came: Result<Vec<String>, StoreError>,
    ) {
        trust.asking = None;
        let now = Instant::now();
        let why = match came {
            Ok(versions) => distrust(&versions),
            // Nothing can be claimed then either.
            Err(error) if error.is_retryable() => {
                trust.again_at = Some(now + RETRY);
                return;
            }
            Err(error) => Some(format!(
                "its version is not told to this agent ({error}); give the agent's user a look at etcd's status"
            )),
        };
        trust.due = false;
        let Some(why) = why else {
            trust.good_until = Some(now + LASTS);
            trust.told.clear();
            return;
        };
        trust.good_until = None;
        trust.again_at = Some(now + LASTS);
        self.tell_distrust(trust, &why, now);
    }

    fn tell_distrust(&self, trust: &mut Trust, why: &str, now: Instant) {
        let work = &self.state.work;
        trust.told.retain(|key, _| work.contains_key(key));
        for (key, work) in work.iter().filter(|(_, work)| work.never_twice()) {
            let message = match self.state.locals.get(key) {
                Some(local) if local.phase == Phase::Gone => continue,
                Some(_) => format!(
                    "the pod must never run twice (setpoint.dev/partition-policy: stop), and etcd can no longer be relied on for \
                     that; it goes on running: {why}"
                ),
                None => format!(
                    "not started: the pod must never run twice (setpoint.dev/partition-policy: stop), and etcd cannot be relied \
                     on for that. It starts once etcd can be: {why}"
                ),
            };
            let known = trust.told.get(key).is_some_and(|(told, at)| {
                *told == message && now.saturating_duration_since(*at) < TELL_AGAIN
            });
            if known {
                continue;
            }
            warn!(object = %key, node = self.parts.config.node, "{message}");
            let about = EventRef::of::<Pod>(key, work.header.uid.clone());
            self.parts.recorder.warning(about, REASON, message.clone());
            trust.told.insert(key.clone(), (message, now));
        }
    }
}
