//! ConfigMaps and Secrets in the work of nodes.

use setpoint_apis::core::{ConfigMap, Secret};
use setpoint_apis::{Key, document};

use crate::rig::{Rig, pod_key, pod_with};

const USES: &str =
    "  volumes: [{name: v, configMap: {name: settings}}, {name: w, secret: {secretName: keys}}]\n";

fn settings(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: default}}\ndata: {{k: {value:?}}}\n"
    )
}

fn source(kind: &'static str, name: &str) -> Key<'static> {
    Key::Desired(kind, pod_key(name))
}

fn on(node: &'static str, kind: &'static str, name: &str) -> Key<'static> {
    Key::WorkContent(node, kind, pod_key(name))
}

/// The value of `k`, and the revision that it was made from.
fn value(text: &str) -> (String, i64) {
    let (header, map) =
        document::decode_work::<ConfigMap>(text.as_bytes()).expect("content that can be read");
    (map.data["k"].clone(), header.source_revision)
}

#[tokio::test]
async fn content_is_there_with_the_pod_and_follows_its_source_and_its_users() {
    let (rig, _s, _agents) = Rig::with_nodes("content", &[4]).await;
    let first = rig
        .put(&source("configmaps", "settings"), settings("one"))
        .await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {k: hidden}\n";
    rig.put(&source("secrets", "keys"), secret).await;
    for name in ["a", "b"] {
        rig.apply(name, pod_with(name, USES)).await;
        rig.until_bound(name).await;
    }
    let there = rig
        .until_key(
            "the config map is there",
            &on("n1", "configmaps", "settings"),
            |v| v.map(value),
        )
        .await;
    assert_eq!(there, ("one".into(), first.0));
    let (_, keys) = rig
        .until_key("the secret is there", &on("n1", "secrets", "keys"), |v| {
            Some(document::decode_work::<Secret>(v?.as_bytes()).expect("a secret"))
        })
        .await;
    assert_eq!(keys.get("k"), Some(&b"hidden"[..]));

    let second = rig
        .put(&source("configmaps", "settings"), settings("two"))
        .await;
    rig.until_key(
        "the config map is new",
        &on("n1", "configmaps", "settings"),
        |v| (value(v?) == ("two".into(), second.0)).then_some(()),
    )
    .await;

    rig.delete_pod("a").await;
    rig.until_unbound("a").await;
    rig.settle("probe").await;
    assert!(
        rig.get(&on("n1", "configmaps", "settings")).await.is_some(),
        "b uses it"
    );
    rig.delete_pod("b").await;
    rig.until_gone(&on("n1", "configmaps", "settings")).await;
    rig.until_gone(&on("n1", "secrets", "keys")).await;
}

#[tokio::test]
async fn a_pod_is_bound_without_its_content_and_gets_it_when_it_appears() {
    let (rig, _s, _agents) = Rig::with_nodes("missing", &[4]).await;
    rig.apply("a", pod_with("a", USES)).await;
    rig.until_bound("a").await;
    assert!(rig.get(&on("n1", "configmaps", "settings")).await.is_none());
    rig.put(&source("configmaps", "settings"), settings("one"))
        .await;
    rig.until_key(
        "the config map is there",
        &on("n1", "configmaps", "settings"),
        |v| v.map(|_| ()),
    )
    .await;
    rig.delete(&source("configmaps", "settings")).await;
    rig.until_gone(&on("n1", "configmaps", "settings")).await;
}

