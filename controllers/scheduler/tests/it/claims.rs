//! Volume claims: the first pod places them, and all others go there.

use std::collections::BTreeSet;
use std::time::Duration;

use setpoint_apis::core::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use setpoint_apis::records::{NodeStatusRecord, PodStage, Tombstone};
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_scheduler::Options;

use crate::rig::{Agent, Rig, pod_key, pod_with};

const USES: &str = "  volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]\n";

const CLAIM: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: default}\n\
                     spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";

fn desired() -> Key<'static> {
    Key::Desired(PersistentVolumeClaim::PLURAL, pod_key("data"))
}

fn actual() -> Key<'static> {
    Key::Actual(PersistentVolumeClaim::PLURAL, pod_key("data"))
}

async fn status(rig: &Rig) -> PersistentVolumeClaimStatus {
    let found = rig.get(&actual()).await.expect("a status");
    document::decode_value(&found.value).expect("that can be read")
}

#[tokio::test]
async fn all_pods_of_a_claim_run_where_the_first_was_placed() {
    let (rig, _s, _agents) = Rig::with_nodes("claims", &[4, 4, 4]).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        rig.apply(name, pod_with(name, USES)).await;
        rig.until_record(name, "persistentvolumeclaim \"data\" not found")
            .await;
    }
    // All of them are decided on together, on three nodes of equal worth.
    rig.put(&desired(), CLAIM).await;
    let mut nodes = BTreeSet::new();
    for name in names {
        nodes.insert(rig.until_bound(name).await.value.node.clone());
    }
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    let status = status(&rig).await;
    assert_eq!(status.phase.as_deref(), Some("Bound"));
    assert_eq!(status.node.as_ref(), nodes.first());
    assert_eq!(status.capacity["storage"].value(), 1 << 30);
    let node = status.node.expect("a node");
    let content = Key::WorkContent(&node, PersistentVolumeClaim::PLURAL, pod_key("data"));
    let told = rig
        .until_key("the node is told which claim it is", &content, |v| {
            let (_, claim) =
                document::decode_work::<PersistentVolumeClaim>(v?.as_bytes()).expect("a claim");
            claim.metadata.uid
        })
        .await;
    assert_eq!(Some(told), status.uid);
}

#[tokio::test]
async fn a_pod_waits_for_the_node_of_its_claim_and_says_so() {
    let (rig, _s, agents) = Rig::with_nodes("claims-wait", &[4]).await;
    rig.put(&desired(), CLAIM).await;
    rig.apply("a", pod_with("a", USES)).await;
    assert_eq!(rig.until_bound("a").await.value.node, "n1");
    rig.delete_pod("a").await;
    rig.until_unbound("a").await;
    let _other = rig.node("n2", 4).await;
    agents[0].lose().await;
    rig.apply("b", pod_with("b", USES)).await;
    let record = rig
        .until_record("b", "volume claim data is on node n1")
        .await;
    assert!(
        record.conditions[0]
            .message
            .as_deref()
            .is_some_and(|m| m.starts_with("0/2 nodes are available")),
        "{record:?}"
    );
    // Another claim of the same name is placed anew, though the status of the former one is still there.
    let former = status(&rig).await.uid;
    rig.delete(&desired()).await;
    rig.until_record("b", "not found").await;
    rig.put(&desired(), CLAIM).await;
    assert_eq!(rig.until_bound("b").await.value.node, "n2");
    let now = status(&rig).await;
    assert_eq!(now.node.as_deref(), Some("n2"));
    assert_ne!(now.uid, former);
}

#[tokio::test]
async fn a_claim_whose_place_cannot_be_read_is_not_placed_again() {
    let (rig, _s, _agents) = Rig::with_nodes("claims-broken", &[4]).await;
    rig.put(&desired(), CLAIM).await;
    rig.put(&actual(), "phase: [no").await;
    rig.apply("a", pod_with("a", USES)).await;
    rig.until_record(
        "a",
        "where persistentvolumeclaim \"data\" is cannot be read",
    )
    .await;
    rig.delete(&actual()).await;
    rig.until_bound("a").await;
}

fn content(node: &str) -> Key<'_> {
    Key::WorkContent(node, PersistentVolumeClaim::PLURAL, pod_key("data"))
}

/// Waits for the tombstone of a claim on a node.
async fn until_buried(rig: &Rig, node: &str, uid: &str) -> i64 {
    let key = Key::WorkTombstone(node, uid);
    let stone = rig
        .until_key("there is a tombstone", &key, |v| {
            document::decode_value::<Tombstone>(v?.as_bytes()).ok()
        })
        .await;
    let expected = Tombstone {
        namespace: "default".into(),
        name: "data".into(),
        uid: uid.into(),
    };
    assert_eq!(stone, expected);
    rig.get(&key).await.expect("it stands").mod_revision
}

