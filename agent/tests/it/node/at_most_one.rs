//! Pods that must never run twice: the fence, and what ends a pod when it is not renewed.

use super::*;

/// Long enough that what a busy machine holds up for a second or two is in time: a pod is stopped when nothing has renewed
/// the fence for four fifths of it, and a tenth of it is left when the pod is dead.
const TTL: Duration = Duration::from_secs(10);
/// Notes the TERM that it gets, and ends.
const POLITE: &str = "containers: [{name: c, image: host, command: [sh, -c, 'trap \"touch $0; exit\" TERM; while :; do sleep 0.02; done', '@']}]";

impl World {
    fn fenced_agent(&self) -> Agent {
        self.agent_with(AgentConfig {
            fence_lease_ttl: TTL,
            ..self.config("data")
        })
    }

    async fn give_single(&self, name: &str, spec: &str) {
        let (key, value) = self.work(name, 1, spec);
        self.put_single(&key, name, &value).await;
    }

    async fn put_single(&self, key: &Key<'_>, name: &str, value: &str) {
        let annotated = format!(
            "metadata: {{name: {name}, annotations: {{setpoint.dev/partition-policy: stop}}}}"
        );
        let plain = format!("metadata: {{name: {name}}}");
        assert!(value.contains(&plain));
        self.put(key, value.replace(&plain, &annotated)).await;
    }

    async fn fence(&self) -> Option<i64> {
        let kv = self.get(&Key::NodeFence(NODE)).await?;
        Some(kv.create_revision)
    }

    async fn fence_gone(&self) {
        let begun = Instant::now();
        while self.fence().await.is_some() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_fence_is_held_while_a_pod_needs_it_and_no_longer() {
    let w = World::new("fence-held").await;
    let _agent = w.fenced_agent();
    w.give("plain", 1, SLEEP).await;
    assert_eq!(w.ready("plain").await.fence, None);
    assert_eq!(w.fence().await, None);
    w.give_single("a", SLEEP).await;
    let claimed = w
        .ready("a")
        .await
        .fence
        .expect("it is claimed under a fence");
    assert_eq!(w.fence().await, Some(claimed.revision));
    // Longer than a lease: it is renewed, and so is the deadline.
    let pid = w.pid("a", 1);
    tokio::time::sleep(TTL * 5 / 4).await;
    assert!(alive(pid));
    assert_eq!(w.fence().await, Some(claimed.revision));
    w.take_back("a").await;
    w.gone("a").await;
    w.fence_gone().await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn without_its_agent_a_pod_is_killed_before_the_fence_ends_and_the_next_agent_runs_it_anew() {
    for _ in 0..3 {
        let w = World::new("fence-killed").await;
        let agent = w.fenced_agent();
        w.give_single("a", SLEEP).await;
        w.give("plain", 1, SLEEP).await;
        let before = w.ready("a").await;
        w.ready("plain").await;
        let (pid, plain) = (w.pid("a", 1), w.pid("plain", 1));
        agent.kill();
        let mut looked = Instant::now();
        eventually("it is killed", || {
            let before = Instant::now();
            let runs = alive(pid);
            if runs {
                looked = before;
            }
            !runs
        })
        .await;
        let stands = w.fence().await.is_some();
        // It may be long since the pod was killed, when the test was held up between two looks.
        if !stands && looked.elapsed() > TTL / 20 {
            continue;
        }
        assert!(stands, "the fence outlives it");
        assert!(alive(plain), "nobody else is touched");
        w.fence_gone().await;
        let _next = w.fenced_agent();
        let after = w
            .until("a", "it runs under another fence", |a| {
                a.is_some_and(|a| a.is_ready() && a.fence != before.fence)
            })
            .await
            .unwrap();
        assert_eq!(w.fence().await, after.fence.map(|f| f.revision));
        return;
    }
    panic!("the fence has never been seen to outlive the pod");
}

#[tokio::test]
async fn an_agent_that_is_back_in_time_goes_on_with_pod_and_fence() {
    let w = World::new("fence-back").await;
    let agent = w.fenced_agent();
    w.give_single("a", SLEEP).await;
    let before = w.ready("a").await;
    let pid = w.pid("a", 1);
    agent.kill();
    let _next = w.fenced_agent();
    tokio::time::sleep(TTL * 5 / 4).await;
    assert!(alive(pid));
    assert_eq!(w.ready("a").await.fence, before.fence);
    assert_eq!(w.fence().await, before.fence.map(|f| f.revision));
}

#[tokio::test]
async fn an_agent_that_is_cut_off_asks_the_pod_to_stop_in_time() {
    let w = World::on(Arc::new(TestEtcd::start().await), "fence-cut").await;
    let _agent = w.fenced_agent();
    let noted = w.f.path("noted");
    let spec = POLITE.replace('@', noted.to_str().unwrap());
    let (key, value) = w.work("a", 1, &spec);
    // Time to note it, also on a busy machine.
    let patient = value.replace("PeriodSeconds: 1", "PeriodSeconds: 3");
    assert_ne!(patient, value);
    w.put_single(&key, "a", &patient).await;
    w.ready("a").await;
    let pid = w.pid("a", 1);
    let cut = Instant::now();
    w.etcd.kill();
    eventually("it has stopped", || !alive(pid)).await;
    assert!(cut.elapsed() < TTL, "{:?}", cut.elapsed());
    assert!(noted.exists(), "it was asked");
}
