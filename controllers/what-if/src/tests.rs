use setpoint_apis::records::{ConstraintKind, Hope};
use setpoint_apis::{Keyspace, ObjectKey};

use super::*;

/// A store in the making: keys with values, each at its own revision.
struct Store {
    keyspace: Keyspace,
    keys: Vec<(String, String)>,
}

impl Store {
    fn new() -> Self {
        Self {
            keyspace: Keyspace::new("/s").unwrap(),
            keys: Vec::new(),
        }
    }

    fn put(mut self, key: &str, value: impl Into<String>) -> Self {
        self.keys.push((format!("/s/{key}"), value.into()));
        self
    }

    /// A node that is alive, with so much of the resources.
    fn node(self, name: &str, cpu: &str, more: &str) -> Self {
        self.put(
            &format!("actual/nodes/{name}/alive"),
            "hostname: h\ninstance: i\nleaseTtlSeconds: 6\n",
        )
        .put(
            &format!("actual/nodes/{name}/status"),
            format!(
                "drivers: [process]\ncapacity: {{}}\nallocatable: {{cpu: {cpu}, memory: 8Gi, pods: 10}}\n{more}"
            ),
        )
    }

    fn pod(self, name: &str, spec: &str) -> Self {
        self.labelled(name, "", spec)
    }

    fn labelled(self, name: &str, labels: &str, spec: &str) -> Self {
        self.put(
            &format!("desired/pods/default/{name}"),
            pod(name, labels, spec),
        )
    }

    fn bound(self, name: &str, node: &str, more: &str) -> Self {
        self.put(
            &format!("bindings/default/{name}"),
            format!(
                "node: {node}\nsession: 1\nplacement: 1\npodRevision: 99\nboundAt: 2026-01-02T03:04:05Z\n{more}"
            ),
        )
    }

    fn running(self, name: &str, node: &str) -> Self {
        self.put(
            &format!("actual/nodes/{node}/pods/default/{name}"),
            "placement: 1\nuid: u\nstage: Running\nconditions: [{type: Ready, status: 'True'}]\n",
        )
    }

    fn world(&self) -> World {
        let mut world = World {
            revision: 99,
            ..World::default()
        };
        self.fill(&mut world);
        assert!(world.unreadable.is_empty(), "{:?}", world.unreadable);
        world
    }

    fn fill(&self, world: &mut World) {
        for (i, (key, value)) in self.keys.iter().enumerate() {
            let revision = i as i64 + 1;
            let record = Record {
                key,
                value: value.as_bytes(),
                create_revision: revision,
                mod_revision: revision,
            };
            world.take(&self.keyspace, record);
        }
        world.complete();
    }

    fn why(&self, name: &str) -> Why {
        why(&self.world(), &key(name)).unwrap()
    }

    fn waits(&self, name: &str) -> Waits {
        self.why(name).waits.unwrap()
    }

    fn proposal(&self) -> Proposal {
        Proposal::new(self.world())
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn pod(name: &str, labels: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{{labels}}}}}\nspec: {{{spec}}}\n"
    )
}

/// A container that asks for so much cpu.
fn cpu(amount: &str) -> String {
    format!("containers: [{{name: c, image: host, resources: {{requests: {{cpu: {amount}}}}}}}]")
}

fn deployment(replicas: u32, amount: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: default}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template: {{metadata: {{labels: {{app: web}}}}, spec: {{{}}}}}\n",
        cpu(amount)
    )
}

fn class(name: &str, value: i32) -> String {
    format!(
        "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {{name: {name}}}\nvalue: {value}\n"
    )
}

fn told(reasons: &[setpoint_apis::records::WaitReason]) -> Vec<(ConstraintKind, &str, u32, Hope)> {
    reasons
        .iter()
        .map(|r| (r.constraint, r.detail.as_str(), r.nodes, r.hope))
        .collect()
}

#[test]
fn a_pod_that_is_too_big_never_fits_and_the_nearest_node_says_what_is_missing() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .node("n2", "'1'", "")
        .pod("big", &cpu("2200m"));
    let waits = store.waits("big");
    assert_eq!(waits.hope, Hope::Never);
    assert_eq!(
        told(&waits.reasons),
        [(ConstraintKind::Resources, "cpu", 2, Hope::Never)]
    );
    assert_eq!(
        waits.nearest[0].text,
        "n1 would fit with 200m cpu less requested"
    );
    assert_eq!(
        waits.nearest[0].miss.shortfall["cpu"],
        "200m".parse().unwrap()
    );
}

