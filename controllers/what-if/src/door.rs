//! What the LimitRanges and the object counts of the quotas of a namespace make of pods and claims that come.
//!
//! The command line asks the same of what it writes, and the controllers of what they create; the rules themselves are in
//! `setpoint_apis::resolve`.

use std::sync::Arc;

use setpoint_apis::core::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSpec, PodTemplateSpec,
    ResourceQuotaSpec,
};
use setpoint_apis::kind::FieldError;
use setpoint_apis::resolve::limits::{self, Given};
use setpoint_apis::resolve::{
    claim_usage, counted_plural, counts_objects, exceeded, excess, pod_object_usage, quota_covers,
};
use setpoint_apis::{Kind, ObjectKey, ResourceList};

use crate::world::World;

/// A template as pods are made of it in a namespace.
pub(crate) struct Furnished {
    /// The template with what LimitRanges give.
    pub(crate) template: PodTemplateSpec,
    given: Vec<Given>,
}

/// A template with what the LimitRanges of a namespace give to its containers.
pub(crate) fn furnished(
    world: &World,
    namespace: &str,
    mut template: PodTemplateSpec,
) -> Furnished {
    let ranges = world.limit_ranges_of(namespace);
    if ranges.is_empty() {
        return Furnished {
            template,
            given: Vec::new(),
        };
    }
    let given = limits::apply(&ranges, Arc::make_mut(&mut template.spec));
    if let Some(said) = limits::annotation(&given) {
        let annotations = &mut template.metadata.annotations;
        annotations.insert(limits::ANNOTATION.into(), said);
    }
    Furnished { template, given }
}

/// How many pods of a template are let in, up to `most`, and why not all.
pub(crate) fn room(
    world: &World,
    namespace: &str,
    pods: &Furnished,
    most: usize,
) -> (usize, Option<String>) {
    if most == 0 {
        return (0, None);
    }
    let spec = &pods.template.spec;
    if let Some(why) = unknown_range(world, namespace) {
        return (0, Some(why));
    }
    let mut found = limits::contradictions(&pods.given, spec);
    found.extend(limits::check(&world.limit_ranges_of(namespace), spec));
    if let Some(why) = outside(Pod::PLURAL, &found) {
        return (0, Some(why));
    }
    if let Some(why) = unknown_quota(world, namespace) {
        return (0, Some(why));
    }
    let one = pod_object_usage(false);
    let mut least = (most, None);
    let quotas = world.quotas.iter();
    let here = quotas.filter(|(key, _)| *key.namespace == *namespace);
    for (key, quota) in here.filter(|(_, q)| quota_covers(&q.spec, spec)) {
        let hard = counted(&quota.spec, Pod::PLURAL);
        if hard.is_empty() {
            continue;
        }
        let mut used = pods_there(world, namespace, |spec| quota_covers(&quota.spec, spec));
        for number in 0..least.0 {
            let over = excess(&hard, &used, &one);
            if !over.is_empty() {
                let why = exceeded(&key.name, &over);
                least = (number, Some(forbidden(Pod::PLURAL, &why)));
                break;
            }
            add(&mut used, &one);
        }
    }
    least
}

/// Whether a claim is let in.
///
/// # Errors
/// Why not.
pub(crate) fn claim(
    world: &World,
    key: &ObjectKey,
    spec: &PersistentVolumeClaimSpec,
) -> Result<(), String> {
    let plural = PersistentVolumeClaim::PLURAL;
    let namespace = &*key.namespace;
    if let Some(why) = unknown_range(world, namespace) {
        return Err(why);
    }
    let found = limits::check_claim(&world.limit_ranges_of(namespace), spec);
    if let Some(why) = outside(plural, &found) {
        return Err(why);
    }
    if let Some(why) = unknown_quota(world, namespace) {
        return Err(why);
    }
    let more = claim_usage(spec);
    let mut used = ResourceList::new();
    // In the place of the one that is there.
    let claims = world.claims.iter().filter(|(other, _)| *other != key);
    for (_, known) in claims.filter(|(other, _)| *other.namespace == *namespace) {
        if let Some(claim) = &known.claim {
            add(&mut used, &claim_usage(&claim.value.spec));
        }
    }
    let quotas = world.quotas.iter();
    let here = quotas.filter(|(quota, _)| *quota.namespace == *namespace);
    for (quota, rule) in here.filter(|(_, q)| counts_objects(&q.spec)) {
        let over = excess(&counted(&rule.spec, plural), &used, &more);
        if !over.is_empty() {
            return Err(forbidden(plural, &exceeded(&quota.name, &over)));
        }
    }
    Ok(())
}

fn outside(plural: &str, found: &[FieldError]) -> Option<String> {
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| forbidden(plural, &all.join("; ")))
}

fn forbidden(plural: &str, why: &str) -> String {
    format!("{plural} are forbidden: {why}")
}

fn unknown_range(world: &World, namespace: &str) -> Option<String> {
    let mut ranges = world.unknown_limit_ranges.iter();
    let range = ranges.find(|key| *key.namespace == *namespace)?;
    Some(unreadable("LimitRange", range))
}

fn unknown_quota(world: &World, namespace: &str) -> Option<String> {
    let mut quotas = world.unknown_quotas.iter();
    let quota = quotas.find(|key| *key.namespace == *namespace)?;
    Some(unreadable("ResourceQuota", quota))
}

fn unreadable(kind: &str, key: &ObjectKey) -> String {
    format!(
        "the {kind} {:?} could forbid it, and its document cannot be read: mend or delete it",
        &*key.name
    )
}

/// What of a quota is about the number of objects of a kind.
fn counted(quota: &ResourceQuotaSpec, plural: &str) -> ResourceList {
    let hard = quota.hard.iter();
    hard.filter(|(name, _)| counted_plural(name) == Some(plural))
        .map(|(name, amount)| (name.clone(), *amount))
        .collect()
}

/// What the pods that are wanted count for.
fn pods_there(world: &World, namespace: &str, covers: impl Fn(&PodSpec) -> bool) -> ResourceList {
    let mut used = ResourceList::new();
    let pods = world.pods.iter();
    for (_, known) in pods.filter(|(key, _)| *key.namespace == *namespace) {
        if known.pod.as_ref().is_some_and(|pod| covers(&pod.spec)) {
            add(&mut used, &pod_object_usage(known.is_finished()));
        }
    }
    used
}

fn add(sum: &mut ResourceList, usage: &ResourceList) {
    for (name, amount) in usage {
        *sum.entry(name.clone()).or_default() += *amount;
    }
}
