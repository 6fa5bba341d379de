//! The index over caches of a real etcd.

use std::collections::BTreeMap;

use setpoint_apis::core::{ConfigMap, Pod, Secret};
use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, Keyspace, document};
use setpoint_runtime::{Cache, CacheBuilder};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{SharedStore, Txn};

use super::*;

struct World {
    kinds: Kinds,
    store: SharedStore,
    keyspace: Keyspace,
    cache: Cache,
    driver: tokio::task::JoinHandle<()>,
    index: Index,
    items: BTreeSet<Item>,
    /// What has changed and the index does not know yet.
    changes: Vec<StateKey>,
    _etcd: Arc<TestEtcd>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl World {
    async fn new(name: &str) -> Self {
        let etcd = TestEtcd::shared().await;
        let store = etcd.store().await;
        let keyspace = Keyspace::new(&etcd.prefix(name)).unwrap();
        let kinds = Kinds::builtin();
        let builder = kinds.register(CacheBuilder::new());
        let (cache, driver) = builder.build(store.clone(), keyspace.clone());
        let driver = tokio::spawn(driver.run());
        cache.ready().await;
        let mut world = Self {
            kinds,
            store,
            keyspace,
            cache,
            driver,
            index: Index::default(),
            items: BTreeSet::new(),
            changes: Vec::new(),
            _etcd: etcd,
        };
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n";
        let home = ObjectId::new(Namespace::PLURAL, ObjectKey::cluster("default"));
        world.write(&home, Some(namespace)).await;
        world.learn();
        world
    }

    /// Writes or deletes a document.
    async fn write(&mut self, id: &ObjectId, text: Option<&str>) {
        let key = Key::Desired(id.plural, id.key.clone());
        self.txn(&key, text).await;
        self.changes
            .push(StateKey::Desired(id.plural, id.key.clone()));
    }

    /// Writes or deletes a deletion record.
    async fn record(&mut self, id: &ObjectId, uid: Option<&str>) {
        let record = uid.map(|uid| {
            document::encode(&Deletion {
                propagation_policy: Deletion::FOREGROUND.into(),
                uid: uid.into(),
            })
        });
        let key = Key::Deletion(id.plural, id.key.clone());
        self.txn(&key, record.as_deref()).await;
        self.changes
            .push(StateKey::Deletion(Arc::from(id.plural), id.key.clone()));
    }

    async fn txn(&self, key: &Key<'_>, text: Option<&str>) {
        let key = self.keyspace.build(key);
        // What is deleted is written before: a transaction that deletes nothing makes no revision to wait for.
        let value = text.unwrap_or("x: 1\n").to_owned();
        let txn = Txn::new().put(key.clone(), value);
        let mut revision = self.store.txn(txn).await.unwrap().revision;
        if text.is_none() {
            let txn = Txn::new().delete(key);
            revision = self.store.txn(txn).await.unwrap().revision;
        }
        self.cache.wait_for(revision).await;
    }

    /// Has the index take in what has changed, and returns what it names.
    fn learn(&mut self) -> BTreeSet<Item> {
        let view = self.cache.view();
        let scene = Scene {
            kinds: &self.kinds,
            view: &view,
            now: Timestamp::EPOCH,
        };
        for change in self.changes.drain(..) {
            self.index.change(&scene, &change, &mut self.items);
        }
        std::mem::take(&mut self.items)
    }

    fn learn_all(&mut self) -> BTreeSet<Item> {
        self.changes.clear();
        let view = self.cache.view();
        let scene = Scene {
            kinds: &self.kinds,
            view: &view,
            now: Timestamp::EPOCH,
        };
        self.index.all(&scene, &mut self.items);
        std::mem::take(&mut self.items)
    }

    /// All objects, as the cache has them.
    fn objects(&self) -> BTreeMap<ObjectId, Object> {
        let view = self.cache.view();
        let of = |kind: &KindEntry| {
            let keys = kind.keys(&view).into_iter();
            let objects = keys.map(|key| {
                let object = kind.object(&view, &key).unwrap();
                (ObjectId::new(kind.plural, key), object)
            });
            objects.collect::<Vec<_>>()
        };
        self.kinds.iter().flat_map(of).collect()
    }

    fn uid(&self, id: &ObjectId) -> String {
        self.objects()[id].uid.clone().unwrap()
    }
}

fn id<K: Kind>(name: &str) -> ObjectId {
    ObjectId::new(K::PLURAL, ObjectKey::namespaced("default", name))
}

fn map(name: &str) -> ObjectId {
    id::<ConfigMap>(name)
}

fn text(id: &ObjectId, uid: Option<&str>, owners: &[String]) -> String {
    let kind = if id.plural == Secret::PLURAL {
        Secret::KIND
    } else {
        ConfigMap::KIND
    };
    let uid = uid.map(|uid| format!("uid: {uid}, ")).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: {kind}\nmetadata: {{name: {}, {uid}ownerReferences: [{}]}}\n",
        id.key.name,
        owners.join(", ")
    )
}

