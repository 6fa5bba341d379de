//! Who matches what, and where: identities of pods, the terms that select them, and the counts of both per domain.
//!
//! Pods with the same namespace and labels are one *identity*. A *matcher* selects identities; a *term* is a matcher
//! with a topology key. Every count is kept as pods come and go, so that a decision reads it and walks over no pods.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use setpoint_apis::selector::LabelSelector;

use crate::log::ChangeLog;
use crate::node::Node;
use crate::own::Own;
use crate::slab::Slab;
use crate::tally::Tally;
use crate::topology::{Counts, Key, NOWHERE};

/// The label that every namespace has with its name, also when its document does not say so.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What a matcher asks of a pod, one of several that must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Member {
    /// The namespaces by name.
    pub(crate) namespaces: Vec<Arc<str>>,
    /// Further namespaces by label.
    pub(crate) namespace_selector: Option<LabelSelector>,
    /// `None` selects no pod.
    pub(crate) selector: Option<LabelSelector>,
}

/// A namespace with labels: all pods that have both.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    namespace: Arc<str>,
    labels: BTreeMap<String, String>,
    /// Sorted.
    pub(crate) matchers: Vec<u32>,
    /// How many such pods each node has.
    slots: Tally,
}

/// Selects pods: all of the members must hold.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    members: Arc<[Member]>,
    /// How many matching pods each node has.
    pub(crate) slots: Tally,
    terms: Vec<u32>,
    /// Whether it says who owns a reservation.
    pub(crate) owners: u32,
}

/// A matcher with a topology key.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) matcher: u32,
    pub(crate) key: u32,
    /// Pods that match.
    pub(crate) pods: Counts,
    /// Pods that want no matching pod near them.
    pub(crate) anti: Counts,
    /// The sum of the weights with which pods want matching pods near them.
    pub(crate) weight: Counts,
    /// The priorities of nominated pods: those that match, and those that want no matching pod near.
    pub(crate) nominated: FxHashMap<u32, Vec<i32>>,
    pub(crate) anti_nominated: FxHashMap<u32, Vec<i32>>,
    /// Whether pods that match it must look at it: somebody has it as a wish about others.
    pub(crate) foreign: bool,
}

impl Term {
    /// How many nominated pods of a domain that match count for a pod with this priority.
    pub(crate) fn nominated(&self, domain: u32, priority: i32) -> i64 {
        at_least(&self.nominated, domain, priority)
    }

    /// The same of those that want no matching pod near them.
    pub(crate) fn anti_nominated(&self, domain: u32, priority: i32) -> i64 {
        at_least(&self.anti_nominated, domain, priority)
    }
}

fn at_least(by_domain: &FxHashMap<u32, Vec<i32>>, domain: u32, priority: i32) -> i64 {
    if by_domain.is_empty() {
        return 0;
    }
    let all = by_domain.get(&domain).map_or(&[][..], Vec::as_slice);
    all.iter().filter(|p| **p >= priority).count() as i64
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub(crate) keys: Slab<Key>,
    keys_by_name: FxHashMap<Arc<str>, u32>,
    identities: Slab<Identity>,
    identities_by_hash: FxHashMap<u64, Vec<u32>>,
    /// By the hash of one label: who has it.
    labelled: FxHashMap<u64, Vec<u32>>,
    pub(crate) matchers: Slab<Matcher>,
    matchers_by_members: FxHashMap<Arc<[Member]>, u32>,
    /// Matchers by the hash of a label that they ask for, and those that ask for none.
    anchored: FxHashMap<u64, Vec<u32>>,
    unanchored: Vec<u32>,
    pub(crate) terms: Slab<Term>,
    terms_by_parts: FxHashMap<(u32, u32), u32>,
    namespaces: FxHashMap<Arc<str>, BTreeMap<String, String>>,
    /// Changes when pods may have to look at other terms than before.
    pub(crate) generation: u64,
    /// Up to how many domains a key is coarse; by the number of nodes when `None`.
    pub(crate) coarse_most: Option<u32>,
}

