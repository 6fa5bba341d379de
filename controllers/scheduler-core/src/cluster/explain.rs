//! Why no node can run a pod, and why a node was chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::class::Class;
use crate::cluster::{Cluster, Decision, PodRequest};
use crate::reasons::{Reason, Unschedulable};
use crate::shape::{Finding, Social};

/// A part of the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Free room, by the profile's strategy.
    Resources,
    /// Preferred node affinity.
    NodeAffinity,
    /// Affinity and anti-affinity to other pods.
    PodAffinity,
    /// Spread constraints that may be broken.
    Spread,
    /// Taints `PreferNoSchedule`.
    Taints,
    /// Images that are there already.
    ImageLocality,
}

impl Part {
    /// The part as the fields of a SchedulerProfile call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::NodeAffinity => "nodeAffinity",
            Self::PodAffinity => "podAffinity",
            Self::Spread => "spread",
            Self::Taints => "taints",
            Self::ImageLocality => "imageLocality",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node is worth for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeScore {
    /// The node.
    pub node: Arc<str>,
    /// The sum of the parts.
    pub score: i64,
    /// The parts.
    pub parts: BTreeMap<Part, i64>,
}

/// Tallies of nodes that would do but for one thing: how many, and the one that lacks the least.
type Nearest = BTreeMap<Reason, (u32, i64, Arc<str>)>;

impl Cluster {
    /// Why no node can run a pod of the class now. Reasons are empty for nodes that can.
    pub fn explain(&mut self, class: &Class) -> Arc<Unschedulable> {
        let id = self.shape(class);
        self.refresh(id);
        let end = self.state.log.end();
        if let Some((stamp, verdict)) = &self.shapes[id].verdict
            && *stamp == (0, end)
        {
            return verdict.clone();
        }
        let mut verdict = self.unschedulable(id);
        verdict.preemption = Some(self.could_preempt(id));
        let verdict = Arc::new(verdict);
        self.shapes[id].verdict = Some(((0, end), verdict.clone()));
        verdict
    }

    /// The reasons for a pod that is decided on. Within one call that decides, nodes only fill up, so the reasons of an
    /// earlier pod stand.
    pub(super) fn verdict(&mut self, id: u32) -> Arc<Unschedulable> {
        self.state.log.close();
        let (batch, end) = (self.batch, self.state.log.end());
        if let Some((stamp, verdict)) = &self.shapes[id].verdict
            && (stamp.0 == batch || *stamp == (0, end))
        {
            return verdict.clone();
        }
        let verdict = Arc::new(self.unschedulable(id));
        self.shapes[id].verdict = Some(((batch, end), verdict.clone()));
        verdict
    }

