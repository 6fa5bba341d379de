//! `setpoint move` and `setpoint evict`. What the scheduler writes is put by the tests.

use setpoint_apis::records::{Binding, Intent, MoveOutcome, MoveResult, Moving};
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::Txn;

use crate::fixture::{Fixture, LONG, Running, deployment, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn intent(verb: &'static str) -> Key<'static> {
    Key::Intent {
        verb,
        pod: key("web"),
        by: "cli",
    }
}

fn bound(node: &str, placement: u32) -> Binding {
    Binding {
        node: node.into(),
        session: 1,
        placement,
        ..Binding::default()
    }
}

async fn bind(f: &Fixture, name: &str, binding: &Binding) {
    f.put(&Key::Binding(key(name)), &document::encode(binding))
        .await;
}

/// A pod on n1, and nodes n1 and n2.
async fn placed(name: &str) -> Fixture {
    let f = Fixture::new(name).await;
    for node in ["n1", "n2"] {
        f.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n"
        ));
    }
    f.apply(&pod("web"));
    bind(&f, "web", &bound("n1", 1)).await;
    f
}

/// Waits until a request is there. Its revision.
async fn until_asked(f: &Fixture, verb: &'static str) -> i64 {
    let waited = tokio::time::timeout(LONG, async {
        loop {
            if let Some(kv) = f.get(&intent(verb)).await {
                return kv.mod_revision;
            }
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("a request")
}

/// Removes the request and writes the binding in one transaction, as the scheduler does.
async fn act(f: &Fixture, verb: &'static str, binding: &Binding) {
    let txn = Txn::new()
        .delete(f.key(&intent(verb)))
        .put(f.key(&Key::Binding(key("web"))), document::encode(binding));
    f.store.txn(txn).await.expect("a transaction");
}

#[tokio::test]
async fn a_request_says_what_was_asked_and_for_which_pod() {
    let f = placed("displace-ask").await;
    let out = f
        .run(&[
            "move",
            "pod/web",
            "--to",
            "n2",
            "--timeout",
            "2m",
            "--min-ready",
            "5s",
            "--reason",
            "n1 is old",
        ])
        .ok();
    assert_eq!(out, "pod/web is to be moved from n1 to n2\n");
    let stored = f.get(&intent("move")).await.expect("a request");
    let asked: Intent = document::decode_value(&stored.value).unwrap();
    assert_eq!(
        (
            asked.to.as_deref(),
            asked.timeout_seconds,
            asked.min_ready_seconds
        ),
        (Some("n2"), Some(120), Some(5))
    );
    assert_eq!(
        (
            asked.node.as_deref(),
            asked.reason.as_str(),
            asked.ignore_budgets
        ),
        (Some("n1"), "n1 is old", false)
    );
    assert!(asked.uid.is_some() && asked.at.is_some());
    for words in [
        &["move", "web"][..],
        &["move", "pod", "web", "--timeout", "60s"],
    ] {
        f.run(words).ok();
        let stored = f.get(&intent("move")).await.expect("a request");
        let asked: Intent = document::decode_value(&stored.value).unwrap();
        assert_eq!((asked.to, asked.timeout_seconds), (None, None), "{words:?}");
    }
    // Nobody is there to act on it.
    let ran = f.run(&["evict", "web", "--ignore-budgets"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(ran.out, "pod/web is to be evicted from n1\n");
    assert!(ran.err.contains("no scheduler is running"), "{ran:?}");
    let stored = f.get(&intent("evict")).await.expect("a request");
    let asked: Intent = document::decode_value(&stored.value).unwrap();
    assert!(asked.ignore_budgets);
    assert_eq!(asked.grace_seconds, None);
    for (flag, seconds) in [("0", Some(0)), ("30", Some(30)), ("-1", None)] {
        f.run(&["evict", "web", "--grace-period", flag]);
        let stored = f.get(&intent("evict")).await.expect("a request");
        let asked: Intent = document::decode_value(&stored.value).unwrap();
        assert_eq!(asked.grace_seconds, seconds, "{flag}");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_said_at_once_and_nothing_is_written() {
    let f = placed("displace-errors").await;
    f.apply(&pod("waits"));
    f.apply(&deployment("front", 1));
    f.apply(&pod("leaves"));
    let leaving = Binding {
        withdrawn: Some(setpoint_apis::records::Withdrawal {
            reason: "Preempted".into(),
            at: Default::default(),
            grace_seconds: None,
        }),
        ..bound("n1", 1)
    };
    bind(&f, "leaves", &leaving).await;
    for (words, says) in [
        (&["move", "wbe"][..], "did you mean \"web\"?"),
        (&["evict", "pod/wbe"], "did you mean \"web\"?"),
        (&["move", "web", "--to", "n22"], "did you mean \"n2\"?"),
        (&["move", "web", "--to", "n1"], "pod/web is on n1 already"),
        (&["move", "waits"], "`setpoint why pod/waits` says why"),
        (&["evict", "leaves"], "leaving n1 already: Preempted"),
        (&["move", "deployment/front"], "is no pod"),
        (&["move", "pod"], "setpoint move pod/NAME"),
        (&["move", "web", "--timeout", "0s"], "between 1s and 24h"),
        (&["move", "web", "--timeout", "1500ms"], "whole seconds"),
        (
            &["move", "web", "--timeout", "5s", "--min-ready", "5s"],
            "--min-ready must be less",
        ),
    ] {
        let err = f.run(words).fails();
        assert!(err.contains(says), "{words:?}: no {says:?} in {err}");
    }
    assert!(f.get(&intent("move")).await.is_none() && f.get(&intent("evict")).await.is_none());
    let mut away = f.command(&["move", "web"]);
    away.env("SETPOINT_ENDPOINTS", "http://127.0.0.1:1");
    let away = away.output().expect("running setpoint");
    assert_eq!(away.status.code(), Some(1));
    let err = String::from_utf8_lossy(&away.stderr);
    assert!(err.contains("127.0.0.1:1"), "{err}");
}

#[tokio::test]
async fn who_waits_for_a_move_learns_what_becomes_of_it() {
    let f = placed("displace-wait").await;
    let result = |request, outcome, message: &str| MoveResult {
        outcome,
        from: "n1".into(),
        to: Some("n2".into()),
        request,
        message: message.into(),
        ..MoveResult::default()
    };
    for (outcome, message, code, words) in [
        (MoveOutcome::Refused, "no room", 1, ""),
        (MoveOutcome::Undone, "it ended on n2", 1, ""),
        (MoveOutcome::Moved, "", 0, "pod/web moved from n1 to n2"),
    ] {
        bind(&f, "web", &bound("n1", 1)).await;
        let mut waits = Running::start(f.command(&["move", "web", "--wait"]));
        let request = until_asked(&f, "move").await;
        if outcome != MoveOutcome::Refused {
            let moving = Moving {
                to: "n2".into(),
                placement: 2,
                request,
                ..Moving::default()
            };
            let binding = Binding {
                moving: Some(Box::new(moving)),
                ..bound("n1", 1)
            };
            act(&f, "move", &binding).await;
            waits
                .until("it says that it moves", |out| {
                    out.contains("pod/web is moving to n2: it starts there first")
                })
                .await;
        }
        let binding = Binding {
            last_move: Some(Box::new(result(request, outcome, message))),
            ..bound(if code == 0 { "n2" } else { "n1" }, 1)
        };
        act(&f, "move", &binding).await;
        assert_eq!(waits.ended().await, Some(code), "{outcome:?}");
        waits.until(words, |out| out.contains(words)).await;
    }
    // The binding is what `why` and `describe` tell of.
    let why = f.run(&["why", "pod/web"]).ok();
    assert!(why.contains("from n1 to n2"), "{why}");
    let described = f.run(&["describe", "pod", "web"]).ok();
    assert!(described.contains("Last Move:"), "{described}");
}

#[tokio::test]
async fn who_waits_for_an_eviction_learns_of_the_budget_that_holds_it_back() {
    let f = placed("displace-budget").await;
    let mut waits = Running::start(f.command(&["evict", "web", "--wait"]));
    until_asked(&f, "evict").await;
    act(&f, "evict", &bound("n2", 2)).await;
    assert_eq!(waits.ended().await, Some(0));
    waits
        .until("where it is now", |out| {
            out.contains("pod/web was evicted from n1; it is on n2 now")
        })
        .await;

    let asking = || {
        f.run(&["evict", "web", "--wait", "--timeout", "1s"])
            .fails()
    };
    let err = asking();
    assert!(err.contains("no scheduler is running"), "{err}");
    assert!(err.contains("has not been evicted within 1 s"), "{err}");
}