#[test]
fn never_is_told_from_waiting_and_taints_are_counted() {
    let tainted = "taints: [{key: dedicated, value: gpu, effect: NoSchedule}]\n";
    let store = Store::new()
        .node("n1", "'2'", "")
        .node("n2", "'2'", tainted)
        .node("n3", "'2'", tainted)
        .pod("old", &cpu("1500m"))
        .bound("old", "n1", "")
        .pod("p", &cpu("1"));
    let waits = store.waits("p");
    assert_eq!(waits.hope, Hope::Waits);
    assert_eq!(
        told(&waits.reasons),
        [
            (ConstraintKind::Taint, "dedicated=gpu", 2, Hope::Never),
            (ConstraintKind::Resources, "cpu", 1, Hope::Waits)
        ]
    );
    let said: Vec<&str> = waits.nearest.iter().map(|n| n.text.as_str()).collect();
    assert_eq!(
        said,
        [
            "2 nodes would fit without taint dedicated=gpu",
            "n1 would fit with 500m cpu less requested"
        ]
    );
    assert_eq!(waits.nearest[0].miss.to_string(), said[0]);
}

#[test]
fn what_is_not_about_nodes_is_told_first() {
    let waits = |spec: &str, store: Store| store.node("n1", "'2'", "").pod("p", spec).waits("p");
    let gated = format!("schedulingGates: [{{name: a}}, {{name: b}}], {}", cpu("1"));
    let w = waits(&gated, Store::new());
    assert_eq!(
        told(&w.reasons),
        [(ConstraintKind::SchedulingGates, "a, b", 0, Hope::Waits)]
    );
    assert_eq!(w.fits.len(), 1, "it would fit but for the gates");

    let w = waits(&format!("schedulerName: batch, {}", cpu("1")), Store::new());
    assert_eq!(w.reasons[0].constraint, ConstraintKind::SchedulerProfile);
    assert_eq!((w.hope, w.profile.as_deref()), (Hope::Waits, Some("batch")));

    let w = waits(
        &format!("priorityClassName: nope, {}", cpu("1")),
        Store::new(),
    );
    assert_eq!(w.reasons[0].constraint, ConstraintKind::PriorityClass);
    assert!(w.reasons[0].detail.contains("\"nope\""), "{w:?}");

    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: default}\nspec: {hard: {requests.cpu: '1'}}\n";
    let full = Store::new()
        .put("desired/resourcequotas/default/q", quota)
        .pod("old", &cpu("600m"))
        .bound("old", "n1", "");
    let w = waits(&cpu("500m"), full);
    assert_eq!(
        told(&w.reasons),
        [(
            ConstraintKind::Quota,
            "q: requests.cpu: 500m requested, 600m of 1 used",
            0,
            Hope::Waits
        )]
    );
    let empty = Store::new().put("desired/resourcequotas/default/q", quota);
    assert_eq!(waits(&cpu("2"), empty).hope, Hope::Never);
}

#[test]
fn a_quota_that_cannot_be_read_lets_nothing_past() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .put(
            "desired/resourcequotas/default/q",
            "kind: ResourceQuota\nspec: [",
        )
        .pod("p", &cpu("1"));
    let mut world = World::default();
    store.fill(&mut world);
    let waits = why(&world, &key("p")).unwrap().waits.unwrap();
    assert_eq!(waits.reasons[0].detail, "q: its document cannot be read");
    assert_eq!(Proposal::new(world).plan(0).placed.len(), 0);
}

#[test]
fn absurd_numbers_are_looked_at_in_part() {
    let reservation = "apiVersion: setpoint.dev/v1\nkind: Reservation\nmetadata: {name: r, namespace: default}\n\
                       spec: {owners: {selector: {}}, resources: {cpu: '1'}, count: 100000}\n";
    let mut proposal = Store::new().node("n1", "'2'", "").proposal();
    proposal
        .apply("reservations", &key("r"), reservation)
        .unwrap();
    let notes = proposal.plan(0).notes;
    assert!(notes[0].contains("998 of"), "{notes:?}");
}

