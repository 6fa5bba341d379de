//! Whether two workloads select each other's pods.
//!
//! In theory two selectors overlap when some object could fit both, which nearly all do. What matters is what there is:
//! the pods that one of them makes are such as the other one selects.

use std::collections::{BTreeMap, BTreeSet};

use crate::fnv::Fnv64;
use crate::selector::LabelSelector;

/// What a workload selects, and the labels of the pods that it makes.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Which pods are its own.
    pub selector: &'a LabelSelector,
    /// The labels of its template.
    pub labels: &'a BTreeMap<String, String>,
}

impl Choice<'_> {
    /// Whether one of the two selects the pods that the other one makes. Both are of one namespace.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.selector.matches(other.labels) || other.selector.matches(self.labels)
    }
}

/// Finds whom a workload is to be compared with among many.
///
/// A selector is filed under one of the labels that it demands, the rarest so far, and a template under all of its labels.
/// So only those are compared that a label leads to.
#[derive(Clone, Debug)]
pub struct Index<Id> {
    places: BTreeMap<Id, Place>,
    selectors: BTreeMap<u64, BTreeSet<Id>>,
    templates: BTreeMap<u64, BTreeSet<Id>>,
}

/// Where a workload is filed.
#[derive(Clone, Debug)]
struct Place {
    selector: u64,
    labels: Vec<u64>,
}

impl<Id> Default for Index<Id> {
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            selectors: BTreeMap::new(),
            templates: BTreeMap::new(),
        }
    }
}

impl<Id: Clone + Ord> Index<Id> {
    /// Files a workload of a namespace, instead of what it was filed as before.
    pub fn insert(&mut self, id: &Id, namespace: &str, choice: &Choice<'_>) {
        self.remove(id);
        let selector = rarest(&self.selectors, namespace, choice.selector);
        // Selectors that demand no label in particular look at all templates of the namespace.
        let labels = buckets(namespace, choice.labels);
        let labels: Vec<u64> = labels.chain([bucket(namespace, None)]).collect();
        self.selectors
            .entry(selector)
            .or_default()
            .insert(id.clone());
        for bucket in &labels {
            self.templates
                .entry(*bucket)
                .or_default()
                .insert(id.clone());
        }
        self.places.insert(id.clone(), Place { selector, labels });
    }

    /// Takes a workload out.
    pub fn remove(&mut self, id: &Id) {
        let Some(place) = self.places.remove(id) else {
            return;
        };
        take_out(&mut self.selectors, place.selector, id);
        for bucket in place.labels {
            take_out(&mut self.templates, bucket, id);
        }
    }

    /// All that a workload may overlap with, and more: [`Choice::overlaps`] tells.
    pub fn candidates(&self, namespace: &str, choice: &Choice<'_>) -> BTreeSet<&Id> {
        let labels = buckets(namespace, choice.labels);
        let labels = labels.chain([bucket(namespace, None)]);
        let who_select = labels.filter_map(|b| self.selectors.get(&b));
        let rarest = rarest(&self.templates, namespace, choice.selector);
        let selected = self.templates.get(&rarest);
        who_select.chain(selected).flatten().collect()
    }
}

/// The place of the label, of those that a selector demands, under which the fewest are filed.
fn rarest<Id>(
    filed: &BTreeMap<u64, BTreeSet<Id>>,
    namespace: &str,
    selector: &LabelSelector,
) -> u64 {
    let size = |bucket: &u64| filed.get(bucket).map_or(0, BTreeSet::len);
    let demanded = buckets(namespace, &selector.match_labels);
    let rarest = demanded.min_by_key(size);
    rarest.unwrap_or_else(|| bucket(namespace, None))
}

fn take_out<Id: Ord>(filed: &mut BTreeMap<u64, BTreeSet<Id>>, bucket: u64, id: &Id) {
    if let Some(ids) = filed.get_mut(&bucket) {
        ids.remove(id);
        if ids.is_empty() {
            filed.remove(&bucket);
        }
    }
}

