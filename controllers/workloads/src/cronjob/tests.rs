//! Decisions about CronJobs: values in, plans out.

use std::collections::BTreeMap;
use std::time::Duration;

use setpoint_apis::batch::{CronJob, labels};
use setpoint_apis::{ObjectKey, ObjectMeta, Timestamp, document};

use super::decide::{decide, job_name};
use super::plan::{JobFacts, JobState, Origin, Plan, Seen, Snapshot};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A CronJob of this spec, in flow style, that was first seen at midnight.
fn cron_job(spec: &str) -> Snapshot {
    let text = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: bill, namespace: default}}\nspec:\n  {}\n  \
         jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: host}}]}}}}}}}}\n",
        spec.replace('\n', "\n  ")
    );
    let object: CronJob = document::decode(text.as_bytes()).unwrap();
    let mut s = Snapshot {
        key: ObjectKey::namespaced("default", "bill"),
        uid: "u".into(),
        invalid: None,
        lost_status: None,
        terminating: false,
        namespace_exists: true,
        spec: object.spec,
        jobs: vec![],
        taken: None,
        told: [].into(),
        told_of: [].into(),
        status: None,
    };
    run(&mut s, "2026-01-01T00:00:00Z");
    s
}

fn job(name: &str, state: JobState) -> JobFacts {
    JobFacts {
        seen: Seen {
            key: ObjectKey::namespaced("default", name),
            mod_revision: 7,
        },
        uid: format!("uid of {name}"),
        frozen: false,
        state,
        started: None,
        origin: Origin::Schedule,
    }
}

/// Carries a plan out on the model, as the store would.
fn apply(s: &mut Snapshot, plan: &Plan, now: Timestamp) {
    s.jobs.retain(|j| !plan.delete.contains(&j.seen));
    if let Some(new) = &plan.create {
        s.jobs.push(JobFacts {
            started: Some(now),
            ..job(&new.name, JobState::Active)
        });
    }
    s.jobs.sort_by(|a, b| a.seen.key.cmp(&b.seen.key));
    if let Some(status) = &plan.status {
        s.status = Some(status.clone());
    }
    if let Some(told_of) = &plan.told_of {
        s.told_of.clone_from(told_of);
    }
    for told in &plan.tell {
        if let Some(about) = told.about {
            s.told.insert(told.reason, about);
        }
    }
}

/// Plans until nothing is left to do, and shows that the pass after it plans nothing and says nothing.
fn run(s: &mut Snapshot, now: &str) -> Vec<String> {
    let now = at(now);
    let mut plans = Vec::new();
    loop {
        let plan = decide(s, now);
        if plan.is_empty() && plan.tell.is_empty() {
            return plans;
        }
        apply(s, &plan, now);
        plans.push(plan.to_string());
        assert!(plans.len() < 10, "it does not settle: {plans:?}");
    }
}

fn names(s: &Snapshot) -> Vec<&str> {
    s.jobs.iter().map(|j| &**j.name()).collect()
}

/// The Jobs that have been made up to a time, looked at when the plan says so: the times they are for.
fn follow(s: &mut Snapshot, from: &str, to: &str) -> Vec<String> {
    let (mut now, end) = (at(from), at(to));
    let mut made = Vec::new();
    let mut looks = 0;
    while now <= end {
        let plan = decide(s, now);
        made.extend(plan.create.iter().map(|new| new.stamp.clone()));
        apply(s, &plan, now);
        for j in &mut s.jobs {
            j.state = JobState::Complete(Some(now));
        }
        if plan.is_empty() {
            now = now.saturating_add(plan.look_again.unwrap());
        }
        looks += 1;
        assert!(looks < 10_000, "it spins");
    }
    made
}

