//! Where many pods go: those that wait in a world, in the scheduler's order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::core::Pod;
use setpoint_apis::records::{Hope, WaitReason};
use setpoint_apis::view::pod_requests;
use setpoint_apis::{ObjectKey, Quantity, ResourceList};
use setpoint_scheduler_core::{
    Class, Decision, Placement, PodRequest, Preemption, Unschedulable, record,
};

use crate::model::{Model, group_of};
use crate::proposal::{Proposal, owner};
use crate::report::{Displaced, NodeUse, Placed, Plan, ResourceUse, Waiting};
use crate::text::{self, Nearest};
use crate::world::{KnownPod, World};

impl Proposal {
    /// Where the pods of the manifests would go, together with those that wait already, when the scheduler looked at all
    /// of them now. The same proposal with the same seed gives the same plan.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut planner = Planner {
            model: Model::new(&self.world),
            proposal: self,
            seed,
            queue: BTreeMap::new(),
            placed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            displaced: Vec::new(),
        };
        let unplaced = planner.model.place_reserved(seed);
        planner.enqueue_all();
        while let Some((_, unit)) = planner.queue.pop_first() {
            match unit {
                Unit::One(one) => planner.place(one),
                Unit::Together(group, members) => planner.place_together(&group, members),
            }
        }
        let mut plan = planner.finish();
        plan.notes.extend(self.notes.iter().cloned());
        for (key, shares, reasons) in unplaced {
            let why: Vec<String> = reasons.iter().map(text::describe).collect();
            let why = if why.is_empty() {
                "there are no nodes".to_owned()
            } else {
                why.join(", ")
            };
            plan.notes.push(format!(
                "reservation {key}: {shares} of {} find no node: {why}",
                self.world.reservations[&key].reservation.spec.count()
            ));
        }
        plan
    }
}

/// The order in which pods are looked at: higher priority first, then older first.
type Order = (Reverse<i32>, i64, ObjectKey);

/// A pod that wants a node.
struct Wanted {
    key: ObjectKey,
    pod: Arc<Pod>,
    class: Class,
}

enum Unit {
    One(Wanted),
    Together(ObjectKey, Vec<Wanted>),
}

struct Planner<'a> {
    model: Model<'a>,
    proposal: &'a Proposal,
    seed: u64,
    queue: BTreeMap<Order, Unit>,
    placed: BTreeMap<ObjectKey, Placed>,
    waiting: BTreeMap<ObjectKey, Waiting>,
    displaced: Vec<(ObjectKey, Displaced)>,
}

