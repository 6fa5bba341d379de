//! Pods: where they run and who their processes run as.

use super::{
    HOST_PROCESS, NO_ACCOUNTS, NO_REPORT, NODE_RESOLVER, NOT_FILTERED, Types, accepted, dropped,
    refused, supported,
};

pub(super) const TYPES: Types = &[
    (
        "Pod",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    ("PodTemplateSpec", &[supported("metadata spec")]),
    (
        "PodSpec",
        &[
            supported(
                "containers initContainers volumes restartPolicy terminationGracePeriodSeconds nodeSelector nodeName \
                 tolerations affinity topologySpreadConstraints schedulerName priority priorityClassName \
                 preemptionPolicy securityContext overhead os activeDeadlineSeconds schedulingGates",
            ),
            accepted(
                "serviceAccountName serviceAccount",
                &["\"default\""],
                NO_ACCOUNTS,
            ),
            accepted("automountServiceAccountToken", &["false"], NO_ACCOUNTS),
            accepted(
                "imagePullSecrets",
                &[],
                "the process driver pulls no images",
            ),
            accepted(
                "dnsPolicy",
                &["\"ClusterFirst\"", "\"Default\""],
                NODE_RESOLVER,
            ),
            refused("dnsConfig", &[], NODE_RESOLVER),
            refused("hostAliases", &[], "processes use their node's /etc/hosts"),
            accepted("subdomain", &[], "processes see their node's host name"),
            accepted(
                "hostname",
                &[],
                "only the variable HOSTNAME has it; the host name is the node's",
            ),
            accepted(
                "setHostnameAsFQDN",
                &["false"],
                "processes see their node's host name",
            ),
            accepted("hostNetwork hostPID hostIPC", &["false"], HOST_PROCESS),
            refused(
                "hostUsers",
                &["true"],
                "the process driver makes no user namespaces",
            ),
            accepted("shareProcessNamespace", &["false"], HOST_PROCESS),
            accepted(
                "enableServiceLinks",
                &["false", "true"],
                "services are not put into the environment",
            ),
            refused(
                "readinessGates",
                &[],
                "readiness does not wait for conditions of others yet",
            ),
            refused(
                "runtimeClassName",
                &[],
                "a node's driver is chosen by the image",
            ),
            refused("resourceClaims", &[], "there are no devices to claim yet"),
            refused(
                "resources",
                &[],
                "limits are set per container, not per pod",
            ),
            refused(
                "ephemeralContainers",
                &[],
                "they are not part of a manifest",
            ),
            refused("hostnameOverride workloadRef", &[], "this is not here yet"),
        ],
    ),
    (
        "PodOs",
        &[refused("name", &["\"linux\""], "agents run on Linux")],
    ),
    ("PodReadinessGate", &[accepted("conditionType", &[], "")]),
    ("PodSchedulingGate", &[supported("name")]),
    (
        "PodResourceClaim",
        &[accepted(
            "name resourceClaimName resourceClaimTemplateName",
            &[],
            "",
        )],
    ),
    (
        "PodDnsConfig",
        &[accepted("nameservers searches options", &[], NODE_RESOLVER)],
    ),
    (
        "PodDnsConfigOption",
        &[accepted("name value", &[], NODE_RESOLVER)],
    ),
    ("HostAlias", &[accepted("ip hostnames", &[], "")]),
    ("LocalObjectReference", &[supported("name")]),
    (
        "PodSecurityContext",
        &[
            supported("runAsUser runAsGroup runAsNonRoot supplementalGroups fsGroup"),
            accepted(
                "fsGroupChangePolicy",
                &[],
                "the files of volumes are new for every pod",
            ),
            refused(
                "supplementalGroupsPolicy",
                &["\"Merge\""],
                "groups of the image do not exist here",
            ),
            refused(
                "sysctls",
                &[],
                "processes share their node's kernel settings",
            ),
            accepted("seccompProfile appArmorProfile", &[], NOT_FILTERED),
            refused("seLinuxOptions", &[], NOT_FILTERED),
            accepted("seLinuxChangePolicy", &[], NOT_FILTERED),
            refused("windowsOptions", &[], "agents run on Linux"),
        ],
    ),
    (
        "SecurityContext",
        &[
            supported("runAsUser runAsGroup runAsNonRoot allowPrivilegeEscalation"),
            accepted(
                "privileged",
                &["false"],
                "a process of the node has what its user has",
            ),
            refused(
                "readOnlyRootFilesystem",
                &["false"],
                "processes see their node's file system",
            ),
            refused("capabilities", &[], "capabilities are not changed yet"),
            refused(
                "procMount",
                &["\"Default\""],
                "processes see their node's /proc",
            ),
            accepted("seccompProfile appArmorProfile", &[], NOT_FILTERED),
            refused("seLinuxOptions", &[], NOT_FILTERED),
            refused("windowsOptions", &[], "agents run on Linux"),
        ],
    ),
    ("Capabilities", &[accepted("add drop", &[], "")]),
    ("Sysctl", &[accepted("name value", &[], "")]),
    (
        "SeccompProfile",
        &[
            refused(
                "type",
                &["\"RuntimeDefault\"", "\"Unconfined\""],
                NOT_FILTERED,
            ),
            accepted("localhostProfile", &[], NOT_FILTERED),
        ],
    ),
    (
        "AppArmorProfile",
        &[
            refused(
                "type",
                &["\"RuntimeDefault\"", "\"Unconfined\""],
                NOT_FILTERED,
            ),
            accepted("localhostProfile", &[], NOT_FILTERED),
        ],
    ),
    (
        "SeLinuxOptions",
        &[accepted("user role type level", &[], "")],
    ),
    (
        "Affinity",
        &[supported("nodeAffinity podAffinity podAntiAffinity")],
    ),
    (
        "NodeAffinity",
        &[supported(
            "requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution",
        )],
    ),
    (
        "PodAffinity",
        &[supported(
            "requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution",
        )],
    ),
    ("NodeSelector", &[supported("nodeSelectorTerms")]),
    (
        "NodeSelectorTerm",
        &[supported("matchExpressions matchFields")],
    ),
    (
        "NodeSelectorRequirement",
        &[supported("key operator values")],
    ),
    ("PreferredSchedulingTerm", &[supported("weight preference")]),
    (
        "WeightedPodAffinityTerm",
        &[supported("weight podAffinityTerm")],
    ),
    (
        "PodAffinityTerm",
        &[supported(
            "labelSelector matchLabelKeys mismatchLabelKeys namespaces namespaceSelector topologyKey",
        )],
    ),
    (
        "TopologySpreadConstraint",
        &[supported(
            "whenUnsatisfiable maxSkew topologyKey labelSelector matchLabelKeys minDomains nodeAffinityPolicy \
             nodeTaintsPolicy",
        )],
    ),
    (
        "Toleration",
        &[
            supported("key operator value effect"),
            accepted(
                "tolerationSeconds",
                &[],
                "nothing is evicted after a time yet",
            ),
        ],
    ),
];
