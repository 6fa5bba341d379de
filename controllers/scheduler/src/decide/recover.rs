//! What is to be done about a pod whose binding does not parse.
//!
//! The binding is the scheduler's own key, so it may write it again; but only what other keys bear witness to. Where a pod
//! is, is also told by its work copies, which nobody but the scheduler writes, and by what nodes report of it. When these
//! agree with the last binding that could be read, or with one another, the binding is written again from them and the pod
//! goes its ordinary way. When they do not, nothing is concluded, and people are told what there is and what they can do.

use std::sync::Arc;

use setpoint_apis::records::{Binding, PARTITION_POLICY, PodActual};
use setpoint_apis::time::Timestamp;
use setpoint_apis::view::pod_requests;

use super::{Facts, Seen, Step, stops};

/// What is known of a binding that does not parse.
#[derive(Debug)]
pub struct Broken<'a> {
    /// The revision of what does not parse.
    pub mod_revision: i64,
    /// What is wrong with it.
    pub message: &'a str,
    /// The last version that could be read, when this process has seen one.
    pub last_good: Option<&'a Binding>,
    /// What nodes report of the pod, in the order of their names.
    pub reports: Vec<Report<'a>>,
}

/// What a node reports of a pod.
#[derive(Debug)]
pub struct Report<'a> {
    /// The node.
    pub node: Arc<str>,
    /// Its session, or the last one known; 0 when none is.
    pub session: i64,
    /// The report.
    pub actual: Seen<'a, PodActual>,
}

/// Decides.
pub(super) fn recover(facts: &Facts<'_>, broken: &Broken<'_>) -> Step {
    let places = places(facts, broken);
    // While it is moved it may be on two nodes, and the binding that was last read says on which.
    if let Some(last) = broken.last_good
        && let Some(other) = last.other_node()
        && places.iter().all(|p| **p == *last.node || **p == *other)
        && broken.reports.iter().all(|report| match report.actual {
            Seen::Valid(actual) => actual.value.placement <= last.most_placements(),
            _ => true,
        })
    {
        return restore(last.clone());
    }
    let work = |node: &str| facts.work.iter().any(|w| *w.node == *node);
    let [node] = &places[..] else {
        return match (broken.last_good, facts.desired, places.is_empty()) {
            // It is nowhere, and that is what was last known, or what it was on its way to.
            (Some(last), _, true) => restore(last.clone()),
            // It is nowhere, and nobody wants it.
            (None, Seen::Absent, true) => Step::Forget { node: None },
            _ => Step::Stuck { places },
        };
    };
    let report = broken.reports.iter().find(|r| r.node == *node);
    let placement = match report.map(|r| r.actual) {
        Some(Seen::Valid(actual)) => actual.value.placement,
        _ => 0,
    };
    let last = broken
        .last_good
        .filter(|b| *b.node == **node && b.placement >= placement);
    match (last, report) {
        (Some(last), Some(_)) if !work(node) => leaving(last.clone()),
        (Some(last), _) => restore(last.clone()),
        // Its agent has not begun anything: it is taken back, and placed again if it is wanted.
        (None, None) => Step::Forget {
            node: Some(node.clone()),
        },
        (None, Some(report)) => match (report.actual, facts.desired) {
            (_, Seen::Frozen) => Step::Frozen("desired document"),
            (Seen::Valid(actual), _) => {
                let binding = rebuilt(facts, report, &actual.value);
                if work(node) {
                    restore(binding)
                } else {
                    leaving(binding)
                }
            }
            _ => Step::Stuck { places },
        },
    }
}

/// The nodes that have work for the pod or report it, in order.
fn places(facts: &Facts<'_>, broken: &Broken<'_>) -> Vec<Arc<str>> {
    let given = facts.work.iter().map(|w| &w.node);
    let mut places: Vec<_> = given
        .chain(broken.reports.iter().map(|r| &r.node))
        .cloned()
        .collect();
    places.sort();
    places.dedup();
    places
}

fn restore(binding: Binding) -> Step {
    Step::Restore {
        binding: Box::new(binding),
        leaving: false,
    }
}

/// Its work copy is gone: it is being taken back.
fn leaving(binding: Binding) -> Step {
    Step::Restore {
        leaving: binding.withdrawn.is_none(),
        binding: Box::new(binding),
    }
}