impl Agent {
    /// Says in the node's status which tombstones it has obeyed.
    async fn obeys(&self, rig: &Rig, discarded: &[(&str, i64)]) {
        let kv = rig
            .get(&Key::NodeStatus(&self.node))
            .await
            .expect("a status");
        let mut status: NodeStatusRecord =
            document::decode_value(&kv.value).expect("that can be read");
        status.discarded = discarded
            .iter()
            .map(|(name, at)| ((*name).to_owned(), *at))
            .collect();
        rig.put(&Key::NodeStatus(&self.node), document::encode(&status))
            .await;
    }
}

/// A claim that is placed on n1 by a pod, which runs there.
async fn placed(rig: &Rig, agent: &Agent) -> String {
    rig.put(&desired(), CLAIM).await;
    rig.apply("a", pod_with("a", USES)).await;
    rig.until_bound("a").await;
    agent.run(rig, "a").await;
    agent.report("a", PodStage::Running).await;
    let uid = status(rig).await.uid.expect("a uid");
    rig.until_key("the node has the claim", &content("n1"), |v| v.map(|_| ()))
        .await;
    uid
}

#[tokio::test]
async fn a_claim_that_is_gone_becomes_a_tombstone_which_goes_when_the_node_has_obeyed() {
    let (rig, _s, agents) = Rig::with_nodes("claims-gone", &[4]).await;
    let uid = placed(&rig, &agents[0]).await;
    rig.delete(&desired()).await;
    let at = until_buried(&rig, "n1", &uid).await;
    assert!(rig.get(&actual()).await.is_none());
    assert!(rig.get(&content("n1")).await.is_none());
    // What it says of an earlier one does not count, nor what it says of another.
    agents[0]
        .obeys(&rig, &[(&uid, at - 1), ("other", at)])
        .await;
    rig.settle("probe").await;
    assert!(rig.get(&Key::WorkTombstone("n1", &uid)).await.is_some());
    agents[0].obeys(&rig, &[(&uid, at)]).await;
    rig.until_gone(&Key::WorkTombstone("n1", &uid)).await;
}

#[tokio::test]
async fn a_claim_that_is_made_again_while_its_pod_runs_is_placed_by_the_next_pod() {
    let (rig, _s, agents) = Rig::with_nodes("claims-again", &[4]).await;
    let former = placed(&rig, &agents[0]).await;
    let _other = rig.node("n2", 4).await;
    rig.delete(&desired()).await;
    rig.put(&desired(), CLAIM).await;
    until_buried(&rig, "n1", &former).await;
    rig.settle("probe").await;
    // The pod that runs has the former one.
    assert!(rig.get(&actual()).await.is_none());
    assert!(rig.get(&content("n1")).await.is_none());
    let elsewhere = format!("{USES}  nodeSelector: {{kubernetes.io/hostname: n2}}\n");
    rig.apply_as(
        "nodes",
        "n2",
        "apiVersion: v1\nkind: Node\nmetadata: {name: n2, labels: {kubernetes.io/hostname: n2}}\n",
    )
    .await;
    rig.apply("b", pod_with("b", &elsewhere)).await;
    assert_eq!(rig.until_bound("b").await.value.node, "n2");
    let now = status(&rig).await;
    assert_eq!(now.node.as_deref(), Some("n2"));
    assert_ne!(now.uid.as_ref(), Some(&former));
    rig.until_key("the node of the new one has it", &content("n2"), |v| {
        v.map(|_| ())
    })
    .await;
    assert!(
        rig.get(&content("n1")).await.is_none(),
        "the other node is not told of it"
    );
}

#[tokio::test]
async fn a_pod_that_is_bound_and_waits_for_its_claim_gets_the_next_one() {
    let (rig, _s, agents) = Rig::with_nodes("claims-wait-bound", &[4]).await;
    rig.put(&desired(), CLAIM).await;
    rig.apply("a", pod_with("a", USES)).await;
    rig.until_bound("a").await;
    agents[0].run(&rig, "a").await;
    let former = status(&rig).await.uid.expect("a uid");
    let _other = rig.node("n2", 8).await;
    rig.delete(&desired()).await;
    until_buried(&rig, "n1", &former).await;
    rig.put(&desired(), CLAIM).await;
    let uid = rig
        .until_key("the node is told of the next one", &content("n1"), |v| {
            let (_, claim) =
                document::decode_work::<PersistentVolumeClaim>(v?.as_bytes()).expect("a claim");
            claim.metadata.uid
        })
        .await;
    assert_ne!(uid, former);
    let now = status(&rig).await;
    assert_eq!((now.node.as_deref(), now.uid), (Some("n1"), Some(uid)));
}

