//! Whether anything is left of namespaces that have gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::core::Namespace;
use setpoint_apis::registry::Registry;
use setpoint_apis::{Key, Kind, ObjectKey};

#[derive(Default)]
pub(super) struct Namespaces {
    there: BTreeSet<Arc<str>>,
    /// The namespaces that anything names, with a key that does.
    used: BTreeMap<Arc<str>, String>,
}

/// The object that a key is about, where that may be in a namespace.
fn object<'a>(key: &'a Key<'_>) -> Option<&'a ObjectKey> {
    match key {
        // Elections are told of in `actual` as well, and are in no namespace.
        Key::Actual(plural, _) if Registry::builtin().by_plural(plural).is_none() => None,
        Key::Desired(_, object)
        | Key::Actual(_, object)
        | Key::Deletion(_, object)
        | Key::NodePod(_, object)
        | Key::Binding(object)
        | Key::WorkPod(_, object)
        | Key::WorkStop(_, object)
        | Key::WorkContent(_, _, object)
        | Key::Intent { pod: object, .. } => Some(object),
        _ => None,
    }
}

impl Namespaces {
    /// Takes note of a key; `text` is how it is written.
    pub(super) fn take(&mut self, key: &Key<'_>, text: &str) {
        if let Key::Desired(Namespace::PLURAL, object) = key {
            self.there.insert(object.name.clone());
        }
        let object = object(key).filter(|o| !o.namespace.is_empty());
        if let Some(namespace) = object.map(|o| &o.namespace)
            && !self.used.contains_key(namespace)
        {
            self.used.insert(namespace.clone(), text.to_owned());
        }
    }

    /// What is there, and should be gone with its namespace.
    pub(super) fn unmet(&self) -> impl Iterator<Item = String> {
        let left = self.used.iter();
        let left = left.filter(|(name, _)| !self.there.contains(*name));
        left.map(|(name, key)| format!("{key} is there, and namespace {name} has gone"))
    }
}
