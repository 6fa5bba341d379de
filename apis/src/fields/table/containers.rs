//! Containers.

use super::{NO_STORAGE, Types, accepted, refused, supported};

pub(super) const TYPES: Types = &[
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
];
