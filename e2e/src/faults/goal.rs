//! `convergence`: every pod that is wanted runs, once, and nothing else does: in the store, and as processes.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::apps::{Deployment, DeploymentStatus};
use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_store::list::{List, list_all};
use setpoint_store::{SharedStore, StoreError};

use super::recorder::PREFIX;
use crate::cluster::command_line;

#[derive(Default)]
struct State {
    deployments: BTreeMap<ObjectKey, (i64, Option<DeploymentStatus>)>,
    /// With the Deployment that each belongs to, as its label says.
    pods: BTreeMap<ObjectKey, Option<String>>,
    bindings: BTreeMap<ObjectKey, Binding>,
    records: BTreeMap<ObjectKey, Vec<(String, PodActual)>>,
    work: BTreeSet<(ObjectKey, String)>,
    unreadable: Vec<String>,
}

/// What is missing or too much; empty when actual matches desired. Of processes those count that `sleep` for `marker`
/// seconds.
///
/// # Errors
/// When etcd does not answer.
pub async fn unmet(store: &SharedStore, marker: &str) -> Result<Vec<String>, StoreError> {
    let keyspace = Keyspace::default();
    let (all, _) = list_all(&**store, List::new(PREFIX.0, PREFIX.1)).await?;
    let mut state = State::default();
    for kv in &all {
        if let Ok(key) = keyspace.split(&kv.key)
            && let Err(error) = state.take(&key, &kv.value)
        {
            state.unreadable.push(format!("{}: {error}", kv.key));
        }
    }
    let mut unmet = state.unmet();
    let (running, wanted) = (pids(marker).len(), state.pods.len());
    if running != wanted {
        unmet.push(format!("{running} processes run for {wanted} pods"));
    }
    Ok(unmet)
}

/// The processes that `sleep` for `marker` seconds.
pub fn pids(marker: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    let sleeps = pids.filter(|pid: &i32| {
        let words = command_line(*pid);
        let program = words.first().is_some_and(|p| p.ends_with("sleep"));
        program && words.get(1).is_some_and(|arg| arg == marker)
    });
    sleeps.collect()
}

/// The command line of a process's parent.
pub(super) fn supervisor(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The parent is the second field after the name, which stands in parentheses.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let parent = rest.split_whitespace().nth(1).and_then(|p| p.parse().ok());
    parent.map_or_else(String::new, |p| command_line(p).join(" "))
}

impl State {
    fn take(&mut self, key: &Key<'_>, value: &[u8]) -> Result<(), document::DecodeError> {
        match key {
            Key::Desired("deployments", object) => {
                let deployment: Deployment = document::decode_keyed(object, value)?;
                let replicas = deployment.spec.replicas.unwrap_or(1);
                self.deployments.entry(object.clone()).or_default().0 = replicas.into();
            }
            Key::Actual("deployments", object) => {
                let status = document::decode_value(value)?;
                self.deployments.entry(object.clone()).or_default().1 = Some(status);
            }
            Key::Desired("pods", object) => {
                let pod: Pod = document::decode_keyed(object, value)?;
                let app = pod.metadata.labels.get("app").map(|app| app.to_string());
                self.pods.insert(object.clone(), app);
            }
            Key::Binding(object) => {
                let binding = document::decode_value(value)?;
                self.bindings.insert(object.clone(), binding);
            }
            Key::NodePod(node, object) => {
                let record = document::decode_value(value)?;
                let records = self.records.entry(object.clone()).or_default();
                records.push(((*node).to_owned(), record));
            }
            Key::WorkPod(node, object) => {
                self.work.insert((object.clone(), (*node).to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    fn unmet(&self) -> Vec<String> {
        let mut unmet = self.unreadable.clone();
        for (name, (replicas, status)) in &self.deployments {
            let of = self.pods.values().flatten();
            let pods = of.filter(|app| **app == *name.name).count();
            let available = status.as_ref().and_then(|s| s.available_replicas);
            let available = i64::from(available.unwrap_or(0));
            if i64::try_from(pods) != Ok(*replicas) || available != *replicas {
                unmet.push(format!(
                    "deployment {name}: {replicas} wanted, {pods} pods, {available} said to be available"
                ));
            }
        }
        for pod in self.pods.keys() {
            if let Some(why) = self.not_running(pod) {
                unmet.push(format!("pod {pod} {why}"));
            }
        }
        let bound = self.bindings.keys().map(|pod| ("binding", pod));
        let recorded = self.records.iter().filter(|(_, at)| !at.is_empty());
        let recorded = recorded.map(|(pod, _)| ("record", pod));
        let orphans = bound.chain(recorded);
        let orphans = orphans.filter(|(_, pod)| !self.pods.contains_key(*pod));
        unmet.extend(orphans.map(|(what, pod)| format!("{what} of {pod}, which nobody wants")));
        for (pod, node) in &self.work {
            if self.bindings.get(pod).is_none_or(|b| b.node != *node) {
                unmet.push(format!("work of {pod} on {node}, where it is not bound"));
            }
        }
        unmet
    }

    fn not_running(&self, pod: &ObjectKey) -> Option<String> {
        let Some(binding) = self.bindings.get(pod) else {
            return Some("is not bound".to_owned());
        };
        if binding.withdrawn.is_some() {
            return Some(format!("is being withdrawn from {}", binding.node));
        }
        let records = self.records.get(pod).map(Vec::as_slice);
        match records.unwrap_or_default() {
            [(node, record)] if *node == binding.node => {
                let runs = record.stage == PodStage::Running && record.is_ready();
                let as_bound = record.placement == binding.placement;
                (!runs || !as_bound).then(|| {
                    format!(
                        "is {:?} on {node} as placement {}, bound as {}",
                        record.stage, record.placement, binding.placement
                    )
                })
            }
            records => {
                let nodes: Vec<&str> = records.iter().map(|(node, _)| node.as_str()).collect();
                Some(format!(
                    "is on record at {nodes:?}, bound to {}",
                    binding.node
                ))
            }
        }
    }
}
