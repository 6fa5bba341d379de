use std::cmp::Reverse;

use setpoint_apis::core::{Pod, QuotaScope, ResourceQuotaSpec};
use setpoint_apis::document;
use setpoint_apis::quantity::ResourceList;

use super::*;

fn usage(spec: &str) -> Arc<PodUse> {
    let text = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{spec}}}}}");
    Arc::new(PodUse::of(
        &document::decode::<Pod>(text.as_bytes()).unwrap().spec,
    ))
}

fn cpu(request: &str) -> Arc<PodUse> {
    usage(&format!(
        "containers: [{{name: c, image: host, resources: {{requests: {{cpu: '{request}'}}}}}}]"
    ))
}

fn rule(hard: &[(&str, &str)], scopes: Vec<QuotaScope>) -> Rule {
    let hard: ResourceList = hard
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.parse().unwrap()))
        .collect();
    Rule::of(&ResourceQuotaSpec {
        hard,
        scopes,
        scope_selector: None,
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn order(name: &str, created: i64) -> Order {
    Order {
        priority: Reverse(0),
        created,
        pod: key(name),
    }
}

fn with(hard: &[(&str, &str)], scopes: Vec<QuotaScope>) -> Quotas {
    let mut quotas = Quotas::default();
    assert!(quotas.set(&key("q"), rule(hard, scopes)));
    quotas
}

fn used(quotas: &Quotas) -> String {
    let used = quotas.used(&key("q")).unwrap();
    let words: Vec<_> = used.iter().map(|(k, v)| format!("{k}={v}")).collect();
    words.join(",")
}

fn refusal(quotas: &Quotas, usage: &PodUse) -> String {
    quotas
        .admit(&mut Trial::default(), &key("new"), usage)
        .map_or_else(|r| r.message, |()| String::new())
}

#[test]
fn a_pod_over_quota_is_refused_in_kubernetes_words() {
    let mut q = with(&[("requests.cpu", "1"), ("pods", "10")], vec![]);
    q.charge(&key("a"), &cpu("700m"));
    assert_eq!(used(&q), "pods=1,requests.cpu=700m");
    assert_eq!(refusal(&q, &cpu("300m")), "");
    assert_eq!(
        refusal(&q, &cpu("500m")),
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=700m, limited: requests.cpu=1"
    );
    q.discharge(&key("a"));
    assert_eq!(
        (used(&q).as_str(), refusal(&q, &cpu("500m"))),
        ("pods=0,requests.cpu=0", String::new())
    );
}

#[test]
fn charging_twice_counts_once_and_charging_anew_replaces() {
    let mut q = with(&[("cpu", "1")], vec![]);
    for request in ["200m", "200m", "300m"] {
        q.charge(&key("a"), &cpu(request));
    }
    assert_eq!(used(&q), "cpu=300m");
    assert_eq!(
        q.admit(&mut Trial::default(), &key("a"), &cpu("2")),
        Ok(()),
        "it is charged already"
    );
    q.discharge(&key("a"));
    q.discharge(&key("a"));
    assert_eq!(used(&q), "cpu=0");
}

#[test]
fn names_count_what_kubernetes_counts_and_what_is_no_pods_business_is_left_out() {
    let pod = usage(
        "containers: [{name: c, image: host, resources: {requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 2Gi, \
         example.com/gpu: 2}, limits: {cpu: 2, memory: 2Gi, example.com/gpu: 2}}}]",
    );
    for (name, amount) in [
        ("cpu", "1"),
        ("requests.cpu", "1"),
        ("limits.cpu", "2"),
        ("memory", "1Gi"),
        ("limits.memory", "2Gi"),
        ("requests.ephemeral-storage", "2Gi"),
        ("requests.example.com/gpu", "2"),
        ("pods", "1"),
        ("count/pods", "1"),
    ] {
        // The limit is written in bytes' manner where the amount is.
        let limit = if amount.ends_with('i') {
            "100Gi"
        } else {
            "100"
        };
        let mut q = with(&[(name, limit)], vec![]);
        q.charge(&key("a"), &pod);
        assert_eq!(used(&q), format!("{name}={amount}"));
    }
    for name in [
        "services",
        "requests.storage",
        "persistentvolumeclaims",
        "count/secrets",
    ] {
        assert_eq!(rule(&[(name, "1")], vec![]).hard, []);
    }
}

#[test]
fn a_refusal_says_what_why_says_and_whether_waiting_helps() {
    let mut q = with(&[("requests.cpu", "1")], vec![]);
    q.charge(&key("a"), &cpu("600m"));
    let refusal = |usage: &PodUse| {
        let refused = q.admit(&mut Trial::default(), &key("new"), usage);
        let refusal = refused.unwrap_err();
        (refusal.detail, refusal.hope)
    };
    let over = "q: requests.cpu: 500m requested, 600m of 1 used".to_owned();
    assert_eq!(refusal(&cpu("500m")), (over, Hope::Waits));
    assert_eq!(refusal(&cpu("2")).1, Hope::Never, "more than the quota has");
    let silent = refusal(&usage("containers: [{name: c, image: host}]"));
    let unsaid = "q: must specify requests.cpu for: c".to_owned();
    assert_eq!(silent, (unsaid, Hope::Never));
}

#[test]
fn what_a_quota_limits_has_to_be_said_by_every_container() {
    let q = with(
        &[
            ("limits.cpu", "9"),
            ("requests.memory", "9Gi"),
            ("limits.ephemeral-storage", "1"),
        ],
        vec![],
    );
    let pod = usage(
        "containers: [{name: a, image: host, resources: {limits: {memory: 1Gi}}}, \
         {name: b, image: host, resources: {limits: {cpu: 1}}}]",
    );
    assert_eq!(
        refusal(&q, &pod),
        "failed quota: q: must specify limits.cpu for: a; requests.memory for: b"
    );
    let said =
        usage("containers: [{name: a, image: host, resources: {limits: {cpu: 1, memory: 1Gi}}}]");
    assert_eq!(refusal(&q, &said), "");
    let of_pod =
        usage("resources: {limits: {cpu: 1, memory: 1Gi}}, containers: [{name: a, image: host}]");
    assert_eq!(refusal(&q, &of_pod), "", "the pod as a whole says it");
}

#[test]
fn scopes_say_which_pods_a_quota_is_about() {
    let mut q = with(&[("pods", "0")], vec![QuotaScope::BestEffort]);
    assert_eq!(refusal(&q, &cpu("1")), "");
    let nothing = usage("containers: [{name: a, image: host}]");
    assert!(refusal(&q, &nothing).contains("exceeded quota: q, requested: pods=1"));
    q.charge(&key("a"), &cpu("1"));
    assert_eq!(used(&q), "pods=0");
    q.charge(&key("b"), &nothing);
    assert_eq!(used(&q), "pods=1");
}

#[test]
fn a_pod_whose_document_is_gone_takes_what_its_binding_says() {
    let mut q = with(
        &[("cpu", "1"), ("pods", "9")],
        vec![QuotaScope::NotBestEffort],
    );
    let requests = [("cpu".to_owned(), "300m".parse().unwrap())].into();
    q.charge(&key("a"), &Arc::new(PodUse::of_requests(&requests)));
    assert_eq!(used(&q), "cpu=300m,pods=1");
}

#[test]
fn those_who_wait_are_woken_in_order_as_far_as_there_is_room() {
    let mut q = with(&[("cpu", "1")], vec![]);
    q.charge(&key("a"), &cpu("1"));
    q.admitted();
    let (big, small) = (cpu("800m"), cpu("300m"));
    q.wait(order("small-1", 2), small.clone());
    q.wait(order("big", 1), big.clone());
    q.wait(order("small-2", 3), small.clone());
    assert_eq!(q.admitted(), [], "nothing was eased");
    q.discharge(&key("a"));
    assert_eq!(q.admitted(), [order("big", 1)]);
    q.charge(&key("big"), &big);
    assert_eq!(q.admitted(), []);
    q.set(&key("q"), rule(&[("cpu", "2")], vec![]));
    assert_eq!(q.admitted(), [order("small-1", 2), order("small-2", 3)]);
}

#[test]
fn a_quota_that_is_gone_lets_everybody_in_and_costs_nothing() {
    let mut q = with(&[("cpu", "0")], vec![]);
    q.wait(order("a", 1), cpu("1"));
    q.remove(&key("q"));
    assert_eq!(q.admitted(), [order("a", 1)]);
    assert!(!q.covers("default") && q.books.is_empty());
    assert_eq!(q.take_changed(), [key("q")]);
}

#[test]
fn absurd_amounts_come_and_go_without_a_trace() {
    let mut q = with(&[("memory", "32Pi"), ("cpu", "-5")], vec![]);
    let absurd =
        usage("containers: [{name: a, image: host, resources: {requests: {memory: 8Pi, cpu: 1}}}]");
    for n in 0..5 {
        q.charge(&key(&format!("p{n}")), &absurd);
    }
    assert!(refusal(&q, &absurd).contains("exceeded quota"));
    for n in 0..5 {
        q.discharge(&key(&format!("p{n}")));
    }
    assert_eq!(used(&q), "cpu=0,memory=0");
}

#[test]
fn a_pod_that_asks_for_nothing_of_it_is_not_refused_by_an_overdrawn_quota() {
    let mut q = with(&[("requests.example.com/gpu", "1"), ("pods", "9")], vec![]);
    let gpu =
        usage("containers: [{name: a, image: host, resources: {limits: {example.com/gpu: 2}}}]");
    q.charge(&key("a"), &gpu);
    assert_eq!(refusal(&q, &cpu("1")), "");
}

#[test]
fn pods_that_are_tried_together_are_added_up_and_reconsidered_when_one_is_not_bound() {
    let mut q = with(&[("cpu", "1")], vec![]);
    q.admitted();
    let mut trial = Trial::default();
    let usage = cpu("600m");
    assert_eq!(q.admit(&mut trial, &key("a"), &usage), Ok(()));
    assert!(q.admit(&mut trial, &key("b"), &usage).is_err());
    assert_eq!(q.admit(&mut trial, &key("c"), &cpu("400m")), Ok(()));
    q.wait(order("b", 1), usage);
    assert_eq!(q.admitted(), []);
    q.reconsider(trial);
    assert_eq!(q.admitted(), [order("b", 1)]);
}

#[test]
fn nothing_gets_past_a_quota_of_which_nothing_is_known_and_its_namespace_alone_waits() {
    let mut q = Quotas::default();
    q.set(&key("q"), Rule::unknown());
    assert_eq!(
        refusal(&q, &cpu("1")),
        "failed quota: q: its document is not valid"
    );
    let elsewhere = ObjectKey::namespaced("other", "p");
    assert_eq!(
        q.admit(&mut Trial::default(), &elsewhere, &cpu("1")),
        Ok(())
    );
    q.wait(order("a", 1), cpu("1"));
    q.set(&key("q"), rule(&[("cpu", "1")], vec![]));
    assert_eq!(q.admitted(), [order("a", 1)]);
}

#[test]
fn what_a_woken_pod_does_not_take_after_all_is_for_the_next() {
    let mut q = with(&[("requests.cpu", "1")], vec![]);
    q.charge(&key("a"), &cpu("1"));
    for (n, name) in ["b", "c", "d"].into_iter().enumerate() {
        q.wait(order(name, n as i64), cpu("1"));
    }
    assert_eq!(q.admitted(), []);
    q.discharge(&key("a"));
    assert_eq!(q.admitted(), [order("b", 0)]);
    // It is deleted before it is placed.
    q.forgo(&key("b"));
    assert_eq!(q.admitted(), [order("c", 1)]);
    q.charge(&key("c"), &cpu("1"));
    q.forgo(&key("c"));
    assert!(!q.has_eased(), "it took what it was woken for");
}

#[test]
fn when_a_woken_pod_is_refused_again_a_smaller_one_gets_what_is_left() {
    let mut q = with(&[("requests.cpu", "1")], vec![]);
    q.charge(&key("a"), &cpu("1"));
    q.wait(order("large", 1), cpu("1"));
    q.wait(order("small", 2), cpu("500m"));
    q.discharge(&key("a"));
    assert_eq!(q.admitted(), [order("large", 1)]);
    // One that is more important came first.
    q.charge(&key("first"), &cpu("500m"));
    q.wait(order("large", 1), cpu("1"));
    assert_eq!(q.admitted(), [order("small", 2)]);
}

#[test]
fn what_a_group_gives_up_is_for_others_and_groups_that_fail_do_not_wake_one_another_for_ever() {
    let mut q = with(&[("cpu", "1")], vec![]);
    q.charge(&key("a"), &cpu("1"));
    q.wait_in_group(order("g2", 1), cpu("1"));
    q.wait_in_group(order("h2", 2), cpu("1"));
    q.wait(order("single", 3), cpu("500m"));
    q.discharge(&key("a"));
    // One after the other is tried, together with another member that leaves too little of the quota.
    assert_eq!(q.admitted(), [order("g2", 1)]);
    q.wait_in_group(order("g2", 1), cpu("1"));
    assert_eq!(q.admitted(), [order("h2", 2)]);
    q.wait_in_group(order("h2", 2), cpu("1"));
    assert_eq!(q.admitted(), [order("single", 3)]);
    assert!(!q.has_eased());
    // Whatever really changes wakes them again.
    q.forgo(&key("single"));
    assert_eq!(q.admitted(), [order("g2", 1)]);
    // What it was woken for was not enough: the nodes have no room for it.
    q.give_up(&key("g2"));
    assert_eq!(q.admitted(), [order("h2", 2)]);
}
