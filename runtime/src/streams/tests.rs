//! Keys and values in, events out.

use futures::executor::block_on;
use setpoint_apis::core::ConfigMap;
use setpoint_store::{Event, WatchBatch};

use super::*;

type Fed = Result<WatcherEvent, StoreError>;

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn kv(name: &str, revision: i64, value: &str) -> KeyValue {
    let keyspace = Keyspace::default();
    KeyValue {
        key: keyspace.build(&Key::Desired(ConfigMap::PLURAL, key(name))),
        value: value.to_owned().into(),
        create_revision: 1,
        mod_revision: revision,
        version: 1,
        lease: None,
    }
}

fn map(name: &str, revision: i64, label: &str) -> KeyValue {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  labels: {{a: {label}}}\n"
    );
    kv(name, revision, &text)
}

fn put(kv: KeyValue) -> Fed {
    let revision = Revision(kv.mod_revision);
    Ok(WatcherEvent::Batch(WatchBatch {
        revision,
        events: vec![Event {
            kind: EventKind::Put,
            kv,
        }],
    }))
}

fn deleted(name: &str, revision: i64) -> Fed {
    let events = vec![Event {
        kind: EventKind::Delete,
        kv: kv(name, revision, ""),
    }];
    Ok(WatcherEvent::Batch(WatchBatch {
        revision: Revision(revision),
        events,
    }))
}

fn listing(kvs: Vec<KeyValue>, revision: i64) -> [Fed; 3] {
    [
        Ok(WatcherEvent::Init),
        Ok(WatcherEvent::InitPage(kvs)),
        Ok(WatcherEvent::InitDone(Revision(revision))),
    ]
}

fn maps(
    events: Vec<Fed>,
) -> impl Stream<Item = Result<KindEvent<ConfigMap>, WatchError>> + Send + 'static {
    let mirror = Mirror::new(
        ConfigMap::PLURAL,
        Keyspace::default(),
        |key| match key {
            Key::Desired(_, key) => Some(key),
            _ => None,
        },
        |key, bytes| document::decode_keyed(key, bytes).map_err(|e| e.to_string()),
    );
    mirrored(stream::iter(events), mirror)
}

fn line<T>(event: &Result<KindEvent<T>, WatchError>) -> String {
    match event {
        Ok(KindEvent::Init) => "init".into(),
        Ok(KindEvent::InitApply(o)) => format!("listed {}@{}", o.key.name, o.mod_revision),
        Ok(KindEvent::InitDone(revision)) => format!("done@{revision}"),
        Ok(KindEvent::Apply(o)) => format!("applied {}@{}", o.key.name, o.mod_revision),
        Ok(KindEvent::Delete { key, last_good }) => format!(
            "deleted {}@{:?}",
            key.name,
            last_good.as_ref().map(|s| s.mod_revision)
        ),
        Ok(KindEvent::Invalid {
            key,
            invalid,
            last_good,
        }) => {
            format!(
                "invalid {}@{} {:?}",
                key.name,
                invalid.mod_revision,
                last_good.as_ref().map(|s| s.mod_revision)
            )
        }
        Err(error) => error.to_string(),
    }
}

fn lines(stream: impl Stream<Item = Result<KindEvent<ConfigMap>, WatchError>>) -> Vec<String> {
    block_on(stream.map(|e| line(&e)).collect())
}

fn names(stream: impl Stream<Item = Result<Object<ConfigMap>, WatchError>>) -> Vec<String> {
    block_on(
        stream
            .map(|o| {
                o.map_or_else(
                    |e| e.to_string(),
                    |o| format!("{}@{}", o.key.name, o.mod_revision),
                )
            })
            .collect(),
    )
}

fn story() -> Vec<Fed> {
    let mut events = Vec::from(listing(
        vec![map("a", 2, "x"), map("b", 3, "x"), kv("odd", 4, "kind: [")],
        4,
    ));
    events.push(put(map("a", 5, "x")));
    events.push(put(kv("b", 6, "not: [yaml")));
    events.push(deleted("a", 7));
    events.push(Err(StoreError::Compacted {
        context: "watch".into(),
        compact_revision: 9,
    }));
    // Meanwhile: b repaired, odd deleted, c created.
    events.extend(listing(vec![map("b", 8, "y"), map("c", 9, "x")], 10));
    events.push(put(map("c", 11, "z")));
    events
}

#[test]
fn a_stream_tells_everything_that_leaves_a_trace_in_order() {
    let expected = [
        "init",
        "listed a@2",
        "listed b@3",
        "invalid odd@4 None",
        "done@4",
        "applied a@5",
        "invalid b@6 Some(3)",
        "deleted a@Some(5)",
        "the watch of configmaps failed and is tried again",
        "init",
        "listed b@8",
        "listed c@9",
        "deleted odd@None",
        "done@10",
        "applied c@11",
    ];
    assert_eq!(lines(maps(story())), expected);
}

