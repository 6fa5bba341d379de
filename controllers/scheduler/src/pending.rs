//! The pods that want a node: those to be looked at, in order, and those that wait because no node can run them.
//!
//! Those that wait are kept by class, so that a change of the cluster costs one question per class ("is there room
//! now?", which the core answers exactly) and not one attempt per pod.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;
use setpoint_scheduler_core::{Class, Cluster, Unschedulable};
use tokio::time::Instant;

/// How many waiting pods of one class are tried at a time when there is room for one at least.
const TRY: usize = 64;
/// How long changed reasons of waiting pods are left before they are written, at the least and at the most, and how many
/// pods make it a second longer: a growing cluster must not cost a write per pod and node.
const REFRESH_LEAST: Duration = Duration::from_secs(2);
const REFRESH_MOST: Duration = Duration::from_secs(60);
const REFRESH_PODS_PER_SEC: usize = 200;

/// The order in which pods are placed: higher priority first, then older first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    pub(crate) priority: Reverse<i32>,
    pub(crate) created: i64,
    pub(crate) pod: ObjectKey,
}

/// A pod that wants a node.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) order: Order,
    /// The mod revision of the document that it was read from.
    pub(crate) revision: i64,
    pub(crate) class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Ready,
    /// For room, with its class.
    Waiting,
    /// For something that nodes cannot give: whoever parked it wakes it.
    Parked,
}

#[derive(Debug)]
struct Held {
    wish: Wish,
    at: At,
}

#[derive(Debug)]
struct Waiting {
    pods: BTreeSet<Order>,
    verdict: Arc<Unschedulable>,
    /// Whether they may displace others.
    preempts: bool,
    /// When the reasons are looked at again.
    refresh_at: Option<Instant>,
}

/// What changed of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Nodes, or labels of namespaces.
    pub(crate) nodes: bool,
    /// Something left.
    pub(crate) room: bool,
    /// Something was placed.
    pub(crate) arrivals: bool,
}

impl Changed {
    pub(crate) fn any(self) -> bool {
        self.nodes || self.room || self.arrivals
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    held: FxHashMap<ObjectKey, Held>,
    ready: BTreeSet<Order>,
    waiting: FxHashMap<Class, Waiting>,
    /// Classes with waiting pods for which there was room.
    awake: Vec<Class>,
}

impl Pending {
    /// A pod wants a node. If it waits, and wants what it wanted before, it goes on waiting.
    pub(crate) fn add(&mut self, wish: Wish) {
        if self.is_known(&wish) {
            return;
        }
        self.remove(&wish.order.pod.clone());
        self.hold(wish, At::Ready);
    }

    /// A pod wants a node, and has to wait for something that nodes cannot give. Until [`Pending::unpark`] it costs
    /// nothing.
    pub(crate) fn park(&mut self, wish: Wish) {
        self.remove(&wish.order.pod.clone());
        self.hold(wish, At::Parked);
    }

    /// What a parked pod waited for is there: it is lined up.
    pub(crate) fn unpark(&mut self, pod: &ObjectKey) {
        if self.held.get(pod).is_some_and(|h| h.at == At::Parked) {
            self.wake(pod);
        }
    }

    /// A pod wants no node any more.
    pub(crate) fn remove(&mut self, pod: &ObjectKey) -> Option<Wish> {
        let held = self.held.remove(pod)?;
        match held.at {
            At::Ready => {
                self.ready.remove(&held.wish.order);
            }
            At::Waiting => {
                if let Some(waiting) = self.waiting.get_mut(&held.wish.class) {
                    waiting.pods.remove(&held.wish.order);
                    if waiting.pods.is_empty() {
                        self.waiting.remove(&held.wish.class);
                    }
                }
            }
            At::Parked => {}
        }
        Some(held.wish)
    }

    /// Whether a pod is held here.
    pub(crate) fn contains(&self, pod: &ObjectKey) -> bool {
        self.held.contains_key(pod)
    }

    /// What a pod that is held here asks.
    pub(crate) fn class_of(&self, pod: &ObjectKey) -> Option<&Class> {
        self.held.get(pod).map(|held| &held.wish.class)
    }

    /// Whether a pod is held here that wants just this.
    pub(crate) fn is_known(&self, wish: &Wish) -> bool {
        self.held.get(&wish.order.pod).is_some_and(|held| {
            held.wish.revision == wish.revision
                && held.wish.class == wish.class
                && held.wish.order == wish.order
        })
    }

    fn hold(&mut self, wish: Wish, at: At) {
        if at == At::Ready {
            self.ready.insert(wish.order.clone());
        }
        self.held.insert(wish.order.pod.clone(), Held { wish, at });
    }

