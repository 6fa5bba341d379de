use super::*;
use crate::apps::VolumeClaimTemplate;
use crate::batch::{PodFailurePolicy, SuccessPolicy};
use crate::document;

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\nspec:\n  replicas: 3\n  \
    selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web, tier: front}}\n    \
    spec: {containers: [{name: c, image: host}]}\n";
const SET: &str = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: default}\nspec:\n  replicas: 3\n  \
    serviceName: db\n  selector: {matchLabels: {app: db}}\n  podManagementPolicy: OrderedReady\n  \
    volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]\n  \
    template:\n    metadata: {labels: {app: db, tier: back}}\n    spec: {containers: [{name: c, image: host}]}\n";
const JOB: &str = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: sum, namespace: default}\nspec:\n  completionMode: Indexed\n  \
    completions: 4\n  parallelism: 2\n  suspend: false\n  backoffLimitPerIndex: 1\n  template:\n    metadata: {labels: {app: sum}}\n    \
    spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";

fn changes<K: Fixed>(text: &str, edits: &[(&str, &str)]) -> Vec<String> {
    let old: K = document::decode(text.as_bytes()).unwrap();
    let mut edited = text.to_owned();
    for (from, to) in edits {
        assert!(edited.contains(from), "{from}");
        edited = edited.replace(from, to);
    }
    let new: K = document::decode(edited.as_bytes()).unwrap();
    let record = FixedFields::of("u", &old);
    // As the record is read back.
    let stored: FixedFields = document::decode_value(document::encode(&record).as_bytes()).unwrap();
    assert_eq!(stored, record);
    assert_eq!(record.changed_by(&new, &FixedFields::of("other", &new)), []);
    // What the record tells is what `apply` tells.
    let found = record.changed_by(&new, &FixedFields::of("u", &new));
    let paths = |all: &[FieldError]| {
        let mut paths: Vec<String> = all.iter().map(|e| e.path.clone()).collect();
        paths.sort();
        paths
    };
    assert_eq!(paths(&found), paths(&old.immutable_changes(&new)));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_change_of_a_selector_names_both() {
    assert_eq!(
        changes::<Deployment>(
            DEPLOYMENT,
            &[("matchLabels: {app: web}", "matchLabels: {tier: front}")]
        ),
        ["spec.selector: field is immutable: it was \"app=web\", and is \"tier=front\""]
    );
    assert!(changes::<Deployment>(DEPLOYMENT, &[("replicas: 3", "replicas: 7")]).is_empty());
    assert!(changes::<Deployment>(DEPLOYMENT, &[("image: host", "image: other")]).is_empty());
}

#[test]
fn of_a_stateful_set_what_apply_refuses_is_told() {
    for (from, to, path) in [
        (
            "matchLabels: {app: db}",
            "matchLabels: {tier: back}",
            "spec.selector",
        ),
        ("serviceName: db", "serviceName: other", "spec.serviceName"),
        ("serviceName: db", "", "spec.serviceName"),
        ("OrderedReady", "Parallel", "spec.podManagementPolicy"),
        ("storage: 1Gi", "storage: 2Gi", "spec.volumeClaimTemplates"),
        ("storage: 1Gi", "storage: 1G", "spec.volumeClaimTemplates"),
    ] {
        let found = changes::<StatefulSet>(SET, &[(from, to)]);
        assert!(found.len() == 1 && found[0].starts_with(path), "{found:?}");
    }
    for (from, to) in [
        ("replicas: 3", "replicas: 1"),
        ("storage: 1Gi", "storage: '1073741824'"),
    ] {
        assert!(
            changes::<StatefulSet>(SET, &[(from, to)]).is_empty(),
            "{to}"
        );
    }
}

#[test]
fn of_a_job_what_apply_refuses_is_told() {
    let set = |from: &'static str, to: &'static str| vec![(from, to)];
    for (edits, path) in [
        (set("image: host", "image: other"), "spec.template"),
        (
            set("backoffLimitPerIndex: 1", "backoffLimitPerIndex: 2"),
            "spec.backoffLimitPerIndex",
        ),
        (
            set(
                "backoffLimitPerIndex: 1",
                "managedBy: example.com/x\n  backoffLimitPerIndex: 1",
            ),
            "spec.managedBy",
        ),
        (
            set(
                "backoffLimitPerIndex: 1",
                "successPolicy: {rules: [{succeededCount: 1}]}\n  backoffLimitPerIndex: 1",
            ),
            "spec.successPolicy",
        ),
        (
            set(
                "suspend: false",
                "suspend: true\n  podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: X, status: 'True'}]}]}",
            ),
            "spec.podFailurePolicy",
        ),
    ] {
        let found = changes::<Job>(JOB, &edits);
        assert!(found.len() == 1 && found[0].starts_with(path), "{found:?}");
    }
    for fine in [
        set("parallelism: 2", "parallelism: 3"),
        set("suspend: false", "suspend: true"),
        vec![
            ("completions: 4", "completions: 5"),
            ("parallelism: 2", "parallelism: 5"),
        ],
    ] {
        assert!(changes::<Job>(JOB, &fine).is_empty(), "{fine:?}");
    }
    let suspended = JOB.replace("suspend: false", "suspend: true");
    let elsewhere = (
        "{restartPolicy: Never",
        "{nodeSelector: {a: b}, restartPolicy: Never",
    );
    assert!(changes::<Job>(&suspended, &[elsewhere]).is_empty());
    assert_eq!(changes::<Job>(JOB, &[elsewhere]).len(), 1);
    assert_eq!(
        changes::<Job>(&suspended, &[("image: host", "image: other")]).len(),
        1
    );
}

/// A Job that is no longer as it was recorded.
fn since(recorded: &str, now: &str) -> Vec<String> {
    let read = |text: &str| document::decode::<Job>(text.as_bytes()).unwrap();
    let record = FixedFields::of("u", &read(recorded));
    let now = read(now);
    let found = record.changed_by(&now, &FixedFields::of("u", &now));
    found.iter().map(|e| e.path.clone()).collect()
}

#[test]
fn what_apply_took_in_several_steps_is_taken_up_in_one() {
    let elsewhere = |text: &str| {
        text.replace(
            "{restartPolicy: Never",
            "{nodeSelector: {a: b}, restartPolicy: Never",
        )
    };
    let suspended = JOB.replace("suspend: false", "suspend: true");
    let fine = Vec::<String>::new();
    assert_eq!(since(JOB, &elsewhere(&suspended)), fine);
    assert_eq!(since(&suspended, &elsewhere(JOB)), fine);
    let other = suspended.replace("image: host", "image: other");
    assert_eq!(since(JOB, &other), ["spec.template"]);
    assert_eq!(since(JOB, &elsewhere(JOB)), ["spec.template"]);
    // Both became 5, and then one of them 2.
    let more = JOB.replace("completions: 4", "completions: 5");
    assert_eq!(since(JOB, &more), fine);
    let plain = |text: &str| {
        let text = text.replace("completionMode: Indexed", "completionMode: NonIndexed");
        text.replace("backoffLimitPerIndex: 1\n  ", "")
    };
    assert_eq!(since(&plain(JOB), &plain(&more)), ["spec.completions"]);
}

#[test]
fn a_job_that_says_no_number_may_get_another_parallelism_and_lose_it_again() {
    let bare = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: sum, namespace: default}\nspec:\n  suspend: false\n  template:\n    \
                spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";
    let with = |more: &str| bare.replace("suspend: false", &format!("{more}suspend: false"));
    let (three, five) = (with("parallelism: 3\n  "), with("parallelism: 5\n  "));
    let two = with("completions: 2\n  ");
    for (from, to) in [(bare, &*three), (&three, &five), (&three, bare)] {
        let edit = [(from, to)];
        assert_eq!(changes::<Job>(from, &edit), Vec::<String>::new());
    }
    for (from, to) in [(bare, &*two), (&two, bare), (&two, &*three), (&three, &two)] {
        assert_eq!(changes::<Job>(from, &[(from, to)]).len(), 1, "{from} {to}");
    }
}

