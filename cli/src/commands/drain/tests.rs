//! The decisions, by value.

use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, Intent, Moving, PodActual, PodStage, Withdrawal};
use setpoint_apis::stored::Stored;
use setpoint_apis::{ObjectKey, document};

use super::decide::{
    Allows, Asked, Part, Refusal, Resident, Verdict, Wait, decide, in_the_way, tolerates_cordon,
};

const NOTHING: Allows = Allows {
    ignore_daemon_sets: false,
    delete_local_data: false,
    stop_pinned: false,
    force: false,
    ignore_budgets: false,
    grace_seconds: None,
};

fn key() -> ObjectKey {
    ObjectKey::namespaced("default", "web")
}

/// A pod of a ReplicaSet that runs on n1.
struct Case(Resident);

impl Case {
    fn new() -> Self {
        Self::of(
            "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]",
            "",
        )
    }

    /// Without a controller.
    fn bare(spec: &str) -> Self {
        Self::of("", spec)
    }

    fn of(meta: &str, spec: &str) -> Self {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web, {meta}}}, spec: {{containers: [{{name: c, image: host}}], {spec}}}}}"
        );
        let pod: Pod = document::decode_keyed(&key(), text.as_bytes()).unwrap();
        Self(Resident {
            key: key(),
            node: "n1".into(),
            pod: Part::Is(Stored {
                value: pod,
                create_revision: 10,
                mod_revision: 10,
                version: 1,
            }),
            binding: Part::Is(Binding {
                node: "n1".into(),
                session: 1,
                placement: 3,
                pod_revision: 10,
                ..Binding::default()
            }),
            report: Part::Is(PodActual {
                placement: 3,
                stage: PodStage::Running,
                ..PodActual::default()
            }),
            has_daemon_set: false,
            claims: Vec::new(),
            asked: None,
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Resident)) -> Self {
        change(&mut self.0);
        self
    }

    fn bound(self, change: impl FnOnce(&mut Binding)) -> Self {
        self.with(|r| {
            let Part::Is(binding) = &mut r.binding else {
                panic!("no binding");
            };
            change(binding);
        })
    }

    fn decide(&self, allows: Allows) -> Verdict {
        decide(&self.0, allows, &Asked::new())
    }
}

const DAEMON: &str = "ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: logs, uid: u, controller: true}]";

fn refused(refusals: &[Refusal]) -> Verdict {
    Verdict::Refused(refusals.to_vec())
}

#[test]
fn pods_of_controllers_and_pods_without_one_are_evicted_alike() {
    assert_eq!(Case::new().decide(NOTHING), Verdict::Ask);
    assert_eq!(Case::bare("").decide(NOTHING), Verdict::Ask);
}

#[test]
fn pods_of_daemon_sets_are_never_evicted() {
    let here = || Case::of(DAEMON, "").with(|r| r.has_daemon_set = true);
    assert_eq!(here().decide(NOTHING), refused(&[Refusal::OfDaemonSet]));
    let force = Allows {
        force: true,
        ..NOTHING
    };
    assert_eq!(here().decide(force), refused(&[Refusal::OfDaemonSet]));
    let ignore = Allows {
        ignore_daemon_sets: true,
        ..NOTHING
    };
    assert_eq!(here().decide(ignore), Verdict::Stays);
    // Whose DaemonSet is gone has nobody who would have it back.
    let orphan = Case::of(DAEMON, "");
    assert_eq!(orphan.decide(ignore), refused(&[Refusal::OfNoDaemonSet]));
    assert_eq!(orphan.decide(force), Verdict::Ask);
}

#[test]
fn what_would_be_lost_or_down_needs_a_flag_and_all_flags_are_named_at_once() {
    let case = Case::bare(
        "restartPolicy: Never, volumes: [{name: a, emptyDir: {}}, {name: b, persistentVolumeClaim: {claimName: b}}]",
    )
    .with(|r| r.claims = vec!["b".into()]);
    assert_eq!(
        case.decide(NOTHING),
        refused(&[Refusal::Pinned, Refusal::LocalData, Refusal::BeginsAnew])
    );
    let mut allows = NOTHING;
    allows.delete_local_data = true;
    assert_eq!(
        case.decide(allows),
        refused(&[Refusal::Pinned, Refusal::BeginsAnew])
    );
    allows.force = true;
    assert_eq!(case.decide(allows), refused(&[Refusal::Pinned]));
    allows.stop_pinned = true;
    assert_eq!(case.decide(allows), Verdict::Ask);
    // A claim that is nowhere yet, or elsewhere, pins nothing.
    let free = Case::bare("volumes: [{name: b, persistentVolumeClaim: {claimName: b}}]");
    assert_eq!(free.decide(NOTHING), Verdict::Ask);
}

#[test]
fn a_job_of_a_controller_begins_anew_without_force() {
    let job = Case::of(
        "ownerReferences: [{apiVersion: batch/v1, kind: Job, name: j, uid: u, controller: true}]",
        "restartPolicy: Never",
    );
    assert_eq!(job.decide(NOTHING), Verdict::Ask);
}

#[test]
fn a_pod_that_names_the_node_would_be_back_whatever_is_allowed() {
    let all = Allows {
        ignore_daemon_sets: true,
        delete_local_data: true,
        stop_pinned: true,
        force: true,
        ignore_budgets: true,
        grace_seconds: None,
    };
    let case = Case::bare("nodeName: n1");
    assert_eq!(case.decide(all), refused(&[Refusal::NamesNode]));
}

