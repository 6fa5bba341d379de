//! DaemonSets against a real etcd. Nodes are documents here; their agents are played by the rig.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::apps::{
    ControllerRevision, DaemonSet, DaemonSetStatus, Deployment, WorkloadCondition,
};
use setpoint_apis::core::{ConfigMap, Node, Pod, PodCondition};
use setpoint_apis::records::{PodActual, PodStage};
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_store::{EventKind, Revision, Txn};
use setpoint_workloads::daemonset::fit::{Placement, pinned_to};
use setpoint_workloads::daemonset::nodes::NodeIndex;

use super::controllers;
use super::rig::{BROKEN, History, Rig};
use super::stateful_set::free;

fn ds() -> ObjectKey {
    ObjectKey::namespaced("default", "ds")
}

fn manifest(image: &str, strategy: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: ds, namespace: default}}\nspec:\n  \
         selector: {{matchLabels: {{app: ds}}}}\n  updateStrategy: {strategy}\n  template:\n    \
         metadata: {{labels: {{app: ds}}}}\n    spec: {{containers: [{{name: c, image: {image}}}]}}\n"
    )
}

async fn apply(rig: &Rig, image: &str, strategy: &str) -> Revision {
    rig.put_desired::<DaemonSet>(&ds(), &manifest(image, strategy))
        .await
}

const DEFAULT: &str = "{}";

/// A node with a session and a report.
pub(crate) async fn add_node(rig: &Rig, name: &str, labels: &str) {
    let status = format!("{{capacity: {{cpu: 8}}, allocatable: {{cpu: 8}}, labels: {labels}}}\n");
    let document = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n");
    rig.put(&Key::NodeStatus(name), &status).await;
    rig.put_desired::<Node>(&ObjectKey::cluster(name), &document)
        .await;
    regain(rig, name).await;
}

async fn regain(rig: &Rig, name: &str) {
    let health = "{state: Ready, session: 1, since: 2026-01-01T00:00:00Z}\n";
    let alive =
        "{hostname: h, pid: 1, instance: i, since: 2026-01-01T00:00:00Z, leaseTtlSeconds: 6}\n";
    rig.put(&Key::NodeAlive(name), alive).await;
    rig.put(&Key::Health(name), health).await;
}

/// The session of a node ends, and node-lifecycle says what it thinks of it.
async fn lose(rig: &Rig, name: &str) {
    let alive = rig.keyspace.build(&Key::NodeAlive(name));
    rig.store.txn(Txn::new().delete(alive)).await.unwrap();
    let health = "{state: Unreachable, session: 1, since: 2026-01-01T00:00:00Z, taints: [\
                  {key: node.kubernetes.io/unreachable, effect: NoSchedule}, \
                  {key: node.kubernetes.io/unreachable, effect: NoExecute}]}\n";
    rig.put(&Key::Health(name), health).await;
}

async fn delete(rig: &Rig, keys: &[Key<'_>]) {
    let keys = keys.iter().map(|k| rig.keyspace.build(k));
    let txn = keys.fold(Txn::new(), Txn::delete);
    let revision = rig.store.txn(txn).await.unwrap().revision;
    rig.cache.wait_for(revision).await;
}

async fn remove_node(rig: &Rig, name: &str) {
    let desired = Key::Desired(Node::PLURAL, ObjectKey::cluster(name));
    let all = [
        desired,
        Key::NodeAlive(name),
        Key::NodeStatus(name),
        Key::Health(name),
    ];
    delete(rig, &all).await;
}

async fn status(
    rig: &Rig,
    what: &str,
    holds: impl Fn(&DaemonSetStatus) -> bool,
) -> DaemonSetStatus {
    rig.until(what, |view| {
        let object = view.desired::<DaemonSet>().get(&ds())?;
        let status = &view.actual::<DaemonSet>().get(&ds())?.value;
        let current = status.observed_generation == Some(object.version);
        (current && holds(status)).then(|| status.clone())
    })
    .await
}

fn has_succeeded(s: &DaemonSetStatus) -> bool {
    let mut all = s.conditions.iter();
    all.any(|c| c.reason.as_deref() == Some("NewRevisionAvailable"))
}

/// Every node that is to have a pod has one of the newest template, which is available.
async fn rolled_out(rig: &Rig, nodes: i32) {
    let done = |s: &DaemonSetStatus| {
        let n = |n: Option<i32>| n.unwrap_or(0);
        s.desired_number_scheduled == nodes
            && s.current_number_scheduled == nodes
            && n(s.updated_number_scheduled) == nodes
            && n(s.number_available) == nodes
            && n(s.number_unavailable) == 0
            && s.number_misscheduled == 0
            && has_succeeded(s)
    };
    status(rig, &format!("it is rolled out on {nodes} nodes"), done).await;
    rig.settled().await;
}

/// Pods by the node that they are pinned to.
fn pods(rig: &Rig) -> BTreeMap<String, Vec<String>> {
    let view = rig.cache.view();
    let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, pod) in view.desired::<Pod>().iter() {
        let node = pinned_to(&pod.value.spec).unwrap_or_default().to_owned();
        pods.entry(node).or_default().push(key.name.to_string());
    }
    pods
}

