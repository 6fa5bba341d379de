//! Decisions about Jobs: values in, plans out.

mod crashes;
mod policies;

use setpoint_apis::batch::{CountedPods, Job, JobStatus};
use setpoint_apis::{ObjectKey, Timestamp, document};

use super::decide::decide;
use super::plan::{Counts, Failure, JobPod, NewPod, Outcome, Plan, Record, Snapshot};
use crate::pod::{PodFacts, PodState};
use crate::standing::Unusable;

const NOW: i64 = 100_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn now() -> Timestamp {
    at(NOW)
}

/// A Job of this spec, in flow style, that nothing has been done for.
fn job(spec: &str) -> Snapshot {
    let restarts = if spec.contains("restartPolicy") {
        ""
    } else {
        "restartPolicy: Never"
    };
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sum, namespace: default}}\nspec:\n{}\n  template:\n    \
         spec:\n      {restarts}\n      containers: [{{name: c, image: host}}]\n",
        spec.lines()
            .map(|l| format!("  {l}"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    let job: Job = document::decode(text.as_bytes()).unwrap();
    Snapshot {
        key: ObjectKey::namespaced("default", "sum"),
        uid: "u".into(),
        invalid: None,
        fixed: None,
        overlap: None,
        lost_count: None,
        terminating: false,
        namespace_exists: true,
        spec: job.spec,
        pods: vec![],
        stopping: vec![],
        loose_numbers: vec![],
        adoptable: vec![],
        releasable: vec![],
        refused: false,
        stored: Counts::default(),
        status: None,
        salt: 1,
    }
}

/// A pod that runs.
fn pod(name: &str, number: i32) -> JobPod {
    JobPod {
        facts: PodFacts {
            key: ObjectKey::namespaced("default", name),
            mod_revision: 10,
            create_revision: 10,
            frozen: false,
            node: Some("n1".into()),
            state: PodState::Running,
            ready_since: Some(at(NOW - 100)),
            deletion_cost: 0,
            restarts: 0,
            reported: true,
            trouble: None,
        },
        number: Some(number),
        uid: None,
        index: None,
        outcome: Outcome::None,
        restarts: 0,
        failures_before: 0,
        ignored_before: 0,
        record: Record::At("n1".into(), 5),
    }
}

fn created(new: &NewPod) -> JobPod {
    let (failures, ignored) = new.failures.unwrap_or_default();
    JobPod {
        index: new.index,
        failures_before: failures,
        ignored_before: ignored,
        ..pod(&new.name, new.number)
    }
}

impl JobPod {
    fn succeeded(mut self, seconds: i64) -> Self {
        self.outcome = Outcome::Succeeded { at: at(seconds) };
        self.facts.state = PodState::Succeeded;
        self.facts.ready_since = None;
        self
    }

    fn failed(mut self, seconds: i64, code: i32) -> Self {
        self.outcome = Outcome::Failed(Failure {
            at: at(seconds),
            exits: vec![("c".into(), code)],
            conditions: vec![],
        });
        self.facts.state = PodState::Failed;
        self.facts.ready_since = None;
        self
    }
}

impl Snapshot {
    fn store(&mut self, status: JobStatus) {
        self.stored = Counts::of(&status).unwrap();
        self.status = Some(status);
    }

    /// The pod of a number.
    fn pod(&mut self, number: i32) -> &mut JobPod {
        let mut pods = self.pods.iter_mut();
        pods.find(|p| p.number == Some(number)).unwrap()
    }

    fn succeed(&mut self, number: i32) {
        let pod = self.pod(number);
        *pod = pod.clone().succeeded(NOW);
    }

    fn fail(&mut self, number: i32, code: i32) {
        let pod = self.pod(number);
        *pod = pod.clone().failed(NOW, code);
    }
}

/// Carries a plan out on the model, as the store would; what is deleted is being stopped from then on.
fn apply(s: &mut Snapshot, plan: &Plan) {
    for gone in &plan.delete {
        let place = s.pods.iter().position(|p| p.facts.key == gone.pod.key);
        let pod = s.pods.remove(place.unwrap());
        s.stopping.push((pod.facts.key.name.clone(), pod.index));
    }
    s.pods.extend(plan.create.iter().map(created));
    s.pods.sort_by(|a, b| a.facts.key.cmp(&b.facts.key));
    for taken in &plan.adopt {
        s.pods.push(JobPod {
            number: None,
            uid: Some(format!("uid of {}", taken.key.name)),
            ..pod(&taken.key.name, 0)
        });
    }
    s.adoptable.clear();
    s.releasable.clear();
    if let Some(status) = &plan.status {
        s.store(status.clone());
    }
    s.salt += 1;
}

/// Plans until nothing is left to do, and shows that the pass after it plans nothing.
fn run_at(s: &mut Snapshot, seconds: i64) -> Vec<String> {
    let mut plans = Vec::new();
    loop {
        let plan = decide(s, at(seconds));
        if plan.is_empty() {
            return plans;
        }
        apply(s, &plan);
        plans.push(plan.to_string());
        assert!(plans.len() < 10, "it does not settle: {plans:?}");
    }
}

fn run(s: &mut Snapshot) -> Vec<String> {
    run_at(s, NOW)
}

/// The last status, in words.
fn status(s: &Snapshot) -> String {
    let plan = Plan {
        status: s.status.clone(),
        ..Plan::default()
    };
    plan.to_string().trim_start_matches("status ").trim().into()
}

#[test]
fn a_job_of_fixed_completions_runs_so_many_at_a_time_and_is_complete_when_all_have_succeeded() {
    let mut s = job("completions: 3\nparallelism: 2");
    let plans = run(&mut s);
    assert_eq!(
        plans,
        [
            "create pod sum-f8p5h number=0\ncreate pod sum-xrnsr number=1\n\
             status active=0 ready=0 terminating=0 succeeded=0 failed=0 counted=\n",
            "status active=2 ready=2 terminating=0 succeeded=0 failed=0 counted=\n",
        ]
    );
    s.succeed(0);
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=2 ready=2 terminating=0 succeeded=1 failed=0 counted=0"
    );
    s.succeed(1);
    s.succeed(2);
    let plans = run(&mut s);
    assert_eq!(
        plans,
        [
            "status active=0 ready=0 terminating=0 succeeded=3 failed=0 counted=0-2 \
          SuccessCriteriaMet=True/CompletionsReached Complete=True/CompletionsReached\n\
          tell Completed: Job completed\n"
        ]
    );
    let done = s.status.as_ref().unwrap();
    assert_eq!(done.completion_time, Some(now()));
    assert_eq!(done.start_time, Some(now()));
    assert_eq!(s.pods.len(), 3, "they stay for their logs");
}

