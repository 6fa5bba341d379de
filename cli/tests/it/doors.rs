//! What LimitRanges and object counts say to who applies and creates.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use setpoint_apis::{Key, ObjectKey, keyspace};
use setpoint_store::{EventKind, RangeRequest, Revision, Txn, WatchRequest};

use crate::fixture::{Fixture, LONG, config_map, deployment, pod};

fn limit_range(limits: &str) -> String {
    format!(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {{name: small}}\nspec: {{limits: [{limits}]}}\n"
    )
}

fn quota(name: &str, hard: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: {name}}}\nspec: {{hard: {{{hard}}}}}\n"
    )
}

fn used(f: &Fixture, name: &str, resource: &str) -> String {
    let resource = resource.replace('.', "\\.");
    let path = format!("jsonpath={{.status.used.{resource}}}/{{.status.hard.{resource}}}");
    f.run(&["get", "quota", name, "-o", &path]).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_in_its_text_what_a_limit_range_gives_and_applying_it_again_changes_nothing() {
    let f = Fixture::new("limits").await;
    f.apply(&limit_range(
        "{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m, memory: 64Mi}}",
    ));
    let manifest = format!("# Mine.\n{}", pod("p"));
    let ran = f.run_with_input(&["apply", "-f", "-"], &manifest);
    assert!(
        ran.err
            .contains("cpu, memory request for container c; cpu limit for container c"),
        "{ran:?}"
    );
    assert_eq!(ran.ok(), "pod/p created\n");
    let text = f.desired("pods", "p").await.unwrap();
    let wanted = "    command: [sleep, inf]\n    resources:\n      limits:\n        cpu: 500m\n      requests:\n        \
                  cpu: 100m\n        memory: 64Mi\n";
    assert!(
        text.starts_with("# Mine.\n") && text.contains(wanted),
        "{text}"
    );
    let path = "jsonpath={.metadata.annotations.kubernetes\\.io/limit-ranger}";
    assert_eq!(
        f.run(&["get", "pod", "p", "-o", path]).ok(),
        "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"
    );
    assert_eq!(
        f.run_with_input(&["apply", "-f", "-"], &manifest).ok(),
        "pod/p unchanged\n"
    );
    // Another range is none of a pod that is there.
    f.apply(&limit_range(
        "{type: Container, default: {cpu: 1}, max: {cpu: 1}, min: {cpu: 900m}}",
    ));
    for dry in ["--dry-run=none", "--dry-run=client", "--dry-run=server"] {
        let out = f.run_with_input(&["apply", dry, "-f", "-"], &manifest).ok();
        assert!(out.starts_with("pod/p unchanged"), "{out}");
    }
    assert_eq!(f.desired("pods", "p").await.unwrap(), text);
    // What may change of a pod changes, and what was given stays with it.
    let other = manifest.replace("image: host", "image: other");
    assert_eq!(
        f.run_with_input(&["apply", "-f", "-"], &other).ok(),
        "pod/p configured\n"
    );
    let text = f.desired("pods", "p").await.unwrap();
    assert!(
        text.contains("image: other") && text.contains("cpu: 100m"),
        "{text}"
    );
    // What was said and is not said any more is a change, as ever.
    let said = pod("q").replace(
        "command:",
        "resources: {requests: {cpu: 950m}}\n    command:",
    );
    f.apply(&said);
    let err = f.run_with_input(&["apply", "-f", "-"], &pod("q")).fails();
    assert!(err.contains("spec.containers[0].resources"), "{err}");
    // A Deployment's document stays as it is.
    f.apply(&deployment("web", 1));
    assert_eq!(
        f.desired("deployments", "web").await.unwrap(),
        deployment("web", 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_outside_the_limits_is_refused_with_all_that_is_wrong_and_what_helps() {
    let f = Fixture::new("outside").await;
    f.apply(&limit_range(
        "{type: Container, max: {cpu: 1}, min: {memory: 1Mi}, maxLimitRequestRatio: {memory: 2}}, \
         {type: PersistentVolumeClaim, max: {storage: 10Gi}}",
    ));
    let big = pod("big").replace("command:", "resources: {limits: {cpu: 2}}\n    command:");
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c}\nspec: {accessModes: [ReadWriteOnce], \
                 resources: {requests: {storage: 20Gi}}}\n";
    let both = format!("{big}---\n{claim}");
    for command in ["apply", "create"] {
        let err = f.run_with_input(&[command, "-f", "-"], &both).fails();
        for words in [
            "-:1: pod/big is forbidden in namespace \"default\": ",
            "spec.containers[0].resources.limits.cpu: 2 is more than 1",
            "by the LimitRange \"small\"",
            "persistentvolumeclaim/c is forbidden",
            "20Gi is more than 10Gi",
            "setpoint edit limitrange",
        ] {
            assert!(err.contains(words), "{words}: {err}");
        }
    }
    assert_eq!(f.desired("pods", "big").await, None);
    // A limit that is given to a pod that says more.
    f.apply(&limit_range("{type: Container, default: {cpu: 500m}}"));
    let more = pod("more").replace("command:", "resources: {requests: {cpu: 1}}\n    command:");
    let err = f.run_with_input(&["apply", "-f", "-"], &more).fails();
    assert!(err.contains("500m is less than the request, 1"), "{err}");
    // Applied together, both become true at one revision.
    let text = format!(
        "{}---\n{}",
        limit_range("{type: Container, max: {cpu: 3}}"),
        big
    );
    f.apply(&text);
    // One that nobody can read could say anything.
    let key = Key::Desired("limitranges", ObjectKey::namespaced("default", "small"));
    f.put(&key, "spec: [").await;
    let err = f.run_with_input(&["apply", "-f", "-"], &pod("p")).fails();
    assert!(
        err.contains("limitrange/small") && err.contains("mend or delete"),
        "{err}"
    );
    f.apply(&config_map("other-things", "1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn object_counts_hold_for_all_kinds_and_show_in_the_status() {
    let f = Fixture::new("counts").await;
    f.apply(&quota(
        "objects",
        "configmaps: 2, count/deployments.apps: 1, services.nodeports: 1, requests.storage: 5Gi, pods: 1",
    ));
    f.apply(&config_map("a", "1"));
    assert_eq!(used(&f, "objects", "configmaps"), "1/2");
    let two = format!("{}---\n{}", config_map("b", "1"), config_map("c", "1"));
    let err = f.run_with_input(&["apply", "-f", "-"], &two).fails();
    for words in [
        "exceeded quota: objects, requested: configmaps=2, used: configmaps=1, limited: configmaps=2",
        "setpoint edit resourcequota objects -n default",
    ] {
        assert!(err.contains(words), "{err}");
    }
    assert_eq!(f.desired("configmaps", "b").await, None);
    // Changes take nothing.
    f.apply(&config_map("a", "2"));
    f.apply(&config_map("b", "1"));
    let err = f
        .run_with_input(&["create", "-f", "-"], &config_map("c", "1"))
        .fails();
    assert!(err.contains("exceeded quota"), "{err}");
    f.run(&["delete", "cm", "a"]).ok();
    f.apply(&config_map("c", "1"));

    f.apply(&deployment("web", 1));
    let err = f
        .run_with_input(&["apply", "-f", "-"], &deployment("api", 1))
        .fails();
    assert!(err.contains("count/deployments.apps=1"), "{err}");
    let service = |ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{type: NodePort, ports: [{ports}]}}\n"
        )
    };
    f.apply(&service("{port: 1}"));
    let err = f
        .run_with_input(
            &["apply", "-f", "-"],
            &service("{name: a, port: 1}, {name: b, port: 2}"),
        )
        .fails();
    assert!(
        err.contains("requested: services.nodeports=1, used: services.nodeports=1"),
        "{err}"
    );
    let claim = |name: &str, size: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteOnce], \
             resources: {{requests: {{storage: {size}}}}}}}\n"
        )
    };
    f.apply(&claim("vol-a", "3Gi"));
    let err = f
        .run_with_input(&["apply", "-f", "-"], &claim("vol-b", "3Gi"))
        .fails();
    assert!(err.contains("requests.storage=3Gi"), "{err}");
    assert_eq!(used(&f, "objects", "requests.storage"), "3Gi/5Gi");

    // A pod that has ended is none of the pods; one with a scope of its own none of that scope's.
    f.apply(&pod("p"));
    let err = f.run_with_input(&["apply", "-f", "-"], &pod("q")).fails();
    assert!(err.contains("pods=1"), "{err}");
    let key = ObjectKey::namespaced("default", "p");
    let binding =
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n";
    f.put(&Key::Binding(key.clone()), binding).await;
    f.put(
        &Key::NodePod("n1", key),
        "placement: 1\nuid: ''\nstage: Succeeded\n",
    )
    .await;
    assert_eq!(used(&f, "objects", "pods"), "0/1");
    f.apply(&pod("q"));
    f.run(&["delete", "quota", "objects"]).ok();
    f.apply(&format!(
        "{}  scopes: [NotBestEffort]\n",
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: scoped}\nspec:\n  hard: {pods: 0}\n"
    ));
    f.apply(&pod("r"));
    let some = pod("s").replace("command:", "resources: {requests: {cpu: 1}}\n    command:");
    let err = f.run_with_input(&["apply", "-f", "-"], &some).fails();
    assert!(err.contains("exceeded quota: scoped"), "{err}");
    // Who creates what is counted leaves a mark for the controllers.
    assert!(
        f.get(&Key::Meta(&keyspace::admissions("default")))
            .await
            .is_some()
    );
    // One that nobody can read could say anything, of whatever is counted.
    let key = Key::Desired(
        "resourcequotas",
        ObjectKey::namespaced("default", "objects"),
    );
    f.put(&key, "spec: [").await;
    for text in [config_map("d", "1"), deployment("api", 1)] {
        let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
        assert!(
            err.contains("resourcequota/objects") && err.contains("mend or delete"),
            "{err}"
        );
    }
    f.apply(&config_map("b", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_kinds_that_nobody_here_knows_count_while_they_are_there() {
    let f = Fixture::new("counts-custom").await;
    f.apply(&quota("custom", "count/widgets.example.com: 2"));
    let used = || used(&f, "custom", "count/widgets.example.com");
    assert_eq!(used(), "0/2");
    let key = |name: &str| Key::Desired("widgets", ObjectKey::namespaced("default", name));
    for (name, expected) in [("a", "1/2"), ("b", "2/2")] {
        let text =
            format!("apiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: {name}}}\n");
        f.put(&key(name), &text).await;
        assert_eq!(used(), expected);
    }
    f.remove(&key("a")).await;
    assert_eq!(used(), "1/2");
}

fn start(f: &Fixture, args: &[&str], input: &str) -> Child {
    use std::io::Write as _;
    let mut command = f.command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("starting setpoint");
    let _ = child
        .stdin
        .take()
        .expect("its input")
        .write_all(input.as_bytes());
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_create_at_once_exceed_no_quota_together() {
    let f = Fixture::new("together").await;
    f.apply(&quota("few", "configmaps: 3, pods: 2"));
    let creators: Vec<Child> = (0..8)
        .map(|i| {
            let name = format!("x{i}");
            let text = format!("{}---\n{}", config_map(&name, "1"), pod(&name));
            start(&f, &["create", "-f", "-"], &text)
        })
        .collect();
    let mut created = 0;
    for creator in creators {
        let output = creator.wait_with_output().expect("its output");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => created += 1,
            _ => assert!(err.contains("exceeded quota: few"), "{err}"),
        }
    }
    assert_eq!(created, 2);
    let range = f.keyspace.desired_range("pods", Some("default"));
    assert_eq!(f.range(range).await.len(), created);
    assert_eq!(used(&f, "few", "configmaps"), format!("{created}/3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_apply_is_held_as_one_that_is_not() {
    let f = Fixture::new("split-quota").await;
    f.apply(&quota("many", "configmaps: 200"));
    let all: Vec<String> = (0..150)
        .map(|i| config_map(&format!("m{i}"), "1"))
        .collect();
    let text = all.join("---\n");
    let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
    assert!(err.contains("--split"), "{err}");
    f.run_with_input(&["apply", "--split", "-f", "-"], &text)
        .ok();
    assert_eq!(used(&f, "many", "configmaps"), "150/200");
    let err = f
        .run_with_input(
            &["apply", "--split", "-f", "-"],
            &text.replace("name: m", "name: n"),
        )
        .fails();
    assert!(
        err.contains("requested: configmaps=150, used: configmaps=150"),
        "{err}"
    );
    assert_eq!(used(&f, "many", "configmaps"), "150/200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_apply_writes_in_more_namespaces_than_etcd_takes_guards() {
    let f = Fixture::new("split-namespaces").await;
    let mut all = Vec::new();
    for i in 0..130 {
        let name = format!("n{i}");
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        f.put(&Key::Desired("namespaces", ObjectKey::cluster(name)), &text)
            .await;
        for map in ["a", "b"] {
            let place = format!("name: {map}\n  namespace: n{i}");
            all.push(config_map(map, "1").replace(&format!("name: {map}"), &place));
        }
    }
    // One that counts is held to in each transaction that writes there, and in no other.
    f.run_with_input(
        &["apply", "-n", "n7", "-f", "-"],
        &quota("few", "configmaps: 2"),
    )
    .ok();
    let text = all.join("---\n");
    let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
    assert!(
        err.contains("260 objects in 130 namespaces") && err.contains("--split"),
        "{err}"
    );
    f.run_with_input(&["apply", "--split", "-f", "-"], &text)
        .ok();
    let written = f.range(f.keyspace.desired_range("configmaps", None)).await;
    assert_eq!(written.len(), 260);
    // A few of them are one revision.
    let few = all[..80].join("---\n").replace("'1'", "'2'");
    f.run_with_input(&["apply", "-f", "-"], &few).ok();
    let more = config_map("c", "1");
    let err = f
        .run_with_input(&["apply", "--split", "-n", "n7", "-f", "-"], &more)
        .fails();
    assert!(
        err.contains("requested: configmaps=1, used: configmaps=2"),
        "{err}"
    );
}

/// A process of the program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The most pods of the namespace that there were at once, from one revision on and before another, which is of a pod.
async fn most_pods(f: &Fixture, from: Revision, end: Revision) -> usize {
    let range = f.keyspace.desired_range("pods", Some("default"));
    let request = WatchRequest {
        start: range.start,
        end: range.end,
        from: Some(from),
    };
    let mut stream = f.store.watch(request).await.expect("a watch");
    let (mut there, mut most) = (BTreeSet::new(), 0);
    loop {
        let batch = stream.next().await.expect("it goes on").expect("a batch");
        for event in batch.events {
            if event.kv.mod_revision >= end.0 {
                return most;
            }
            match event.kind {
                EventKind::Put => there.insert(event.kv.key),
                EventKind::Delete => there.remove(&event.kv.key),
            };
            most = most.max(there.len());
        }
    }
}

/// Whatever a controller has made goes at once, so it creates all the time. Who wants a pod besides gets its turn as long
/// as there is room, and together they exceed no quota.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_its_turn_where_a_controller_creates_all_the_time() {
    const OWN: usize = 12;
    let f = Fixture::new("contended").await;
    f.apply(&quota("few", "pods: 18"));
    let (_, from) = f.store.get("x").await.expect("a read");
    let mut controllers = f.command(&["controllers", "--only", "workloads"]);
    controllers.stdout(Stdio::null()).stderr(Stdio::null());
    let _controllers = Running(controllers.spawn().expect("starting the controllers"));
    f.apply(&deployment("web", 6));
    let range = f.keyspace.desired_range("pods", Some("default"));
    let deleted = Arc::new(AtomicUsize::new(0));
    let churn = tokio::spawn({
        let (store, deleted) = (f.store.clone(), deleted.clone());
        async move {
            loop {
                let request = RangeRequest {
                    start: range.start.clone(),
                    end: range.end.clone(),
                    keys_only: true,
                    ..RangeRequest::default()
                };
                let page = store.range(request).await.expect("the pods");
                let mut own = page.kvs.into_iter().filter(|kv| kv.key.contains("/web-"));
                match own.next() {
                    Some(kv) => {
                        let txn = Txn::new().delete(kv.key);
                        store.txn(txn).await.expect("a delete");
                        deleted.fetch_add(1, Ordering::Relaxed);
                    }
                    // The pace of looking.
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        }
    });
    let limit = Instant::now() + LONG;
    while deleted.load(Ordering::Relaxed) < 20 {
        assert!(Instant::now() < limit, "the controller creates nothing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let creators: Vec<Child> = (0..OWN)
        .map(|i| start(&f, &["create", "-f", "-"], &pod(&format!("own{i}"))))
        .collect();
    let before = deleted.load(Ordering::Relaxed);
    let outputs = tokio::task::spawn_blocking(move || {
        let wait = |c: Child| c.wait_with_output().expect("its output");
        creators.into_iter().map(wait).collect::<Vec<_>>()
    });
    for output in outputs.await.expect("all have ended") {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{err}");
    }
    assert!(
        deleted.load(Ordering::Relaxed) > before,
        "nothing was created meanwhile"
    );
    churn.abort();
    // What is missing comes back, and then there is no more room.
    let range = f.keyspace.desired_range("pods", Some("default"));
    while f.range(range.clone()).await.len() < 18 {
        assert!(Instant::now() < limit, "the controller does not go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let err = f
        .run_with_input(&["create", "-f", "-"], &pod("more"))
        .fails();
    assert!(err.contains("exceeded quota: few"), "{err}");
    let end = ObjectKey::namespaced("default", "end");
    let end = f.put(&Key::Desired("pods", end), &pod("end")).await;
    assert_eq!(most_pods(&f, from, end).await, 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_would_be_stored_and_refuses_what_would_be_refused() {
    let f = Fixture::new("doors-dry").await;
    f.apply(&limit_range(
        "{type: Container, defaultRequest: {cpu: 1500m}, max: {cpu: 2}}",
    ));
    f.apply(&quota("q", "pods: 1, count/configmaps: 1"));
    let dry = |mode: &str, more: &[&str], text: &str| {
        let args = [&["apply", mode, "-f", "-"], more].concat();
        f.run_with_input(&args, text)
    };
    let out = dry("--dry-run=server", &["-o", "yaml"], &pod("p")).ok();
    assert!(
        out.contains("cpu: 1500m") && out.contains("kubernetes.io/limit-ranger"),
        "{out}"
    );
    // There are no nodes, and the pod waits with what it was given.
    let out = dry("--dry-run=schedule", &["-o", "json"], &pod("p")).ok();
    let plan: serde_json::Value = serde_json::from_str(&out).expect("a plan");
    assert_eq!(plan["waiting"][0]["pod"], "default/p", "{plan}");

    let both = format!("{}---\n{}", pod("p"), pod("o"));
    let maps = format!("{}---\n{}", config_map("a", "1"), config_map("b", "1"));
    let greedy = pod("p").replace(
        "    image: host\n",
        "    image: host\n    resources: {limits: {cpu: 3}}\n",
    );
    for mode in ["--dry-run=server", "--dry-run=schedule"] {
        for (text, says) in [
            (&both, "exceeded quota: q"),
            (&maps, "exceeded quota: q"),
            (&greedy, "is forbidden in namespace"),
        ] {
            let err = dry(mode, &[], text).fails();
            assert!(err.contains(says), "{mode}: {err}");
        }
    }
    // The pods of a workload are made by its controller, and meet the same door.
    let out = dry("--dry-run=schedule", &["-o", "json"], &deployment("web", 3)).ok();
    let plan: serde_json::Value = serde_json::from_str(&out).expect("a plan");
    let note = plan["notes"][0].as_str().unwrap_or_default();
    assert!(
        note.starts_with("deployment default/web: 2 of its pods would not be created"),
        "{plan}"
    );
    assert_eq!(f.desired("pods", "p").await, None);
}