impl Registry {
    /// The identity of pods with these labels.
    pub(crate) fn identity(&mut self, namespace: &str, labels: &BTreeMap<String, String>) -> u32 {
        let hash = hash_of(&(namespace, labels));
        let known = self.identities_by_hash.get(&hash);
        let mut same = known.into_iter().flatten().copied().filter(|id| {
            let i = &self.identities[*id];
            *i.namespace == *namespace && i.labels == *labels
        });
        if let Some(id) = same.next() {
            return id;
        }
        let mut identity = Identity {
            namespace: Arc::from(namespace),
            labels: labels.clone(),
            matchers: Vec::new(),
            slots: Tally::default(),
        };
        let anchored = labels
            .iter()
            .filter_map(|l| self.anchored.get(&hash_of(&l)));
        let candidates = anchored.chain([&self.unanchored]).flatten();
        let matching = candidates.filter(|m| self.matches(&self.matchers[**m].members, &identity));
        let mut matchers: Vec<_> = matching.copied().collect();
        matchers.sort_unstable();
        matchers.dedup();
        identity.matchers = matchers;
        let id = self.identities.insert(identity);
        self.identities_by_hash.entry(hash).or_default().push(id);
        for label in labels {
            self.labelled.entry(hash_of(&label)).or_default().push(id);
        }
        id
    }

    /// The matcher with these members.
    pub(crate) fn matcher(&mut self, mut members: Vec<Member>) -> u32 {
        members.sort_unstable();
        members.dedup();
        if let Some(known) = self.matchers_by_members.get(members.as_slice()) {
            return *known;
        }
        let members: Arc<[Member]> = members.into();
        let anchor = self.anchor(&members);
        let everybody = || self.identities.iter().map(|(id, _)| id).collect();
        let candidates: Vec<u32> = match anchor {
            Some(label) => self.labelled.get(&label).cloned().unwrap_or_default(),
            None => everybody(),
        };
        let holds = |id: &u32| self.matches(&members, &self.identities[*id]);
        let matching: Vec<_> = candidates.into_iter().filter(holds).collect();
        let id = self.matchers.insert(Matcher {
            members: members.clone(),
            slots: Tally::default(),
            terms: Vec::new(),
            owners: 0,
        });
        let slots = &mut self.matchers[id].slots;
        for identity in matching {
            let identity = &mut self.identities[identity];
            if let Err(at) = identity.matchers.binary_search(&id) {
                identity.matchers.insert(at, id);
            }
            for (slot, count) in identity.slots.iter() {
                slots.add(slot, count);
            }
        }
        match anchor {
            Some(label) => self.anchored.entry(label).or_default().push(id),
            None => self.unanchored.push(id),
        }
        self.matchers_by_members.insert(members, id);
        id
    }

    /// The term of a matcher and a topology key. Nominated pods are counted by the caller.
    pub(crate) fn term(&mut self, matcher: u32, key: &str, nodes: &[Node]) -> (u32, bool) {
        let key = self.key(key, nodes);
        if let Some(known) = self.terms_by_parts.get(&(matcher, key)) {
            return (*known, false);
        }
        let mut pods = Counts::default();
        for (slot, count) in self.matchers[matcher].slots.iter() {
            let domain = self.keys[key].of(slot);
            if domain != NOWHERE {
                pods.add(domain, i64::from(count));
            }
        }
        let id = self.terms.insert(Term {
            matcher,
            key,
            pods,
            anti: Counts::default(),
            weight: Counts::default(),
            nominated: FxHashMap::default(),
            anti_nominated: FxHashMap::default(),
            foreign: false,
        });
        self.terms_by_parts.insert((matcher, key), id);
        self.matchers[matcher].terms.push(id);
        (id, true)
    }

    /// Counts a nominated pod in a term that is newer than the nomination.
    pub(crate) fn fill_nominated(&mut self, term: u32, slot: u32, identity: u32, priority: i32) {
        let domain = self.keys[self.terms[term].key].of(slot);
        if domain != NOWHERE && self.selects(self.terms[term].matcher, identity) {
            let term = &mut self.terms[term];
            term.nominated.entry(domain).or_default().push(priority);
        }
    }

