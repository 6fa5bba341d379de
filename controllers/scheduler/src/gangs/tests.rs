use std::cmp::Reverse;
use std::collections::BTreeMap;

use setpoint_scheduler_core::{Class, Cluster};

use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

struct Rig {
    gangs: Gangs,
    class: Class,
}

impl Rig {
    fn new() -> Self {
        Self {
            gangs: Gangs::default(),
            class: crate::pending::testing::class(&mut Cluster::new()),
        }
    }

    fn wish(&self, name: &str, created: i64) -> Wish {
        Wish {
            order: Order {
                priority: Reverse(0),
                created,
                pod: key(name),
            },
            revision: created,
            class: self.class.clone(),
        }
    }

    /// `a1w a2b`: pod a1 wants a node, a2 is bound; `i`: binding under way; `s`: soon; `h`: held; `x`: gone.
    fn pods(&mut self, group: &str, pods: &str) {
        for (n, pod) in pods.split_whitespace().enumerate() {
            let (name, how) = pod.split_at(pod.len() - 1);
            let member = match how {
                "w" => Member::Wants(self.wish(name, n as i64)),
                "i" => Member::Binding,
                "b" => Member::Bound,
                "s" => Member::Soon,
                "h" => Member::Held,
                _ => {
                    self.gangs.remove_member(&key(name));
                    continue;
                }
            };
            self.gangs.set_member(&key(name), &key(group), member);
        }
    }

    fn group(&mut self, name: &str, min: u32) {
        self.gangs.set_group(&key(name), Group::Of(min), false);
    }

    /// All steps that there are now.
    fn steps(&mut self) -> Vec<String> {
        let mut steps = Vec::new();
        while let Some((group, step)) = self.gangs.next() {
            let step = match step {
                Step::Rest => "rest".into(),
                Step::Hold(hold) => hold.message,
                Step::Place { wishes, need } => format!("place {} of {}", need, wishes.len()),
                Step::Singly(wishes) => format!("singly {}", wishes.len()),
                Step::TakeApart(pods) => format!("take back {}", pods.len()),
            };
            steps.push(format!("{}: {step}", group.name));
        }
        steps
    }
}

#[test]
fn a_group_waits_for_its_document_and_for_enough_members() {
    let mut r = Rig::new();
    r.pods("a", "a1w a2w");
    assert_eq!(
        r.steps(),
        ["a: pod group: there is no PodGroup of this name"]
    );
    r.group("a", 3);
    assert_eq!(r.steps(), ["a: pod group: 2 of 3 members exist"]);
    assert_eq!(r.steps(), Vec::<String>::new(), "nothing changed");
    r.pods("a", "a1w a2w a3w a4w");
    assert_eq!(r.steps(), ["a: place 3 of 4"]);
    r.pods("a", "a1i a2i a3i");
    assert_eq!(r.steps(), ["a: singly 1"]);
    r.pods("a", "a4x a3h");
    r.gangs.set_group(&key("a"), Group::Unknown, false);
    r.pods("a", "a1w");
    assert_eq!(
        r.steps(),
        ["a: pod group: the PodGroup of this name is not valid"]
    );
}

#[test]
fn a_group_that_does_not_fit_is_tried_again_when_that_can_help() {
    let mut r = Rig::new();
    r.group("a", 2);
    r.pods("a", "a1w a2w");
    assert_eq!(r.steps(), ["a: place 2 of 2"]);
    assert_eq!(r.gangs.failed(&key("a"), false), []);
    r.gangs.wake(false, |_| false);
    r.gangs.wake(true, |_| true);
    assert!(!r.gangs.is_runnable());
    r.gangs.wake(false, |_| true);
    assert_eq!(r.steps(), ["a: place 2 of 2"]);
    r.gangs.failed(&key("a"), false);
    r.pods("a", "a3w");
    assert_eq!(r.steps(), ["a: place 2 of 3"], "another pod may be smaller");
}

