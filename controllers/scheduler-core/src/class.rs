//! Pods that ask the same of a node.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use setpoint_apis::core::{PodSpec, Taint, TaintEffect, Toleration, TolerationOperator};
use setpoint_apis::view::{UNSCHEDULABLE_TAINT, pod_requests};

use crate::affinity::{Term, label};
use crate::intern::{Interner, Symbol};
use crate::node::{Node, Runs};
use crate::reasons::Reason;
use crate::resources::{CPU, MEMORY, PODS, Resources};
use crate::score::{avoided, preferred, weighed};

/// All pods that ask the same of a node: the same requests, selectors, tolerations, kinds of image and node name.
///
/// A cheap handle, made by [`Cluster::class`](crate::Cluster::class) and of use with that cluster only.
#[derive(Clone, Debug)]
pub struct Class(pub(crate) Arc<ClassInner>);

#[derive(Debug)]
pub(crate) struct ClassInner {
    /// Where the cluster keeps the candidates; given out again when nobody holds the class any more.
    pub(crate) id: u32,
    pub(crate) asks: Asks,
    /// Cpu and memory as the score counts them.
    pub(crate) weighed: [i64; 2],
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Class {}

impl Hash for Class {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

/// What the pods of a class ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asks {
    pub(crate) requests: Resources,
    /// `spec.nodeName`: placement was decided by who wrote it, so `cordon` and `NoSchedule` do not count.
    pub(crate) node_name: Option<Arc<str>>,
    selector: Box<[(Symbol, Symbol)]>,
    required: Option<Box<[Term]>>,
    preferred: Box<[(i32, Term)]>,
    tolerations: Box<[Tolerance]>,
    pub(crate) needs: Runs,
}

/// A toleration, as far as it matters for placing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tolerance {
    key: Box<str>,
    exists: bool,
    value: Box<str>,
    effect: Option<TaintEffect>,
}

impl Asks {
    pub(crate) fn of(spec: &PodSpec, interner: &mut Interner) -> Self {
        let mut requests = Resources::from_list(&pod_requests(spec), interner);
        requests.fixed[PODS] = 1;
        let mut selector: Vec<_> = spec
            .node_selector
            .iter()
            .map(|(k, v)| (interner.intern(k), interner.intern(v)))
            .collect();
        selector.sort_unstable();
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref());
        let required = affinity
            .and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .map(|s| {
                s.node_selector_terms
                    .iter()
                    .map(|t| Term::new(t, interner))
                    .collect()
            });
        let preferred = affinity.map_or(&[][..], |a| {
            &a.preferred_during_scheduling_ignored_during_execution
        });
        let preferred = preferred
            .iter()
            .map(|p| (p.weight.clamp(0, 100), Term::new(&p.preference, interner)));
        let preferred = preferred.collect();
        let mut tolerations: Vec<_> = spec.tolerations.iter().map(Tolerance::of).collect();
        tolerations.sort_unstable();
        tolerations.dedup();
        let mut needs = Runs::default();
        for c in spec.all_containers() {
            if c.image == HOST_IMAGE {
                needs.host = true;
            } else {
                needs.images = true;
            }
        }
        let node_name = spec
            .node_name
            .as_deref()
            .filter(|n| !n.is_empty())
            .map(Arc::from);
        let tolerations = tolerations.into();
        Self {
            requests,
            node_name,
            selector: selector.into(),
            required,
            preferred,
            tolerations,
            needs,
        }
    }

    /// Cpu and memory as the score counts them.
    pub(crate) fn weighed(&self) -> [i64; 2] {
        weighed(self.requests.fixed[CPU], self.requests.fixed[MEMORY])
    }

    /// The one node that pods of the class can run on, when they name one.
    pub(crate) fn only_node(&self) -> Option<&Arc<str>> {
        let by_affinity = || match self.required.as_deref() {
            Some([term]) => term.only_node(),
            _ => None,
        };
        self.node_name.as_ref().or_else(by_affinity)
    }

    /// Everything but free resources: what keeps the pods off a node, or the part of the score that stays the same
    /// while pods come and go.
    pub(crate) fn admit(&self, node: &Node, interner: &Interner) -> Result<i32, Reason> {
        let Some(facts) = &node.facts else {
            return Err(Reason::NoNode);
        };
        if let Some(why) = facts.not_ready {
            return Err(Reason::NotReady(why));
        }
        if let Some(name) = &self.node_name {
            if *name != node.name {
                return Err(Reason::NodeName);
            }
        } else if facts.unschedulable && !self.tolerates(&cordon()) {
            return Err(Reason::Unschedulable);
        }
        let mut avoid = 0;
        for taint in &facts.taints {
            let counts = match taint.effect {
                TaintEffect::NoExecute => true,
                TaintEffect::NoSchedule => self.node_name.is_none(),
                TaintEffect::PreferNoSchedule => {
                    avoid += i32::from(!self.tolerates(taint));
                    false
                }
            };
            if counts && !self.tolerates(taint) {
                return Err(Reason::Taint {
                    key: taint.key.as_str().into(),
                    value: taint.value.as_deref().unwrap_or_default().into(),
                });
            }
        }
        if !self
            .selector
            .iter()
            .all(|(key, value)| label(node, *key) == Some(*value))
        {
            return Err(Reason::Selector);
        }
        if let Some(terms) = &self.required
            && !terms.iter().any(|t| t.matches(node, interner))
        {
            return Err(Reason::Selector);
        }
        if self.needs.images && !node.runs.images {
            return Err(Reason::Images);
        }
        if self.needs.host && !node.runs.host {
            return Err(Reason::Host);
        }
        let (mut matched, mut all) = (0, 0);
        for (weight, term) in &self.preferred {
            all += weight;
            matched += if term.matches(node, interner) {
                *weight
            } else {
                0
            };
        }
        Ok(preferred(matched, all) - avoided(avoid))
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| t.tolerates(taint))
    }
}

/// The image that stands for programs of the node itself.
pub(crate) const HOST_IMAGE: &str = "host";

/// The taint that a cordoned node has in effect: who tolerates it is placed all the same, as in Kubernetes.
fn cordon() -> Taint {
    Taint {
        key: UNSCHEDULABLE_TAINT.into(),
        ..Taint::default()
    }
}

impl Tolerance {
    fn of(t: &Toleration) -> Self {
        Self {
            key: t.key.as_deref().unwrap_or_default().into(),
            exists: t.operator == Some(TolerationOperator::Exists),
            value: t.value.as_deref().unwrap_or_default().into(),
            effect: t.effect,
        }
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|e| e != taint.effect)
            || (!self.key.is_empty() && *self.key != *taint.key)
        {
            return false;
        }
        self.exists
            || (!self.key.is_empty() && *self.value == *taint.value.as_deref().unwrap_or_default())
    }
}
