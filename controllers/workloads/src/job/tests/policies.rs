//! Indexed Jobs, and what policies make of failures and successes.

use super::*;

const INDEXED: &str = "completionMode: Indexed\n";

fn indexed(spec: &str) -> Snapshot {
    job(&format!("{INDEXED}{spec}"))
}

impl Snapshot {
    /// The pod of an index that has not ended.
    fn at_index(&mut self, index: i32) -> &mut JobPod {
        let mut pods = self.pods.iter_mut();
        let live = |p: &&mut JobPod| p.index == Some(index) && p.outcome == Outcome::None;
        pods.find(live).unwrap()
    }

    fn end_index(&mut self, index: i32, code: i32, seconds: i64) {
        let pod = self.at_index(index);
        *pod = match code {
            0 => pod.clone().succeeded(seconds),
            code => pod.clone().failed(seconds, code),
        };
    }

    fn live_indexes(&self) -> Vec<i32> {
        let live = self.pods.iter().filter(|p| p.outcome == Outcome::None);
        let mut all: Vec<i32> = live.filter_map(|p| p.index).collect();
        all.sort_unstable();
        all
    }
}

#[test]
fn every_index_succeeds_once_and_the_lowest_ones_come_first() {
    let mut s = indexed("completions: 5\nparallelism: 2");
    run(&mut s);
    assert_eq!(s.live_indexes(), [0, 1]);
    let names: Vec<String> = s
        .pods
        .iter()
        .map(|p| p.facts.key.name.to_string())
        .collect();
    assert!(
        names[0].starts_with("sum-0-") && names[1].starts_with("sum-1-"),
        "{names:?}"
    );
    s.end_index(1, 0, NOW);
    run(&mut s);
    assert_eq!(s.live_indexes(), [0, 2]);
    s.end_index(0, 1, NOW + 1);
    run_at(&mut s, NOW + 1);
    assert_eq!(s.live_indexes(), [2], "the failure makes it wait");
    assert_eq!(
        status(&s),
        "active=1 ready=1 terminating=0 succeeded=1 failed=1 completedIndexes=1 counted=0,1"
    );
    run_at(&mut s, NOW + 11);
    assert_eq!(s.live_indexes(), [0, 2]);
    for index in [0, 2, 3, 4] {
        s.end_index(index, 0, NOW + 20);
        run_at(&mut s, NOW + 20);
    }
    assert_eq!(
        status(&s),
        "active=0 ready=0 terminating=0 succeeded=5 failed=1 completedIndexes=0-4 counted=0-5 \
         SuccessCriteriaMet=True/CompletionsReached Complete=True/CompletionsReached"
    );
}

#[test]
fn two_pods_of_one_index_are_one_success_and_one_of_them_goes() {
    let mut s = indexed("completions: 3\nparallelism: 2");
    run(&mut s);
    let mut twin = s.at_index(0).clone();
    twin.facts.key = ObjectKey::namespaced("default", "sum-0-twin");
    twin.facts.ready_since = None;
    twin.number = Some(9);
    s.pods.push(twin.clone());
    let plan = decide(&s, now());
    assert_eq!(plan.delete.len(), 1);
    assert_eq!(&*plan.delete[0].pod.key.name, "sum-0-twin");
    s.pods[0] = s.pods[0].clone().succeeded(NOW);
    *s.pods.last_mut().unwrap() = twin.succeeded(NOW);
    run(&mut s);
    assert_eq!(s.status.as_ref().unwrap().succeeded, Some(1));
    // A pod without an index, or with one that there is not, is nobody's.
    for index in [None, Some(3)] {
        let mut s = indexed("completions: 3\nparallelism: 2");
        s.pods.push(JobPod {
            index,
            ..pod("sum-x", 7)
        });
        assert_eq!(decide(&s, now()).delete.len(), 1, "{index:?}");
        s.pods[0] = s.pods[0].clone().succeeded(NOW);
        run(&mut s);
        assert_eq!(s.status.unwrap().succeeded, None, "{index:?}");
    }
}

