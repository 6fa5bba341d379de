//! Workload controllers: Deployment -> ReplicaSet -> Pods, StatefulSet -> Pods, DaemonSet -> Pods, CronJob -> Job -> Pods.
//!
//! Each controller observes (a plain snapshot out of one view of the cache), decides (`decide.rs`: a pure function of
//! snapshot and time, whose plan is data), and executes (guarded writes through the leader). They share an index of
//! who owns what, so that a pass looks at its own objects alone.
//!
//! Start with [`replicaset::decide`], [`deployment::decide`], [`statefulset::decide`] and [`daemonset::decide`]; of what
//! comes to an end, with [`job::decide`].

pub mod autoscale;
pub mod children;
pub mod conditions;
pub mod config;
pub mod content;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod documents;
mod door;
mod good;
pub mod hash;
pub mod index;
pub mod job;
#[cfg(test)]
mod led;
mod manager;
pub mod memory;
pub mod overlaps;
pub mod owner;
mod pass;
pub mod pod;
mod reown;
pub mod replicaset;
pub mod revisions;
pub mod rollback;
pub mod seen;
#[cfg(test)]
mod stale;
pub mod standing;
pub mod statefulset;
pub mod touched;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use setpoint_apis::apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{
    ConfigMap, LimitRange, Namespace, Node, PersistentVolumeClaim, Pod, PodTemplateSpec,
    ResourceQuota, Secret,
};
use setpoint_apis::{Kind, ObjectKey, Timestamp, content_seen};
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Action, CacheBuilder, Clock, Controller, Leader, StateKey, View};

use crate::autoscale::{Autoscalers, Size};
use crate::children::Children;
use crate::config::{ContentCopy, Missing, Sources};
use crate::content::{ContentIndex, CopySeen, Named};
use crate::daemonset::nodes::NodeIndex;
use crate::door::Doors;
use crate::index::OwnerIndex;
use crate::overlaps::Overlaps;
use crate::owner::{PodOwner, Takers, takers};

/// Objects that are worked on at a time. Passes wait for the store most of the time, and what waits together is
/// committed together.
const CONCURRENCY: usize = 256;

/// What the controllers of one leadership share.
struct Shared {
    index: Mutex<OwnerIndex>,
    /// Locked after `index`, where both are.
    content: Mutex<ContentIndex>,
    /// Locked after `content`, where both are.
    revisions: Mutex<Children<ControllerRevision>>,
    /// Locked after the others; nothing is locked while it is.
    autoscalers: Mutex<Autoscalers>,
    /// Nothing else is locked while it is.
    overlaps: Mutex<Overlaps>,
    /// Locked last.
    nodes: Mutex<NodeIndex>,
    /// Has locks of its own, which are taken under the view and after all others.
    doors: Doors,
    clock: Clock,
    recorder: Recorder,
    sets: replicaset::Sets,
    deployments: deployment::Deployments,
    daemons: daemonset::Daemons,
    stateful_sets: statefulset::StatefulSets,
    jobs: job::Jobs,
    cron_jobs: cronjob::CronJobs,
    /// Whose the Jobs are.
    jobs_by_owner: Mutex<Children<Job>>,
    salt: AtomicU64,
}

