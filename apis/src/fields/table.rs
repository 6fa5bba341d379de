//! The table itself. One block per type; a field that is not here does not exist.

use super::{Class, Group};

const fn supported(fields: &'static str) -> Group {
    Group {
        class: Class::Supported,
        fields,
        unless: &[],
        why: "",
    }
}

const fn accepted(
    fields: &'static str,
    unless: &'static [&'static str],
    why: &'static str,
) -> Group {
    Group {
        class: Class::Accepted,
        fields,
        unless,
        why,
    }
}

const fn refused(
    fields: &'static str,
    unless: &'static [&'static str],
    why: &'static str,
) -> Group {
    Group {
        class: Class::Refused,
        fields,
        unless,
        why,
    }
}

const fn dropped(fields: &'static str, why: &'static str) -> Group {
    Group {
        class: Class::Dropped,
        fields,
        unless: &[],
        why,
    }
}

const NO_SERVICES: &str = "stored and shown; nothing serves it yet";
const NO_STORAGE: &str = "nothing provides storage yet";
const NO_ACCOUNTS: &str = "there is no API server that a pod could speak to";
const NO_REPORT: &str = "the status is a document of its own";
const HOST_PROCESS: &str = "containers are processes of the node and have this anyway";
const NODE_RESOLVER: &str = "processes resolve names as their node does";
const NOT_FILTERED: &str = "the process driver applies no such profile";

/// Kinds that are stored and shown but act later.
pub const KINDS: &[(&str, &str)] = &[
    (
        "Service",
        "a Service is stored and shown; nothing serves it yet",
    ),
    (
        "Ingress",
        "an Ingress is stored and shown; nothing serves it yet",
    ),
    (
        "PersistentVolumeClaim",
        "a PersistentVolumeClaim is stored and shown; nothing provides storage yet",
    ),
    (
        "ServiceAccount",
        "a ServiceAccount is stored and shown; there is no API server that a pod could speak to",
    ),
];