#[test]
fn a_job_is_made_at_each_time_and_named_after_it() {
    let mut s = cron_job("schedule: '30 * * * *'\ntimeZone: Europe/Berlin");
    let plan = decide(&s, at("2026-01-01T00:29:00Z"));
    assert!(plan.is_empty());
    assert_eq!(plan.look_again, Some(Duration::from_secs(60)));
    let plans = run(&mut s, "2026-01-01T00:30:00Z");
    assert_eq!(
        plans,
        [
            "create job bill-29453790 for 2026-01-01T01:30:00+01:00\n\
             status active= scheduled=2026-01-01T00:30:00Z\nlook again in 600 s\n",
            "status active=bill-29453790 scheduled=2026-01-01T00:30:00Z\nlook again in 600 s\n",
        ]
    );
    s.jobs[0].state = JobState::Complete(Some(at("2026-01-01T00:31:00Z")));
    let plans = run(&mut s, "2026-01-01T00:31:00Z");
    assert_eq!(
        plans,
        [
            "status active= scheduled=2026-01-01T00:30:00Z successful=2026-01-01T00:31:00Z\n\
          tell SawCompletedJob: Saw completed job: bill-29453790, condition: Complete\n\
          look again in 600 s\n"
        ]
    );
}

#[test]
fn a_time_that_is_done_is_never_done_again_even_when_its_job_is_gone() {
    let mut s = cron_job("schedule: '0 * * * *'");
    run(&mut s, "2026-01-01T01:00:00Z");
    s.jobs.clear();
    let plans = run(&mut s, "2026-01-01T01:00:10Z");
    assert_eq!(plans.len(), 1);
    assert!(
        plans[0].contains("MissingJob: Active job went missing: bill-29453820"),
        "{plans:?}"
    );
    assert!(s.jobs.is_empty());
}

#[test]
fn a_job_whose_status_was_lost_is_found_by_its_name() {
    let mut s = cron_job("schedule: '0 * * * *'");
    let name = job_name("bill", at("2026-01-01T01:00:00Z"));
    s.jobs.push(job(&name, JobState::Active));
    run(&mut s, "2026-01-01T01:00:01Z");
    assert_eq!(names(&s), [name]);
    let last = s.status.as_ref().unwrap().last_schedule_time;
    assert_eq!(last, Some(at("2026-01-01T01:00:00Z")));
    // The same after the whole status was lost: times count from then.
    s.status = None;
    s.jobs.clear();
    run(&mut s, "2026-01-01T01:30:00Z");
    assert!(s.jobs.is_empty());
}

#[test]
fn times_count_from_when_it_was_first_seen_and_from_then_on_whoever_looks() {
    // Written long before anybody looked, for all that one knows: the times until then are nobody's.
    let mut s = cron_job("schedule: '0 * * * *'");
    s.status = None;
    let plans = run(&mut s, "2026-01-01T05:30:00Z");
    assert!(plans.iter().all(|p| !p.contains("tell ")), "{plans:?}");
    assert!(s.jobs.is_empty());
    let first = s.status.clone().unwrap().first_seen.unwrap();
    assert_eq!((&*first.uid, first.at), ("u", at("2026-01-01T05:30:00Z")));
    // Who looks next, later, knows since when they count.
    run(&mut s, "2026-01-01T07:30:00Z");
    assert_eq!(names(&s), [job_name("bill", at("2026-01-01T07:00:00Z"))]);
    assert_eq!(s.status.unwrap().first_seen, Some(first));
}

#[test]
fn after_an_outage_the_latest_time_is_made_up_for_and_no_other() {
    let mut s = cron_job("schedule: '0 * * * *'");
    run(&mut s, "2026-01-01T09:59:59Z");
    assert_eq!(names(&s), [job_name("bill", at("2026-01-01T09:00:00Z"))]);
    // Within the deadline only; a time that is exactly as old is too old, as in Kubernetes.
    for (deadline, now, made) in [
        (600, "2026-01-01T10:09:59Z", true),
        (600, "2026-01-01T10:10:00Z", false),
        (30, "2026-01-01T10:00:31Z", false),
    ] {
        let mut s = cron_job(&format!(
            "schedule: '0 */2 * * *'\nstartingDeadlineSeconds: {deadline}"
        ));
        let plans = run(&mut s, now);
        let told = plans.iter().any(|p| {
            p.contains(
                "tell MissSchedule: Missed scheduled time to start a job: 2026-01-01T10:00:00Z",
            )
        });
        assert_eq!((s.jobs.len() == 1, told), (made, !made), "{now}: {plans:?}");
    }
}