impl Planner<'_> {
    fn enqueue_all(&mut self) {
        let mut gangs: BTreeMap<ObjectKey, Vec<(Order, Wanted)>> = BTreeMap::new();
        let world = self.proposal.world();
        let idle = |known: &KnownPod| known.binding.is_none() && !known.is_frozen();
        for (key, known) in world.pods.iter().filter(|(_, k)| idle(k)) {
            let Some(pod) = &known.pod else {
                continue;
            };
            if let Some(gates) = Model::gates(pod) {
                self.waits(key, pod, vec![gates], Vec::new());
                continue;
            }
            let class = match self.model.class(pod) {
                Ok(class) => class,
                Err(reason) => {
                    self.waits(key, pod, vec![reason], Vec::new());
                    continue;
                }
            };
            let order = (Reverse(class.priority()), known.created, key.clone());
            let wanted = Wanted {
                key: key.clone(),
                pod: pod.clone(),
                class,
            };
            match group_of(pod) {
                Some(group) => match self.model.group(&group) {
                    Some(reason) => self.waits(key, pod, vec![reason], Vec::new()),
                    None => gangs.entry(group).or_default().push((order, wanted)),
                },
                None => {
                    self.queue.insert(order, Unit::One(wanted));
                }
            }
        }
        for (group, mut members) in gangs {
            if self.model.still_needed(&group, members.len()) == 0 {
                let all = members.into_iter();
                self.queue
                    .extend(all.map(|(order, w)| (order, Unit::One(w))));
                continue;
            }
            members.sort_by(|a, b| a.0.cmp(&b.0));
            let Some(order) = members.first().map(|(order, _)| order.clone()) else {
                continue;
            };
            let members = members.into_iter().map(|(_, w)| w).collect();
            self.queue.insert(order, Unit::Together(group, members));
        }
    }

    fn place(&mut self, wanted: Wanted) {
        let Wanted { key, pod, class } = wanted;
        if let Some(reason) = self.model.quota(&pod) {
            return self.waits(&key, &pod, vec![reason], Vec::new());
        }
        let class = match self.model.class_now(&pod, class) {
            Ok(class) => class,
            Err(reason) => return self.waits(&key, &pod, vec![reason], Vec::new()),
        };
        let request = PodRequest {
            pod: key.clone(),
            class,
        };
        let decision = self
            .model
            .cluster
            .schedule(std::slice::from_ref(&request), self.seed)
            .pop();
        match decision {
            Some(Decision::Bind(placement)) => self.goes(&key, &pod, &placement),
            Some(Decision::Unschedulable(why)) => self.displace_for(&request, &pod, &why),
            None => {}
        }
    }

    fn displace_for(&mut self, request: &PodRequest, pod: &Pod, why: &Unschedulable) {
        let found = request
            .class
            .may_preempt()
            .then(|| self.model.preempt(request))
            .flatten();
        let Some(found) = found else {
            let reasons = why.wait_reasons(&pod.spec);
            return self.waits(&request.pod, pod, reasons, text::nearest(why, &pod.spec));
        };
        self.displace(&request.pod, &found);
        self.takes(request, pod, &found);
    }

    /// Those who give way to a pod wait for another place.
    fn displace(&mut self, by: &ObjectKey, found: &Preemption) {
        let world = self.proposal.world();
        for victim in &found.victims {
            let document = world.pods.get(victim).and_then(|known| known.pod.as_ref());
            self.model.displace(victim, document.map(|p| &**p));
            self.placed.remove(victim);
            let displaced = Displaced {
                pod: victim.to_string(),
                from: found.node.to_string(),
                by: by.to_string(),
                to: None,
            };
            self.displaced.push((victim.clone(), displaced));
            let Some(document) = document else {
                continue;
            };
            let created = world.pods[victim].created;
            match self.model.class(document) {
                Ok(class) => {
                    let order = (Reverse(class.priority()), created, victim.clone());
                    let wanted = Wanted {
                        key: victim.clone(),
                        pod: document.clone(),
                        class,
                    };
                    self.queue.insert(order, Unit::One(wanted));
                }
                Err(reason) => self.waits(victim, document, vec![reason], Vec::new()),
            }
        }
    }

    /// Members of a group get their places, some of which others give up. Further members wait.
    fn displace_together(
        &mut self,
        requests: &[PodRequest],
        members: &[Wanted],
        places: Vec<Option<Preemption>>,
        why: &Unschedulable,
    ) {
        // Members on one node have the same victims: the first one displaces them.
        let mut cleared = BTreeSet::new();
        for ((request, wanted), place) in requests.iter().zip(members).zip(places) {
            let Some(mut place) = place else {
                let spec = &wanted.pod.spec;
                let (reasons, nearest) = (why.wait_reasons(spec), text::nearest(why, spec));
                self.waits(&wanted.key, &wanted.pod, reasons, nearest);
                continue;
            };
            if cleared.insert(place.node.clone()) {
                self.displace(&request.pod, &place);
            } else {
                place.victims.clear();
                place.violations = 0;
            }
            self.takes(request, &wanted.pod, &place);
        }
    }

    /// A pod gets the room of those who gave way.
    fn takes(&mut self, request: &PodRequest, pod: &Pod, found: &Preemption) {
        // Newer than everything that is there: its own victims are gone, and it is the last to give way to others.
        self.model
            .cluster
            .place(&request.pod, &found.node, &request.class, i64::MAX - 1);
        self.model.count_in_quotas(pod, false, true);
        self.model.place_claims(pod, &found.node);
        let placed = Placed {
            node: found.node.to_string(),
            nodes: self.model.cluster.node_count(),
            displaces: found.victims.iter().map(ToString::to_string).collect(),
            violated_budgets: found.violations,
            ..self.known(&request.pod, pod)
        };
        self.placed.insert(request.pod.clone(), placed);
    }

    fn place_together(&mut self, group: &ObjectKey, members: Vec<Wanted>) {
        let needed = self.model.still_needed(group, members.len());
        // The quota is asked for one after the other, each with those before it.
        let (mut fine, mut over) = (Vec::new(), Vec::new());
        for mut wanted in members {
            if let Some(reason) = self.model.quota(&wanted.pod) {
                over.push((wanted, reason));
                continue;
            }
            match self.model.class_now(&wanted.pod, wanted.class.clone()) {
                Ok(class) => wanted.class = class,
                Err(reason) => {
                    over.push((wanted, reason));
                    continue;
                }
            }
            self.model.count_in_quotas(&wanted.pod, false, true);
            fine.push(wanted);
        }
        for wanted in &fine {
            self.model.count_in_quotas(&wanted.pod, false, false);
        }
        let requests: Vec<PodRequest> = fine
            .iter()
            .map(|w| PodRequest {
                pod: w.key.clone(),
                class: w.class.clone(),
            })
            .collect();
        let outcome = if fine.len() < needed {
            None
        } else {
            let seed = self.seed;
            Some(self.model.cluster.schedule_gang(&requests, needed, seed))
        };
        let in_part = |fit: usize| record::group_fits_in_part(&group.name, fit, needed);
        match outcome {
            None => {
                let quota = over.first().map(|(_, reason)| reason.clone());
                let reason = in_part(fine.len());
                for wanted in fine.into_iter().chain(over.into_iter().map(|(w, _)| w)) {
                    let reasons = [Some(reason.clone()), quota.clone()];
                    let reasons = reasons.into_iter().flatten().collect();
                    self.waits(&wanted.key, &wanted.pod, reasons, Vec::new());
                }
            }
            Some(Err(why)) => {
                let reason = in_part(why.gang.map_or(0, |(fit, _)| fit));
                if let Some(places) = self.model.preempt_gang(group, &requests, needed) {
                    self.displace_together(&requests, &fine, places, &why);
                    fine.clear();
                }
                for wanted in fine.into_iter().chain(over.into_iter().map(|(w, _)| w)) {
                    let spec = &wanted.pod.spec;
                    let mut reasons = vec![reason.clone()];
                    reasons.extend(why.wait_reasons(spec));
                    self.waits(&wanted.key, &wanted.pod, reasons, text::nearest(&why, spec));
                }
            }
            Some(Ok(decisions)) => {
                for (wanted, decision) in fine.into_iter().zip(decisions) {
                    match decision {
                        Decision::Bind(placement) => {
                            self.goes(&wanted.key, &wanted.pod, &placement);
                        }
                        Decision::Unschedulable(why) => {
                            let spec = &wanted.pod.spec;
                            let reasons = why.wait_reasons(spec);
                            let nearest = text::nearest(&why, spec);
                            self.waits(&wanted.key, &wanted.pod, reasons, nearest);
                        }
                    }
                }
                for (wanted, reason) in over {
                    self.waits(&wanted.key, &wanted.pod, vec![reason], Vec::new());
                }
            }
        }
    }

    fn goes(&mut self, key: &ObjectKey, pod: &Pod, placement: &Placement) {
        self.model.count_in_quotas(pod, false, true);
        self.model.place_claims(pod, &placement.node);
        let runner_up = placement.runner_up.as_ref();
        let placed = Placed {
            node: placement.node.to_string(),
            score: placement.score,
            nodes: placement.nodes,
            feasible: placement.feasible,
            runner_up: runner_up.map(|r| (r.node.to_string(), r.score)),
            ..self.known(key, pod)
        };
        self.placed.insert(key.clone(), placed);
    }

    fn known(&self, key: &ObjectKey, pod: &Pod) -> Placed {
        Placed {
            pod: key.to_string(),
            owner: owner(self.proposal.world(), pod),
            new: self.proposal.new.contains(key),
            ..Placed::default()
        }
    }

    fn waits(
        &mut self,
        key: &ObjectKey,
        pod: &Pod,
        reasons: Vec<WaitReason>,
        nearest: Vec<Nearest>,
    ) {
        let waiting = Waiting {
            pod: key.to_string(),
            owner: owner(self.proposal.world(), pod),
            new: self.proposal.new.contains(key),
            hope: hope(&reasons),
            reasons,
            nearest,
        };
        self.waiting.insert(key.clone(), waiting);
    }

    fn finish(mut self) -> Plan {
        let world = self.proposal.world();
        for (key, displaced) in &mut self.displaced {
            displaced.to = self.placed.get(key).map(|p| p.node.clone());
        }
        let gone: BTreeSet<&ObjectKey> = self.displaced.iter().map(|(key, _)| key).collect();
        let nodes = uses(world, &self.placed, &gone);
        let age = |key: &ObjectKey| world.pods.get(key).map_or(0, |known| known.created);
        let mut placed: Vec<(ObjectKey, Placed)> = self.placed.into_iter().collect();
        placed.sort_by_key(|(key, _)| age(key));
        let mut waiting: Vec<(ObjectKey, Waiting)> = self.waiting.into_iter().collect();
        waiting.sort_by_key(|(key, _)| age(key));
        Plan {
            revision: world.revision,
            placed: placed.into_iter().map(|(_, p)| p).collect(),
            waiting: waiting.into_iter().map(|(_, w)| w).collect(),
            displaced: self.displaced.into_iter().map(|(_, d)| d).collect(),
            nodes,
            notes: Vec::new(),
        }
    }
}

