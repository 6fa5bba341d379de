//! What other objects say of a pod: its volume claims, the budgets that count it, the rules of its namespace.

use super::*;
use crate::ProposalError;

const CLAIM: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: default, uid: c1}\n\
                     spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";

fn using(claim: &str) -> String {
    format!(
        "volumes: [{{name: d, persistentVolumeClaim: {{claimName: {claim}}}}}], {}",
        cpu("1")
    )
}

fn on(node: &str) -> String {
    format!("phase: Bound\naccessModes: [ReadWriteOnce]\nnode: {node}\nuid: c1\n")
}

fn two_nodes() -> Store {
    Store::new().node("n1", "'2'", "").node("n2", "'2'", "")
}

#[test]
fn a_pod_with_a_placed_claim_runs_on_that_node_alone() {
    let store = two_nodes()
        .put("desired/persistentvolumeclaims/default/data", CLAIM)
        .put("actual/persistentvolumeclaims/default/data", on("n2"))
        .pod("p", &using("data"));
    let fits: Vec<String> = store.waits("p").fits.into_iter().map(|f| f.node).collect();
    assert_eq!(fits, ["n2"]);
    for seed in 0..8 {
        let plan = store.proposal().plan(seed);
        assert_eq!(plan.placed[0].node, "n2");
    }
    // There is no room on that one.
    let store = store.pod("old", &cpu("1500m")).bound("old", "n2", "");
    let waits = store.waits("p");
    assert!(waits.fits.is_empty(), "{waits:?}");
    let constraints: Vec<ConstraintKind> = waits.reasons.iter().map(|r| r.constraint).collect();
    assert!(
        constraints.contains(&ConstraintKind::VolumeClaim),
        "{waits:?}"
    );
    assert!(store.proposal().plan(0).placed.is_empty());
}

#[test]
fn a_claim_that_is_of_no_use_is_waited_for() {
    let store = || two_nodes().pod("p", &using("data"));
    let says = |store: Store| {
        let waits = store.waits("p");
        assert!(waits.fits.is_empty());
        assert_eq!(waits.reasons[0].constraint, ConstraintKind::VolumeClaim);
        describe(&waits.reasons[0])
    };
    assert_eq!(says(store()), "persistentvolumeclaim \"data\" not found");
    let near = CLAIM.replace("name: data", "name: date");
    let near = store().put("desired/persistentvolumeclaims/default/date", near);
    assert!(near.why("p").notes[0].contains("did it mean \"date\"?"));
    // The status is of a former claim of that name.
    let former = store()
        .put("desired/persistentvolumeclaims/default/data", CLAIM)
        .put(
            "actual/persistentvolumeclaims/default/data",
            on("n2").replace("c1", "c0"),
        );
    let waiting = "persistentvolumeclaim \"data\" is a new one: node n2 is being told to give up the former one";
    assert_eq!(says(former), waiting);

    let broken = store()
        .put("desired/persistentvolumeclaims/default/data", CLAIM)
        .put("actual/persistentvolumeclaims/default/data", "phase: [");
    let mut world = World::default();
    broken.fill(&mut world);
    let waits = why(&world, &key("p")).unwrap().waits.unwrap();
    assert!(
        waits.reasons[0].detail.contains("cannot be read"),
        "{waits:?}"
    );
    assert!(Proposal::new(world).plan(0).placed.is_empty());
}

#[test]
fn pods_that_share_a_claim_go_where_the_first_of_them_goes() {
    let store = two_nodes();
    for seed in 0..8 {
        let mut proposal = store.proposal();
        for name in ["a", "b"] {
            let text = pod(name, "", &using("data"));
            proposal.apply("pods", &key(name), &text).unwrap();
        }
        proposal
            .apply("persistentvolumeclaims", &key("data"), CLAIM)
            .unwrap();
        let plan = proposal.plan(seed);
        let nodes: Vec<&str> = plan.placed.iter().map(|p| p.node.as_str()).collect();
        assert_eq!(nodes.len(), 2, "{plan:?}");
        assert_eq!(nodes[0], nodes[1], "seed {seed}");
    }
}

