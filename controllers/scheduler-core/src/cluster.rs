//! The snapshot, and the decisions made on it.

mod classes;
mod explain;
pub(crate) mod gang;
pub(crate) mod near;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};
use setpoint_apis::ObjectKey;

use crate::admission::{Admission, Rules};
use crate::class::{Class, Kind};
use crate::node::{Changed, NodeFacts};
use crate::reasons::Unschedulable;
use crate::shape::{Choice, Shape};
use crate::slab::Slab;
use crate::state::State;

pub use explain::{NodeScore, Part};

/// How many nodes all classes together remember, at 4 bytes each; the classes that were used last are kept.
const MOST_CELLS: usize = 12_000_000;

/// Nodes, what is placed on them, and the classes of pods that ask for them.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(crate) state: State,
    kinds: FxHashMap<Arc<Kind>, u32>,
    free_kinds: Vec<u32>,
    classes: FxHashMap<(u32, u32), Class>,
    free_classes: Vec<u32>,
    /// By class: the shape, and the generation of terms for which it was found.
    shape_of: Vec<(u64, u32)>,
    pub(crate) shapes: Slab<Shape>,
    shapes_by_key: FxHashMap<classes::ShapeKey, u32>,
    pub(crate) admissions: Slab<Admission>,
    admissions_by_rules: FxHashMap<Arc<Rules>, u32>,
    sweep_at: usize,
    uses: u64,
    /// Counts the calls that decide.
    batch: u64,
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
    /// No node can run it. The reasons are those of the first pod of its class in the call.
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
    /// The best node that was not chosen.
    pub runner_up: Option<RunnerUp>,
}

/// The best node that was not chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerUp {
    /// The node.
    pub node: Arc<str>,
    /// Its score.
    pub score: i64,
    /// The part of the score in which it was worse by the most; `None` when it lost the draw between equals.
    pub lost: Option<Part>,
}

impl Cluster {
    /// A cluster without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or takes over what changed of it. Returns whether anything changed that can keep a pod off the node
    /// or let it in; measured usage is none of that.
    pub fn set_node(&mut self, facts: NodeFacts) -> bool {
        let state = &mut self.state;
        let slot = state.slot_of(&facts.name);
        let node = &mut state.nodes[slot as usize];
        let new = node.facts.is_none();
        let changed = node.set(facts, &mut state.interner, &mut state.images);
        state.known += u32::from(new);
        if changed != Changed::Nothing {
            state.relabel(slot);
            state.touch(slot);
        }
        changed == Changed::Facts
    }