/// The binding that a claim was made under.
fn rebuilt(facts: &Facts<'_>, report: &Report<'_>, actual: &PodActual) -> Binding {
    let wanted = match facts.desired {
        Seen::Valid(pod) => Some(pod).filter(|pod| pod.uid() == actual.uid),
        _ => None,
    };
    let policy = |actual: &PodActual| {
        let metadata = actual.metadata.as_deref()?;
        Some(metadata.annotations.get(PARTITION_POLICY)? == "stop")
    };
    Binding {
        node: (*report.node).into(),
        session: report.session,
        placement: actual.placement,
        // Of a pod that is not wanted any more: older than any document that may come.
        pod_revision: wanted.map_or(0, |pod| pod.mod_revision),
        bound_at: actual.start_time.unwrap_or(Timestamp::EPOCH),
        // When nothing says what its policy was, the one that does no harm.
        never_twice: wanted.map_or_else(
            || policy(actual).unwrap_or(actual.metadata.is_none()),
            |pod| stops(&pod.value),
        ),
        requests: wanted.map_or_else(Default::default, |pod| pod_requests(&pod.value.spec).into()),
        withdrawn: None,
        decision: None,
        ..Binding::default()
    }
}

#[cfg(test)]
mod tests {

    use setpoint_apis::core::Pod;
    use setpoint_apis::meta::ObjectMeta;
    use setpoint_apis::stored::Stored;

    use super::super::{Session, WorkCopy, decide};
    use super::*;

    fn stored<T>(value: T, create_revision: i64, mod_revision: i64) -> Stored<T> {
        Stored {
            value,
            create_revision,
            mod_revision,
            version: 1,
        }
    }

    fn binding(node: &str, placement: u32) -> Binding {
        Binding {
            node: node.into(),
            session: 5,
            placement,
            pod_revision: 12,
            bound_at: Timestamp::from_unix_seconds(7),
            never_twice: false,
            requests: Default::default(),
            withdrawn: None,
            decision: None,
            ..Binding::default()
        }
    }

    /// A pod that is wanted, or not, and whose binding does not parse.
    struct State {
        desired: Option<Stored<Pod>>,
        last_good: Option<Binding>,
        work: Vec<WorkCopy>,
        reports: Vec<(&'static str, Option<Stored<PodActual>>)>,
    }

    impl State {
        fn new(wanted: bool, last_good: Option<Binding>) -> Self {
            Self {
                desired: wanted.then(|| stored(Pod::default(), 10, 12)),
                last_good,
                work: Vec::new(),
                reports: Vec::new(),
            }
        }

        fn work(mut self, node: &str) -> Self {
            self.work.push(WorkCopy {
                node: node.into(),
                revision: 20,
            });
            self
        }

        /// A node reports placement 3 of the pod that is wanted.
        fn report(mut self, node: &'static str) -> Self {
            let actual = PodActual {
                placement: 3,
                uid: stored(Pod::default(), 10, 12).uid(),
                start_time: Some(Timestamp::from_unix_seconds(9)),
                ..PodActual::default()
            };
            self.reports.push((node, Some(stored(actual, 30, 31))));
            self
        }

        fn change(mut self, change: impl FnOnce(&mut PodActual)) -> Self {
            let (_, actual) = self.reports.last_mut().unwrap();
            change(&mut actual.as_mut().unwrap().value);
            self
        }

        fn decide(&self) -> Step {
            let reports = self.reports.iter().map(|(node, actual)| Report {
                node: (*node).into(),
                session: 8,
                actual: actual.as_ref().map_or(Seen::Frozen, Seen::Valid),
            });
            let broken = Broken {
                mod_revision: 40,
                message: "no",
                last_good: self.last_good.as_ref(),
                reports: reports.collect(),
            };
            decide(&Facts {
                desired: self.desired.as_ref().map_or(Seen::Absent, Seen::Valid),
                binding: Seen::Frozen,
                broken: Some(&broken),
                actual: Seen::Absent,
                session: Session::Absent,
                fenced: false,
                other: None,
                now: Timestamp::EPOCH,
                work: &self.work,
                recorded: None,
                intents: &[],
                leave: None,
                may_evict: true,
            })
        }

