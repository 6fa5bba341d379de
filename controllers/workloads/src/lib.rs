//! Workload controllers: Deployment -> ReplicaSet -> Pods, CronJob -> Job -> Pods.
//!
//! Each controller observes (a plain snapshot out of one view of the cache), decides (`decide.rs`: a pure function of
//! snapshot and time, whose plan is data), and executes (guarded writes through the leader). They share an index of
//! who owns what, so that a pass looks at its own objects alone.
//!
//! Start with [`replicaset::decide`] and [`deployment::decide`]; of what comes to an end, with [`job::decide`].

pub mod children;
pub mod conditions;
pub mod config;
pub mod content;
pub mod cronjob;
pub mod deployment;
pub mod documents;
pub mod hash;
pub mod index;
pub mod job;
mod manager;
pub mod memory;
pub mod owner;
mod pass;
pub mod pod;
pub mod replicaset;
pub mod revisions;
pub mod rollback;
pub mod seen;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{ConfigMap, Namespace, Pod, Secret};
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Action, CacheBuilder, Clock, Controller, Leader, StateKey, View};

use crate::children::Children;
use crate::content::ContentIndex;
use crate::index::OwnerIndex;
use crate::owner::{PodOwner, Takers, takers};

/// Objects that are worked on at a time. Passes wait for the store most of the time, and what waits together is
/// committed together.
const CONCURRENCY: usize = 256;

/// What the controllers of one leadership share.
struct Shared {
    index: Mutex<OwnerIndex>,
    /// Locked after `index`, where both are.
    content: Mutex<ContentIndex>,
    clock: Clock,
    recorder: Recorder,
    sets: replicaset::Sets,
    deployments: deployment::Deployments,
    jobs: job::Jobs,
    cron_jobs: cronjob::CronJobs,
    /// Whose the Jobs are.
    jobs_by_owner: Mutex<Children<Job>>,
    salt: AtomicU64,
}

impl Shared {
    /// Differs at every call, and repeats in a run with the same seed.
    fn salt(&self) -> u64 {
        self.salt.fetch_add(1, Ordering::Relaxed)
    }
}

/// Names the kinds that the controllers look at.
#[must_use]
pub fn register(builder: CacheBuilder) -> CacheBuilder {
    builder
        .kind::<Namespace>()
        .kind::<ConfigMap>()
        .kind::<Secret>()
        .kind::<Pod>()
        .kind::<ReplicaSet>()
        .kind::<Deployment>()
        .kind::<Job>()
        .kind::<CronJob>()
}

/// Reconciles Deployments, ReplicaSets, Jobs and CronJobs until the leadership is lost or given up.
///
/// `seed` makes the names of pods.
///
/// # Cancel safety
/// What was handed to the store is carried out; everything else is decided afresh by the next leader.
pub async fn run(leader: Leader, clock: Clock, recorder: Recorder, seed: u64) {
    let takers: Vec<(PodOwner, Takers)> = vec![
        (PodOwner::ReplicaSet, takers::<ReplicaSet>),
        (PodOwner::Job, takers::<Job>),
    ];
    let shared = Arc::new(Shared {
        index: Mutex::new(OwnerIndex::new(leader.cache(), takers)),
        content: Mutex::new(ContentIndex::new(leader.cache())),
        clock,
        recorder,
        sets: replicaset::Sets::default(),
        deployments: deployment::Deployments::default(),
        jobs: job::Jobs::default(),
        cron_jobs: cronjob::CronJobs::default(),
        jobs_by_owner: Mutex::new(Children::new(leader.cache())),
        // Far apart for neighbouring seeds and for successive leaders, so that names do not come again.
        salt: AtomicU64::new(
            seed.rotate_left(32) ^ leader.epoch().0.unsigned_abs().rotate_left(20),
        ),
    });
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
    tokio::join!(sets, deployments, jobs, cron_jobs);
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
