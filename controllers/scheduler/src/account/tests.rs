//! Turns by hand: what is planned in one, and what in the next.

use setpoint_apis::core::{Node, Pod};
use setpoint_apis::records::{Binding, Intent, PodActual, PodStage};
use setpoint_apis::{Key, Kind, document};
use setpoint_runtime::watcher::WatcherEvent;
use setpoint_runtime::{Cache, CacheBuilder, Changes, StateKey};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{KeyValue, Revision, SharedStore, Txn};

use super::*;
use crate::listing;

struct Rig {
    /// It ends with whoever is the last to use it.
    _etcd: Arc<TestEtcd>,
    store: SharedStore,
    keyspace: Keyspace,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

impl Rig {
    /// Nodes n1 and n2.
    async fn start(name: &str) -> Self {
        let etcd = TestEtcd::shared().await;
        let keyspace = Keyspace::new(&etcd.prefix(name)).expect("a good prefix");
        let store = etcd.store().await;
        let rig = Self {
            _etcd: etcd,
            store,
            keyspace,
        };
        for node in ["n1", "n2"] {
            rig.join(node).await;
        }
        rig
    }

    async fn join(&self, node: &str) {
        let status = "allocatable: {cpu: '8', memory: 8Gi, pods: '1000'}\ncapacity: {cpu: '8'}\ndrivers: [process]\n";
        let alive =
            "hostname: h\npid: 1\ninstance: a\nsince: 2026-11-23T15:25:03Z\nleaseTtlSeconds: 6\n";
        let desired = Key::Desired(Node::PLURAL, ObjectKey::cluster(node));
        self.put(&[
            (Key::NodeStatus(node), status.into()),
            (desired, document::encode(&Node::named(node))),
            (Key::NodeAlive(node), alive.into()),
        ])
        .await;
    }

