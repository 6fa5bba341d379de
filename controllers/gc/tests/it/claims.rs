//! The claims of a StatefulSet that is deleted: they go with it as its policy says, also those that it has taken on.

use setpoint_apis::apps::StatefulSet;
use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, Pod};
use setpoint_apis::meta::OwnerReference;
use setpoint_apis::{Kind, ObjectMeta, document};

use crate::rig::Rig;
use crate::{both, delete_with, key, put, swept};

fn claims(rig: &Rig) -> Vec<String> {
    let view = rig.cache.view();
    let all = view.desired::<PersistentVolumeClaim>().entries();
    all.map(|(key, _)| key.name.to_string()).collect()
}

/// Waits until the two pods and their claims are those of the set that is there, and of nothing else.
async fn owned(rig: &Rig) {
    rig.until("pods and claims are the set's", |view| {
        let uid = view.desired::<StatefulSet>().get(&key("db"))?.uid();
        let own = |meta: &ObjectMeta| {
            let all = &meta.owner_references;
            all.len() == 1 && all[0].uid == uid
        };
        let (claims, pods) = (
            view.desired::<PersistentVolumeClaim>(),
            view.desired::<Pod>(),
        );
        let there = claims.len() == 2 && pods.len() == 2;
        let owned = claims.iter().all(|(_, c)| own(&c.value.metadata))
            && pods.iter().all(|(_, p)| own(&p.value.metadata));
        (there && owned).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_claims_of_a_set_go_with_the_next_one_of_its_name_unless_they_have_another_owner() {
    let (rig, _processes) = both("claims").await;
    let _agents = rig.agents();
    let set = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  replicas: 2\n  serviceName: s\n  \
               selector: {matchLabels: {a: b}}\n  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}\n  \
               template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: host}]}}\n  \
               volumeClaimTemplates:\n  - metadata: {name: data}\n    \
               spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    for left_behind in [true, true, false] {
        rig.put_desired::<StatefulSet>(&key("db"), set).await;
        // The second and the third set take on what the one before has left behind.
        owned(&rig).await;
        if left_behind {
            delete_with::<StatefulSet>(&rig, "db", "Orphan", true).await;
            rig.until("the record is gone", |view| {
                view.deletions(StatefulSet::PLURAL).is_none().then_some(())
            })
            .await;
            swept(&rig).await;
            rig.settled().await;
            assert_eq!(claims(&rig), ["data-db-0", "data-db-1"]);
            assert_eq!(rig.pods().len(), 2);
        }
    }
    let other = put::<ConfigMap>(&rig, "other", &[]).await;
    let other = OwnerReference {
        api_version: ConfigMap::API_VERSION.into(),
        kind: ConfigMap::KIND.into(),
        name: "other".into(),
        uid: other,
        controller: Some(true),
        block_owner_deletion: None,
    };
    let mut claim = {
        let view = rig.cache.view();
        let all = view.desired::<PersistentVolumeClaim>();
        all.get(&key("data-db-1")).unwrap().value.clone()
    };
    claim.metadata.owner_references.push(other);
    rig.put_desired::<PersistentVolumeClaim>(&key("data-db-1"), &document::encode(&claim))
        .await;
    delete_with::<StatefulSet>(&rig, "db", "Background", true).await;
    rig.until("pods and claims are gone", |view| {
        let claims = view.desired::<PersistentVolumeClaim>();
        (view.desired::<Pod>().is_empty() && claims.len() == 1).then_some(())
    })
    .await;
    swept(&rig).await;
    rig.settled().await;
    assert_eq!(claims(&rig), ["data-db-1"]);
    let owners = {
        let view = rig.cache.view();
        let all = view.desired::<PersistentVolumeClaim>();
        let claim = all.get(&key("data-db-1")).unwrap();
        claim.value.metadata.owner_references.clone()
    };
    assert!(owners.iter().any(|o| o.kind == "ConfigMap"), "{owners:?}");
}
