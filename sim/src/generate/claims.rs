//! Claims of StatefulSets in a standard scenario, and users who delete them. By luck of their own, which leaves
//! everything else of a seed as it is.

use fastrand::Rng;
use serde_json::{Value, json};

use super::FAULTS_UNTIL;
use crate::fnv::Fnv;
use crate::scenario::{Event, ScenarioSpec, Time};

/// Gives claims to the StatefulSets of half of the seeds that have some.
pub(super) fn add(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "claims"));
    if rng.bool() {
        return;
    }
    let mut policy = || ["Retain", "Delete"][rng.usize(0..2)];
    let policy = json!({"whenDeleted": policy(), "whenScaled": policy()});
    let manifests = spec.timeline.iter_mut().flat_map(|event| &mut event.apply);
    let mut names = Vec::new();
    for set in manifests.filter(|m| m["kind"] == "StatefulSet") {
        names.extend(set["metadata"]["name"].as_str().map(str::to_owned));
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = policy.clone();
        set["spec"]["volumeClaimTemplates"] = json!([template()]);
    }
    names.dedup();
    for name in names {
        for _ in 0..rng.u32(0..=3) {
            let claim = format!("data-{name}-{}", rng.u32(0..6));
            spec.timeline.push(Event {
                at: Time::milliseconds(rng.u64(9_000..=FAULTS_UNTIL)),
                delete: vec![format!("persistentvolumeclaims/default/{claim}")],
                ..Event::default()
            });
        }
    }
}

fn template() -> Value {
    json!({
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    })
}
