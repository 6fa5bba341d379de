//! The core against the checker, on random clusters to which random things happen.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use setpoint_apis::ObjectKey;
use setpoint_scheduler_check::generate::{
    Kinds, NAMESPACES, NodeShape, PodShape, Scenario, Step, namespace_labels, pod_labels,
};
use setpoint_scheduler_check::{
    Budgets, Proposal, Strategy as Room, check_binding, check_gang_placed, check_gang_refused,
    check_preemption, check_unschedulable, feasible, room_score,
};
use setpoint_scheduler_core::{Decision, NodeScore, Part, Strategy};

use crate::budgets::states;
use crate::search::search;
use crate::tables::node_of;
use crate::twin::{Twin, account, fits, verdicts};

#[test]
fn bindings_are_feasible_and_refusals_are_true() {
    search(Kinds::default(), 400, |scenario| {
        Run::default().all(scenario)
    });
}

#[test]
fn preemption_takes_the_right_victims_and_keeps_their_room() {
    let kinds = Kinds {
        preemption: true,
        ..Kinds::default()
    };
    search(kinds, 400, |scenario| Run::default().all(scenario));
}

#[test]
fn gangs_are_placed_as_a_whole_or_not_at_all() {
    let kinds = Kinds {
        gangs: true,
        ..Kinds::default()
    };
    search(kinds, 300, |scenario| Run::default().all(scenario));
}

#[test]
fn what_is_set_aside_is_for_its_owners() {
    let kinds = Kinds {
        reservations: true,
        ..Kinds::default()
    };
    search(kinds, 300, |scenario| Run::default().all(scenario));
}

#[test]
fn all_of_it_together_is_right_as_well() {
    let kinds = Kinds {
        preemption: true,
        gangs: true,
        reservations: true,
    };
    search(kinds, 200, |scenario| {
        let (mut run, mut again) = (Run::default(), Run::default());
        run.all(scenario)?;
        again.all(scenario)?;
        prop_assert_eq!(run.told, again.told, "the same calls, the same seed");
        Ok(())
    });
}

fn strategy(room: Room) -> Strategy {
    match room {
        Room::LeastAllocated => Strategy::LeastAllocated,
        Room::MostAllocated => Strategy::MostAllocated,
        Room::Balanced => Strategy::Balanced,
    }
}

/// One scenario, written down.
pub(crate) fn run(nodes: Vec<NodeShape>, steps: Vec<Step>) -> TestCaseResult {
    Run::default().all(&Scenario {
        nodes,
        steps,
        strategy: Room::default(),
    })
}

#[derive(Default)]
struct Run {
    twin: Twin,
    pods: usize,
    room: Room,
    /// All decisions of the core.
    told: Vec<Decision>,
}

impl Run {
    fn all(&mut self, scenario: &Scenario) -> TestCaseResult {
        self.room = scenario.strategy;
        self.twin.profile.strategy = strategy(scenario.strategy);
        for name in NAMESPACES {
            self.twin.set_namespace(name, &namespace_labels(None));
        }
        for (i, node) in scenario.nodes.iter().enumerate() {
            let name = format!("n{i}");
            self.twin.set_node(&name, node.node(&name));
        }
        for (i, step) in scenario.steps.iter().enumerate() {
            self.step(step)?;
            // What was found of the classes of earlier pods is still right.
            let waiting = self.waiting();
            if !waiting.is_empty() {
                self.room_is_told(&waiting[i % waiting.len()..][..1])?;
            }
        }
        self.history_does_not_matter()
    }