    /// The best nodes for a pod of the class now, at most `nodes`, the best first, with the parts of their scores. Costs
    /// what is shown: of nodes with equal scores some may be left out for others with later names.
    pub fn breakdown(&mut self, class: &Class, nodes: usize) -> Vec<NodeScore> {
        let id = self.shape(class);
        let best = match self.shapes[id].only_node() {
            Some(_) => {
                let alone = self.choose_alone(id);
                let alone = alone.map(|c| (c.slot, Social::default()));
                alone.into_iter().collect()
            }
            None => {
                self.sync(id);
                self.shapes[id].best(nodes, &self.state)
            }
        };
        let best = best.into_iter();
        let mut best: Vec<_> = best
            .map(|(slot, social)| self.node_score(id, slot, social))
            .collect();
        best.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| a.node.cmp(&b.node)));
        best.truncate(nodes);
        best
    }

    /// Decides on one pod as [`Cluster::schedule`] does. When it is bound, the best `nodes` nodes as they were before are
    /// given back as well, and the chosen one if it is not among them: it is drawn among equals.
    pub fn schedule_explained(
        &mut self,
        pod: &PodRequest,
        seed: u64,
        nodes: usize,
    ) -> (Decision, Vec<NodeScore>) {
        self.batch += 1;
        self.forget(&pod.pod);
        let id = self.shape(&pod.class);
        let Some(choice) = self.choice(id, &pod.pod, seed) else {
            return (Decision::Unschedulable(self.verdict(id)), Vec::new());
        };
        let mut scores = self.breakdown(&pod.class, nodes);
        let chosen = &self.state.nodes[choice.slot as usize].name;
        if !scores.iter().any(|s| s.node == *chosen) {
            let [social, _] = self.shapes[id].social_of([choice.slot; 2], &self.state);
            scores.push(self.node_score(id, choice.slot, social));
        }
        (self.bind(pod, id, choice), scores)
    }

    /// Brings up to date what the reasons are read from.
    pub(crate) fn refresh(&mut self, id: u32) {
        // Also where no node is remembered: what is said from now on is read at this end of the log.
        self.state.log.close();
        if self.shapes[id].only_node().is_none() {
            self.sync(id);
        }
    }

    fn node_score(&self, id: u32, slot: u32, social: Social) -> NodeScore {
        let parts = self.parts(id, slot, social);
        NodeScore {
            node: self.state.nodes[slot as usize].name.clone(),
            score: parts.iter().map(|p| p.1).sum(),
            parts: parts.into(),
        }
    }

    pub(super) fn parts(&self, id: u32, slot: u32, social: Social) -> [(Part, i64); 6] {
        let shape = &self.shapes[id];
        let slot = slot as usize;
        let cell = self.admissions[shape.kind.admission].peek(slot, &self.state);
        [
            (
                Part::Resources,
                i64::from(shape.room_score(slot, &self.state)),
            ),
            (Part::NodeAffinity, i64::from(cell.parts[0])),
            (Part::PodAffinity, social.affinity),
            (Part::Spread, social.spread),
            (Part::Taints, i64::from(cell.parts[1])),
            (Part::ImageLocality, i64::from(cell.parts[2])),
        ]
    }

    /// The part in which `other` is worse than `chosen` by the most.
    pub(super) fn lost(&self, id: u32, chosen: u32, other: u32) -> Option<Part> {
        let [of_chosen, of_other] = self.shapes[id].social_of([chosen, other], &self.state);
        let (chosen, other) = (
            self.parts(id, chosen, of_chosen),
            self.parts(id, other, of_other),
        );
        let worse = chosen
            .into_iter()
            .zip(other)
            .map(|((part, a), (_, b))| (a - b, part));
        worse.filter(|w| w.0 > 0).max_by_key(|w| w.0).map(|w| w.1)
    }

    fn unschedulable(&self, id: u32) -> Unschedulable {
        let shape = &self.shapes[id];
        let mut all = Unschedulable {
            nodes: self.state.known,
            wants_others: shape.needs_others(),
            ..Unschedulable::default()
        };
        let mut nearest = Nearest::new();
        let nodes = self.state.nodes.iter().enumerate();
        for (slot, node) in nodes.filter(|(_, n)| n.facts.is_some()) {
            let admission = &self.admissions[shape.kind.admission];
            let findings = shape.findings(slot as u32, admission, &self.state);
            if let [only] = findings.as_slice() {
                let (count, least, which) = nearest.entry(only.reason.clone()).or_insert((
                    0,
                    only.missing,
                    node.name.clone(),
                ));
                *count += 1;
                if (only.missing, &node.name) < (*least, which) {
                    (*least, *which) = (only.missing, node.name.clone());
                }
            }
            // As in Kubernetes, a node that is out of the question has one reason: the first.
            let never: Option<&Finding> = findings.iter().find(|f| f.reason.is_of_node());
            let told = never.map_or(&findings[..], std::slice::from_ref);
            for f in told {
                *all.reasons.entry(f.reason.clone()).or_insert(0) += 1;
                if f.waits && never.is_none() {
                    *all.waiting.entry(f.reason.clone()).or_insert(0) += 1;
                }
            }
        }
        all.set_nearest(nearest);
        all
    }
}
