//! Autoscalers.

use super::{NO_REPORT, Types, dropped, supported};

pub(super) const TYPES: Types = &[
    (
        "HorizontalPodAutoscaler",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "HorizontalPodAutoscalerSpec",
        &[supported(
            "scaleTargetRef minReplicas maxReplicas metrics behavior",
        )],
    ),
    (
        "CrossVersionObjectReference",
        &[supported("apiVersion kind name")],
    ),
    (
        "MetricSpec",
        &[supported(
            "type object pods resource containerResource external",
        )],
    ),
    (
        "ObjectMetricSource",
        &[supported("describedObject metric target")],
    ),
    ("PodsMetricSource", &[supported("metric target")]),
    ("ResourceMetricSource", &[supported("name target")]),
    (
        "ContainerResourceMetricSource",
        &[supported("name container target")],
    ),
    ("ExternalMetricSource", &[supported("metric target")]),
    ("MetricIdentifier", &[supported("name selector")]),
    (
        "MetricTarget",
        &[supported("type value averageValue averageUtilization")],
    ),
    (
        "HorizontalPodAutoscalerBehavior",
        &[supported("scaleUp scaleDown")],
    ),
    (
        "HpaScalingRules",
        &[supported(
            "stabilizationWindowSeconds selectPolicy policies tolerance",
        )],
    ),
    ("HpaScalingPolicy", &[supported("type value periodSeconds")]),
];