#[test]
fn a_work_queue_starts_no_more_once_one_has_succeeded_and_waits_for_the_others() {
    let mut s = job("parallelism: 3");
    run(&mut s);
    assert_eq!(s.pods.len(), 3);
    s.succeed(1);
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=2 ready=2 terminating=0 succeeded=1 failed=0 counted=1"
    );
    s.fail(0, 1);
    run(&mut s);
    assert_eq!(s.pods.len(), 3, "nothing is replaced any more");
    s.succeed(2);
    run(&mut s);
    assert!(s.status.as_ref().unwrap().is("Complete"));
    assert!(status(&s).starts_with("active=0 ready=0 terminating=0 succeeded=2 failed=1"));
}

#[test]
fn replacements_wait_twice_as_long_after_each_failure_and_at_most_six_minutes() {
    let mut s = job("completions: 1\nbackoffLimit: 50");
    let mut time = NOW;
    for wait in [10, 20, 40, 80, 160, 320, 360, 360] {
        run_at(&mut s, time);
        let last = s.pods.iter().filter_map(|p| p.number).max().unwrap();
        let pod = s.pod(last);
        assert_eq!(pod.outcome, Outcome::None);
        *pod = pod.clone().failed(time, 1);
        let pods = s.pods.len();
        run_at(&mut s, time);
        let plan = decide(&s, at(time + wait - 1));
        assert_eq!(plan.look_again, Some(std::time::Duration::from_secs(1)));
        assert_eq!(s.pods.len(), pods, "not before {wait} s");
        time += wait;
    }
    run_at(&mut s, time);
    let last = s.pods.iter().filter_map(|p| p.number).max().unwrap();
    assert_eq!(last, 8);
    // A success makes an end of it.
    s.spec.completions = Some(3);
    let pod = s.pod(last);
    *pod = pod.clone().succeeded(time);
    run_at(&mut s, time);
    assert_eq!(s.pods.len(), 10, "replaced at once");
}