#[test]
fn objects_are_flattened_by_what_happened_to_them() {
    let failed = "the watch of configmaps failed and is tried again";
    assert_eq!(
        names(maps(story()).applied_objects()),
        ["a@2", "b@3", "a@5", failed, "b@8", "c@9", "c@11"]
    );
    assert_eq!(names(maps(story()).deleted_objects()), ["a@5", failed]);
    assert_eq!(
        names(maps(story()).touched_objects()),
        [
            "a@2", "b@3", "a@5", "b@3", "a@5", failed, "b@8", "c@9", "c@11"
        ]
    );
    let keys: Vec<_> = block_on(
        maps(story())
            .touched_keys()
            .filter_map(|k| async { k.ok() })
            .collect::<Vec<_>>(),
    );
    assert_eq!(keys.iter().filter(|k| &*k.name == "odd").count(), 2);
}

#[test]
fn versions_that_a_predicate_calls_the_same_are_left_out() {
    let changes = || {
        let mut events = Vec::from(listing(vec![map("a", 2, "x")], 2));
        events.extend([
            put(map("a", 3, "x")),
            put(map("a", 4, "y")),
            deleted("a", 5),
            put(map("a", 6, "y")),
        ]);
        events
    };
    let by_labels = maps(changes())
        .predicate_filter(predicates::labels)
        .applied_objects();
    assert_eq!(names(by_labels), ["a@2", "a@4", "a@6"]);
    let by_content = maps(changes())
        .predicate_filter(predicates::content)
        .applied_objects();
    assert_eq!(names(by_content), ["a@2", "a@4", "a@6"]);
    let by_revision = maps(changes())
        .predicate_filter(predicates::revision)
        .applied_objects();
    assert_eq!(names(by_revision), ["a@2", "a@3", "a@4", "a@6"]);
}

#[test]
fn a_listing_is_swapped_in_when_it_is_complete() {
    let mut events = Vec::from(listing(vec![map("a", 2, "x"), map("b", 3, "x")], 3));
    events.extend(listing(vec![map("b", 3, "x"), map("c", 5, "x")], 5));
    let (reader, stream) = maps(events).reflect();
    let seen: Vec<String> = block_on(
        stream
            .map(|event| {
                let names: Vec<_> = reader
                    .state()
                    .iter()
                    .map(|o| o.key.name.to_string())
                    .collect();
                format!("{}: {}", line(&event), names.join(" "))
            })
            .collect(),
    );
    let expected = [
        "init: ",
        "listed a@2: ",
        "listed b@3: ",
        "done@3: a b",
        "init: a b",
        "listed b@3: a b",
        "listed c@5: a b",
        "deleted a@Some(2): a b",
        "done@5: b c",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_reader_freezes_what_cannot_be_read() {
    let mut events = Vec::from(listing(vec![map("a", 2, "x")], 2));
    events.push(put(kv("a", 3, "][")));
    let (reader, stream) = maps(events).reflect();
    block_on(stream.for_each(|_| async {}));
    assert!(reader.get(&key("a")).is_none() && reader.contains(&key("a")));
    assert_eq!(reader.last_good(&key("a")).unwrap().mod_revision, 2);
    assert_eq!(
        (reader.len(), reader.invalid().len(), reader.state().len()),
        (1, 1, 0)
    );
    assert!(reader.find(|_| true).is_none());
}

#[tokio::test]
async fn a_reader_says_when_it_may_be_trusted() {
    let (reader, stream) = maps(Vec::from(listing(vec![], 2))).reflect();
    assert!(futures::FutureExt::now_or_never(reader.ready()).is_none());
    stream.for_each(|_| async {}).await;
    assert_eq!(reader.ready().await, Ok(()));
    let (reader, stream) = maps(vec![Ok(WatcherEvent::Init)]).reflect();
    drop(stream);
    assert_eq!(reader.ready().await, Err(StreamDropped));
}

#[test]
fn what_a_listing_repeats_is_not_decoded_again() {
    let mut events = Vec::from(listing(vec![map("a", 2, "x")], 2));
    events.extend(listing(vec![map("a", 2, "x")], 9));
    let objects: Vec<_> = block_on(maps(events).applied_objects().collect::<Vec<_>>());
    let [Ok(first), Ok(second)] = objects.as_slice() else {
        panic!("{}", objects.len())
    };
    assert!(Arc::ptr_eq(&first.stored, &second.stored));
}