impl Shared {
    /// Of a leadership that begins. `seed` makes the names of pods.
    fn new(leader: &Leader, clock: Clock, recorder: Recorder, seed: u64) -> Self {
        let takers: Vec<(PodOwner, Takers)> = vec![
            (PodOwner::ReplicaSet, takers::<ReplicaSet>),
            (PodOwner::DaemonSet, takers::<DaemonSet>),
            (PodOwner::StatefulSet, takers::<StatefulSet>),
            (PodOwner::Job, takers::<Job>),
        ];
        Self {
            index: Mutex::new(OwnerIndex::new(leader.cache(), takers)),
            content: Mutex::new(ContentIndex::new(leader.cache())),
            autoscalers: Mutex::new(Autoscalers::new(leader.cache())),
            overlaps: Mutex::new(Overlaps::new(leader.cache())),
            revisions: Mutex::new(Children::new(
                leader.cache(),
                &[StatefulSet::KIND, DaemonSet::KIND],
            )),
            nodes: Mutex::new(NodeIndex::new(leader.cache())),
            doors: Doors::default(),
            clock,
            recorder,
            sets: replicaset::Sets::default(),
            deployments: deployment::Deployments::default(),
            daemons: daemonset::Daemons::default(),
            stateful_sets: statefulset::StatefulSets::default(),
            jobs: job::Jobs::default(),
            cron_jobs: cronjob::CronJobs::default(),
            jobs_by_owner: Mutex::new(Children::new(leader.cache(), &[CronJob::KIND])),
            // Far apart for neighbouring seeds and for successive leaders, so that names do not come again.
            salt: AtomicU64::new(
                seed.rotate_left(32) ^ leader.epoch().0.unsigned_abs().rotate_left(20),
            ),
        }
    }

    /// How many pods an object is to have: [`Autoscalers::size`].
    fn size<K: Kind>(
        &self,
        view: &View<'_>,
        key: &ObjectKey,
        asked: i32,
        before: Option<i32>,
    ) -> Size {
        let mut autoscalers = self.autoscalers.lock();
        autoscalers.catch_up(view);
        autoscalers.size::<K>(view, key, asked, before)
    }

    /// The objects of a kind whose autoscalers have something to say.
    fn autoscaled<K: Kind>(&self, view: &View<'_>) -> Vec<ObjectKey> {
        let mut autoscalers = self.autoscalers.lock();
        autoscalers.catch_up(view);
        autoscalers.take_touched::<K>()
    }

    /// What is to be said of an object that overlaps with an older one.
    fn overlap<K: Kind>(&self, view: &View<'_>, key: &ObjectKey) -> Option<String> {
        let mut overlaps = self.overlaps.lock();
        overlaps.catch_up(view);
        overlaps.older::<K>(key)
    }

    /// The objects of a kind that overlap with others than before.
    fn overlapping<K: Kind>(&self, view: &View<'_>) -> Vec<ObjectKey> {
        let mut overlaps = self.overlaps.lock();
        overlaps.catch_up(view);
        overlaps.take_touched::<K>()
    }

    /// See [`NodeIndex::up_since`].
    fn up_since(&self, view: &View<'_>) -> Timestamp {
        self.nodes.lock().up_since(view, self.clock.now())
    }

    /// Pins the template of an object to what is in what it reads now, as far as the object's annotations want that.
    fn pin<K: Kind>(
        &self,
        view: &View<'_>,
        (key, uid): (&ObjectKey, &str),
        annotations: &BTreeMap<String, String>,
        template: &mut PodTemplateSpec,
    ) -> Reads {
        let mut reads = Reads::default();
        let mut content = self.content.lock();
        content.catch_up(view);
        if config::pins(annotations) {
            reads.sources = Sources::look_up(view, &key.namespace, template);
            reads.seen = content_seen::fingerprint(&template.spec, |content| {
                let key = ObjectKey::namespaced(key.namespace.clone(), content.name);
                match content.secret {
                    true => Some(view.desired::<Secret>().entry(&key)?.mod_revision()),
                    false => Some(view.desired::<ConfigMap>().entry(&key)?.mod_revision()),
                }
            });
            match config::pin(uid, template, &reads.sources, content.names::<K>(key)) {
                Ok(pinned) => {
                    *template = pinned.template;
                    reads.wanted = pinned.copies;
                }
                Err(missing) => reads.missing = Some(missing),
            }
        }
        content.note::<K>(key, &reads.sources);
        let wanted = Named {
            namespace: &key.namespace,
            copies: &reads.wanted,
        };
        reads.there = content.copies(view, uid, &wanted);
        reads
    }

