//! What nobody meant to write: each gets a condition that says so, and everything else goes on as if it were not there.
//! All of it is put past the door, as `etcdctl put` does.

use setpoint_apis::core::{Node, Pod};
use setpoint_apis::{Key, Kind, ObjectKey};

use crate::rig::{Rig, pod, pod_key, pod_with};

fn labelled(name: &str, labels: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: {{}}}}"
    )
}

#[tokio::test]
async fn what_can_never_hold_is_said_and_disturbs_nobody() {
    let (rig, _s, _agents) = Rig::with_nodes("absurd", &[4, 4]).await;
    rig.apply_as("nodes", "n1", &labelled("n1", "disk: ssd"))
        .await;
    let spread = |key: &str| {
        format!(
            "  topologySpreadConstraints: [{{maxSkew: 1, topologyKey: {key}, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: x}}}}}}]\n"
        )
    };
    let affinity = |kind: &str| {
        format!(
            "  affinity: {{{kind}: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: nowhere, labelSelector: {{matchLabels: {{app: x}}}}}}]}}}}\n"
        )
    };
    let contradiction = "  nodeSelector: {disk: ssd}\n  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: DoesNotExist}]}]}}}\n";
    let cases = [
        (
            "contradiction",
            pod_with("contradiction", contradiction),
            "2 node(s) didn't match",
        ),
        (
            "no-domain",
            pod_with("no-domain", &spread("nowhere")),
            "missing required label",
        ),
        (
            "near-nowhere",
            pod_with("near-nowhere", &affinity("podAffinity")),
            "pod affinity rules",
        ),
        (
            "no-node",
            pod_with("no-node", "  nodeName: n99\n"),
            "requested node name",
        ),
        (
            "endless",
            pod("endless").replace("cpu: 100m", "cpu: 5P"),
            "2 Insufficient cpu",
        ),
        (
            "without-group",
            pod("without-group").replace("{app: x}", "{app: x, setpoint.dev/pod-group: nowhere}"),
            "there is no PodGroup of this name",
        ),
        (
            "no-class",
            pod_with("no-class", "  priorityClassName: nowhere\n"),
            "nowhere",
        ),
    ];
    for (name, document, _) in &cases {
        rig.apply(name, document.clone()).await;
    }
    // Nothing to be apart from, anywhere: it goes where it likes.
    rig.apply("apart", pod_with("apart", &affinity("podAntiAffinity")))
        .await;
    rig.until_bound("apart").await;
    for (name, _, says) in &cases {
        let record = rig.until_record(name, says).await;
        assert_eq!(record.conditions[0].status, "False", "{name}");
    }
    rig.apply("fine", pod("fine")).await;
    rig.until_bound("fine").await;
}

#[tokio::test]
async fn amounts_below_nothing_take_nothing_and_give_nothing() {
    let (rig, _s, _agents) = Rig::with_nodes("negative", &[1]).await;
    rig.apply("less", pod("less").replace("cpu: 100m", "cpu: '-8'"))
        .await;
    rig.apply("whole", pod("whole").replace("cpu: 100m", "cpu: 1"))
        .await;
    rig.until_bound("whole").await;
    // It has made no room for more than there is.
    rig.apply("more", pod("more").replace("cpu: 100m", "cpu: 1"))
        .await;
    rig.until_record("more", "Insufficient cpu").await;
    // It is no valid document: it is placed nowhere, and told what is wrong with it.
    let record = rig.until_record("less", "negative").await;
    assert_eq!(record.conditions[0].reason.as_deref(), Some("Invalid"));
    assert!(!rig.cache.view().bindings().contains(&pod_key("less")));
}