fn buckets(namespace: &str, labels: &BTreeMap<String, String>) -> impl Iterator<Item = u64> {
    labels
        .iter()
        .map(move |label| bucket(namespace, Some(label)))
}

/// The place of a label, or of all workloads of a namespace. What shares one by chance is told apart by comparing.
fn bucket(namespace: &str, label: Option<(&String, &String)>) -> u64 {
    let mut hash = Fnv64::default();
    hash.write(namespace.as_bytes());
    if let Some((key, value)) = label {
        for part in [key, value] {
            hash.write(&[0]);
            hash.write(part.as_bytes());
        }
    }
    hash.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(',').filter_map(|p| p.split_once('='));
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// Every pair that overlaps is found, whichever of the two is filed first.
    #[test]
    fn what_overlaps_is_among_the_candidates() {
        let selectors = [
            "app=web",
            "env=prod",
            "app=web,env=prod",
            "app in (web,db)",
            "tier",
            "!tier",
            "app=db",
        ];
        let templates = [
            "app=web,env=prod,tier=a",
            "app=web,env=prod",
            "app=db,env=prod",
            "app=db,tier=b",
        ];
        let mut all: Vec<(LabelSelector, BTreeMap<String, String>)> = Vec::new();
        for s in selectors {
            let selector: LabelSelector = s.parse().unwrap();
            all.extend(templates.iter().map(|t| (selector.clone(), labels(t))));
        }
        let choice = |i: usize| Choice {
            selector: &all[i].0,
            labels: &all[i].1,
        };
        let mut index = Index::default();
        let mut found = 0;
        for i in 0..all.len() {
            let candidates = index.candidates("default", &choice(i));
            for j in (0..i).filter(|j| choice(i).overlaps(&choice(*j))) {
                assert!(candidates.contains(&j), "{} and {}", all[i].0, all[j].0);
                found += 1;
            }
            assert!(index.candidates("other", &choice(i)).is_empty());
            index.insert(&i, "default", &choice(i));
        }
        assert!(found > 100);
        for i in 0..all.len() {
            index.remove(&i);
        }
        assert!(
            index.selectors.is_empty() && index.templates.is_empty() && index.places.is_empty()
        );
    }

    #[test]
    fn a_label_that_all_have_leads_to_nobody() {
        let of = |i: usize| labels(&format!("app=web-{i},env=prod"));
        let (mut index, mut compared) = (Index::default(), 0);
        for i in 0..500 {
            let selector = LabelSelector::labels(of(i));
            let of_i = of(i);
            let choice = Choice {
                selector: &selector,
                labels: &of_i,
            };
            compared += index.candidates("default", &choice).len();
            index.insert(&i, "default", &choice);
        }
        assert!(compared <= 500, "{compared}");
    }

    #[test]
    fn workloads_overlap_when_one_selects_the_pods_of_the_other() {
        for (a, of_a, b, of_b, expected) in [
            ("app=web", "app=web", "app=web", "app=web", true),
            (
                "app=web",
                "app=web",
                "tier=front",
                "app=web,tier=front",
                true,
            ),
            ("app in (web,db)", "app=web", "app=db", "app=db", true),
            // An object with both labels would fit both, but neither makes such.
            ("app=web", "app=web", "tier=front", "tier=front", false),
            (
                "app=web,track=a",
                "app=web,track=a",
                "app=web,track=b",
                "app=web,track=b",
                false,
            ),
        ] {
            let (sa, sb) = (a.parse().unwrap(), b.parse().unwrap());
            let (la, lb) = (labels(of_a), labels(of_b));
            let a = Choice {
                selector: &sa,
                labels: &la,
            };
            let b = Choice {
                selector: &sb,
                labels: &lb,
            };
            assert_eq!(a.overlaps(&b), expected, "{sa} {sb}");
            assert_eq!(b.overlaps(&a), expected, "{sb} {sa}");
        }
    }
}
