//! The cache: consistent, complete across compactions and restarts, undisturbed by broken documents.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use setpoint_apis::Key;
use setpoint_apis::core::{ConfigMap, Pod};
use setpoint_runtime::watcher::WatcherOptions;
use setpoint_runtime::{CacheBuilder, StateKey};
use setpoint_store::{Revision, Txn};

use crate::support::{Fixture, LIMIT, config_map, eventually, key, value_of};

fn desired(name: &str) -> Key<'static> {
    Key::Desired("configmaps", key(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_visible_at_its_revision() {
    let f = Fixture::start().await;
    let cache = f.cache().await;
    let revision = f.put(&desired("a"), config_map("a", "1")).await;
    tokio::time::timeout(LIMIT, cache.wait_for(revision))
        .await
        .expect("the cache follows");
    assert_eq!(value_of(&cache.view(), "a").as_deref(), Some("1"));
    let stored = cache
        .view()
        .desired::<ConfigMap>()
        .get(&key("a"))
        .cloned()
        .unwrap();
    assert_eq!(
        (stored.mod_revision, stored.create_revision, stored.version),
        (revision.0, revision.0, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_never_see_half_of_a_transaction() {
    let f = Fixture::start().await;
    let cache = f.cache().await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (cache, done) = (cache.clone(), done.clone());
        tokio::task::spawn_blocking(move || {
            let look = || {
                let view = cache.view();
                let (a, b) = (value_of(&view, "a"), value_of(&view, "b"));
                assert_eq!(a, b, "at revision {}", view.revision());
            };
            while !done.load(Ordering::Acquire) {
                look();
            }
            look();
        })
    };
    let mut last = Revision(0);
    for n in 0..200 {
        let n = n.to_string();
        let txn = Txn::new()
            .put(f.keyspace.build(&desired("a")), config_map("a", &n))
            .put(f.keyspace.build(&desired("b")), config_map("b", &n));
        last = f.store.txn(txn).await.unwrap().revision;
    }
    tokio::time::timeout(LIMIT, cache.wait_for(last))
        .await
        .expect("the cache follows");
    done.store(true, Ordering::Release);
    reader.await.unwrap();
    assert_eq!(value_of(&cache.view(), "b").as_deref(), Some("199"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_does_not_parse_is_present_and_frozen_and_disturbs_no_other() {
    let f = Fixture::start().await;
    let cache = f.cache().await;
    f.put(&desired("a"), config_map("a", "good")).await;
    f.put(&desired("a"), "data: [not, a, map").await;
    f.put(&desired("never-good"), "{{{{").await;
    // Broken bytes in every other tree, and keys that are not ours at all.
    f.put(&Key::NodeAlive("n1"), vec_of_binary()).await;
    f.put(&Key::NodeStatus("n1"), ": : :").await;
    f.put(&Key::NodePod("n1", key("p")), "- 1").await;
    f.put(&Key::Health("n1"), "state: Sideways").await;
    f.put(&Key::Binding(key("p")), "node: [").await;
    f.put(&Key::Deletion("pods", key("p")), "x").await;
    f.put(&Key::Actual("configmaps", key("a")), "[]").await;
    f.store
        .txn(Txn::new().put(format!("{}/actual/nodes/n1/what/is/this", f.keyspace), "x"))
        .await
        .unwrap();
    let last = f.put(&desired("b"), config_map("b", "fine")).await;
    tokio::time::timeout(LIMIT, cache.wait_for(last))
        .await
        .expect("the watch goes on");

    let view = cache.view();
    assert_eq!(value_of(&view, "b").as_deref(), Some("fine"));
    let entry = view
        .desired::<ConfigMap>()
        .entry(&key("a"))
        .expect("present");
    assert!(entry.valid().is_none());
    assert_eq!(entry.last_good().unwrap().value.data["value"], "good");
    let never = view
        .desired::<ConfigMap>()
        .entry(&key("never-good"))
        .expect("present");
    assert!(never.valid().is_none() && never.last_good().is_none() && never.invalid().is_some());
    assert!(view.bindings().contains(&key("p")) && view.bindings().get(&key("p")).is_none());
    drop(view);

    let mended = f.put(&desired("a"), config_map("a", "mended")).await;
    tokio::time::timeout(LIMIT, cache.wait_for(mended))
        .await
        .expect("the cache follows");
    assert_eq!(value_of(&cache.view(), "a").as_deref(), Some("mended"));
}

fn vec_of_binary() -> String {
    "\u{0}\u{1}\t: !!binary".into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_was_cut_off_during_a_compaction_ends_with_the_difference_and_no_gap() {
    let f = Fixture::start().await;
    let (cache, proxy) = f.cache_through_proxy().await;
    f.put(&desired("stays"), config_map("stays", "1")).await;
    f.put(&desired("goes"), config_map("goes", "1")).await;
    let seen = f.put(&desired("changes"), config_map("changes", "1")).await;
    tokio::time::timeout(LIMIT, cache.wait_for(seen))
        .await
        .unwrap();
    let mut subscription = cache.subscribe(|k| matches!(k, StateKey::Desired("configmaps", _)));
    assert!(subscription.next().await.resync);
    // What the subscription began in the middle of is told of before this.
    let barrier = StateKey::Desired("configmaps", key("barrier"));
    f.put(&desired("barrier"), config_map("barrier", "1")).await;
    while !subscription.next().await.keys.contains(&barrier) {}

    // While the cache cannot see it, things change and the history is compacted away.
    proxy.cut();
    f.delete(&desired("goes")).await;
    f.put(&desired("changes"), config_map("changes", "2")).await;
    let last = f.put(&desired("comes"), config_map("comes", "1")).await;
    f.etcd
        .etcdctl(&["compaction", "--physical", &last.to_string()]);
    proxy.restore();

    let state = |view: &setpoint_runtime::View<'_>| format!("{:?}", view.desired::<ConfigMap>());
    eventually(
        &cache,
        |v| value_of(v, "comes").is_some() && value_of(v, "goes").is_none(),
        state,
    )
    .await;
    assert_eq!(value_of(&cache.view(), "changes").as_deref(), Some("2"));
    let changes = subscription.next().await;
    let mut names: Vec<String> = changes
        .keys
        .iter()
        .map(|k| match k {
            StateKey::Desired(_, k) => k.name.to_string(),
            other => panic!("not of interest: {other:?}"),
        })
        .collect();
    names.sort();
    assert!(!changes.resync);
    assert_eq!(
        names,
        ["changes", "comes", "goes"],
        "what stayed is not named"
    );
}

fn pod(name: &str, template: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\n  labels:\n    template: t{template}\nspec:\n  \
         containers:\n  - name: main\n    image: img:{template}\n"
    )
}

/// Pages are decoded on other threads where there are any; what comes out must not tell.
async fn a_listing_of_many_pages() {
    const PODS: usize = 1_000;
    let f = Fixture::start().await;
    let name = |n: usize| format!("pod-{n:04}");
    for first in (0..PODS).step_by(100) {
        let txn = (first..first + 100).fold(Txn::new(), |txn, n| {
            let text = match n {
                500 => "spec: [".to_owned(),
                _ => pod(&name(n), n % 3),
            };
            txn.put(f.keyspace.build(&Key::Desired("pods", key(&name(n)))), text)
        });
        f.store.txn(txn).await.unwrap();
    }
    let options = WatcherOptions {
        page_size: 70,
        ..WatcherOptions::default()
    };
    let (cache, driver) = CacheBuilder::new()
        .kind::<Pod>()
        .options(options)
        .build(f.store.clone(), f.keyspace.clone());
    let mut subscription = cache.subscribe(|_| true);
    tokio::spawn(driver.run());
    let first = tokio::time::timeout(LIMIT, subscription.next())
        .await
        .expect("the cache fills");
    assert!(first.resync && first.keys.is_empty());
    let later = f
        .put(&Key::Desired("pods", key("later")), pod("later", 1))
        .await;
    tokio::time::timeout(LIMIT, cache.wait_for(later))
        .await
        .expect("the cache follows");
    assert_eq!(
        subscription.next().await.keys,
        [StateKey::Desired("pods", key("later"))]
    );

    let view = cache.view();
    let pods = view.desired::<Pod>();
    assert_eq!(pods.len(), PODS + 1);
    let invalid = view.invalid();
    assert_eq!(invalid.len(), 1);
    assert_eq!(invalid[0].1, key(&name(500)));
    for n in (0..PODS).filter(|n| *n != 500) {
        let stored = &pods.get(&key(&name(n))).expect("it is there").value;
        assert_eq!(stored.metadata.name, name(n));
        assert_eq!(stored.metadata.labels["template"], format!("t{}", n % 3));
        assert_eq!(
            stored.spec.containers[0].image,
            format!("img:{}", n % 3),
            "{}",
            name(n)
        );
    }
    let spec = |name: &str| Arc::clone(&pods.get(&key(name)).unwrap().value.spec);
    assert!(
        Arc::ptr_eq(&spec("later"), &spec(&name(997))),
        "what is the same text is the same spec"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_listing_of_many_pages_is_whole_on_many_threads() {
    a_listing_of_many_pages().await;
}

#[tokio::test]
async fn a_listing_of_many_pages_is_whole_on_one_thread() {
    a_listing_of_many_pages().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_goes_on_after_etcd_was_killed_and_restarted() {
    let f = Fixture::start().await;
    let cache = f.cache().await;
    let seen = f.put(&desired("a"), config_map("a", "1")).await;
    tokio::time::timeout(LIMIT, cache.wait_for(seen))
        .await
        .unwrap();
    f.etcd.kill();
    f.etcd.restart().await;
    let state = |view: &setpoint_runtime::View<'_>| format!("revision {}", view.revision());
    f.put(&desired("a"), config_map("a", "2")).await;
    eventually(&cache, |v| value_of(v, "a").as_deref() == Some("2"), state).await;
}