/// Types and their fields.
pub const TABLE: &[(&str, &[Group])] = &[
    // Metadata.
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
        &[
            supported("apiVersion kind name uid controller"),
            accepted(
                "blockOwnerDeletion",
                &["false"],
                "deletion waits for nobody",
            ),
        ],
    ),
    (
        "LabelSelector",
        &[supported("matchLabels matchExpressions")],
    ),
    (
        "LabelSelectorRequirement",
        &[supported("key operator values")],
    ),
    // Kinds without pods.
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
    // Workloads.
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
    // Pods.
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
    // Containers.
    (
        "Container",
        &[
            supported(
                "name image command args workingDir ports env envFrom resources volumeMounts livenessProbe \
                 readinessProbe startupProbe securityContext restartPolicy lifecycle \
                 terminationMessagePolicy",
            ),
            accepted(
                "imagePullPolicy",
                &["\"IfNotPresent\"", "\"Never\""],
                "the process driver pulls no images",
            ),
            accepted(
                "resizePolicy",
                &[],
                "resources are not changed in place yet",
            ),
            accepted(
                "terminationMessagePath",
                &["\"/dev/termination-log\""],
                "the file is not read; with FallbackToLogsOnError the end of the log is",
            ),
            refused(
                "stdin stdinOnce tty",
                &["false"],
                "there is no terminal: the process would end at once",
            ),
            refused("volumeDevices", &[], NO_STORAGE),
            refused(
                "restartPolicyRules",
                &[],
                "the restart policy does not depend on the exit code yet",
            ),
        ],
    ),
    (
        "ContainerPort",
        &[supported("name containerPort protocol hostPort hostIP")],
    ),
    ("EnvVar", &[supported("name value valueFrom")]),
    (
        "EnvVarSource",
        &[
            supported("fieldRef resourceFieldRef configMapKeyRef secretKeyRef"),
            refused(
                "fileKeyRef",
                &[],
                "variables are not read from files in volumes yet",
            ),
        ],
    ),
    ("ObjectFieldSelector", &[supported("apiVersion fieldPath")]),
    (
        "ResourceFieldSelector",
        &[supported("containerName resource divisor")],
    ),
    ("KeySelector", &[supported("name key optional")]),
    (
        "EnvFromSource",
        &[supported("prefix configMapRef secretRef")],
    ),
    ("EnvFromRef", &[supported("name optional")]),
    (
        "ResourceRequirements",
        &[
            supported("limits requests"),
            refused("claims", &[], "there are no devices to claim yet"),
        ],
    ),
    ("ResourceClaim", &[accepted("name request", &[], "")]),
    (
        "ContainerResizePolicy",
        &[accepted("resourceName restartPolicy", &[], "")],
    ),
    (
        "VolumeMount",
        &[
            supported("name mountPath subPath subPathExpr readOnly"),
            refused(
                "recursiveReadOnly",
                &["\"Disabled\"", "\"IfPossible\""],
                "only the mount itself is read-only",
            ),
            refused("mountPropagation", &["\"None\""], "mounts do not propagate"),
        ],
    ),
    ("VolumeDevice", &[accepted("name devicePath", &[], "")]),
    (
        "Probe",
        &[
            supported(
                "exec httpGet tcpSocket initialDelaySeconds timeoutSeconds periodSeconds successThreshold \
                 failureThreshold terminationGracePeriodSeconds",
            ),
            refused("grpc", &[], "probes do not speak gRPC yet"),
        ],
    ),
    ("ExecAction", &[supported("command")]),
    (
        "HttpGetAction",
        &[
            supported("path port host httpHeaders"),
            refused(
                "scheme",
                &["\"HTTP\""],
                "probes and hooks do not speak TLS yet",
            ),
        ],
    ),
    ("HttpHeader", &[supported("name value")]),
    ("TcpSocketAction", &[supported("port host")]),
    ("GrpcAction", &[accepted("port service", &[], "")]),
    (
        "Lifecycle",
        &[accepted("postStart preStop stopSignal", &[], "")],
    ),
    (
        "LifecycleHandler",
        &[accepted("exec httpGet sleep tcpSocket", &[], "")],
    ),
    ("SleepAction", &[supported("seconds")]),
    // Who processes run as.
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
    // Volumes.
    (
        "Volume",
        &[
            supported("name emptyDir hostPath configMap secret downwardAPI projected"),
            refused("persistentVolumeClaim ephemeral csi nfs", &[], NO_STORAGE),
            refused("image", &[], "the process driver pulls no images"),
            refused(
                "awsElasticBlockStore azureDisk azureFile cephfs cinder fc flexVolume flocker gcePersistentDisk gitRepo \
                 glusterfs iscsi photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume",
                &[],
                NO_STORAGE,
            ),
        ],
    ),
    (
        "EmptyDirVolumeSource",
        &[
            refused(
                "medium",
                &["\"Memory\""],
                "there are no huge pages for volumes yet",
            ),
            accepted(
                "sizeLimit",
                &[],
                "it holds for the medium Memory; on disk the size is not limited yet",
            ),
        ],
    ),
    ("HostPathVolumeSource", &[supported("path type")]),
    ("KeyToPath", &[supported("key path mode")]),
    (
        "ConfigMapVolumeSource",
        &[supported("name items defaultMode optional")],
    ),
    (
        "SecretVolumeSource",
        &[supported("secretName items defaultMode optional")],
    ),
    ("DownwardApiVolumeSource", &[supported("items defaultMode")]),
    (
        "DownwardApiVolumeFile",
        &[supported("path fieldRef resourceFieldRef mode")],
    ),
    ("ProjectedVolumeSource", &[supported("sources defaultMode")]),
    (
        "VolumeProjection",
        &[
            supported("configMap secret downwardAPI"),
            refused("serviceAccountToken", &[], NO_ACCOUNTS),
            refused(
                "clusterTrustBundle podCertificate",
                &[],
                "there are no certificates for pods yet",
            ),
        ],
    ),
    ("ConfigMapProjection", &[supported("name items optional")]),
    ("SecretProjection", &[supported("name items optional")]),
    ("DownwardApiProjection", &[supported("items")]),
    (
        "ServiceAccountTokenProjection",
        &[accepted("audience expirationSeconds path", &[], "")],
    ),
    (
        "PersistentVolumeClaimVolumeSource",
        &[accepted("claimName readOnly", &[], "")],
    ),
    (
        "EphemeralVolumeSource",
        &[accepted("volumeClaimTemplate", &[], "")],
    ),
    (
        "PersistentVolumeClaimTemplate",
        &[accepted("metadata spec", &[], "")],
    ),
    (
        "CsiVolumeSource",
        &[accepted(
            "driver readOnly fsType volumeAttributes nodePublishSecretRef",
            &[],
            "",
        )],
    ),
    (
        "NfsVolumeSource",
        &[accepted("server path readOnly", &[], "")],
    ),
    (
        "ImageVolumeSource",
        &[accepted("reference pullPolicy", &[], "")],
    ),
    // Where pods run.
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
    // How pods are placed, and how much they may use.
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
    // Kinds that act later.
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
            accepted("apiVersion kind metadata spec", &[], NO_STORAGE),
            dropped("status", NO_REPORT),
        ],
    ),
    (
        "PersistentVolumeClaimSpec",
        &[accepted(
            "accessModes resources storageClassName volumeName volumeMode selector dataSource dataSourceRef \
             volumeAttributesClassName",
            &[],
            NO_STORAGE,
        )],
    ),
    (
        "VolumeResourceRequirements",
        &[accepted("limits requests", &[], NO_STORAGE)],
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
