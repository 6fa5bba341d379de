//! What of a node matters to a pod whatever else is placed there: labels, taints, readiness, images. Worked out once per
//! node for all pods that ask the same.

use std::sync::Arc;

use setpoint_apis::core::{PodSpec, Taint, TaintEffect, Toleration, TolerationOperator};
use setpoint_apis::view::UNSCHEDULABLE_TAINT;

use crate::affinity::Term;
use crate::class::Pin;
use crate::intern::{Interner, Symbol};
use crate::node::{Images, Node, Runs};
use crate::profile::Weights;
use crate::reasons::Reason;
use crate::score;
use crate::state::State;

/// The image that stands for programs of the node itself.
pub(crate) const HOST_IMAGE: &str = "host";

/// What pods ask of a node besides room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    /// `spec.nodeName`: placement was decided by who wrote it, so `cordon` and `NoSchedule` do not count.
    pub(crate) node_name: Option<Arc<str>>,
    /// Where the directory of a volume claim is.
    pin: Option<Pin>,
    selector: Box<[(Box<str>, Box<str>)]>,
    required: Option<Box<[Term]>>,
    preferred: Box<[(i32, Term)]>,
    tolerations: Box<[Tolerance]>,
    needs: Runs,
    /// The images of the containers, each as often as it is used; empty when they do not count.
    images: Box<[Symbol]>,
    weights: [i32; 3],
}

/// A toleration, as far as it matters for placing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tolerance {
    key: Box<str>,
    exists: bool,
    value: Box<str>,
    effect: Option<TaintEffect>,
}

/// What the rules say of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// The version of the node's facts that this was made from.
    version: u32,
    /// Whether the pods can run there as far as the rules go.
    pub(crate) admitted: bool,
    /// Whether the node is one that the node selector and the required affinity ask for.
    pub(crate) selected: bool,
    /// Whether every taint that keeps pods away is tolerated, those for which the node's condition stands included.
    pub(crate) tolerated: bool,
    /// Parts of the score: preferred node affinity, taints, images.
    pub(crate) parts: [i32; 3],
}

/// No node has this version until it has changed four billion times.
const UNSEEN: Cell = Cell {
    version: u32::MAX,
    admitted: false,
    selected: false,
    tolerated: false,
    parts: [0; 3],
};

/// Rules with what they say of every node.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    pub(crate) rules: Arc<Rules>,
    cells: Vec<Cell>,
    /// How common the images are; see [`Images::share`].
    shares: Vec<u32>,
    /// Changes when everything must be looked at again.
    pub(crate) epoch: u64,
}

impl Admission {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            cells: Vec::new(),
            shares: Vec::new(),
            epoch: 0,
        }
    }

    /// To be called before cells are read.
    pub(crate) fn refresh(&mut self, images: &Images, nodes: u32) {
        let Self { rules, shares, .. } = self;
        if rules.images.is_empty() {
            return;
        }
        let now = || rules.images.iter().map(|i| images.share(*i, nodes));
        if shares.len() != rules.images.len() || !now().eq(shares.iter().copied()) {
            *shares = now().collect();
            self.cells.clear();
            self.epoch += 1;
        }
    }

    /// What the rules say of a node.
    pub(crate) fn cell(&mut self, slot: usize, state: &State) -> Cell {
        if slot >= self.cells.len() {
            self.cells.resize(slot + 1, UNSEEN);
        }
        let cell = &mut self.cells[slot];
        if cell.version != state.glances[slot].facts_version {
            *cell = self.rules.judge(&state.nodes[slot], &self.shares);
        }
        *cell
    }

    /// The same without remembering it.
    pub(crate) fn peek(&self, slot: usize, state: &State) -> Cell {
        let known = self.cells.get(slot).copied();
        let known = known.filter(|c| c.version == state.glances[slot].facts_version);
        known.unwrap_or_else(|| self.rules.judge(&state.nodes[slot], &self.shares))
    }
}