#[test]
fn a_name_that_nothing_has_gets_a_suggestion() {
    let profile = "apiVersion: setpoint.dev/v1\nkind: SchedulerProfile\nmetadata: {name: batch}\n";
    let store = Store::new()
        .put("desired/schedulerprofiles/batch", profile)
        .put("desired/priorityclasses/high", class("high", 10));
    let notes = |spec: &str| {
        let store = Store {
            keyspace: store.keyspace.clone(),
            keys: store.keys.clone(),
        };
        store
            .pod("p", &format!("{spec}, {}", cpu("1")))
            .why("p")
            .notes
    };
    assert!(notes("schedulerName: bacth")[0].contains("did it mean \"batch\""));
    assert!(notes("priorityClassName: hihg")[0].contains("did it mean \"high\""));
    assert!(!notes("priorityClassName: zzz")[0].contains("did it mean"));
}

fn group(min: u32) -> String {
    format!(
        "apiVersion: setpoint.dev/v1\nkind: PodGroup\nmetadata: {{name: g, namespace: default}}\nspec: {{minMember: {min}}}\n"
    )
}

const IN_GROUP: &str = "setpoint.dev/pod-group: g";

#[test]
fn a_gang_waits_for_its_pods_and_then_for_room_for_all() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .labelled("a", IN_GROUP, &cpu("1500m"));
    let w = store.waits("a");
    assert!(
        w.reasons[0].detail.contains("there is no PodGroup"),
        "{w:?}"
    );
    let store = store.put("desired/podgroups/default/g", group(2));
    let w = store.waits("a");
    assert_eq!(w.reasons[0].detail, "g: 1 of 2 members exist");
    let store = store.labelled("b", IN_GROUP, &cpu("1500m"));
    let w = store.waits("a");
    assert_eq!(
        w.reasons[0].detail,
        "g: 1 of the 2 that must run together fit"
    );
    assert!(w.fits.is_empty());
    let plan = store.proposal().plan(0);
    assert_eq!(
        (plan.placed.len(), plan.waiting.len()),
        (0, 2),
        "all or nothing"
    );
    let store = store.node("n2", "'2'", "");
    let w = store.waits("a");
    assert_eq!((w.reasons, w.fits.len()), (vec![], 2));
    assert_eq!(w.gang.unwrap().members, 2);
    assert_eq!(store.proposal().plan(0).placed.len(), 2);
}

#[test]
fn a_gang_displaces_others_when_all_of_it_fits_then_and_nobody_else() {
    let member = format!("priorityClassName: high, {}", cpu("2"));
    let store = Store::new()
        .node("n1", "'2'", "")
        .node("n2", "'2'", "")
        .put("desired/priorityclasses/high", class("high", 10))
        .pod("low", &cpu("1"))
        .bound("low", "n1", "")
        .running("low", "n1")
        .put("desired/podgroups/default/g", group(3));
    let store = ["a", "b", "c"]
        .into_iter()
        .fold(store, |store, name| store.labelled(name, IN_GROUP, &member));
    assert_eq!(store.waits("a").could_displace, None, "three do not fit");
    assert!(store.proposal().plan(0).displaced.is_empty());
    let store = store.put("desired/podgroups/default/g", group(2));
    // Whoever of them it is that gets the room of `low`, and whoever goes to the other node.
    let displace = ["a", "b", "c"].map(|name| store.waits(name).could_displace);
    let [victims] = &displace.into_iter().flatten().collect::<Vec<_>>()[..] else {
        panic!("one of them displaces `low`");
    };
    assert_eq!(
        (&*victims.node, &victims.pods[..]),
        ("n1", &["default/low".to_owned()][..])
    );
    let plan = store.proposal().plan(0);
    assert_eq!((plan.placed.len(), plan.displaced.len()), (2, 1));
    let displaces = plan.placed.iter().map(|p| p.displaces.len());
    assert_eq!(displaces.sum::<usize>(), 1);
}

#[test]
fn a_group_that_was_placed_once_gets_its_pods_back_one_by_one() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .put("desired/podgroups/default/g", group(3))
        .labelled("a", IN_GROUP, &cpu("1"))
        .bound("a", "n1", "")
        .labelled("b", IN_GROUP, &cpu("1"));
    assert_eq!(store.proposal().plan(0).placed.len(), 0);
    let store = store.put("actual/podgroups/default/g", "phase: Placed\n");
    assert_eq!(store.proposal().plan(0).placed.len(), 1);
    assert_eq!(store.waits("b").reasons, vec![]);
}