#[test]
fn an_indexed_job_grows_and_shrinks_with_its_parallelism() {
    let mut s = indexed("completions: 3\nparallelism: 3");
    run(&mut s);
    s.end_index(2, 0, NOW);
    run(&mut s);
    (s.spec.completions, s.spec.parallelism) = (Some(2), Some(2));
    run(&mut s);
    assert_eq!(
        s.status.as_ref().unwrap().succeeded,
        None,
        "index 2 is none any more"
    );
    (s.spec.completions, s.spec.parallelism) = (Some(5), Some(5));
    run(&mut s);
    assert_eq!(s.live_indexes(), [0, 1, 2, 3, 4]);
    (s.spec.completions, s.spec.parallelism) = (Some(1), Some(1));
    run(&mut s);
    assert_eq!(s.live_indexes(), [0]);
    s.stopping.clear();
    s.end_index(0, 0, NOW);
    run(&mut s);
    assert!(s.status.as_ref().unwrap().is("Complete"));
}

#[test]
fn an_index_fails_beyond_its_own_limit_and_the_others_go_on() {
    let mut s = indexed("completions: 3\nparallelism: 3\nbackoffLimitPerIndex: 1");
    run(&mut s);
    s.end_index(1, 1, NOW);
    run(&mut s);
    assert_eq!(s.live_indexes(), [0, 2]);
    assert_eq!(
        status(&s),
        "active=2 ready=2 terminating=0 succeeded=0 failed=1 failedIndexes= counted=1"
    );
    let plans = run_at(&mut s, NOW + 10);
    assert!(plans[0].contains("failures=1 ignored=0"), "{plans:?}");
    s.end_index(1, 1, NOW + 10);
    run_at(&mut s, NOW + 10);
    assert!(status(&s).contains("failedIndexes=1 "), "{}", status(&s));
    run_at(&mut s, NOW + 1_000);
    assert_eq!(s.live_indexes(), [0, 2], "it is not tried again");
    s.end_index(0, 0, NOW + 1_000);
    s.end_index(2, 0, NOW + 1_000);
    run_at(&mut s, NOW + 1_000);
    assert_eq!(
        status(&s),
        "active=0 ready=0 terminating=0 succeeded=2 failed=2 completedIndexes=0,2 failedIndexes=1 \
         counted=0-3 FailureTarget=True/FailedIndexes Failed=True/FailedIndexes"
    );
}

#[test]
fn an_index_that_waits_does_not_hold_up_the_others() {
    let mut s = indexed("completions: 4\nparallelism: 1\nbackoffLimitPerIndex: 3");
    run(&mut s);
    s.end_index(0, 1, NOW);
    run(&mut s);
    assert_eq!(s.live_indexes(), [1]);
    s.end_index(1, 0, NOW + 10);
    run_at(&mut s, NOW + 10);
    assert_eq!(s.live_indexes(), [0]);
}

#[test]
fn a_job_fails_when_more_indexes_have_failed_than_may() {
    let mut s =
        indexed("completions: 5\nparallelism: 5\nbackoffLimitPerIndex: 0\nmaxFailedIndexes: 1");
    run(&mut s);
    s.end_index(1, 1, NOW);
    run(&mut s);
    assert!(!s.status.as_ref().unwrap().is("FailureTarget"));
    s.end_index(3, 1, NOW);
    run(&mut s);
    s.stopping.clear();
    run(&mut s);
    assert!(status(&s).ends_with(
        "failed=5 failedIndexes=1,3 counted=0-4 FailureTarget=True/MaxFailedIndexesExceeded \
         Failed=True/MaxFailedIndexesExceeded"
    ));
}

#[test]
fn a_success_policy_ends_the_job_without_counting_what_runs() {
    for (rule, done, met) in [
        ("{succeededIndexes: '1-2'}", &[1][..], None),
        ("{succeededIndexes: '1-2'}", &[1, 2], Some(0)),
        ("{succeededIndexes: '0,2-3', succeededCount: 1}", &[1], None),
        (
            "{succeededIndexes: '0,2-3', succeededCount: 1}",
            &[3],
            Some(0),
        ),
        ("{succeededCount: 2}", &[3], None),
        ("{succeededCount: 2}", &[3, 1], Some(0)),
        (
            "{succeededIndexes: '0'}, {succeededCount: 2}",
            &[3, 1],
            Some(1),
        ),
    ] {
        let mut s = indexed(&format!(
            "completions: 4\nparallelism: 4\nsuccessPolicy: {{rules: [{rule}]}}"
        ));
        run(&mut s);
        for index in done {
            s.end_index(*index, 0, NOW);
        }
        run(&mut s);
        s.stopping.clear();
        run(&mut s);
        let stored = s.status.clone().unwrap();
        assert_eq!(stored.is("Complete"), met.is_some(), "{rule}, {done:?}");
        assert_eq!(stored.failed, None);
        assert_eq!(stored.succeeded, i32::try_from(done.len()).ok());
        if let Some(rule) = met {
            let condition = stored
                .conditions
                .iter()
                .find(|c| c.type_ == "Complete")
                .unwrap();
            assert_eq!(condition.reason.as_deref(), Some("SuccessPolicy"));
            let message = format!("Matched rules at index {rule}");
            assert_eq!(condition.message, Some(message));
        }
    }
}

