//! What pods take of nodes, as bindings hold it: thousands of them the same.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::quantity::ResourceList;

/// A [`ResourceList`], used as one. Clones share it until one is changed, and so do those that are read one after the other
/// and are equal, as the bindings of one workload's pods are: half a kilobyte each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SharedAmounts(Arc<ResourceList>);

thread_local! {
    static LAST: RefCell<Arc<ResourceList>> = RefCell::default();
}

impl SharedAmounts {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Deref for SharedAmounts {
    type Target = ResourceList;

    fn deref(&self) -> &ResourceList {
        &self.0
    }
}

impl DerefMut for SharedAmounts {
    fn deref_mut(&mut self) -> &mut ResourceList {
        Arc::make_mut(&mut self.0)
    }
}

impl From<ResourceList> for SharedAmounts {
    fn from(list: ResourceList) -> Self {
        LAST.with_borrow_mut(|last| {
            if **last != list {
                *last = Arc::new(list);
            }
            Self(Arc::clone(last))
        })
    }
}

impl<'de> Deserialize<'de> for SharedAmounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ResourceList::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{decode_value, encode};

    #[test]
    fn equal_lists_that_follow_each_other_are_one_and_stay_as_they_are_when_one_changes() {
        let read = |text: &str| decode_value::<SharedAmounts>(text.as_bytes()).unwrap();
        let (a, mut b) = (read("cpu: 100m\n"), read("cpu: 100m\n"));
        assert!(Arc::ptr_eq(&a.0, &b.0));
        b.insert("memory".into(), "1Gi".parse().unwrap());
        assert_eq!((a.len(), b.len()), (1, 2));
        let c = read("cpu: 100m\n");
        assert_eq!(c, a);
        assert_eq!(read(&encode(&b)), b);
        assert!(read("{}").is_empty());
    }
}