#[test]
fn a_group_that_was_just_tried_rests_and_misses_nothing() {
    let mut r = Rig::new();
    r.group("a", 2);
    r.pods("a", "a1w a2w");
    r.steps();
    r.gangs.failed(&key("a"), false);
    assert_eq!((r.gangs.rest(&key("a")), r.gangs.rest(&key("a"))), (1, 1));
    r.gangs.wake(false, |_| true);
    assert!(!r.gangs.is_runnable());
    r.gangs.rest_is_over(&key("a"));
    assert_eq!(r.steps(), ["a: place 2 of 2"]);
    r.gangs.failed(&key("a"), false);
    r.gangs.rest(&key("a"));
    r.gangs.rest_is_over(&key("a"));
    assert!(!r.gangs.is_runnable(), "nothing changed");
    assert_eq!(r.gangs.resting, 0);
}

#[test]
fn half_a_group_is_completed_before_anything_else() {
    let mut r = Rig::new();
    r.group("old", 2);
    r.group("half", 3);
    r.pods("old", "o1w o2w");
    r.pods("half", "h1b h2w h3w");
    assert!(r.gangs.first().unwrap().0);
    assert_eq!(r.steps(), ["half: place 2 of 2", "old: place 2 of 2"]);
    r.pods("half", "h2i");
    assert_eq!(r.steps(), ["half: place 1 of 1"], "a binding was refused");
}

#[test]
fn half_a_group_that_cannot_be_completed_is_taken_apart_one_group_at_a_time() {
    let mut r = Rig::new();
    for name in ["a", "b"] {
        r.group(name, 3);
        r.pods(name, &format!("{name}1b {name}2b {name}3w"));
    }
    assert_eq!(r.steps(), ["a: place 1 of 1", "b: place 1 of 1"]);
    assert_eq!(r.gangs.failed(&key("a"), false), [key("a1"), key("a2")]);
    assert_eq!(
        r.gangs.failed(&key("b"), false),
        [],
        "what a frees may complete b"
    );
    r.pods("a", "a1s a2s");
    r.steps();
    r.pods("a", "a1w a2w");
    assert_eq!(r.steps(), ["b: place 1 of 1", "a: place 3 of 3"]);
    r.pods("b", "b3i");
    r.pods("b", "b3b");
    r.gangs.failed(&key("a"), false);
    assert!(!r.gangs.is_runnable(), "a waits whole");
}

/// Two groups of three of which two pods are bound and one fits nowhere; the first is being taken apart.
fn two_halves() -> Rig {
    let mut r = Rig::new();
    for name in ["a", "b"] {
        r.group(name, 3);
        r.pods(name, &format!("{name}1b {name}2b {name}3w"));
    }
    r.steps();
    assert_eq!(r.gangs.failed(&key("a"), false), [key("a1"), key("a2")]);
    assert_eq!(r.gangs.failed(&key("b"), false), []);
    r
}

#[test]
fn a_pod_that_cannot_leave_keeps_no_other_group_waiting() {
    let mut r = two_halves();
    r.pods("a", "a1s");
    r.gangs.set_fixed(&key("a2"), true);
    assert!(r.gangs.parting.is_some(), "a1 is still leaving");
    r.pods("a", "a1w");
    assert_eq!(r.steps(), ["a: place 2 of 2", "b: place 1 of 1"]);
    // It is not asked for again, which would go on without end.
    assert_eq!(r.gangs.failed(&key("a"), false), []);
    assert_eq!(r.gangs.failed(&key("b"), false), [key("b1"), key("b2")]);
    // Once it can leave it is asked to, when that is its group's turn.
    r.pods("b", "b1w b2w");
    r.steps();
    r.gangs.set_fixed(&key("a2"), false);
    assert_eq!(r.steps(), ["a: place 2 of 2"]);
    assert_eq!(r.gangs.failed(&key("a"), false), [key("a2")]);
}

#[test]
fn what_is_left_of_a_group_that_cannot_be_taken_back_waits() {
    let mut r = Rig::new();
    r.group("a", 3);
    r.pods("a", "p1b p2w");
    r.gangs.set_fixed(&key("p1"), true);
    assert_eq!(r.steps(), ["a: pod group: 2 of 3 members exist"]);
    assert!(r.gangs.parting.is_none());
}