fn nodes_with_pods(rig: &Rig) -> Vec<String> {
    let pods = pods(rig);
    assert!(pods.values().all(|p| p.len() == 1), "{pods:?}");
    pods.into_keys().collect()
}

async fn quiet_restart(rig: &Rig, process: super::rig::Process) {
    // The next leader looks at everything, and finds nothing to write: all that it writes is for what comes new.
    process.stop().await;
    rig.level().await;
    let history = rig.history().await;
    let process = controllers(rig).await;
    let probe = ObjectKey::namespaced("default", "probe");
    let text = manifest("host", DEFAULT)
        .replace("name: ds,", "name: probe,")
        .replace("app: ds", "app: probe");
    rig.put_desired::<DaemonSet>(&probe, &text).await;
    rig.until("the probe runs", |view| {
        let status = &view.actual::<DaemonSet>().get(&probe)?.value;
        (status.number_available.is_some() && status.number_unavailable.is_none()).then_some(())
    })
    .await;
    process.stop().await;
    let end = rig
        .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
        .await;
    history.until(end).await;
    let written = history.written();
    assert!(written.iter().all(|k| k.contains("/probe")), "{written:?}");
}

#[tokio::test]
async fn a_daemon_set_follows_its_nodes_and_writes_nothing_when_it_is_done() {
    let rig = Rig::start("ds-nodes", setpoint_workloads::register).await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    for name in ["n1", "n2"] {
        add_node(&rig, name, "{}").await;
    }
    apply(&rig, "host", DEFAULT).await;
    rolled_out(&rig, 2).await;
    assert_eq!(nodes_with_pods(&rig), ["n1", "n2"]);
    add_node(&rig, "n3", "{}").await;
    rolled_out(&rig, 3).await;
    remove_node(&rig, "n1").await;
    rolled_out(&rig, 2).await;
    assert_eq!(nodes_with_pods(&rig), ["n2", "n3"]);
    {
        let view = rig.cache.view();
        let (_, revision) = view.desired::<ControllerRevision>().iter().next().unwrap();
        let labels = &revision.value.metadata.labels;
        for (_, pod) in view.desired::<Pod>().iter() {
            let own = &pod.value.metadata;
            let owner = own.controller().unwrap();
            assert_eq!((owner.kind.as_str(), &*owner.name), ("DaemonSet", "ds"));
            let hash = &own.labels["controller-revision-hash"];
            assert_eq!(hash, &labels["controller-revision-hash"]);
            assert_eq!(format!("ds-{hash}"), revision.value.metadata.name);
            assert_eq!(pod.value.spec.tolerations.len(), 6);
        }
    }
    // A cordoned node keeps its pod and counts; a taint for others empties it.
    let node = |spec: &str| {
        format!("apiVersion: v1\nkind: Node\nmetadata: {{name: n2}}\nspec: {{{spec}}}\n")
    };
    rig.put_desired::<Node>(&ObjectKey::cluster("n2"), &node("unschedulable: true"))
        .await;
    rolled_out(&rig, 2).await;
    let taint = "taints: [{key: x, effect: NoExecute}]";
    rig.put_desired::<Node>(&ObjectKey::cluster("n2"), &node(taint))
        .await;
    rolled_out(&rig, 1).await;
    assert_eq!(nodes_with_pods(&rig), ["n3"]);
    quiet_restart(&rig, process).await;
}

