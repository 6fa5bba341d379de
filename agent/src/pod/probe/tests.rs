use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;

use super::*;
use crate::cgroup::Usage;
use crate::driver::ExecOutput;
use crate::spec::{ExitRecord, PidRecord};

/// A container that answers commands with its exit code.
struct Answers(i32, PidRecord);

impl Container for Answers {
    fn record(&self) -> &PidRecord {
        &self.1
    }
    fn ended(&self) -> BoxFuture<'static, ExitRecord> {
        std::future::pending().boxed()
    }
    fn signal(&self, _: i32) {}
    fn kill(&self) {}
    fn usage(&self) -> Usage {
        Usage::default()
    }
    fn exec(&self, _: ExecRequest) -> BoxFuture<'_, Result<ExecOutput, DriverError>> {
        async {
            Ok(ExecOutput {
                exit_code: self.0,
                output: "said\n".into(),
            })
        }
        .boxed()
    }
}

fn target(port: u16, exit_code: i32) -> Target {
    let text = format!("{{name: c, image: host, ports: [{{name: web, containerPort: {port}}}]}}");
    let definition = setpoint_apis::document::decode_value(text.as_bytes()).unwrap();
    Target {
        container: Arc::new(Answers(exit_code, PidRecord::default())),
        definition: Arc::new(definition),
        pod_ip: "127.0.0.1".into(),
    }
}

fn probe(text: &str) -> Probe {
    setpoint_apis::document::decode_value(text.as_bytes()).unwrap()
}

/// Serves `answers` one after the other, the last one for ever; hands back what was asked.
async fn serve(answers: &'static [&'static str]) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, received) = tokio::sync::mpsc::channel(100);
    tokio::spawn(async move {
        for i in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let mut buffer = vec![0; 4096];
            let n = stream.read(&mut buffer).await.unwrap_or(0);
            let _ = stream
                .write_all(answers[i.min(answers.len() - 1)].as_bytes())
                .await;
            let _ = asked
                .send(String::from_utf8_lossy(&buffer[..n]).into_owned())
                .await;
        }
    });
    (port, received)
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn http_success_is_200_to_399_and_the_request_is_as_asked() {
    let (port, mut asked) = serve(&[
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 302 Found\r\n\r\n",
        "HTTP/1.1 500 Oops\r\n\r\n",
        "hello\r\n",
    ])
    .await;
    let p = probe(
        "httpGet: {path: /h?x=1, port: web, httpHeaders: [{name: Host, value: me}, {name: X-A, value: b}]}",
    );
    let target = target(port, 0);
    assert_eq!(check(&p, &target, LIMIT).await, Ok(()));
    let request = asked.recv().await.unwrap();
    assert!(
        request.starts_with("GET /h?x=1 HTTP/1.1\r\n")
            && request.contains("\r\nHost: me\r\n")
            && request.contains("\r\nX-A: b\r\n"),
        "{request}"
    );
    assert_eq!(request.matches("Host:").count(), 1);
    assert_eq!(check(&p, &target, LIMIT).await, Ok(()));
    assert_eq!(
        check(&p, &target, LIMIT).await,
        Err("HTTP probe failed with statuscode: 500".into())
    );
    assert!(
        check(&p, &target, LIMIT)
            .await
            .unwrap_err()
            .contains("no HTTP")
    );
}

#[tokio::test]
async fn what_cannot_be_asked_is_a_failure_that_says_why() {
    // Nobody listens on it; a port that was free a moment ago may be another test's by now.
    let target = target(1, 3);
    for (text, want) in [
        ("tcpSocket: {port: web}", "refused"),
        ("httpGet: {port: web}", "refused"),
        ("httpGet: {port: nope}", "no port nope"),
        (
            "httpGet: {port: web, scheme: HTTPS}",
            "HTTPS is not supported",
        ),
        ("httpGet: {port: web, path: \"/a\\r\\nX: y\"}", "line break"),
        ("grpc: {port: 1}", "grpc"),
        ("exec: {command: [x]}", "exit code 3: said"),
    ] {
        let said = check(&probe(text), &target, LIMIT).await.unwrap_err();
        assert!(said.contains(want), "{text}: {said}");
    }
}

#[tokio::test]
async fn silence_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap().port(), 0);
    assert_eq!(
        check(&probe("tcpSocket: {port: web}"), &target, LIMIT).await,
        Ok(())
    );
    let said = check(
        &probe("httpGet: {port: web}"),
        &target,
        Duration::from_millis(50),
    )
    .await
    .unwrap_err();
    assert!(said.contains("no answer"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn early_failures_are_asked_again_soon_and_do_not_count() {
    // Commands take no time here, so the paused clock shows when each question was asked.
    for (kind, exit_code, first, period) in [
        // Without success, results count from the moment a whole period has passed.
        (ProbeKind::Readiness, 1, 12.7, 10.0),
        (ProbeKind::Liveness, 1, 0.0, 10.0),
        (ProbeKind::Readiness, 0, 0.0, 10.0),
    ] {
        let begun = Instant::now();
        let told = Arc::new(AtomicUsize::new(0));
        let times = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (count, noted) = (told.clone(), times.clone());
        let tell = move |_| {
            noted.lock().push(begun.elapsed().as_secs_f64());
            let go_on = count.fetch_add(1, Ordering::Relaxed) < 2;
            async move { go_on }
        };
        run(
            kind,
            probe("exec: {command: [x]}"),
            target(1, exit_code),
            false,
            tell,
        )
        .await;
        let times = times.lock();
        assert!(
            (times[0] - first).abs() < 0.1,
            "{kind:?} {exit_code}: {times:?}"
        );
        assert!(
            (times[1] - times[0] - period).abs() < 0.1,
            "{kind:?}: {times:?}"
        );
    }
}