    /// Differs at every call, and repeats in a run with the same seed.
    fn salt(&self) -> u64 {
        self.salt.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a template reads.
#[derive(Default)]
struct Reads {
    /// It, as it is now.
    sources: Sources,
    /// A fingerprint of its revisions.
    seen: Option<String>,
    /// The copies that the pinned template reads.
    wanted: Vec<ContentCopy>,
    /// What it cannot do without and is not there: then it is not pinned.
    missing: Option<Missing>,
    /// The copies that are there.
    there: Vec<CopySeen>,
}

/// Names the kinds that the controllers look at.
#[must_use]
pub fn register(builder: CacheBuilder) -> CacheBuilder {
    builder
        .kind::<Namespace>()
        .kind::<LimitRange>()
        .kind::<ResourceQuota>()
        .kind::<ConfigMap>()
        .kind::<Secret>()
        .kind::<Node>()
        .kind::<Pod>()
        .kind::<PersistentVolumeClaim>()
        .kind::<ControllerRevision>()
        .kind::<ReplicaSet>()
        .kind::<Deployment>()
        .kind::<HorizontalPodAutoscaler>()
        .kind::<StatefulSet>()
        .kind::<DaemonSet>()
        .kind::<Job>()
        .kind::<CronJob>()
}

/// Reconciles the objects of all kinds until the leadership is lost or given up.
///
/// `seed` makes the names of pods.
///
/// # Cancel safety
/// What was handed to the store is carried out; everything else is decided afresh by the next leader.
pub async fn run(leader: Leader, clock: Clock, recorder: Recorder, seed: u64) {
    let shared = Arc::new(Shared::new(&leader, clock, recorder, seed));
    let sets = drive::<ReplicaSet, _, _>(
        "replicaset",
        &shared,
        &leader,
        replicaset::concerns,
        replicaset::keys,
        replicaset::reconcile,
    );
    let deployments = drive::<Deployment, _, _>(
        "deployment",
        &shared,
        &leader,
        deployment::concerns,
        deployment::keys,
        deployment::reconcile,
    );
    let daemons = drive::<DaemonSet, _, _>(
        "daemonset",
        &shared,
        &leader,
        daemonset::concerns,
        daemonset::keys,
        daemonset::reconcile,
    );
    let stateful_sets = drive::<StatefulSet, _, _>(
        "statefulset",
        &shared,
        &leader,
        statefulset::concerns,
        statefulset::keys,
        statefulset::reconcile,
    );
    let jobs = drive::<Job, _, _>(
        "job",
        &shared,
        &leader,
        job::concerns,
        job::keys,
        job::reconcile,
    );
    let cron_jobs = drive::<CronJob, _, _>(
        "cronjob",
        &shared,
        &leader,
        cronjob::concerns,
        cronjob::keys,
        cronjob::reconcile,
    );
    tokio::join!(sets, deployments, daemons, stateful_sets, jobs, cron_jobs);
}

/// Reconciles the objects of one kind.
fn drive<K: Kind, F, E>(
    name: &'static str,
    shared: &Arc<Shared>,
    leader: &Leader,
    concerns: fn(&StateKey) -> bool,
    keys: fn(&Shared, &StateKey, &View<'_>) -> Vec<ObjectKey>,
    reconcile: fn(Arc<Shared>, Leader, ObjectKey) -> F,
) -> impl Future<Output = ()> + use<K, F, E>
where
    F: Future<Output = Result<Action, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let (mapping, shared) = (shared.clone(), shared.clone());
    let passes = leader.clone();
    Controller::new(
        name,
        concerns,
        move |change, view| keys(&mapping, change, view),
        pass::all::<K>,
    )
    .concurrency(CONCURRENCY)
    .run(leader.clone(), move |key| {
        reconcile(shared.clone(), passes.clone(), key)
    })
}