/// After each revision from `begin` on: nodes with an available pod, and the most pods of a node, those that still stop
/// included.
fn course(rig: &Rig, history: &History, begin: Revision) -> Vec<(usize, usize)> {
    let mut wanted: BTreeMap<ObjectKey, String> = BTreeMap::new();
    let mut running: BTreeMap<ObjectKey, (String, bool)> = BTreeMap::new();
    let mut course = Vec::new();
    let mut events = history.events().into_iter().peekable();
    while let Some(event) = events.next() {
        match (rig.keyspace.split(&event.kv.key), event.kind) {
            (Ok(Key::Desired("pods", key)), EventKind::Put) => {
                let pod: Pod = document::decode_keyed(&key, &event.kv.value).unwrap();
                wanted.insert(key, pinned_to(&pod.spec).unwrap().to_owned());
            }
            (Ok(Key::Desired("pods", key)), EventKind::Delete) => drop(wanted.remove(&key)),
            (Ok(Key::NodePod(node, key)), EventKind::Put) => {
                let actual: PodActual = document::decode_value(&event.kv.value).unwrap();
                running.insert(key, (node.to_owned(), actual.is_ready()));
            }
            (Ok(Key::NodePod(_, key)), EventKind::Delete) => drop(running.remove(&key)),
            _ => {}
        }
        let revision = event.kv.mod_revision;
        if events.peek().is_some_and(|e| e.kv.mod_revision == revision) {
            continue;
        }
        let ready = running
            .iter()
            .filter(|(key, (_, ready))| *ready && wanted.contains_key(*key));
        let served: BTreeSet<&String> = ready.map(|(_, (node, _))| node).collect();
        let mut count: BTreeMap<&String, usize> = BTreeMap::new();
        let stopping = running.iter().filter(|(key, _)| !wanted.contains_key(*key));
        let nodes = wanted.values().chain(stopping.map(|(_, (node, _))| node));
        nodes.for_each(|node| *count.entry(node).or_default() += 1);
        let most = count.values().copied().max().unwrap_or(0);
        if revision >= begin.0 {
            course.push((served.len(), most));
        }
    }
    course
}

