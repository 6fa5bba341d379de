//! The core's cluster, filled from a world, and what has to hold before a node is looked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{Pod, PodSpec, PreemptionPolicy};
use setpoint_apis::placement::{self, ReservationSpec, pod_group_of, profile_of};
use setpoint_apis::records::{ConstraintKind, Hope, WaitReason};
use setpoint_apis::resolve::{self, PriorityProblem};
use setpoint_apis::scheduling::PriorityClass;
use setpoint_apis::{ObjectKey, ResourceList};
use setpoint_scheduler_core::claims::{self, Claim};
use setpoint_scheduler_core::{
    Class, Cluster, Decision, MOST_SHARES, Pin, PodAsk, PodRequest, Preemption, Profile,
    ReservationFacts, record, share, stand_in,
};

use crate::budgets::Budgets;
use crate::world::{KnownPod, World};

/// See the module.
pub(crate) struct Model<'a> {
    pub(crate) world: &'a World,
    pub(crate) cluster: Cluster,
    /// The class of pods that name none.
    default: Option<&'a PriorityClass>,
    /// What counts, by quota.
    used: BTreeMap<ObjectKey, ResourceList>,
    budgets: Budgets,
    groups: BTreeMap<ObjectKey, Members>,
    /// Where the volume claims are from now on that were nowhere.
    claims: BTreeMap<ObjectKey, Arc<str>>,
}

/// The pods of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// How many there are.
    pub(crate) all: usize,
    /// How many of them have a node.
    pub(crate) bound: usize,
}