#[test]
fn a_job_fails_beyond_its_backoff_limit_and_what_runs_is_counted_then_deleted() {
    let mut s = job("completions: 4\nparallelism: 3\nbackoffLimit: 1");
    run(&mut s);
    s.fail(0, 1);
    s.fail(1, 1);
    let plans = run(&mut s);
    assert_eq!(
        plans,
        [
            "status active=1 ready=1 terminating=0 succeeded=0 failed=3 counted=0-2 \
             FailureTarget=True/BackoffLimitExceeded\n\
             note: it ends (BackoffLimitExceeded) when 1 pods have stopped\n",
            "delete pod sum-nmswt at 10\n\
             note: it ends (BackoffLimitExceeded) when 1 pods have stopped\n",
            "status active=0 ready=0 terminating=1 succeeded=0 failed=3 counted=0-2 \
             FailureTarget=True/BackoffLimitExceeded\n\
             note: it ends (BackoffLimitExceeded) when 1 pods have stopped\n",
        ]
    );
    s.stopping.clear();
    let plans = run(&mut s);
    assert_eq!(
        plans,
        [
            "status active=0 ready=0 terminating=0 succeeded=0 failed=3 counted=0-2 \
          FailureTarget=True/BackoffLimitExceeded Failed=True/BackoffLimitExceeded\n\
          tell BackoffLimitExceeded: Job has reached the specified backoff limit\n"
        ]
    );
    assert_eq!(s.status.as_ref().unwrap().completion_time, None);
}

#[test]
fn pods_that_restart_in_place_count_their_restarts_against_the_limit() {
    let spec = |limit| format!("backoffLimit: {limit}\ncompletions: 2\nparallelism: 2");
    for (limit, restarts, fails) in [
        (3, [1, 1], false),
        (3, [1, 2], true),
        (0, [0, 0], false),
        (0, [1, 0], true),
    ] {
        let mut s = job(&spec(limit));
        let template = std::sync::Arc::make_mut(&mut s.spec.template.spec);
        template.restart_policy = Some(setpoint_apis::core::RestartPolicy::OnFailure);
        run(&mut s);
        for (pod, n) in s.pods.iter_mut().zip(restarts) {
            pod.restarts = n;
        }
        run(&mut s);
        let failed = s.status.as_ref().unwrap().is("FailureTarget");
        assert_eq!(failed, fails, "limit {limit}, {restarts:?}");
    }
}

#[test]
fn a_job_fails_when_its_deadline_is_over_and_looks_again_then() {
    let mut s = job("activeDeadlineSeconds: 60");
    run(&mut s);
    assert_eq!(
        decide(&s, at(NOW + 59)).look_again,
        Some(std::time::Duration::from_secs(1))
    );
    run_at(&mut s, NOW + 60);
    s.stopping.clear();
    run_at(&mut s, NOW + 61);
    assert!(status(&s).ends_with(
        "failed=1 counted=0 FailureTarget=True/DeadlineExceeded Failed=True/DeadlineExceeded"
    ));
}

#[test]
fn suspending_deletes_without_counting_and_resuming_begins_the_deadline_anew() {
    let mut s = job("completions: 2\nparallelism: 2\nactiveDeadlineSeconds: 60\nsuspend: true");
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=0 ready=0 terminating=0 succeeded=0 failed=0 counted= Suspended=True/JobSuspended"
    );
    assert_eq!(s.status.as_ref().unwrap().start_time, None);
    s.spec.suspend = Some(false);
    let plans = run_at(&mut s, NOW + 500);
    assert!(plans[0].contains("tell Resumed: Job resumed"), "{plans:?}");
    assert_eq!(s.status.as_ref().unwrap().start_time, Some(at(NOW + 500)));
    assert_eq!(s.pods.len(), 2);
    s.succeed(0);
    s.spec.suspend = Some(true);
    let plans = run_at(&mut s, NOW + 510);
    let told = plans.iter().flat_map(|plan| plan.lines());
    let told: Vec<&str> = told.filter(|line| line.starts_with("tell ")).collect();
    assert_eq!(told, ["tell Suspended: Job suspended"]);
    s.stopping.clear();
    run_at(&mut s, NOW + 520);
    assert_eq!(
        status(&s),
        "active=0 ready=0 terminating=0 succeeded=1 failed=0 counted=0 Suspended=True/JobSuspended"
    );
    // The deadline does not run while nothing does.
    assert_eq!(decide(&s, at(NOW + 5_000)).look_again, None);
    s.spec.suspend = Some(false);
    run_at(&mut s, NOW + 5_000);
    let status = s.status.as_ref().unwrap();
    assert_eq!(status.start_time, Some(at(NOW + 5_000)));
    assert!(!status.is("Suspended") && !status.is("FailureTarget"));
    assert_eq!(s.pods.len(), 2);
}