#[test]
fn a_group_that_became_whole_while_it_was_taken_apart_keeps_no_other_waiting() {
    // Its last binding landed.
    let mut r = Rig::new();
    r.group("a", 3);
    r.pods("a", "a1w a2w a3w");
    let attempt = r.gangs.begin(&key("a")).unwrap();
    r.pods("a", "a1b a2b a3i");
    let late = r.gangs.overdue(&key("a"), attempt);
    assert_eq!(late, Some(vec![key("a1"), key("a2")]));
    r.pods("a", "a3b");
    assert!(r.gangs.parting.is_none());

    // Another pod took the place of one that is still leaving.
    let mut r = two_halves();
    r.pods("a", "a1s a2s");
    r.pods("a", "a3i a4i a5i");
    assert_eq!(r.steps(), ["b: place 1 of 1"]);
    assert_eq!(r.gangs.failed(&key("b"), false), [key("b1"), key("b2")]);
    r.pods("a", "a3b a4b a5b a1w");

    // Its pods are gone, and so is the group.
    r.gangs.set_group(&key("b"), Group::Missing, false);
    r.pods("b", "b1x b2x b3x");
    assert!(r.gangs.parting.is_none());
}

#[test]
fn a_half_bound_group_whose_members_went_away_or_are_held_back_is_taken_apart() {
    for pods in ["p1b p2b p3h", "p1b p2b p3h p4h"] {
        let mut r = Rig::new();
        r.group("a", 4);
        r.pods("a", pods);
        r.pods("a", "p9w");
        assert_eq!(r.steps(), ["a: take back 2"], "{pods}");
    }
    let mut r = Rig::new();
    r.group("a", 3);
    r.pods("a", "p1b p2s p3w");
    assert_eq!(
        r.steps(),
        ["a: pod group: 2 of 3 members can be placed now"]
    );
}

#[test]
fn a_group_whose_bindings_do_not_all_come_in_time_is_taken_back() {
    let mut r = Rig::new();
    r.group("a", 3);
    r.pods("a", "p1w p2w p3w");
    let attempt = r.gangs.begin(&key("a")).unwrap();
    r.pods("a", "p1i p2i p3i");
    r.pods("a", "p1b p2b");
    let pods = |names: &[&str]| Some(names.iter().map(|n| key(n)).collect::<Vec<_>>());
    assert_eq!(r.gangs.overdue(&key("a"), attempt), pods(&["p1", "p2"]));
    // One of them cannot leave now, and the other has left: the attempt is not over.
    r.gangs.set_fixed(&key("p1"), true);
    r.pods("a", "p2s p3b");
    assert_eq!(r.gangs.overdue(&key("a"), attempt), pods(&["p3"]));
    r.gangs.set_fixed(&key("p1"), false);
    assert_eq!(r.gangs.overdue(&key("a"), attempt), pods(&["p1", "p3"]));
    r.pods("a", "p1s p3s");
    assert_eq!(r.gangs.overdue(&key("a"), attempt), None);
    let mut r = Rig::new();
    r.group("a", 2);
    r.pods("a", "p1w p2w p3w");
    let attempt = r.gangs.begin(&key("a")).unwrap();
    r.pods("a", "p1b p2b p3i");
    assert_eq!(r.gangs.overdue(&key("a"), attempt), None);
    assert_eq!(r.gangs.overdue(&key("none"), attempt), None);
}

