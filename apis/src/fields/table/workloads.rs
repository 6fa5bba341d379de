//! Workloads.

use super::{NO_REPORT, Types, dropped, supported};

pub(super) const TYPES: Types = &[
    (
        "Deployment",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "DeploymentSpec",
        &[supported(
            "replicas selector template strategy minReadySeconds revisionHistoryLimit progressDeadlineSeconds paused",
        )],
    ),
    ("DeploymentStrategy", &[supported("type rollingUpdate")]),
    (
        "RollingUpdateDeployment",
        &[supported("maxUnavailable maxSurge")],
    ),
    (
        "ReplicaSet",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "ReplicaSetSpec",
        &[supported("replicas selector template minReadySeconds")],
    ),
    (
        "StatefulSet",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "StatefulSetSpec",
        &[supported(
            "replicas selector template serviceName podManagementPolicy updateStrategy minReadySeconds revisionHistoryLimit ordinals volumeClaimTemplates persistentVolumeClaimRetentionPolicy",
        )],
    ),
    (
        "StatefulSetUpdateStrategy",
        &[supported("type rollingUpdate")],
    ),
    (
        "RollingUpdateStatefulSet",
        &[supported("partition maxUnavailable")],
    ),
    ("StatefulSetOrdinals", &[supported("start")]),
    (
        "VolumeClaimTemplate",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "StatefulSetPersistentVolumeClaimRetentionPolicy",
        &[supported("whenDeleted whenScaled")],
    ),
    (
        "DaemonSet",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "DaemonSetSpec",
        &[supported(
            "selector template updateStrategy minReadySeconds revisionHistoryLimit",
        )],
    ),
    (
        "DaemonSetUpdateStrategy",
        &[supported("type rollingUpdate")],
    ),
    (
        "RollingUpdateDaemonSet",
        &[supported("maxUnavailable maxSurge")],
    ),
    (
        "ControllerRevision",
        &[supported("apiVersion kind metadata revision data")],
    ),
    (
        "Job",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "JobSpec",
        &[supported(
            "parallelism completions completionMode backoffLimit backoffLimitPerIndex maxFailedIndexes activeDeadlineSeconds podFailurePolicy successPolicy podReplacementPolicy ttlSecondsAfterFinished suspend selector manualSelector managedBy template",
        )],
    ),
    ("PodFailurePolicy", &[supported("rules")]),
    (
        "PodFailurePolicyRule",
        &[supported("action onExitCodes onPodConditions")],
    ),
    (
        "PodFailurePolicyOnExitCodesRequirement",
        &[supported("containerName operator values")],
    ),
    (
        "PodFailurePolicyOnPodConditionsPattern",
        &[supported("type status")],
    ),
    ("SuccessPolicy", &[supported("rules")]),
    (
        "SuccessPolicyRule",
        &[supported("succeededIndexes succeededCount")],
    ),
    (
        "CronJob",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "CronJobSpec",
        &[supported(
            "schedule timeZone startingDeadlineSeconds concurrencyPolicy suspend jobTemplate successfulJobsHistoryLimit failedJobsHistoryLimit",
        )],
    ),
    ("JobTemplateSpec", &[supported("metadata spec")]),
];
