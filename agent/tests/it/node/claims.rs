//! The directories of volume claims: kept for the pods that use them, given up for tombstones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use setpoint_apis::Kind;
use setpoint_apis::core::PersistentVolumeClaim;
use setpoint_apis::records::Tombstone;

use super::*;

/// A pod that writes a line into its volume each time that it is started.
const WRITES: &str = "containers: [{name: c, image: host, command: [sh, -c, 'echo run >> $SETPOINT_VOLUME_D/file; sleep 1000'], \
                      volumeMounts: [{name: d, mountPath: /setpoint-d}]}]\n  volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]";

fn content() -> Key<'static> {
    Key::WorkContent(NODE, PersistentVolumeClaim::PLURAL, pod_key("data"))
}

impl World {
    async fn give_claim(&self, uid: &str) {
        let header = WorkHeader {
            placement: None,
            uid: uid.into(),
            source_revision: 1,
        };
        let document = format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data, uid: {uid}}}\nspec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n"
        );
        self.put(&content(), document::encode_work(&header, &document))
            .await;
    }

    /// As the scheduler does: in one transaction the claim goes and its tombstone comes.
    async fn bury(&self, uid: &str) {
        let stone = Tombstone {
            namespace: "shop".into(),
            name: "data".into(),
            uid: uid.into(),
        };
        let key = self.key(&Key::WorkTombstone(NODE, uid));
        let txn = Txn::new()
            .put(key, document::encode(&stone))
            .delete(self.key(&content()));
        self.txn(txn).await;
    }

    fn claim_dir(&self, uid: &str) -> PathBuf {
        setpoint_agent::layout::DataDir::new(self.f.path("data")).claim(uid)
    }

    fn trash(&self) -> PathBuf {
        setpoint_agent::layout::DataDir::new(self.f.path("data")).trash()
    }

    /// The lines that pods have written into a claim's directory.
    fn lines(&self, uid: &str) -> usize {
        let text = fs::read_to_string(self.claim_dir(uid).join("file"));
        text.unwrap_or_default().lines().count()
    }

    async fn discarded(&self) -> BTreeMap<String, i64> {
        let status = self.get(&Key::NodeStatus(NODE)).await;
        let status =
            status.map(|kv| document::decode_value::<NodeStatusRecord>(&kv.value).unwrap());
        status.unwrap_or_default().discarded
    }

    /// Waits until the node says that it has obeyed the tombstone as it stands.
    async fn obeyed(&self, uid: &str) {
        let stone = self.get(&Key::WorkTombstone(NODE, uid)).await.unwrap();
        let begun = Instant::now();
        while self.discarded().await.get(uid) != Some(&stone.mod_revision) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{uid} is not given up: {:?}",
                self.discarded().await
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!self.claim_dir(uid).exists());
    }

    /// Waits until the agent has looked at all tombstones that are there.
    async fn looked(&self, probe: &str) {
        self.bury(probe).await;
        self.obeyed(probe).await;
    }

    async fn trash_is_empty(&self) {
        let trash = self.trash();
        eventually("the trash is deleted", || {
            fs::read_dir(&trash).is_ok_and(|mut entries| entries.next().is_none())
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_that_is_gone_keeps_its_directory_until_its_last_pod_is() {
    let w = World::new("claim-used").await;
    let first = w.agent();
    w.give_claim("u-1").await;
    w.give("a", 1, WRITES).await;
    w.ready("a").await;
    eventually("it writes", || w.lines("u-1") == 1).await;
    w.bury("u-1").await;
    w.looked("probe-1").await;
    assert_eq!(w.lines("u-1"), 1);

    // Another claim has the name by now. What runs keeps what it began with.
    w.give_claim("u-2").await;
    let pid = w.pid("a", 1);
    crate::support::kill(pid);
    eventually("it is started again", || w.lines("u-1") == 2).await;
    assert!(!w.claim_dir("u-2").exists());

    // The next agent learns of the pod from the machine.
    first.kill();
    let _second = w.agent();
    w.looked("probe-2").await;
    assert_eq!(w.lines("u-1"), 2);
    assert_eq!(w.discarded().await.get("u-1"), None);

    w.give_claim("u-2").await;
    w.take_back("a").await;
    w.gone("a").await;
    w.obeyed("u-1").await;
    w.trash_is_empty().await;
    w.give("b", 1, WRITES).await;
    w.ready("b").await;
    eventually("the next pod begins with nothing", || w.lines("u-2") == 1).await;
}

#[tokio::test]
async fn an_agent_that_was_away_gives_up_what_is_gone_and_goes_on_with_the_trash() {
    let w = World::new("claim-away").await;
    let first = w.agent();
    w.give_claim("u-1").await;
    w.give("a", 1, WRITES).await;
    w.ready("a").await;
    eventually("it writes", || w.lines("u-1") == 1).await;
    first.kill();
    w.bury("u-1").await;
    w.take_back("a").await;
    // Left over from a deletion that was cut short.
    let left = w.trash().join("u-0.0/deep/er");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("file"), "x").unwrap();
    assert_eq!(w.lines("u-1"), 1);
    let _second = w.agent();
    w.obeyed("u-1").await;
    w.trash_is_empty().await;
    assert!(w.actual("a").await.is_none(), "first the record goes");
}

#[tokio::test]
async fn a_directory_that_cannot_be_given_up_is_told_of_and_tried_again() {
    let w = World::new("claim-stuck").await;
    let dir = w.claim_dir("u-1");
    fs::create_dir_all(&dir).unwrap();
    // No directory can be made there.
    fs::write(w.trash(), "in the way").unwrap();
    let _agent = w.agent();
    w.bury("u-1").await;
    let range = w.keyspace.node_events(Some(NODE)).start;
    let begun = Instant::now();
    let event = loop {
        let events = setpoint_store::testing::dump(&*w.store, &range).await;
        let told = events
            .into_iter()
            .find(|(_, e)| e.contains("VolumeNotRemoved"));
        if let Some((_, event)) = told {
            break event;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for words in ["shop/data", "u-1", "see to the disk", "tried again"] {
        assert!(event.contains(words), "{words}: {event}");
    }
    assert!(dir.exists());
    fs::remove_file(w.trash()).unwrap();
    w.obeyed("u-1").await;
}

#[tokio::test]
async fn a_tombstone_that_is_broken_or_of_another_claim_removes_nothing() {
    let w = World::new("claim-broken").await;
    let _agent = w.agent();
    let dirs = ["u-1", "u-2"].map(|uid| w.claim_dir(uid));
    for dir in &dirs {
        fs::create_dir_all(dir).unwrap();
    }
    w.put(&Key::WorkTombstone(NODE, "u-1"), "uid: [").await;
    w.put(
        &Key::WorkTombstone(NODE, "u-1x"),
        "{namespace: shop, name: data, uid: u-2}",
    )
    .await;
    w.looked("probe").await;
    assert!(dirs.iter().all(|dir| dir.exists()));
    assert_eq!(
        w.discarded().await.into_keys().collect::<Vec<_>>(),
        ["probe"]
    );
}
