//! The rules about where pods may run, and those of the kinds about placing.

use super::findings;
use crate::core::{Pod, ResourceQuota};
use crate::placement::{PodGroup, Reservation, SchedulerProfile};
use crate::policy::PodDisruptionBudget;
use crate::scheduling::PriorityClass;

fn pod(lines: &str) -> Vec<String> {
    findings::<Pod>(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: c, image: host}}], {lines}}}}}"
    ))
}

fn container(fields: &str) -> Vec<String> {
    findings::<Pod>(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: c, image: host, {fields}}}]}}}}"
    ))
}

/// Checks that what is found begins with `wanted`; nothing is found when that is empty.
fn check(what: &str, found: &[String], wanted: &str) {
    if wanted.is_empty() {
        assert_eq!(found, &[] as &[String], "{what}");
    } else {
        assert!(
            found.iter().any(|f| f.starts_with(wanted)),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn spread_constraints_are_checked() {
    const AT: &str = "spec.topologySpreadConstraints[0]";
    let base = "maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule";
    let keys = "labelSelector: {matchLabels: {app: a}}, matchLabelKeys:";
    for (fields, wanted) in [
        (base.to_owned(), String::new()),
        (
            base.replace('1', "0"),
            format!("{AT}.maxSkew: 0 is too small"),
        ),
        (base.replace('1', "-3"), format!("{AT}.maxSkew: -3")),
        (
            base.replace("zone", "''"),
            format!("{AT}.topologyKey: must not be empty"),
        ),
        (
            base.replace("zone", "a b"),
            format!("{AT}.topologyKey: \"a b\""),
        ),
        (format!("{base}, minDomains: 2"), String::new()),
        (
            format!("{base}, minDomains: 0"),
            format!("{AT}.minDomains: 0"),
        ),
        (
            format!("{base}, minDomains: 2").replace("DoNotSchedule", "ScheduleAnyway"),
            format!("{AT}.minDomains: has no meaning"),
        ),
        (
            format!("{base}, nodeTaintsPolicy: Maybe"),
            format!("{AT}.nodeTaintsPolicy: \"Maybe\" is not one of"),
        ),
        (
            format!("{base}, nodeAffinityPolicy: honor"),
            format!("{AT}.nodeAffinityPolicy: \"honor\" is not one of"),
        ),
        (
            format!("{base}, matchLabelKeys: [a]"),
            format!("{AT}.matchLabelKeys: has no meaning without"),
        ),
        (format!("{base}, {keys} [rev]"), String::new()),
        (
            format!("{base}, {keys} [app]"),
            format!("{AT}.matchLabelKeys[0]: \"app\" is in the labelSelector"),
        ),
        (
            format!("{base}, labelSelector: {{matchExpressions: [{{key: a, operator: In}}]}}"),
            format!("{AT}.labelSelector.matchExpressions[0].values: operator"),
        ),
        (
            format!("{base}}}, {{{base}"),
            "spec.topologySpreadConstraints[1]: another constraint".into(),
        ),
        (
            format!(
                "{base}}}, {{{}",
                base.replace("DoNotSchedule", "ScheduleAnyway")
            ),
            String::new(),
        ),
    ] {
        let found = pod(&format!("topologySpreadConstraints: [{{{fields}}}]"));
        check(&fields, &found, &wanted);
    }
}

#[test]
fn pod_affinity_terms_are_checked() {
    const AT: &str =
        "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]";
    let selector = "labelSelector: {matchLabels: {app: a}}";
    for (term, wanted) in [
        ("topologyKey: zone".to_owned(), ""),
        ("topologyKey: ''".into(), ".podAffinityTerm.topologyKey: must not be empty"),
        (
            "topologyKey: zone, namespaces: [Not_A_Name]".into(),
            ".podAffinityTerm.namespaces[0]: \"Not_A_Name\"",
        ),
        (
            "topologyKey: zone, namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}".into(),
            ".podAffinityTerm.namespaceSelector.matchExpressions[0].values: ",
        ),
        (
            "topologyKey: zone, mismatchLabelKeys: [a]".into(),
            ".podAffinityTerm.mismatchLabelKeys: has no meaning without",
        ),
        (
            format!("topologyKey: zone, {selector}, matchLabelKeys: [app]"),
            ".podAffinityTerm.matchLabelKeys[0]: \"app\" is in the labelSelector",
        ),
        // Further requirements on the same label make sense when it must differ.
        (format!("topologyKey: zone, {selector}, mismatchLabelKeys: [app]"), ""),
        (
            format!("topologyKey: zone, {selector}, matchLabelKeys: [b], mismatchLabelKeys: [b]"),
            ".podAffinityTerm.mismatchLabelKeys[0]: \"b\" is in matchLabelKeys",
        ),
    ] {
        let found = pod(&format!(
            "affinity: {{podAntiAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: \
             [{{weight: 100, podAffinityTerm: {{{term}}}}}]}}}}"
        ));
        let wanted = if wanted.is_empty() { String::new() } else { format!("{AT}{wanted}") };
        check(&term, &found, &wanted);
    }
    for weight in ["0", "101", "-1"] {
        let found = pod(&format!(
            "affinity: {{podAntiAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: \
             [{{weight: {weight}, podAffinityTerm: {{topologyKey: a}}}}]}}}}"
        ));
        check(
            weight,
            &found,
            &format!("{AT}.weight: {weight} is not between"),
        );
    }
}

#[test]
fn gates_priorities_and_profiles_are_checked() {
    for (lines, wanted) in [
        ("schedulingGates: [{name: a.example/b}]", ""),
        (
            "schedulingGates: [{name: a}, {name: a}]",
            "spec.schedulingGates[1].name: another gate",
        ),
        (
            "schedulingGates: [{name: ''}]",
            "spec.schedulingGates[0].name: ",
        ),
        (
            "schedulingGates: [{name: a}], nodeName: n1",
            "spec.nodeName: cannot be set while",
        ),
        ("priority: 1000000000", ""),
        (
            "priority: 1000000001",
            "spec.priority: 1000000001 is too large",
        ),
        (
            "priority: 2000001000, priorityClassName: system-node-critical",
            "",
        ),
        ("priority: -2147483648", ""),
        ("priorityClassName: Not_A_Name", "spec.priorityClassName: "),
        ("schedulerName: a/b", "spec.schedulerName: \"a/b\""),
        ("overhead: {cpu: -1}", "spec.overhead.cpu: -1 is negative"),
        (
            "hostNetwork: true, initContainers: [{name: i, image: host, ports: [{containerPort: 80, hostPort: 81}]}]",
            "spec.initContainers[0].ports[0].hostPort: must be the containerPort",
        ),
    ] {
        check(lines, &pod(lines), wanted);
    }
}

#[test]
fn amounts_that_no_node_has_or_can_divide_are_refused() {
    const AT: &str = "spec.containers[0].resources";
    for (resources, wanted) in [
        (
            "{requests: {cpu: 100m, memory: 1Gi, ephemeral-storage: 1Ti}}",
            "",
        ),
        (
            "{requests: {memory: 9Pi}}",
            ".requests.memory: 9Pi is more than any node",
        ),
        ("{limits: {cpu: 9223372036854775807}}", ".limits.cpu: "),
        (
            "{requests: {cpu: -100m}}",
            ".requests.cpu: -100m is negative",
        ),
        (
            "{requests: {pods: 1}}",
            ".requests.pods: \"pods\" is not cpu",
        ),
        ("{limits: {example.com/gpu: 2}}", ""),
        (
            "{limits: {example.com/gpu: 500m}}",
            ".limits[\"example.com/gpu\"]: 500m is not a whole",
        ),
        (
            "{requests: {example.com/gpu: 2}}",
            ".requests[\"example.com/gpu\"]: needs a limit",
        ),
        (
            "{requests: {example.com/gpu: 1}, limits: {example.com/gpu: 2}}",
            ".requests[\"example.com/gpu\"]: must equal the limit",
        ),
        ("{limits: {cpu: 1, hugepages-2Mi: 4Mi}}", ""),
        ("{limits: {hugepages-2Mi: 4Mi}}", ": huge pages need"),
        (
            "{limits: {cpu: 1, hugepages-2Mi: 3Mi}}",
            ".limits.hugepages-2Mi: 3Mi is not a multiple",
        ),
        (
            "{limits: {cpu: 1, hugepages-big: 3Mi}}",
            ".limits.hugepages-big: \"big\" is not the size",
        ),
    ] {
        let wanted = if wanted.is_empty() {
            String::new()
        } else {
            format!("{AT}{wanted}")
        };
        check(
            resources,
            &container(&format!("resources: {resources}")),
            &wanted,
        );
    }
    let ports = |list: &str| container(&format!("ports: [{list}]"));
    check(
        "ip",
        &ports("{containerPort: 1, hostPort: 1, hostIP: nowhere}"),
        "spec.containers[0].ports[0].hostIP: \"nowhere\" is not",
    );
    check(
        "two",
        &ports("{containerPort: 1, hostPort: 0}, {containerPort: 2, hostPort: 0}"),
        "",
    );
}

#[test]
fn the_kinds_about_placing_are_checked() {
    fn of<K: crate::Kind>(name: &str, body: &str) -> Vec<String> {
        findings::<K>(&format!(
            "{{apiVersion: {}, kind: {}, metadata: {{name: {name}}}, {body}}}",
            K::API_VERSION,
            K::KIND
        ))
    }
    for (name, body, wanted) in [
        ("high", "value: 1000000000, globalDefault: true", ""),
        (
            "high",
            "value: 1000000001",
            "value: 1000000001 is too large",
        ),
        (
            "system-mine",
            "value: 1",
            "metadata.name: \"system-mine\" begins with",
        ),
        ("system-node-critical", "value: 2000001000", ""),
        (
            "system-node-critical",
            "value: 5",
            "value: 5 is not 2000001000",
        ),
    ] {
        check(body, &of::<PriorityClass>(name, body), wanted);
    }
    for (spec, wanted) in [
        ("minAvailable: 50%", ""),
        ("maxUnavailable: 0", ""),
        (
            "minAvailable: 1, maxUnavailable: 1",
            "spec.maxUnavailable: there is a minAvailable",
        ),
        ("selector: {}", "spec: needs minAvailable or maxUnavailable"),
        ("minAvailable: -1", "spec.minAvailable: -1 is too small"),
        ("minAvailable: 101%", "spec.minAvailable: 101% is more"),
        (
            "maxUnavailable: few",
            "spec.maxUnavailable: \"few\" is neither",
        ),
    ] {
        let body = format!("spec: {{{spec}}}");
        check(spec, &of::<PodDisruptionBudget>("b", &body), wanted);
    }
    for (spec, wanted) in [
        (
            "hard: {requests.cpu: 1, limits.memory: 1Gi, pods: 4, count/deployments.apps: 2, requests.example.com/gpu: 2}",
            "",
        ),
        ("hard: {cpus: 1}", "spec.hard.cpus: \"cpus\" is not counted"),
        (
            "hard: {limits.example.com/gpu: 1}",
            "spec.hard[\"limits.example.com/gpu\"]: ",
        ),
        ("hard: {cpu: -1}", "spec.hard.cpu: -1 is negative"),
        ("hard: {pods: 500m}", "spec.hard.pods: 500m is not a whole"),
        (
            "hard: {cpu: 1}, scopes: [BestEffort]",
            "spec.scopes[0]: the scope BestEffort has no meaning for cpu",
        ),
        (
            "hard: {services: 1}, scopes: [Terminating]",
            "spec.scopes[0]: the scope Terminating has no meaning for services",
        ),
        (
            "hard: {pods: 1}, scopes: [BestEffort, NotBestEffort]",
            "spec.scopes: no pod is in both",
        ),
        (
            "scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In}]}",
            "spec.scopeSelector.matchExpressions[0].values: ",
        ),
        (
            "scopeSelector: {matchExpressions: [{scopeName: BestEffort, operator: NotIn, values: [a]}]}",
            "spec.scopeSelector.matchExpressions[0].operator: must be Exists",
        ),
    ] {
        let body = format!("spec: {{{spec}}}");
        check(spec, &of::<ResourceQuota>("q", &body), wanted);
    }
    for (spec, wanted) in [
        ("minMember: 3, scheduleTimeoutSeconds: 10", ""),
        ("minMember: 0", "spec.minMember: 0 is too small"),
        (
            "minMember: 2147483647",
            "spec.minMember: 2147483647 is too large",
        ),
        (
            "minMember: 1, scheduleTimeoutSeconds: 0",
            "spec.scheduleTimeoutSeconds: 0",
        ),
    ] {
        let body = format!("spec: {{{spec}}}");
        check(spec, &of::<PodGroup>("g", &body), wanted);
    }
    let owners = "owners: {selector: {matchLabels: {app: a}}}";
    for (spec, wanted) in [
        (
            "resources: {cpu: 2, example.com/gpu: 1}, count: 3, ttlSeconds: 60",
            "",
        ),
        ("resources: {}", "spec.resources: needs something"),
        ("resources: {cpu: 0}", "spec.resources: needs something"),
        ("resources: {cpu: -1}", "spec.resources.cpu: -1 is negative"),
        ("resources: {cpu: 1}, count: 0", "spec.count: 0"),
        ("resources: {cpu: 1}, ttlSeconds: 0", "spec.ttlSeconds: 0"),
        (
            "resources: {cpu: 1}, nodeName: n1, nodeSelector: {a: b}",
            "spec.nodeSelector: there is a nodeName",
        ),
        (
            "resources: {cpu: 1}, affinity: {podAffinity: {}}",
            "spec.affinity.podAffinity: a reservation is not placed by other pods",
        ),
        (
            "resources: {cpu: 1}, tolerations: [{operator: Equal}]",
            "spec.tolerations[0].operator: ",
        ),
    ] {
        let body = format!("spec: {{{owners}, {spec}}}");
        check(spec, &of::<Reservation>("r", &body), wanted);
    }
    for (name, spec, wanted) in [
        (
            "batch",
            "strategy: MostAllocated, weights: {podAffinity: 100, imageLocality: 0}",
            "",
        ),
        (
            "batch",
            "weights: {resources: 101}",
            "spec.weights.resources: 101 is too large",
        ),
        (
            "batch",
            "weights: {topologySpread: -1}",
            "spec.weights.topologySpread: -1 is too small",
        ),
        (
            "default-scheduler",
            "strategy: Balanced",
            "metadata.name: \"default-scheduler\" is the built-in",
        ),
    ] {
        let body = format!("spec: {{{spec}}}");
        check(spec, &of::<SchedulerProfile>(name, &body), wanted);
    }
}
