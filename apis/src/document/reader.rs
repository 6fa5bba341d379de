//! Reads documents of one kind, and what many of them have in common only once.

use serde::Deserialize;

use super::recent::Recent;
use super::{DecodeError, MAX_BYTES, SUSPICIOUS_BRACKETS, brackets, finish, mentions_null, parts};
use crate::kind::Kind;
use crate::meta::{ObjectKey, ObjectMeta};

/// Bytes of bodies that are remembered: the specs of some thousand workloads.
const BODY_BYTES: usize = 4 << 20;
/// Bytes of metadata that are remembered. It is a third of a pod's document.
const METADATA_BYTES: usize = 1 << 20;

/// Reads documents of kind `K`.
///
/// What it gives back, errors included, is what [`decode_keyed`](super::decode_keyed) gives back for the same document.
/// Documents whose text behind the metadata is the same share what was read from it, and documents that differ in the
/// name alone are hardly read at all: the pods of one template take a microsecond each, and the memory of one spec. So do
/// bodies that differ in the node alone that they pin their object to, but for the memory ([`Kind::pin_to`]).
/// Only kinds that say so ([`Kind::PARTS_STAND_ALONE`]) profit.
///
/// It remembers a bounded amount of text, the latest that was of use.
pub struct Reader<K> {
    bodies: Recent<K>,
    /// Bodies that pin their object to a node, by their text without its name.
    pinned: Recent<K>,
    metadata: Recent<ObjectMeta>,
}

impl<K: Kind> Default for Reader<K> {
    fn default() -> Self {
        Self {
            bodies: Recent::new(BODY_BYTES),
            pinned: Recent::new(BODY_BYTES),
            metadata: Recent::new(METADATA_BYTES),
        }
    }
}

#[derive(Deserialize)]
struct Head {
    metadata: ObjectMeta,
}

/// The metadata that a document begins with. Not generic, so that it is compiled once.
fn head(text: &str) -> Option<ObjectMeta> {
    super::read::<Head>(text).ok().map(|head| head.metadata)
}

impl<K: Kind> Reader<K> {
    /// Reads the document under `key`.
    ///
    /// # Errors
    /// As [`decode_keyed`](super::decode_keyed).
    pub fn decode_keyed(&self, key: &ObjectKey, bytes: &[u8]) -> Result<K, DecodeError> {
        if K::PARTS_STAND_ALONE
            && let Some(object) = self.in_parts(key, bytes)
        {
            return Ok(object);
        }
        super::decode_keyed(key, bytes)
    }

    /// The object, when it can be had from parts and nothing is wrong with it. `None` says nothing about the document.
    fn in_parts(&self, key: &ObjectKey, bytes: &[u8]) -> Option<K> {
        if bytes.len() > MAX_BYTES {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let parts = parts::split(text, K::API_VERSION, K::KIND)?;
        let pin = parts::pin(parts.body);
        let known = match pin {
            Some((before, node, after)) => self.on_node(before, node, after),
            None => None,
        };
        let Some(mut object) = known.or_else(|| self.bodies.get(parts.body)) else {
            return self.whole(key, text, &parts, pin);
        };
        let known = parts.named.and_then(|(name, others)| {
            let mut meta = self.metadata.get(others)?;
            meta.name = name.into();
            Some(meta)
        });
        if let Some(meta) = known {
            *object.metadata_mut() = meta;
            return names_its_key(&object, key).then_some(object);
        }
        if mentions_null(parts.metadata) {
            return None;
        }
        let metadata = head(parts.metadata)?;
        *object.metadata_mut() = metadata;
        if !names_its_key(&object, key) || !object.validate().is_empty() {
            return None;
        }
        self.remember_metadata(&object, &parts);
        Some(object)
    }

    /// Reads a document as a whole, by the first of the ways that an ordinary read takes, and remembers its parts.
    fn whole(
        &self,
        key: &ObjectKey,
        text: &str,
        parts: &parts::Parts<'_>,
        pin: Option<(&str, &str, &str)>,
    ) -> Option<K> {
        // Half, because the metadata of other documents may hold some as well.
        let suspicious = brackets(text) > SUSPICIOUS_BRACKETS / 2;
        if suspicious || mentions_null(text) || parts::may_repeat(parts.body) {
            return None;
        }
        let object = K::from_yaml(text)?;
        if !names_its_key(&object, key) {
            return None;
        }
        let object = finish(object).ok()?;
        let mut body = object.clone();
        *body.metadata_mut() = ObjectMeta::default();
        match pin {
            Some((before, _, after)) if pins(&object, text, parts, (before, after)) => {
                self.pinned.insert(&nowhere(before, after), body);
            }
            _ => self.bodies.insert(parts.body, body),
        }
        self.remember_metadata(&object, parts);
        Some(object)
    }

    /// A body that is known from another node.
    fn on_node(&self, before: &str, node: &str, after: &str) -> Option<K> {
        let mut object = self.pinned.get(&nowhere(before, after))?;
        object.pin_to(node).then_some(object)
    }

    fn remember_metadata(&self, object: &K, parts: &parts::Parts<'_>) {
        if let Some((_, others)) = parts.named {
            let mut meta = object.metadata().clone();
            meta.name = String::new();
            self.metadata.insert(others, meta);
        }
    }
}

/// The text of a body that is on no node yet. No text that is YAML holds this mark.
fn nowhere(before: &str, after: &str) -> String {
    [before, "\0", after].concat()
}

/// Whether the name of the node in a body is what pins its object, and nothing else: another name there makes the object
/// that is pinned to that node. The name is plain and in quotes, so what holds for one holds for all.
fn pins<K: Kind>(
    object: &K,
    text: &str,
    parts: &parts::Parts<'_>,
    (before, after): (&str, &str),
) -> bool {
    const ELSEWHERE: &str = "else.where-7";
    let head = &text[..text.len() - parts.body.len()];
    let text = [head, before, ELSEWHERE, after].concat();
    let mut moved = object.clone();
    let read = K::from_yaml(&text).and_then(|k| finish(k).ok());
    moved.pin_to(ELSEWHERE) && read == Some(moved)
}

/// Whether the metadata says itself what the key says, so that nothing has to be taken from the key.
fn names_its_key<K: Kind>(object: &K, key: &ObjectKey) -> bool {
    let meta = object.metadata();
    !meta.name.is_empty()
        && !meta.namespace.is_empty()
        && *meta.name == *key.name
        && *meta.namespace == *key.namespace
}

#[cfg(test)]
mod tests;
