//! The loop itself: takes a session, follows the work, carries out plans.

mod adoption;
mod at_most_one;
mod fence;
mod repair;
mod report;
mod tombstones;
mod trust;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use setpoint_apis::records::{NodeAlive, NodeStatusRecord};
use setpoint_apis::{Keyspace, ObjectKey};
use setpoint_runtime::Clock;
use setpoint_runtime::backoff::Backoff;
use setpoint_runtime::events::Recorder;
use setpoint_runtime::watcher::{WatcherEvent, WatcherOptions, watcher};
use setpoint_store::group_commit::GroupCommit;
use setpoint_store::{EventKind, SharedStore, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::AgentError;
use super::config::{Addresses, AgentConfig};
use super::disk::Disk;
use super::fence::Fence;
use super::machine::Machine;
use super::session::{Session, SessionError, Sessions};
use super::state::{Call, Local, NodeWrite, Phase, State, plan};
use super::status::UsageMeter;
use super::work::{Named, WorkTree};
use super::writes::{Done, Fate, items, send};
use crate::content::Content;
use crate::workload::{Begin, PodReport, PodRunner, PodWork, Reports};
use at_most_one::Asking;
use fence::Doubt;
use repair::Rounds;
use tombstones::Discards;
use trust::Trust;

/// How often the machine is looked at. What it says is written only when it has moved much.
const SAMPLE_EVERY: Duration = Duration::from_secs(15);
/// After a batch of more than [`BUSY`] writes the next one waits this long, so that a burst of status changes becomes a
/// few revisions and not hundreds.
const COALESCE: Duration = Duration::from_millis(20);
const BUSY: usize = 8;
/// The wait before statuses that the store did not take are sent again.
const REFUSED: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// When a claim that was refused is tried again though nothing changed.
const CLAIM_RETRY: Duration = Duration::from_secs(2);
/// How long pods may take to stop when the agent stops them at its end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long an agent waits at its end for etcd to hear that it ends.
pub(crate) const FAREWELL: Duration = Duration::from_millis(150);

pub(crate) struct Parts {
    pub(crate) config: AgentConfig,
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
    pub(crate) commits: GroupCommit,
    pub(crate) clock: Clock,
    pub(crate) machine: Machine,
    pub(crate) disk: Disk,
    pub(crate) runner: Arc<dyn PodRunner>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) content: Arc<Content>,
    pub(crate) content_version: watch::Sender<u64>,
    pub(crate) endpoint: Option<String>,
    /// Events about pods that are not claimed.
    pub(crate) recorder: Recorder,
}

pub(crate) struct NodeLoop {
    parts: Parts,
    me: NodeAlive,
    state: State,
    /// Held over sessions.
    fence: Option<Fence>,
    tree: WorkTree,
    addresses: Option<Addresses>,
    pod_ips: std::collections::BTreeMap<ObjectKey, IpAddr>,
    meter: UsageMeter,
    reported: Option<NodeStatusRecord>,
    /// Records that others damaged and that were found by looking over them.
    repairs: u64,
    rng: fastrand::Rng,
}

/// What a batch of writes has shown.
#[derive(Default)]
struct Settled {
    /// A guard did not hold: is the session still ours?
    rejected: bool,
    /// An outcome is unknown.
    unknown: bool,
    /// The store did not take a write that is due all the same.
    refused: bool,
    /// The record of a pod is deleted.
    forgotten: bool,
}

/// Somebody else, or nobody, holds the session.
struct SessionLost;

impl NodeLoop {
    pub(crate) fn new(parts: Parts) -> Self {
        let me = NodeAlive {
            hostname: parts.machine.hostname.clone(),
            pid: parts.machine.pid,
            instance: parts.disk.instance.clone(),
            since: parts.clock.now(),
            lease_ttl_seconds: i64::try_from(parts.config.lease_ttl.as_secs()).unwrap_or(i64::MAX),
        };
        let mut tree = WorkTree::new(parts.keyspace.clone(), parts.content.clone());
        tree.restore(parts.disk.content());
        let addresses = parts.config.pod_cidr.map(Addresses::new);
        let seed = parts
            .disk
            .instance
            .bytes()
            .fold(0, |h: u64, b| h.wrapping_mul(31).wrapping_add(b.into()));
        Self {
            parts,
            me,
            state: State::default(),
            fence: None,
            tree,
            addresses,
            pod_ips: std::collections::BTreeMap::new(),
            meter: UsageMeter::default(),
            reported: None,
            repairs: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let mut held = None;
        // Dropping the life at any of its waits is safe: what was sent is guarded, and the next agent reads it again.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            error = self.live(&mut held) => return Err(error),
        }
        if self.parts.config.stop_pods_on_exit {
            self.stop_all(held.as_ref()).await;
        }
        Ok(())
    }

