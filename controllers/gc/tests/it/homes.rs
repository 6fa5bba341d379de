//! Objects whose namespace is not there, under a clock that goes two hundred times as fast as the time that tests take.

use std::time::Duration;

use setpoint_apis::core::{ConfigMap, Namespace};
use setpoint_apis::{Key, Kind, ObjectKey, Timestamp};
use setpoint_runtime::Clock;
use setpoint_store::{Compare, Txn};

use crate::rig::{Process, Rig};
use crate::{rig, swept};

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";

fn fast() -> Clock {
    Clock::drifting(Timestamp::from_unix_seconds(1_000_000), 199_000_000)
}

async fn collector(rig: &Rig, clock: &Clock) -> Process {
    let clock = clock.clone();
    rig.process("gc", move |leader, _, recorder| {
        setpoint_gc::run(leader, clock.clone(), recorder)
    })
    .await
}

/// Lets time pass; the rig's cache takes some of it to hear of each write.
async fn pass(rig: &Rig, clock: &Clock, seconds: u64) {
    let until = clock.now().saturating_add(Duration::from_secs(seconds));
    while clock.now() < until {
        rig.level().await;
    }
}

fn object(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::namespaced(namespace, name)
}

async fn put(rig: &Rig, key: &ObjectKey) {
    let text = MAP.replace("name: c", &format!("name: {}", key.name));
    rig.put_desired::<ConfigMap>(key, &text).await;
}

fn is_there(rig: &Rig, key: &ObjectKey) -> bool {
    rig.cache.view().desired::<ConfigMap>().contains(key)
}

/// Has the collector look at an object again, until it is gone.
async fn goes(rig: &Rig, key: &ObjectKey) {
    let document = rig
        .keyspace
        .build(&Key::Desired(ConfigMap::PLURAL, key.clone()));
    while is_there(rig, key) {
        // Only while it is there: otherwise it would be another object, which has time again.
        let again = Txn::new().when(Compare::Exists(document.clone())).put(
            document.clone(),
            MAP.replace("name: c", &format!("name: {}", key.name)),
        );
        rig.store.txn(again).await.unwrap();
        rig.level().await;
    }
}

/// What objects have whose namespace is not there. Three seconds of those who run this.
const TIME: Duration = Duration::from_secs(600);

/// An object that is put now is there when the collector has looked at it. A look that took longer than objects have proves
/// nothing, and another object is looked at. Returns the one that stayed.
async fn stays(rig: &Rig, clock: &Clock, namespace: &str, name: &str) -> ObjectKey {
    for n in 0..20 {
        let key = object(namespace, &format!("{name}-{n}"));
        let begun = clock.now();
        put(rig, &key).await;
        swept(rig).await;
        rig.level().await;
        if is_there(rig, &key) {
            return key;
        }
        let took = clock.now().duration_since(begun);
        assert!(took >= TIME, "{key} is gone after {took:?}");
    }
    panic!("no look was quick enough");
}

#[tokio::test]
async fn each_object_has_ten_minutes_though_others_in_that_namespace_had_theirs_long_ago() {
    let (rig, clock) = (rig("ghost").await, fast());
    let _collector = collector(&rig, &clock).await;
    let first = object("ghost", "first");
    put(&rig, &first).await;
    swept(&rig).await;
    goes(&rig, &first).await;
    let second = stays(&rig, &clock, "ghost", "second").await;
    let document = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ghost}\n";
    rig.put_desired::<Namespace>(&ObjectKey::cluster("ghost"), document)
        .await;
    pass(&rig, &clock, 700).await;
    put(&rig, &second).await;
    swept(&rig).await;
    rig.level().await;
    assert!(is_there(&rig, &second));
}

#[tokio::test]
async fn what_is_restored_long_after_its_namespace_was_deleted_waits_for_it() {
    let (rig, clock) = (rig("restored").await, fast());
    let _collector = collector(&rig, &clock).await;
    let home = ObjectKey::cluster("shop");
    let document = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    rig.put_desired::<Namespace>(&home, document).await;
    let left = object("shop", "left");
    put(&rig, &left).await;
    swept(&rig).await;
    let place = rig
        .keyspace
        .build(&Key::Desired(Namespace::PLURAL, home.clone()));
    rig.store.txn(Txn::new().delete(place)).await.unwrap();
    rig.until("what it left behind is gone", |view| {
        (!view.desired::<ConfigMap>().contains(&left)).then_some(())
    })
    .await;
    pass(&rig, &clock, 120).await;
    stays(&rig, &clock, "shop", "restored").await;
}
