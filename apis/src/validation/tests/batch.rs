//! The rules of Jobs and CronJobs.

use super::check;
use crate::batch::{CronJob, Job};

const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  backoffLimit: 3
  template:
    metadata: {labels: {app: sum}}
    spec: {restartPolicy: Never, containers: [{name: a, image: host}]}
";

#[test]
fn jobs_are_held_to_their_rules() {
    let long = "a".repeat(64);
    let named = format!("name: {long}");
    check::<Job>(
        JOB,
        &[
            ("name: sum", &named, "metadata.name: "),
            (
                "backoffLimit: 3",
                "backoffLimit: -1",
                "spec.backoffLimit: -1",
            ),
            ("backoffLimit: 3", "parallelism: -1", "spec.parallelism: -1"),
            (
                "restartPolicy: Never",
                "restartPolicy: Always",
                "spec.template.spec.restartPolicy: must be Never or OnFailure",
            ),
            (
                "restartPolicy: Never, ",
                "",
                "spec.template.spec.restartPolicy: must be Never or OnFailure",
            ),
            (
                "backoffLimit: 3",
                "completionMode: Indexed\n  parallelism: 2",
                "spec.completions: is missing",
            ),
            (
                "backoffLimit: 3",
                "backoffLimitPerIndex: 1",
                "spec.backoffLimitPerIndex: has a meaning only",
            ),
            (
                "backoffLimit: 3",
                "selector: {matchLabels: {app: sum}}",
                "spec.selector: is made by the controller",
            ),
            (
                "backoffLimit: 3",
                "manualSelector: true",
                "spec.selector: is missing",
            ),
            (
                "backoffLimit: 3",
                "manualSelector: true\n  selector: {matchLabels: {app: x}}",
                "spec.template.metadata.labels: the selector",
            ),
            (
                "backoffLimit: 3",
                "managedBy: me",
                "spec.managedBy: \"me\" is not a name with a domain",
            ),
            (
                "backoffLimit: 3",
                &format!("managedBy: example.com/{}", "x".repeat(60)),
                "spec.managedBy: has 72 characters, the most is 63",
            ),
            (
                "backoffLimit: 3",
                "podReplacementPolicy: TerminatingOrFailed\n  podFailurePolicy: {rules: []}",
                "spec.podReplacementPolicy: must be Failed",
            ),
        ],
    );
}

const INDEXED: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completionMode: Indexed
  completions: 5
  parallelism: 5
  backoffLimitPerIndex: 1
  maxFailedIndexes: 2
  successPolicy: {rules: [{succeededIndexes: '0,2-4', succeededCount: 2}]}
  podFailurePolicy:
    rules:
    - {action: FailIndex, onExitCodes: {containerName: a, operator: In, values: [1, 42]}}
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}
  template:
    spec: {restartPolicy: Never, containers: [{name: a, image: host}]}
";