fn owner(name: &str, uid: &str, blocks: bool) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, name: {name}, uid: {uid}, blockOwnerDeletion: {blocks}}}"
    )
}

#[tokio::test]
async fn what_is_gone_at_a_second_look_at_everything_depends_on_nobody() {
    let mut world = World::new("second-look").await;
    world
        .write(&map("set"), Some(&text(&map("set"), None, &[])))
        .await;
    let set = world.uid(&map("set"));
    let pod = id::<Pod>("pod");
    let document = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod, ownerReferences: [{}]}}\nspec: {{containers: [{{name: c, \
         image: host}}]}}\n",
        owner("set", &set, true)
    );
    world.write(&pod, Some(&document)).await;
    world.learn_all();
    assert_eq!(world.index.dependents(&set).collect::<Vec<_>>(), [&pod]);
    world.write(&pod, None).await;
    let items = world.learn_all();
    assert_eq!(world.index.count(&set), 0);
    assert!(items.contains(&Item::Status(pod)), "{items:?}");
}

#[tokio::test]
async fn who_has_no_owners_and_owns_nothing_takes_no_room() {
    let mut world = World::new("no-room").await;
    let (top, low) = (map("top"), map("low"));
    world.write(&top, Some(&text(&top, None, &[]))).await;
    world.learn();
    assert_eq!(world.index.rows.iter().count(), 0);
    let owners = [owner("top", &world.uid(&top), true)];
    world.write(&low, Some(&text(&low, None, &owners))).await;
    world.learn();
    assert_eq!(world.index.rows.iter().count(), 2);
    world.write(&low, None).await;
    world.write(&top, Some(&text(&top, None, &[]))).await;
    world.learn();
    let index = &world.index;
    assert_eq!(index.rows.iter().count() + index.owners.iter().count(), 0);
    assert!(index.dependents.is_empty());
}

/// What a cluster of 2,000 Deployments is counted by: there is a row for each of 14,000 objects.
#[test]
fn a_row_is_small() {
    assert!(size_of::<Option<Row>>() <= 80);
    assert!(size_of::<Option<Owner>>() <= 24);
}

#[tokio::test]
async fn an_owner_that_has_never_parsed_is_who_it_is_named_as_until_it_does_or_goes() {
    for goes in [true, false] {
        let mut world = World::new("never-parsed").await;
        let (top, low) = (map("top"), map("low"));
        world.write(&top, Some("data: [")).await;
        let owners = [owner("top", "u1", true)];
        world.write(&low, Some(&text(&low, None, &owners))).await;
        world.learn_all();
        world.write(&top, Some("data: {")).await;
        assert!(!world.learn().contains(&Item::Object(low.clone())));
        let other = text(&top, Some("u2"), &[]);
        let document = Some(other.as_str()).filter(|_| !goes);
        world.write(&top, document).await;
        assert!(world.learn().contains(&Item::Object(low)));
    }
}

#[tokio::test]
async fn a_dependent_that_goes_names_the_record_that_waits_for_it_and_no_other() {
    let mut world = World::new("records").await;
    let (a, b) = (map("a"), map("b"));
    for top in [&a, &b] {
        world.write(top, Some(&text(top, None, &[]))).await;
        let uid = world.uid(top);
        world.record(top, Some(&uid)).await;
        let low = map(&format!("of-{}", top.key.name));
        let owners = [owner(&top.key.name, &uid, true)];
        world.write(&low, Some(&text(&low, None, &owners))).await;
    }
    // Either way of learning of the records.
    world.learn();
    let record = |id: &ObjectId| Item::Record(id.clone());
    world.write(&map("of-a"), None).await;
    let items = world.learn();
    assert!(items.contains(&record(&a)) && !items.contains(&record(&b)));
    world.learn_all();
    world.write(&map("of-b"), None).await;
    let items = world.learn();
    assert!(items.contains(&record(&b)) && !items.contains(&record(&a)));
}

