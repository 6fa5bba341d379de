//! What changed in the state trees and among the requests, and whom it concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use setpoint_apis::core::{Namespace, PersistentVolumeClaim, Pod, PodSpec, ResourceQuota};
use setpoint_apis::placement::{
    PodGroup, PodGroupPhase, Reservation, SchedulerProfile, profile_of,
};
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::scheduling::PriorityClass;
use setpoint_apis::{Keyspace, ObjectKey};
use setpoint_runtime::watcher::WatcherEvent;
use setpoint_runtime::{Changes, View};
use setpoint_scheduler_core::budgets::Budget;

use super::count::is_charged;
use super::statuses::StatusOf;
use super::{Account, nodes};
use crate::asks::class_of;
use crate::content::{Source, SourceKind};
use crate::gangs::Group;
use crate::observe::{self, Subject};
use crate::quota::{PodUse, Rule};
use crate::scales;
use crate::tombstones::Item;

impl Account {
    /// Counts everything that is there. Nothing is placed before that.
    pub(crate) fn resync(&mut self, view: &View<'_>) {
        for name in keys::<PriorityClass>(view) {
            self.set_priority_class(&name.name, view);
        }
        for name in keys::<SchedulerProfile>(view) {
            self.set_profile(&name.name, view);
        }
        for name in keys::<Namespace>(view) {
            self.set_namespace(&name.name, view);
        }
        for node in nodes(view) {
            self.set_node(view, &node);
        }
        let pods = view.desired::<Pod>().entries().map(|(k, _)| k);
        let all: Vec<_> = pods
            .chain(view.bindings().entries().map(|(k, _)| k))
            .cloned()
            .collect();
        for key in all {
            let mut state = self.pods.remove(&key).unwrap_or_default();
            self.count(&key, &mut state, view);
            self.pods.insert(key.clone(), state);
            // Before the groups themselves: what they are depends on which of their pods are bound.
            self.foretell_group(&key, view);
            self.touch(key);
        }
        for key in keys::<ResourceQuota>(view) {
            self.set_quota(&key, view);
        }
        for key in keys::<PodDisruptionBudget>(view) {
            self.set_budget(&key, view);
        }
        self.set_scales(view, self.budgets.owners());
        for key in keys::<PodGroup>(view) {
            self.set_group(&key, view);
        }
        self.unread_reservations.extend(keys::<Reservation>(view));
        for key in keys::<PersistentVolumeClaim>(view) {
            self.tombstones.touch(Item::Claim(key));
        }
        self.tombstones.resync();
        self.restore_nominations(view);
    }

    /// Takes note of changes of the state trees.
    pub(crate) fn changed(&mut self, changes: &Changes, view: &View<'_>) {
        if changes.resync {
            self.resync(view);
        }
        let (mut scaled, mut autoscaled) = (Vec::new(), BTreeSet::new());
        for subject in changes.keys.iter().filter_map(observe::subject) {
            match subject {
                Subject::Pod(key) => self.touch(key),
                Subject::Node(node) => {
                    self.tombstones.node_changed(&node);
                    self.dirty_nodes.insert(node);
                }
                Subject::Session(node) => {
                    self.touch_requested(&node);
                    self.touch_movers(&node);
                    self.touch_budgeted(&node, view);
                    self.tombstones.node_changed(&node);
                    self.tombstones.session_changed();
                    self.dirty_nodes.insert(node);
                }
                Subject::Fence(node) => self.touch_requested(&node),
                Subject::Source(source) => self.contents.source_changed(&source),
                Subject::Namespace(name) => self.set_namespace(&name, view),
                Subject::PriorityClass(name) => {
                    let (changed, default) = self.set_priority_class(&name, view);
                    if changed {
                        self.touch_where(view, |spec| match class_of(spec) {
                            Some(class) => *class == *name,
                            None => default,
                        });
                    }
                }
                Subject::Profile(name) => {
                    if self.set_profile(&name, view) {
                        self.touch_where(view, |spec| profile_of(spec) == Some(&name));
                    }
                }
                Subject::Claim(key) => {
                    for pod in self.claims.take(&key) {
                        self.touch(pod);
                    }
                    self.tombstones.touch(Item::Claim(key.clone()));
                    let kind = SourceKind::Claim;
                    let source = Source { kind, object: key };
                    self.contents.source_changed(&source);
                }
                Subject::Quota(key) => self.set_quota(&key, view),
                Subject::Budget(key) => self.set_budget(&key, view),
                Subject::Workload(plural, key) => {
                    if self.budgets.covers(&key.namespace) {
                        let owner = scales::name(plural, &key.name);
                        scaled.push((key.namespace, owner));
                    }
                }
                // Which workload it was about before is not known.
                Subject::Autoscaler(key) => {
                    autoscaled.insert(key.namespace);
                }
                Subject::Autoscaled(key) => {
                    if self.budgets.covers(&key.namespace)
                        && let Some(owner) = scales::target(view, &key)
                    {
                        scaled.push((key.namespace, owner));
                    }
                }
                Subject::Group(key) => self.set_group(&key, view),
                Subject::Reservation(key) => {
                    self.dirty_reservations.insert(key);
                }
            }
        }
        if !autoscaled.is_empty() {
            let all = self.budgets.owners().into_iter();
            scaled.extend(all.filter(|(namespace, _)| autoscaled.contains(namespace)));
        }
        self.set_scales(view, scaled);
    }