#[test]
fn half_a_group_that_a_former_leader_left_behind_has_a_deadline_though_nothing_changes() {
    let mut r = Rig::new();
    r.pods("a", "p1b p2s p3s");
    r.group("a", 3);
    let found = r.gangs.take_found();
    let [(group, attempt)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(*group, key("a"));
    assert_eq!(r.gangs.overdue(&key("a"), *attempt), Some(vec![key("p1")]));
    assert_eq!(r.gangs.take_found(), []);
    // One that is placed needs none.
    let mut r = Rig::new();
    r.pods("a", "p1b p2b p3b");
    r.group("a", 3);
    assert_eq!(r.gangs.take_found(), []);
}

#[test]
fn the_deadline_of_an_attempt_says_nothing_about_a_later_one() {
    let mut r = Rig::new();
    r.group("a", 3);
    r.pods("a", "p1w p2w p3w");
    let first = r.gangs.begin(&key("a")).unwrap();
    r.pods("a", "p1b p2i p3i");
    r.pods("a", "p3w");
    assert_eq!(
        r.gangs.begin(&key("a")),
        None,
        "what completes it does not put its deadline off"
    );
    // It came to nothing, and is tried anew.
    r.pods("a", "p1w p2w");
    let second = r.gangs.begin(&key("a")).unwrap();
    r.pods("a", "p1b p2b p3i");
    assert_eq!(r.gangs.overdue(&key("a"), first), None);
    let late = r.gangs.overdue(&key("a"), second);
    assert_eq!(late, Some(vec![key("p1"), key("p2")]));
    assert_eq!(r.gangs.begin(&key("a")), None, "it is the same attempt");
    assert!(r.gangs.overdue(&key("a"), second).is_some());
    // A group that is placed has no deadline.
    r.pods("a", "p3b");
    assert_eq!(r.gangs.begin(&key("a")), None);
}

#[test]
fn a_group_that_was_placed_goes_on_running_when_it_loses_pods() {
    let mut r = Rig::new();
    r.group("a", 3);
    r.pods("a", "p1b p2b p3b");
    r.pods("a", "p3w");
    assert_eq!(r.steps(), ["a: place 1 of 1"]);
    assert_eq!(r.gangs.failed(&key("a"), false), []);
    r.pods("a", "p2x p3x p4w");
    assert_eq!(r.steps(), ["a: place 1 of 1"]);
    assert_eq!(r.gangs.failed(&key("a"), false), []);
    // Without any bound pod it begins anew.
    r.pods("a", "p1w");
    assert_eq!(r.steps(), ["a: pod group: 2 of 3 members exist"]);
}

#[test]
fn a_new_leader_learns_from_the_status_that_a_group_was_placed() {
    // As it begins: it tells how the pods are as far as their bindings say, then the group, then decides about each.
    let begin = |pods: &str, placed| {
        let mut r = Rig::new();
        r.pods("a", pods);
        r.gangs.set_group(&key("a"), Group::Of(4), placed);
        r
    };
    let mut r = begin("p1b p2b p3b p4s", true);
    r.pods("a", "p4w");
    assert!(!r.gangs.first().unwrap().0, "it is no half");
    r.pods("a", "p3b p2b p1b");
    assert_eq!(r.steps(), ["a: place 1 of 1"]);
    assert_eq!(r.gangs.failed(&key("a"), false), []);
    assert!(r.gangs.counts(&key("a")).unwrap().1);

    let mut r = begin("p1b p2b p3b p4s", false);
    r.pods("a", "p4w");
    assert!(r.gangs.first().unwrap().0);
    let mut r = begin("p1s p2s p3s p4s", true);
    r.pods("a", "p4w");
    assert_eq!(
        r.steps(),
        ["a: pod group: 1 of 4 members can be placed now"],
        "without any bound pod it begins anew"
    );
    // Its status was not written in time, and all are there.
    assert!(
        begin("p1b p2b p3b p4b", false)
            .gangs
            .counts(&key("a"))
            .unwrap()
            .1
    );
}

#[test]
fn half_a_group_is_not_taken_apart_while_its_members_are_decided_about_one_by_one() {
    let mut r = Rig::new();
    r.pods("a", "p1b p2s p3s p4s");
    r.group("a", 4);
    r.pods("a", "p2w");
    assert_eq!(
        r.steps(),
        ["a: pod group: 2 of 4 members can be placed now"]
    );
    r.pods("a", "p3w p4w");
    assert_eq!(r.steps(), ["a: place 3 of 3"]);
}

#[test]
fn nothing_is_kept_of_groups_without_pods_and_document() {
    let mut r = Rig::new();
    r.pods("a", "p1w p2b p3s");
    r.pods("a", "p1x p2x p3x");
    r.group("b", 2);
    r.gangs.set_group(&key("b"), Group::Missing, false);
    assert!(r.gangs.gangs.is_empty() && r.gangs.of.is_empty() && r.gangs.awake.is_empty());
    r.gangs.set_group(&key("c"), Group::Missing, false);
    assert!(r.gangs.gangs.is_empty());
    // A pod that changes its group leaves the former one.
    r.pods("a", "p1w");
    r.pods("b", "p1w");
    let members: BTreeMap<_, _> = r
        .gangs
        .gangs
        .iter()
        .map(|(k, g)| (k.name.to_string(), g.counts.members))
        .collect();
    assert_eq!(members, [("b".to_owned(), 1)].into());
}
