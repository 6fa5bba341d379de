//! The kinds about placing and about how much may be used or taken down: PriorityClass, PodDisruptionBudget,
//! ResourceQuota, PodGroup, Reservation, SchedulerProfile.

use std::collections::BTreeSet;

use super::{Findings, container, key_path, placing};
use crate::core::{QuotaScope, ResourceQuota, ScopeOperator};
use crate::kind::FieldError;
use crate::names;
use crate::placement::{DEFAULT_SCHEDULER, PodGroup, Reservation, SchedulerProfile, Weights};
use crate::policy::PodDisruptionBudget;
use crate::records::ScorePart;
use crate::scheduling::{HIGHEST_USER_PRIORITY, PriorityClass, SYSTEM_PREFIX, system_priority};

/// The most copies of a reservation, and the most members that a group can wait for: beyond any cluster, and small
/// enough that nothing that is multiplied by it overflows.
const MOST_COPIES: i64 = 100_000;

/// What is wrong with a PriorityClass.
pub fn priority_class(c: &PriorityClass) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &c.metadata, false, names::dns_subdomain);
    let name = &c.metadata.name;
    if name.starts_with(SYSTEM_PREFIX) {
        match system_priority(name) {
            None => f.add(
                "metadata.name",
                format!(
                    "{name:?} begins with {SYSTEM_PREFIX:?}, which is for the system's own classes"
                ),
            ),
            Some(value) if value != c.value => f.add(
                "value",
                format!(
                    "{} is not {value}, which this class of the system has",
                    c.value
                ),
            ),
            Some(_) => {}
        }
        if c.is_global_default() {
            f.add(
                "globalDefault",
                "a class of the system cannot be the default",
            );
        }
    } else {
        f.at_most("value", Some(c.value.into()), HIGHEST_USER_PRIORITY.into());
    }
    f.0
}

/// What is wrong with a PodDisruptionBudget.
pub fn disruption_budget(b: &PodDisruptionBudget) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &b.metadata, true, names::dns_subdomain);
    if b.spec.min_available.is_some() && b.spec.max_unavailable.is_some() {
        f.add(
            "spec.maxUnavailable",
            "there is a minAvailable already; one of the two must go",
        );
    }
    if b.spec.min_available.is_none() && b.spec.max_unavailable.is_none() {
        f.add("spec", "needs minAvailable or maxUnavailable");
    }
    for (path, amount) in [
        ("spec.minAvailable", &b.spec.min_available),
        ("spec.maxUnavailable", &b.spec.max_unavailable),
    ] {
        f.share(path, amount.as_ref(), Some(100));
    }
    if let Some(s) = &b.spec.selector {
        super::selector(&mut f, "spec.selector", s);
    }
    f.0
}

/// What is wrong with a ResourceQuota.
pub fn quota(q: &ResourceQuota) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &q.metadata, true, names::dns_subdomain);
    for (name, amount) in &q.spec.hard {
        let path = key_path("spec.hard", name);
        if !quota_resource(name) {
            f.add(
                path.clone(),
                format!(
                    "{name:?} is not counted by quotas: cpu, memory, ephemeral-storage (also behind requests. and limits.), \
                     pods, services, services.nodeports, services.loadbalancers, configmaps, secrets, \
                     persistentvolumeclaims, requests.storage, requests.example.com/gpu and count/<plural>.<group> are"
                ),
            );
        }
        container::amount(&mut f, &path, amount);
        if counted_whole(name) && !amount.is_whole() {
            f.add(path, format!("{amount} is not a whole number"));
        }
    }
    scopes(&mut f, q);
    f.0
}

/// Whether quotas know a resource.
fn quota_resource(name: &str) -> bool {
    const OBJECTS: &[&str] = &[
        "pods",
        "services",
        "services.nodeports",
        "services.loadbalancers",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "requests.storage",
    ];
    let compute = |n: &str| matches!(n, "cpu" | "memory" | "ephemeral-storage");
    let qualified = |n: &str| n.contains('/') && names::label_key(n).is_ok();
    if OBJECTS.contains(&name) || compute(name) || name.starts_with("hugepages-") {
        return true;
    }
    if let Some(plural) = name.strip_prefix("count/") {
        return names::dns_subdomain(plural).is_ok();
    }
    if let Some(rest) = name.strip_prefix("requests.") {
        return compute(rest) || rest.starts_with("hugepages-") || qualified(rest);
    }
    if let Some(rest) = name.strip_prefix("limits.") {
        return compute(rest);
    }
    // `<class>.storageclass.storage.k8s.io/requests.storage`.
    name.contains(".storageclass.storage.k8s.io/") && qualified(name)
}

/// Whether only whole numbers of a resource make sense.
fn counted_whole(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").unwrap_or(name);
    let plain = plain.strip_prefix("limits.").unwrap_or(plain);
    !matches!(plain, "cpu" | "memory" | "ephemeral-storage" | "storage")
        && !plain.ends_with("/requests.storage")
}

