//! A short history that the checks are told.

use std::time::Duration;

use serde_json::{Value, json};
use setpoint_apis::meta::derived_uid;
use setpoint_apis::{Key, Keyspace, ObjectKey, Timestamp, document};
use setpoint_store::{Compare, Txn};

use crate::check::known::NEWS;
use crate::check::{Checks, Times};
use crate::ledger::{Entry, Sent};
use crate::named::Named;

/// 2030-01-01T00:00:00Z.
pub(super) const BEGUN: i64 = 1_893_456_000;

/// A store of which only the checks know.
pub(super) struct Told {
    pub(super) checks: Checks,
    pub(super) revision: i64,
    pub(super) millis: u64,
}

pub(super) fn object(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

impl Told {
    pub(super) fn new() -> Self {
        let times = Times {
            begun: Timestamp::from_unix_seconds(BEGUN),
            error: Duration::ZERO,
            drift_ppm: 0,
        };
        let mut told = Self {
            checks: Checks::new(Keyspace::default(), times),
            revision: 1,
            millis: 1_000,
        };
        told.namespace("default");
        told
    }

    /// A namespace is made.
    pub(super) fn namespace(&mut self, name: &str) {
        let document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let key = Key::Desired("namespaces", ObjectKey::cluster(name));
        self.write("user", &key, Some(document));
    }

    /// A write; gives back the uid of what it creates when it has none of its own.
    pub(super) fn write(&mut self, by: &str, key: &Key<'_>, value: Option<Value>) -> String {
        self.enter(&Sent::of(by), key, value)
    }

    pub(super) fn enter(&mut self, sent: &Sent, key: &Key<'_>, value: Option<Value>) -> String {
        self.revision += 1;
        self.millis += 10;
        let text = value.map(|v| document::encode(&v));
        let name = Keyspace::default().build(key);
        self.checks.enter(&Entry {
            revision: self.revision,
            millis: self.millis,
            sent: Some(sent),
            key: &name,
            value: text.as_ref().map(|t| t.as_bytes()),
            create_revision: self.revision,
        });
        match key {
            Key::Desired(plural, key) => derived_uid(self.revision, plural, key),
            _ => String::new(),
        }
    }

    pub(super) fn user(&mut self, plural: &str, name: &str, spec: Value) -> String {
        let value = manifest(plural, name, spec, None);
        self.write("user", &Key::Desired(plural, object(name)), Some(value))
    }

    pub(super) fn controller(
        &mut self,
        plural: &str,
        name: &str,
        spec: Value,
        owner: (&str, &str),
    ) -> String {
        let value = manifest(plural, name, spec, Some(owner));
        let key = Key::Desired(plural, object(name));
        self.write("controllers-0#1", &key, Some(value))
    }

    /// A pod that the selectors of [`of_pods`] match.
    pub(super) fn labelled(&mut self, name: &str, spec: Value, owner: (&str, &str)) {
        let mut value = manifest("pods", name, spec, Some(owner));
        value["metadata"]["labels"] = json!({"app": "web"});
        let key = Key::Desired("pods", object(name));
        self.write("controllers-0#1", &key, Some(value));
    }

    pub(super) fn delete(&mut self, plural: &str, name: &str) {
        self.write("controllers-0#1", &Key::Desired(plural, object(name)), None);
    }

    /// The garbage collector deletes something.
    pub(super) fn collect(&mut self, plural: &str, name: &str) {
        let key = Key::Desired(plural, object(name));
        let keyspace = Keyspace::default();
        let leads = keyspace.build(&Key::Leader("gc", None));
        let txn = Txn::new().when(Compare::ModRevision(leads, 1));
        let mut sent = Sent::of("controllers-0#1");
        sent.named = Named::of(&txn.delete(keyspace.build(&key)));
        self.enter(&sent, &key, None);
    }

    /// A node registers, and holds its session.
    pub(super) fn node(&mut self, name: &str) {
        let document = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let key = Key::Desired("nodes", ObjectKey::cluster(name));
        self.write("user", &key, Some(document));
        self.write(&format!("{name}#1"), &Key::NodeAlive(name), Some(json!({})));
    }

    /// A pod is bound to a node, and is at this stage there.
    pub(super) fn runs(&mut self, name: &str, stage: &str) {
        self.runs_on("n1", name, stage);
    }

    pub(super) fn runs_on(&mut self, node: &str, name: &str, stage: &str) {
        let binding = json!({
            "node": node, "session": 1, "placement": 1, "podRevision": 1, "boundAt": "2030-01-01T00:00:01Z",
        });
        self.write(
            "controllers-0#1",
            &Key::Binding(object(name)),
            Some(binding),
        );
        let ready = if stage == "Running" { "True" } else { "False" };
        let record = json!({
            "placement": 1, "uid": "", "stage": stage,
            "conditions": [{"type": "Ready", "status": ready}],
        });
        let by = format!("{node}#1");
        self.write(&by, &Key::NodePod(node, object(name)), Some(record));
        // Until everybody knows it.
        self.millis += NEWS;
    }

    /// A pod is taken from where it is bound.
    pub(super) fn withdraw(&mut self, name: &str) {
        let binding = json!({
            "node": "n1", "session": 1, "placement": 1, "podRevision": 1, "boundAt": "2030-01-01T00:00:01Z",
            "withdrawn": {"at": "2030-01-01T00:00:02Z", "reason": "Evicted"},
        });
        self.write(
            "controllers-0#1",
            &Key::Binding(object(name)),
            Some(binding),
        );
    }

    pub(super) fn status(&mut self, plural: &str, name: &str, status: Value) {
        self.write(
            "controllers-0#1",
            &Key::Actual(plural, object(name)),
            Some(status),
        );
    }

    /// So many breaches of an invariant have been found.
    #[track_caller]
    pub(super) fn breaks(&self, invariant: &str, times: usize) {
        let found = self.found(invariant).len();
        assert_eq!(found, times, "{:?}", self.checks.violations());
    }

    /// What was found of an invariant.
    pub(super) fn found(&self, invariant: &str) -> Vec<&str> {
        let all = self.checks.violations().iter();
        let found = all.filter(|v| v.invariant == invariant);
        found.map(|v| v.message.as_str()).collect()
    }
}

pub(super) fn manifest(
    plural: &str,
    name: &str,
    spec: Value,
    owner: Option<(&str, &str)>,
) -> Value {
    let (version, kind) = match plural {
        "pods" => ("v1", "Pod"),
        "jobs" => ("batch/v1", "Job"),
        "cronjobs" => ("batch/v1", "CronJob"),
        "replicasets" => ("apps/v1", "ReplicaSet"),
        "deployments" => ("apps/v1", "Deployment"),
        "statefulsets" => ("apps/v1", "StatefulSet"),
        "daemonsets" => ("apps/v1", "DaemonSet"),
        "configmaps" => ("v1", "ConfigMap"),
        "persistentvolumeclaims" => ("v1", "PersistentVolumeClaim"),
        "poddisruptionbudgets" => ("policy/v1", "PodDisruptionBudget"),
        other => panic!("{other}"),
    };
    let mut metadata = json!({"name": name, "namespace": "default"});
    if let Some((kind, uid)) = owner {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "x/v1", "kind": kind, "name": "owner", "uid": uid, "controller": true,
        }]);
        if kind == "Job" {
            let number = name.rsplit_once('-').unwrap().1;
            metadata["annotations"] = json!({"setpoint.dev/job-pod-number": number});
        }
    }
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

pub(super) fn pod_spec() -> Value {
    json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "example/web"}]})
}

pub(super) fn of_pods(spec: Value) -> Value {
    let mut all = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [{"name": "main", "image": "example/web"}],
        }},
    });
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    all
}