    /// Somebody has the term as a wish about others.
    pub(crate) fn set_foreign(&mut self, term: u32) {
        if !self.terms[term].foreign {
            self.terms[term].foreign = true;
            self.generation += 1;
        }
    }

    /// Somebody owns a reservation by the matcher, or one fewer does.
    pub(crate) fn set_owners(&mut self, matcher: u32, more: bool) {
        let owners = &mut self.matchers[matcher].owners;
        *owners = if more {
            *owners + 1
        } else {
            owners.saturating_sub(1)
        };
        self.generation += 1;
    }

    /// The wishes of others that pods of an identity must look at, sorted.
    pub(crate) fn foreign_to(&self, identity: u32) -> Vec<u32> {
        let matchers = self.identities[identity].matchers.iter();
        let terms = matchers.flat_map(|m| &self.matchers[*m].terms).copied();
        let mut terms: Vec<_> = terms.filter(|t| self.terms[*t].foreign).collect();
        terms.sort_unstable();
        terms
    }

    /// The matchers of reservations that pods of an identity own, sorted.
    pub(crate) fn owned_by(&self, identity: u32) -> Vec<u32> {
        let matchers = self.identities[identity].matchers.iter().copied();
        matchers.filter(|m| self.matchers[*m].owners > 0).collect()
    }

    /// Whether a matcher selects the pods of an identity.
    pub(crate) fn selects(&self, matcher: u32, identity: u32) -> bool {
        let matchers = &self.identities[identity].matchers;
        matchers.binary_search(&matcher).is_ok()
    }

    /// Counts a pod in or out.
    pub(crate) fn count(
        &mut self,
        slot: u32,
        identity: u32,
        own: &Own,
        more: bool,
        log: &mut ChangeLog,
    ) {
        let Self {
            keys,
            identities,
            matchers,
            terms,
            ..
        } = self;
        let sign = if more { 1 } else { -1 };
        let identity = &mut identities[identity];
        step(&mut identity.slots, slot, more);
        for matcher in &identity.matchers {
            let matcher = &mut matchers[*matcher];
            step(&mut matcher.slots, slot, more);
            for term in &matcher.terms {
                let term = &mut terms[*term];
                let key = &keys[term.key];
                let domain = key.of(slot);
                if domain != NOWHERE {
                    term.pods.add(domain, sign);
                    tell(key, domain, log);
                }
            }
        }
        for term in &own.anti {
            let term = &mut terms[*term];
            let key = &keys[term.key];
            let domain = key.of(slot);
            if domain != NOWHERE {
                term.anti.add(domain, sign);
                tell(key, domain, log);
            }
        }
        let required = own.required.iter().map(|t| (*t, 1));
        for (term, weight) in required.chain(own.preferred.iter().copied()) {
            let term = &mut terms[term];
            let key = &keys[term.key];
            let domain = key.of(slot);
            if domain != NOWHERE {
                term.weight.add(domain, sign * i64::from(weight));
                tell(key, domain, log);
            }
        }
    }

    /// Counts a nominated pod in or out.
    pub(crate) fn count_nominated(
        &mut self,
        slot: u32,
        identity: u32,
        own: &Own,
        priority: i32,
        more: bool,
        log: &mut ChangeLog,
    ) {
        let Self {
            keys,
            identities,
            matchers,
            terms,
            ..
        } = self;
        let identity = &identities[identity];
        let mut note = |term: &mut Term, anti: bool| {
            let key = &keys[term.key];
            let domain = key.of(slot);
            if domain == NOWHERE {
                return;
            }
            let by_domain = if anti {
                &mut term.anti_nominated
            } else {
                &mut term.nominated
            };
            let all = by_domain.entry(domain).or_default();
            if more {
                all.push(priority);
            } else if let Some(at) = all.iter().position(|p| *p == priority) {
                all.swap_remove(at);
            }
            if all.is_empty() {
                by_domain.remove(&domain);
            }
            tell(key, domain, log);
        };
        for matcher in &identity.matchers {
            for term in &matchers[*matcher].terms {
                note(&mut terms[*term], false);
            }
        }
        for term in &own.anti {
            note(&mut terms[*term], true);
        }
    }

