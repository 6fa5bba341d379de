//! From pods to classes, and from classes to the shapes that remember nodes for them.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use setpoint_apis::core::PreemptionPolicy;
use setpoint_apis::view::pod_requests;

use crate::admission::{Admission, Rules};
use crate::class::{Class, ClassInner, Kind, Pin, PodAsk};
use crate::cluster::Cluster;
use crate::own::own;
use crate::ports::ports;
use crate::profile::Profile;
use crate::resources::{CPU, MEMORY, PODS, Resources};
use crate::score::weighed;
use crate::shape::Shape;

/// What tells shapes apart.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ShapeKey {
    kind: u32,
    foreign: Box<[u32]>,
    owned: Box<[u32]>,
    own_affinity: bool,
}

impl Cluster {
    /// The class of a pod.
    pub fn class(&mut self, ask: &PodAsk<'_>) -> Class {
        self.class_pinned(ask, None)
    }

    /// The class of a pod that can run on one node alone, when its volume claims are placed.
    pub fn class_pinned(&mut self, ask: &PodAsk<'_>, pin: Option<&Pin>) -> Class {
        let kind = self.kind(ask, pin);
        let identity = self.state.registry.identity(ask.namespace, ask.labels);
        let kind = Arc::new(kind);
        let known = self.kinds.get(&kind).copied();
        if let Some(id) = known
            && let Some(class) = self.classes.get(&(id, identity))
        {
            return class.clone();
        }
        let next = self.kinds.len() as u32;
        let kind_id = known.unwrap_or_else(|| {
            let id = self.free_kinds.pop().unwrap_or(next);
            self.kinds.insert(kind.clone(), id);
            id
        });
        let kind = match self.kinds.get_key_value(&kind) {
            Some((kind, _)) => kind.clone(),
            None => kind,
        };
        let id = self.free_classes.pop().unwrap_or_else(|| {
            self.shape_of.push((u64::MAX, 0));
            (self.shape_of.len() - 1) as u32
        });
        self.shape_of[id as usize] = (u64::MAX, 0);
        let class = Class(Arc::new(ClassInner {
            id,
            kind,
            kind_id,
            identity,
        }));
        self.classes.insert((kind_id, identity), class.clone());
        if self.classes.len() >= self.sweep_at.max(256) {
            self.sweep();
        }
        class
    }

    /// How many classes there are, those that nobody uses any more included until they are swept.
    pub fn class_count(&self) -> usize {
        self.classes.len()
    }

    fn kind(&mut self, ask: &PodAsk<'_>, pin: Option<&Pin>) -> Kind {
        let state = &mut self.state;
        let spec = ask.spec;
        let profile = Profile {
            weights: ask.profile.weights.bounded(),
            ..ask.profile
        };
        let mut requests = Resources::from_list(&pod_requests(spec), &mut state.interner);
        requests.fixed[PODS] = 1;
        let rules = Rules::of(spec, pin, &profile.weights, &mut state.interner);
        let mut fresh = Vec::new();
        let own = own(
            (ask.namespace, ask.labels),
            spec,
            &mut state.registry,
            &state.nodes,
            &mut fresh,
        );
        if state.nominated > 0 && !fresh.is_empty() {
            let nominated = state.pods.iter().filter(|(_, p)| p.nominated.is_some());
            for (_, pod) in nominated {
                let class = &pod.class.0;
                for term in &fresh {
                    state.registry.fill_nominated(
                        *term,
                        pod.slot,
                        class.identity,
                        class.kind.priority,
                    );
                }
            }
        }
        Kind {
            weighed: weighed(requests.fixed[CPU], requests.fixed[MEMORY]),
            requests,
            only_node: rules.only_node().cloned(),
            bound: rules.node_name.is_some(),
            admission: self.admission(rules),
            ports: ports(spec),
            own,
            priority: ask.priority,
            preempts: spec.preemption_policy != Some(PreemptionPolicy::Never),
            profile,
        }
    }

    fn admission(&mut self, rules: Rules) -> u32 {
        if let Some(id) = self.admissions_by_rules.get(&rules) {
            return *id;
        }
        let rules = Arc::new(rules);
        let id = self.admissions.insert(Admission::new(rules.clone()));
        self.admissions_by_rules.insert(rules, id);
        id
    }

    /// The shape of a class, as terms stand now.
    pub(crate) fn shape(&mut self, class: &Class) -> u32 {
        let inner = &class.0;
        let generation = self.state.registry.generation;
        let (of, id) = self.shape_of[inner.id as usize];
        if of == generation {
            return id;
        }
        let registry = &self.state.registry;
        let matches = |t: &u32| registry.selects(registry.terms[*t].matcher, inner.identity);
        let key = ShapeKey {
            kind: inner.kind_id,
            foreign: registry.foreign_to(inner.identity).into(),
            owned: registry.owned_by(inner.identity).into(),
            own_affinity: inner.kind.own.affinity.iter().any(matches),
        };
        let id = match self.shapes_by_key.get(&key) {
            Some(id) => *id,
            None => {
                let shape = Shape::new(
                    inner.kind.clone(),
                    key.foreign.clone(),
                    key.owned.clone(),
                    key.own_affinity,
                );
                let id = self.shapes.insert(shape);
                self.shapes_by_key.insert(key, id);
                id
            }
        };
        self.shape_of[inner.id as usize] = (generation, id);
        id
    }

    /// Forgets classes that nobody holds, and what was kept for them alone.
    fn sweep(&mut self) {
        let free = &mut self.free_classes;
        self.classes.retain(|_, class| {
            let used = Arc::strong_count(&class.0) > 1;
            if !used {
                free.push(class.0.id);
            }
            used
        });
        let kinds: FxHashSet<u32> = self.classes.keys().map(|k| k.0).collect();
        let free = &mut self.free_kinds;
        self.kinds.retain(|_, id| {
            let used = kinds.contains(id);
            if !used {
                free.push(*id);
            }
            used
        });
        let terms: FxHashSet<u32> = self.kinds.keys().flat_map(|k| k.own.terms()).collect();
        let Self {
            shapes,
            shapes_by_key,
            ..
        } = self;
        shapes_by_key.retain(|key, id| {
            let used = kinds.contains(&key.kind) && key.foreign.iter().all(|t| terms.contains(t));
            if !used {
                shapes.remove(*id);
            }
            used
        });
        let admissions: FxHashSet<u32> = self.kinds.keys().map(|k| k.admission).collect();
        let Self {
            admissions: kept,
            admissions_by_rules,
            ..
        } = self;
        admissions_by_rules.retain(|_, id| {
            let used = admissions.contains(id);
            if !used {
                kept.remove(*id);
            }
            used
        });
        let identities = self.classes.keys().map(|k| k.1).collect();
        self.state.registry.sweep(&identities, &terms);
        self.sweep_at = 2 * self.classes.len();
    }
}
