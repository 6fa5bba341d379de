//! Each check is given a run in which its promise is broken.

use std::collections::BTreeMap;

use bytes::Bytes;
use setpoint_store::KeyValue;

use super::*;
use crate::faults::history::{Change, Sample};
use crate::faults::tap::{Effect, Guard, Item, Sender, Transaction};

const SCHEDULER: &str = "/setpoint/leaders/scheduler";
const ALIVE: &str = "/setpoint/actual/nodes/n1/alive";
const BINDING: &str = "/setpoint/bindings/default/p";
const RECORD: &str = "/setpoint/actual/nodes/n1/pods/default/p";

/// A run, written as it happens: revision by revision, each with its transaction.
#[derive(Default)]
struct Run {
    history: History,
    /// Revision and version of what is there, with its lease and value.
    present: BTreeMap<String, (i64, i64, i64, Option<i64>, Bytes)>,
    revision: i64,
}

impl Run {
    /// One key is written, or deleted, by somebody who guards it on a fence's epoch.
    fn write(
        &mut self,
        by: &str,
        key: &str,
        value: Option<&str>,
        fence: Option<(&str, i64)>,
    ) -> i64 {
        self.change(key, value, None);
        self.sent(by, key, value, fence, Some(self.revision));
        self.revision
    }

    fn put(&mut self, by: &str, key: &str, value: &str, fence: Option<(&str, i64)>) -> i64 {
        self.write(by, key, Some(value), fence)
    }

    /// A key under a lease is put, and that is its holder's new epoch.
    fn hold(&mut self, by: &str, key: &str) -> i64 {
        self.change(key, Some("held"), Some(1));
        self.sent(by, key, Some("held"), None, Some(self.revision));
        self.revision
    }

    /// The lease of a key ends.
    fn expire(&mut self, key: &str) {
        self.change(key, None, None);
    }

    fn sent(
        &mut self,
        by: &str,
        key: &str,
        value: Option<&str>,
        fence: Option<(&str, i64)>,
        answered: Option<i64>,
    ) {
        let (name, life) = by.split_once('#').unwrap_or((by, "1"));
        let guards = fence.map(|(key, epoch)| Guard {
            key: key.into(),
            mod_revision: Some(epoch),
        });
        self.history.transactions.push(Transaction {
            sender: Sender {
                name: name.into(),
                life: life.parse().unwrap(),
            },
            items: vec![Item {
                guards: guards.into_iter().collect(),
                effects: vec![Effect {
                    key: key.into(),
                    end: String::new(),
                    value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())),
                }],
                done: answered.map(|_| true),
            }],
            answered,
        });
    }

    fn change(&mut self, key: &str, value: Option<&str>, lease: Option<i64>) {
        self.revision += 1;
        let before = self.present.remove(key);
        let (create, version, lease) = match (value, before) {
            (Some(_), None) => (self.revision, 1, lease),
            (Some(_), Some((create, version, ..))) => (create, version + 1, lease),
            (None, Some((create, version, _, lease, _))) => (create, version, lease),
            (None, None) => panic!("{key} is not there"),
        };
        let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        if let Some(value) = &value {
            let now = (create, version, self.revision, lease, value.clone());
            self.present.insert(key.to_owned(), now);
        }
        self.history.changes.push(Change {
            at: std::time::Duration::ZERO,
            revision: self.revision,
            key: key.to_owned(),
            value,
            create_revision: create,
            version,
            lease,
        });
    }

    /// What a cache that is right holds now.
    fn sample(&self) -> Sample {
        let keys = self
            .present
            .iter()
            .map(|(k, (.., at, _, _))| (k.clone(), *at));
        Sample {
            cache: "probe",
            revision: self.revision,
            keys: keys.collect(),
        }
    }

    fn found(mut self) -> Vec<(&'static str, i64)> {
        let listed = self.present.into_iter().map(|(key, now)| {
            let (create_revision, version, mod_revision, _, value) = now;
            KeyValue {
                key,
                value,
                create_revision,
                mod_revision,
                version,
                lease: None,
            }
        });
        self.history.listed = listed.collect();
        let found = all(&self.history);
        found.iter().map(|f| (f.check, f.revision)).collect()
    }
}

