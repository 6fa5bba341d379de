//! What follows from a pod's spec and labels, worked out once for all pods that share them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use setpoint_apis::core::{Pod, PodSpec};
use setpoint_scheduler_core::{Class, Cluster, PodAsk, Profile};

use crate::content::{Uses, uses};
use crate::text;

/// How many specs are remembered: as many Deployments can grow at the same time at full speed.
const MOST: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct SpecInfo {
    spec: Arc<PodSpec>,
    namespace: String,
    labels: BTreeMap<String, String>,
    pub(crate) class: Class,
    pub(crate) uses: Uses,
    text: OnceLock<String>,
}

impl SpecInfo {
    /// The spec as it stands in a work copy.
    pub(crate) fn text(&self) -> &str {
        self.text.get_or_init(|| text::spec(&self.spec))
    }
}

/// The specs that were seen last.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    recent: Vec<Arc<SpecInfo>>,
}

impl Specs {
    /// What follows from the spec and the labels of `pod`.
    pub(crate) fn get(&mut self, pod: &Pod, cluster: &mut Cluster) -> Arc<SpecInfo> {
        let (spec, meta) = (&pod.spec, &pod.metadata);
        let namespace = meta.namespace.as_str();
        let alike = |i: &Arc<SpecInfo>| i.namespace == namespace && i.labels == *meta.labels;
        let same = |i: &Arc<SpecInfo>| Arc::ptr_eq(&i.spec, spec) && alike(i);
        let found = self.recent.iter().position(same).or_else(|| {
            self.recent
                .iter()
                .position(|i| *i.spec == **spec && alike(i))
        });
        if let Some(at) = found {
            // Moves to the front in a few uses; the order in between does not matter.
            self.recent.swap(at, at / 2);
            return self.recent[at / 2].clone();
        }
        let class = cluster.class(&PodAsk {
            namespace,
            labels: &meta.labels,
            spec,
            priority: spec.priority.unwrap_or(0),
            profile: Profile::default(),
        });
        let info = Arc::new(SpecInfo {
            spec: spec.clone(),
            namespace: namespace.into(),
            labels: BTreeMap::clone(&meta.labels),
            class,
            uses: uses(spec),
            text: OnceLock::new(),
        });
        if self.recent.len() < MOST {
            self.recent.push(info.clone());
        } else {
            // Not at the front, so that a stream of single specs does not push out those in use.
            self.recent[MOST / 2] = info.clone();
            self.recent.swap(MOST / 2, MOST - 1);
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(n: usize) -> Pod {
        let scheduler_name = Some(format!("s{n}"));
        Pod {
            spec: Arc::new(PodSpec {
                scheduler_name,
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn equal_specs_are_one_and_few_are_remembered() {
        let (mut specs, mut cluster) = (Specs::default(), Cluster::new());
        let kept = specs.get(&pod(0), &mut cluster);
        assert!(Arc::ptr_eq(&kept, &specs.get(&pod(0), &mut cluster)));
        for n in 1..500 {
            assert_eq!(
                specs.get(&pod(n), &mut cluster).class,
                kept.class,
                "only the name differs"
            );
            assert!(Arc::ptr_eq(&kept, &specs.get(&pod(0), &mut cluster)), "{n}");
        }
        assert_eq!(specs.recent.len(), MOST);
    }
}
