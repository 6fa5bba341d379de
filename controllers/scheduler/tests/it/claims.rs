//! Volume claims: the first pod places them, and all others go there.

use std::collections::BTreeSet;

use setpoint_apis::core::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use setpoint_apis::{Key, Kind, document};

use crate::rig::{Rig, pod_key, pod_with};

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