    /// Takes note of requests.
    pub(crate) fn requested(&mut self, event: WatcherEvent, keyspace: &Keyspace) {
        for pod in self.intents.observe(event, keyspace) {
            self.touch(pod);
        }
    }

    /// Requests depend on the sessions and fences of the nodes that they are about.
    fn touch_requested(&mut self, node: &str) {
        for pod in self.intents.concerning(node) {
            self.touch(pod);
        }
    }

    /// Whether pods serve that are counted by budgets depends on the sessions of their nodes.
    fn touch_budgeted(&mut self, node: &str, view: &View<'_>) {
        if self.budgets.is_empty() {
            return;
        }
        let there = view.pods_on(node).into_iter().flat_map(|t| t.entries());
        let there: Vec<_> = there
            .map(|(pod, _)| pod.clone())
            .filter(|pod| self.budgets.covers(&pod.namespace))
            .collect();
        for pod in there {
            self.touch(pod);
        }
    }

    /// Looks again at the pods whose specs refer to what changed. Rare enough to look for them when it does.
    fn touch_where(&mut self, view: &View<'_>, concerned: impl Fn(&PodSpec) -> bool) {
        let pods = view.desired::<Pod>().entries();
        let pods: Vec<_> = pods
            .filter(|(_, entry)| entry.last_good().is_some_and(|p| concerned(&p.value.spec)))
            .map(|(key, _)| key.clone())
            .collect();
        for pod in pods {
            self.touch(pod);
        }
    }

    fn set_priority_class(&mut self, name: &Arc<str>, view: &View<'_>) -> (bool, bool) {
        let key = ObjectKey::cluster(name.clone());
        self.asks
            .set_class(name, view.desired::<PriorityClass>().entry(&key))
    }

    fn set_profile(&mut self, name: &Arc<str>, view: &View<'_>) -> bool {
        let key = ObjectKey::cluster(name.clone());
        self.asks
            .set_profile(name, view.desired::<SchedulerProfile>().entry(&key))
    }

    /// Rules about pods of other namespaces, and reservations for them, select namespaces by their labels.
    fn set_namespace(&mut self, name: &Arc<str>, view: &View<'_>) {
        let key = ObjectKey::cluster(name.clone());
        let changed = match view.desired::<Namespace>().entry(&key) {
            Some(entry) => {
                let namespace = observe::last_good(Some(entry));
                let labels = namespace.map(|n| n.value.metadata.labels.clone());
                self.cluster
                    .set_namespace(name, &labels.unwrap_or_default())
            }
            None => self.cluster.remove_namespace(name),
        };
        if changed {
            self.nodes_changed = true;
            self.dirty_reservations
                .extend(self.reservations.across_namespaces());
        }
    }