#[test]
fn equal_quantities_of_a_template_are_no_change() {
    let with = |more: &str| JOB.replace("{restartPolicy", &format!("{{{more}, restartPolicy"));
    for (one, same, other) in [
        (
            "overhead: {memory: 1Gi}",
            "overhead: {memory: '1073741824'}",
            "overhead: {memory: 1G}",
        ),
        (
            "overhead: {cpu: '1'}",
            "overhead: {cpu: 1000m}",
            "overhead: {cpu: 100m}",
        ),
    ] {
        let one = with(one);
        assert!(changes::<Job>(&one, &[(&*one, &*with(same))]).is_empty());
        assert_eq!(changes::<Job>(&one, &[(&*one, &*with(other))]).len(), 1);
    }
}

#[test]
fn what_another_version_recorded_is_no_reason_to_stop() {
    let set: StatefulSet = document::decode(SET.as_bytes()).unwrap();
    let mut record = FixedFields::of("u", &set);
    let claims = record.fields.get_mut("spec.volumeClaimTemplates").unwrap();
    *claims = "v0:1234".into();
    record.fields.remove("spec.serviceName");
    record.fields.insert("spec.elsewhere".into(), "x".into());
    assert_eq!(record.changed_by(&set, &FixedFields::of("u", &set)), []);
}

