//! What the scheduler knows of a node.

mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::ResourceList;
use setpoint_apis::core::Taint;

use crate::admission::image_name;
use crate::few::Few;
use crate::intern::{Interner, Symbol};
use crate::ports::Taken;
use crate::profile::Strategy;
use crate::resources::{CPU, MEMORY, PODS, Resources};
use crate::score;

/// A node as the scheduler is told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's name.
    pub name: Arc<str>,
    /// The session of its agent, handed back with every placement; it plays no part in decisions.
    pub session: i64,
    /// Why nothing can be placed there, whoever asks; `None` when the node is ready.
    pub not_ready: Option<NotReady>,
    /// Whether new pods are kept away (`cordon`).
    pub unschedulable: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints, of all origins.
    pub taints: Vec<Taint>,
    /// The drivers that run containers there: `process`, `cri`, `oci`, `hollow`.
    pub drivers: Vec<String>,
    /// What pods may request.
    pub allocatable: ResourceList,
    /// The images that are there.
    pub images: Vec<NodeImage>,
    /// What is really used; `None` when that is not known, or not freshly.
    pub usage: Option<Usage>,
}

/// An image that a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeImage {
    /// The names under which it is known.
    pub names: Vec<String>,
    /// Its size.
    pub bytes: u64,
}

/// What is really used of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

impl NodeFacts {
    /// Whether decisions come out the same for both, but for the measured usage.
    fn asks_the_same(&self, other: &Self) -> bool {
        let Self {
            name: _,
            session: _,
            not_ready,
            unschedulable,
            labels,
            taints,
            drivers,
            allocatable,
            images,
            usage: _,
        } = self;
        (not_ready, unschedulable) == (&other.not_ready, &other.unschedulable)
            && (labels, taints) == (&other.labels, &other.taints)
            && (drivers, allocatable) == (&other.drivers, &other.allocatable)
            && *images == other.images
    }
}

/// Why nothing can be placed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotReady {
    /// Its agent has not reported yet what it can run.
    NotReported,
    /// Its agent's session is gone.
    Lost,
    /// Its session is gone together with those of many others.
    Suspended,
    /// It was deleted; its agent has not been started again since.
    Removed,
    /// Its agent says that it is not ready.
    AgentNotReady,
    /// Its document does not parse.
    Invalid,
}

/// Which images a node's drivers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Runs {
    /// `image: host`.
    pub(crate) host: bool,
    /// Any other.
    pub(crate) images: bool,
}

/// How many nodes have each image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images(FxHashMap<Symbol, u32>);

impl Images {
    /// The share of all nodes, in parts.
    pub(crate) const WHOLE: u32 = 8;

    /// Which part of the nodes has an image, rounded up to one of [`Images::WHOLE`] parts: coarse, so that the scores of
    /// all nodes do not change with every node that gets an image.
    pub(crate) fn share(&self, image: Symbol, nodes: u32) -> u32 {
        let have = self.0.get(&image).copied().unwrap_or(0);
        (have * Self::WHOLE).div_ceil(nodes.max(1)).min(Self::WHOLE)
    }

    fn count(&mut self, images: &[(Symbol, u64)], more: bool) {
        for (image, _) in images {
            let have = self.0.entry(*image).or_insert(0);
            *have = if more {
                *have + 1
            } else {
                have.saturating_sub(1)
            };
            if *have == 0 {
                self.0.remove(image);
            }
        }
    }
}

/// What is read of a node for every class whenever it changed, in one line of the processor's cache.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Glance {
    /// What is left of cpu, memory and ephemeral storage.
    free: [i64; 3],
    /// How many more pods it takes; [`Glance::LOOK`] when there is more to look at.
    pods: i32,
    pub(crate) facts_version: u32,
    /// Cpu and memory as the score counts them: the higher of requested and measured.
    load: [i64; 2],
    reciprocal: [f64; 2],
}

impl Glance {
    const LOOK: i32 = i32::MIN;

    /// Whether the figures do not tell all, or the pods ask for something that is not among them.
    pub(crate) fn needs_look(&self, requests: &Resources) -> bool {
        self.pods == Self::LOOK || !requests.extended.is_empty()
    }

    /// Whether one more pod with these requests fits, as far as the figures tell.
    pub(crate) fn fits(&self, requests: &Resources) -> bool {
        let [cpu, memory, _, storage] = requests.fixed;
        let enough = |ask: i64, free: i64| ask <= free || ask == 0;
        self.pods > 0
            && enough(cpu, self.free[0])
            && enough(memory, self.free[1])
            && enough(storage, self.free[2])
    }

