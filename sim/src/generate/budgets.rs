//! Disruption budgets, and pods that are to be evicted, in a standard scenario. By luck of their own, which leaves
//! everything else of a seed as it is.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Value, json};

use super::FAULTS_UNTIL;
use super::workloads::applied;
use crate::fnv::Fnv;
use crate::scenario::{Event, ScenarioSpec, Time};

/// Adds them to a third of the seeds.
pub(super) fn add(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "budgets"));
    if rng.u32(0..3) > 0 {
        return;
    }
    for name in workloads(spec) {
        if rng.bool() {
            budget(&mut rng, spec, &name);
        }
    }
    for _ in 0..rng.u32(1..=8) {
        // Now and then all at once, as when many nodes are drained.
        let most = if rng.u32(0..4) == 0 { 30 } else { 4 };
        spec.timeline.push(Event {
            at: Time::milliseconds(rng.u64(2_000..=FAULTS_UNTIL)),
            evict: rng.u32(1..=most),
            ..Event::default()
        });
    }
}

/// What has a number of pods that the label `app` tells from others.
fn workloads(spec: &ScenarioSpec) -> BTreeSet<String> {
    let manifests = spec.timeline.iter().flat_map(|event| &event.apply);
    let names = manifests.filter_map(|manifest| {
        let label = manifest.pointer("/spec/selector/matchLabels/app")?;
        label.as_str().map(str::to_owned)
    });
    names.collect()
}

/// A budget that is there before the pods or comes later, and that some change or delete.
fn budget(rng: &mut Rng, spec: &mut ScenarioSpec, name: &str) {
    applied(spec, rng.u64(0..=15_000), vec![manifest(rng, name)]);
    let later = rng.u64(16_000..=FAULTS_UNTIL);
    match rng.u32(0..6) {
        0 | 1 => applied(spec, later, vec![manifest(rng, name)]),
        2 => spec.timeline.push(Event {
            at: Time::milliseconds(later),
            delete: vec![format!("poddisruptionbudgets/default/{name}")],
            ..Event::default()
        }),
        _ => {}
    }
}

fn manifest(rng: &mut Rng, name: &str) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}}});
    let field = ["minAvailable", "maxUnavailable"][rng.usize(0..2)];
    spec[field] = match rng.bool() {
        true => json!(rng.u32(0..=3)),
        false => json!(["0%", "20%", "50%", "100%"][rng.usize(0..4)]),
    };
    if rng.bool() {
        spec["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
    }
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}
