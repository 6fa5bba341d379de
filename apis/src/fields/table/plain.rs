//! Metadata, selectors, and kinds without pods.

use super::{NO_REPORT, Types, accepted, dropped, refused, supported};

pub(super) const TYPES: Types = &[
    (
        "ObjectMeta",
        &[
            supported("name generateName namespace labels annotations ownerReferences"),
            accepted(
                "finalizers",
                &[],
                "there are no finalizers: deleting is removing the document",
            ),
            dropped(
                "uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds \
                 managedFields selfLink",
                "etcd keeps it",
            ),
        ],
    ),
    (
        "OwnerReference",
        &[supported(
            "apiVersion kind name uid controller blockOwnerDeletion",
        )],
    ),
    (
        "LabelSelector",
        &[supported("matchLabels matchExpressions")],
    ),
    (
        "LabelSelectorRequirement",
        &[supported("key operator values")],
    ),
    (
        "Namespace",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "NamespaceSpec",
        &[accepted(
            "finalizers",
            &["[\"kubernetes\"]"],
            "there are no finalizers",
        )],
    ),
    (
        "Node",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "NodeSpec",
        &[
            supported("unschedulable taints"),
            accepted(
                "podCIDR podCIDRs",
                &[],
                "an agent takes the addresses of its pods from its own flag",
            ),
            accepted(
                "providerID externalID",
                &[],
                "nothing speaks to a machine's provider yet",
            ),
            refused(
                "configSource",
                &[],
                "an agent takes its settings from its own flags",
            ),
        ],
    ),
    (
        "Taint",
        &[
            supported("key value"),
            accepted(
                "effect",
                &["\"NoSchedule\"", "\"PreferNoSchedule\""],
                "NoExecute keeps new pods away; what runs is not evicted yet",
            ),
            accepted("timeAdded", &[], "nothing is evicted after a time yet"),
        ],
    ),
    (
        "ConfigMap",
        &[supported(
            "apiVersion kind metadata data binaryData immutable",
        )],
    ),
    (
        "Secret",
        &[supported(
            "apiVersion kind metadata data stringData type immutable",
        )],
    ),
    (
        "Event",
        &[supported(
            "apiVersion kind metadata involvedObject reason message type source firstTimestamp lastTimestamp count \
             eventTime series action related reportingComponent reportingInstance",
        )],
    ),
    ("EventSource", &[supported("component host")]),
    ("EventSeries", &[supported("count lastObservedTime")]),
    (
        "ObjectReference",
        &[supported(
            "kind namespace name uid apiVersion resourceVersion fieldPath",
        )],
    ),
];