#[tokio::test]
async fn whoever_leads_next_finds_the_claims_that_went_meanwhile_and_the_tombstones_that_stand() {
    let (rig, scheduler, agents) = Rig::with_nodes("claims-crash", &[4]).await;
    let uid = placed(&rig, &agents[0]).await;
    scheduler.stop().await;
    rig.delete(&desired()).await;
    // Of a claim of another name, whose tombstone was obeyed while nobody led.
    let stone = Tombstone {
        uid: "u-9".into(),
        ..Tombstone::default()
    };
    let at = rig
        .put(&Key::WorkTombstone("n1", "u-9"), document::encode(&stone))
        .await;
    agents[0].obeys(&rig, &[("u-9", at.0)]).await;
    let _scheduler = rig.scheduler();
    until_buried(&rig, "n1", &uid).await;
    rig.until_gone(&Key::WorkTombstone("n1", "u-9")).await;
}

#[tokio::test]
async fn a_node_that_is_removed_for_good_leaves_no_record() {
    let (rig, _s, agents) = Rig::with_nodes("claims-removed", &[4]).await;
    let uid = placed(&rig, &agents[0]).await;
    rig.delete(&desired()).await;
    until_buried(&rig, "n1", &uid).await;
    agents[0].lose().await;
    assert!(
        rig.get(&Key::WorkTombstone("n1", &uid)).await.is_some(),
        "it may come back"
    );
    for key in [
        Key::Desired("nodes", ObjectKey::cluster("n1")),
        Key::NodeStatus("n1"),
        Key::Health("n1"),
    ] {
        rig.delete(&key).await;
    }
    rig.until_gone(&Key::WorkTombstone("n1", &uid)).await;

    // And a claim that goes when its node has gone.
    let status = format!("phase: Bound\nnode: n1\nuid: {uid}\n");
    rig.put(&actual(), status).await;
    rig.until_gone(&actual()).await;
    assert!(rig.get(&Key::WorkTombstone("n1", &uid)).await.is_none());
}

#[tokio::test]
async fn a_restored_claim_of_the_same_uid_waits_until_the_former_directory_is_given_up() {
    let (rig, _s, agents) = Rig::with_nodes("claims-restored", &[4]).await;
    let with_uid = CLAIM.replace("name: data,", "name: data, uid: u-1,");
    rig.put(&desired(), with_uid.as_str()).await;
    rig.apply("a", pod_with("a", USES)).await;
    rig.until_bound("a").await;
    rig.delete_pod("a").await;
    rig.until_unbound("a").await;
    rig.delete(&desired()).await;
    let at = until_buried(&rig, "n1", "u-1").await;
    rig.put(&desired(), with_uid).await;
    rig.apply("b", pod_with("b", USES)).await;
    rig.settle("probe").await;
    let bound = rig.cache.view().bindings().contains(&pod_key("b"));
    assert!(!bound, "it waits for the node");
    agents[0].obeys(&rig, &[("u-1", at)]).await;
    rig.until_bound("b").await;
    assert!(rig.get(&Key::WorkTombstone("n1", "u-1")).await.is_none());
    assert_eq!(status(&rig).await.node.as_deref(), Some("n1"));
}

#[tokio::test]
async fn a_claim_that_does_not_parse_keeps_its_place() {
    let (rig, _s, agents) = Rig::with_nodes("claims-frozen", &[4]).await;
    let uid = placed(&rig, &agents[0]).await;
    rig.put(&desired(), "kind: [no").await;
    rig.settle("probe").await;
    assert_eq!(status(&rig).await.uid.as_ref(), Some(&uid));
    assert!(rig.get(&Key::WorkTombstone("n1", &uid)).await.is_none());
    rig.put(&desired(), CLAIM).await;
    rig.settle("probe").await;
    assert_eq!(
        status(&rig).await.uid.as_ref(),
        Some(&uid),
        "the key was never gone"
    );
}

#[tokio::test]
async fn a_full_pass_finds_a_tombstone_that_nobody_noticed() {
    let (rig, scheduler, agents) = Rig::with_nodes("claims-audit", &[4]).await;
    scheduler.stop().await;
    let options = Options {
        full_pass: Duration::from_millis(50),
        ..Options::new(1)
    };
    let _scheduler = rig.scheduler_with(options);
    let uid = placed(&rig, &agents[0]).await;
    rig.delete(&desired()).await;
    until_buried(&rig, "n1", &uid).await;
    let foreign = Tombstone {
        uid: "u-7".into(),
        ..Tombstone::default()
    };
    // Put by somebody else: it is found, and goes with the node's word.
    let at = rig
        .put(&Key::WorkTombstone("n1", "u-7"), document::encode(&foreign))
        .await;
    agents[0].obeys(&rig, &[("u-7", at.0)]).await;
    rig.until_gone(&Key::WorkTombstone("n1", "u-7")).await;
    assert!(rig.get(&Key::WorkTombstone("n1", &uid)).await.is_some());
}
