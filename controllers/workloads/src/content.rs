//! Who reads which ConfigMaps and Secrets, and the copies that revisions are pinned to.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use setpoint_apis::apps::{DaemonSet, Deployment, StatefulSet};
use setpoint_apis::core::{ConfigMap, Secret};
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::cache::Table;
use setpoint_runtime::{Cache, StateKey, View};

use crate::children::{Child, Children};
use crate::config::{ContentCopy, CopyNames, Sources};
use crate::seen::Seen;

/// A copy that is there, or what is there under the name of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySeen {
    /// Whether it is known to be the workload's own.
    pub own: bool,
    /// Whether it is a Secret; otherwise a ConfigMap.
    pub secret: bool,
    /// Its document does not parse: it is left alone.
    pub frozen: bool,
    /// It, as seen.
    pub seen: Seen,
}

impl CopySeen {
    fn own<K: Kind>(secret: bool, key: &ObjectKey, child: &Child<K>) -> Self {
        Self {
            own: true,
            secret,
            frozen: child.invalid.is_some(),
            seen: Seen::of(key, &child.object),
        }
    }
}

/// An object that is read: whether it is a Secret, and its name.
type Content = (bool, ObjectKey);
/// A workload: the word for its kind, and its name.
type Reader = (&'static str, ObjectKey);

/// See the module.
pub struct ContentIndex {
    config_maps: Children<ConfigMap>,
    secrets: Children<Secret>,
    readers: FxHashMap<Content, BTreeSet<Reader>>,
    reads: FxHashMap<Reader, Vec<Content>>,
    names: FxHashMap<Reader, CopyNames>,
}

impl ContentIndex {
    /// An empty index of what `cache` holds.
    pub fn new(cache: &Cache) -> Self {
        // Whose revisions are pinned.
        let owners = [Deployment::KIND, StatefulSet::KIND, DaemonSet::KIND];
        Self {
            config_maps: Children::new(cache, &owners),
            secrets: Children::new(cache, &owners),
            readers: FxHashMap::default(),
            reads: FxHashMap::default(),
            names: FxHashMap::default(),
        }
    }

    /// What the index is made of.
    pub fn concerns(key: &StateKey) -> bool {
        Children::<ConfigMap>::concerns(key) || Children::<Secret>::concerns(key)
    }

    /// Which objects of kind `K` a change concerns: those that read what has changed, or whose copy it is.
    pub fn keys<K: Kind>(&mut self, view: &View<'_>, change: &StateKey) -> Vec<ObjectKey> {
        self.catch_up(view);
        let mut keys = self.config_maps.take_touched::<K>();
        keys.extend(self.secrets.take_touched::<K>());
        if let StateKey::Desired(plural, key) = change
            && Self::concerns(change)
        {
            let content = (*plural == Secret::PLURAL, key.clone());
            let readers = self.readers.get(&content).into_iter().flatten();
            let of_kind = readers.filter(|(kind, _)| *kind == K::KIND);
            keys.extend(of_kind.map(|(_, key)| key.clone()));
        }
        keys
    }

    /// Brings the index level with `view`.
    pub fn catch_up(&mut self, view: &View<'_>) {
        self.config_maps.catch_up(view);
        self.secrets.catch_up(view);
    }

    /// Notes what an object of kind `K` reads, instead of what it read before.
    pub fn note<K: Kind>(&mut self, key: &ObjectKey, sources: &Sources) {
        let named = |secret: bool, name: &str| {
            let name = ObjectKey::namespaced(key.namespace.clone(), name);
            (secret, name)
        };
        let config_maps = sources.config_maps.keys().map(|name| named(false, name));
        let secrets = sources.secrets.keys().map(|name| named(true, name));
        let now: Vec<Content> = config_maps.chain(secrets).collect();
        let reader = (K::KIND, key.clone());
        if self.reads.get(&reader).map_or(&[][..], Vec::as_slice) == now {
            return;
        }
        self.unnote(&reader);
        for content in &now {
            let readers = self.readers.entry(content.clone()).or_default();
            readers.insert(reader.clone());
        }
        self.reads.insert(reader, now);
    }

    /// An object of kind `K` is gone.
    pub fn forget<K: Kind>(&mut self, key: &ObjectKey) {
        let reader = (K::KIND, key.clone());
        self.unnote(&reader);
        self.names.remove(&reader);
    }

    /// The names of copies that were found for an object of kind `K`.
    pub fn names<K: Kind>(&mut self, key: &ObjectKey) -> &mut CopyNames {
        self.names.entry((K::KIND, key.clone())).or_default()
    }

    fn unnote(&mut self, reader: &Reader) {
        for content in self.reads.remove(reader).unwrap_or_default() {
            if let Some(readers) = self.readers.get_mut(&content) {
                readers.remove(reader);
                if readers.is_empty() {
                    self.readers.remove(&content);
                }
            }
        }
    }

    /// The copies that the object of this uid has, and whatever has the name of one that it wants.
    pub fn copies(&self, view: &View<'_>, uid: &str, wanted: &Named<'_>) -> Vec<CopySeen> {
        let config_maps = self.config_maps.of(uid);
        let config_maps = config_maps.map(|(key, child)| CopySeen::own(false, key, child));
        let secrets = self.secrets.of(uid);
        let secrets = secrets.map(|(key, child)| CopySeen::own(true, key, child));
        let mut copies: Vec<CopySeen> = config_maps.chain(secrets).collect();
        for copy in wanted.copies {
            let key = ObjectKey::namespaced(wanted.namespace, copy.name.as_str());
            let there = |c: &CopySeen| c.secret == copy.secret && c.seen.key == key;
            if copies.iter().any(there) {
                continue;
            }
            let found = if copy.secret {
                stored(view.desired::<Secret>(), &key)
            } else {
                stored(view.desired::<ConfigMap>(), &key)
            };
            copies.extend(found.map(|(mod_revision, frozen)| CopySeen {
                own: false,
                secret: copy.secret,
                frozen,
                seen: Seen { key, mod_revision },
            }));
        }
        copies
    }
}

/// Copies that a workload wants.
pub struct Named<'a> {
    /// The workload's namespace.
    pub namespace: &'a str,
    /// What it wants there.
    pub copies: &'a [ContentCopy],
}

/// The revision of whatever is there, and whether it does not parse.
fn stored<K>(table: &Table<K>, key: &ObjectKey) -> Option<(i64, bool)> {
    let entry = table.entry(key)?;
    Some((entry.mod_revision(), entry.invalid().is_some()))
}