/// Whether waiting can help a pod: on one node at least, or with what is not about nodes.
pub(crate) fn hope(reasons: &[WaitReason]) -> Hope {
    let about_nodes = |r: &&WaitReason| r.nodes > 0;
    // What is not about nodes has to hold first.
    let first = reasons.iter().filter(|r| r.nodes == 0);
    if first.clone().any(|r| r.hope == Hope::Never) {
        return Hope::Never;
    }
    let mut nodes = reasons.iter().filter(about_nodes).peekable();
    if nodes.peek().is_some() && nodes.all(|r| r.hope == Hope::Never) {
        return Hope::Never;
    }
    Hope::Waits
}

fn uses(
    world: &World,
    placed: &BTreeMap<ObjectKey, Placed>,
    displaced: &BTreeSet<&ObjectKey>,
) -> Vec<NodeUse> {
    let mut uses: BTreeMap<&str, NodeUse> = BTreeMap::new();
    for (name, node) in &world.nodes {
        let resources = node.allocatable().into_iter().flatten();
        let resources = resources.map(|(resource, allocatable)| {
            let unused = ResourceUse {
                allocatable: *allocatable,
                ..ResourceUse::default()
            };
            (resource.clone(), unused)
        });
        let empty = NodeUse {
            node: name.clone(),
            resources: resources.collect(),
            ..NodeUse::default()
        };
        uses.insert(name, empty);
    }
    for (key, known) in &world.pods {
        let asks = || match (&known.pod, &known.binding) {
            (Some(pod), _) => pod_requests(&pod.spec),
            (None, Some((binding, _))) => (*binding.requests).clone(),
            (None, None) => ResourceList::new(),
        };
        let before = known.node();
        let after = match placed.get(key) {
            Some(placed) => Some(placed.node.as_str()),
            None => before.filter(|_| !displaced.contains(key)),
        };
        if let Some(on) = before.and_then(|node| uses.get_mut(node)) {
            on.pods_before += 1;
            add(&mut on.resources, &asks(), |u| &mut u.before);
        }
        if let Some(on) = after.and_then(|node| uses.get_mut(node)) {
            on.pods += 1;
            add(&mut on.resources, &asks(), |u| &mut u.after);
        }
    }
    uses.into_values().collect()
}

fn add(
    resources: &mut BTreeMap<String, ResourceUse>,
    asks: &ResourceList,
    to: impl Fn(&mut ResourceUse) -> &mut Quantity,
) {
    for (name, unit) in resources {
        if name == "pods" {
            *to(unit) += Quantity::from_whole(1);
        } else if let Some(amount) = asks.get(name) {
            *to(unit) += *amount;
        }
    }
}