    /// Whether a node's labels put it into other domains than it is in.
    pub(crate) fn moves(&self, slot: u32, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &Key| labels.and_then(|l| l.get(&*key.name)).map(String::as_str);
        self.keys
            .iter()
            .any(|(_, key)| !key.is(key.of(slot), value(key)))
    }

    /// Puts a node into the domains that its labels say. Nothing may be counted on it meanwhile.
    pub(crate) fn move_to(
        &mut self,
        slot: u32,
        labels: Option<&BTreeMap<String, String>>,
        nodes: u32,
    ) {
        let most = self.coarse_most(nodes);
        for (_, key) in self.keys.iter_mut() {
            let value = labels.and_then(|l| l.get(&*key.name));
            key.move_to(slot, value.map(String::as_str));
            key.judge(most);
        }
    }

    /// The sum of the turns of keys: what is made for coarse keys is no good when they are fine.
    pub(crate) fn turns(&self, keys: &[u32]) -> u64 {
        keys.iter().map(|k| self.keys[*k].turns).sum()
    }

    /// Takes over the labels of a namespace; `None` when it is gone. Gives back the nodes on which counts changed, or
    /// `None` when nothing did. No nominated pod may be counted meanwhile.
    pub(crate) fn set_namespace(
        &mut self,
        name: &str,
        labels: Option<&BTreeMap<String, String>>,
        log: &mut ChangeLog,
    ) -> bool {
        if self.namespaces.get(name) == labels {
            return false;
        }
        match labels {
            Some(labels) => self.namespaces.insert(Arc::from(name), labels.clone()),
            None => self.namespaces.remove(name),
        };
        let by_label = |m: &Matcher| m.members.iter().any(|m| m.namespace_selector.is_some());
        let matchers: Vec<u32> = self
            .matchers
            .iter()
            .filter(|(_, m)| by_label(m))
            .map(|(id, _)| id)
            .collect();
        let here = self
            .identities
            .iter()
            .filter(|(_, i)| *i.namespace == *name);
        let identities: Vec<u32> = here.map(|(id, _)| id).collect();
        for id in identities {
            for matcher in &matchers {
                let now = self.matches(&self.matchers[*matcher].members, &self.identities[id]);
                let at = self.identities[id].matchers.binary_search(matcher);
                if now != at.is_ok() {
                    self.turn(id, *matcher, at, log);
                }
            }
        }
        true
    }

    /// An identity begins or ceases to match.
    fn turn(&mut self, identity: u32, matcher: u32, at: Result<usize, usize>, log: &mut ChangeLog) {
        let Self {
            keys,
            identities,
            matchers,
            terms,
            ..
        } = self;
        let (identity, id) = (&mut identities[identity], matcher);
        let matcher = &mut matchers[id];
        let sign = match at {
            Ok(at) => {
                identity.matchers.remove(at);
                -1
            }
            Err(at) => {
                identity.matchers.insert(at, id);
                1
            }
        };
        for (slot, count) in identity.slots.iter() {
            if sign > 0 {
                matcher.slots.add(slot, count);
            } else {
                matcher.slots.take(slot, count);
            }
            log.push(slot);
            for term in &matcher.terms {
                let term = &mut terms[*term];
                let key = &keys[term.key];
                let domain = key.of(slot);
                if domain != NOWHERE {
                    term.pods.add(domain, sign * i64::from(count));
                    tell(key, domain, log);
                }
            }
        }
        self.generation += 1;
    }