fn scopes(f: &mut Findings, q: &ResourceQuota) {
    let mut seen = BTreeSet::new();
    for (i, scope) in q.spec.scopes.iter().enumerate() {
        let path = format!("spec.scopes[{i}]");
        if !seen.insert(*scope) {
            f.add(path.clone(), format!("{scope} is in the list already"));
        }
        scope_of_resources(f, &path, *scope, q);
    }
    for (i, r) in q
        .spec
        .scope_selector
        .iter()
        .flat_map(|s| &s.match_expressions)
        .enumerate()
    {
        let path = format!("spec.scopeSelector.matchExpressions[{i}]");
        let wants_values = matches!(r.operator, ScopeOperator::In | ScopeOperator::NotIn);
        if r.scope_name != QuotaScope::PriorityClass && r.operator != ScopeOperator::Exists {
            f.add(
                format!("{path}.operator"),
                format!("must be Exists for the scope {}", r.scope_name),
            );
        } else if wants_values && r.values.is_empty() {
            f.add(
                format!("{path}.values"),
                format!("operator {} needs values", r.operator),
            );
        } else if !wants_values && !r.values.is_empty() {
            f.add(
                format!("{path}.values"),
                format!("operator {} takes no values", r.operator),
            );
        }
        scope_of_resources(f, &format!("{path}.scopeName"), r.scope_name, q);
        if r.operator == ScopeOperator::Exists {
            seen.insert(r.scope_name);
        }
    }
    for (a, b) in [
        (QuotaScope::Terminating, QuotaScope::NotTerminating),
        (QuotaScope::BestEffort, QuotaScope::NotBestEffort),
    ] {
        if seen.contains(&a) && seen.contains(&b) {
            f.add(
                "spec.scopes",
                format!("no pod is in both scopes {a} and {b}"),
            );
        }
    }
}

/// A scope selects pods, so a quota with one limits what pods use; of pods without requests it is their number alone.
fn scope_of_resources(f: &mut Findings, path: &str, scope: QuotaScope, q: &ResourceQuota) {
    for name in q.spec.hard.keys().filter(|n| quota_resource(n)) {
        let number = matches!(name.as_str(), "pods" | "count/pods");
        let fits = match scope {
            QuotaScope::BestEffort => number,
            _ => number || pods_use(name),
        };
        if !fits {
            f.add(path, format!("the scope {scope} has no meaning for {name}"));
        }
    }
}

/// Whether pods use a resource (and are not merely one of the objects that are counted).
fn pods_use(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").unwrap_or(name);
    let plain = plain.strip_prefix("limits.").unwrap_or(plain);
    matches!(plain, "cpu" | "memory" | "ephemeral-storage")
        || plain.starts_with("hugepages-")
        || (name.starts_with("requests.") && plain.contains('/'))
}

/// What is wrong with a PodGroup.
pub fn pod_group(g: &PodGroup) -> Vec<FieldError> {
    let mut f = Findings::default();
    // The name is the value of a label of its pods.
    super::metadata(&mut f, &g.metadata, true, names::dns_label);
    f.at_least("spec.minMember", Some(g.spec.min_member), 1);
    f.at_most(
        "spec.minMember",
        Some(g.spec.min_member.into()),
        MOST_COPIES,
    );
    f.at_least(
        "spec.scheduleTimeoutSeconds",
        g.spec.schedule_timeout_seconds,
        1,
    );
    f.0
}

/// What is wrong with a Reservation.
pub fn reservation(r: &Reservation) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &r.metadata, true, names::dns_subdomain);
    let spec = &r.spec;
    super::selector(&mut f, "spec.owners.selector", &spec.owners.selector);
    for (i, ns) in spec.owners.namespaces.iter().enumerate() {
        f.name(
            format!("spec.owners.namespaces[{i}]"),
            ns,
            names::dns_label(ns),
        );
    }
    if let Some(s) = &spec.owners.namespace_selector {
        super::selector(&mut f, "spec.owners.namespaceSelector", s);
    }
    if spec.resources.values().all(crate::Quantity::is_zero) {
        f.add("spec.resources", "needs something to keep");
    }
    container::amounts(&mut f, "spec.resources", &spec.resources);
    f.at_least("spec.count", spec.count, 1);
    f.at_most("spec.count", spec.count.map(Into::into), MOST_COPIES);
    f.at_least("spec.ttlSeconds", spec.ttl_seconds, 1);
    if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        f.name("spec.nodeName", name, names::dns_subdomain(name));
        for (field, there) in [
            ("nodeSelector", !spec.node_selector.is_empty()),
            ("affinity", spec.affinity.is_some()),
        ] {
            if there {
                f.add(
                    format!("spec.{field}"),
                    "there is a nodeName already; one of the two must go",
                );
            }
        }
    }
    super::labels(&mut f, "spec.nodeSelector", &spec.node_selector);
    if let Some(a) = &spec.affinity {
        placing::affinity(&mut f, "spec.affinity", a);
        for (field, there) in [
            ("podAffinity", a.pod_affinity.is_some()),
            ("podAntiAffinity", a.pod_anti_affinity.is_some()),
        ] {
            if there {
                f.add(
                    format!("spec.affinity.{field}"),
                    "a reservation is not placed by other pods; nodeAffinity alone has a meaning",
                );
            }
        }
    }
    placing::tolerations(&mut f, "spec", &spec.tolerations);
    f.0
}

/// What is wrong with a SchedulerProfile.
pub fn scheduler_profile(p: &SchedulerProfile) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &p.metadata, false, names::dns_subdomain);
    if p.metadata.name == DEFAULT_SCHEDULER {
        f.add(
            "metadata.name",
            format!("{DEFAULT_SCHEDULER:?} is the built-in profile, which cannot be changed; choose another name"),
        );
    }
    for part in ScorePart::ALL {
        let weight = p.spec.weights.as_ref().and_then(|w| w.part(part));
        let path = format!("spec.weights.{part}");
        f.at_least(path.clone(), weight, 0);
        f.at_most(path, weight.map(Into::into), Weights::MOST.into());
    }
    f.0
}