/// When this fails defaults have become others, and every Job and StatefulSet that runs would seem to be changed by
/// hand after an upgrade: change [`FINGERPRINT`] and the texts here.
#[test]
fn fingerprints_are_the_same_in_every_version() {
    let job: Job = document::decode(JOB.as_bytes()).unwrap();
    let set: StatefulSet = document::decode(SET.as_bytes()).unwrap();
    let found = [
        fingerprint(&job.spec.template),
        fingerprint(&set.spec.volume_claim_templates),
        fingerprint(&job.spec.success_policy),
    ];
    assert_eq!(
        found,
        [
            "v1:119222f488c5b7aa",
            "v1:2e7ea58ac84e3dae",
            "v1:5b9bc4ba528108e4"
        ]
    );
}

/// The fields of a type and of those that it is made of, `Type.field`, in their order.
fn fields<T: JsonSchema>() -> Vec<String> {
    fn of(name: &str, schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                for (key, inner) in map {
                    match (key.as_str(), inner) {
                        ("$defs", Value::Object(types)) => {
                            let mut types: Vec<_> = types.iter().collect();
                            types.sort_by_key(|(name, _)| *name);
                            types.into_iter().for_each(|(name, t)| of(name, t, found));
                        }
                        ("properties", Value::Object(fields)) => {
                            for (field, inner) in fields {
                                found.push(format!("{name}.{field}"));
                                of(&format!("{name}.{field}"), inner, found);
                            }
                        }
                        _ => of(name, inner, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|inner| of(name, inner, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    of(
        &T::schema_name(),
        schemars::schema_for!(T).as_value(),
        &mut found,
    );
    found
}

/// When this fails a type that is fingerprinted has another field, or others in another order. A stored document may
/// have had it already, and then was recorded without: its object would freeze after an upgrade. So change
/// [`FINGERPRINT`], the text here, and those of the test above.
#[test]
fn a_field_more_makes_other_fingerprints() {
    let all = [
        fields::<PodTemplateSpec>(),
        fields::<VolumeClaimTemplate>(),
        fields::<PodFailurePolicy>(),
        fields::<SuccessPolicy>(),
    ]
    .concat();
    for known in [
        "PodSpec.overhead",
        "Container.env",
        "ObjectMeta.labels",
        "SuccessPolicyRule.succeededCount",
    ] {
        assert!(all.iter().any(|field| field == known), "{known}: {all:#?}");
    }
    let found = format!("{FINGERPRINT} {:016x}", fnv64(all.join(" ").as_bytes()));
    assert_eq!(found, "v1: 85fa7ec09a79d3cf", "{all:#?}");
}