    /// Forgets identities, terms and matchers that nobody uses. Keys are left: there are few.
    pub(crate) fn sweep(&mut self, identities: &FxHashSet<u32>, terms: &FxHashSet<u32>) {
        let gone: Vec<u32> = self
            .terms
            .iter()
            .map(|t| t.0)
            .filter(|t| !terms.contains(t))
            .collect();
        for id in gone {
            if let Some(term) = self.terms.remove(id) {
                self.terms_by_parts.remove(&(term.matcher, term.key));
                self.matchers[term.matcher].terms.retain(|t| *t != id);
            }
        }
        let unused = |m: &Matcher| m.terms.is_empty() && m.owners == 0;
        let gone: FxHashSet<u32> = self
            .matchers
            .iter()
            .filter(|(_, m)| unused(m))
            .map(|m| m.0)
            .collect();
        for id in &gone {
            if let Some(matcher) = self.matchers.remove(*id) {
                self.matchers_by_members.remove(&matcher.members);
            }
        }
        for list in self.anchored.values_mut().chain([&mut self.unanchored]) {
            list.retain(|m| !gone.contains(m));
        }
        self.anchored.retain(|_, l| !l.is_empty());
        let gone_identities: FxHashSet<u32> = self
            .identities
            .iter()
            .map(|i| i.0)
            .filter(|i| !identities.contains(i))
            .collect();
        for id in &gone_identities {
            self.identities.remove(*id);
        }
        for (_, identity) in self.identities.iter_mut() {
            identity.matchers.retain(|m| !gone.contains(m));
        }
        for lists in [&mut self.labelled, &mut self.identities_by_hash] {
            lists.retain(|_, l| {
                l.retain(|i| !gone_identities.contains(i));
                !l.is_empty()
            });
        }
        self.generation += 1;
    }

    fn key(&mut self, name: &str, nodes: &[Node]) -> u32 {
        if let Some(known) = self.keys_by_name.get(name) {
            return *known;
        }
        let mut key = Key::new(name);
        let mut present = 0;
        for (slot, node) in nodes.iter().enumerate() {
            if let Some(facts) = &node.facts {
                present += 1;
                key.move_to(slot as u32, facts.labels.get(name).map(String::as_str));
            }
        }
        key.judge(self.coarse_most(present));
        let name = key.name.clone();
        let id = self.keys.insert(key);
        self.keys_by_name.insert(name, id);
        id
    }

    /// Up to about the square root of the number of nodes a pass over all domains is cheaper than following nodes.
    fn coarse_most(&self, nodes: u32) -> u32 {
        self.coarse_most
            .unwrap_or_else(|| 2 * nodes.max(256).isqrt())
    }

    /// The label that the fewest pods have of those that the members ask for.
    fn anchor(&self, members: &[Member]) -> Option<u64> {
        let selectors = members.iter().filter_map(|m| m.selector.as_ref());
        let labels = selectors.flat_map(|s| &s.match_labels).map(|l| hash_of(&l));
        labels.min_by_key(|l| (self.labelled.get(l).map_or(0, Vec::len), *l))
    }

    fn matches(&self, members: &[Member], pod: &Identity) -> bool {
        members.iter().all(|m| {
            let selected = |s: &LabelSelector| s.matches(&pod.labels);
            m.selector.as_ref().is_some_and(selected) && self.is_in(m, &pod.namespace)
        })
    }

    fn is_in(&self, member: &Member, namespace: &Arc<str>) -> bool {
        if member.namespaces.contains(namespace) {
            return true;
        }
        let Some(selector) = &member.namespace_selector else {
            return false;
        };
        if selector.is_empty() {
            return true;
        }
        match self.namespaces.get(namespace) {
            Some(labels) if labels.contains_key(NAME_LABEL) => selector.matches(labels),
            labels => {
                let mut labels = labels.cloned().unwrap_or_default();
                labels.insert(NAME_LABEL.into(), (**namespace).into());
                selector.matches(&labels)
            }
        }
    }
}

/// The nodes of a domain of a fine key are looked at one by one, so each of them has changed.
fn tell(key: &Key, domain: u32, log: &mut ChangeLog) {
    if key.fine {
        for slot in key.slots(domain) {
            log.push(*slot);
        }
    }
}

fn step(slots: &mut Tally, slot: u32, more: bool) {
    if more {
        slots.add(slot, 1);
    } else {
        slots.take(slot, 1);
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}
