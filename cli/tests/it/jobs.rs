//! Jobs and CronJobs at the command line.

use setpoint_apis::batch::Job;
use setpoint_apis::{Key, ObjectKey, document};

use crate::fixture::Fixture;

const CRON_JOB: &str = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: bill}\nspec:\n  schedule: '0 3 * * *'\n  \
    jobTemplate:\n    metadata: {labels: {of: bill}, annotations: {note: yes please}}\n    spec:\n      backoffLimit: 2\n      \
    template: {spec: {restartPolicy: Never, containers: [{name: c, image: host, command: [date]}]}}\n";

async fn job(f: &Fixture, name: &str) -> Job {
    let text = f.desired("jobs", name).await.expect("it was created");
    let key = ObjectKey::namespaced("default", name);
    document::decode_keyed(&key, text.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_from_a_cron_job_and_belongs_to_it() {
    let f = Fixture::new("create-job").await;
    f.apply(CRON_JOB);
    let out = f.run(&["create", "job", "now", "--from=cronjob/bill"]).ok();
    assert_eq!(out, "job.batch/now created\n");
    let now = job(&f, "now").await;
    let noted = &now.metadata.annotations;
    assert_eq!(noted["cronjob.kubernetes.io/instantiate"], "manual");
    assert_eq!(noted["note"], "yes please");
    assert_eq!(now.metadata.labels["of"], "bill");
    assert_eq!(now.spec.backoff_limit, Some(2));
    let owner = now.metadata.controller().unwrap();
    let uid = f
        .run(&["get", "cronjob", "bill", "-o", "jsonpath={.metadata.uid}"])
        .ok();
    assert_eq!(
        (owner.kind.as_str(), &*owner.name, owner.uid.as_str()),
        ("CronJob", "bill", uid.trim())
    );
    let err = f
        .run(&["create", "job", "now", "--from=cronjob/bill"])
        .fails();
    assert!(err.contains("jobs.batch \"now\" already exists"), "{err}");
    let err = f
        .run(&["create", "job", "x", "--from=cronjob/nope"])
        .fails();
    assert!(err.contains("cronjobs.batch \"nope\" not found"), "{err}");
    let err = f.run(&["create", "job", "x", "--from=job/now"]).fails();
    assert!(err.contains("takes a CronJob"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_of_an_image_and_a_command_and_checked_as_any_other() {
    let f = Fixture::new("create-job-plain").await;
    f.run(&["create", "job", "hello", "--image=host", "--", "echo", "hi"])
        .ok();
    let hello = job(&f, "hello").await;
    let container = &hello.spec.template.spec.containers[0];
    assert_eq!(
        (container.image.as_str(), container.command.as_slice()),
        ("host", &["echo".to_owned(), "hi".to_owned()][..])
    );
    let err = f.run(&["create", "job", "a/b", "--image=host"]).fails();
    assert!(err.contains("a/b"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_cron_jobs_are_shown_as_kubectl_shows_them() {
    let f = Fixture::new("get-jobs").await;
    f.apply(CRON_JOB);
    f.run(&["create", "job", "a", "--image=host"]).ok();
    let key = |name| ObjectKey::namespaced("default", name);
    let status = "succeeded: 1\nstartTime: 2026-01-01T00:00:00Z\ncompletionTime: 2026-01-01T00:00:42Z\n\
                  conditions: [{type: Complete, status: 'True'}]\n";
    f.put(&Key::Actual("jobs", key("a")), status).await;
    let row = |out: String| -> Vec<String> { out.split_whitespace().map(str::to_owned).collect() };
    let out = f.run(&["get", "job", "a", "--no-headers"]).ok();
    assert_eq!(row(out)[..4], ["a", "Complete", "1/1", "42s"]);
    let out = f.run(&["get", "cronjobs", "--no-headers"]).ok();
    assert_eq!(
        row(out)[..9],
        ["bill", "0", "3", "*", "*", "*", "<none>", "False", "0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_of_what_its_cron_job_says_and_of_no_defaults() {
    let f = Fixture::new("create-job-written").await;
    f.apply(CRON_JOB);
    let ran = f.run(&["create", "job", "now", "--from=cronjob/bill"]);
    assert_eq!(ran.err, "", "of fields that nobody wrote");
    ran.ok();
    let text = f.desired("jobs", "now").await.unwrap();
    assert!(
        text.contains("backoffLimit: 2") && text.contains("date"),
        "{text}"
    );
    for default in [
        "imagePullPolicy",
        "terminationMessagePath",
        "schedulerName",
        "completions",
    ] {
        assert!(!text.contains(default), "{default} in {text}");
    }
}
