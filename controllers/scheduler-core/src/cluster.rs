//! The snapshot, and the decisions made on it.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use setpoint_apis::ObjectKey;
use setpoint_apis::core::PodSpec;

use crate::candidates::{Best, Candidates, ChangeLog, Snapshot, score_alone};
use crate::class::{Asks, Class, ClassInner};
use crate::intern::Interner;
use crate::node::{Node, NodeFacts};
use crate::reasons::{Reason, Unschedulable};
use crate::resources::{NAMES, PODS, Resources};

/// How many nodes all classes together remember, at 24 bytes each; the classes that were used last are kept.
const MOST_CELLS: usize = 2_000_000;

/// Nodes, what is placed on them, and the classes of pods that ask for them.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Vec<Node>,
    slots: FxHashMap<Arc<str>, u32>,
    free_slots: Vec<u32>,
    /// How many nodes there are; slots that only count pods of an absent node are left out.
    known: u32,
    pods: FxHashMap<ObjectKey, Placed>,
    interner: Interner,
    classes: FxHashSet<ByAsks>,
    /// By class id.
    candidates: Vec<Candidates>,
    free_ids: Vec<u32>,
    sweep_at: usize,
    log: ChangeLog,
    uses: u64,
}

#[derive(Debug)]
struct Placed {
    slot: u32,
    class: Class,
}

/// A class, found by what it asks.
#[derive(Debug)]
struct ByAsks(Class);

impl PartialEq for ByAsks {
    fn eq(&self, other: &Self) -> bool {
        self.0.0.asks == other.0.0.asks
    }
}

impl Eq for ByAsks {}

impl Hash for ByAsks {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.0.asks.hash(state);
    }
}

impl Borrow<Asks> for ByAsks {
    fn borrow(&self) -> &Asks {
        &self.0.0.asks
    }
}

/// A pod that wants a node.
#[derive(Clone, Debug, PartialEq)]
pub struct PodRequest {
    /// The pod.
    pub pod: ObjectKey,
    /// What it asks.
    pub class: Class,
}

/// What was decided about a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It goes to a node, and is counted there from now on.
    Bind(Placement),
    /// No node can run it.
    Unschedulable(Arc<Unschedulable>),
}

/// A choice of a node, and what it was chosen from.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The node.
    pub node: Arc<str>,
    /// [`NodeFacts::session`] of the node when it was chosen.
    pub session: i64,
    /// How many nodes there were.
    pub nodes: u32,
    /// How many of them could run the pod.
    pub feasible: u32,
    /// The node's score; see the module `score` for the scale.
    pub score: i64,
    /// The best node that was not chosen, with its score.
    pub runner_up: Option<(Arc<str>, i64)>,
}

impl Cluster {
    /// A cluster without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or takes over what changed of it. Returns whether anything changed that decisions depend on.
    pub fn set_node(&mut self, facts: NodeFacts) -> bool {
        let slot = self.slot_of(&facts.name);
        let node = &mut self.nodes[slot as usize];
        let new = node.facts.is_none();
        let changed = node.set(facts, &mut self.interner);
        self.known += u32::from(new);
        if changed {
            self.log.push(slot, self.nodes.len());
        }
        changed
    }

