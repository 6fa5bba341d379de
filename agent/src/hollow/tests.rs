use std::time::Duration;

use setpoint_apis::core::{Container, Pod, PodSpec};
use setpoint_apis::records::{PodStage, WorkHeader};

use super::*;

/// Plays one thing whatever the pod, and listens to nothing.
struct Plays(Play);

impl Observer for Plays {
    fn play(&self, _work: &PodWork) -> Play {
        self.0
    }
    fn started(&self, _pod: &ObjectKey) {}
    fn ended(&self, _pod: &ObjectKey) {}
}

fn work() -> PodWork {
    let container = Container {
        name: "main".into(),
        ..Container::default()
    };
    let spec = PodSpec {
        containers: vec![container],
        ..PodSpec::default()
    };
    PodWork {
        key: ObjectKey::namespaced("default", "p"),
        header: WorkHeader {
            placement: Some(1),
            uid: "u".into(),
            ..WorkHeader::default()
        },
        pod: Arc::new(Pod {
            spec: spec.into(),
            ..Pod::default()
        }),
        pod_ip: None,
        fence: None,
    }
}

/// An agent's pod layer over a machine.
fn runner(pods: &HollowPods) -> (HollowRunner, Arc<Reports>) {
    let reports = Arc::<Reports>::default();
    let clock = Clock::starting_at(Timestamp::from_unix_seconds(1_000));
    let latencies = Latencies::default();
    let host = "10.0.0.1".to_owned();
    let runner = HollowRunner::new(
        pods.clone(),
        Arc::clone(&reports),
        clock,
        latencies,
        host,
        1,
    );
    (runner, reports)
}

/// The next status that is reported.
async fn next(reports: &Reports) -> PodActual {
    match reports.take().await.remove(0) {
        PodReport::Status(_, _, actual) => *actual,
        other => panic!("{other:?}"),
    }
}

fn ends(after: u64, code: i32) -> HollowPods {
    let after = Duration::from_secs(after);
    HollowPods::new(Plays(Play::End { after, code }))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_says_how_and_when() {
    for (code, stage) in [(0, PodStage::Succeeded), (3, PodStage::Failed)] {
        let pods = ends(5, code);
        let (runner, reports) = runner(&pods);
        runner.start(work(), Begin::Fresh, None);
        let running = next(&reports).await;
        assert!(
            running.stage == PodStage::Running && running.is_ready(),
            "{running:?}"
        );
        let ended = next(&reports).await;
        assert_eq!(ended.stage, stage);
        let state = ended.container_statuses[0]
            .state
            .terminated
            .clone()
            .unwrap();
        let seconds = |t: Option<Timestamp>| t.unwrap().as_unix_seconds();
        assert_eq!((state.exit_code, seconds(state.finished_at)), (code, 1_005));
        assert!(!ended.is_ready() && pods.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_while_no_agent_looked_is_told_by_the_next_one_also_after_a_power_cut() {
    let pods = ends(5, 0);
    let (first, reports) = runner(&pods);
    first.start(work(), Begin::Fresh, None);
    next(&reports).await;
    drop((first, reports));
    sleep(Duration::from_secs(10)).await;
    pods.power_off();
    let (second, reports) = runner(&pods);
    second.start(work(), Begin::Adopt, None);
    assert_eq!(next(&reports).await.stage, PodStage::Succeeded);
    // Once it is stopped nobody knows of it any more.
    second.stop(&work().key, 1);
    assert_eq!(reports.take().await, [PodReport::Stopped(work().key, 1)]);
    let (third, reports) = runner(&pods);
    third.start(work(), Begin::Fresh, None);
    assert_eq!(next(&reports).await.stage, PodStage::Running);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_runs_when_the_power_is_cut_begins_anew() {
    let pods = ends(5, 0);
    let (first, reports) = runner(&pods);
    first.start(work(), Begin::Fresh, None);
    next(&reports).await;
    sleep(Duration::from_secs(4)).await;
    pods.power_off();
    let (second, reports) = runner(&pods);
    second.start(work(), Begin::Adopt, None);
    assert_eq!(next(&reports).await.stage, PodStage::Running);
    let again = Instant::now();
    assert_eq!(next(&reports).await.stage, PodStage::Succeeded);
    assert_eq!(again.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_crashes_is_started_again_a_few_times_and_then_waits_for_good() {
    let pods = HollowPods::new(Plays(Play::Crash {
        serves: Duration::ZERO,
    }));
    let (runner, reports) = runner(&pods);
    runner.start(work(), Begin::Fresh, None);
    for restarts in 0..=3 {
        let actual = next(&reports).await;
        let status = &actual.container_statuses[0];
        assert!(!actual.is_ready(), "{actual:?}");
        assert_eq!(status.restart_count, restarts);
        let waiting = status.state.waiting.as_ref().unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    }
    let more = tokio::time::timeout(Duration::from_secs(60), reports.take()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_serves_and_crashes_is_ready_after_each_start() {
    let serves = Duration::from_secs(1);
    let pods = HollowPods::new(Plays(Play::Crash { serves }));
    let (runner, reports) = runner(&pods);
    let begun = Instant::now();
    runner.start(work(), Begin::Fresh, None);
    let period = serves + RESTART_AFTER;
    for restarts in 0..=3 {
        for (ready, after) in [(true, Duration::ZERO), (false, serves)] {
            let actual = next(&reports).await;
            assert_eq!(actual.is_ready(), ready, "{actual:?}");
            assert_eq!(actual.container_statuses[0].restart_count, restarts);
            let at = period * u32::try_from(restarts).unwrap() + after;
            assert_eq!(begun.elapsed(), at);
        }
    }
    let more = tokio::time::timeout(Duration::from_secs(60), reports.take()).await;
    assert!(more.is_err(), "{more:?}");
}
