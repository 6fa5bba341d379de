//! Rollouts of every sort in a standard scenario: strategies, bounds, deadlines and histories of any kind, pauses,
//! partitions, and templates whose pods are broken, which are to be taken back. By luck of their own, which leaves
//! everything else of a seed as it is.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};
use setpoint_apis::apps::{PROGRESS_DEADLINE, ROLLBACK_ON_FAILURE};

use super::workloads::applied;
use super::{FAULTS_UNTIL, LONGEST_FAULT};
use crate::fnv::Fnv;
use crate::pods::BROKEN;
use crate::scenario::{Event, Network, ScenarioSpec, Time};

/// Until when, in milliseconds, what was good before is kept: histories become shorter then, and it is quiet.
const KEPT_UNTIL: u64 = FAULTS_UNTIL + 2 * LONGEST_FAULT + 145_000;

/// How many templates there are of a workload.
const VERSIONS: u32 = 4;

/// Adds them to a third of the seeds.
pub(super) fn add(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "rollouts"));
    if rng.u32(0..3) > 0 {
        return;
    }
    let deployment = Workload::draw(&mut rng, "Deployment", "app");
    deployment.add(&mut rng, spec);
    if rng.bool() {
        Workload::draw(&mut rng, "StatefulSet", "store").add(&mut rng, spec);
    }
    if rng.u32(0..3) == 0 {
        Workload::draw(&mut rng, "DaemonSet", "probe").add(&mut rng, spec);
    }
    spec.timeline.push(Event {
        at: Time::milliseconds(KEPT_UNTIL),
        network: Some(Network::default()),
        ..Event::default()
    });
}

/// A workload, but for what changes of it.
struct Workload {
    kind: &'static str,
    name: &'static str,
    manifest: Value,
    /// How its templates are broken.
    broken: Vec<Option<&'static str>>,
    most: u32,
}

/// What changes of a workload.
struct Wanted {
    replicas: u32,
    version: u32,
    paused: bool,
    partition: u32,
}

impl Workload {
    fn draw(rng: &mut Rng, kind: &'static str, name: &'static str) -> Self {
        let ready = rng.u32(0..=2);
        let deadline = ready + rng.u32(6..=15);
        let mut annotations = json!({});
        if rng.u32(0..8) == 0 {
            annotations[ROLLBACK_ON_FAILURE] = json!("false");
        }
        let mut spec = json!({
            "selector": {"matchLabels": {"app": name}},
            "minReadySeconds": ready,
            "revisionHistoryLimit": rng.u32(0..=3),
        });
        let (field, value) = match kind {
            "Deployment" => {
                spec["progressDeadlineSeconds"] = json!(deadline);
                ("strategy", strategy(rng))
            }
            "StatefulSet" => {
                annotations[PROGRESS_DEADLINE] = json!(deadline.to_string());
                let policy = ["Parallel", "OrderedReady"][rng.usize(0..2)];
                spec["podManagementPolicy"] = json!(policy);
                let most = json!({"maxUnavailable": rng.u32(1..=2)});
                ("updateStrategy", json!({"rollingUpdate": most}))
            }
            _ => {
                annotations[PROGRESS_DEADLINE] = json!(deadline.to_string());
                let rolling = match rng.bool() {
                    true => json!({"maxUnavailable": bound(rng, 1)}),
                    false => json!({"maxUnavailable": 0, "maxSurge": bound(rng, 1)}),
                };
                ("updateStrategy", json!({"rollingUpdate": rolling}))
            }
        };
        spec[field] = value;
        // The first one seldom is, because then there is nothing to go back to.
        let broken = (1..=VERSIONS).map(|version| {
            let how = ["crashes", "falters", "unready"][rng.usize(0..3)];
            let one_of = if version == 1 { 12 } else { 2 };
            (rng.u32(0..one_of) == 0).then_some(how)
        });
        Self {
            kind,
            name,
            broken: broken.collect(),
            most: rng.u32(1..=6),
            manifest: json!({
                "apiVersion": "apps/v1",
                "kind": kind,
                "metadata": {"name": name, "namespace": "default", "annotations": annotations},
                "spec": spec,
            }),
        }
    }

    fn manifest(&self, wanted: &Wanted) -> Value {
        let version = wanted.version;
        let mut template = json!({
            "metadata": {"labels": {"app": self.name}},
            "spec": {"containers": [{
                "name": "main",
                "image": format!("example/{}:{version}", self.name),
            }]},
        });
        let broken = self.broken.iter().zip(1..).find(|(_, v)| *v == version);
        if let Some((Some(how), _)) = broken {
            template["metadata"]["annotations"] = json!({BROKEN: how});
        }
        let mut manifest = self.manifest.clone();
        let spec = &mut manifest["spec"];
        spec["template"] = template;
        match self.kind {
            "Deployment" => {
                spec["replicas"] = json!(wanted.replicas);
                spec["paused"] = json!(wanted.paused);
            }
            "StatefulSet" => {
                spec["replicas"] = json!(wanted.replicas);
                spec["updateStrategy"]["rollingUpdate"]["partition"] = json!(wanted.partition);
            }
            _ => {}
        }
        manifest
    }

    /// It is there, is changed, and is neither paused nor kept from being rolled out in the end.
    fn add(&self, rng: &mut Rng, spec: &mut ScenarioSpec) {
        let mut wanted = Wanted {
            replicas: rng.u32(1..=self.most),
            version: 1,
            paused: false,
            partition: 0,
        };
        applied(spec, rng.u64(0..=8_000), vec![self.manifest(&wanted)]);
        let mut times: Vec<_> = (0..rng.u32(1..=4))
            .map(|_| rng.u64(10_000..=FAULTS_UNTIL))
            .collect();
        times.sort_unstable();
        for at in times {
            if self.kind == "Deployment" && rng.u32(0..4) == 0 {
                wanted.replicas = rng.u32(0..=self.most);
                let name = format!("default/{}", self.name);
                spec.timeline.push(Event {
                    at: Time::milliseconds(at),
                    scale: BTreeMap::from([(name, wanted.replicas)]),
                    ..Event::default()
                });
                continue;
            }
            wanted.version = rng.u32(1..=VERSIONS);
            wanted.paused = rng.u32(0..6) == 0;
            wanted.partition = match rng.u32(0..6) {
                0 => rng.u32(0..=self.most),
                _ => 0,
            };
            applied(spec, at, vec![self.manifest(&wanted)]);
        }
        if wanted.paused || wanted.partition > 0 {
            (wanted.paused, wanted.partition) = (false, 0);
            let at = FAULTS_UNTIL + rng.u64(0..=5_000);
            applied(spec, at, vec![self.manifest(&wanted)]);
        }
    }
}

fn strategy(rng: &mut Rng) -> Value {
    match rng.u32(0..4) {
        0 => json!({"type": "Recreate"}),
        1 => json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": bound(rng, 1)}}),
        2 => json!({"rollingUpdate": {"maxSurge": bound(rng, 1), "maxUnavailable": 0}}),
        _ => json!({"rollingUpdate": {"maxSurge": bound(rng, 0), "maxUnavailable": bound(rng, 1)}}),
    }
}

/// A number or a percentage.
fn bound(rng: &mut Rng, least: u32) -> Value {
    match rng.bool() {
        true => json!(rng.u32(least..=3)),
        false => json!(["10%", "34%", "100%"][rng.usize(0..3)]),
    }
}