#[test]
fn the_stored_decision_of_a_placed_pod_is_told_with_why_the_next_best_lost() {
    let store = Store::new().node("n1", "'2'", "").pod("p", &cpu("1")).bound(
        "p",
        "n1",
        "decision:\n  revision: 7\n  nodes: 3\n  feasible: 2\n  score: 90\n  best:\n  - {node: n1, score: 90, parts: resources=90}\n  \
         - {node: n2, score: 70, parts: resources=70}\n",
    );
    let why = store.why("p");
    assert_eq!((why.state, why.waits.is_none()), (State::Placed, true));
    let decided = why.decided.unwrap();
    assert_eq!(decided.decision.unwrap().feasible, 2);
    assert_eq!(
        decided.runner_up_lost.unwrap(),
        "n2 was worth 20 less: 20 less for resources"
    );
    assert_eq!(super::why(&store.world(), &key("nope")), None);
}

#[test]
fn an_old_record_is_told_from_what_holds_now() {
    let store = Store::new().node("n1", "'2'", "").pod("p", &cpu("1")).put(
        "actual/pods/default/p",
        "placements: 2\nreasons: [{constraint: Resources, detail: cpu, nodes: 1, hope: Waits}]\n",
    );
    let why = store.why("p");
    let waits = why.waits.unwrap();
    assert!(waits.record_differs && !why.scheduler);
    assert_eq!(waits.fits[0].node, "n1");
    let notes = why.notes.join("\n");
    assert!(notes.contains("placed 2 times before"), "{notes}");
    assert!(notes.contains("no scheduler is running"), "{notes}");
    let store = store.put("leaders/scheduler", "x");
    assert!(store.why("p").scheduler);
}

#[test]
fn a_nominated_pod_says_whom_it_waits_for() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .put("desired/priorityclasses/high", class("high", 10))
        .pod("low", &cpu("2"))
        .bound(
            "low",
            "n1",
            "withdrawn: {reason: Preempted, at: 2026-01-02T03:04:05Z}\n",
        )
        .pod("p", &format!("priorityClassName: high, {}", cpu("2")))
        .put("actual/pods/default/p", "nominatedNode: n1\n");
    let waits = store.waits("p");
    let nominated = waits.nominated.unwrap();
    assert_eq!(
        (nominated.node.as_str(), nominated.waits_for),
        ("n1", vec!["default/low".to_owned()])
    );
    assert_eq!(store.why("low").state, State::Leaving);
}

#[test]
fn the_important_displace_others_which_go_elsewhere_or_wait() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .put("desired/priorityclasses/high", class("high", 10))
        .pod("low", &cpu("2"))
        .bound("low", "n1", "")
        .running("low", "n1");
    let mut proposal = store.proposal();
    let high = pod(
        "high",
        "",
        &format!("priorityClassName: high, {}", cpu("2")),
    );
    proposal.apply("pods", &key("high"), &high).unwrap();
    let plan = proposal.plan(0);
    assert_eq!(plan.placed[0].displaces, ["default/low"]);
    assert_eq!(
        (plan.displaced[0].from.as_str(), &plan.displaced[0].to),
        ("n1", &None)
    );
    assert_eq!(
        (plan.waiting[0].pod.as_str(), plan.waiting[0].new),
        ("default/low", false)
    );
    assert_eq!((plan.nodes[0].pods_before, plan.nodes[0].pods), (1, 1));

    let waits = store
        .pod("high", &format!("priorityClassName: high, {}", cpu("2")))
        .waits("high");
    assert_eq!(waits.could_displace.unwrap().pods, ["default/low"]);

    let never = class("high", 10) + "preemptionPolicy: Never\n";
    let mut proposal = proposal.clone();
    proposal
        .apply("priorityclasses", &ObjectKey::cluster("high"), &never)
        .unwrap();
    let plan = proposal.plan(0);
    assert_eq!(
        (plan.placed.len(), plan.displaced.len()),
        (0, 0),
        "the class forbids it"
    );
}

#[test]
fn a_budget_is_respected_where_another_victim_does() {
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: b, namespace: default}\n\
                  spec: {minAvailable: 1, selector: {matchLabels: {app: kept}}}\n";
    let store = Store::new()
        .node("n1", "'2'", "")
        .node("n2", "'2'", "")
        .put("desired/priorityclasses/high", class("high", 10))
        .put("desired/poddisruptionbudgets/default/b", budget)
        .labelled("kept", "app: kept", &cpu("2"))
        .bound("kept", "n1", "")
        .running("kept", "n1")
        .labelled("other", "app: other", &cpu("2"))
        .bound("other", "n2", "")
        .running("other", "n2")
        .pod("high", &format!("priorityClassName: high, {}", cpu("2")));
    let victims = store.waits("high").could_displace.unwrap();
    assert_eq!(
        (victims.pods, victims.violated_budgets),
        (vec!["default/other".to_owned()], 0)
    );
}

