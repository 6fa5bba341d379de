//! Labels and annotations: texts by key, which many objects have in common.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Map = BTreeMap<String, String>;

/// A map of texts in key order, used as the [`BTreeMap`] that it is.
///
/// Clones share their memory until one of them is changed: half a kilobyte that each pod of a template would hold.
#[derive(Clone)]
pub struct StringMap(Arc<Map>);

static EMPTY: LazyLock<Arc<Map>> = LazyLock::new(Arc::default);

impl StringMap {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for StringMap {
    fn default() -> Self {
        Self(Arc::clone(&EMPTY))
    }
}

impl Deref for StringMap {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.0
    }
}

impl DerefMut for StringMap {
    fn deref_mut(&mut self) -> &mut Map {
        Arc::make_mut(&mut self.0)
    }
}

impl From<Map> for StringMap {
    fn from(map: Map) -> Self {
        if map.is_empty() {
            Self::default()
        } else {
            Self(Arc::new(map))
        }
    }
}

impl From<StringMap> for Map {
    fn from(map: StringMap) -> Self {
        Arc::unwrap_or_clone(map.0)
    }
}

impl<const N: usize> From<[(String, String); N]> for StringMap {
    fn from(pairs: [(String, String); N]) -> Self {
        Map::from(pairs).into()
    }
}

impl FromIterator<(String, String)> for StringMap {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Map::from_iter(pairs).into()
    }
}

impl IntoIterator for StringMap {
    type Item = (String, String);
    type IntoIter = btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        Map::from(self).into_iter()
    }
}

impl<'a> IntoIterator for &'a StringMap {
    type Item = (&'a String, &'a String);
    type IntoIter = btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl PartialEq for StringMap {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for StringMap {}

impl Hash for StringMap {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq<Map> for StringMap {
    fn eq(&self, other: &Map) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<StringMap> for Map {
    fn eq(&self, other: &StringMap) -> bool {
        *self == *other.0
    }
}

impl fmt::Debug for StringMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for StringMap {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Map::deserialize(d).map(Self::from)
    }
}

impl JsonSchema for StringMap {
    fn inline_schema() -> bool {
        Map::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        Map::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        Map::schema_id()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Map::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_until_one_is_changed() {
        let a = StringMap::from([("x".to_owned(), "1".to_owned())]);
        let mut b = a.clone();
        assert!(Arc::ptr_eq(&a.0, &b.0));
        b.insert("y".into(), "2".into());
        assert_eq!((a.len(), b.len()), (1, 2));
        assert_ne!(a, b);
        b.remove("y");
        assert_eq!(a, b);
        let mut empty = StringMap::default();
        empty.insert("x".into(), "1".into());
        assert!(StringMap::default().is_empty());
    }
}