#[tokio::test]
async fn rolling_updates_keep_within_their_bounds_at_every_revision_also_when_the_controller_changes()
 {
    for (i, (strategy, least, most)) in [
        ("{rollingUpdate: {maxUnavailable: 1}}", 5, 1),
        ("{rollingUpdate: {maxUnavailable: 50%}}", 3, 1),
        ("{rollingUpdate: {maxSurge: 2, maxUnavailable: 0}}", 6, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let rig = Rig::start(&format!("ds-rolling{i}"), setpoint_workloads::register).await;
        let mut process = controllers(&rig).await;
        let _agents = rig.agents();
        for n in 0..6 {
            add_node(&rig, &format!("n{n}"), "{}").await;
        }
        let history = rig.history().await;
        apply(&rig, "v1", strategy).await;
        rolled_out(&rig, 6).await;
        let first = rig.pods();
        let begin = apply(&rig, "v2", strategy).await;
        for left in [4, 2] {
            // In the middle of it another process takes over; once without notice, when the lease has expired.
            rig.until(&format!("{left} old pods are left"), |view| {
                let pods = view.desired::<Pod>().entries();
                let old = pods.filter(|(k, _)| first.contains(&*k.name)).count();
                (old <= left).then_some(())
            })
            .await;
            if left == 4 && i == 0 {
                process.crash();
            } else {
                process.stop().await;
            }
            process = controllers(&rig).await;
        }
        rolled_out(&rig, 6).await;
        assert_eq!(rig.pods().intersection(&first).count(), 0);
        let end = rig
            .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
            .await;
        history.until(end).await;
        let course = course(&rig, &history, begin);
        assert!(course.len() >= 10, "{course:?}");
        for step in &course {
            assert!(
                step.0 >= least && step.1 <= most,
                "{strategy}: {step:?} of {course:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_pod_of_a_lost_node_waits_for_it() {
    let rig = Rig::start("ds-lost", setpoint_workloads::register).await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    for name in ["n1", "n2", "n3"] {
        add_node(&rig, name, "{}").await;
    }
    apply(&rig, "host", DEFAULT).await;
    rolled_out(&rig, 3).await;
    let all = rig.pods();
    lose(&rig, "n2").await;
    let lost = status(&rig, "the node does not count", |s| {
        s.desired_number_scheduled == 2 && s.number_available == Some(2)
    })
    .await;
    assert_eq!(lost.number_misscheduled, 1);
    // Failover releases the pod.
    let pod = ObjectKey::namespaced("default", pods(&rig)["n2"][0].as_str());
    let placed = [Key::Binding(pod.clone()), Key::NodePod("n2", pod.clone())];
    delete(&rig, &placed).await;
    // Another leader finds the same.
    process.stop().await;
    let process = controllers(&rig).await;
    add_node(&rig, "n4", "{}").await;
    status(&rig, "the next node has its pod", |s| {
        s.desired_number_scheduled == 3 && s.number_available == Some(3)
    })
    .await;
    rig.settled().await;
    assert_eq!(nodes_with_pods(&rig), ["n1", "n2", "n3", "n4"]);
    regain(&rig, "n2").await;
    rolled_out(&rig, 4).await;
    assert!(all.is_subset(&rig.pods()), "they are the same pods");
    quiet_restart(&rig, process).await;
}

#[tokio::test]
async fn a_node_without_room_counts_and_its_pod_waits_there() {
    let rig = Rig::start("ds-room", setpoint_workloads::register).await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    for name in ["n1", "n2"] {
        add_node(&rig, name, "{}").await;
    }
    let room = |cpu: &str| {
        let cpu = format!("{{cpu: {cpu}}}");
        format!("{{capacity: {cpu}, allocatable: {cpu}, labels: {{}}}}\n")
    };
    rig.put(&Key::NodeStatus("n2"), &room("500m")).await;
    let text = manifest("host", DEFAULT).replace(
        "image: host",
        "image: host, resources: {requests: {cpu: 2}}",
    );
    rig.put_desired::<DaemonSet>(&ds(), &text).await;
    let waits = |s: &DaemonSetStatus| {
        let n = |n: Option<i32>| n.unwrap_or(0);
        s.desired_number_scheduled == 2
            && s.current_number_scheduled == 2
            && n(s.number_available) == 1
            && n(s.number_unavailable) == 1
    };
    status(&rig, "one of two is available", waits).await;
    rig.settled().await;
    assert_eq!(nodes_with_pods(&rig), ["n1", "n2"]);
    let all = rig.pods();
    let waiting = ObjectKey::namespaced("default", pods(&rig)["n2"][0].as_str());
    assert!(!rig.cache.view().bindings().contains(&waiting));
    // Nor does the next leader give it up.
    process.stop().await;
    let _process = controllers(&rig).await;
    rig.settled().await;
    assert_eq!(rig.pods(), all);
    status(&rig, "it still counts", waits).await;
    rig.put(&Key::NodeStatus("n2"), &room("4")).await;
    rolled_out(&rig, 2).await;
    assert_eq!(rig.pods(), all, "it is the same pod");
}

/// What an agent reports of a pod that crashes.
async fn crash(rig: &Rig, node: &str, pod: &ObjectKey) {
    let uid = {
        let view = rig.cache.view();
        view.desired::<Pod>().get(pod).unwrap().uid()
    };
    let waiting = "{name: c, image: x, restartCount: 5, ready: false, state: {waiting: {reason: CrashLoopBackOff}}}";
    let actual = PodActual {
        placement: 1,
        uid,
        stage: PodStage::Running,
        conditions: vec![PodCondition::new("Ready", false, Default::default())],
        container_statuses: vec![document::decode_value(waiting.as_bytes()).unwrap()],
        ..PodActual::default()
    };
    let key = Key::NodePod(node, pod.clone());
    rig.put(&key, &document::encode(&actual)).await;
}

#[tokio::test]
async fn a_rollout_whose_pods_crash_is_taken_back_and_a_change_of_config_is_rolled_out() {
    let rig = Rig::start("ds-rollback", setpoint_workloads::register).await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    for name in ["n1", "n2", "n3"] {
        add_node(&rig, name, "{}").await;
    }
    let with_config = |image: &str| {
        let container = format!("image: {image}, envFrom: [{{configMapRef: {{name: app}}}}]");
        manifest(image, DEFAULT).replace(&format!("image: {image}"), &container)
    };
    let config = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app}}\ndata: {{a: {value}}}\n")
    };
    let app = ObjectKey::namespaced("default", "app");
    rig.put_desired::<ConfigMap>(&app, &config("one")).await;
    rig.put_desired::<DaemonSet>(&ds(), &with_config("v1"))
        .await;
    rolled_out(&rig, 3).await;
    let first = rig.pods();
    rig.put_desired::<ConfigMap>(&app, &config("two")).await;
    rig.until("every pod is another one", |view| {
        let mut pods = view.desired::<Pod>().entries();
        pods.all(|(key, _)| !first.contains(&*key.name))
            .then_some(())
    })
    .await;
    rolled_out(&rig, 3).await;
    let good = rig.pods();

    rig.put_desired::<DaemonSet>(&ds(), &with_config(BROKEN))
        .await;
    let broken = rig
        .until("a broken pod is placed", |view| {
            let mut pods = view.desired::<Pod>().iter();
            let (key, _) =
                pods.find(|(k, _)| !good.contains(&*k.name) && view.pod_actual(k).is_some())?;
            Some(key.clone())
        })
        .await;
    let node = {
        let view = rig.cache.view();
        let pod = view.desired::<Pod>().get(&broken).unwrap();
        pinned_to(&pod.value.spec).unwrap().to_owned()
    };
    crash(&rig, &node, &broken).await;
    let back = status(&rig, "it is taken back", |s| {
        s.rollback.is_some() && s.number_unavailable.is_none() && has_succeeded(s)
    })
    .await;
    let record = back.rollback.unwrap();
    assert_eq!(record.reason, "PodsCrash");
    assert_eq!(back.last_available_revision, Some(record.to_revision));
    rig.settled().await;
    assert_eq!(rig.pods().intersection(&good).count(), 2);
    let document = rig.cache.view().desired::<DaemonSet>().get(&ds()).cloned();
    let image = &document.unwrap().value.spec.template.spec.containers[0].image;
    assert_eq!(image, BROKEN, "a user's document is never written");
    // Three templates, of which two read one copy.
    assert_eq!(rig.cache.view().desired::<ControllerRevision>().len(), 3);
    assert_eq!(rig.cache.view().desired::<ConfigMap>().len(), 3);
    quiet_restart(&rig, process).await;
}

#[tokio::test]
async fn broken_yaml_over_a_daemon_set_its_revision_a_pod_or_a_node_deletes_nothing() {
    let rig = Rig::start("ds-broken", setpoint_workloads::register).await;
    let mut process = controllers(&rig).await;
    let _agents = rig.agents();
    for name in ["n1", "n2"] {
        add_node(&rig, name, "{}").await;
    }
    apply(&rig, "v1", DEFAULT).await;
    rolled_out(&rig, 2).await;
    let (pods, pod, revision) = {
        let view = rig.cache.view();
        let revision = view.desired::<ControllerRevision>().iter().next();
        let pod = view.desired::<Pod>().iter().next();
        (
            rig.pods(),
            pod.unwrap().0.clone(),
            revision.unwrap().0.clone(),
        )
    };
    let history = rig.history().await;
    for round in 0..2 {
        // The second time the controllers start on broken documents and have never seen good ones.
        for (plural, key) in [
            (DaemonSet::PLURAL, ds()),
            (ControllerRevision::PLURAL, revision.clone()),
            (Pod::PLURAL, pod.clone()),
            (Node::PLURAL, ObjectKey::cluster("n1")),
        ] {
            let key = Key::Desired(plural, key);
            let (good, _) = rig.store.get(&rig.keyspace.build(&key)).await.unwrap();
            let good = String::from_utf8(good.unwrap().value.to_vec()).unwrap();
            rig.put(&key, "spec: {replicas: 0\n  what: [").await;
            if round == 1 {
                process.stop().await;
                process = controllers(&rig).await;
            }
            if [DaemonSet::PLURAL, ControllerRevision::PLURAL].contains(&plural) {
                rig.until("it says that it is invalid", |view| {
                    let status = &view.actual::<DaemonSet>().get(&ds())?.value;
                    let mut all = status.conditions.iter();
                    let reason = match plural {
                        DaemonSet::PLURAL => "DocumentInvalid",
                        _ => "RevisionInvalid",
                    };
                    let is = |c: &WorkloadCondition| {
                        c.type_ == "Invalid" && c.reason.as_deref() == Some(reason)
                    };
                    all.any(is).then_some(())
                })
                .await;
            }
            rig.settled().await;
            assert_eq!(rig.pods(), pods, "{plural}");
            rig.put(&key, &good).await;
        }
        rolled_out(&rig, 2).await;
    }
    let end = rig
        .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
        .await;
    history.until(end).await;
    let deleted = history.deleted();
    assert!(deleted.iter().all(|k| !k.contains("/pods/")), "{deleted:?}");
    assert_eq!(rig.pods(), pods);
}

#[tokio::test]
async fn what_agents_report_wakes_only_those_to_whom_the_node_is_another_one() {
    let rig = Rig::start("ds-wake", setpoint_workloads::register).await;
    let mut index = NodeIndex::new(&rig.cache);
    add_node(&rig, "n1", "{disk: ssd}").await;
    let placement = |spec: &str| -> Arc<[Placement]> {
        let spec = format!("{{containers: [], {spec}}}");
        let spec = document::decode_value(spec.as_bytes()).unwrap();
        [Placement::of(&spec)].into()
    };
    let mut touched = |rig: &Rig| {
        index.catch_up(&rig.cache.view());
        let all = ["any", "ssd", "hdd", "unknown"].map(|n| ObjectKey::namespaced("default", n));
        let touched = index.take_touched(all.into_iter(), |key| match &*key.name {
            "any" => placement("tolerations: [{operator: Exists}]"),
            "unknown" => Arc::new([]),
            disk => placement(&format!("nodeSelector: {{disk: {disk}}}")),
        });
        let names: Vec<String> = touched.iter().map(|k| k.name.to_string()).collect();
        names.join(" ")
    };
    assert_eq!(touched(&rig), "any ssd unknown");
    let report = |labels: &str, cpu: u32| {
        format!(
            "{{capacity: {{cpu: 8}}, allocatable: {{cpu: 8}}, usage: {{cpu: {cpu}}}, labels: {labels}, \
             conditions: [{{type: DiskPressure, status: 'False'}}]}}\n"
        )
    };
    for cpu in 1..5 {
        rig.put(&Key::NodeStatus("n1"), &report("{disk: ssd}", cpu))
            .await;
        assert_eq!(touched(&rig), "");
    }
    rig.put(&Key::NodeStatus("n1"), &report("{disk: hdd}", 5))
        .await;
    assert_eq!(touched(&rig), "ssd hdd unknown");
    rig.put(&Key::NodeStatus("n1"), &report("{disk: hdd, x: y}", 5))
        .await;
    assert_eq!(touched(&rig), "unknown");
    lose(&rig, "n1").await;
    assert_eq!(touched(&rig), "any hdd unknown");
    remove_node(&rig, "n1").await;
    assert_eq!(touched(&rig), "any hdd unknown");
}

#[tokio::test]
async fn pods_are_adopted_and_released_by_their_labels() {
    let rig = Rig::start("ds-adoption", setpoint_workloads::register).await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    add_node(&rig, "n1", "{}").await;
    let stray = ObjectKey::namespaced("default", "stray");
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: stray, labels: {app: ds}}\n\
                spec: {nodeName: n1, containers: [{name: c, image: host}]}\n";
    rig.put_desired::<Pod>(&stray, text).await;
    rig.until("it runs", |view| view.pod_actual(&stray).map(|_| ()))
        .await;
    let on_delete = "{type: OnDelete}";
    apply(&rig, "host", on_delete).await;
    status(&rig, "it is the node's pod", |s| {
        s.number_available == Some(1)
    })
    .await;
    rig.settled().await;
    assert_eq!(rig.pods(), ["stray".to_owned()].into());
    let key = rig
        .keyspace
        .build(&Key::Desired(Pod::PLURAL, stray.clone()));
    let (kv, _) = rig.store.get(&key).await.unwrap();
    let adopted = String::from_utf8(kv.unwrap().value.to_vec()).unwrap();
    rig.put_desired::<Pod>(&stray, &adopted.replace("app: ds", "app: other"))
        .await;
    rig.until("the stray pod is free, and replaced", |view| {
        let free = view.desired::<Pod>().get(&stray)?;
        let free = free.value.metadata.controller().is_none();
        (free && view.desired::<Pod>().len() == 2).then_some(())
    })
    .await;
}