#[test]
fn a_deployment_becomes_pods_and_utilisation_is_counted() {
    let store = Store::new().node("n1", "'2'", "").node("n2", "'2'", "");
    let mut proposal = store.proposal();
    proposal
        .apply("deployments", &key("web"), &deployment(5, "1"))
        .unwrap();
    let plan = proposal.plan(0);
    assert_eq!((plan.placed.len(), plan.waiting.len()), (4, 1));
    assert!(
        plan.placed
            .iter()
            .all(|p| p.new && p.owner.as_deref() == Some("deployment/web"))
    );
    assert_eq!(plan.waiting[0].hope, Hope::Waits);
    let cpu = plan.nodes[0].resources["cpu"];
    assert_eq!((plan.nodes[0].pods, cpu.percent()), (2, 100));
    assert_eq!(
        plan,
        proposal.plan(0),
        "the same question has the same answer"
    );
}

#[test]
fn a_deployment_that_exists_grows_shrinks_or_is_rolled_out() {
    let owned = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app: web, pod-template-hash: abc}}, \
             ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web-abc, uid: u, controller: true}}]}}\nspec: {{{}}}\n",
            cpu("1")
        )
    };
    let set = format!(
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: web-abc, namespace: default, ownerReferences: \
         [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: u, controller: true}}]}}\n\
         spec: {{selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{{}}}}}}}\n",
        cpu("1")
    );
    let store = Store::new()
        .node("n1", "'4'", "")
        .put("desired/deployments/default/web", deployment(2, "1"))
        .put("desired/replicasets/default/web-abc", set)
        .put("desired/pods/default/web-x", owned("web-x"))
        .bound("web-x", "n1", "")
        .put("desired/pods/default/web-y", owned("web-y"))
        .bound("web-y", "n1", "");
    let plan = |replicas, amount: &str| {
        let mut proposal = store.proposal();
        let text = deployment(replicas, amount);
        proposal.apply("deployments", &key("web"), &text).unwrap();
        proposal.plan(0)
    };
    let more = plan(3, "1");
    assert_eq!((more.placed.len(), more.nodes[0].pods), (1, 3));
    let less = plan(1, "1");
    assert_eq!((less.placed.len(), less.nodes[0].pods), (0, 1));
    assert!(less.notes[0].contains("1 fewer pods"), "{:?}", less.notes);
    let other = plan(2, "2");
    assert_eq!((other.placed.len(), other.nodes[0].pods), (2, 2));
    assert!(other.notes[0].contains("new template"), "{:?}", other.notes);
}