    fn set_quota(&mut self, key: &ObjectKey, view: &View<'_>) {
        self.statuses.mark(StatusOf::Quota, key);
        let Some(entry) = view.desired::<ResourceQuota>().entry(key) else {
            self.quotas.remove(key);
            return;
        };
        let rule = match entry.last_good() {
            Some(quota) => Rule::of(&quota.value.spec),
            None => Rule::unknown(),
        };
        if !self.quotas.set(key, rule) {
            return;
        }
        // The first of its namespace: what is bound there already is charged, bindings under way included.
        let bound = view.bindings().namespace(&key.namespace);
        let bound = bound.map(|(pod, _)| pod.clone());
        let under_way = self
            .pods
            .iter()
            .filter(|(pod, state)| state.busy && pod.namespace == key.namespace);
        let all: BTreeSet<_> = under_way.map(|(pod, _)| pod.clone()).chain(bound).collect();
        for pod in all {
            let charged = match observe::binding(view, &pod) {
                Some(binding) => is_charged(view, &pod, &binding.value),
                None => self.cluster.placed(&pod).is_some(),
            };
            if charged {
                let usage = self.usage(&pod, view);
                self.quotas.charge(&pod, &usage);
            }
        }
    }

    /// What quotas count of a pod that is placed.
    fn usage(&mut self, key: &ObjectKey, view: &View<'_>) -> Arc<PodUse> {
        let binding = observe::binding(view, key);
        let pod = observe::last_good(view.desired::<Pod>().entry(key));
        let pod = pod.filter(|pod| binding.is_none_or(|b| crate::decide::belongs(pod, &b.value)));
        match (pod, binding) {
            (Some(pod), _) => {
                let asked = self.asks.of_placed(&pod.value.spec);
                let specs = &mut self.specs;
                let info = specs.get(&pod.value, &key.namespace, &asked, &mut self.cluster);
                info.usage().clone()
            }
            (None, Some(binding)) => Arc::new(PodUse::of_requests(&binding.value.requests)),
            (None, None) => Arc::default(),
        }
    }

    fn set_budget(&mut self, key: &ObjectKey, view: &View<'_>) {
        self.statuses.mark(StatusOf::Budget, key);
        let Some(entry) = view.desired::<PodDisruptionBudget>().entry(key) else {
            self.budgets.remove(key);
            return;
        };
        let budget = match entry.last_good() {
            Some(budget) => Budget::Is(Box::new(budget.value.spec.clone())),
            None => Budget::Unknown,
        };
        if !self.budgets.set(key, budget) {
            return;
        }
        let pods = view.desired::<Pod>().namespace(&key.namespace);
        let pods: Vec<_> = pods.map(|(pod, _)| pod.clone()).collect();
        let mut scaled = Vec::new();
        for pod in pods {
            let state = self.pods.remove(&pod).unwrap_or_default();
            let new = self.count_alone(&pod, &state, view);
            scaled.extend(new.map(|owner| (key.namespace.clone(), owner)));
            if state.busy {
                // It counts as down until it is known what becomes of it.
                self.touch(pod.clone());
            }
            self.pods.insert(pod, state);
        }
        self.set_scales(view, scaled);
    }

    fn set_group(&mut self, key: &ObjectKey, view: &View<'_>) {
        self.statuses.mark(StatusOf::Group, key);
        let group = match view.desired::<PodGroup>().entry(key) {
            None => Group::Missing,
            Some(entry) => entry.last_good().map_or(Group::Unknown, |group| {
                // Less than one makes no sense; one is what it says then.
                Group::Of(
                    u32::try_from(group.value.spec.min_member)
                        .unwrap_or(1)
                        .max(1),
                )
            }),
        };
        let status = view.actual::<PodGroup>().get(key);
        let placed = status.is_some_and(|s| s.value.phase == PodGroupPhase::Placed);
        self.gangs.set_group(key, group, placed);
    }
}

/// Of all objects of a kind, and of all statuses.
pub(super) fn keys<K: setpoint_apis::Kind>(view: &View<'_>) -> Vec<ObjectKey> {
    let desired = view.desired::<K>().entries().map(|(key, _)| key.clone());
    // Statuses of objects that are gone are to be deleted.
    let actual = view.actual::<K>().entries().map(|(key, _)| key.clone());
    let all: BTreeSet<_> = desired.chain(actual).collect();
    all.into_iter().collect()
}
