//! Volumes.

use super::{NO_ACCOUNTS, NO_STORAGE, Types, accepted, refused, supported};

pub(super) const TYPES: Types = &[
    (
        "Volume",
        &[
            supported(
                "name emptyDir hostPath configMap secret downwardAPI projected persistentVolumeClaim",
            ),
            refused("ephemeral csi nfs", &[], NO_STORAGE),
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
        &[supported("claimName readOnly")],
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
];
