//! What the scheduler knows of a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::ResourceList;
use setpoint_apis::core::Taint;

use crate::intern::{Interner, Symbol};
use crate::resources::{CPU, MEMORY, PODS, Resources};

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
}

impl NodeFacts {
    /// Whether decisions come out the same for both.
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
        } = self;
        (not_ready, unschedulable) == (&other.not_ready, &other.unschedulable)
            && (labels, taints) == (&other.labels, &other.taints)
            && (drivers, allocatable) == (&other.drivers, &other.allocatable)
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

/// A node with what is placed on it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) session: i64,
    /// `None`: the node does not exist, yet pods are counted on it.
    pub(crate) facts: Option<Arc<NodeFacts>>,
    /// Changes when anything changed that is asked besides free resources.
    pub(crate) facts_version: u32,
    /// Sorted by key.
    pub(crate) labels: Box<[(Symbol, Symbol)]>,
    pub(crate) runs: Runs,
    pub(crate) allocatable: [i64; 4],
    pub(crate) used: [i64; 4],
    /// Cpu and memory as the score counts them: with something for pods that ask for nothing.
    pub(crate) weighed: [i64; 2],
    /// 1 / allocatable of cpu and memory; 0 where there is none.
    pub(crate) reciprocal: [f64; 2],
    /// Extended resources, sorted: name, allocatable, used.
    pub(crate) extended: Vec<(Symbol, i64, i64)>,
    /// How many pods are counted on it.
    pub(crate) pods: u32,
}

impl Node {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            session: 0,
            facts: None,
            facts_version: 0,
            labels: Box::default(),
            runs: Runs::default(),
            allocatable: [0; 4],
            used: [0; 4],
            weighed: [0; 2],
            reciprocal: [0.0; 2],
            extended: Vec::new(),
            pods: 0,
        }
    }

    /// Takes over new facts. Returns whether anything that decisions depend on changed.
    pub(crate) fn set(&mut self, facts: NodeFacts, interner: &mut Interner) -> bool {
        self.session = facts.session;
        if let Some(known) = &self.facts
            && known.asks_the_same(&facts)
        {
            return false;
        }
        self.facts_version = self.facts_version.wrapping_add(1);
        let mut labels: Vec<_> = facts
            .labels
            .iter()
            .map(|(k, v)| (interner.intern(k), interner.intern(v)))
            .collect();
        labels.sort_unstable();
        self.labels = labels.into();
        self.runs = runs(&facts.drivers);
        self.allocate(&Resources::from_list(&facts.allocatable, interner));
        self.facts = Some(Arc::new(facts));
        true
    }

    /// The node is gone; what is placed on it stays counted, for the case that it comes back.
    pub(crate) fn unset(&mut self) -> bool {
        self.facts_version = self.facts_version.wrapping_add(1);
        self.allocate(&Resources::default());
        self.facts.take().is_some()
    }

    /// Counts a pod in.
    pub(crate) fn add(&mut self, requests: &Resources, weighed: [i64; 2]) {
        self.count(requests, weighed, i64::wrapping_add);
        self.pods += 1;
    }

    /// Counts a pod out.
    pub(crate) fn remove(&mut self, requests: &Resources, weighed: [i64; 2]) {
        self.count(requests, weighed, i64::wrapping_sub);
        self.pods = self.pods.saturating_sub(1);
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