    /// The part of the score that is for free room.
    pub(crate) fn score(&self, ask: [i64; 2], strategy: Strategy, weight: i32) -> i32 {
        score::resources(self.load, self.reciprocal, ask, strategy, weight)
    }
}

/// A node with what is placed on it. What changes with every pod comes first, so that it is close together.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Node {
    pub(crate) allocatable: [i64; 4],
    pub(crate) used: [i64; 4],
    /// Cpu and memory as the score counts them: with something for pods that ask for nothing.
    pub(crate) weighed: [i64; 2],
    /// Cpu and memory as they were measured; 0 when they were not.
    pub(crate) measured: [i64; 2],
    pub(crate) name: Arc<str>,
    pub(crate) session: i64,
    /// Changes when anything changed that is asked besides free resources.
    pub(crate) facts_version: u32,
    pub(crate) runs: Runs,
    /// The pods that are counted on it, in no particular order.
    pub(crate) pods: Few,
    /// The pods that are nominated for it.
    pub(crate) nominated: Vec<u32>,
    /// The reservations that are placed on it.
    pub(crate) reserved: Vec<u32>,
    /// 1 / allocatable of cpu and memory; 0 where there is none.
    pub(crate) reciprocal: [f64; 2],
    /// `None`: the node does not exist, yet pods are counted on it.
    pub(crate) facts: Option<Arc<NodeFacts>>,
    /// Extended resources, sorted: name, allocatable, used.
    pub(crate) extended: Vec<(Symbol, i64, i64)>,
    pub(crate) ports: Taken,
    /// Sorted.
    images: Box<[(Symbol, u64)]>,
}

