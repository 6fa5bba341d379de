//! Capacity that is held on a node for those who own it.

use std::sync::Arc;

use setpoint_apis::core::PodSpec;
use setpoint_apis::placement::ReservationSpec;
use setpoint_apis::selector::LabelSelector;
use setpoint_apis::{ObjectKey, ResourceList, StringMap};

use crate::class::{Class, PodAsk};
use crate::cluster::Cluster;
use crate::profile::Profile;
use crate::resources::Resources;
use crate::state::Reservation;
use crate::terms::Member;

/// A reservation as the scheduler is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReservationFacts {
    /// Its name.
    pub key: ObjectKey,
    /// The labels of the pods that may use it.
    pub owner: LabelSelector,
    /// The namespaces of these pods.
    pub namespaces: Vec<String>,
    /// How much is held. What pods of the owners on the node request is taken off; a pod that owns several
    /// reservations draws on each.
    pub resources: ResourceList,
    /// The node on which it is held; nowhere while it has no place.
    pub node: Option<Arc<str>>,
}

/// The most shares of one reservation that are looked at.
pub const MOST_SHARES: usize = 1_000;

/// The name under which the cluster knows one share of a reservation.
pub fn share(reservation: &ObjectKey, index: usize) -> ObjectKey {
    ObjectKey {
        namespace: reservation.namespace.clone(),
        // No object has such a name.
        name: format!("{}#{index}", reservation.name).into(),
    }
}

/// The pod that stands in for a share of a reservation while that looks for a place.
pub fn stand_in(spec: &ReservationSpec) -> PodSpec {
    PodSpec {
        overhead: spec.resources.clone(),
        node_name: spec.node_name.clone(),
        node_selector: spec.node_selector.clone(),
        affinity: spec.affinity.clone().map(Box::new),
        tolerations: spec.tolerations.clone(),
        ..PodSpec::default()
    }
}

impl Cluster {
    /// The class of the [`stand_in`] for a share of a reservation. It is of no namespace: it must not be an owner itself,
    /// who may use what is held already.
    pub fn stand_in_class(&mut self, spec: &ReservationSpec) -> Class {
        self.class(&PodAsk {
            namespace: "",
            labels: &StringMap::default(),
            spec: &stand_in(spec),
            priority: 0,
            profile: Profile::default(),
        })
    }

    /// Adds a reservation, or takes over what changed of it. Returns whether anything did.
    pub fn set_reservation(&mut self, facts: ReservationFacts) -> bool {
        let state = &mut self.state;
        if let Some(known) = state.reservations_by_key.get(&facts.key)
            && state.reservations[*known].facts == facts
        {
            return false;
        }
        self.remove_reservation(&facts.key);
        let state = &mut self.state;
        let mut namespaces: Vec<Arc<str>> =
            facts.namespaces.iter().map(|n| n.as_str().into()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let matcher = state.registry.matcher(vec![Member {
            namespaces,
            namespace_selector: None,
            selector: Some(facts.owner.clone()),
        }]);
        state.registry.set_owners(matcher, true);
        let resources = Resources::from_list(&facts.resources, &mut state.interner);
        let slot = facts.node.as_deref().map(|n| state.slot_of(n));
        let key = facts.key.clone();
        let id = state.reservations.insert(Reservation {
            matcher,
            resources,
            slot,
            facts,
        });
        state.reservations_by_key.insert(key, id);
        if let Some(slot) = slot {
            state.nodes[slot as usize].reserved.push(id);
            state.touch(slot);
        }
        true
    }

    /// Removes a reservation. Returns whether there was one.
    pub fn remove_reservation(&mut self, key: &ObjectKey) -> bool {
        let state = &mut self.state;
        let Some(id) = state.reservations_by_key.remove(key) else {
            return false;
        };
        let Some(reservation) = state.reservations.remove(id) else {
            return false;
        };
        state.registry.set_owners(reservation.matcher, false);
        if let Some(slot) = reservation.slot {
            state.nodes[slot as usize].reserved.retain(|r| *r != id);
            state.touch(slot);
            state.release_slot(slot);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::Quantity;

    use super::*;
    use crate::{Decision, NodeFacts, PodRequest};

    #[test]
    fn what_stands_in_for_a_share_does_not_use_what_every_pod_of_a_namespace_may() {
        let one = |name: &str| (name.to_owned(), Quantity::from_whole(1));
        let mut cluster = Cluster::new();
        cluster.set_node(NodeFacts {
            name: "n1".into(),
            drivers: vec!["process".into()],
            allocatable: [one("cpu"), ("pods".to_owned(), Quantity::from_whole(9))].into(),
            ..NodeFacts::default()
        });
        let spec = ReservationSpec {
            resources: [one("cpu")].into(),
            ..ReservationSpec::default()
        };
        let reservation = ObjectKey::namespaced("default", "r");
        cluster.set_reservation(ReservationFacts {
            key: share(&reservation, 0),
            owner: spec.owners.selector.clone(),
            namespaces: vec!["default".to_owned()],
            resources: spec.resources.clone(),
            node: Some("n1".into()),
        });
        let owner = cluster.class(&PodAsk {
            namespace: "default",
            labels: &StringMap::default(),
            spec: &stand_in(&spec),
            priority: 0,
            profile: Profile::default(),
        });
        let stand_in = cluster.stand_in_class(&spec);
        let mut fits = |class: Class| {
            let pod = share(&reservation, 1);
            let request = PodRequest {
                pod: pod.clone(),
                class,
            };
            let decisions = cluster.schedule(&[request], 0);
            cluster.forget(&pod);
            matches!(decisions[..], [Decision::Bind(_)])
        };
        assert!(fits(owner), "an owner uses what is reserved");
        assert!(!fits(stand_in));
    }
}