#[test]
fn a_pod_that_came_back_is_not_evicted_again() {
    let case = Case::new().bound(|b| b.placement = 4);
    let before: Asked = [(key(), 3)].into();
    assert_eq!(
        decide(&case.0, NOTHING, &before),
        refused(&[Refusal::Returned])
    );
    // The same placement: the request was dropped, or not written.
    assert_eq!(decide(&Case::new().0, NOTHING, &before), Verdict::Ask);
}

#[test]
fn who_tolerates_the_cordon_is_known() {
    for (tolerations, tolerates) in [
        ("", false),
        (
            "tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]",
            true,
        ),
        ("tolerations: [{operator: Exists}]", true),
        ("tolerations: [{key: x, operator: Exists}]", false),
        (
            "tolerations: [{operator: Exists, effect: NoExecute}]",
            false,
        ),
    ] {
        let case = Case::bare(tolerations);
        let pod = case.0.pod.get().unwrap();
        assert_eq!(tolerates_cordon(&pod.value), tolerates, "{tolerations}");
    }
}

#[test]
fn a_request_that_stands_is_not_written_again_unless_it_is_to_ignore_budgets() {
    let asked = |ignore_budgets| {
        Case::new().with(|r| {
            r.asked = Some(Intent {
                ignore_budgets,
                ..Intent::default()
            });
        })
    };
    let ignore = Allows {
        ignore_budgets: true,
        ..NOTHING
    };
    let waits = Verdict::Wait(Wait::Request);
    assert_eq!(asked(false).decide(NOTHING), waits);
    assert_eq!(asked(true).decide(NOTHING), waits);
    assert_eq!(asked(false).decide(ignore), Verdict::Ask);
    assert_eq!(asked(true).decide(ignore), waits);
}

#[test]
fn what_has_ended_is_left_and_what_stops_is_waited_for() {
    let ended = |stage| {
        Case::new().with(|r| {
            r.report = Part::Is(PodActual {
                stage,
                ..PodActual::default()
            });
        })
    };
    for stage in [PodStage::Succeeded, PodStage::Failed] {
        assert_eq!(ended(stage).decide(NOTHING), Verdict::Ended);
    }
    // Also one that needed a flag.
    let ran = Case::bare("restartPolicy: Never").with(|r| {
        r.report = Part::Is(PodActual {
            stage: PodStage::Succeeded,
            ..PodActual::default()
        });
    });
    assert_eq!(ran.decide(NOTHING), Verdict::Ended);
    let stopping = Verdict::Wait(Wait::Stopping);
    let deleted = Case::new().with(|r| r.pod = Part::Absent);
    let unbound = Case::new().with(|r| r.binding = Part::Absent);
    let former = Case::new().bound(|b| b.pod_revision = 5);
    let leaving = Case::new().bound(|b| {
        b.withdrawn = Some(Withdrawal {
            reason: "Evicted".into(),
            at: Default::default(),
            grace_seconds: None,
        });
    });
    let moved = Case::new().bound(|b| {
        b.node = "n2".into();
        b.leaving = Some("n1".into());
    });
    for case in [deleted, unbound, former, leaving, moved] {
        assert_eq!(case.decide(NOTHING), stopping, "{case:?}", case = case.0);
    }
}

#[test]
fn moves_are_let_be_and_their_end_is_waited_for() {
    let moving = |from: &str, to: &str| {
        Case::new().bound(|b| {
            b.node = from.into();
            b.moving = Some(Box::new(Moving {
                to: to.into(),
                ..Moving::default()
            }));
        })
    };
    assert_eq!(
        moving("n1", "n2").decide(NOTHING),
        Verdict::Wait(Wait::MovingTo("n2".into()))
    );
    assert_eq!(
        moving("n2", "n1").decide(NOTHING),
        Verdict::Wait(Wait::ComingFrom("n2".into()))
    );
}

#[test]
fn what_cannot_be_read_is_in_the_way() {
    let document = Case::new().with(|r| r.pod = Part::Unreadable);
    let binding = Case::new().with(|r| r.binding = Part::Unreadable);
    for case in [&document, &binding] {
        assert_eq!(case.decide(NOTHING), refused(&[Refusal::Unreadable]));
    }
    // What cannot be read of its status may be anything; the scheduler decides.
    let report = Case::new().with(|r| r.report = Part::Unreadable);
    assert_eq!(report.decide(NOTHING), Verdict::Ask);
}

#[test]
fn those_in_the_way_are_named_by_reason() {
    let a = Case::bare("volumes: [{name: a, emptyDir: {}}]").0;
    let b = Case::bare("restartPolicy: Never, volumes: [{name: a, emptyDir: {}}]").0;
    let verdicts = [
        (&a, decide(&a, NOTHING, &Asked::new())),
        (&b, decide(&b, NOTHING, &Asked::new())),
    ];
    let named = in_the_way(verdicts.iter().map(|(r, v)| (*r, v)));
    let counts: Vec<_> = named.iter().map(|(r, pods)| (*r, pods.len())).collect();
    assert_eq!(counts, [(Refusal::LocalData, 2), (Refusal::BeginsAnew, 1)]);
}

#[test]
fn a_request_that_stands_is_written_again_to_stop_sooner_and_never_later() {
    let verdict = |before: Option<i64>, now: Option<i64>| {
        let case = Case::new().with(|r| {
            r.asked = Some(Intent {
                grace_seconds: before,
                ..Intent::default()
            });
        });
        let allows = Allows {
            grace_seconds: now,
            ..NOTHING
        };
        case.decide(allows) == Verdict::Ask
    };
    assert!(verdict(None, Some(60)) && verdict(Some(5), Some(0)));
    assert!(!verdict(None, None) && !verdict(Some(5), Some(5)));
    assert!(!verdict(Some(5), Some(60)) && !verdict(Some(5), None));
}