    /// Removes a node. Pods placed there stay counted on it. Returns whether there was one.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let Some(slot) = self.slots.get(name).copied() else {
            return false;
        };
        let was = self.nodes[slot as usize].unset();
        if was {
            self.known -= 1;
            self.log.push(slot, self.nodes.len());
        }
        self.release_slot(slot);
        was
    }

    /// What was told of a node.
    pub fn node(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes[*self.slots.get(name)? as usize].facts.as_deref()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> u32 {
        self.known
    }

    /// The names of all nodes, in no particular order.
    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes
            .iter()
            .filter(|n| n.facts.is_some())
            .map(|n| &n.name)
    }

    /// The class of pods with this spec.
    pub fn class(&mut self, spec: &PodSpec) -> Class {
        let asks = Asks::of(spec, &mut self.interner);
        if let Some(known) = self.classes.get(&asks) {
            return known.0.clone();
        }
        if self.classes.len() >= self.sweep_at {
            self.sweep();
        }
        let id = self.free_ids.pop().unwrap_or_else(|| {
            self.candidates.push(Candidates::default());
            u32::try_from(self.candidates.len() - 1)
                .expect("fewer than 2^32 classes fit into memory")
        });
        let weighed = asks.weighed();
        let class = Class(Arc::new(ClassInner { id, asks, weighed }));
        self.classes.insert(ByAsks(class.clone()));
        class
    }

    /// How many classes there are, those that nobody uses any more included until they are swept.
    pub fn class_count(&self) -> usize {
        self.classes.len()
    }

    /// Counts a pod on a node, which need not exist. Counting it again changes nothing; counting it elsewhere, or with
    /// another class, moves it.
    pub fn place(&mut self, pod: &ObjectKey, node: &str, class: &Class) {
        if let Some(placed) = self.pods.get(pod)
            && placed.class == *class
            && *self.nodes[placed.slot as usize].name == *node
        {
            return;
        }
        self.forget(pod);
        let slot = self.slot_of(node);
        self.count_in(pod, slot, class.clone());
    }

    /// Takes a pod off its node: it is gone, has ended, or could not be bound. Returns whether it was counted.
    pub fn forget(&mut self, pod: &ObjectKey) -> bool {
        let Some(Placed { slot, class }) = self.pods.remove(pod) else {
            return false;
        };
        self.nodes[slot as usize].remove(&class.0.asks.requests, class.0.weighed);
        self.log.push(slot, self.nodes.len());
        self.release_slot(slot);
        true
    }

    /// Where a pod is counted, and as what.
    pub fn placed(&self, pod: &ObjectKey) -> Option<(&Arc<str>, &Class)> {
        let placed = self.pods.get(pod)?;
        Some((&self.nodes[placed.slot as usize].name, &placed.class))
    }

    /// How many pods are counted.
    pub fn placed_count(&self) -> usize {
        self.pods.len()
    }

    /// Decides on pods in order. What is bound counts from then on, also for the next pod.
    ///
    /// Of several nodes with the best score, the seed and the pod's name choose.
    pub fn schedule(&mut self, pods: &[PodRequest], seed: u64) -> Vec<Decision> {
        pods.iter().map(|p| self.schedule_one(p, seed)).collect()
    }

    /// Whether a node can run a pod of the class now: the exact answer to whether it is worth trying again.
    pub fn has_room(&mut self, class: &Class) -> bool {
        if let Some(name) = class.0.asks.only_node() {
            let slot = self.slots.get(name);
            return slot.is_some_and(|s| {
                score_alone(&class.0, &self.nodes[*s as usize], &self.interner).is_some()
            });
        }
        self.synced(class).feasible() > 0
    }

    /// Why no node can run a pod of the class now. Reasons are empty for nodes that can.
    pub fn explain(&mut self, class: &Class) -> Arc<Unschedulable> {
        let verdict = |c: &Self| {
            let mut all = Unschedulable {
                nodes: c.known,
                ..Unschedulable::default()
            };
            for node in c.nodes.iter().filter(|n| n.facts.is_some()) {
                for reason in c.reasons(class, node) {
                    *all.reasons.entry(reason).or_insert(0) += 1;
                }
            }
            all
        };
        if class.0.asks.only_node().is_some() {
            return Arc::new(verdict(self));
        }
        self.synced(class);
        let mut candidates = std::mem::take(&mut self.candidates[class.0.id as usize]);
        let made = candidates.verdict(|| verdict(self));
        self.candidates[class.0.id as usize] = candidates;
        made
    }

    fn schedule_one(&mut self, request: &PodRequest, seed: u64) -> Decision {
        let class = &request.class;
        self.forget(&request.pod);
        let (best, feasible) = match class.0.asks.only_node() {
            Some(name) => {
                let best = self.slots.get(name).and_then(|slot| {
                    let slot = *slot as usize;
                    let score = score_alone(&class.0, &self.nodes[slot], &self.interner)?;
                    Some(Best {
                        slot,
                        score,
                        runner_up: None,
                    })
                });
                (best, 1)
            }
            None => {
                let candidates = self.synced(class);
                (
                    candidates.best(draw(&request.pod, seed)),
                    candidates.feasible(),
                )
            }
        };
        let Some(Best {
            slot,
            score,
            runner_up,
        }) = best
        else {
            return Decision::Unschedulable(self.explain(class));
        };
        let node = &self.nodes[slot];
        let placement = Placement {
            node: node.name.clone(),
            session: node.session,
            nodes: self.known,
            feasible,
            score: i64::from(score),
            runner_up: runner_up
                .map(|(slot, score)| (self.nodes[slot].name.clone(), i64::from(score))),
        };
        // A slot was made from a `u32`.
        self.count_in(&request.pod, slot as u32, class.clone());
        Decision::Bind(placement)
    }

    fn count_in(&mut self, pod: &ObjectKey, slot: u32, class: Class) {
        self.nodes[slot as usize].add(&class.0.asks.requests, class.0.weighed);
        self.log.push(slot, self.nodes.len());
        self.pods.insert(pod.clone(), Placed { slot, class });
    }

    fn synced(&mut self, class: &Class) -> &mut Candidates {
        let id = class.0.id as usize;
        if self.candidates[id].len() == 0 {
            self.make_room();
        }
        self.uses += 1;
        let Self {
            nodes,
            interner,
            log,
            ..
        } = self;
        let candidates = &mut self.candidates[id];
        candidates.used_at = self.uses;
        candidates.sync(
            &class.0,
            Snapshot {
                nodes,
                interner,
                log,
            },
        );
        candidates
    }

    /// Forgets the candidates of the classes that were not used for the longest time, when all together are too many.
    fn make_room(&mut self) {
        let mut held: usize =
            self.candidates.iter().map(Candidates::len).sum::<usize>() + self.nodes.len();
        while held > MOST_CELLS {
            let oldest = self
                .candidates
                .iter_mut()
                .filter(|c| c.len() > 0)
                .min_by_key(|c| c.used_at);
            let Some(oldest) = oldest else { return };
            held -= oldest.len();
            *oldest = Candidates::default();
        }
    }

    /// Forgets classes that nobody holds.
    fn sweep(&mut self) {
        let Self {
            classes,
            candidates,
            free_ids,
            ..
        } = self;
        classes.retain(|c| {
            let used = Arc::strong_count(&c.0.0) > 1;
            if !used {
                candidates[c.0.0.id as usize] = Candidates::default();
                free_ids.push(c.0.0.id);
            }
            used
        });
        self.sweep_at = (2 * self.classes.len()).max(256);
    }

    fn reasons(&self, class: &Class, node: &Node) -> Vec<Reason> {
        let asks = &class.0.asks;
        if let Err(reason) = asks.admit(node, &self.interner) {
            return vec![reason];
        }
        lacks(&asks.requests, node, &self.interner)
    }

    fn slot_of(&mut self, name: &str) -> u32 {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let name: Arc<str> = Arc::from(name);
        let mut node = Node::new(name.clone());
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                let old = &mut self.nodes[slot as usize];
                // What is remembered of the slot's former node must not be taken for this one's.
                node.facts_version = old.facts_version.wrapping_add(1);
                *old = node;
                slot
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes fit into memory")
            }
        };
        self.slots.insert(name, slot);
        slot
    }

    /// Frees the slot of a node that does not exist and that no pod is counted on.
    fn release_slot(&mut self, slot: u32) {
        let node = &self.nodes[slot as usize];
        if node.facts.is_none() && node.pods == 0 {
            self.slots.remove(&node.name);
            self.free_slots.push(slot);
        }
    }
}

/// What of `requests` the node has not enough of.
fn lacks(requests: &Resources, node: &Node, interner: &Interner) -> Vec<Reason> {
    let fixed =
        (0..requests.fixed.len()).filter(|i| node.lacks_fixed(*i, requests.fixed[*i]).is_some());
    let fixed = fixed.map(|i| {
        if i == PODS {
            Reason::TooManyPods
        } else {
            Reason::Insufficient(NAMES[i].into())
        }
    });
    let extended = requests
        .extended
        .iter()
        .filter(|(name, amount)| *amount > node.free_extended(*name));
    fixed
        .chain(extended.map(|(name, _)| Reason::Insufficient(interner.text(*name).clone())))
        .collect()
}

/// A number that depends on the seed and the pod, and on nothing else.
fn draw(pod: &ObjectKey, seed: u64) -> u64 {
    let mut hasher = FxHasher::default();
    pod.hash(&mut hasher);
    // The finalizer of SplitMix64: every bit of the input reaches every bit of the result.
    let mut z = hasher.finish() ^ seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