/// While it overlaps with an older workload it makes pods of its own. When it is alone the pods and the revision that a
/// former one of its name has left behind are its own again, and what is one too many goes: of each node the younger.
#[tokio::test]
async fn what_was_left_behind_stays_when_an_overlap_has_ended() {
    let rig = Rig::start("ds-overlap", setpoint_workloads::register).await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    add_node(&rig, "n1", "{}").await;
    add_node(&rig, "n2", "{}").await;
    apply(&rig, "host", DEFAULT).await;
    rolled_out(&rig, 2).await;
    let first = rig.pods();
    process.stop().await;
    delete(&rig, &[Key::Desired(DaemonSet::PLURAL, ds())]).await;
    free::<Pod>(&rig).await;
    free::<ControllerRevision>(&rig).await;
    let web = ObjectKey::namespaced("default", "web");
    let older = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\nspec: {replicas: 0, \
                 selector: {matchLabels: {app: ds}}, template: {metadata: {labels: {app: ds}}, spec: {containers: \
                 [{name: c, image: host}]}}}\n";
    rig.put_desired::<Deployment>(&web, older).await;
    let _controllers = controllers(&rig).await;
    apply(&rig, "host", DEFAULT).await;
    rig.until("it has pods of its own", |view| {
        (view.desired::<Pod>().len() == 4).then_some(())
    })
    .await;
    rig.settled().await;
    let all = rig.pods();
    assert!(all.len() == 4 && first.is_subset(&all), "{all:?}");
    delete(&rig, &[Key::Desired(Deployment::PLURAL, web)]).await;
    rig.until("all is its own, and each node has one pod", |view| {
        let mut revisions = view.desired::<ControllerRevision>().iter();
        let own = revisions.all(|(_, r)| r.value.metadata.controller().is_some());
        (own && view.desired::<Pod>().len() == 2).then_some(())
    })
    .await;
    rolled_out(&rig, 2).await;
    assert_eq!(rig.pods(), first);
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the number is what one runs it for")]
async fn a_thousand_nodes_get_their_pods_in_one_go() {
    let rig = Rig::start("ds-thousand", setpoint_workloads::register).await;
    let nodes = 1_000;
    let name = |n: usize| format!("n{n:04}");
    for first in (0..nodes).step_by(100) {
        let put = |txn: Txn, n: usize| {
            let node = name(n);
            let status = "{capacity: {cpu: 8}, allocatable: {cpu: 8}}\n";
            let alive = "{hostname: h, pid: 1, instance: i, since: 2026-01-01T00:00:00Z, leaseTtlSeconds: 6}\n";
            txn.put(
                rig.keyspace.build(&Key::NodeStatus(&node)),
                status.to_owned(),
            )
            .put(rig.keyspace.build(&Key::NodeAlive(&node)), alive.to_owned())
        };
        let half = |from: usize| (from..from + 50).fold(Txn::new(), put);
        for from in [first, first + 50] {
            rig.store.txn(half(from)).await.unwrap();
        }
    }
    let _process = controllers(&rig).await;
    rig.settled().await;
    let begin = tokio::time::Instant::now();
    apply(&rig, "host", DEFAULT).await;
    rig.until("every node has a pod", |view| {
        (view.desired::<Pod>().len() == nodes).then_some(())
    })
    .await;
    eprintln!("{nodes} pods are wanted after {:?}", begin.elapsed());
    let all: Vec<String> = (0..nodes).map(name).collect();
    assert_eq!(nodes_with_pods(&rig), all);
}