    /// Removes a node. Pods placed there stay counted on it. Returns whether there was one.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let state = &mut self.state;
        let Some(slot) = state.slots.get(name).copied() else {
            return false;
        };
        let was = state.nodes[slot as usize].unset(&mut state.images);
        if was {
            state.known -= 1;
            state.relabel(slot);
            state.touch(slot);
        }
        state.release_slot(slot);
        was
    }

    /// What was told of a node.
    pub fn node(&self, name: &str) -> Option<&NodeFacts> {
        let slot = *self.state.slots.get(name)?;
        self.state.nodes[slot as usize].facts.as_deref()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> u32 {
        self.state.known
    }

    /// The names of all nodes, in no particular order.
    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let nodes = self.state.nodes.iter().filter(|n| n.facts.is_some());
        nodes.map(|n| &n.name)
    }

    /// Takes over the labels of a namespace, by which terms select namespaces. Returns whether anything changed. A
    /// namespace that was not told of has its name as label and no other.
    pub fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.relabel_namespace(name, Some(labels))
    }

    /// Forgets the labels of a namespace. Returns whether there were any.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        self.relabel_namespace(name, None)
    }

    fn relabel_namespace(&mut self, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let state = &mut self.state;
        state.count_nominated(false);
        let changed = state.registry.set_namespace(name, labels, &mut state.log);
        state.count_nominated(true);
        changed
    }

    /// Counts a pod on a node, which need not exist. Counting it again changes nothing; counting it elsewhere, or with
    /// another class, moves it; a nomination is replaced. Of two pods the one with the greater `since` is the newer,
    /// whatever it counts.
    pub fn place(&mut self, pod: &ObjectKey, node: &str, class: &Class, since: i64) {
        let state = &mut self.state;
        if let Some(id) = state.pods_by_key.get(pod).copied() {
            let placed = &mut state.pods[id];
            if placed.nominated.is_none()
                && placed.class == *class
                && *state.nodes[placed.slot as usize].name == *node
            {
                if placed.since != since {
                    placed.since = since;
                    state.latest = state.latest.max(since);
                    let slot = placed.slot;
                    state.touch(slot);
                }
                return;
            }
        }
        state.remove(pod);
        let slot = state.slot_of(node);
        state.add(pod, slot, class.clone(), since, None);
    }

    /// Takes a pod off its node: it is gone, has ended, or could not be bound. A nomination ends as well. Returns
    /// whether it was counted or nominated.
    pub fn forget(&mut self, pod: &ObjectKey) -> bool {
        self.state.remove(pod).is_some()
    }

    /// Where a pod is counted, and as what.
    pub fn placed(&self, pod: &ObjectKey) -> Option<(&Arc<str>, &Class)> {
        let placed = self.state.pod(pod).filter(|p| p.nominated.is_none())?;
        Some((&self.state.nodes[placed.slot as usize].name, &placed.class))
    }

    /// How many pods are counted.
    pub fn placed_count(&self) -> usize {
        self.state.pods.len() - self.state.nominated as usize
    }

    /// Decides on pods in order. What is bound counts from then on, also for the next pod.
    ///
    /// Of several nodes with the best score, the seed and the pod's name choose.
    pub fn schedule(&mut self, pods: &[PodRequest], seed: u64) -> Vec<Decision> {
        self.batch += 1;
        pods.iter().map(|p| self.schedule_one(p, seed)).collect()
    }

    /// Whether a node can run a pod of the class now: the exact answer to whether it is worth trying again.
    pub fn has_room(&mut self, class: &Class) -> bool {
        let id = self.shape(class);
        if self.shapes[id].only_node().is_some() {
            return self.choose_alone(id).is_some();
        }
        self.sync(id);
        self.shapes[id].feasible(&self.state) > 0
    }

    fn schedule_one(&mut self, request: &PodRequest, seed: u64) -> Decision {
        let class = &request.class;
        self.forget(&request.pod);
        let id = self.shape(class);
        match self.choice(id, &request.pod, seed) {
            Some(choice) => self.bind(request, id, choice),
            None => Decision::Unschedulable(self.verdict(id)),
        }
    }

    /// The same of a pod that is promised a node.
    fn schedule_at(&mut self, request: &PodRequest, slot: u32, seed: u64) -> Decision {
        let id = self.shape(&request.class);
        match self.choice_at(id, slot) {
            Some(choice) => self.bind(request, id, choice),
            None => self.schedule_one(request, seed),
        }
    }

    /// Counts a pod on the node that was chosen.
    pub(crate) fn bind(&mut self, request: &PodRequest, id: u32, choice: Choice) -> Decision {
        let class = &request.class;
        let runner_up = choice.runner_up.map(|(slot, score)| RunnerUp {
            node: self.state.nodes[slot as usize].name.clone(),
            score,
            lost: (score < choice.score)
                .then(|| self.lost(id, choice.slot, slot))
                .flatten(),
        });
        let state = &mut self.state;
        let node = &state.nodes[choice.slot as usize];
        let placement = Placement {
            node: node.name.clone(),
            session: node.session,
            nodes: state.known,
            feasible: choice.feasible,
            score: choice.score,
            runner_up,
        };
        // Newer than everything that is known, until the caller says when it was bound.
        let since = state.latest.saturating_add(1);
        state.add(&request.pod, choice.slot, class.clone(), since, None);
        Decision::Bind(placement)
    }

    /// The best node for a pod of a shape.
    pub(crate) fn choice(&mut self, id: u32, pod: &ObjectKey, seed: u64) -> Option<Choice> {
        if self.shapes[id].only_node().is_some() {
            return self.choose_alone(id);
        }
        self.sync(id);
        self.shapes[id].choose(draw(pod, seed), &self.state)
    }

    /// A node for a pod of a shape that is promised that node, when it can run there now.
    pub(crate) fn choice_at(&mut self, id: u32, slot: u32) -> Option<Choice> {
        self.refresh(id);
        let shape = &self.shapes[id];
        let admission = &self.admissions[shape.kind.admission];
        let score = shape.score_alone(slot, admission, &self.state)?;
        let others = shape.only_node().is_none();
        Some(Choice {
            slot,
            score,
            feasible: if others {
                shape.feasible(&self.state)
            } else {
                1
            },
            runner_up: None,
        })
    }

    /// The node that pods of a shape name, if it can run them.
    fn choose_alone(&self, id: u32) -> Option<Choice> {
        let shape = &self.shapes[id];
        let slot = *self.state.slots.get(shape.only_node()?)?;
        let admission = &self.admissions[shape.kind.admission];
        let score = shape.score_alone(slot, admission, &self.state)?;
        Some(Choice {
            slot,
            score,
            feasible: 1,
            runner_up: None,
        })
    }

    /// Brings a shape up to date.
    pub(crate) fn sync(&mut self, id: u32) {
        self.uses += 1;
        if self.shapes[id].len() == 0 {
            self.make_room();
        }
        let Self {
            shapes,
            admissions,
            state,
            ..
        } = self;
        state.log.close();
        let shape = &mut shapes[id];
        shape.used_at = self.uses;
        shape.sync(&mut admissions[shape.kind.admission], state);
    }

    /// Forgets what the classes that were not used for the longest time know of nodes, when all together know too much.
    fn make_room(&mut self) {
        let all = self.shapes.iter().map(|(_, s)| s.len());
        let mut held = all.sum::<usize>() + self.state.nodes.len();
        while held > MOST_CELLS {
            let used = self
                .shapes
                .iter_mut()
                .map(|(_, s)| s)
                .filter(|s| s.len() > 0);
            let Some(oldest) = used.min_by_key(|s| s.used_at) else {
                return;
            };
            held -= oldest.len();
            oldest.clear();
        }
    }
}

/// A number that depends on the seed and the pod, and on nothing else.
pub(crate) fn draw(pod: &ObjectKey, seed: u64) -> u64 {
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