#[tokio::test]
async fn what_a_record_was_about_is_looked_at_when_it_goes_after_its_object() {
    let mut world = World::new("withdrawn").await;
    let (top, low) = (map("top"), map("low"));
    world.write(&top, Some(&text(&top, None, &[]))).await;
    let uid = world.uid(&top);
    world.record(&top, Some(&uid)).await;
    let owners = [owner("top", &uid, true)];
    world.write(&low, Some(&text(&low, None, &owners))).await;
    world.write(&top, None).await;
    world.learn();
    world.record(&top, None).await;
    assert!(world.learn().contains(&Item::Object(low)));
}

/// Whatever happens, the index says of every uid who depends on it, and names all who depend on what is not there any more.
#[tokio::test]
async fn the_index_is_what_the_view_says_whatever_happens() {
    let mut world = World::new("random").await;
    let mut rng = fastrand::Rng::with_seed(7);
    let names = ["c0", "c1", "c2", "c3"];
    let ids: Vec<ObjectId> = names
        .iter()
        .flat_map(|name| [map(name), id::<Secret>(name)])
        .collect();
    for round in 0..150 {
        let before = world.objects();
        for _ in 0..rng.usize(1..4) {
            let id = ids[rng.usize(..ids.len())].clone();
            // Some have a uid that others have, too, and some name an owner that is not who they think.
            let uid = |rng: &mut fastrand::Rng| format!("u{}", rng.u32(..5));
            match rng.u32(..8) {
                0 => world.write(&id, None).await,
                1 => world.write(&id, Some("data: [")).await,
                2 => {
                    let uid = Some(uid(&mut rng)).filter(|_| rng.bool());
                    world.record(&id, uid.as_deref()).await;
                }
                _ => {
                    let owners: Vec<String> = (0..rng.usize(..4))
                        .map(|_| owner(names[rng.usize(..4)], &uid(&mut rng), rng.bool()))
                        .collect();
                    let uid = Some(uid(&mut rng)).filter(|_| rng.bool());
                    let text = text(&id, uid.as_deref(), &owners);
                    world.write(&id, Some(&text)).await;
                }
            }
        }
        let items = match rng.u32(..10) {
            0 => world.learn_all(),
            _ => world.learn(),
        };
        let after = world.objects();
        for n in 0..5 {
            let uid = format!("u{n}");
            let names = |o: &Object| o.owners.iter().any(|r| r.uid == uid);
            let blocks = |o: &Object| {
                let blocks = |r: &OwnerReference| r.block_owner_deletion == Some(true);
                o.owners.iter().any(|r| r.uid == uid && blocks(r))
            };
            let named: Vec<&ObjectId> = after
                .iter()
                .filter(|(_, o)| names(o))
                .map(|(k, _)| k)
                .collect();
            let mut found: Vec<&ObjectId> = world.index.dependents(&uid).collect();
            found.sort();
            assert_eq!(found, named, "round {round}, {uid}");
            assert_eq!(world.index.count(&uid), named.len());
            let blocking = after.values().filter(|o| blocks(o)).count();
            assert_eq!(world.index.blocking(&uid), blocking, "round {round}, {uid}");
        }
        for (gone, object) in &before {
            let Some(uid) = object.uid.as_deref() else {
                continue;
            };
            if after.get(gone).and_then(|o| o.uid.as_deref()) == Some(uid) {
                continue;
            }
            for (id, object) in &after {
                let kind = world.kinds.by_plural(id.plural).unwrap();
                let means = |r: &OwnerReference| {
                    let owner = world.kinds.owner(kind, &id.key, r);
                    r.uid == uid && owner.is_some_and(|(_, owner)| owner == *gone)
                };
                if object.owners.iter().any(means) {
                    let item = Item::Object(id.clone());
                    assert!(
                        items.contains(&item),
                        "round {round}: {gone} {uid}, {item:?}"
                    );
                }
            }
        }
    }
}