fn binding(session: i64) -> String {
    format!(
        "node: n1\nsession: {session}\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n"
    )
}

const CLAIM: &str = "placement: 1\nuid: u\nstage: Starting\n";

#[test]
fn a_run_in_order_is_in_order() {
    let mut run = Run::default();
    let epoch = run.hold("controllers-a", SCHEDULER);
    let session = run.hold("n1", ALIVE);
    run.put(
        "controllers-a",
        BINDING,
        &binding(session),
        Some((SCHEDULER, epoch)),
    );
    run.put("n1", RECORD, CLAIM, Some((ALIVE, session)));
    run.history.samples.push(Sample {
        keys: [ALIVE, BINDING, RECORD]
            .map(|k| (k.to_owned(), run.sample().keys[k]))
            .into(),
        ..run.sample()
    });
    run.expire(SCHEDULER);
    let epoch = run.hold("controllers-b", SCHEDULER);
    run.write("n1", RECORD, None, Some((ALIVE, session)));
    run.write("controllers-b", BINDING, None, Some((SCHEDULER, epoch)));
    assert_eq!(run.found(), []);
}

#[test]
fn writes_without_a_fence_that_holds_are_found() {
    type Act = fn(&mut Run, i64) -> i64;
    let cases: [(&str, Act); 8] = [
        ("an old epoch, of the holder itself", |run, epoch| {
            run.hold("controllers-a", SCHEDULER);
            run.put(
                "controllers-a",
                BINDING,
                &binding(1),
                Some((SCHEDULER, epoch)),
            )
        }),
        ("while nobody leads", |run, epoch| {
            run.expire(SCHEDULER);
            run.put(
                "controllers-a",
                BINDING,
                &binding(1),
                Some((SCHEDULER, epoch)),
            )
        }),
        ("by the former leader", |run, epoch| {
            run.expire(SCHEDULER);
            run.hold("controllers-b", SCHEDULER);
            run.put(
                "controllers-a",
                BINDING,
                &binding(1),
                Some((SCHEDULER, epoch)),
            )
        }),
        ("by the next process of the leader's name", |run, epoch| {
            run.put(
                "controllers-a#2",
                BINDING,
                &binding(1),
                Some((SCHEDULER, epoch)),
            )
        }),
        ("by a standby, with the leader's epoch", |run, epoch| {
            run.put(
                "controllers-b",
                BINDING,
                &binding(1),
                Some((SCHEDULER, epoch)),
            )
        }),
        ("without a guard", |run, _| {
            run.put("controllers-a", BINDING, &binding(1), None)
        }),
        ("under another controller's fence", |run, _| {
            let key = "/setpoint/leaders/gc";
            let epoch = run.hold("controllers-a", key);
            run.put("controllers-a", BINDING, &binding(1), Some((key, epoch)))
        }),
        ("by nobody", |run, _| {
            run.change(BINDING, Some(&binding(1)), None);
            run.revision
        }),
    ];
    for (what, act) in cases {
        let mut run = Run::default();
        let epoch = run.hold("controllers-a", SCHEDULER);
        let revision = act(&mut run, epoch);
        assert_eq!(run.found(), [("fencing", revision)], "{what}");
    }
}

#[test]
fn a_write_whose_answer_was_lost_is_whoever_s_may_have_made_it() {
    for (by, found) in [("controllers-a", false), ("controllers-b", true)] {
        let mut run = Run::default();
        let epoch = run.hold("controllers-a", SCHEDULER);
        run.change(BINDING, Some(&binding(1)), None);
        let value = binding(1);
        run.sent(by, BINDING, Some(&value), Some((SCHEDULER, epoch)), None);
        assert_eq!(run.found().is_empty(), !found, "{by}");
    }
}

