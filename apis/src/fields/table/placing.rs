//! How pods are placed, and how much they may use.

use super::{NO_REPORT, Types, dropped, supported};

pub(super) const TYPES: Types = &[
    (
        "PriorityClass",
        &[supported(
            "apiVersion kind metadata value globalDefault description preemptionPolicy",
        )],
    ),
    (
        "PodDisruptionBudget",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "PodDisruptionBudgetSpec",
        &[supported(
            "minAvailable maxUnavailable selector unhealthyPodEvictionPolicy",
        )],
    ),
    (
        "ResourceQuota",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "ResourceQuotaSpec",
        &[supported("hard scopes scopeSelector")],
    ),
    ("ScopeSelector", &[supported("matchExpressions")]),
    (
        "ScopedResourceSelectorRequirement",
        &[supported("scopeName operator values")],
    ),
    (
        "PodGroup",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "PodGroupSpec",
        &[supported("minMember scheduleTimeoutSeconds")],
    ),
    (
        "Reservation",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "ReservationSpec",
        &[supported(
            "owners resources count nodeName nodeSelector affinity tolerations ttlSeconds",
        )],
    ),
    (
        "ReservationOwners",
        &[supported("selector namespaces namespaceSelector")],
    ),
    (
        "SchedulerProfile",
        &[supported("apiVersion kind metadata spec")],
    ),
    ("SchedulerProfileSpec", &[supported("strategy weights")]),
    (
        "ProfileWeights",
        &[supported(
            "resources nodeAffinity podAffinity topologySpread taintToleration imageLocality",
        )],
    ),
    ("LimitRange", &[supported("apiVersion kind metadata spec")]),
    ("LimitRangeSpec", &[supported("limits")]),
    (
        "LimitRangeItem",
        &[supported(
            "type max min default defaultRequest maxLimitRequestRatio",
        )],
    ),
];
