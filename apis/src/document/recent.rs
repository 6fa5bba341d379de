//! What was read lately, by its text.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Values by the text that they were read from. Bounded: what was not asked for since the last time it was full goes.
pub(super) struct Recent<V> {
    /// Bytes of text per generation; there are two.
    limit: usize,
    generations: RwLock<Generations<V>>,
}

struct Generations<V> {
    young: HashMap<Box<str>, V>,
    young_bytes: usize,
    old: HashMap<Box<str>, V>,
}

impl<V: Clone> Recent<V> {
    /// Keeps at most twice `limit` bytes of text.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            generations: RwLock::new(Generations {
                young: HashMap::new(),
                young_bytes: 0,
                old: HashMap::new(),
            }),
        }
    }

    /// What was read from this text.
    pub(super) fn get(&self, text: &str) -> Option<V> {
        {
            // A panic while the lock is held leaves both maps whole.
            let known = self
                .generations
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(value) = known.young.get(text) {
                return Some(value.clone());
            }
            if !known.old.contains_key(text) {
                return None;
            }
        }
        let value = {
            let mut known = self
                .generations
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            known.old.remove(text)?
        };
        self.insert(text, value.clone());
        Some(value)
    }

    /// Remembers what was read from this text. A text as long as a whole generation is not worth it.
    pub(super) fn insert(&self, text: &str, value: V) {
        if text.len() >= self.limit {
            return;
        }
        let mut known = self
            .generations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if known.young_bytes + text.len() > self.limit {
            known.old = std::mem::take(&mut known.young);
            known.young_bytes = 0;
        }
        if known.young.insert(text.into(), value).is_none() {
            known.young_bytes += text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let recent = Recent::new(100);
        recent.insert("wanted", 0);
        for n in 0..1000 {
            recent.insert(&format!("once {n:04}"), n);
            assert_eq!(recent.get("wanted"), Some(0), "after {n}");
        }
        assert_eq!(recent.get("once 0000"), None);
        assert_eq!(recent.get("once 0999"), Some(999));
        let known = recent.generations.read().unwrap();
        let kept = |map: &HashMap<Box<str>, _>| map.keys().map(|k| k.len()).sum::<usize>();
        assert_eq!(kept(&known.young), known.young_bytes);
        assert!(known.young_bytes <= 100 && kept(&known.old) <= 100);
    }

    #[test]
    fn a_text_that_is_too_long_is_not_kept() {
        let recent = Recent::new(3);
        recent.insert("long", ());
        assert_eq!(recent.get("long"), None);
    }
}
