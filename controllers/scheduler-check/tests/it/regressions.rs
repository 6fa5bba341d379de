//! What random search has found, as small as it became.

use std::collections::BTreeMap;

use setpoint_apis::ObjectKey;
use setpoint_scheduler_check::generate::{
    NodeRule, NodeShape, PodShape, ReservationShape, Selects, Spread, Step,
};
use setpoint_scheduler_core::{Decision, Reason};

use crate::differential::run;
use crate::twin::Twin;

fn node() -> NodeShape {
    NodeShape {
        zone: Some(1),
        cpu: 4,
        memory: 2,
        pods: 1,
        ready: true,
        drivers: 1,
        ..NodeShape::default()
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

#[test]
fn reasons_of_pods_that_name_their_node_are_renewed() {
    let mut twin = Twin::default();
    for name in ["n0", "n1"] {
        twin.set_node(name, node().node(name));
    }
    let named = PodShape {
        node: Some(NodeRule::Named(0)),
        ..PodShape::default()
    };
    twin.add(&key("a"), named.pod());
    let class = twin.class(&key("a"));
    let other = Reason::NodeName;
    assert_eq!(
        twin.cluster.explain(&class).reasons,
        [(other.clone(), 1)].into()
    );
    let request = twin.request(&key("a"));
    let bound = twin.cluster.schedule(&[request], 1);
    assert!(matches!(bound.as_slice(), [Decision::Bind(_)]), "{bound:?}");
    let full = [(other.clone(), 1), (Reason::TooManyPods, 1)];
    assert_eq!(twin.cluster.explain(&class).reasons, full.into());
    twin.forget(&key("a"));
    assert_eq!(twin.cluster.explain(&class).reasons, [(other, 1)].into());
    twin.remove_node("n0");
    let told = twin.cluster.explain(&class);
    assert_eq!(told.nodes, 1);
    assert_eq!(told.reasons.keys().collect::<Vec<_>>(), [&Reason::NodeName]);
}

#[test]
fn a_nominated_pod_does_not_unbalance_a_domain_against_itself() {
    let with_gpu = NodeShape { gpu: 1, ..node() };
    let displacing = PodShape {
        priority: 5,
        gpu: 1,
        ..PodShape::default()
    };
    let spread = PodShape {
        spread: vec![Spread {
            skew: 1,
            key: 0,
            selects: Selects::All,
            min_domains: None,
            ignores_affinity: false,
            honours_taints: false,
            same_rev: false,
            hard: true,
        }],
        ..PodShape::default()
    };
    let steps = vec![
        Step::Place(PodShape::default(), 0),
        Step::Preempt {
            pod: displacing,
            budgets: BTreeMap::new(),
            slowly: true,
        },
        Step::Schedule(vec![spread]),
    ];
    run(vec![with_gpu, node()], steps).unwrap();
}

#[test]
fn a_victim_that_is_labelled_anew_leaves_all_the_same() {
    let displacing = |priority| Step::Preempt {
        pod: PodShape {
            priority,
            ..PodShape::default()
        },
        budgets: BTreeMap::new(),
        slowly: true,
    };
    let steps = vec![
        Step::Place(PodShape::default(), 0),
        displacing(5),
        Step::Relabel(0, Some(1), None),
        displacing(6),
    ];
    run(vec![node()], steps).unwrap();
}

#[test]
fn a_nominated_owner_is_not_counted_beside_all_that_is_reserved_for_it() {
    let whole = NodeShape {
        cpu: 5,
        gpu: 2,
        pods: 3,
        ..node()
    };
    let victim = PodShape {
        gpu: 1,
        ..PodShape::default()
    };
    let owner = PodShape {
        app: Some(1),
        priority: 6,
        cpu: 2,
        gpu: 2,
        ..PodShape::default()
    };
    let other = PodShape {
        priority: 5,
        cpu: 1,
        ..PodShape::default()
    };
    let reserved = ReservationShape {
        number: 0,
        app: 1,
        namespace: None,
        cpu: 3,
        memory: 0,
    };
    let steps = vec![
        Step::Place(victim, 0),
        Step::Reserve(0, reserved),
        Step::Preempt {
            pod: owner,
            budgets: BTreeMap::new(),
            slowly: true,
        },
        Step::Schedule(vec![other]),
    ];
    run(vec![whole], steps).unwrap();
}