/// Three ready pods of a Deployment that wants so many, all under a budget.
fn deployed(wanted: u32, budget: &str) -> Store {
    let set = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: web-1, namespace: default, uid: r1, ownerReferences: \
               [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d1, controller: true}]}\nspec: {selector: {matchLabels: {app: web}}, \
               template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: host}]}}}\n";
    let budget = format!(
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: b, namespace: default}}\n\
         spec: {{selector: {{matchLabels: {{app: web}}}}, {budget}}}\n"
    );
    let web = deployment(wanted, "1").replace("{name: web,", "{name: web, uid: d1,");
    let mut store = Store::new()
        .put("desired/priorityclasses/high", class("high", 10))
        .put("desired/deployments/default/web", web)
        .put("desired/replicasets/default/web-1", set)
        .put("desired/poddisruptionbudgets/default/b", budget);
    for (node, name) in [("n1", "web-a"), ("n2", "web-b"), ("n3", "web-c")] {
        let owned = pod(name, "app: web", &cpu("2")).replacen(
            "metadata: {",
            "metadata: {ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: r1, controller: true}], ",
            1,
        );
        store = store
            .node(node, "'2'", "")
            .put(&format!("desired/pods/default/{name}"), owned)
            .bound(name, node, "")
            .running(name, node);
    }
    store.pod("p", &format!("priorityClassName: high, {}", cpu("1")))
}

fn violated(store: &Store) -> u32 {
    let waits = store.waits("p");
    waits.could_displace.expect("victims").violated_budgets
}

#[test]
fn budgets_count_among_what_the_owning_workloads_want() {
    assert_eq!(violated(&deployed(3, "maxUnavailable: 1")), 0);
    // One is missing already.
    assert_eq!(violated(&deployed(4, "maxUnavailable: 1")), 1);
    assert_eq!(violated(&deployed(4, "minAvailable: 75%")), 1);
    assert_eq!(violated(&deployed(4, "minAvailable: 2")), 0);
    // What an autoscaler has decided is what is wanted.
    let scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: s, namespace: default}\n\
                  spec: {maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n";
    let scaled = deployed(3, "maxUnavailable: 1")
        .put("desired/horizontalpodautoscalers/default/s", scaler)
        .put(
            "actual/horizontalpodautoscalers/default/s",
            "desiredReplicas: 4\n",
        );
    assert_eq!(violated(&scaled), 1);
    // Nobody follows a document that was changed where it may not be.
    let frozen = deployed(4, "maxUnavailable: 1").put(
        "actual/deployments/default/web",
        "conditions: [{type: Invalid, status: 'True', reason: ImmutableFieldChanged}]\n",
    );
    assert_eq!(violated(&frozen), 0);
}

#[test]
fn a_budget_over_more_than_can_be_counted_allows_nothing_and_breaks_nothing() {
    let mut store = deployed(i32::MAX as u32, "maxUnavailable: 1");
    let other = deployment(i32::MAX as u32, "1").replace("name: web,", "name: other, uid: d2,");
    let set = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: other-1, namespace: default, uid: r2, ownerReferences: \
               [{apiVersion: apps/v1, kind: Deployment, name: other, uid: d2, controller: true}]}\nspec: {selector: {matchLabels: {app: web}}, \
               template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: host}]}}}\n";
    let owned = pod("other-a", "app: web", &cpu("100m")).replacen(
        "metadata: {",
        "metadata: {ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: other-1, uid: r2, controller: true}], ",
        1,
    );
    store = store
        .put("desired/deployments/default/other", other)
        .put("desired/replicasets/default/other-1", set)
        .put("desired/pods/default/other-a", owned);
    assert_eq!(violated(&store), 1);
}

#[test]
fn a_budget_that_cannot_be_read_protects_every_pod() {
    let mut store = deployed(3, "maxUnavailable: 3");
    store = store.put(
        "desired/poddisruptionbudgets/default/broken",
        "kind: PodDisruptionBudget\nspec: [",
    );
    let mut world = World::default();
    store.fill(&mut world);
    let waits = why(&world, &key("p")).unwrap().waits.unwrap();
    assert_eq!(waits.could_displace.unwrap().violated_budgets, 1);
}

#[test]
fn what_an_autoscaler_had_decided_counts_while_it_cannot_be_read() {
    let violated = |store: &Store| {
        let mut world = World::default();
        store.fill(&mut world);
        let waits = why(&world, &key("p")).unwrap().waits.unwrap();
        waits.could_displace.unwrap().violated_budgets
    };
    let scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: s, namespace: default}\n\
                  spec: {maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n";
    let deployed = || deployed(3, "maxUnavailable: 1");
    let broken_record = deployed()
        .put("desired/horizontalpodautoscalers/default/s", scaler)
        .put(
            "actual/horizontalpodautoscalers/default/s",
            "desiredReplicas: [4",
        );
    let broken_document = deployed().put("desired/horizontalpodautoscalers/default/s", "spec: [");
    for store in [broken_record, broken_document] {
        assert_eq!(violated(&store), 0, "nothing was decided");
        let before = store.put("actual/deployments/default/web", "desiredReplicas: 4\n");
        assert_eq!(violated(&before), 1);
    }
}