#[test]
fn reports_of_a_former_session_and_of_other_nodes_are_found() {
    let mut run = Run::default();
    let epoch = run.hold("controllers-a", SCHEDULER);
    let session = run.hold("n1", ALIVE);
    run.put(
        "controllers-a",
        BINDING,
        &binding(session),
        Some((SCHEDULER, epoch)),
    );
    run.put("n1", RECORD, CLAIM, Some((ALIVE, session)));
    run.expire(ALIVE);
    run.hold("n1", ALIVE);
    let late = run.put(
        "n1",
        RECORD,
        "placement: 1\nuid: u\nstage: Running\n",
        Some((ALIVE, session)),
    );
    let key = "/setpoint/actual/nodes/n1/status";
    let foreign = run.put("n2", key, "{}", Some((ALIVE, session)));
    assert_eq!(run.found(), [("fencing", late), ("fencing", foreign)]);
}

#[test]
fn claims_twice_or_elsewhere_are_found() {
    let mut run = Run::default();
    let epoch = run.hold("controllers-a", SCHEDULER);
    let session = run.hold("n1", ALIVE);
    let alive = "/setpoint/actual/nodes/n2/alive";
    let other = run.hold("n2", alive);
    run.put(
        "controllers-a",
        BINDING,
        &binding(session),
        Some((SCHEDULER, epoch)),
    );
    let stray = "/setpoint/actual/nodes/n2/pods/default/p";
    let elsewhere = run.put("n2", stray, CLAIM, Some((alive, other)));
    let twice = run.put("n1", RECORD, CLAIM, Some((ALIVE, session)));
    let unbound = "/setpoint/actual/nodes/n1/pods/default/q";
    let unbound = run.put("n1", unbound, CLAIM, Some((ALIVE, session)));
    // A binding under a later session than the one that claims.
    let later = binding(run.revision + 10);
    let (pod, record) = (
        "/setpoint/bindings/default/r",
        RECORD.replace("default/p", "default/r"),
    );
    run.put("controllers-a", pod, &later, Some((SCHEDULER, epoch)));
    let former = run.put("n1", &record, CLAIM, Some((ALIVE, session)));
    let found = [elsewhere, twice, unbound, former].map(|r| ("single placement", r));
    assert_eq!(run.found(), found);
}

#[test]
fn caches_that_miss_or_keep_something_are_found() {
    let key = |name: &str| format!("/setpoint/desired/configmaps/default/{name}");
    type Spoil = fn(&mut Sample);
    let spoils: [Spoil; 3] = [
        |s| drop(s.keys.pop_first()),
        |s| *s.keys.values_mut().next().unwrap() -= 1,
        |s| {
            s.keys
                .insert("/setpoint/desired/configmaps/default/gone".into(), 1);
        },
    ];
    for spoil in spoils {
        let mut run = Run::default();
        run.put("user", &key("a"), "1", None);
        run.put("user", &key("b"), "1", None);
        run.put("user", &key("a"), "2", None);
        let mut sample = run.sample();
        run.history.samples.push(sample.clone());
        spoil(&mut sample);
        run.history.samples.push(sample);
        let revision = run.revision;
        assert_eq!(run.found(), [("watch completeness", revision)]);
    }
}