#[tokio::test]
async fn content_that_does_not_parse_leaves_what_nodes_have() {
    let (rig, _s, _agents) = Rig::with_nodes("broken-content", &[4]).await;
    rig.put(&source("configmaps", "settings"), settings("one"))
        .await;
    rig.apply("a", pod_with("a", USES)).await;
    let place = on("n1", "configmaps", "settings");
    rig.until_key("the config map is there", &place, |v| v.map(|_| ()))
        .await;
    rig.put(&source("configmaps", "settings"), "data: [").await;
    rig.settle("probe").await;
    let kept = rig.get(&place).await.expect("it is kept");
    assert_eq!(value(&String::from_utf8_lossy(&kept.value)).0, "one");
    rig.put(&source("configmaps", "settings"), settings("mended"))
        .await;
    rig.until_key("the config map is new", &place, |v| {
        (value(v?).0 == "mended").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_leader_knows_what_is_projected_and_mends_what_is_not_right() {
    let (rig, s, _agents) = Rig::with_nodes("content-takeover", &[4]).await;
    rig.put(&source("configmaps", "settings"), settings("one"))
        .await;
    rig.apply("a", pod_with("a", USES)).await;
    let place = on("n1", "configmaps", "settings");
    rig.until_key("the config map is there", &place, |v| v.map(|_| ()))
        .await;
    rig.settle("probe").await;
    s.stop().await;
    let kept = rig.get(&place).await.unwrap();

    let s = rig.scheduler();
    rig.settle("probe").await;
    assert_eq!(
        rig.get(&place).await.unwrap(),
        kept,
        "what is right is not written again"
    );
    s.stop().await;

    // While nobody leads: one that nobody uses appears, the source changes, and what is there is broken.
    rig.put(
        &on("n1", "configmaps", "unused"),
        "sourceRevision: 1\nuid: x\n---\n",
    )
    .await;
    rig.put(&place, "broken").await;
    rig.put(&source("configmaps", "settings"), settings("two"))
        .await;
    let _s = rig.scheduler();
    rig.until_gone(&on("n1", "configmaps", "unused")).await;
    rig.until_key("the config map is new", &place, |v| {
        let v = v.filter(|v| *v != "broken")?;
        (value(v).0 == "two").then_some(())
    })
    .await;
}

#[tokio::test]
async fn content_stays_while_it_is_not_known_what_a_pod_on_the_node_uses() {
    let rig = Rig::start("content-unknown").await;
    let n1 = rig.node("n1", 4).await;
    let n2 = rig.node("n2", 4).await;
    // As a former leader left it; this process has never read the pods' documents, or cannot read their bindings.
    let binding = |node: &str, session: i64| {
        format!(
            "node: {node}\nsession: {session}\nplacement: 1\npodRevision: 1000000000\nboundAt: 2026-01-01T00:00:00Z\n"
        )
    };
    rig.apply("broken", "spec: [").await;
    rig.put(&Key::Binding(pod_key("broken")), binding("n1", n1.session))
        .await;
    rig.apply("lost", "spec: [").await;
    rig.put(&Key::Binding(pod_key("lost")), "node: [").await;
    // The document is gone and the agent has yet to stop it.
    let leaving =
        binding("n2", n2.session) + "withdrawn: {reason: Deleted, at: 2026-01-01T00:00:00Z}\n";
    rig.put(&Key::Binding(pod_key("leaving")), leaving).await;
    rig.put(
        &Key::NodePod("n2", pod_key("leaving")),
        "placement: 1\nuid: x\nstage: Running\n",
    )
    .await;
    rig.put(&source("configmaps", "settings"), settings("one"))
        .await;
    for node in ["n1", "n2"] {
        rig.put(
            &on(node, "configmaps", "settings"),
            "sourceRevision: 1\nuid: x\n---\n",
        )
        .await;
    }
    let there = |node: &'static str| {
        let rig = &rig;
        async move {
            rig.settle("probe").await;
            rig.get(&on(node, "configmaps", "settings")).await.is_some()
        }
    };
    let _s = rig.scheduler();
    assert!(there("n1").await && there("n2").await);
    rig.delete(&Key::Binding(pod_key("lost"))).await;
    assert!(there("n1").await && there("n2").await);
    // Stopped: its binding goes, and with it what nobody uses.
    n2.stopped("leaving").await;
    rig.until_gone(&on("n2", "configmaps", "settings")).await;
    assert!(there("n1").await);
    rig.apply("broken", pod_with("broken", "")).await;
    rig.until_gone(&on("n1", "configmaps", "settings")).await;
}