#[test]
fn the_new_pods_of_a_deployment_count_for_it() {
    let mut proposal = deployed(3, "maxUnavailable: 1").proposal();
    let more = deployment(4, "1").replace("{name: web,", "{name: web, uid: d1,");
    proposal.apply("deployments", &key("web"), &more).unwrap();
    let plan = proposal.plan(0);
    let of_web = plan.waiting.iter().map(|w| w.owner.as_deref());
    assert!(
        of_web.clone().any(|o| o == Some("deployment/web")),
        "{plan:?}"
    );
    // Four are wanted, three are there: whoever displaces one of them breaks the budget.
    let p = plan.placed.iter().find(|p| p.pod == "default/p").unwrap();
    assert_eq!(p.violated_budgets, 1);
}

fn range(limits: &str) -> String {
    format!(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {{name: r, namespace: default}}\nspec: {{limits: [{{type: Container, {limits}}}]}}\n"
    )
}

const PLAIN: &str = "containers: [{name: c, image: host}]";

fn bare_deployment(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: default}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template: {{metadata: {{labels: {{app: web}}}}, spec: {{{PLAIN}}}}}\n"
    )
}

#[test]
fn pods_are_planned_with_what_limit_ranges_give_them() {
    let given = range("defaultRequest: {cpu: 1500m}");
    let mut proposal = Store::new().node("n1", "'2'", "").proposal();
    proposal.apply("limitranges", &key("r"), &given).unwrap();
    proposal
        .apply("pods", &key("a"), &pod("a", "", PLAIN))
        .unwrap();
    proposal
        .apply("deployments", &key("web"), &bare_deployment(1))
        .unwrap();
    let made = proposal.world().pods[&key("a")].pod.clone().unwrap();
    let annotation = made.metadata.annotations.get("kubernetes.io/limit-ranger");
    assert!(annotation.is_some_and(|said| said.contains("cpu request")));
    let plan = proposal.plan(0);
    assert_eq!(
        (plan.placed.len(), plan.waiting.len()),
        (1, 1),
        "there is room for one with 1500m: {plan:?}"
    );
}

#[test]
fn what_limit_ranges_forbid_is_not_planned() {
    let mut proposal = Store::new()
        .node("n1", "'2'", "")
        .put("desired/limitranges/default/r", range("max: {cpu: 500m}"))
        .proposal();
    let refused = proposal
        .apply("pods", &key("a"), &pod("a", "", &cpu("1")))
        .unwrap_err();
    assert!(
        matches!(&refused, ProposalError::Forbidden(why) if why.starts_with("pods are forbidden: ")),
        "{refused}"
    );
    proposal
        .apply("deployments", &key("web"), &deployment(3, "1"))
        .unwrap();
    let plan = proposal.plan(0);
    assert!(
        plan.placed.is_empty() && plan.waiting.is_empty(),
        "{plan:?}"
    );
    assert!(
        plan.notes[0].starts_with("deployment default/web: 3 of its pods would not be created"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn object_counts_let_in_what_there_is_room_for() {
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: default}\nspec: {hard: {pods: 3}}\n";
    let mut proposal = Store::new()
        .node("n1", "'8'", "")
        .put("desired/resourcequotas/default/q", quota)
        .pod("old", &cpu("1"))
        .proposal();
    proposal
        .apply("deployments", &key("web"), &deployment(5, "1"))
        .unwrap();
    let refused = proposal
        .apply("pods", &key("a"), &pod("a", "", &cpu("1")))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "pods are forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
    );
    let plan = proposal.plan(0);
    assert_eq!(plan.placed.len(), 3, "{plan:?}");
    assert!(
        plan.notes[0].starts_with("deployment default/web: 3 of its pods would not be created"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn claims_pass_the_door_as_well() {
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: default}\nspec: {hard: {requests.storage: 1Gi}}\n";
    let mut proposal = Store::new()
        .put("desired/resourcequotas/default/q", quota)
        .put("desired/persistentvolumeclaims/default/data", CLAIM)
        .proposal();
    // The same again takes nothing more.
    proposal
        .apply("persistentvolumeclaims", &key("data"), CLAIM)
        .unwrap();
    let more = CLAIM.replace("name: data", "name: more");
    let refused = proposal
        .apply("persistentvolumeclaims", &key("more"), &more)
        .unwrap_err();
    assert!(
        refused.to_string().contains("exceeded quota: q"),
        "{refused}"
    );
}