#[test]
fn policies_of_jobs_are_held_to_their_rules() {
    let rules = "spec.podFailurePolicy.rules";
    let at = |rest: &str| format!("{rules}{rest}");
    let first = "onExitCodes: {containerName: a, operator: In, values: [1, 42]}";
    let success = "spec.successPolicy.rules[0]";
    let wins = |rest: &str| format!("{success}.{rest}");
    let name = format!("name: {}", "a".repeat(62));
    check::<Job>(
        INDEXED,
        &[
            (
                "name: sum",
                &name,
                "metadata.name: the host name of the last pod",
            ),
            (
                "maxFailedIndexes: 2",
                "maxFailedIndexes: 6",
                "spec.maxFailedIndexes: 6 is too large",
            ),
            (
                "backoffLimitPerIndex: 1",
                "backoffLimit: 1",
                "spec.maxFailedIndexes: has a meaning only",
            ),
            (
                "backoffLimitPerIndex: 1",
                "backoffLimit: 1",
                &at("[0].action: FailIndex"),
            ),
            (
                "parallelism: 5",
                "parallelism: 100001",
                "spec.parallelism: 100001 is too large",
            ),
            (
                "restartPolicy: Never",
                "restartPolicy: OnFailure",
                "spec.podFailurePolicy: has a meaning only",
            ),
            (
                "values: [1, 42]",
                "values: [0, 42]",
                &at("[0].onExitCodes.values[0]: 0 is no failure"),
            ),
            (
                "values: [1, 42]",
                "values: [42, 1]",
                &at("[0].onExitCodes.values[1]: 1 is not in rising order"),
            ),
            (
                "values: [1, 42]",
                "values: []",
                &at("[0].onExitCodes.values: needs at least one"),
            ),
            (
                "containerName: a",
                "containerName: b",
                &at("[0].onExitCodes.containerName: the pod has no container \"b\""),
            ),
            (first, "onPodConditions: []", &at("[0]: needs one of")),
            (
                "type: DisruptionTarget",
                "type: DisruptionTarget, status: Maybe",
                &at("[1].onPodConditions[0].status"),
            ),
            (
                "'0,2-4'",
                "'0,2-5'",
                &wins("succeededIndexes: 5 is not a number of this Job"),
            ),
            (
                "'0,2-4'",
                "'4,2'",
                &wins("succeededIndexes: \"4,2\" is not in rising order"),
            ),
            (
                "succeededCount: 2",
                "succeededCount: -1",
                &wins("succeededCount: -1 is too small: it must be at least 0"),
            ),
            (
                "succeededCount: 2",
                "succeededCount: 5",
                &wins("succeededCount: 5 is too large: it must be at most 4"),
            ),
            (
                "{succeededIndexes: '0,2-4', succeededCount: 2}",
                "{}",
                "spec.successPolicy.rules[0]: needs",
            ),
        ],
    );
    let many = INDEXED.replace("completions: 5", "completions: 200000");
    check::<Job>(
        &many,
        &[
            (
                "  maxFailedIndexes: 2\n",
                "",
                "spec.maxFailedIndexes: is missing",
            ),
            (
                "maxFailedIndexes: 2",
                "maxFailedIndexes: 10001",
                "spec.maxFailedIndexes: 10001 is too large",
            ),
            (
                "parallelism: 5",
                "parallelism: 10001",
                "spec.parallelism: 10001 is too large",
            ),
        ],
    );
}

const CRON_JOB: &str = "
apiVersion: batch/v1
kind: CronJob
metadata: {name: report}
spec:
  schedule: 30 6 * * 1-5
  timeZone: Europe/Berlin
  failedJobsHistoryLimit: 1
  jobTemplate:
    spec:
      backoffLimit: 3
      template: {spec: {restartPolicy: OnFailure, containers: [{name: a, image: host}]}}
";

#[test]
fn cron_jobs_are_held_to_their_rules() {
    let name = format!("name: {}", "a".repeat(53));
    check::<CronJob>(
        CRON_JOB,
        &[
            ("name: report", &name, "metadata.name: "),
            (
                "30 6 * * 1-5",
                "30 25 * * 1-5",
                "spec.schedule: the hour, \"25\", has 25, which is not 0 to 23",
            ),
            (
                "30 6 * * 1-5",
                "0 0 30 2 *",
                "spec.schedule: \"0 0 30 2 *\" never fires",
            ),
            (
                "Europe/Berlin",
                "Local",
                "spec.timeZone: \"Local\" is not a time zone",
            ),
            (
                "failedJobsHistoryLimit: 1",
                "failedJobsHistoryLimit: -1",
                "spec.failedJobsHistoryLimit: -1",
            ),
            (
                "failedJobsHistoryLimit: 1",
                "startingDeadlineSeconds: -1",
                "spec.startingDeadlineSeconds: -1",
            ),
            (
                "backoffLimit: 3",
                "selector: {matchLabels: {a: b}}",
                "spec.jobTemplate.spec.selector: is not possible here",
            ),
            (
                "backoffLimit: 3",
                "manualSelector: true",
                "spec.jobTemplate.spec.manualSelector: is not possible here",
            ),
            (
                "backoffLimit: 3",
                "backoffLimit: -1",
                "spec.jobTemplate.spec.backoffLimit: -1",
            ),
            (
                "OnFailure",
                "Always",
                "spec.jobTemplate.spec.template.spec.restartPolicy",
            ),
        ],
    );
}
