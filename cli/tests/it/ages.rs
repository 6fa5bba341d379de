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
    // Between two samples it may be taken for as late as the moment at which it is read.
    let owned = created(&f, &["pod", "b"]);
    assert!((before..=now()).contains(&owned), "{owned}");

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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_created_after_an_idle_time_is_as_old_as_it_says_itself() {
    let f = Fixture::new("idle").await;
    // The last sample is long ago, and nobody has taken another yet.
    f.put(&Key::Meta(KEY), "time: 2026-01-01T00:00:00Z\n").await;
    let alive =
        "hostname: h\npid: 1\ninstance: i\nsince: 2026-01-01T02:00:00Z\nleaseTtlSeconds: 6\n";
    f.put(&Key::NodeAlive("n1"), alive).await;
    let node = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n";
    let desired = Key::Desired("nodes", ObjectKey::cluster("n1"));
    f.put(&desired, node).await;
    let name = ObjectKey::namespaced("default", "a");
    f.put(&Key::Desired("pods", name.clone()), &pod("a")).await;
    let binding =
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T02:00:05Z\n";
    f.put(&Key::Binding(name), binding).await;
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(created(&f, &["node", "n1"]), at("2026-01-01T02:00:00Z"));
    assert_eq!(created(&f, &["pod", "a"]), at("2026-01-01T02:00:05Z"));
    // The agent was restarted: its document is older than its session.
    f.remove(&Key::NodeAlive("n1")).await;
    f.put(
        &Key::NodeAlive("n1"),
        &alive.replace("02:00:00", "03:00:00"),
    )
    .await;
    assert!(created(&f, &["node", "n1"]) < at("2026-01-01T02:00:00Z"));
}