impl<'a> Model<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let mut model = Self {
            world,
            cluster: Cluster::new(),
            default: resolve::global_default(world.classes.values()),
            used: BTreeMap::new(),
            budgets: Budgets::of_world(world),
            groups: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        for (name, labels) in &world.namespaces {
            model.cluster.set_namespace(name, labels);
        }
        for (name, node) in &world.nodes {
            model.cluster.set_node(node.facts(name));
        }
        for (key, known) in &world.pods {
            model.count(key, known);
        }
        for (key, known) in &world.pods {
            model.nominate(key, known);
        }
        model.hold_reserved();
        model
    }

    fn count(&mut self, key: &ObjectKey, known: &KnownPod) {
        if let Some(pod) = &known.pod {
            if let Some(group) = group_of(pod) {
                let members = self.groups.entry(group).or_default();
                members.all += usize::from(!known.is_finished());
                members.bound += usize::from(known.node().is_some());
            }
            if known.binding.is_some() || known.node().is_some() {
                // One that was stopped to be moved starts elsewhere under the same binding.
                let binding = known.binding.as_ref();
                let moves =
                    binding.is_some_and(|(b, _)| b.withdrawn.is_some() && b.moving.is_some());
                self.count_in_quotas(pod, known.is_finished() && !moves, true);
            }
        }
        let Some(node) = known.node() else {
            return;
        };
        let binding = known.binding.as_ref();
        let class = match &known.pod {
            Some(pod) => self
                .class_pinned(pod, None)
                .unwrap_or_else(|_| self.plain_class(pod)),
            None => {
                let spec = PodSpec {
                    overhead: binding
                        .map_or_else(ResourceList::new, |(b, _)| (*b.requests).clone()),
                    ..PodSpec::default()
                };
                self.cluster
                    .class(&ask(&key.namespace, &BTreeMap::new(), &spec, 0))
            }
        };
        let since = binding.map_or(known.created, |(_, since)| *since);
        self.cluster.place(key, node, &class, since);
        self.cluster.set_staying(key, known.is_frozen());
        // While it is moved it takes room on two nodes.
        if let Some(other) = known.other_node() {
            let name = ObjectKey {
                namespace: key.namespace.clone(),
                // No object has such a name.
                name: format!("{}#aside", key.name).into(),
            };
            self.cluster.place(&name, other, &class, since);
            self.cluster.set_staying(&name, true);
        }
    }

    /// The class of a pod that runs although its priority class or profile is gone.
    fn plain_class(&mut self, pod: &Pod) -> Class {
        let meta = &pod.metadata;
        let priority = pod.spec.priority.unwrap_or(0);
        self.cluster
            .class(&ask(&meta.namespace, &meta.labels, &pod.spec, priority))
    }

    /// Keeps the room that is being cleared for a pod.
    fn nominate(&mut self, key: &ObjectKey, known: &KnownPod) {
        let said = known.scheduling.as_ref();
        let (None, Some(pod), Some(node)) = (
            &known.binding,
            &known.pod,
            said.and_then(|s| s.nominated_node.as_deref()),
        ) else {
            return;
        };
        if let Ok(class) = self.class(pod) {
            let victims = leaving(self.world, node);
            self.cluster.nominate(key, node, &class, &victims);
        }
    }

    fn hold_reserved(&mut self) {
        for (key, reserved) in &self.world.reservations {
            let held = reserved.status.iter().flat_map(|s| &s.nodes);
            let nodes: Vec<String> = held
                .flat_map(|n| std::iter::repeat_n(n.name.clone(), shares(n.count)))
                .collect();
            for (i, node) in nodes.iter().enumerate() {
                self.hold(key, i, Some(node));
            }
        }
    }

    /// Holds one of the shares of a reservation.
    fn hold(&mut self, key: &ObjectKey, index: usize, node: Option<&str>) {
        let spec = &self.world.reservations[key].reservation.spec;
        self.cluster.set_reservation(ReservationFacts {
            key: share(key, index),
            owner: spec.owners.selector.clone(),
            namespaces: self.owners_namespaces(key, spec),
            resources: spec.resources.clone(),
            node: node.map(Into::into),
        });
    }

    fn owners_namespaces(&self, key: &ObjectKey, spec: &ReservationSpec) -> Vec<String> {
        let all = self.world.namespaces.iter();
        let all = all.map(|(name, labels)| (name.as_str(), labels));
        spec.owners.namespaces_of(&key.namespace, all)
    }

    /// Finds places for what is reserved and has none. Returns the shares that have found none, with the reasons.
    pub(crate) fn place_reserved(&mut self, seed: u64) -> Vec<(ObjectKey, usize, Vec<WaitReason>)> {
        let mut waiting = Vec::new();
        let world = self.world;
        for (key, reserved) in &world.reservations {
            let spec = &reserved.reservation.spec;
            let held = reserved.status.iter().flat_map(|s| &s.nodes);
            let held: usize = held.map(|n| shares(n.count)).sum();
            let expired = reserved.status.as_ref().is_some_and(|s| {
                s.conditions
                    .iter()
                    .any(|c| c.type_ == "Expired" && c.is_true())
            });
            let wanted = shares(spec.count());
            if expired || held >= wanted {
                continue;
            }
            let class = self.cluster.stand_in_class(spec);
            for index in held..wanted {
                let pod = share(key, index);
                let request = PodRequest {
                    pod: pod.clone(),
                    class: class.clone(),
                };
                match self.cluster.schedule(&[request], seed).pop() {
                    Some(Decision::Bind(placement)) => {
                        self.cluster.forget(&pod);
                        self.hold(key, index, Some(&placement.node));
                    }
                    Some(Decision::Unschedulable(why)) => {
                        let reasons = why.wait_reasons(&stand_in(spec));
                        waiting.push((key.clone(), wanted - index, reasons));
                        break;
                    }
                    None => {}
                }
            }
        }
        waiting
    }

    /// What a pod asks of nodes that is to be placed.
    ///
    /// # Errors
    /// The priority class or the profile that it names is not there, or a volume claim of it cannot be used.
    pub(crate) fn class(&mut self, pod: &Pod) -> Result<Class, WaitReason> {
        let namespace = &pod.metadata.namespace;
        let find = |name: &str| self.claim(&ObjectKey::namespaced(namespace.as_str(), name));
        let pin = claims::pin(&pod.spec, find).map_err(|why| WaitReason {
            constraint: ConstraintKind::VolumeClaim,
            detail: why.to_string(),
            nodes: 0,
            hope: Hope::Waits,
        })?;
        self.class_pinned(pod, pin.as_ref())
    }

    /// The class of a pod, when others may have been placed since it was worked out: where its volume claims are now.
    ///
    /// # Errors
    /// As for [`Model::class`].
    pub(crate) fn class_now(&mut self, pod: &Pod, before: Class) -> Result<Class, WaitReason> {
        match pod.spec.claim_names().is_empty() {
            true => Ok(before),
            false => self.class(pod),
        }
    }

    fn claim(&self, key: &ObjectKey) -> Claim {
        match self.claims.get(key) {
            Some(node) => Claim::On(node.clone()),
            None => self.world.claim(key),
        }
    }

    /// A pod goes to a node: its volume claims are there from now on.
    pub(crate) fn place_claims(&mut self, pod: &Pod, node: &Arc<str>) {
        for name in pod.spec.claim_names() {
            let key = ObjectKey::namespaced(pod.metadata.namespace.as_str(), name);
            if self.claim(&key) == Claim::Free {
                self.claims.insert(key, node.clone());
            }
        }
    }

    fn class_pinned(&mut self, pod: &Pod, pin: Option<&Pin>) -> Result<Class, WaitReason> {
        let reason = |constraint, detail: String, hope| WaitReason {
            constraint,
            detail,
            nodes: 0,
            hope,
        };
        let profile = match profile_of(&pod.spec) {
            None => placement::Profile::default(),
            // It can be made, and then the pod need not be changed.
            Some(name) => *self.world.profiles.get(name).ok_or_else(|| {
                reason(ConstraintKind::SchedulerProfile, name.into(), Hope::Waits)
            })?,
        };
        let classes = &self.world.classes;
        let priority = resolve::priority(&pod.spec, |name| classes.get(name), self.default)
            .map_err(|problem| {
                let hope = match problem {
                    PriorityProblem::UnknownClass(_) => Hope::Waits,
                    PriorityProblem::Disagrees { .. } => Hope::Never,
                };
                reason(ConstraintKind::PriorityClass, problem.to_string(), hope)
            })?;
        let mut spec = Cow::Borrowed(&*pod.spec);
        if spec.preemption_policy.is_none() && priority.preemption == PreemptionPolicy::Never {
            spec.to_mut().preemption_policy = Some(priority.preemption);
        }
        let meta = &pod.metadata;
        let ask = PodAsk {
            profile: (&profile).into(),
            ..ask(&meta.namespace, &meta.labels, &spec, priority.value)
        };
        Ok(self.cluster.class_pinned(&ask, pin))
    }

    /// What keeps a pod from being looked at, whatever nodes there are: its gates.
    pub(crate) fn gates(pod: &Pod) -> Option<WaitReason> {
        let gates: Vec<&str> = pod
            .spec
            .scheduling_gates
            .iter()
            .map(|g| g.name.as_str())
            .collect();
        (!gates.is_empty()).then(|| WaitReason {
            constraint: ConstraintKind::SchedulingGates,
            detail: gates.join(", "),
            nodes: 0,
            hope: Hope::Waits,
        })
    }

    /// The quota that would be exceeded, or that wants more to be said.
    pub(crate) fn quota(&self, pod: &Pod) -> Option<WaitReason> {
        let unknown = self.world.unknown_quotas.iter();
        if let Some(key) = unknown
            .clone()
            .find(|key| *key.namespace == *pod.metadata.namespace)
        {
            return Some(WaitReason {
                constraint: ConstraintKind::Quota,
                detail: format!("{}: its document cannot be read", key.name),
                nodes: 0,
                hope: Hope::Waits,
            });
        }
        let more = resolve::quota_usage(&pod.spec, false);
        let quotas = self.world.quotas.iter();
        let here = quotas.filter(|(key, _)| *key.namespace == *pod.metadata.namespace);
        for (key, quota) in here.filter(|(_, q)| resolve::quota_covers(&q.spec, &pod.spec)) {
            let hard = &quota.spec.hard;
            let reason = |detail: String, hope| WaitReason {
                constraint: ConstraintKind::Quota,
                detail: format!("{}: {detail}", key.name),
                nodes: 0,
                hope,
            };
            let unsaid = resolve::unspecified(hard, &pod.spec).into_iter();
            let unsaid = unsaid.map(|(name, c)| format!("{name} for: {}", c.join(",")));
            let unsaid: Vec<_> = unsaid.collect();
            if !unsaid.is_empty() {
                let detail = format!("must specify {}", unsaid.join("; "));
                return Some(reason(detail, Hope::Never));
            }
            let none = ResourceList::new();
            let used = self.used.get(key).unwrap_or(&none);
            let over = resolve::excess(hard, used, &more);
            if !over.is_empty() {
                let hope = if over.iter().any(|e| e.requested > e.hard) {
                    Hope::Never
                } else {
                    Hope::Waits
                };
                let all: Vec<String> = over.iter().map(ToString::to_string).collect();
                return Some(reason(all.join("; "), hope));
            }
        }
        None
    }

    /// Counts a pod in or out of the quotas of its namespace.
    pub(crate) fn count_in_quotas(&mut self, pod: &Pod, finished: bool, more: bool) {
        let quotas = self.world.quotas.iter();
        let here = quotas.filter(|(key, _)| *key.namespace == *pod.metadata.namespace);
        for (key, _) in here.filter(|(_, q)| resolve::quota_covers(&q.spec, &pod.spec)) {
            let used = self.used.entry(key.clone()).or_default();
            for (name, amount) in resolve::quota_usage(&pod.spec, finished) {
                let known = used.entry(name).or_default();
                if more {
                    *known += amount;
                } else {
                    *known -= amount;
                }
            }
        }
    }

    /// The pods of a group.
    pub(crate) fn members(&self, group: &ObjectKey) -> Members {
        self.groups.get(group).copied().unwrap_or_default()
    }

    /// Why a pod's group keeps it from being placed, whatever nodes there are.
    pub(crate) fn group(&self, group: &ObjectKey) -> Option<WaitReason> {
        let waits = |why: &str| record::group_waits(&group.name, why);
        let Some(known) = self.world.groups.get(group) else {
            return Some(waits("there is no PodGroup of this name"));
        };
        let (members, min) = (self.members(group).all, min_member(known.spec.min_member));
        let placed = self.world.placed_groups.contains(group);
        (members < min && !placed).then(|| waits(&format!("{members} of {min} members exist")))
    }

    /// How many pods of a group are still to be placed together, when so many want a node.
    pub(crate) fn still_needed(&self, group: &ObjectKey, wanting: usize) -> usize {
        let min = self.world.groups.get(group);
        let min = min.map_or(0, |g| min_member(g.spec.min_member));
        let needed = min.saturating_sub(self.members(group).bound);
        match self.world.placed_groups.contains(group) {
            true => needed.min(wanting),
            false => needed,
        }
    }

    /// Whom a pod would displace.
    pub(crate) fn preempt(&mut self, request: &PodRequest) -> Option<Preemption> {
        let Self {
            cluster, budgets, ..
        } = self;
        cluster.preempt(request, &|pod| budgets.of(pod))
    }

    /// Whom a group would displace, by member: `None` for members beyond those needed.
    pub(crate) fn preempt_gang(
        &mut self,
        group: &ObjectKey,
        requests: &[PodRequest],
        needed: usize,
    ) -> Option<Vec<Option<Preemption>>> {
        let Self {
            cluster,
            budgets,
            world,
            ..
        } = self;
        let members = world.pods.iter().filter(|(_, known)| {
            let pod = known.pod.as_ref();
            pod.is_some_and(|pod| group_of(pod).as_ref() == Some(group))
        });
        let members: Vec<ObjectKey> = members.map(|(key, _)| key.clone()).collect();
        cluster.preempt_gang(requests, needed, &members, &|pod| budgets.of(pod))
    }

    /// Takes a displaced pod out of everything that it counts in.
    pub(crate) fn displace(&mut self, key: &ObjectKey, pod: Option<&Pod>) {
        self.cluster.forget(key);
        self.budgets.spend(key);
        if let Some(pod) = pod {
            self.count_in_quotas(pod, false, false);
        }
    }
}

/// The pods that are being withdrawn from a node.
pub(crate) fn leaving(world: &World, node: &str) -> Vec<ObjectKey> {
    let there = |k: &KnownPod| {
        k.node() == Some(node)
            && k.binding
                .as_ref()
                .is_some_and(|(b, _)| b.withdrawn.is_some())
    };
    let pods = world.pods.iter().filter(|(_, known)| there(known));
    pods.map(|(key, _)| key.clone()).collect()
}

/// The group that a pod belongs to.
pub(crate) fn group_of(pod: &Pod) -> Option<ObjectKey> {
    let name = pod_group_of(&pod.metadata)?;
    Some(ObjectKey::namespaced(pod.metadata.namespace.as_str(), name))
}

/// How many shares of a reservation are looked at.
fn shares(count: i32) -> usize {
    usize::try_from(count).unwrap_or(0).min(MOST_SHARES)
}

pub(crate) fn min_member(stated: i32) -> usize {
    usize::try_from(stated).unwrap_or(0)
}

fn ask<'a>(
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
    spec: &'a PodSpec,
    priority: i32,
) -> PodAsk<'a> {
    PodAsk {
        namespace,
        labels,
        spec,
        priority,
        profile: Profile::default(),
    }
}