    async fn put(&self, pairs: &[(Key<'_>, String)]) -> i64 {
        let txn = pairs.iter().fold(Txn::new(), |txn, (key, value)| {
            txn.put(self.keyspace.build(key), value.clone())
        });
        self.store.txn(txn).await.expect("a put").revision.0
    }

    /// A pod that runs on n1.
    async fn run(&self, name: &str) -> i64 {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  containers:\n  - {{name: c, image: host, command: [sleep, '60'], resources: {{requests: {{cpu: 100m}}}}}}\n"
        );
        let pod_revision = self
            .put(&[(Key::Desired(Pod::PLURAL, key(name)), pod)])
            .await;
        let binding = Binding {
            node: "n1".into(),
            placement: 1,
            pod_revision,
            bound_at: Timestamp::EPOCH,
            ..Binding::default()
        };
        let actual = PodActual {
            placement: 1,
            stage: PodStage::Running,
            ..PodActual::default()
        };
        self.put(&[
            (Key::Binding(key(name)), document::encode(&binding)),
            (Key::WorkPod("n1", key(name)), String::new()),
            (Key::NodePod("n1", key(name)), document::encode(&actual)),
        ])
        .await
    }

    /// What a leader knows when all of these are to be moved, before its first turn.
    async fn asked_to_move(&self, pods: &[String]) -> (Account, Cache) {
        self.asked(pods, &Intent::default(), 1).await
    }

    /// The same, with what is asked, and the revision at which it was.
    async fn asked(&self, pods: &[String], intent: &Intent, at: i64) -> (Account, Cache) {
        let (cache, driver) =
            crate::register(CacheBuilder::new()).build(self.store.clone(), self.keyspace.clone());
        tokio::spawn(driver.run());
        cache.ready().await;
        let listing = listing::list(&self.store, &self.keyspace).await;
        let mut account = Account::new(listing.expect("a listing"), 1);
        let all = Changes {
            resync: true,
            keys: Vec::new(),
        };
        account.changed(&all, &cache.view());
        let request = |pod: &String| {
            let key = Key::Intent {
                verb: "move",
                pod: key(pod),
                by: "test",
            };
            KeyValue {
                key: self.keyspace.build(&key),
                value: document::encode(intent).into(),
                create_revision: at,
                mod_revision: at,
                version: 1,
                lease: None,
            }
        };
        let page = pods.iter().map(request).collect();
        for event in [
            WatcherEvent::Init,
            WatcherEvent::InitPage(page),
            WatcherEvent::InitDone(Revision(1)),
        ] {
            account.requested(event, &self.keyspace);
        }
        (account, cache)
    }

    /// How many moves are planned in each of these turns.
    fn moves(&self, account: &mut Account, cache: &Cache, turns: usize) -> Vec<usize> {
        let view = cache.view();
        let turn = Turn {
            view: &view,
            keyspace: &self.keyspace,
            now: Timestamp::EPOCH,
            tick: Instant::now(),
        };
        let mut moves = |_| {
            let planned = account.turn(&turn);
            let moves = planned
                .iter()
                .filter(|p| p.write.context.starts_with("move of"));
            moves.count()
        };
        (0..turns).map(&mut moves).collect()
    }
}

#[tokio::test]
async fn many_moves_are_begun_over_several_turns_and_none_is_forgotten() {
    let rig = Rig::start("account_moves").await;
    let pods: Vec<_> = (0..2 * MOVES + 5).map(|i| format!("a{i}")).collect();
    for pod in &pods {
        rig.run(pod).await;
    }
    let (mut account, cache) = rig.asked_to_move(&pods).await;
    assert_eq!(
        rig.moves(&mut account, &cache, 1),
        [MOVES],
        "others do not wait for it"
    );
    assert!(account.has_more());
    assert_eq!(rig.moves(&mut account, &cache, 3), [MOVES, 5, 0]);
}

#[tokio::test]
async fn nothing_is_moved_before_it_is_known_where_room_is_reserved() {
    let rig = Rig::start("account_reserved").await;
    rig.run("a").await;
    let reservation = "{apiVersion: setpoint.dev/v1, kind: Reservation, metadata: {name: r, namespace: default}, spec: {owners: {selector: {matchLabels: {app: train}}}, resources: {cpu: '1'}}}";
    rig.put(&[(
        Key::Desired("reservations", key("r")),
        reservation.to_owned(),
    )])
    .await;
    let (mut account, cache) = rig.asked_to_move(&["a".into()]).await;
    assert_eq!(rig.moves(&mut account, &cache, 2), [0, 1]);
}

#[tokio::test]
async fn a_move_is_not_refused_before_the_view_has_reached_the_request_or_for_a_second() {
    let rig = Rig::start("account_stale").await;
    rig.run("a").await;
    let to_n3 = Intent {
        to: Some("n3".into()),
        ..Intent::default()
    };
    let begun = Instant::now();
    let plan = |account: &mut Account, cache: &Cache, ms| -> Vec<String> {
        let turn = Turn {
            view: &cache.view(),
            keyspace: &rig.keyspace,
            now: Timestamp::EPOCH,
            tick: begun + Duration::from_millis(ms),
        };
        let planned = account.turn(&turn).into_iter();
        planned
            .map(|p| p.write.context)
            .filter(|c| c.contains("move of"))
            .collect()
    };
    let nothing = Vec::<String>::new();
    // Asked for long after what this view shows.
    let (mut account, cache) = rig.asked(&["a".into()], &to_n3, i64::MAX).await;
    for ms in [0, 50, 100, 950] {
        assert_eq!(plan(&mut account, &cache, ms), nothing, "after {ms} ms");
        assert!(account.next_due(begun).is_some(), "it is not forgotten");
    }
    let refused = ["refused move of default/a"];
    assert_eq!(plan(&mut account, &cache, 1_000), refused);
    // It is level, and what has changed by now has yet to be counted: a turn later.
    let at = rig.run("b").await;
    let (mut account, cache) = rig.asked(&["a".into()], &to_n3, at).await;
    account.touch(key("gone"));
    assert_eq!(plan(&mut account, &cache, 0), nothing);
    assert_eq!(plan(&mut account, &cache, 0), refused);
    // The node had joined by then.
    let (mut account, cache) = rig.asked(&["a".into()], &to_n3, i64::MAX).await;
    assert_eq!(plan(&mut account, &cache, 0), nothing);
    rig.join("n3").await;
    let (_, cache) = rig.asked(&[], &to_n3, 1).await;
    let joined = Changes {
        resync: false,
        keys: vec![
            StateKey::NodeAlive("n3".into()),
            StateKey::NodeStatus("n3".into()),
        ],
    };
    account.changed(&joined, &cache.view());
    let moved = ["move of default/a from n1 to n3"];
    assert_eq!(plan(&mut account, &cache, 50), moved);
}

#[tokio::test]
async fn budgets_count_what_is_followed_of_what_workloads_and_autoscalers_say() {
    const SETS: &str = "statefulsets";
    const SCALERS: &str = "horizontalpodautoscalers";
    let rig = Rig::start("account_scales").await;
    let set = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web, namespace: default, uid: u}, spec: {replicas: 5, serviceName: web, selector: {matchLabels: {app: x}}, template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: host}]}}}}";
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: default, labels: {app: x}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, spec: {containers: [{name: c, image: host}]}}";
    let budget = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: default}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: x}}}}";
    rig.put(&[
        (Key::Desired(SETS, key("web")), set.into()),
        (Key::Desired(Pod::PLURAL, key("web-0")), pod.into()),
        (
            Key::Desired("poddisruptionbudgets", key("web")),
            budget.into(),
        ),
    ])
    .await;
    let expected = |account: &Account| account.budgets.counts(&key("web")).map(|c| c.expected);
    let (mut account, _) = rig.asked_to_move(&[]).await;
    assert_eq!(expected(&account), Some(5));
    let scaler = |name: &str, target: &str| {
        format!(
            "{{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {{name: {name}, namespace: default}}, spec: {{scaleTargetRef: {{apiVersion: apps/v1, kind: {target}, name: web}}, minReplicas: 1, maxReplicas: 9}}}}"
        )
    };
    let frozen = "conditions: [{type: Invalid, status: 'True', reason: ImmutableFieldChanged}]";
    let elsewise = "conditions: [{type: Invalid, status: 'True', reason: DocumentInvalid}]";
    // What is written, and what is known to have changed then. Of several autoscalers the first by name counts, and one
    // of a Deployment of that name is about something else.
    let steps = [
        (
            vec![
                (Key::Desired(SCALERS, key("a")), scaler("a", "Deployment")),
                (Key::Desired(SCALERS, key("b")), scaler("b", "StatefulSet")),
                (Key::Desired(SCALERS, key("c")), scaler("c", "StatefulSet")),
                (Key::Actual(SCALERS, key("a")), "desiredReplicas: 7".into()),
                (Key::Actual(SCALERS, key("b")), "desiredReplicas: 3".into()),
                (Key::Actual(SCALERS, key("c")), "desiredReplicas: 4".into()),
            ],
            StateKey::Desired(SCALERS, key("c")),
            3,
        ),
        (
            vec![(Key::Actual(SCALERS, key("b")), "desiredReplicas: 2".into())],
            StateKey::Actual(SCALERS, key("b")),
            2,
        ),
        // Nobody follows the document: the pod that is there counts.
        (
            vec![(Key::Actual(SETS, key("web")), frozen.into())],
            StateKey::Actual(SETS, key("web")),
            1,
        ),
        // Of what does not parse the last good document counts.
        (
            vec![(Key::Actual(SETS, key("web")), elsewise.into())],
            StateKey::Actual(SETS, key("web")),
            2,
        ),
        // What was decided cannot be read, and nobody here has ever read it: the StatefulSet has what its status says.
        (
            vec![
                (Key::Actual(SETS, key("web")), "desiredReplicas: 6".into()),
                (Key::Actual(SCALERS, key("b")), "desiredReplicas: [2".into()),
            ],
            StateKey::Actual(SCALERS, key("b")),
            6,
        ),
        (
            vec![(Key::Desired(SCALERS, key("b")), "spec: [".into())],
            StateKey::Desired(SCALERS, key("b")),
            4,
        ),
        // Nor what they are about.
        (
            vec![(Key::Desired(SCALERS, key("c")), "spec: [".into())],
            StateKey::Desired(SCALERS, key("c")),
            6,
        ),
    ];
    for (pairs, changed, wanted) in steps {
        rig.put(&pairs).await;
        let (fresh, cache) = rig.asked_to_move(&[]).await;
        let changes = Changes {
            resync: false,
            keys: vec![changed],
        };
        account.changed(&changes, &cache.view());
        assert_eq!(expected(&account), Some(wanted));
        assert_eq!(expected(&fresh), Some(wanted), "what a new leader counts");
    }
}
