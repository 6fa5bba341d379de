//! When documents were created: dated from the record of times, whatever has become of etcd's history.

use std::sync::Arc;

use setpoint_apis::timeline::{KEY, Timeline};
use setpoint_apis::{Key, ObjectKey, Timestamp};
use setpoint_store::testing::TestEtcd;

use crate::fixture::{Fixture, config_map, deployment, pod};

fn now() -> Timestamp {
    setpoint_runtime::Clock::system().now()
}

fn created(f: &Fixture, what: &[&str]) -> Timestamp {
    let args = [
        &["get", "-o", "jsonpath={.metadata.creationTimestamp}"],
        what,
    ]
    .concat();
    let text = f.run(&args).ok();
    text.trim()
        .parse()
        .unwrap_or_else(|e| panic!("{what:?}: {text:?}: {e}"))
}

async fn compact(f: &Fixture) {
    let revision = f.store.status().await.unwrap().revision;
    f.etcd
        .etcdctl(&["compaction", "--physical", &revision.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ages_outlive_a_compaction() {
    // A compaction is the whole etcd's.
    let f = Fixture::of(Arc::new(TestEtcd::start().await), "ages").await;
    let begin = now().whole_seconds();
    f.run(&["init"]).ok();
    f.apply(&format!("{}---\n{}", pod("a"), deployment("d", 2)));
    let made = now();
    // What others write meanwhile, and a controller's pod, which nobody samples.
    for i in 0..20 {
        f.put(&Key::Health("n1"), &format!("{i}")).await;
    }
    let owned = Key::Desired("pods", ObjectKey::namespaced("default", "b"));
    f.put(&owned, &pod("b")).await;
    let before = created(&f, &["pod", "a"]);
    assert!((begin..=made).contains(&before), "{before}");

    compact(&f).await;
    let out = f.run(&["get", "pods,deployments,namespaces"]).ok();
    let ages: Vec<&str> = out
        .lines()
        .filter(|l| !l.is_empty() && !l.contains("AGE"))
        .filter_map(|l| l.split_whitespace().last())
        .collect();
    assert_eq!(ages.len(), 5, "{out}");
    assert!(
        ages.iter().all(|a| a.ends_with('s') || a.ends_with('m')),
        "{out}"
    );
    assert_eq!(created(&f, &["pod", "a"]), before);
    assert!((before..=now()).contains(&created(&f, &["pod", "b"])));

    // A later write adds to what is known, and takes nothing from it.
    f.apply(&config_map("m", "v"));
    compact(&f).await;
    assert_eq!(created(&f, &["pod", "a"]), before);
    let later = created(&f, &["configmap", "m"]);
    assert!((made.whole_seconds()..=now()).contains(&later), "{later}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_a_sample_and_documents_are_stored_as_they_came() {
    let f = Fixture::new("samples").await;
    let revision = async |plural: &str, name: &str| {
        let key = Key::Desired(plural, ObjectKey::namespaced("default", name));
        f.get(&key).await.unwrap()
    };
    f.apply(&deployment("d", 2));
    let first = revision("deployments", "d").await;
    assert_eq!(first.value, deployment("d", 2));
    f.apply(&config_map("m", "v"));
    let second = revision("configmaps", "m").await;
    f.run(&["scale", "deployment/d", "--replicas=3"]).ok();
    let third = revision("deployments", "d").await;
    f.run(&["delete", "configmap/m"]).ok();

    let record = f.get(&Key::Meta(KEY)).await.unwrap();
    let curve = Timeline::parse(&record.value, record.mod_revision).curve();
    for written in [&first, &second, &third] {
        let estimate = curve.at(written.mod_revision).unwrap();
        assert!(
            estimate.earliest == estimate.latest,
            "{} has no sample: {record:?}",
            written.mod_revision
        );
    }
    assert!(
        record.mod_revision > third.mod_revision,
        "deleting is a write"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_broke_is_begun_anew_with_what_can_be_read_of_it() {
    let f = Fixture::new("broken-clock").await;
    f.apply(&pod("a"));
    let before = created(&f, &["pod", "a"]);
    let record = f.get(&Key::Meta(KEY)).await.unwrap();
    let a = Key::Desired("pods", ObjectKey::namespaced("default", "a"));
    let sample = format!("  {}: {before}\n", f.get(&a).await.unwrap().mod_revision);
    f.put(&Key::Meta(KEY), &format!("{{[ oops\n{sample}{sample}"))
        .await;
    assert_eq!(created(&f, &["pod", "a"]), before);
    f.apply(&pod("b"));
    assert_eq!(created(&f, &["pod", "a"]), before);

    f.put(&Key::Meta(KEY), "\u{1}: {").await;
    let out = f.run(&["get", "pods"]).ok();
    assert!(out.contains("<unknown>"), "{out}");
    f.apply(&pod("c"));
    assert!(created(&f, &["pod", "c"]) >= before);
    assert!(f.get(&Key::Meta(KEY)).await.unwrap().mod_revision > record.mod_revision);
}