    /// A cluster that is told all of this at once thinks the same of every pod that waits, scores included.
    fn history_does_not_matter(&mut self) -> TestCaseResult {
        let mut fresh = Twin::of(&self.twin.world, self.twin.profile.clone());
        for key in self.waiting() {
            let (old, new) = (self.twin.class(&key), fresh.class(&key));
            let all = self.twin.world.nodes.len();
            let by_name = |mut scores: Vec<NodeScore>| {
                scores.sort_by(|a, b| a.node.cmp(&b.node));
                scores
            };
            prop_assert_eq!(
                by_name(self.twin.cluster.breakdown(&old, all)),
                by_name(fresh.cluster.breakdown(&new, all)),
                "{}",
                key
            );
            let (old, new) = (self.twin.cluster.explain(&old), fresh.cluster.explain(&new));
            prop_assert_eq!(&old.reasons, &new.reasons, "{}", key);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Node(i, shape) => {
                let name = format!("n{i}");
                self.twin.set_node(&name, shape.node(&name));
            }
            Step::RemoveNode(i) => self.twin.remove_node(&format!("n{i}")),
            Step::Namespace(i, None) => self.twin.forget_namespace(NAMESPACES[*i]),
            Step::Namespace(i, team) => {
                let labels = namespace_labels(*team);
                self.twin.set_namespace(NAMESPACES[*i], &labels);
            }
            Step::Schedule(shapes) => {
                let keys: Vec<_> = shapes.iter().map(|s| self.appear(s)).collect();
                self.schedule(&keys)?;
            }
            Step::Place(shape, node) => {
                let key = self.appear(shape);
                let since = self.twin.now();
                self.twin.place(&key, &format!("n{node}"), since);
            }
            Step::Forget(i) => {
                if let Some(key) = self.some_placed(*i) {
                    self.twin.forget(&key);
                }
            }
            Step::Move(i, node) => {
                if let Some(key) = self.some_placed(*i) {
                    let since = self.twin.now();
                    self.twin.place(&key, &format!("n{node}"), since);
                }
            }
            Step::Relabel(i, app, rev) => {
                if let Some(key) = self.some_placed(*i) {
                    self.twin.relabel(&key, pod_labels(*app, *rev));
                }
            }
            Step::Retry => {
                let keys = self.waiting();
                self.schedule(&keys)?;
            }
            Step::Preempt {
                pod,
                budgets,
                slowly,
            } => self.preempt(pod, budgets, *slowly)?,
            Step::Settle => self.settle()?,
            Step::Gang(shapes, min) => {
                let keys: Vec<_> = shapes.iter().map(|s| self.appear(s)).collect();
                self.gang(&keys, *min)?;
            }
            Step::Reserve(node, shape) => {
                let node = format!("n{node}");
                let reservation = shape.reservation(Some(&node));
                self.twin
                    .reserve(&format!("r{}", shape.number), reservation);
            }
            Step::Unreserve(i) => self.twin.unreserve(&format!("r{i}")),
        }
        Ok(())
    }

    /// One of the pods that are placed.
    fn some_placed(&self, i: usize) -> Option<ObjectKey> {
        let placed = self.twin.world.pods.iter();
        let placed: Vec<_> = placed.filter(|(_, p)| p.node.is_some()).collect();
        let (key, _) = placed.get(i % placed.len().max(1))?;
        Some((*key).clone())
    }

