//! Whatever is created is created in a namespace that is there, by controllers as by users, and a namespace takes with it
//! all that is in it: at no revision is there anything in a namespace that has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::core::Namespace;
use setpoint_apis::{Key, Kind};

use super::{Change, Check, Finding};

#[derive(Debug, Default)]
pub(super) struct NamespaceCheck {
    /// The namespaces that are there, whether their documents can be read or not.
    there: BTreeSet<Arc<str>>,
    /// What is wanted in each namespace: the keys.
    objects: BTreeMap<Arc<str>, BTreeSet<String>>,
}

impl Check for NamespaceCheck {
    fn enter(&mut self, change: &Change<'_>, found: &mut Vec<Finding>) {
        let Key::Desired(plural, object) = &change.key else {
            return;
        };
        let is_put = change.entry.value.is_some();
        if *plural == Namespace::PLURAL {
            match is_put {
                true => drop(self.there.insert(object.name.clone())),
                false => self.gone(&object.name, found),
            }
            return;
        }
        if object.namespace.is_empty() {
            return;
        }
        let objects = self.objects.entry(object.namespace.clone()).or_default();
        let key = change.entry.key;
        if !is_put {
            objects.remove(key);
        } else if objects.insert(key.to_owned()) && !self.there.contains(&object.namespace) {
            let process = change.entry.sent.map_or("nobody", |s| &*s.process);
            let message = format!("{process} created {key}, and there is no such namespace");
            found.push(("namespace", message));
        }
    }
}

impl NamespaceCheck {
    /// A namespace has gone: its document is the last of what its transaction deletes.
    fn gone(&mut self, name: &Arc<str>, found: &mut Vec<Finding>) {
        self.there.remove(name);
        let left = self.objects.get(name).into_iter().flatten();
        if let Some(first) = left.clone().next() {
            let n = left.count();
            let message = format!("namespace {name} has gone, and {n} objects have not: {first}");
            found.push(("namespace", message));
        }
    }
}