/// Kubernetes looks every ten seconds, so that a shorter deadline may miss any time; here a time is looked at when it
/// comes.
#[test]
fn a_deadline_of_seconds_misses_no_time_and_one_of_nothing_says_that_it_misses_all() {
    for (deadline, times) in [(1, 12), (9, 12), (0, 0)] {
        let mut s = cron_job(&format!(
            "schedule: '*/5 * * * *'\nstartingDeadlineSeconds: {deadline}\nsuccessfulJobsHistoryLimit: 0"
        ));
        let made = follow(&mut s, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert_eq!(made.len(), times, "{deadline} s: {made:?}");
        let missed = Some(("MissSchedule", at("2026-01-01T01:00:00Z")));
        let told: BTreeMap<_, _> = missed.into_iter().filter(|_| times == 0).collect();
        assert_eq!(s.told, told, "{deadline} s");
    }
}

#[test]
fn too_many_missed_times_are_a_warning_and_the_latest_runs_all_the_same() {
    let mut s = cron_job("schedule: '* * * * *'");
    let plans = run(&mut s, "2026-01-01T01:41:00Z");
    assert!(
        plans[0].contains("tell TooManyMissedTimes: too many missed start times"),
        "{plans:?}"
    );
    assert_eq!(names(&s), [job_name("bill", at("2026-01-01T01:41:00Z"))]);
    let plans = run(&mut s, "2026-01-01T01:42:00Z");
    assert!(plans.iter().all(|p| !p.contains("TooMany")), "{plans:?}");
    assert_eq!(s.jobs.len(), 2);
}

#[test]
fn two_things_to_say_about_one_time_are_said_once_each() {
    let mut s = cron_job("schedule: '* * * * *'\nconcurrencyPolicy: Forbid");
    run(&mut s, "2026-01-01T00:01:00Z");
    assert_eq!(s.jobs.len(), 1);
    let now = at("2026-01-01T02:00:00Z");
    let reasons = |plan: &Plan| -> Vec<&str> { plan.tell.iter().map(|t| t.reason).collect() };
    let plan = decide(&s, now);
    assert_eq!(reasons(&plan), ["TooManyMissedTimes", "JobAlreadyActive"]);
    apply(&mut s, &plan, now);
    for _ in 0..2 {
        let plan = decide(&s, now);
        assert!(plan.tell.is_empty(), "{plan}");
        apply(&mut s, &plan, now);
    }
    let next = at("2026-01-01T02:01:00Z");
    let plan = decide(&s, next);
    assert_eq!(reasons(&plan), ["TooManyMissedTimes", "JobAlreadyActive"]);
}

#[test]
fn a_job_that_somebody_made_of_it_is_not_replaced_and_holds_nothing_up() {
    for (policy, origin) in [
        ("Replace", Origin::Hand),
        ("Forbid", Origin::Hand),
        ("Replace", Origin::Unknown),
        ("Forbid", Origin::Unknown),
    ] {
        let mut s = cron_job(&format!(
            "schedule: '* * * * *'\nconcurrencyPolicy: {policy}\nsuccessfulJobsHistoryLimit: 0"
        ));
        s.jobs.push(JobFacts {
            origin,
            ..job("by-hand", JobState::Active)
        });
        let plans = run(&mut s, "2026-01-01T00:01:00Z").concat();
        let first = job_name("bill", at("2026-01-01T00:01:00Z"));
        assert_eq!(names(&s), [first.as_str(), "by-hand"], "{plans}");
        let active = &s.status.as_ref().unwrap().active;
        assert_eq!(active.len(), 1, "{active:?}");
        // People are told of one that says nothing, and once.
        let told = "Saw a job that the controller did not create: by-hand";
        let times = plans.matches(told).count();
        assert_eq!(times, usize::from(origin == Origin::Unknown), "{plans}");
        assert!(!plans.contains("JobAlreadyActive"), "{plans}");
        // What has ended goes with the history like any other.
        s.jobs[1].state = JobState::Complete(None);
        let plans = run(&mut s, "2026-01-01T00:01:01Z").concat();
        assert!(plans.contains("delete job by-hand"), "{plans}");
        assert!(!plans.contains("SawCompletedJob"), "{plans}");
    }
}

#[test]
fn a_copy_of_a_job_of_the_schedule_is_none_of_it() {
    let job = |name: &str, annotation: &str| ObjectMeta {
        name: name.into(),
        annotations: [(annotation.to_owned(), "x".to_owned())]
            .into_iter()
            .collect(),
        ..ObjectMeta::default()
    };
    let stamp = labels::SCHEDULED_TIMESTAMP;
    for (name, annotation, origin) in [
        ("bill-29453790", stamp, Origin::Schedule),
        ("bill-again", stamp, Origin::Unknown),
        ("bill-29453790", labels::INSTANTIATE, Origin::Hand),
        ("bill-29453790", "other", Origin::Unknown),
    ] {
        assert_eq!(
            super::origin("bill", &job(name, annotation)),
            origin,
            "{name} {annotation}"
        );
    }
}

#[test]
fn forbid_leaves_a_time_out_until_the_job_before_has_ended() {
    let mut s = cron_job("schedule: '0 * * * *'\nconcurrencyPolicy: Forbid");
    run(&mut s, "2026-01-01T01:00:00Z");
    let plans = run(&mut s, "2026-01-01T02:00:00Z");
    assert_eq!(
        plans,
        [
            "tell JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid\n\
          look again in 600 s\n"
        ]
    );
    assert_eq!(s.jobs.len(), 1);
    s.jobs[0].state = JobState::Failed;
    run(&mut s, "2026-01-01T02:30:00Z");
    assert_eq!(s.jobs.len(), 2, "the latest missed time is made up for");
    assert_eq!(
        s.status.as_ref().unwrap().last_schedule_time,
        Some(at("2026-01-01T02:00:00Z"))
    );
}

#[test]
fn replace_deletes_the_job_before_and_then_makes_the_new_one() {
    let mut s = cron_job("schedule: '0 * * * *'\nconcurrencyPolicy: Replace");
    run(&mut s, "2026-01-01T01:00:00Z");
    let plans = run(&mut s, "2026-01-01T02:00:00Z");
    assert!(
        plans[0].starts_with("delete job bill-29453820 at 7\nstatus active="),
        "{plans:?}"
    );
    assert!(
        plans[1].starts_with("create job bill-29453880 for 2026-01-01T02:00:00Z\n"),
        "{plans:?}"
    );
    assert!(plans.iter().all(|p| !p.contains("MissingJob")), "{plans:?}");
    assert_eq!(names(&s), ["bill-29453880"]);
    // One that does not parse is not replaced.
    s.jobs[0].frozen = true;
    run(&mut s, "2026-01-01T03:00:00Z");
    assert_eq!(names(&s), ["bill-29453880"]);
}

#[test]
fn allow_lets_both_run() {
    let mut s = cron_job("schedule: '0 * * * *'");
    run(&mut s, "2026-01-01T01:00:00Z");
    run(&mut s, "2026-01-01T02:00:00Z");
    assert_eq!(s.status.as_ref().unwrap().active.len(), 2);
}

#[test]
fn the_oldest_ended_jobs_go_beyond_the_limits() {
    let mut s =
        cron_job("schedule: '0 0 1 1 *'\nsuccessfulJobsHistoryLimit: 2\nfailedJobsHistoryLimit: 0");
    for (i, state) in [
        (5, JobState::Complete(None)),
        (1, JobState::Complete(None)),
        (3, JobState::Complete(None)),
        (2, JobState::Failed),
        (4, JobState::Active),
    ] {
        s.jobs.push(JobFacts {
            started: Some(Timestamp::from_unix_seconds(i)),
            ..job(&format!("bill-{i}"), state)
        });
    }
    s.jobs.sort_by(|a, b| a.seen.key.cmp(&b.seen.key));
    run(&mut s, "2026-06-01T00:00:00Z");
    assert_eq!(names(&s), ["bill-3", "bill-4", "bill-5"]);
    s.spec.successful_jobs_history_limit = Some(0);
    s.jobs[0].frozen = true;
    run(&mut s, "2026-06-01T00:00:00Z");
    assert_eq!(names(&s), ["bill-3", "bill-4"], "what does not parse stays");
}

#[test]
fn a_suspended_cron_job_makes_nothing_and_makes_up_for_the_latest_time_when_it_goes_on() {
    let mut s = cron_job("schedule: '0 * * * *'\nsuspend: true");
    assert!(run(&mut s, "2026-01-01T05:00:00Z").is_empty());
    let plan = decide(&s, at("2026-01-01T05:00:00Z"));
    assert_eq!(plan.look_again, None);
    s.spec.suspend = Some(false);
    run(&mut s, "2026-01-01T05:30:00Z");
    assert_eq!(names(&s), [job_name("bill", at("2026-01-01T05:00:00Z"))]);
}

#[test]
fn a_name_that_somebody_else_has_is_left_out_with_a_warning() {
    let mut s = cron_job("schedule: '0 * * * *'");
    s.taken = Some(at("2026-01-01T01:00:00Z"));
    let plans = run(&mut s, "2026-01-01T01:00:00Z");
    assert!(
        plans[0].contains("tell FailedCreate: job bill-29453820 is somebody else's"),
        "{plans:?}"
    );
    assert!(s.jobs.is_empty());
    run(&mut s, "2026-01-01T02:00:00Z");
    assert_eq!(s.jobs.len(), 1);
}

#[test]
fn what_does_not_parse_freezes_the_cron_job_and_the_condition_says_why() {
    let mut s = cron_job("schedule: '0 * * * *'\nsuccessfulJobsHistoryLimit: 0");
    s.jobs.push(job("bill-1", JobState::Complete(None)));
    s.invalid = Some("spec.schedule: \"0 0 30 2 *\" never fires".into());
    let plans = run(&mut s, "2026-01-01T03:00:00Z");
    assert_eq!(
        plans,
        ["status active= Invalid=True/DocumentInvalid\n\
             tell DocumentInvalid: spec.schedule: \"0 0 30 2 *\" never fires\n\
             note: the document does not parse: frozen\n"]
    );
    s.invalid = None;
    s.lost_status = Some("no".into());
    assert!(decide(&s, at("2026-01-01T03:00:00Z")).is_empty());
    s.lost_status = None;
    run(&mut s, "2026-01-01T03:00:00Z");
    let status = s.status.as_ref().unwrap();
    assert!(status.conditions.is_empty());
    assert_eq!(names(&s), [job_name("bill", at("2026-01-01T03:00:00Z"))]);
}

#[test]
fn a_schedule_that_this_version_cannot_read_is_said_and_nothing_runs() {
    for (schedule, zone, reason) in [
        ("0 0 30 2 *", None, "UnparseableSchedule"),
        ("0 * * * *", Some("Mars/Olympus"), "UnknownTimeZone"),
    ] {
        let mut s = cron_job("schedule: '0 * * * *'");
        s.spec.schedule = schedule.into();
        s.spec.time_zone = zone.map(Into::into);
        run(&mut s, "2026-01-01T05:00:00Z");
        assert!(s.jobs.is_empty());
        let condition = &s.status.as_ref().unwrap().conditions[0];
        assert_eq!(
            (condition.type_.as_str(), condition.reason.as_deref()),
            ("Invalid", Some(reason))
        );
    }
}

#[test]
fn nothing_is_made_without_a_namespace_or_during_deletion() {
    let mut s = cron_job("schedule: '0 * * * *'");
    s.namespace_exists = false;
    run(&mut s, "2026-01-01T01:00:00Z");
    assert!(s.jobs.is_empty());
    s.namespace_exists = true;
    s.terminating = true;
    run(&mut s, "2026-01-01T01:00:00Z");
    assert!(s.jobs.is_empty());
    s.terminating = false;
    run(&mut s, "2026-01-01T01:00:00Z");
    assert_eq!(s.jobs.len(), 1);
}

/// Clocks go from 02:00 to 03:00 on the 29th of March 2026 in Berlin, and from 03:00 to 02:00 on the 25th of October.
#[test]
fn when_clocks_are_changed_a_daily_job_runs_once_a_day_and_an_hourly_one_every_hour_that_passes() {
    let mut s =
        cron_job("schedule: '30 2 * * *'\ntimeZone: Europe/Berlin\nsuccessfulJobsHistoryLimit: 0");
    run(&mut s, "2026-03-27T12:00:00Z");
    let made = follow(&mut s, "2026-03-27T12:00:00Z", "2026-03-31T12:00:00Z");
    assert_eq!(
        made,
        [
            "2026-03-28T02:30:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-30T02:30:00+02:00",
            "2026-03-31T02:30:00+02:00",
        ]
    );
    run(&mut s, "2026-10-24T12:00:00Z");
    let made = follow(&mut s, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(
        made,
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );

    let mut s =
        cron_job("schedule: '0 * * * *'\ntimeZone: Europe/Berlin\nsuccessfulJobsHistoryLimit: 0");
    run(&mut s, "2026-03-29T00:00:00Z");
    let made = follow(&mut s, "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z");
    assert_eq!(
        made,
        ["2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"]
    );
    run(&mut s, "2026-10-25T00:00:00Z");
    let made = follow(&mut s, "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z");
    assert_eq!(
        made,
        ["2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"]
    );
}

/// A controller ends between any two writes, Jobs end, fail and are deleted, clocks of successors differ: no time runs
/// twice.
#[test]
fn no_time_runs_twice_whatever_becomes_of_controllers_and_jobs() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let policy = rng.choice(["Allow", "Forbid", "Replace"]).unwrap();
        let mut s = cron_job(&format!(
            "schedule: '*/10 * * * *'\nconcurrencyPolicy: {policy}"
        ));
        let mut now = at("2026-01-01T00:00:00Z");
        let mut made = std::collections::BTreeSet::new();
        for _ in 0..400 {
            now = now.saturating_add(Duration::from_secs(rng.u64(0..900)));
            // Another controller's clock is behind.
            let seen = now.saturating_sub(Duration::from_secs(rng.u64(0..700)));
            let mut plan = decide(&s, seen);
            match rng.u8(0..4) {
                0 => plan.delete.clear(),
                // The transaction of status and Job: both or neither.
                1 => (plan.create, plan.status) = (None, None),
                _ => {}
            }
            if let Some(new) = &plan.create {
                assert!(
                    made.insert(new.at),
                    "seed {seed}: {} comes again",
                    new.stamp
                );
                assert!(*policy == *"Allow" || s.jobs.iter().all(|j| j.state != JobState::Active));
            }
            apply(&mut s, &plan, seen);
            for j in &mut s.jobs {
                match rng.u8(0..5) {
                    0 => j.state = JobState::Complete(Some(now)),
                    1 => j.state = JobState::Failed,
                    _ => {}
                }
            }
            if rng.u8(0..6) == 0 && !s.jobs.is_empty() {
                s.jobs.remove(rng.usize(0..s.jobs.len()));
            }
        }
        assert!(made.len() > 30, "seed {seed}: {}", made.len());
    }
}

#[test]
fn a_time_that_is_refused_is_not_done_and_the_rest_is_still_said() {
    let mut s = cron_job("schedule: '*/10 * * * *'");
    run(&mut s, "2026-01-01T00:10:00Z");
    let before = s.status.clone();
    s.jobs[0].state = JobState::Complete(Some(at("2026-01-01T00:11:00Z")));
    let now = at("2026-01-01T00:20:00Z");
    let mut plan = decide(&s, now);
    assert!(plan.create.is_some());
    plan.put_off(s.status.as_ref());
    assert_eq!(plan.create, None);
    let status = plan.status.clone().expect("the former Job is complete");
    assert!(status.active.is_empty() && status.last_successful_time.is_some());
    let done = |s: &Option<_>| {
        let s: &Option<setpoint_apis::batch::CronJobStatus> = s;
        s.as_ref().and_then(|s| s.last_schedule_time)
    };
    assert_eq!(status.last_schedule_time, done(&before));
    apply(&mut s, &plan, now);
    // Nothing is left to say, and the time is still due.
    let mut plan = decide(&s, now);
    plan.put_off(s.status.as_ref());
    assert_eq!(plan.status, None);
    assert!(decide(&s, now).create.is_some());
}
