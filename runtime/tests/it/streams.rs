//! Streams against a real etcd: the same guarantees as the cache, for one kind.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use setpoint_apis::Key;
use setpoint_apis::core::ConfigMap;
use setpoint_runtime::streams::{
    KindEvent, KindStreamExt, WatchError, WatchOptions, predicates, watch_kind,
};
use setpoint_store::etcd::{ConnectOptions, EtcdStore};

use crate::proxy::Proxy;
use crate::support::{Fixture, LIMIT, config_map, key};

fn desired(name: &str) -> Key<'static> {
    Key::Desired("configmaps", key(name))
}

/// Takes events until one ends it.
async fn until(
    stream: &mut (impl Stream<Item = Result<KindEvent<ConfigMap>, WatchError>> + Unpin),
    mut ends: impl FnMut(&KindEvent<ConfigMap>) -> bool,
) -> Vec<KindEvent<ConfigMap>> {
    let mut taken = Vec::new();
    let waited = tokio::time::timeout(LIMIT, async {
        loop {
            // Errors are told of in between; the stream goes on.
            let Ok(event) = stream.next().await.expect("a stream never ends") else {
                continue;
            };
            let last = ends(&event);
            taken.push(event);
            if last {
                return;
            }
        }
    });
    let in_time = waited.await.is_ok();
    assert!(in_time, "only {taken:?}");
    taken
}

fn applied(event: &KindEvent<ConfigMap>, name: &str) -> bool {
    matches!(event, KindEvent::Apply(o) | KindEvent::InitApply(o) if *o.key.name == *name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lists_follows_and_mirrors() {
    let f = Fixture::start().await;
    f.put(&desired("a"), config_map("a", "1")).await;
    f.put(&desired("odd"), "{{{").await;
    let other = Key::Desired(
        "configmaps",
        setpoint_apis::ObjectKey::namespaced("other", "x"),
    );
    f.put(&other, "apiVersion: v1\nkind: ConfigMap\n").await;
    let options = WatchOptions {
        namespace: Some("default".into()),
        ..WatchOptions::default()
    };
    let (reader, stream) =
        watch_kind::<ConfigMap>(f.store.clone(), f.keyspace.clone(), options).reflect();
    let mut stream = stream.boxed();
    assert!(reader.is_empty());
    let listed = until(&mut stream, |e| matches!(e, KindEvent::InitDone(_))).await;
    assert_eq!(listed.len(), 4, "init, a, odd, done: {listed:?}");
    reader.ready().await.unwrap();
    assert_eq!((reader.len(), reader.state().len()), (2, 1));

    f.put(&desired("b"), config_map("b", "1")).await;
    f.delete(&desired("a")).await;
    let deleted = |e: &KindEvent<ConfigMap>| matches!(e, KindEvent::Delete { last_good: Some(s), .. } if s.value.data["value"] == "1");
    until(&mut stream, deleted).await;
    assert!(!reader.contains(&key("a")) && reader.get(&key("b")).is_some());
    assert!(
        reader
            .find(|o| o.value.data.contains_key("value"))
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_behind_a_compaction_is_told_of() {
    let f = Fixture::start().await;
    let proxy = Proxy::start(&f.etcd.endpoint()).await;
    let options = ConnectOptions {
        endpoints: vec![proxy.endpoint.clone()],
        ..ConnectOptions::default()
    };
    let store = Arc::new(EtcdStore::connect(&options).await.unwrap());
    f.put(&desired("goes"), config_map("goes", "1")).await;
    f.put(&desired("stays"), config_map("stays", "1")).await;
    let stream = watch_kind::<ConfigMap>(store, f.keyspace.clone(), WatchOptions::default());
    let mut stream = stream.boxed();
    until(&mut stream, |e| matches!(e, KindEvent::InitDone(_))).await;
    // The watch has to be open before it can be cut.
    f.put(&desired("mark"), config_map("mark", "1")).await;
    until(&mut stream, |e| applied(e, "mark")).await;

    proxy.cut();
    f.delete(&desired("goes")).await;
    let last = f.put(&desired("comes"), config_map("comes", "1")).await;
    f.etcd
        .etcdctl(&["compaction", "--physical", &last.to_string()]);
    proxy.restore();
    let events = until(&mut stream, |e| matches!(e, KindEvent::InitDone(_))).await;
    let deleted: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            KindEvent::Delete { key, last_good } => Some((&*key.name, last_good.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, [("goes", true)]);
    assert!(events.iter().any(|e| applied(e, "comes")));
}

#[tokio::test(flavor = "multi_thread")]
async fn combinators_of_futures_work_on_them() {
    let f = Fixture::start().await;
    f.put(&desired("a"), config_map("a", "1")).await;
    let stream =
        watch_kind::<ConfigMap>(f.store.clone(), f.keyspace.clone(), WatchOptions::default());
    let mut values = stream
        .predicate_filter(predicates::content)
        .applied_objects()
        .filter_map(|object| async { object.ok() })
        .map(|object| {
            (
                object.key.name.to_string(),
                object.value.data["value"].clone(),
            )
        })
        .boxed();
    // The listing is over before anything changes.
    assert_eq!(
        values.next().await.unwrap(),
        ("a".to_owned(), "1".to_owned())
    );
    for (name, value) in [("a", "1"), ("a", "2"), ("a", "2"), ("b", "1")] {
        f.put(&desired(name), config_map(name, value)).await;
    }
    let rest = tokio::time::timeout(LIMIT, values.take(2).collect::<Vec<_>>())
        .await
        .expect("both come");
    assert_eq!(
        rest,
        [
            ("a".to_owned(), "2".to_owned()),
            ("b".to_owned(), "1".to_owned())
        ]
    );
}