    /// Whether there is something to try.
    pub(crate) fn is_runnable(&self) -> bool {
        !self.ready.is_empty() || !self.awake.is_empty()
    }

    /// How many wait to be looked at, and how many wait for room.
    pub(crate) fn lens(&self) -> (usize, usize) {
        (self.ready.len(), self.held.len() - self.ready.len())
    }

    /// Takes up to `limit` pods to be placed now, as far as they come before `until`.
    pub(crate) fn take(
        &mut self,
        limit: usize,
        until: Option<&Order>,
        cluster: &mut Cluster,
    ) -> Vec<Wish> {
        while self.ready.len() < limit
            && let Some(class) = self.awake.last().cloned()
        {
            let some = self
                .waiting
                .get(&class)
                .filter(|_| cluster.has_room(&class));
            let some: Vec<Order> =
                some.map_or_else(Vec::new, |w| w.pods.iter().take(TRY).cloned().collect());
            if some.len() < TRY {
                self.awake.pop();
            }
            let enough = !some.is_empty();
            for order in some {
                self.wake(&order.pod);
            }
            if enough {
                // The others of the class are asked for once it is known what became of these.
                break;
            }
        }
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(first) = self.ready.first()
            && until.is_none_or(|until| first < until)
            && let Some(order) = self.ready.pop_first()
        {
            taken.extend(self.held.remove(&order.pod).map(|h| h.wish));
        }
        taken
    }

    /// No node can run a pod that was taken: it waits.
    /// `preempts`: whether it may displace others.
    pub(crate) fn wait(&mut self, wish: Wish, verdict: &Arc<Unschedulable>, preempts: bool) {
        let waiting = self
            .waiting
            .entry(wish.class.clone())
            .or_insert_with(|| Waiting {
                pods: BTreeSet::new(),
                verdict: verdict.clone(),
                refresh_at: None,
                preempts: false,
            });
        waiting.preempts |= preempts;
        // The latest reasons tell best what helps.
        waiting.verdict = verdict.clone();
        waiting.pods.insert(wish.order.clone());
        self.hold(wish, At::Waiting);
    }

    /// A waiting pod is tried again, whatever its class waits for.
    pub(crate) fn rouse(&mut self, pod: &ObjectKey) {
        if self.held.get(pod).is_some_and(|h| h.at == At::Waiting) {
            self.wake(pod);
        }
    }

    /// The written reasons of the pods of a class are out of date.
    pub(crate) fn refresh_later(&mut self, class: &Class, now: Instant) {
        if let Some(waiting) = self.waiting.get_mut(class) {
            let delay = Duration::from_secs((waiting.pods.len() / REFRESH_PODS_PER_SEC) as u64);
            waiting
                .refresh_at
                .get_or_insert(now + delay.clamp(REFRESH_LEAST, REFRESH_MOST));
        }
    }

    /// The cluster changed. Wakes the classes for which that helps. Returns those of the others that may find somebody to
    /// displace by now, when `lowest` is the lowest priority of the pods that are placed.
    pub(crate) fn changed(
        &mut self,
        changed: Changed,
        lowest: i32,
        cluster: &mut Cluster,
        now: Instant,
    ) -> Vec<Class> {
        let (mut stale, mut preempting) = (Vec::new(), Vec::new());
        for (class, waiting) in &self.waiting {
            let helps = waiting.verdict.helps();
            let nodes = changed.nodes && (helps.nodes || helps.namespaces);
            // Reasons that are out of date do not tell what helps: nodes that were lost may have come back full.
            let helped = waiting.refresh_at.is_some()
                || nodes
                || changed.room && helps.room
                || changed.arrivals && helps.arrivals;
            if helped && cluster.has_room(class) {
                if !self.awake.contains(class) {
                    self.awake.push(class.clone());
                }
                continue;
            }
            // Who is full of others with priority is no help, but those may have left.
            let higher = waiting.pods.first().is_some_and(|o| o.priority.0 > lowest);
            if waiting.preempts && higher && (changed.nodes || changed.room) {
                preempting.push(class.clone());
            }
            if helped {
                stale.push(class.clone());
            }
        }
        for class in stale {
            self.refresh_later(&class, now);
        }
        preempting
    }

    /// The first waiting pod of a class of which `pick` holds.
    pub(crate) fn first_of(
        &self,
        class: &Class,
        pick: impl Fn(&ObjectKey) -> bool,
    ) -> Option<&ObjectKey> {
        let pods = self.waiting.get(class)?.pods.iter();
        pods.map(|order| &order.pod).find(|pod| pick(pod))
    }

