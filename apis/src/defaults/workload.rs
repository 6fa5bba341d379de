//! The kinds of the group `apps`.

use std::sync::Arc;

use super::pod_spec;
use crate::apps::{
    ClaimRetention, DaemonSetSpec, DaemonSetUpdateStrategyType, DeploymentSpec,
    DeploymentStrategyType, PodManagementPolicy, ReplicaSetSpec, RollingUpdateDeployment,
    StatefulSetSpec, StatefulSetUpdateStrategyType,
};
use crate::int_or_string::IntOrString;

/// Fills in a Deployment's spec, its template included.
pub fn deployment(spec: &mut DeploymentSpec) {
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    spec.min_ready_seconds.get_or_insert(0);
    spec.paused.get_or_insert(false);
    let strategy = spec.strategy.get_or_insert_default();
    if *strategy.type_.get_or_insert_default() == DeploymentStrategyType::RollingUpdate {
        let rolling = strategy
            .rolling_update
            .get_or_insert_with(RollingUpdateDeployment::default);
        rolling
            .max_unavailable
            .get_or_insert_with(|| IntOrString::from("25%"));
        rolling
            .max_surge
            .get_or_insert_with(|| IntOrString::from("25%"));
    }
    pod_spec(Arc::make_mut(&mut spec.template.spec));
}

/// Fills in a ReplicaSet's spec, its template included.
pub fn replica_set(spec: &mut ReplicaSetSpec) {
    spec.replicas.get_or_insert(1);
    spec.min_ready_seconds.get_or_insert(0);
    if let Some(template) = &mut spec.template {
        pod_spec(Arc::make_mut(&mut template.spec));
    }
}

/// Fills in a StatefulSet's spec, its template included.
pub fn stateful_set(spec: &mut StatefulSetSpec) {
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.min_ready_seconds.get_or_insert(0);
    spec.pod_management_policy
        .get_or_insert(PodManagementPolicy::OrderedReady);
    let strategy = spec.update_strategy.get_or_insert_default();
    if *strategy.type_.get_or_insert_default() == StatefulSetUpdateStrategyType::RollingUpdate {
        let rolling = strategy.rolling_update.get_or_insert_default();
        rolling.partition.get_or_insert(0);
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
    }
    let retention = spec
        .persistent_volume_claim_retention_policy
        .get_or_insert_default();
    retention.when_deleted.get_or_insert(ClaimRetention::Retain);
    retention.when_scaled.get_or_insert(ClaimRetention::Retain);
    for claim in &mut spec.volume_claim_templates {
        claim
            .spec
            .volume_mode
            .get_or_insert_with(|| "Filesystem".into());
    }
    pod_spec(Arc::make_mut(&mut spec.template.spec));
}

/// Fills in a DaemonSet's spec, its template included.
pub fn daemon_set(spec: &mut DaemonSetSpec) {
    spec.revision_history_limit.get_or_insert(10);
    spec.min_ready_seconds.get_or_insert(0);
    let strategy = spec.update_strategy.get_or_insert_default();
    if *strategy.type_.get_or_insert_default() == DaemonSetUpdateStrategyType::RollingUpdate {
        let rolling = strategy.rolling_update.get_or_insert_default();
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        rolling.max_surge.get_or_insert(IntOrString::Int(0));
    }
    pod_spec(Arc::make_mut(&mut spec.template.spec));
}
