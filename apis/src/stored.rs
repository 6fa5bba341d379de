//! Documents as a cache holds them: with what etcd keeps about their keys, and frozen while they do not parse.
//!
//! Plain data, so that decisions can be made on it without anything that does IO.

use std::sync::Arc;

use crate::kind::Kind;

/// A document that parsed, with what etcd keeps about its key.
#[derive(Debug, PartialEq)]
pub struct Stored<T> {
    /// The document, with defaults filled in.
    pub value: T,
    /// The revision of the key's creation.
    pub create_revision: i64,
    /// The revision of the key's last change: Kubernetes' resourceVersion.
    pub mod_revision: i64,
    /// How often the key was written: Kubernetes' generation.
    pub version: i64,
}

impl<K: Kind> Stored<K> {
    /// The object's uid: the one its writer gave it, else one derived from the key's create revision.
    pub fn uid(&self) -> String {
        let meta = self.value.metadata();
        meta.uid_since(self.create_revision, K::PLURAL, &meta.key())
    }
}

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The revision that brought it.
    pub mod_revision: i64,
    /// What is wrong.
    pub message: String,
}

/// What the cache holds under one key: present in any case, and frozen while the document does not parse.
#[derive(Debug)]
pub struct Entry<T> {
    last_good: Option<Arc<Stored<T>>>,
    invalid: Option<Arc<Invalid>>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            last_good: self.last_good.clone(),
            invalid: self.invalid.clone(),
        }
    }
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self {
            last_good: None,
            invalid: None,
        }
    }
}

impl<T> Entry<T> {
    /// A document that parsed.
    pub fn good(stored: Arc<Stored<T>>) -> Self {
        Self {
            last_good: Some(stored),
            invalid: None,
        }
    }

    /// The same key with a document that does not parse.
    #[must_use]
    pub fn frozen(self, invalid: Arc<Invalid>) -> Self {
        Self {
            invalid: Some(invalid),
            ..self
        }
    }

    /// The document as it is in etcd; `None` while that does not parse. Act only on what this returns.
    pub fn valid(&self) -> Option<&Arc<Stored<T>>> {
        if self.invalid.is_some() {
            None
        } else {
            self.last_good.as_ref()
        }
    }

    /// The last version that parsed, the present one included. For counting and showing what exists.
    pub fn last_good(&self) -> Option<&Arc<Stored<T>>> {
        self.last_good.as_ref()
    }

    /// Why the present document cannot be used.
    pub fn invalid(&self) -> Option<&Arc<Invalid>> {
        self.invalid.as_ref()
    }

    /// The revision of the document as it is in etcd, whether it parses or not.
    pub fn mod_revision(&self) -> i64 {
        match (&self.invalid, &self.last_good) {
            (Some(invalid), _) => invalid.mod_revision,
            (None, Some(good)) => good.mod_revision,
            (None, None) => 0,
        }
    }
}
