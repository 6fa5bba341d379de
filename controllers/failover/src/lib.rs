//! failover: asks for the release of the pods of lost nodes.
//!
//! # Promises
//! - As soon as a node is `Unreachable`, the scheduler is asked, by release intents, to release its pods: those of high
//!   priority first, in batches, and each batch only after another look at what has become of the nodes.
//! - Nothing is asked for while node-lifecycle has yet to say what it thinks of a silence, and nothing of nodes that are
//!   suspended; requests that were made and not yet carried out are taken back when the brake engages or the node
//!   comes back. Each request is guarded on the health record and the binding that it was decided from, and on the
//!   absence of the node's session.
//! - A pod's annotation `setpoint.dev/partition-policy` is kept: `replace` (the default) releases it, `keep` never does,
//!   and `stop`, for pods that must never run twice, releases when the lost node's fence is gone too. A `stop` pod that was
//!   claimed without a fence stays bound until its node is back: nothing proves that the node has stopped it.
//! - A pod whose document is deleted is released, whatever its policy was, unless that was `stop` (the binding remembers)
//!   or a new pod of its name says `stop`.
//! - A pod that is kept for its policy gets an event that says so, once per loss, with the command that gives it up, and
//!   another one with another command when its document is deleted meanwhile. One that waits for the end of a fence gets an event that says until when about.
//! - What is finished stays as a record where it ran. What cannot be read is not touched.
//!
//! Intents lie outside the state trees, so the cache does not hold them: failover lists its own when it begins to lead
//! and keeps account of them from then on.

mod account;
pub mod decide;
mod execute;
mod observe;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use setpoint_apis::core::{Node, Pod};
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::cache::StateKey;
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{CacheBuilder, Clock, Leader};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use account::{Account, Told};
use decide::decide;
use execute::Executed;

/// Requests that are made at once, before another look is taken.
pub const BATCH: usize = 500;
/// The least time between two looks while pods are being released: every look reads all bindings.
const PACE: Duration = Duration::from_millis(25);
/// How long until a decision is made again that was not, or not wholly, carried out.
const RETRY: Duration = Duration::from_secs(1);
/// A slow pass over everything, with a fresh list of intents, that repairs what a bug missed.
const FULL_PASS: Duration = Duration::from_secs(600);

/// Names the kinds that this controller reads.
pub fn register(cache: CacheBuilder) -> CacheBuilder {
    cache.kind::<Node>().kind::<Pod>()
}

/// Decides and executes until the leadership is lost or given up.
pub async fn run(leader: Leader, _clock: Clock, recorder: Recorder) {
    // Pods and bindings change all the time and matter only while a node is lost.
    let armed = Arc::new(AtomicBool::new(false));
    let mut subscription = leader.cache().subscribe({
        let armed = armed.clone();
        move |key| match key {
            StateKey::NodeAlive(_) | StateKey::Health(_) => true,
            StateKey::Binding(_) | StateKey::NodeFence(_) | StateKey::NodePod(..) => {
                armed.load(Ordering::Relaxed)
            }
            StateKey::Desired(plural, _) => *plural == Pod::PLURAL && armed.load(Ordering::Relaxed),
            _ => false,
        }
    });
    let mut account: Option<Account> = None;
    let mut told = Told::default();
    let mut full_pass = Instant::now() + FULL_PASS;
    let mut next_look = full_pass;
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = leader.lost().cancelled() => return,
            changes = subscription.next() => {
                // Nodes come, and nothing else: no reason to look at all of them for each one.
                let idle = account.is_some() && !armed.load(Ordering::Relaxed);
                if idle && observe::is_quiet(&leader.cache().view(), &changes) {
                    continue;
                }
                // What else changes until then is looked at together.
                tokio::select! {
                    biased;
                    () = leader.lost().cancelled() => return,
                    () = tokio::time::sleep_until(not_before) => {}
                }
            }
            () = tokio::time::sleep_until(next_look) => {}
        }
        if Instant::now() >= full_pass {
            full_pass = Instant::now() + FULL_PASS;
            account = None;
        }
        next_look = full_pass;
        let known = match account.take() {
            Some(account) => account,
            None => match Account::list(&leader).await {
                Ok(account) => account,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "release intents cannot be listed; trying again"
                    );
                    next_look = Instant::now() + RETRY;
                    continue;
                }
            },
        };
        let known = account.insert(known);
        let snapshot = observe::snapshot(&leader.cache().view(), known);
        let plan = decide(&snapshot, BATCH);
        if plan.losing != armed.swap(plan.losing, Ordering::Relaxed) && plan.losing {
            // Something may have changed between the snapshot and now that nobody told us of.
            next_look = Instant::now();
        }
        if plan.losing {
            not_before = Instant::now() + PACE;
        }
        for (reason, pods) in plan.held_by_reason() {
            debug!(reason, pods, "pods of lost nodes are not released");
        }
        let wanted = |pod: &ObjectKey| leader.cache().view().desired::<Pod>().contains(pod);
        for (pod, news) in told.news(&plan, wanted) {
            let binding = snapshot.pods.get(&pod).and_then(|p| p.binding.as_ref());
            if let Some(binding) = binding {
                execute::tell_held(&leader, &recorder, &pod, &binding.node, news);
            }
        }
        if !plan.steps.is_empty() {
            info!(
                release = plan.releases(),
                withdraw = plan.steps.len() - plan.releases(),
                more = plan.more,
                "failover"
            );
        }
        match execute::execute(&leader, &recorder, known, &plan).await {
            Executed::Done if plan.more => next_look = not_before,
            Executed::Done => {}
            Executed::Again => next_look = next_look.min(Instant::now() + RETRY),
            Executed::Refenced => {
                // Which of the intents are written is not known.
                account = None;
                next_look = Instant::now();
            }
            Executed::Deposed => return,
        }
    }
}