        fn restored(&self) -> Binding {
            match self.decide() {
                Step::Restore { binding, leaving } => {
                    assert_eq!(leaving, self.work.is_empty() && !self.reports.is_empty());
                    *binding
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_pod_that_is_moved_is_where_its_last_binding_says() {
        use setpoint_apis::records::Moving;
        let last = Binding {
            moving: Some(Box::new(Moving {
                to: "n2".into(),
                placement: 3,
                ..Moving::default()
            })),
            ..binding("n1", 2)
        };
        let state = || State::new(true, Some(last.clone())).work("n1").work("n2");
        assert_eq!(state().restored(), last);
        assert_eq!(state().report("n2").restored(), last);
        let newer = state().report("n2").change(|a| a.placement = 4);
        for elsewhere in [state().work("n3"), newer] {
            assert!(matches!(elsewhere.decide(), Step::Stuck { .. }));
        }
    }

    #[test]
    fn what_was_last_known_is_written_again_when_nothing_speaks_against_it() {
        for wanted in [true, false] {
            let last = || State::new(wanted, Some(binding("n1", 3)));
            assert_eq!(last().restored(), binding("n1", 3));
            assert_eq!(last().work("n1").restored(), binding("n1", 3));
            assert_eq!(last().work("n1").report("n1").restored(), binding("n1", 3));
            // Its work is gone: it was being stopped.
            assert_eq!(last().report("n1").restored(), binding("n1", 3));
        }
    }

    #[test]
    fn what_was_last_known_does_not_count_against_what_others_say() {
        let moved = State::new(true, Some(binding("n1", 2)))
            .work("n2")
            .report("n2");
        let restored = moved.restored();
        assert_eq!((restored.node.as_str(), restored.placement), ("n2", 3));
        let later = State::new(true, Some(binding("n1", 2)))
            .work("n1")
            .report("n1");
        assert_eq!(later.restored().placement, 3);
        let both = State::new(true, Some(binding("n1", 2)))
            .work("n1")
            .report("n2");
        let places = vec!["n1".into(), "n2".into()];
        assert_eq!(both.decide(), Step::Stuck { places });
    }

    #[test]
    fn a_pod_that_runs_where_its_work_is_gets_its_binding_back() {
        let rebuilt = State::new(true, None).work("n1").report("n1").restored();
        let expected = Binding {
            session: 8,
            bound_at: Timestamp::from_unix_seconds(9),
            ..binding("n1", 3)
        };
        assert_eq!(rebuilt, expected);
        assert_eq!(
            State::new(true, None).report("n1").restored(),
            expected,
            "its work is gone: it was being stopped"
        );
    }

    #[test]
    fn the_binding_of_a_former_pod_is_not_one_of_the_next() {
        for state in [State::new(true, None), State::new(false, None)] {
            let former = state
                .work("n1")
                .report("n1")
                .change(|a| a.uid = "former".into());
            let restored = former.restored();
            assert_eq!(restored.pod_revision, 0);
            assert!(restored.never_twice, "nobody knows its policy");
            let says = |word: &str| {
                Some(Box::new(ObjectMeta {
                    annotations: [(PARTITION_POLICY.into(), word.into())].into(),
                    ..ObjectMeta::default()
                }))
            };
            let replace = former.change(|a| a.metadata = says("replace"));
            assert!(!replace.restored().never_twice);
            let none = replace.change(|a| a.metadata = Some(Box::default()));
            assert!(!none.restored().never_twice);
            let stop = none.change(|a| a.metadata = says("stop"));
            assert!(stop.restored().never_twice);
        }
    }

    #[test]
    fn what_no_agent_has_begun_is_taken_back() {
        for wanted in [true, false] {
            let node = Some("n1".into());
            assert_eq!(
                State::new(wanted, None).work("n1").decide(),
                Step::Forget { node }
            );
        }
        assert_eq!(
            State::new(false, None).decide(),
            Step::Forget { node: None },
            "it is nowhere, and nobody wants it"
        );
    }

    #[test]
    fn nothing_is_concluded_where_nothing_tells() {
        let stuck = |places: &[&str]| Step::Stuck {
            places: places.iter().map(|n| Arc::from(*n)).collect(),
        };
        assert_eq!(State::new(true, None).decide(), stuck(&[]));
        let two = State::new(false, None).report("n2").report("n1");
        assert_eq!(two.decide(), stuck(&["n1", "n2"]));
        let mut unreadable = State::new(false, None).work("n1");
        unreadable.reports.push(("n1", None));
        assert_eq!(unreadable.decide(), stuck(&["n1"]));
    }
}