#[tokio::test]
async fn a_document_that_does_not_parse_is_told_so_once_until_it_is_mended_or_gone() {
    let rig = Rig::start("unreadable").await;
    let _agent = rig.node("n1", 2).await;
    let first = rig.telling_scheduler();
    let key = Key::Actual(Pod::PLURAL, pod_key("torn"));
    rig.apply("torn", "{apiVersion: v1, kind: Pod, metadata: [")
        .await;
    let record = rig.until_record("torn", "does not parse").await;
    let condition = &record.conditions[0];
    assert_eq!(
        (
            &*condition.type_,
            &*condition.status,
            condition.reason.as_deref()
        ),
        ("PodScheduled", "False", Some("Invalid"))
    );
    rig.until_event(&["torn", "Invalid", "does not parse"])
        .await;
    // Others are placed meanwhile, and it is left alone: nothing is written a second time.
    let written = rig.get(&key).await.expect("the record").mod_revision;
    rig.settle("probe-1").await;
    // Nor by another scheduler that finds it.
    first.stop().await;
    let second = rig.telling_scheduler();
    rig.settle("probe-2").await;
    assert_eq!(
        rig.get(&key).await.expect("the record").mod_revision,
        written
    );
    let events = rig.events(&["torn", "Invalid"]).await;
    assert_eq!(events.len(), 1, "{events:?}");
    // What is wrong with it now is what is told.
    rig.apply("torn", pod("torn").replace("cpu: 100m", "cpu: '-8'"))
        .await;
    rig.until_record("torn", "negative").await;
    // Mended, it waits for what it lacks like any other, or is placed.
    rig.apply("torn", pod("torn").replace("cpu: 100m", "cpu: 64"))
        .await;
    rig.until_record("torn", "Insufficient cpu").await;
    rig.apply("torn", "{").await;
    rig.until_record("torn", "does not parse").await;
    rig.apply("torn", pod("torn")).await;
    rig.until_bound("torn").await;
    rig.until_gone(&key).await;
    // Bound it stays where it is whatever becomes of its document.
    rig.apply("torn", "{").await;
    rig.settle("probe-3").await;
    assert!(rig.get(&key).await.is_none());
    assert!(rig.cache.view().bindings().contains(&pod_key("torn")));
    // Nobody is left to be told when it is gone.
    rig.apply("lost", "{").await;
    rig.until_record("lost", "does not parse").await;
    rig.delete_pod("lost").await;
    rig.until_gone(&Key::Actual(Pod::PLURAL, pod_key("lost")))
        .await;
    second.stop().await;
}

#[tokio::test]
async fn a_group_that_wants_more_members_than_there_are_waits_alone() {
    let (rig, _s, _agents) = Rig::with_nodes("short_group", &[4]).await;
    let group = "{apiVersion: setpoint.dev/v1, kind: PodGroup, metadata: {name: many, namespace: default}, spec: {minMember: 5}}";
    rig.apply_as("podgroups", "many", group).await;
    rig.apply(
        "one",
        pod("one").replace("{app: x}", "{app: x, setpoint.dev/pod-group: many}"),
    )
    .await;
    rig.until_record("one", "1 of 5 members exist").await;
    rig.apply("fine", pod("fine")).await;
    rig.until_bound("fine").await;
}

#[tokio::test]
async fn as_many_labels_as_a_document_holds_are_borne_by_their_node_alone() {
    let (rig, _s, _agents) = Rig::with_nodes("labels", &[4, 4]).await;
    // A request to etcd is at most 1.5 MiB, so that a million do not get this far.
    let labels: Vec<String> = (0..90_000).map(|i| format!("l{i}: v{i}")).collect();
    let many = labelled("n2", &labels.join(", "));
    assert!(
        (1_200_000..1_500_000).contains(&many.len()),
        "{}",
        many.len()
    );
    rig.apply_as("nodes", "n2", &many).await;
    rig.until("the labels are seen", |v| {
        let node = v.desired::<Node>().get(&ObjectKey::cluster("n2"))?;
        (node.value.metadata.labels.len() >= 90_000).then_some(())
    })
    .await;
    rig.apply(
        "last",
        pod_with("last", "  nodeSelector: {l89999: v89999}\n"),
    )
    .await;
    assert_eq!(rig.until_bound("last").await.value.node, "n2");
    rig.apply("none", pod_with("none", "  nodeSelector: {l89999: v0}\n"))
        .await;
    rig.until_record("none", "2 node(s) didn't match").await;
    let work = rig.get(&Key::WorkPod("n2", pod_key("last"))).await;
    let size = work.expect("its work copy").value.len();
    assert!(size < 10_000, "nobody is given the labels: {size} bytes");
}
