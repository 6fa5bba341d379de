//! What happens in a scenario, done and undone.

use setpoint_apis::core::Node;
use setpoint_apis::registry::Registry;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_store::list::{List, list_all};
use setpoint_store::{Compare, KeyValue, Revision, Store, Txn};
use tokio::time::sleep;

use super::{Broken, Run, weather};
use crate::scenario::{self, Event};

impl Run<'_> {
    pub(super) async fn begin(&mut self, event: &Event) -> Result<(), String> {
        if let Some(network) = &event.network {
            self.note("the network changes");
            self.world.network.set_weather(weather(network));
        }
        for (names, what) in [
            (&event.cut, "is cut off"),
            (&event.crash, "crashes"),
            (&event.power_off, "loses power"),
            (&event.freeze, "freezes"),
            (&event.restart, "is asked to stop"),
        ] {
            for name in names {
                self.note(format!("{name} {what}"));
            }
        }
        event.cut.iter().for_each(|name| self.world.cut(name, true));
        event.crash.iter().for_each(|name| self.world.crash(name));
        for name in &event.power_off {
            self.world.power_off(name);
        }
        for name in &event.freeze {
            self.world.freeze(name, true);
        }
        for name in &event.restart {
            let pause = self.world.stop(name);
            if event.lasts.is_none() {
                sleep(pause).await;
                self.world.start(name);
            }
        }
        if event.compact {
            self.compact();
        }
        for path in &event.corrupt {
            self.corrupt(path).await?;
        }
        if !event.apply.is_empty() {
            self.apply(&event.apply).await?;
        }
        for (name, replicas) in &event.scale {
            self.scale(name, *replicas).await?;
        }
        for path in &event.delete {
            if let Some(namespace) = path.strip_prefix("namespaces/") {
                self.delete_namespace(namespace).await?;
            } else if let Some(key) = self.choose(path).await? {
                self.note(format!("{} is deleted", self.told(path, &key)));
                self.write(Txn::new().delete(key)).await?;
            }
        }
        for name in &event.cordon {
            self.cordon(name, true).await?;
        }
        for _ in 0..event.moves {
            self.ask_to_move().await?;
        }
        if event.evict > 0 {
            self.ask_to_evict(event.evict).await?;
        }
        Ok(())
    }

    /// Undoes what can be undone.
    pub(super) async fn end(&mut self, event: &Event) -> Result<(), String> {
        if event.network.is_some() {
            self.note("the network is as before");
            let weather = weather(&self.scenario.spec.network);
            self.world.network.set_weather(weather);
        }
        for name in &event.cut {
            self.note(format!("{name} is connected again"));
            self.world.cut(name, false);
        }
        for name in event
            .crash
            .iter()
            .chain(&event.power_off)
            .chain(&event.restart)
        {
            self.note(format!("{name} starts"));
            self.world.start(name);
        }
        for name in &event.freeze {
            self.note(format!("{name} goes on"));
            self.world.freeze(name, false);
        }
        for name in &event.cordon {
            self.cordon(name, false).await?;
        }
        for path in &event.corrupt {
            let Some(broken) = self.corrupted.remove(path) else {
                continue;
            };
            let told = self.told(path, &broken.key);
            let guard = Compare::ModRevision(broken.key.clone(), broken.revision);
            let txn = Txn::new().when(guard).put(broken.key, broken.value);
            let mended = self.world.user(txn).await.map_err(|e| e.to_string())?;
            self.note(match mended {
                true => format!("{told} is mended"),
                false => format!("{told} has been mended already, or is gone"),
            });
        }
        Ok(())
    }

    fn compact(&mut self) {
        self.note("the store is compacted");
        self.world.ledger.catch_up(None);
        let revision = self.world.store.with(|model| model.revision());
        // Compacted already: nothing to do.
        let _ = self.world.store.compact(Revision(revision));
    }

    async fn corrupt(&mut self, path: &str) -> Result<(), String> {
        // What is broken already is mended with what it was before.
        if self.corrupted.contains_key(path) {
            return Ok(());
        }
        let Some(key) = self.choose(path).await? else {
            return Ok(());
        };
        let (Some(present), _) = self.read(&key).await? else {
            return Ok(());
        };
        let told = self.told(path, &key);
        self.note(format!("{told} is overwritten with what does not parse"));
        let text = "spec: {replicas: [\n";
        self.write(Txn::new().put(key.clone(), text)).await?;
        if let (Some(now), _) = self.read(&key).await? {
            let broken = Broken {
                key,
                value: present.value,
                revision: now.mod_revision,
            };
            self.corrupted.insert(path.to_owned(), broken);
        }
        Ok(())
    }

    /// Keeps pods away from a node, or lets them come again, as `setpoint cordon` does.
    async fn cordon(&mut self, name: &str, cordoned: bool) -> Result<(), String> {
        let verb = if cordoned { "cordoned" } else { "uncordoned" };
        let object = ObjectKey::cluster(name);
        let key = self
            .world
            .keyspace
            .build(&Key::Desired(Node::PLURAL, object));
        let node = match self.read(&key).await? {
            (Some(node), _) => node,
            (None, _) => {
                self.note(format!("there is no node {name} to be {verb}"));
                return Ok(());
            }
        };
        let Ok(mut value) = document::decode_value::<serde_json::Value>(&node.value) else {
            self.note(format!("node {name} cannot be read, and is not {verb}"));
            return Ok(());
        };
        value["spec"]["unschedulable"] = cordoned.into();
        self.note(format!("{name} is {verb}"));
        let guard = Compare::ModRevision(key.clone(), node.mod_revision);
        self.write(Txn::new().when(guard).put(key, document::encode(&value)))
            .await
    }

    pub(super) async fn read(&self, key: &str) -> Result<(Option<KeyValue>, Revision), String> {
        self.world.store.get(key).await.map_err(|e| e.to_string())
    }

    async fn apply(&mut self, documents: &[serde_json::Value]) -> Result<(), String> {
        for document in documents {
            let text = |path: &str| document.pointer(path).and_then(serde_json::Value::as_str);
            let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else {
                return Err("a document has no kind or no metadata.name".to_owned());
            };
            let info = Registry::builtin()
                .by_kind(kind)
                .ok_or_else(|| format!("there is no kind {kind:?}"))?;
            let object = match info.namespaced {
                true => {
                    ObjectKey::namespaced(text("/metadata/namespace").unwrap_or("default"), name)
                }
                false => ObjectKey::cluster(name),
            };
            let wrong =
                (info.check)(document.clone()).map_err(|e| format!("{kind} {name}: {e}"))?;
            if let Some(wrong) = wrong.first() {
                return Err(format!("{kind} {name}: {wrong}"));
            }
            let told = format!("{} {object}", info.singular());
            let guard = self.has_namespace(&object);
            let key = self
                .world
                .keyspace
                .build(&Key::Desired(info.plural, object));
            let mut txn = Txn::new().put(key, document::encode(document));
            txn.compares.extend(guard);
            let done = self.world.user(txn).await.map_err(|e| e.to_string())?;
            self.note(match done {
                true => format!("{told} is applied"),
                false => format!("{told} is refused: there is no such namespace"),
            });
        }
        Ok(())
    }

    /// Changes a Deployment's replicas, as `setpoint scale` does.
    async fn scale(&mut self, name: &str, replicas: u32) -> Result<(), String> {
        let path = format!("deployments/{name}");
        let key = self.desired_key(&path)?;
        let (present, _) = self.read(&key).await?;
        let present = present.ok_or_else(|| format!("there is no deployment {name}"))?;
        // As for a user: what cannot be read cannot be scaled, and nothing is lost by it.
        let Ok(mut value) = document::decode_value::<serde_json::Value>(&present.value) else {
            self.note(format!(
                "{path} cannot be read, and is not scaled to {replicas}"
            ));
            return Ok(());
        };
        value["spec"]["replicas"] = replicas.into();
        self.note(format!("{path} is scaled to {replicas}"));
        let guard = Compare::ModRevision(key.clone(), present.mod_revision);
        self.write(Txn::new().when(guard).put(key, document::encode(&value)))
            .await
    }

    pub(super) async fn write(&self, txn: Txn) -> Result<(), String> {
        self.world
            .user(txn)
            .await
            .map(|_| ())
            .map_err(|e| e.to_string())
    }

    /// The key that a path of `delete` or `corrupt` means; `None` when it leaves the choice, and there is none.
    async fn choose(&mut self, path: &str) -> Result<Option<String>, String> {
        if !path.starts_with('/') {
            return self.desired_key(path).map(Some);
        }
        let Some(prefix) = path.strip_suffix('*').filter(|p| p.ends_with('/')) else {
            return Ok(Some(path.to_owned()));
        };
        // What follows a slash in the order of bytes.
        let end = format!("{}0", &prefix[..prefix.len() - 1]);
        let (mut found, _) = list_all(&self.world.store, List::new(prefix.to_owned(), end))
            .await
            .map_err(|e| e.to_string())?;
        if found.is_empty() {
            return Ok(None);
        }
        let chosen = self.rng.usize(..found.len());
        Ok(Some(found.swap_remove(chosen).key.to_string()))
    }

    /// What the timeline calls a key.
    fn told(&self, path: &str, key: &str) -> String {
        match path.starts_with('/') {
            true => key.to_owned(),
            false => path.to_owned(),
        }
    }

    fn desired_key(&self, path: &str) -> Result<String, String> {
        let (plural, object) = scenario::object(path)
            .ok_or_else(|| format!("{path:?} is not plural/namespace/name"))?;
        Ok(self.world.keyspace.build(&Key::Desired(plural, object)))
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.timeline
            .push((self.world.ledger.millis(), what.into()));
    }
}