const POLICY: &str = "completions: 2\nparallelism: 2\nbackoffLimit: 0\npodFailurePolicy:\n  rules:\n  \
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}\n  \
    - {action: FailJob, onExitCodes: {containerName: c, operator: In, values: [42]}}\n  \
    - {action: Ignore, onExitCodes: {operator: NotIn, values: [1, 2]}}\n";

#[test]
fn the_first_rule_that_fits_says_what_becomes_of_a_failure() {
    let mut s = job(POLICY);
    run(&mut s);
    s.fail(0, 77);
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=1 ready=1 terminating=0 succeeded=0 failed=0 counted=",
        "ignored"
    );
    run_at(&mut s, NOW + 10);
    assert_eq!(s.pods.len(), 3, "and replaced");
    s.fail(1, 42);
    run_at(&mut s, NOW + 10);
    let stored = s.status.clone().unwrap();
    let condition = stored
        .conditions
        .iter()
        .find(|c| c.type_ == "FailureTarget")
        .unwrap();
    assert_eq!(condition.reason.as_deref(), Some("PodFailurePolicy"));
    let name = s.pod(1).facts.key.clone();
    assert_eq!(
        condition.message.as_deref().unwrap(),
        format!(
            "Container c for pod {name} failed with exit code 42 matching FailJob rule at index 1"
        )
    );

    let mut s = job(POLICY);
    run(&mut s);
    s.fail(0, 1);
    run(&mut s);
    assert!(
        status(&s).contains("FailureTarget=True/BackoffLimitExceeded"),
        "no rule fits: it counts"
    );

    let mut s = job(POLICY);
    run(&mut s);
    s.fail(0, 42);
    let Outcome::Failed(failure) = &mut s.pod(0).outcome else {
        panic!("it has failed")
    };
    failure
        .conditions
        .push(("DisruptionTarget".into(), "True".into()));
    run(&mut s);
    assert_eq!(s.status.unwrap().failed, None, "the condition comes first");
}

#[test]
fn a_policy_fails_an_index_at_once() {
    let mut s = indexed(
        "completions: 2\nparallelism: 2\nbackoffLimitPerIndex: 5\npodFailurePolicy:\n  rules:\n  \
         - {action: FailIndex, onExitCodes: {operator: In, values: [42]}}\n  \
         - {action: Ignore, onExitCodes: {operator: In, values: [43]}}\n",
    );
    run(&mut s);
    s.end_index(0, 42, NOW);
    s.end_index(1, 43, NOW);
    run(&mut s);
    assert_eq!(
        status(&s),
        "active=0 ready=0 terminating=0 succeeded=0 failed=1 failedIndexes=0 counted=0"
    );
    let plans = run_at(&mut s, NOW + 10);
    assert!(plans[0].contains("failures=0 ignored=1"), "{plans:?}");
}

/// As in Kubernetes, where failures are looked at first.
#[test]
fn a_success_policy_holds_though_an_index_has_failed_unless_every_index_has_ended() {
    for (completions, reason) in [(2, "FailedIndexes"), (3, "SuccessPolicy")] {
        let mut s = indexed(&format!(
            "completions: {completions}\nparallelism: 3\nbackoffLimitPerIndex: 1\n\
             successPolicy: {{rules: [{{succeededIndexes: '1'}}]}}\npodFailurePolicy:\n  rules:\n  \
             - {{action: FailIndex, onExitCodes: {{operator: In, values: [42]}}}}\n"
        ));
        run(&mut s);
        s.end_index(0, 42, NOW);
        s.end_index(1, 0, NOW);
        run(&mut s);
        s.stopping.clear();
        run(&mut s);
        let stored = s.status.clone().unwrap();
        assert!(stored.is_finished(), "{}", status(&s));
        let found = stored.conditions.last().unwrap();
        assert_eq!(found.reason.as_deref(), Some(reason), "{}", status(&s));
        assert_eq!(stored.failed, Some(1), "what ran counts as neither");
        assert_eq!(stored.failed_indexes.as_deref(), Some("0"));
    }
}