impl Rules {
    pub(crate) fn of(
        spec: &PodSpec,
        pin: Option<&Pin>,
        weights: &Weights,
        interner: &mut Interner,
    ) -> Self {
        let label = |(k, v): (&String, &String)| (k.as_str().into(), v.as_str().into());
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref());
        let required = affinity
            .and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .map(|s| s.node_selector_terms.iter().map(Term::new).collect());
        let preferred = affinity.map_or(&[][..], |a| {
            &a.preferred_during_scheduling_ignored_during_execution
        });
        let preferred = preferred
            .iter()
            .map(|p| (p.weight.clamp(0, 100), Term::new(&p.preference)))
            .collect();
        let mut tolerations: Vec<_> = spec.tolerations.iter().map(Tolerance::of).collect();
        tolerations.sort_unstable();
        tolerations.dedup();
        let mut needs = Runs::default();
        let mut images = Vec::new();
        for c in spec.all_containers() {
            if c.image == HOST_IMAGE {
                needs.host = true;
            } else {
                needs.images = true;
                images.push(interner.intern(&image_name(&c.image)));
            }
        }
        images.sort_unstable();
        if weights.image_locality == 0 {
            images.clear();
        }
        Self {
            node_name: spec
                .node_name
                .as_deref()
                .filter(|n| !n.is_empty())
                .map(Arc::from),
            pin: pin.cloned(),
            selector: spec.node_selector.iter().map(label).collect(),
            required,
            preferred,
            tolerations: tolerations.into(),
            needs,
            images: images.into(),
            weights: [
                weights.node_affinity,
                weights.taints,
                weights.image_locality,
            ],
        }
    }

    /// The one node that pods can run on, when they name one or are pinned to one.
    pub(crate) fn only_node(&self) -> Option<&Arc<str>> {
        let by_affinity = || match self.required.as_deref() {
            Some([term]) => term.only_node(),
            _ => None,
        };
        let pinned = || self.pin.as_ref().map(|pin| &pin.node);
        self.node_name.as_ref().or_else(pinned).or_else(by_affinity)
    }

    fn judge(&self, node: &Node, shares: &[u32]) -> Cell {
        let mut cell = Cell {
            version: node.facts_version,
            ..UNSEEN
        };
        let Some(facts) = &node.facts else {
            return cell;
        };
        cell.selected = self.selects(node);
        let cordoned = facts.unschedulable && !self.tolerates(&cordon());
        let kept = |t: &&Taint| t.effect != TaintEffect::PreferNoSchedule && !self.tolerates(t);
        cell.tolerated =
            facts.not_ready.is_none() && !cordoned && !facts.taints.iter().any(|t| kept(&t));
        let mut stopped = false;
        self.refusals(node, &mut |_| stopped = true);
        cell.admitted = !stopped;
        if cell.admitted {
            cell.parts = self.parts(node, shares);
        }
        cell
    }

    fn parts(&self, node: &Node, shares: &[u32]) -> [i32; 3] {
        let facts = node.facts.as_deref();
        let (mut matched, mut all) = (0, 0);
        for (weight, term) in &self.preferred {
            all += weight;
            if facts.is_some_and(|f| term.matches(node, &f.labels)) {
                matched += weight;
            }
        }
        let taints = facts.map_or(&[][..], |f| &f.taints).iter();
        let avoided =
            taints.filter(|t| t.effect == TaintEffect::PreferNoSchedule && !self.tolerates(t));
        let present = self.images.iter().zip(shares);
        let bytes: u128 = present
            .map(|(image, share)| u128::from(node.image_bytes(*image)) * u128::from(*share))
            .sum();
        [
            score::share(matched, all, self.weights[0]),
            -score::avoided(avoided.count(), self.weights[1]),
            score::images(
                bytes / u128::from(Images::WHOLE),
                self.images.len(),
                self.weights[2],
            ),
        ]
    }

    fn selects(&self, node: &Node) -> bool {
        let Some(facts) = &node.facts else {
            return false;
        };
        let has =
            |(k, v): &(Box<str>, Box<str>)| facts.labels.get(&**k).is_some_and(|l| **l == **v);
        self.selector.iter().all(has)
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| t.matches(node, &facts.labels)))
    }

    /// Everything that keeps the pods off a node whatever else is there, in the order in which Kubernetes asks.
    pub(crate) fn refusals(&self, node: &Node, tell: &mut dyn FnMut(Reason)) {
        let Some(facts) = &node.facts else {
            return;
        };
        if let Some(why) = facts.not_ready {
            tell(Reason::NotReady(why));
        }
        match &self.node_name {
            Some(name) if *name != node.name => tell(Reason::NodeName),
            Some(_) => {}
            None if facts.unschedulable && !self.tolerates(&cordon()) => {
                tell(Reason::Unschedulable)
            }
            None => {}
        }
        for taint in &facts.taints {
            let counts = match taint.effect {
                TaintEffect::NoExecute => true,
                TaintEffect::NoSchedule => self.node_name.is_none(),
                TaintEffect::PreferNoSchedule => false,
            };
            if counts && !self.tolerates(taint) {
                tell(Reason::Taint {
                    key: taint.key.as_str().into(),
                    value: taint.value.as_deref().unwrap_or_default().into(),
                });
            }
        }
        if !self.selects(node) {
            tell(Reason::Selector);
        }
        if let Some(pin) = self.pin.as_ref().filter(|pin| pin.node != node.name) {
            tell(Reason::VolumeClaim {
                claim: pin.claim.clone(),
                node: pin.node.clone(),
            });
        }
        if self.needs.images && !node.runs.images {
            tell(Reason::Images);
        }
        if self.needs.host && !node.runs.host {
            tell(Reason::Host);
        }
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|t| t.tolerates(taint))
    }
}

/// The taint that a cordoned node has in effect: who tolerates it is placed all the same, as in Kubernetes.
fn cordon() -> Taint {
    Taint {
        key: UNSCHEDULABLE_TAINT.into(),
        ..Taint::default()
    }
}

/// An image's name with the tag that is meant when none is given.
pub(crate) fn image_name(name: &str) -> String {
    let after_path = name.rfind('/').map_or(0, |at| at + 1);
    if name[after_path..].contains([':', '@']) {
        name.to_owned()
    } else {
        format!("{name}:latest")
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