#[test]
fn what_users_want_and_lose_is_found() {
    let key = "/setpoint/desired/deployments/default/web";
    let owned = "/setpoint/desired/replicasets/default/web-1";
    let gc = "/setpoint/leaders/gc";
    let mut run = Run::default();
    let epoch = run.hold("controllers-a", gc);
    run.put("user", key, "metadata: {name: web}\n", None);
    run.put(
        "user",
        owned,
        "metadata: {ownerReferences: [{name: web}]}\n",
        None,
    );
    run.write("controllers-a", owned, None, Some((gc, epoch)));
    let lost = run.write("controllers-a", key, None, Some((gc, epoch)));
    let wanted = [(key.to_owned(), "metadata: {name: web}\n".to_owned())];
    run.history.wanted = wanted.into();
    let found = [("no lost desired", lost), ("no lost desired", lost)];
    assert_eq!(run.found(), found, "deleted, and not there in the end");
}

#[test]
fn a_record_with_a_gap_is_no_record() {
    let key = "/setpoint/desired/configmaps/default/a";
    let mut run = Run::default();
    run.put("user", key, "1", None);
    let gap = run.put("user", key, "2", None);
    let last = run.put("user", key, "3", None);
    run.history.changes.retain(|c| c.revision != gap);
    assert_eq!(run.found(), [("history", last)]);

    let mut run = Run::default();
    let only = run.put("user", key, "1", None);
    run.history.changes.clear();
    assert_eq!(
        run.found(),
        [("history", only)],
        "it is listed all the same"
    );
}

#[test]
fn late_writes_that_were_rejected_are_counted() {
    let mut run = Run::default();
    let epoch = run.hold("controllers-a", SCHEDULER);
    run.expire(SCHEDULER);
    let held = run.hold("controllers-b", SCHEDULER);
    run.sent(
        "controllers-a",
        BINDING,
        Some("x"),
        Some((SCHEDULER, epoch)),
        Some(held),
    );
    // Another guard did not hold: that is a conflict, and no late write.
    run.sent(
        "controllers-b",
        BINDING,
        Some("x"),
        Some((SCHEDULER, held)),
        Some(held),
    );
    for transaction in run.history.transactions.iter_mut().rev().take(2) {
        transaction.items[0].done = Some(false);
    }
    let fenced = fenced(&run.history);
    assert_eq!(fenced.len(), 1, "{fenced:?}");
    assert_eq!((fenced[0].epoch, fenced[0].held), (epoch, held));
    assert_eq!(&*fenced[0].sender.name, "controllers-a");
    assert_eq!(run.found(), []);
}

/// What gc writes about one object, and the election keys of its shard, of another shard, and of the whole.
fn sharded() -> (&'static str, [String; 3]) {
    let shard = setpoint_runtime::Shards::DEFAULT
        .of_key("deployments/default/x")
        .to_string();
    let other = if shard == "0" { "1" } else { "0" };
    (
        "/setpoint/deletions/deployments/default/x",
        [&*format!("/{shard}"), &*format!("/{other}"), ""]
            .map(|end| format!("/setpoint/leaders/gc{end}")),
    )
}

#[test]
fn a_key_of_a_sharded_controller_is_written_under_the_epoch_of_its_shard_and_no_other() {
    let (key, [own, other, _]) = sharded();
    let by = "controllers-a";
    let mut run = Run::default();
    let mine = run.hold(by, &own);
    let theirs = run.hold(by, &other);
    run.put(by, key, "{}", Some((&own, mine)));
    let wrong = run.put(by, key, "{a: b}", Some((&other, theirs)));
    assert_eq!(run.found(), [("fencing", wrong)]);

    let mut run = Run::default();
    let mine = run.hold(by, &own);
    run.hold("controllers-b", &other);
    run.hold(by, &own);
    let old = run.put(by, key, "{}", Some((&own, mine)));
    assert_eq!(run.found(), [("fencing", old)]);
}

#[test]
fn a_controller_that_is_led_as_a_whole_and_in_shards_is_found() {
    let (_, [own, _, whole]) = sharded();
    for (first, second) in [(&own, &whole), (&whole, &own)] {
        let mut run = Run::default();
        run.hold("controllers-a", first);
        let both = run.hold("controllers-b", second);
        assert_eq!(run.found(), [("fencing", both)]);
    }
}
