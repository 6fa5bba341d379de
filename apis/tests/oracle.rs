//! What we accept, the published Rust bindings of Kubernetes' types parse, to the same content.
//!
//! Manifests are made at random from our own schemas (`generate`), and from those by changing their text at random.
//! A failing case is a seed, which proptest prints and keeps.

#[path = "oracle/generate.rs"]
mod generate;
#[path = "oracle/normal.rs"]
mod normal;

use k8s_openapi::api::{apps, autoscaling, batch, core, networking, policy, scheduling};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use setpoint_apis::Kind;
use setpoint_apis::registry::{KindInfo, Registry};
use setpoint_apis::strict::{Document, Options, read_manifest};

/// The document as the oracle reads and writes it, and as we do.
fn both(d: &Document) -> Result<(Value, Value), String> {
    fn through<T: DeserializeOwned + Serialize>(d: &Document) -> Result<Value, String> {
        let mut value: Value =
            serde_yaml::from_str(&d.text).map_err(|e| format!("as YAML: {e}"))?;
        // The binding of a quantity is a text; Kubernetes itself takes numbers too.
        normal::quantities_to_texts(&mut value);
        normal::without_nulls_in_claim_templates(&mut value);
        let theirs: T =
            serde_json::from_value(value).map_err(|e| format!("the oracle refuses: {e}"))?;
        serde_json::to_value(theirs).map_err(|e| e.to_string())
    }
    fn ours<K: Kind>(d: &Document) -> Result<Value, String> {
        let object: K =
            setpoint_apis::document::decode_value(d.text.as_bytes()).map_err(|e| e.to_string())?;
        serde_json::to_value(object).map_err(|e| e.to_string())
    }
    use setpoint_apis::{
        apps as a, autoscaling as h, batch as b, core as c, networking as n, policy as p,
        scheduling as s,
    };
    let (theirs, ours) = match d.kind.kind {
        "Pod" => (through::<core::v1::Pod>(d)?, ours::<c::Pod>(d)?),
        "Node" => (through::<core::v1::Node>(d)?, ours::<c::Node>(d)?),
        "Namespace" => (through::<core::v1::Namespace>(d)?, ours::<c::Namespace>(d)?),
        "ConfigMap" => (through::<core::v1::ConfigMap>(d)?, ours::<c::ConfigMap>(d)?),
        "Secret" => (through::<core::v1::Secret>(d)?, ours::<c::Secret>(d)?),
        "Event" => (through::<core::v1::Event>(d)?, ours::<c::Event>(d)?),
        "Service" => (through::<core::v1::Service>(d)?, ours::<c::Service>(d)?),
        "ServiceAccount" => (
            through::<core::v1::ServiceAccount>(d)?,
            ours::<c::ServiceAccount>(d)?,
        ),
        "PersistentVolumeClaim" => (
            through::<core::v1::PersistentVolumeClaim>(d)?,
            ours::<c::PersistentVolumeClaim>(d)?,
        ),
        "Deployment" => (
            through::<apps::v1::Deployment>(d)?,
            ours::<a::Deployment>(d)?,
        ),
        "ReplicaSet" => (
            through::<apps::v1::ReplicaSet>(d)?,
            ours::<a::ReplicaSet>(d)?,
        ),
        "StatefulSet" => (
            through::<apps::v1::StatefulSet>(d)?,
            ours::<a::StatefulSet>(d)?,
        ),
        "DaemonSet" => (through::<apps::v1::DaemonSet>(d)?, ours::<a::DaemonSet>(d)?),
        "ControllerRevision" => (
            through::<apps::v1::ControllerRevision>(d)?,
            ours::<a::ControllerRevision>(d)?,
        ),
        "Job" => (through::<batch::v1::Job>(d)?, ours::<b::Job>(d)?),
        "CronJob" => (through::<batch::v1::CronJob>(d)?, ours::<b::CronJob>(d)?),
        "HorizontalPodAutoscaler" => (
            through::<autoscaling::v2::HorizontalPodAutoscaler>(d)?,
            ours::<h::HorizontalPodAutoscaler>(d)?,
        ),
        "LimitRange" => (
            through::<core::v1::LimitRange>(d)?,
            ours::<c::LimitRange>(d)?,
        ),
        "Ingress" => (
            through::<networking::v1::Ingress>(d)?,
            ours::<n::Ingress>(d)?,
        ),
        "PriorityClass" => (
            through::<scheduling::v1::PriorityClass>(d)?,
            ours::<s::PriorityClass>(d)?,
        ),
        "PodDisruptionBudget" => (
            through::<policy::v1::PodDisruptionBudget>(d)?,
            ours::<p::PodDisruptionBudget>(d)?,
        ),
        "ResourceQuota" => (
            through::<core::v1::ResourceQuota>(d)?,
            ours::<c::ResourceQuota>(d)?,
        ),
        other => return Err(format!("no oracle for {other}")),
    };
    Ok((theirs, ours))
}

/// The kinds that Kubernetes has.
fn kubernetes_kinds() -> impl Iterator<Item = &'static KindInfo> {
    Registry::builtin()
        .kinds()
        .iter()
        .filter(|k| k.group() != "setpoint.dev")
}

/// Whether all accepted documents of the text mean the same to everybody. Gives back how many there were.
fn check(text: &str) -> Result<usize, TestCaseError> {
    let options = Options {
        ignore_unsupported: true,
        ..Options::default()
    };
    let manifest = read_manifest("generated", text, &options);
    for d in &manifest.documents {
        let (theirs, ours) =
            both(d).map_err(|e| TestCaseError::fail(format!("{e}\n{}", d.text)))?;
        let said = normal::form(d.value.clone());
        prop_assert_eq!(
            &normal::form(theirs),
            &said,
            "the oracle reads something else:\n{}",
            d.text
        );
        prop_assert_eq!(
            &normal::form(ours),
            &said,
            "we read something else:\n{}",
            d.text
        );
    }
    Ok(manifest.documents.len())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_we_accept_means_the_same_to_kubernetes(seed in any::<u64>(), json in any::<bool>()) {
        for kind in kubernetes_kinds() {
            let value = generate::manifest(kind, seed);
            let text = if json { value.to_string() } else { serde_yaml::to_string(&value).unwrap() };
            check(&text)?;
        }
    }

    #[test]
    fn what_we_accept_of_changed_manifests_means_the_same_too(seed in any::<u64>()) {
        for kind in kubernetes_kinds() {
            let text = serde_yaml::to_string(&generate::manifest(kind, seed)).unwrap();
            check(&generate::mutate(&text, seed))?;
        }
    }
}

/// Without this the properties above could hold because nothing is ever accepted.
#[test]
fn most_generated_manifests_are_accepted() {
    let options = Options {
        ignore_unsupported: true,
        ..Options::default()
    };
    for kind in Registry::builtin().kinds() {
        let (mut accepted, mut last) = (0, Vec::new());
        for seed in 0..200 {
            let manifest = read_manifest(
                "generated",
                &generate::manifest(kind, seed).to_string(),
                &options,
            );
            accepted += manifest.documents.len();
            if !manifest.errors.is_empty() {
                last = manifest.errors;
            }
        }
        let last: Vec<_> = last.iter().map(ToString::to_string).collect();
        assert!(
            accepted > 120,
            "{accepted} of 200 {} accepted, the last refusal: {last:#?}",
            kind.plural
        );
    }
}