#[test]
fn reserved_room_is_for_its_owners_alone() {
    let reservation = "apiVersion: setpoint.dev/v1\nkind: Reservation\nmetadata: {name: r, namespace: default}\n\
                       spec: {owners: {selector: {matchLabels: {app: vip}}}, resources: {cpu: '2'}, count: 2}\n";
    let store = Store::new().node("n1", "'2'", "");
    let mut proposal = store.proposal();
    proposal
        .apply("reservations", &key("r"), reservation)
        .unwrap();
    proposal
        .apply("pods", &key("vip"), &pod("vip", "app: vip", &cpu("1")))
        .unwrap();
    proposal
        .apply("pods", &key("other"), &pod("other", "app: x", &cpu("1")))
        .unwrap();
    let plan = proposal.plan(0);
    assert_eq!(plan.placed.len(), 1, "{plan:?}");
    assert_eq!(plan.placed[0].pod, "default/vip");
    assert_eq!(plan.waiting[0].pod, "default/other");
    assert!(
        plan.notes[0].contains("1 of 2 find no node"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_document_that_cannot_be_read_is_named_and_its_node_gets_nothing() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .put("desired/nodes/n1", "kind: Node\nspec: [")
        .put("desired/pods/default/broken", "kind: Pod\nspec: [")
        .pod("p", &cpu("1"));
    let mut world = World::default();
    store.fill(&mut world);
    assert_eq!(
        world.unreadable.keys().collect::<Vec<_>>(),
        ["/s/desired/nodes/n1", "/s/desired/pods/default/broken"]
    );
    let broken = why(&world, &key("broken")).unwrap();
    assert!(
        broken.notes[0].contains("its document cannot be read"),
        "{broken:?}"
    );
    let waits = why(&world, &key("p")).unwrap().waits.unwrap();
    assert_eq!(waits.reasons[0].constraint, ConstraintKind::NodeNotReady);
}

#[test]
fn a_pod_of_which_something_cannot_be_read_is_left_where_it_is_and_displaced_for_nobody() {
    let store = Store::new()
        .node("n1", "'2'", "")
        .put("desired/priorityclasses/high", class("high", 10))
        .pod("placed", &cpu("2"))
        .put("bindings/default/placed", "node: [")
        .running("placed", "n1")
        .put("desired/pods/default/waiting", "kind: Pod\nspec: [")
        .pod("p", &format!("priorityClassName: high, {}", cpu("1")));
    let mut world = World::default();
    store.fill(&mut world);
    let told = |name: &str| why(&world, &key(name)).unwrap();
    for (name, what) in [("placed", "its binding"), ("waiting", "its document")] {
        let told = told(name);
        assert_eq!((told.state, &told.waits), (State::Frozen, &None), "{name}");
        assert!(told.notes[0].starts_with(what), "{:?}", told.notes);
        assert!(told.notes[1].contains("neither places"), "{:?}", told.notes);
    }
    let waits = told("p").waits.unwrap();
    assert_eq!(waits.reasons[0].constraint, ConstraintKind::Resources);
    assert_eq!(waits.could_displace, None, "it would never leave");
    let plan = Proposal::new(world).plan(0);
    let waiting: Vec<_> = plan.waiting.iter().map(|w| w.pod.as_str()).collect();
    assert_eq!(waiting, ["default/p"]);
    assert!(
        plan.placed.is_empty() && plan.displaced.is_empty(),
        "{plan:?}"
    );
    assert_eq!(plan.nodes[0].pods, 1, "its room is taken");
}

#[test]
fn what_is_measured_counts_where_it_is_more_than_what_is_requested() {
    let store = |usage: &str| {
        Store::new()
            .node("n1", "'2'", usage)
            .node("n2", "'2'", "")
            .pod("old", &cpu("500m"))
            .bound("old", "n2", "")
            .pod("p", &cpu("100m"))
    };
    let best = |store: Store| store.waits("p").fits[0].node.clone();
    assert_eq!(best(store("")), "n1");
    assert_eq!(best(store("usage: {cpu: 1500m, memory: 1Gi}\n")), "n2");
}

#[test]
fn a_node_from_a_file_is_ready_unless_it_says_otherwise() {
    use setpoint_apis::core::{Node, NodeStatus};
    let placed = |status: &str| {
        let mut proposal = Proposal::new(World::default());
        let status: NodeStatus = setpoint_apis::document::decode_value(status.as_bytes()).unwrap();
        proposal.node(Node::named("n1"), status);
        for (name, image) in [("a", "host"), ("b", "nginx")] {
            let spec = format!("containers: [{{name: c, image: {image}}}]");
            proposal
                .apply("pods", &key(name), &pod(name, "", &spec))
                .unwrap();
        }
        proposal.plan(0).placed.len()
    };
    assert_eq!(placed("allocatable: {cpu: 1}"), 2);
    assert_eq!(placed("capacity: {cpu: 1, pods: 1}"), 1);
    assert_eq!(
        placed("allocatable: {cpu: 1}\nconditions: [{type: Ready, status: 'False'}]"),
        0
    );
}

#[test]
fn reports_are_json() {
    let store = Store::new().node("n1", "'1'", "").pod("p", &cpu("2"));
    let value = serde_json::to_value(store.why("p")).unwrap();
    assert_eq!(value["waits"]["hope"], "Never");
    assert_eq!(value["waits"]["nearest"][0]["constraint"], "Resources");
    assert_eq!(value["waits"]["nearest"][0]["shortfall"]["cpu"], "1");
    let plan = serde_json::to_value(store.proposal().plan(0)).unwrap();
    assert_eq!(plan["waiting"][0]["pod"], "default/p");
    assert_eq!(plan["nodes"][0]["resources"]["cpu"]["allocatable"], "1");
}

mod relations;