#[test]
fn a_finished_job_stays_as_it_is_whatever_becomes_of_its_pods() {
    let mut s = job("completions: 1");
    run(&mut s);
    s.succeed(0);
    run(&mut s);
    let done = s.status.clone();
    // Its node was removed, with the record: it runs again somewhere, until it is seen.
    s.pods[0] = pod("sum-again", 0);
    assert_eq!(run(&mut s), ["delete pod sum-again at 10\n"]);
    s.pods.clear();
    s.stopping.clear();
    s.spec.completions = Some(5);
    assert!(run(&mut s).is_empty());
    assert_eq!(s.status, done);
}

#[test]
fn a_pod_that_is_counted_and_runs_again_goes_and_is_not_counted_twice() {
    let mut s = job("completions: 3\nparallelism: 1");
    run(&mut s);
    s.succeed(0);
    run(&mut s);
    let name = s.pod(0).facts.key.name.to_string();
    *s.pod(0) = pod(&name, 0);
    let plans = run(&mut s);
    assert_eq!(
        plans[0].lines().next().unwrap(),
        format!("delete pod {name} at 10")
    );
    assert_eq!(
        status(&s),
        "active=1 ready=1 terminating=1 succeeded=1 failed=0 counted=0"
    );
}

#[test]
fn a_pod_that_somebody_deletes_is_replaced_and_has_not_failed() {
    let mut s = job("completions: 2\nparallelism: 2\nbackoffLimit: 0");
    run(&mut s);
    // One that runs, and one that has failed and that nobody has counted yet.
    for (number, fails) in [(0, false), (1, true)] {
        if fails {
            s.fail(number, 1);
        }
        s.pods.retain(|p| p.number != Some(number));
        run(&mut s);
        assert_eq!(
            status(&s),
            "active=2 ready=2 terminating=0 succeeded=0 failed=0 counted="
        );
    }
    let mut numbers: Vec<_> = s.pods.iter().filter_map(|p| p.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3], "others, at once");
    s.succeed(2);
    s.succeed(3);
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=0 ready=0 terminating=0 succeeded=2 failed=0 counted=2,3 \
         SuccessCriteriaMet=True/CompletionsReached Complete=True/CompletionsReached"
    );
}

#[test]
fn a_finished_job_is_deleted_when_its_time_is_over_and_not_before() {
    let mut s = job("completions: 1\nttlSecondsAfterFinished: 100");
    run(&mut s);
    s.succeed(0);
    run(&mut s);
    let plan = decide(&s, at(NOW + 99));
    assert!(plan.is_empty());
    assert_eq!(plan.look_again, Some(std::time::Duration::from_secs(1)));
    let later = at(NOW + 100);
    assert_eq!(decide(&s, later).to_string(), "delete the Job\n");
    s.terminating = true;
    assert!(decide(&s, later).is_empty());
    s.terminating = false;
    s.invalid = Some(Unusable::document("no"));
    assert!(
        !decide(&s, later).expire,
        "a document that does not parse stays"
    );
}

#[test]
fn what_does_not_parse_freezes_the_job() {
    let mut s = job("completions: 2");
    run(&mut s);
    s.succeed(0);
    s.invalid = Some(Unusable::document("line 3: no"));
    let plans = run(&mut s);
    assert_eq!(
        plans,
        [
            "status active=1 ready=1 terminating=0 succeeded=0 failed=0 counted= Invalid=True/DocumentInvalid\ntell DocumentInvalid: line 3: no\n\
          note: the document does not parse: frozen\n"
        ]
    );
    s.invalid = None;
    s.lost_count = Some("no".into());
    let plan = decide(&s, now());
    assert!(plan.is_empty());
    assert_eq!(plan.notes, ["what is counted cannot be read: frozen: no"]);
    s.lost_count = None;
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=1 ready=1 terminating=0 succeeded=1 failed=0 counted=0"
    );
}

#[test]
fn a_pod_that_cannot_be_read_takes_a_place_and_is_left_alone() {
    let mut s = job("completions: 2\nparallelism: 2");
    let mut frozen = pod("sum-bcdfg", 0);
    frozen.facts = PodFacts::unreadable(&frozen.facts.key, 7);
    frozen.number = None;
    s.pods.push(frozen);
    run(&mut s);
    assert_eq!(s.pods.len(), 2);
    s.spec.suspend = Some(true);
    run(&mut s);
    assert_eq!((s.pods.len(), s.stopping.len()), (1, 1));
}