    /// The waiting pods whose reasons changed and are to be written again.
    pub(crate) fn refresh(
        &mut self,
        cluster: &mut Cluster,
        now: Instant,
    ) -> Vec<(ObjectKey, Arc<Unschedulable>)> {
        let mut changed = Vec::new();
        for (class, waiting) in &mut self.waiting {
            if waiting.refresh_at.is_none_or(|at| at > now) {
                continue;
            }
            waiting.refresh_at = None;
            waiting.verdict = cluster.explain(class);
            changed.extend(
                waiting
                    .pods
                    .iter()
                    .map(|o| (o.pod.clone(), waiting.verdict.clone())),
            );
        }
        changed
    }

    /// When [`Pending::refresh`] has something to do.
    pub(crate) fn next_refresh(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|w| w.refresh_at).min()
    }

    fn wake(&mut self, pod: &ObjectKey) {
        if let Some(wish) = self.remove(pod) {
            self.hold(wish, At::Ready);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;

    use setpoint_apis::core::PodSpec;
    use setpoint_scheduler_core::{Class, Cluster, PodAsk, Profile};

    /// The class of pods that ask for nothing.
    pub(crate) fn class(cluster: &mut Cluster) -> Class {
        cluster.class(&PodAsk {
            namespace: "default",
            labels: &BTreeMap::new(),
            spec: &PodSpec::default(),
            priority: 0,
            profile: Profile::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use setpoint_scheduler_core::{Decision, NodeFacts, PodRequest};

    use super::*;

    const ROOM: Changed = Changed {
        nodes: false,
        room: true,
        arrivals: false,
    };
    const NODES: Changed = Changed {
        nodes: true,
        room: false,
        arrivals: false,
    };

    fn pod(n: i64) -> ObjectKey {
        ObjectKey::namespaced("default", format!("p{n}"))
    }

    fn cluster(pods: u32) -> Cluster {
        let mut c = Cluster::new();
        c.set_node(node("n1", pods));
        c
    }

    fn node(name: &str, pods: u32) -> NodeFacts {
        let allocatable = [("pods".to_owned(), pods.to_string().parse().unwrap())].into();
        NodeFacts {
            name: name.into(),
            drivers: vec!["process".into()],
            allocatable,
            ..NodeFacts::default()
        }
    }

    fn wish(c: &mut Cluster, n: i64, priority: i32) -> Wish {
        let class = testing::class(c);
        Wish {
            order: Order {
                priority: Reverse(priority),
                created: n,
                pod: pod(n),
            },
            revision: n,
            class,
        }
    }

    /// One round: takes pods, places them, and lets those wait that cannot be.
    fn round(pending: &mut Pending, c: &mut Cluster, limit: usize) -> Vec<String> {
        let mut bound = Vec::new();
        for wish in pending.take(limit, None, c) {
            let request = PodRequest {
                pod: wish.order.pod.clone(),
                class: wish.class.clone(),
            };
            match c.schedule(&[request], 0).remove(0) {
                Decision::Bind(_) => bound.push(wish.order.pod.name.to_string()),
                Decision::Unschedulable(verdict) => pending.wait(wish, &verdict, false),
            }
        }
        bound
    }

    #[tokio::test(start_paused = true)]
    async fn higher_priority_goes_first_then_the_older() {
        let (mut p, mut c) = (Pending::default(), cluster(10));
        for (n, priority) in [(1, 0), (2, 5), (3, 0), (4, 5)] {
            p.add(wish(&mut c, n, priority));
        }
        assert_eq!(round(&mut p, &mut c, 3), ["p2", "p4", "p1"]);
        assert_eq!(p.lens(), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_pods_are_tried_when_there_is_room_and_only_as_many_as_needed() {
        let (mut p, mut c) = (Pending::default(), cluster(1));
        for n in 0..500 {
            p.add(wish(&mut c, n, 0));
        }
        assert_eq!(round(&mut p, &mut c, 500).len(), 1);
        assert_eq!(p.lens(), (0, 499));
        assert!(!p.is_runnable());
        c.forget(&pod(0));
        p.changed(ROOM, 0, &mut c, Instant::now());
        assert!(p.is_runnable());
        assert_eq!(round(&mut p, &mut c, 500), ["p1"]);
        assert_eq!(p.lens(), (0, 498));
        assert!(round(&mut p, &mut c, 500).is_empty());
        assert!(!p.is_runnable(), "there is no room: they sleep again");
        // Much room: all of them get their turn, some at a time.
        c.set_node(node("n2", 1000));
        p.changed(NODES, 0, &mut c, Instant::now());
        let mut bound = 0;
        while p.is_runnable() {
            bound += round(&mut p, &mut c, 500).len();
        }
        assert_eq!(bound, 498);
    }

    #[tokio::test(start_paused = true)]
    async fn room_on_a_node_that_came_back_full_wakes_those_who_waited_for_the_node() {
        use setpoint_scheduler_core::NotReady;
        let (mut p, mut c) = (Pending::default(), cluster(1));
        p.add(wish(&mut c, 0, 0));
        assert_eq!(round(&mut p, &mut c, 9), ["p0"]);
        c.set_node(NodeFacts {
            not_ready: Some(NotReady::Lost),
            ..node("n1", 1)
        });
        p.add(wish(&mut c, 1, 0));
        assert!(
            round(&mut p, &mut c, 9).is_empty(),
            "the node is lost: that it is full as well is no reason yet"
        );
        c.set_node(node("n1", 1));
        p.changed(NODES, 0, &mut c, Instant::now());
        assert!(!p.is_runnable());
        // Before the reasons are looked at again.
        c.forget(&pod(0));
        p.changed(ROOM, 0, &mut c, Instant::now());
        assert_eq!(round(&mut p, &mut c, 9), ["p1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_added_again_goes_on_waiting_unless_it_changed() {
        let (mut p, mut c) = (Pending::default(), cluster(0));
        let w = wish(&mut c, 1, 0);
        p.add(w.clone());
        assert!(round(&mut p, &mut c, 9).is_empty());
        p.add(w.clone());
        assert_eq!(p.lens(), (0, 1));
        p.add(Wish { revision: 9, ..w });
        assert_eq!(p.lens(), (1, 0));
        p.remove(&pod(1));
        assert_eq!(p.lens(), (0, 0));
        assert!(p.waiting.is_empty() && p.held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn changed_reasons_are_written_after_a_while_and_once() {
        let (mut p, mut c) = (Pending::default(), cluster(0));
        let w = wish(&mut c, 1, 0);
        p.add(w);
        assert!(round(&mut p, &mut c, 9).is_empty());
        for n in 2..5 {
            c.set_node(node(&format!("n{n}"), 0));
            p.changed(NODES, 0, &mut c, Instant::now());
        }
        assert!(p.refresh(&mut c, Instant::now()).is_empty());
        let due = p.next_refresh().unwrap();
        let changed = p.refresh(&mut c, due);
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].1.nodes, 4);
        assert_eq!(p.next_refresh(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_pod_costs_nothing_until_what_it_waits_for_is_there() {
        let (mut p, mut c) = (Pending::default(), cluster(10));
        let w = wish(&mut c, 1, 0);
        p.park(w.clone());
        assert!(p.contains(&pod(1)) && !p.is_runnable());
        p.add(w.clone());
        p.changed(NODES, 0, &mut c, Instant::now());
        assert!(round(&mut p, &mut c, 9).is_empty(), "it is the same wish");
        p.unpark(&pod(1));
        assert_eq!(round(&mut p, &mut c, 9), ["p1"]);
        p.park(w);
        assert!(p.remove(&pod(1)).is_some() && p.held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn pods_are_taken_up_to_a_point_in_their_order() {
        let (mut p, mut c) = (Pending::default(), cluster(10));
        for n in 1..5 {
            p.add(wish(&mut c, n, 0));
        }
        let until = wish(&mut c, 3, 0).order;
        let taken = p.take(9, Some(&until), &mut c);
        assert_eq!(taken.len(), 2);
        assert_eq!(p.take(9, None, &mut c).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn classes_that_may_displace_others_are_named_when_something_left() {
        let (mut p, mut c) = (Pending::default(), cluster(0));
        let w = wish(&mut c, 1, 5);
        p.add(w.clone());
        let taken = p.take(9, None, &mut c).remove(0);
        let verdict = c.explain(&taken.class);
        p.wait(taken, &verdict, true);
        assert_eq!(
            p.changed(ROOM, 0, &mut c, Instant::now()),
            std::slice::from_ref(&w.class)
        );
        assert_eq!(p.changed(ROOM, 5, &mut c, Instant::now()), []);
        assert_eq!(p.changed(Changed::default(), 0, &mut c, Instant::now()), []);
        assert_eq!(p.first_of(&w.class, |_| true), Some(&pod(1)));
        assert_eq!(p.first_of(&w.class, |_| false), None);
        p.rouse(&pod(1));
        assert!(p.is_runnable());
    }
}
