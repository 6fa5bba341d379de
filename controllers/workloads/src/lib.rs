//! Workload controllers: Deployment -> ReplicaSet -> Pods.
//!
//! Each controller observes (a plain snapshot out of one view of the cache), decides (`decide.rs`: a pure function of
//! snapshot and time, whose plan is data), and executes (guarded writes through the leader). The two share an index of
//! who owns what, so that a pass looks at its own objects alone.
//!
//! Start with [`replicaset::decide`] and [`deployment::decide`].

pub mod conditions;
pub mod deployment;
pub mod documents;
pub mod hash;
pub mod index;
pub mod memory;
mod pass;
pub mod pod;
pub mod replicaset;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::{Namespace, Pod};
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{CacheBuilder, Clock, Controller, Leader};

use crate::index::OwnerIndex;

/// Objects that are worked on at a time. Passes wait for the store most of the time, and what waits together is
/// committed together.
const CONCURRENCY: usize = 256;

/// What the controllers of one leadership share.
struct Shared {
    index: Mutex<OwnerIndex>,
    clock: Clock,
    recorder: Recorder,
    sets: replicaset::Sets,
    deployments: deployment::Deployments,
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
        .kind::<Pod>()
        .kind::<ReplicaSet>()
        .kind::<Deployment>()
}

/// Reconciles Deployments and ReplicaSets until the leadership is lost or given up.
///
/// `seed` makes the names of pods.
///
/// # Cancel safety
/// What was handed to the store is carried out; everything else is decided afresh by the next leader.
pub async fn run(leader: Leader, clock: Clock, recorder: Recorder, seed: u64) {
    let shared = Arc::new(Shared {
        index: Mutex::new(OwnerIndex::new(leader.cache())),
        clock,
        recorder,
        sets: replicaset::Sets::default(),
        deployments: deployment::Deployments::default(),
        // Far apart for neighbouring seeds and for successive leaders, so that names do not come again.
        salt: AtomicU64::new(
            seed.rotate_left(32) ^ leader.epoch().0.unsigned_abs().rotate_left(20),
        ),
    });
    let (a, b, c) = (shared.clone(), shared.clone(), shared.clone());
    let (for_sets, for_deployments) = (leader.clone(), leader.clone());
    let sets = Controller::new(
        "replicaset",
        replicaset::concerns,
        move |change, view| replicaset::keys(&a, change, view),
        pass::all::<ReplicaSet>,
    )
    .concurrency(CONCURRENCY)
    .run(leader.clone(), move |key| {
        replicaset::reconcile(b.clone(), for_sets.clone(), key)
    });
    let deployments = Controller::new(
        "deployment",
        deployment::concerns,
        move |change, view| deployment::keys(&c, change, view),
        pass::all::<Deployment>,
    )
    .concurrency(CONCURRENCY)
    .run(leader, move |key| {
        deployment::reconcile(shared.clone(), for_deployments.clone(), key)
    });
    tokio::join!(sets, deployments);
}
