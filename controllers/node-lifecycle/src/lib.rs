//! node-lifecycle: concludes from sessions which nodes are there.
//!
//! # Promises
//! - A node whose agent starts is registered (unless a user has declared it) and `Ready`, also when the agent takes over
//!   the session of the one before it.
//! - A node whose session ends is `Unreachable` at once, milliseconds after its lease is gone; failover then has its
//!   pods released.
//! - When more than half of the nodes go silent together, they are `Suspended` instead: nothing is moved, and their
//!   health says why ([`decide::BrakeFacts`]). Before any node is given up, those that are still there are asked whether
//!   their leases have missed a renewal, so that the first of many to expire is not given up before the others follow.
//!   While etcd does not say so of too many, none is given up; after seconds without an answer it is decided on what is
//!   known.
//! - A node whose desired document is deleted takes no new pods, also when its agent loses its session and takes another
//!   within [`decide::REMEMBERED`]; once its session is over for so long and its pods are released, everything recorded
//!   of it is removed.
//! - Every conclusion is guarded on the session it is about, or on its absence. A quiet cluster writes nothing.
//! - Beside that, the leader keeps the record from which documents are dated (`timeline`).

pub mod decide;
mod execute;
mod observe;
mod probe;
mod timeline;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use setpoint_apis::core::Node;
use setpoint_runtime::cache::StateKey;
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{CacheBuilder, Clock, Leader};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use decide::{Plan, decide};
use execute::Executed;
use probe::{Doubt, Heard};

/// How long until a decision is made again that was not, or not wholly, carried out.
const RETRY: Duration = Duration::from_secs(1);
/// How long until nodes that are late, or in doubt, are looked at again.
const RECHECK_LATE: Duration = Duration::from_millis(200);
/// A slow pass over everything that repairs what a bug missed.
const FULL_PASS: Duration = Duration::from_secs(600);

/// Names the kinds that this controller reads.
pub fn register(cache: CacheBuilder) -> CacheBuilder {
    cache.kind::<Node>()
}

/// Decides and executes until the leadership is lost or given up; beside that, keeps the record of times.
pub async fn run(leader: Leader, clock: Clock, recorder: Recorder) {
    tokio::select! {
        biased;
        () = timeline::keep(&leader, &clock) => {}
        () = conclude(leader.clone(), clock.clone(), recorder) => {}
    }
}

async fn conclude(leader: Leader, clock: Clock, recorder: Recorder) {
    // Bindings and what runs on nodes change all the time and matter only while a node is waited for to become empty.
    let waiting = Arc::new(AtomicBool::new(false));
    let mut subscription = leader.cache().subscribe({
        let waiting = waiting.clone();
        move |key| match key {
            StateKey::NodeAlive(_) | StateKey::Health(_) => true,
            StateKey::Desired(plural, _) => *plural == <Node as setpoint_apis::Kind>::PLURAL,
            StateKey::Binding(_) => waiting.load(Ordering::Relaxed),
            _ => false,
        }
    });
    let mut full_pass = Instant::now() + FULL_PASS;
    let mut next_look = full_pass;
    let mut braked = false;
    let mut full = false;
    let mut doubt = Doubt::default();
    loop {
        tokio::select! {
            biased;
            () = leader.lost().cancelled() => return,
            _ = subscription.next() => {}
            () = tokio::time::sleep_until(next_look) => {
                full = Instant::now() >= full_pass;
            }
        }
        let plan = plan(&leader, &clock, &mut doubt).await;
        if full && !plan.steps.is_empty() {
            warn!(
                steps = plan.steps.len(),
                "a full pass found something to do: a change was missed"
            );
        }
        full = false;
        let waits =
            plan.steps.iter().any(decide::Step::waits_for_bindings) || !plan.waiting.is_empty();
        if waits && !waiting.swap(true, Ordering::Relaxed) {
            // A binding may have gone between the snapshot and now.
            next_look = Instant::now();
        } else {
            waiting.store(waits, Ordering::Relaxed);
            if Instant::now() >= full_pass {
                full_pass = Instant::now() + FULL_PASS;
            }
            next_look = full_pass;
        }
        if plan.brake.engaged() != braked {
            braked = plan.brake.engaged();
            info!(
                silent = plan.brake.silent,
                late = plan.brake.late,
                of = plan.brake.members,
                braked,
                "outage brake"
            );
        }
        if let Some(at) = plan.next_look {
            next_look = next_look.min(Instant::now() + at.duration_since(clock.now()));
        }
        if plan.brake.late > 0 || plan.brake.in_doubt > 0 {
            next_look = next_look.min(Instant::now() + RECHECK_LATE);
        }
        match execute::execute(&leader, &recorder, plan).await {
            Executed::Done => {}
            Executed::Again(reason) => {
                debug!(reason, "deciding again");
                next_look = next_look.min(Instant::now() + RETRY);
            }
            Executed::Refenced => next_look = Instant::now(),
            Executed::Deposed => return,
        }
    }
}

/// Decides; and when that would give nodes up, asks first who else is late, and decides on that.
async fn plan(leader: &Leader, clock: &Clock, doubt: &mut Doubt) -> Plan {
    let (plan, present) = {
        let view = leader.cache().view();
        let snapshot = observe::snapshot(&view, &Heard::default());
        (decide(&snapshot, clock.now()), observe::present(&view))
    };
    if !plan.gives_up_nodes() || present.is_empty() {
        doubt.end();
        return plan;
    }
    let asked = Instant::now();
    let mut heard = probe::ask(leader, present).await;
    if doubt.is_over(&heard, asked, Instant::now()) && !heard.in_doubt.is_empty() {
        warn!(
            in_doubt = heard.in_doubt.len(),
            "it has not been known for long who is late; deciding without"
        );
        heard.in_doubt.clear();
    }
    if heard.late.is_empty() && heard.in_doubt.is_empty() {
        // What changed meanwhile is caught by the guards, and by the change that wakes us.
        return plan;
    }
    info!(
        late = ?heard.late,
        in_doubt = heard.in_doubt.len(),
        "nodes have missed a renewal of their lease, or may have"
    );
    let view = leader.cache().view();
    decide(&observe::snapshot(&view, &heard), clock.now())
}
