//! Kinds that act later.

use super::{
    LOCAL_STORAGE, NO_ACCOUNTS, NO_REPORT, NO_SERVICES, Types, accepted, dropped, supported,
};

pub(super) const TYPES: Types = &[
    (
        "Service",
        &[
            accepted("apiVersion kind metadata spec", &[], NO_SERVICES),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "ServiceSpec",
        &[accepted(
            "selector ports type clusterIP clusterIPs externalIPs externalName externalTrafficPolicy \
             internalTrafficPolicy trafficDistribution healthCheckNodePort ipFamilies ipFamilyPolicy loadBalancerClass \
             loadBalancerIP loadBalancerSourceRanges allocateLoadBalancerNodePorts publishNotReadyAddresses \
             sessionAffinity sessionAffinityConfig",
            &[],
            NO_SERVICES,
        )],
    ),
    (
        "ServicePort",
        &[accepted(
            "name port targetPort nodePort protocol appProtocol",
            &[],
            NO_SERVICES,
        )],
    ),
    (
        "SessionAffinityConfig",
        &[accepted("clientIP", &[], NO_SERVICES)],
    ),
    (
        "ClientIpConfig",
        &[accepted("timeoutSeconds", &[], NO_SERVICES)],
    ),
    (
        "Ingress",
        &[
            accepted("apiVersion kind metadata spec", &[], NO_SERVICES),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "IngressSpec",
        &[accepted(
            "ingressClassName defaultBackend rules tls",
            &[],
            NO_SERVICES,
        )],
    ),
    (
        "IngressBackend",
        &[accepted("service resource", &[], NO_SERVICES)],
    ),
    (
        "IngressServiceBackend",
        &[accepted("name port", &[], NO_SERVICES)],
    ),
    (
        "ServiceBackendPort",
        &[accepted("name number", &[], NO_SERVICES)],
    ),
    ("IngressRule", &[accepted("host http", &[], NO_SERVICES)]),
    (
        "HttpIngressRuleValue",
        &[accepted("paths", &[], NO_SERVICES)],
    ),
    (
        "HttpIngressPath",
        &[accepted("path pathType backend", &[], NO_SERVICES)],
    ),
    (
        "IngressTls",
        &[accepted("hosts secretName", &[], NO_SERVICES)],
    ),
    (
        "PersistentVolumeClaim",
        &[
            supported("apiVersion kind metadata spec"),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "PersistentVolumeClaimSpec",
        &[accepted(
            "accessModes resources storageClassName volumeName volumeMode selector dataSource dataSourceRef \
             volumeAttributesClassName",
            &[],
            LOCAL_STORAGE,
        )],
    ),
    (
        "VolumeResourceRequirements",
        &[accepted("limits requests", &[], LOCAL_STORAGE)],
    ),
    (
        "TypedLocalObjectReference",
        &[accepted("apiGroup kind name", &[], "")],
    ),
    (
        "TypedObjectReference",
        &[accepted("apiGroup kind name namespace", &[], "")],
    ),
    (
        "ServiceAccount",
        &[accepted(
            "apiVersion kind metadata secrets imagePullSecrets automountServiceAccountToken",
            &[],
            NO_ACCOUNTS,
        )],
    ),
];