#[test]
fn too_many_pods_go_the_least_useful_first_and_are_not_counted() {
    let mut s = job("completions: 9\nparallelism: 3");
    run(&mut s);
    s.pod(1).facts.ready_since = None;
    s.spec.parallelism = Some(2);
    let name = s.pod(1).facts.key.name.clone();
    let plan = decide(&s, now());
    assert_eq!(plan.delete.len(), 1);
    assert_eq!(plan.delete[0].pod.key.name, name);
    assert_eq!(plan.delete[0].record, Record::At("n1".into(), 5));
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=2 ready=2 terminating=1 succeeded=0 failed=0 counted="
    );
}

#[test]
fn a_job_that_replaces_only_what_has_ended_waits_for_what_is_being_stopped() {
    for (policy, pods) in [("Failed", 1), ("TerminatingOrFailed", 2)] {
        let mut s = job(&format!(
            "completions: 4\nparallelism: 2\npodReplacementPolicy: {policy}"
        ));
        run(&mut s);
        let gone = s.pods.remove(0);
        s.stopping.push((gone.facts.key.name.clone(), None));
        run(&mut s);
        assert_eq!(s.pods.len(), pods, "{policy}");
        s.stopping.clear();
        run(&mut s);
        assert_eq!(s.pods.len(), 2, "{policy}");
    }
}

#[test]
fn nothing_is_created_without_a_namespace_during_deletion_or_for_another_controller() {
    let mut s = job("completions: 1");
    s.namespace_exists = false;
    run(&mut s);
    assert!(s.pods.is_empty());
    s.namespace_exists = true;
    s.terminating = true;
    run(&mut s);
    assert!(s.pods.is_empty());
    let mut s = job("managedBy: example.com/kueue");
    assert!(run(&mut s).is_empty());
    let mut s = job("managedBy: kubernetes.io/job-controller");
    run(&mut s);
    assert_eq!(s.pods.len(), 1);
}

#[test]
fn the_status_of_another_controller_is_not_written_over_while_the_document_does_not_parse() {
    let mut s = job("managedBy: example.com/kueue");
    s.invalid = Some(Unusable::document("no YAML"));
    assert!(decide(&s, now()).is_empty());
    // Nobody knows who looks after one whose document was never read.
    let mut s = job("completions: 1");
    (s.uid, s.invalid) = (String::new(), Some(Unusable::document("no YAML")));
    assert!(decide(&s, now()).status.is_some());
    s.status = Some(JobStatus {
        start_time: Some(now()),
        ..JobStatus::default()
    });
    assert!(decide(&s, now()).is_empty());
}

#[test]
fn after_a_refused_create_one_is_tried() {
    let mut s = job("completions: 9\nparallelism: 9");
    s.refused = true;
    assert_eq!(decide(&s, now()).create.len(), 1);
}

#[test]
fn adopted_pods_are_counted_by_their_uid_while_they_are_there() {
    let mut s = job("completions: 3\nparallelism: 1");
    let name = ObjectKey::namespaced("default", "stray");
    s.adoptable = vec![super::plan::Seen {
        key: name.clone(),
        mod_revision: 7,
    }];
    let plans = run(&mut s);
    assert_eq!(plans[0], "adopt pod stray at 7\n");
    assert_eq!(s.pods.len(), 1);
    s.pods[0] = s.pods[0].clone().succeeded(NOW);
    run(&mut s);
    let stored = s.status.clone().unwrap();
    assert_eq!(stored.succeeded, Some(1));
    assert_eq!(stored.counted.unwrap().adopted, ["uid of stray"]);
    s.pods.retain(|p| p.facts.key != name);
    run(&mut s);
    let stored = s.status.clone().unwrap();
    assert_eq!(stored.succeeded, Some(1));
    assert!(stored.counted.unwrap().adopted.is_empty());
}

#[test]
fn numbers_of_pods_that_leave_no_room_are_no_count() {
    let status = |pods: &str| JobStatus {
        counted: Some(CountedPods {
            of: "u".into(),
            pods: pods.into(),
            ..CountedPods::default()
        }),
        completed_indexes: Some("0-2147483647".into()),
        ..JobStatus::default()
    };
    let counts = Counts::of(&status("0-1000000000")).unwrap();
    assert_eq!(counts.pods.text(), "0-1000000000");
    assert_eq!(counts.completed.below(10).text(), "0-9");
    let error = Counts::of(&status("0-2147483647")).unwrap_err();
    assert!(
        error.starts_with("status.counted.pods: 2147483647 is more"),
        "{error}"
    );
}