impl Node {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            session: 0,
            facts: None,
            facts_version: 0,
            runs: Runs::default(),
            allocatable: [0; 4],
            used: [0; 4],
            weighed: [0; 2],
            measured: [0; 2],
            reciprocal: [0.0; 2],
            extended: Vec::new(),
            ports: Taken::default(),
            pods: Few::default(),
            nominated: Vec::new(),
            reserved: Vec::new(),
            images: Box::default(),
        }
    }

    /// Takes over new facts.
    pub(crate) fn set(
        &mut self,
        facts: NodeFacts,
        interner: &mut Interner,
        images: &mut Images,
    ) -> Changed {
        self.session = facts.session;
        if let Some(known) = &self.facts
            && known.asks_the_same(&facts)
        {
            if known.usage == facts.usage {
                return Changed::Nothing;
            }
            self.measured = measured(facts.usage);
            self.facts = Some(Arc::new(facts));
            return Changed::Usage;
        }
        self.facts_version = self.facts_version.wrapping_add(1);
        self.runs = runs(&facts.drivers);
        self.measured = measured(facts.usage);
        self.allocate(&Resources::from_list(&facts.allocatable, interner));
        images.count(&self.images, false);
        let names = facts
            .images
            .iter()
            .flat_map(|i| i.names.iter().map(|n| (n, i.bytes)));
        let mut all: Vec<_> = names
            .map(|(name, bytes)| (interner.intern(&image_name(name)), bytes))
            .collect();
        all.sort_unstable();
        all.dedup_by_key(|i| i.0);
        self.images = all.into();
        images.count(&self.images, true);
        self.facts = Some(Arc::new(facts));
        Changed::Facts
    }

    /// The node is gone; what is placed on it stays counted, for the case that it comes back.
    pub(crate) fn unset(&mut self, images: &mut Images) -> bool {
        self.facts_version = self.facts_version.wrapping_add(1);
        self.allocate(&Resources::default());
        images.count(&self.images, false);
        self.images = Box::default();
        self.measured = [0; 2];
        self.facts.take().is_some()
    }

    /// The figures that are looked at most.
    pub(crate) fn glance(&self) -> Glance {
        let free = |i: usize| self.allocatable[i].saturating_sub(self.used[i]);
        let pods = if self.is_special() {
            Glance::LOOK
        } else {
            // What is over-full does not take a pod, by however much.
            free(PODS).clamp(-1, i64::from(i32::MAX)) as i32
        };
        let load = |i: usize| self.weighed[i].max(self.measured[i]);
        Glance {
            free: [free(CPU), free(MEMORY), free(3)],
            pods,
            facts_version: self.facts_version,
            load: [load(0), load(1)],
            reciprocal: self.reciprocal,
        }
    }

    /// Whether there is more to look at than what is used.
    pub(crate) fn is_special(&self) -> bool {
        !self.nominated.is_empty() || !self.reserved.is_empty()
    }

    /// Whether nothing needs the node to be remembered.
    pub(crate) fn is_unused(&self) -> bool {
        self.facts.is_none() && self.pods.is_empty() && !self.is_special()
    }

    /// The size of an image; 0 when it is not there.
    pub(crate) fn image_bytes(&self, image: Symbol) -> u64 {
        let at = self.images.binary_search_by_key(&image, |i| i.0);
        at.map_or(0, |at| self.images[at].1)
    }

    /// Counts a pod in.
    pub(crate) fn add(&mut self, requests: &Resources, weighed: [i64; 2]) {
        self.count(requests, weighed, i64::wrapping_add);
    }

    /// Counts a pod out.
    pub(crate) fn remove(&mut self, requests: &Resources, weighed: [i64; 2]) {
        self.count(requests, weighed, i64::wrapping_sub);
        self.extended
            .retain(|(_, allocatable, used)| *allocatable != 0 || *used != 0);
    }

    /// What is free of an extended resource.
    pub(crate) fn free_extended(&self, name: Symbol) -> i64 {
        match self.extended.binary_search_by_key(&name, |e| e.0) {
            Ok(i) => self.extended[i].1 - self.extended[i].2,
            Err(_) => 0,
        }
    }

    fn count(&mut self, requests: &Resources, weighed: [i64; 2], apply: fn(i64, i64) -> i64) {
        for (used, amount) in self.used.iter_mut().zip(requests.fixed) {
            *used = apply(*used, amount);
        }
        for (used, amount) in self.weighed.iter_mut().zip(weighed) {
            *used = apply(*used, amount);
        }
        for (name, amount) in &requests.extended {
            let i = self.extended_slot(*name);
            self.extended[i].2 = apply(self.extended[i].2, *amount);
        }
    }

    fn allocate(&mut self, allocatable: &Resources) {
        self.allocatable = allocatable.fixed;
        for (r, i) in self.reciprocal.iter_mut().zip([CPU, MEMORY]) {
            let have = allocatable.fixed[i];
            *r = if have > 0 { 1.0 / have as f64 } else { 0.0 };
        }
        for e in &mut self.extended {
            e.1 = 0;
        }
        for (name, amount) in &allocatable.extended {
            let i = self.extended_slot(*name);
            self.extended[i].1 = *amount;
        }
        self.extended
            .retain(|(_, allocatable, used)| *allocatable != 0 || *used != 0);
    }

    fn extended_slot(&mut self, name: Symbol) -> usize {
        match self.extended.binary_search_by_key(&name, |e| e.0) {
            Ok(i) => i,
            Err(i) => {
                self.extended.insert(i, (name, 0, 0));
                i
            }
        }
    }

    /// Whether one more pod with these requests fits.
    pub(crate) fn fits(&self, requests: &Resources) -> bool {
        let fixed = (0..4).all(|i| self.lacks_fixed(i, requests.fixed[i]).is_none());
        fixed
            && requests
                .extended
                .iter()
                .all(|(name, amount)| *amount <= self.free_extended(*name))
    }

    /// How much is missing of a fixed resource; `None` when there is enough. Who asks for nothing needs nothing, even
    /// on a node that is over-full; a pod is a pod, though.
    pub(crate) fn lacks_fixed(&self, resource: usize, amount: i64) -> Option<i64> {
        let missing = self.used[resource].wrapping_add(amount) - self.allocatable[resource];
        (missing > 0 && (amount > 0 || resource == PODS)).then_some(missing)
    }
}

/// What a new set of facts changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Nothing,
    /// What was measured: it is part of scores only.
    Usage,
    Facts,
}

fn measured(usage: Option<Usage>) -> [i64; 2] {
    usage.map_or([0; 2], |u| [u.cpu_milli.max(0), u.memory_bytes.max(0)])
}

fn runs(drivers: &[String]) -> Runs {
    let mut runs = Runs::default();
    for driver in drivers {
        match driver.as_str() {
            "hollow" => {
                runs = Runs {
                    host: true,
                    images: true,
                }
            }
            "process" => runs.host = true,
            "cri" | "oci" => runs.images = true,
            _ => {}
        }
    }
    runs
}