    /// Holds one session after the other; the last one is in `held`. Ends when another agent has the node.
    async fn live(&mut self, held: &mut Option<Session>) -> AgentError {
        let mut adopted = false;
        loop {
            let session = match self.take_session(&mut adopted).await {
                Ok(session) => session,
                Err(error) => return error,
            };
            *held = Some(session.clone());
            match self.follow(session, &mut adopted).await {
                Ok(SessionLost) => warn!(
                    node = self.parts.config.node,
                    "the session is lost; taking a new one"
                ),
                Err(error) => {
                    warn!(
                        node = self.parts.config.node,
                        error = &error as &dyn std::error::Error,
                        "the session's work could not be listed; trying again"
                    );
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Takes a session, however long etcd is away. Meanwhile what was claimed goes on: after a while what the disk copy
    /// names is taken up.
    async fn take_session(&mut self, adopted: &mut bool) -> Result<Session, AgentError> {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let offline_at = Instant::now() + self.parts.config.offline_after;
        let mut failures = 0;
        let reports = self.parts.reports.clone();
        let (store, keyspace) = (self.parts.store.clone(), self.parts.keyspace.clone());
        let (node, me, ttl) = (
            self.parts.config.node.clone(),
            self.me.clone(),
            self.parts.config.lease_ttl,
        );
        let sessions = Sessions {
            store: &store,
            keyspace: &keyspace,
            node: &node,
            ttl,
            me: &me,
        };
        loop {
            let mut attempt = std::pin::pin!(sessions.acquire());
            let result = loop {
                tokio::select! {
                    biased;
                    result = &mut attempt => break result,
                    () = sleep_until(offline_at), if !*adopted => {
                        warn!(node, "etcd is not reachable: taking up what the disk copy names");
                        self.adopt_from_disk();
                        *adopted = true;
                    }
                    taken = reports.take() => self.take_reports(taken),
                }
            };
            match result {
                Ok(session) => return Ok(session),
                Err(SessionError::Held { node, holder }) => {
                    return Err(AgentError::Held { node, holder });
                }
                Err(error) => {
                    failures += 1;
                    warn!(
                        node,
                        error = &error as &dyn std::error::Error,
                        "no session yet; trying again"
                    );
                    sleep(backoff.delay(failures, &mut self.rng)).await;
                }
            }
        }
    }

    /// Follows the work under a session until that is lost.
    async fn follow(
        &mut self,
        mut session: Session,
        adopted: &mut bool,
    ) -> Result<SessionLost, StoreError> {
        let reports = self.parts.reports.clone();
        let node = self.parts.config.node.clone();
        let range = self.parts.keyspace.work_range(Some(&node));
        let options = WatcherOptions {
            seed: session.id.unsigned_abs(),
            ..WatcherOptions::default()
        };
        let mut stream = std::pin::pin!(watcher(self.parts.store.clone(), range, options));
        let mut named = Named::default();
        let mut listed = false;
        let mut in_flight: Option<BoxFuture<'static, Done>> = None;
        let mut not_before = Instant::now();
        let mut ticks = interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut claim_retry = interval(CLAIM_RETRY);
        claim_retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.reported = None;
        let lease = session.lease.clone();
        let mut doubt = Doubt::default();
        let mut asking = Asking::default();
        let mut trust = Trust::default();
        let mut discards = Discards::default();
        let mut refusals = 0;
        let mut rounds = Rounds::new(self.parts.config.look_over_every, session.id);
        loop {
            if listed {
                let settled = in_flight.is_none() && !doubt.stands();
                self.tend_fence(&session, &mut asking, settled);
                self.tend_trust(&mut trust);
                self.tend_tombstones(&mut discards);
                let plan = plan(&self.state);
                self.call(plan.calls);
                if in_flight.is_none() && !doubt.stands() && Instant::now() >= not_before {
                    if plan.writes.len() > BUSY {
                        not_before = Instant::now() + COALESCE;
                    }
                    in_flight = self.send(&session, plan.writes);
                }
            }
            // One that was lost is let go of only when the work is listed.
            let fence = self.fence.as_ref().map(|fence| fence.lease.clone());
            let fence = fence.filter(|_| listed);
            let waiting = listed && in_flight.is_none() && Instant::now() < not_before;
            // What ends or settles something comes first, then timers, which are seldom due, then reports, of which there
            // is one per pod however often it speaks, and last the watch, which can always have more.
            tokio::select! {
                biased;
                () = lease.lost() => return Ok(SessionLost),
                () = async { fence.as_ref().expect("guarded by the condition").lost().await }, if fence.is_some() => {}
                came = async { asking.under_way.as_mut().expect("guarded by the condition").await }, if asking.under_way.is_some() => {
                    self.fence_came(&mut asking, came);
                }
                came = async { trust.asking.as_mut().expect("guarded by the condition").await }, if trust.asking.is_some() => {
                    self.versions_came(&mut trust, came);
                }
                done = async { in_flight.as_mut().expect("guarded by the condition").await }, if in_flight.is_some() => {
                    in_flight = None;
                    let settled = self.settle(done);
                    if settled.forgotten {
                        discards.pod_gone();
                    }
                    if settled.unknown || settled.rejected {
                        doubt.arise(settled.unknown);
                    }
                    if settled.refused {
                        refusals += 1;
                        not_before = Instant::now() + REFUSED.delay(refusals, &mut self.rng);
                    } else {
                        refusals = 0;
                    }
                }
                discarded = async { discards.under_way.as_mut().expect("guarded by the condition").await }, if discards.under_way.is_some() => {
                    if self.discarded(&mut discards, discarded) {
                        ticks.reset_immediately();
                    }
                }
                looked = async { doubt.looking.as_mut().expect("guarded by the condition").await }, if doubt.looking.is_some() => {
                    match looked {
                        Ok(None) => return Ok(SessionLost),
                        Ok(Some(renewed)) => {
                            session = renewed;
                            doubt.fenced();
                            match self.reread().await {
                                Ok(()) => doubt.settle(),
                                Err(error) => {
                                    warn!(node, error = &error as &dyn std::error::Error, "this node's records could not be read again; trying again");
                                    doubt.persist(&mut self.rng);
                                }
                            }
                        }
                        Err(error) => {
                            warn!(node, error = &error as &dyn std::error::Error, "the fence could not be checked; trying again");
                            doubt.persist(&mut self.rng);
                        }
                    }
                }
                () = sleep_until(doubt.look_at.unwrap_or(not_before)), if doubt.look_at.is_some() => {
                    doubt.look(&self.parts, &self.me, &session);
                }
                () = sleep_until(asking.again_at.unwrap_or(not_before)), if asking.again_at.is_some() => asking.again_at = None,
                () = sleep_until(trust.again_at.unwrap_or(not_before)), if trust.again_at.is_some() => trust.again_at = None,
                () = sleep_until(discards.again_at.unwrap_or(not_before)), if listed && discards.again_at.is_some() && discards.under_way.is_none() => discards.again_at = None,
                _ = ticks.tick(), if !doubt.stands() => {
                    if self.report_node(&session).await {
                        doubt.arise(true);
                    }
                }
                () = sleep_until(rounds.next), if listed && in_flight.is_none() && !doubt.stands() => {
                    rounds.done();
                    trust.round();
                    if self.look_over(&session).await {
                        doubt.arise(true);
                    }
                }
                _ = claim_retry.tick() => self.state.refused.clear(),
                () = sleep_until(not_before), if waiting => {}
                taken = reports.take() => self.take_reports(taken),
                Some(event) = stream.next() => match event {
                    Ok(WatcherEvent::Init) => named = Named::default(),
                    Ok(WatcherEvent::InitPage(kvs)) => {
                        let mut changed = false;
                        for kv in &kvs {
                            changed |= self.tree.put(&mut self.state, &self.parts.disk, kv, Some(&mut named));
                        }
                        self.content_changed(changed);
                    }
                    Ok(WatcherEvent::InitDone(_)) => {
                        let changed = self.tree.listed(&mut self.state, &self.parts.disk, &named);
                        self.content_changed(changed);
                        if !listed {
                            self.begin_session(&session, adopted).await?;
                            listed = true;
                        }
                    }
                    Ok(WatcherEvent::Batch(batch)) => {
                        let mut changed = false;
                        for event in &batch.events {
                            changed |= match event.kind {
                                EventKind::Put => self.tree.put(&mut self.state, &self.parts.disk, &event.kv, None),
                                EventKind::Delete => self.tree.delete(&mut self.state, &self.parts.disk, &event.kv.key),
                            };
                        }
                        self.content_changed(changed);
                    }
                    Err(error) => warn!(node, error = &error as &dyn std::error::Error, "the watch of this node's work failed; trying again"),
                },
            }
        }
    }

    fn content_changed(&self, changed: bool) {
        if changed {
            self.parts
                .content_version
                .send_modify(|version| *version += 1);
        }
    }

    fn take_reports(&mut self, reports: Vec<PodReport>) {
        for report in reports {
            self.take_report(report);
        }
    }

    /// Takes note of what the pod layer says. Reports of another placement than the present one are late and void.
    fn take_report(&mut self, report: PodReport) {
        match report {
            PodReport::Status(key, placement, mut actual) => {
                if let Some(local) = self
                    .state
                    .locals
                    .get_mut(&key)
                    .filter(|l| l.placement == placement && l.phase != Phase::Gone)
                {
                    // The pod layer need not know what proves that the pod has stopped.
                    actual.fence = local.fence;
                    local.actual = Some(Arc::from(actual));
                }
            }
            PodReport::Stopped(key, placement) => {
                if let Some(local) = self
                    .state
                    .locals
                    .get_mut(&key)
                    .filter(|l| l.placement == placement)
                {
                    local.phase = Phase::Gone;
                    if let (Some(ip), Some(addresses)) =
                        (self.pod_ips.remove(&key), &mut self.addresses)
                    {
                        addresses.give_back(ip);
                    }
                    if let Err(error) = self.parts.disk.drop_claim(&key) {
                        warn!(object = %key, error = &error as &dyn std::error::Error, "a claim stays in the disk copy");
                    }
                }
            }
        }
    }

    /// Hands calls to the pod layer.
    fn call(&mut self, calls: Vec<Call>) {
        for call in calls {
            match call {
                Call::Update(key) => {
                    let Some(work) = self.state.work.get(&key).cloned() else {
                        continue;
                    };
                    self.save_claim_of(&key, &work);
                    let pod_ip = self.pod_ips.get(&key).copied();
                    let mut fence = None;
                    if let Some(local) = self.state.locals.get_mut(&key) {
                        local.work_revision = work.mod_revision;
                        fence = local.fence;
                    }
                    self.parts.runner.update(PodWork {
                        key,
                        header: work.header,
                        pod: work.pod,
                        pod_ip,
                        fence,
                    });
                }
                Call::Stop(key) => {
                    if let Some(local) = self.state.locals.get_mut(&key) {
                        local.phase = Phase::Stopping;
                        let (runner, placement) = (&self.parts.runner, local.placement);
                        let order = self.state.stops.get(&key);
                        let order = order.filter(|o| o.placement == placement);
                        let within = order.map(|o| crate::pod::model::seconds(o.grace_seconds));
                        if !within.is_some_and(|w| runner.stop_within(&key, placement, w)) {
                            runner.stop(&key, placement);
                        }
                    }
                }
                Call::Kill(key) => {
                    if let Some(local) = self.state.locals.get_mut(&key) {
                        warn!(object = %key, "the fence is gone under which a pod was claimed that must never run twice: killing it");
                        local.phase = Phase::Stopping;
                        let (runner, placement) = (&self.parts.runner, local.placement);
                        if !runner.stop_within(&key, placement, Duration::ZERO) {
                            runner.stop(&key, placement);
                        }
                    }
                }
            }
        }
    }

    /// Sends writes as one batch; `None` when there are none.
    fn send(&self, session: &Session, writes: Vec<NodeWrite>) -> Option<BoxFuture<'static, Done>> {
        let host_ip = Some(self.parts.config.address.to_string());
        let now = self.parts.clock.now();
        let (keyspace, node) = (&self.parts.keyspace, &self.parts.config.node);
        let batch = items(keyspace, node, session, &self.state, writes, now, host_ip);
        if batch.is_empty() {
            return None;
        }
        Some(Box::pin(send(self.parts.commits.clone(), batch)))
    }

    /// Takes note of what became of a batch.
    fn settle(&mut self, done: Done) -> Settled {
        let mut settled = Settled {
            unknown: done.unknown,
            ..Settled::default()
        };
        for (pending, fate) in done.outcomes {
            match (pending.write, fate) {
                (NodeWrite::Claim(key, _), Fate::Written) => {
                    let Some(record) = pending.record else {
                        continue;
                    };
                    let local = Local {
                        uid: record.uid.clone(),
                        placement: record.placement,
                        work_revision: 0,
                        phase: Phase::Running,
                        fence: record.fence,
                        actual: Some(record.clone()),
                        written: Some(record.clone()),
                    };
                    self.state.locals.insert(key.clone(), local);
                    // Withdrawn meanwhile: then the next plan stops what was never started.
                    match self.state.work.get(&key).cloned() {
                        Some(work) if work.placement() == record.placement => {
                            self.begin_pod(&key, &work, Begin::Fresh, Some(record));
                        }
                        _ => {
                            if let Some(local) = self.state.locals.get_mut(&key) {
                                local.phase = Phase::Gone;
                            }
                        }
                    }
                }
                (NodeWrite::Status(key) | NodeWrite::Restore(key, _), Fate::Written) => {
                    if let Some(local) = self.state.locals.get_mut(&key) {
                        local.written = pending.record;
                    }
                }
                (NodeWrite::Forget(key), Fate::Written) => {
                    self.state.locals.remove(&key);
                    settled.forgotten = true;
                }
                (NodeWrite::Claim(key, revision), fate) => {
                    self.state.refused.insert(key.clone(), revision);
                    match fate {
                        Fate::Failed(error) => {
                            warn!(object = %key, error = &error as &dyn std::error::Error, "a claim failed; trying again")
                        }
                        _ => settled.rejected = true,
                    }
                }
                (
                    NodeWrite::Status(key) | NodeWrite::Restore(key, _) | NodeWrite::Forget(key),
                    Fate::Failed(error),
                ) => {
                    warn!(object = %key, error = &error as &dyn std::error::Error, "a status could not be written; trying again");
                    settled.refused = true;
                }
                (
                    NodeWrite::Status(_) | NodeWrite::Restore(..) | NodeWrite::Forget(_),
                    Fate::Rejected,
                ) => settled.rejected = true,
            }
        }
        settled
    }

    /// Stops every pod, then gives the session up, so that the control plane learns at once that nothing runs here. What
    /// is recorded of the pods goes when they are released, or is brought up to date by the next agent.
    async fn stop_all(&mut self, session: Option<&Session>) {
        let deadline = Instant::now() + STOP_LIMIT;
        let reports = self.parts.reports.clone();
        for (key, local) in &mut self.state.locals {
            if local.phase == Phase::Running {
                local.phase = Phase::Stopping;
                self.parts.runner.stop(key, local.placement);
            }
        }
        while self
            .state
            .locals
            .values()
            .any(|l| l.phase == Phase::Stopping)
        {
            tokio::select! {
                biased;
                () = sleep_until(deadline) => {
                    warn!(node = self.parts.config.node, "some pods did not stop in time");
                    return;
                }
                taken = reports.take() => self.take_reports(taken),
            }
        }
        if let Some(fence) = self.fence.take() {
            // Nothing runs under it any more; that it ends by itself would only take longer.
            let _ = timeout(FAREWELL, fence.end()).await;
        }
        if let Some(session) = session {
            // The lease goes with the agent: the control plane learns at once that nothing runs here any more. An etcd
            // that does not answer has been asked, or will notice by itself when the lease expires.
            let _ = timeout(FAREWELL, session.lease.revoke()).await;
        }
    }
}