    /// The pods that wait, but for those that room is kept for.
    fn waiting(&self) -> Vec<ObjectKey> {
        let world = &self.twin.world;
        world
            .pods
            .iter()
            .filter(|(key, p)| p.node.is_none() && !world.nominations.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// A pod appears, waiting.
    fn appear(&mut self, shape: &PodShape) -> ObjectKey {
        self.pods += 1;
        let key = ObjectKey::namespaced(shape.namespace(), format!("p{}", self.pods));
        self.twin.add(&key, shape.pod());
        key
    }

    /// Lets the core decide on pods, and holds each decision against the world as it was at that moment.
    fn schedule(&mut self, keys: &[ObjectKey]) -> TestCaseResult {
        self.room_is_told(keys)?;
        let requests: Vec<_> = keys.iter().map(|k| self.twin.request(k)).collect();
        let decisions = self.twin.cluster.schedule(&requests, 7);
        prop_assert_eq!(decisions.len(), keys.len());
        for (i, (key, decision)) in keys.iter().zip(decisions).enumerate() {
            // Reasons are those of the first pod of its class in the call.
            let first = !requests[..i].iter().any(|r| r.class == requests[i].class);
            self.decided(key, &decision, first)?;
            self.told.push(decision);
        }
        Ok(())
    }

    fn decided(&mut self, key: &ObjectKey, decision: &Decision, first: bool) -> TestCaseResult {
        let world = &self.twin.world;
        let verdicts = verdicts(world, key);
        let exact = world.nominations.is_empty();
        match decision {
            Decision::Bind(placement) => {
                let right = check_binding(world, key, &placement.node);
                prop_assert!(right.is_ok(), "{}", right.unwrap_err());
                prop_assert_eq!(placement.nodes as usize, world.nodes.len());
                let (told, fits) = (placement.feasible as usize, fits(&verdicts));
                // Of room that is kept for others the core may think more strictly.
                let right = told == fits.len() || (!exact && told < fits.len());
                prop_assert!(right, "{key} fits on {fits:?}, not on {told} nodes");
                let since = self.twin.now();
                self.twin.placed(key, &placement.node, since);
            }
            Decision::Unschedulable(told) => {
                let right = check_unschedulable(world, key);
                prop_assert!(right.is_ok(), "{}; {told:?}", right.unwrap_err());
                if first && exact {
                    let wrong = account(&verdicts, told);
                    prop_assert!(wrong.is_none(), "{key}: {}", wrong.unwrap());
                }
            }
        }
        Ok(())
    }

    /// Before they are decided on: `has_room` and `explain` about each.
    fn room_is_told(&mut self, keys: &[ObjectKey]) -> TestCaseResult {
        for key in keys {
            let class = self.twin.class(key);
            let world = &self.twin.world;
            let verdicts = verdicts(world, key);
            let fits = fits(&verdicts);
            let room = self.twin.cluster.has_room(&class);
            if room {
                prop_assert!(!fits.is_empty(), "{key} fits nowhere: {verdicts:?}");
            } else {
                let right = check_unschedulable(world, key);
                prop_assert!(right.is_ok(), "no room: {}", right.unwrap_err());
            }
            if world.nominations.is_empty() {
                let best = self.twin.cluster.breakdown(&class, world.nodes.len());
                let scores: Vec<_> = best.iter().map(|s| s.score).collect();
                prop_assert!(scores.is_sorted_by(|a, b| a >= b), "{best:?}");
                for told in &best {
                    self.room_is_valued(key, told)?;
                }
                let mut best: Vec<_> = best.iter().map(|s| &*s.node).collect();
                best.sort_unstable();
                prop_assert_eq!(&best, &fits, "{}", key);
                let told = self.twin.cluster.explain(&class);
                let wrong = account(&verdicts, &told);
                prop_assert!(wrong.is_none(), "{key}: {}", wrong.unwrap());
            }
        }
        Ok(())
    }

    /// The part of the score for free room is as it is described.
    fn room_is_valued(&self, key: &ObjectKey, told: &NodeScore) -> TestCaseResult {
        let world = &self.twin.world;
        let weight = f64::from(self.twin.profile.weights.resources);
        let right = room_score(world, key, &told.node, self.room) * 10_000.0 * weight;
        let part = told.parts.get(&Part::Resources).copied().unwrap_or(0);
        prop_assert!(
            // Rounded down.
            (part as f64 - right).abs() < 1.01 * weight,
            "{key} on {}: {part}, not {right}, by {:?}",
            told.node,
            self.room
        );
        Ok(())
    }

    /// A pod that may take the room of others when there is none.
    fn preempt(
        &mut self,
        shape: &PodShape,
        allowed: &BTreeMap<u8, u32>,
        slowly: bool,
    ) -> TestCaseResult {
        let key = self.appear(shape);
        self.schedule(std::slice::from_ref(&key))?;
        if self.twin.world.pods[&key].node.is_some() {
            return Ok(());
        }
        let budgets = self.budgets(allowed);
        let request = self.twin.request(&key);
        let found = self.twin.cluster.preempt(&request, &states(&budgets));
        let told = found.map(|p| Proposal {
            node: p.node.to_string(),
            victims: p.victims,
            violations: p.violations,
        });
        let right = check_preemption(&self.twin.world, &key, &budgets, told.as_ref());
        prop_assert!(right.is_ok(), "{}; told {told:?}", right.unwrap_err());
        let Some(told) = told else {
            return Ok(());
        };
        if slowly {
            self.twin.nominate(&key, &told.node, &told.victims);
            return Ok(());
        }
        for victim in &told.victims {
            self.twin.forget(victim);
        }
        // Room may depend on others that leave; then it cannot be taken yet.
        if feasible(&self.twin.world, &key, &told.node).is_ok() {
            let since = self.twin.now();
            self.twin.place(&key, &told.node, since);
        }
        Ok(())
    }

    /// A budget for the pods of each value of `app` in the first namespace.
    fn budgets(&self, allowed: &BTreeMap<u8, u32>) -> Budgets {
        let covered = |app: u8| {
            let app = format!("a{app}");
            let pods = self.twin.world.pods.iter();
            pods.filter(|(key, pod)| {
                *key.namespace == *NAMESPACES[0] && pod.labels.get("app") == Some(&app)
            })
            .map(|(key, _)| key.clone())
            .collect()
        };
        Budgets {
            budgets: allowed
                .iter()
                .map(|(app, n)| (format!("b{app}"), (covered(*app), *n)))
                .collect(),
        }
    }

    /// All victims go, then each nominated pod is placed when it fits.
    fn settle(&mut self) -> TestCaseResult {
        let nominations = self.twin.world.nominations.clone();
        for victim in nominations.values().flat_map(|n| &n.victims) {
            self.twin.forget(victim);
        }
        for (key, nomination) in &nominations {
            let fits = feasible(&self.twin.world, key, &nomination.node);
            let told = self.twin.cluster.nominated_fits(key);
            prop_assert_eq!(
                told,
                fits.is_ok(),
                "{} on {}: {:?}",
                key,
                nomination.node,
                fits
            );
            if told {
                let since = self.twin.now();
                self.twin.place(key, &nomination.node, since);
            } else {
                self.twin.forget(key);
            }
        }
        Ok(())
    }

    fn gang(&mut self, keys: &[ObjectKey], min: usize) -> TestCaseResult {
        let before = self.twin.cluster.placed_count();
        let requests: Vec<_> = keys.iter().map(|k| self.twin.request(k)).collect();
        match self.twin.cluster.schedule_gang(&requests, min, 7) {
            Ok(decisions) => {
                let placed: Vec<_> = decisions.iter().map(node_of).collect();
                let right = check_gang_placed(&self.twin.world, keys, min, &placed);
                prop_assert!(right.is_ok(), "{}; placed {placed:?}", right.unwrap_err());
                for (key, node) in keys.iter().zip(&placed) {
                    if let Some(node) = node {
                        let since = self.twin.now();
                        self.twin.placed(key, node, since);
                    }
                }
                self.told.extend(decisions);
            }
            Err(told) => {
                let right = check_gang_refused(&self.twin.world, keys, min);
                prop_assert!(right.is_ok(), "{}; told {told:?}", right.unwrap_err());
            }
        }
        let placed = self.twin.world.pods.values().filter(|p| p.node.is_some());
        let placed = placed.count();
        let now = self.twin.cluster.placed_count();
        prop_assert_eq!(now, placed, "{} were counted before", before);
        Ok(())
    }
}
