//! What follows from a pod's spec, worked out once for all pods that share it.

use std::sync::{Arc, OnceLock};

use setpoint_apis::core::PodSpec;
use setpoint_scheduler_core::{Class, Cluster};

use crate::content::{Uses, uses};
use crate::text;

/// How many specs are remembered: as many Deployments can grow at the same time at full speed.
const MOST: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct SpecInfo {
    spec: Arc<PodSpec>,
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
    /// What follows from `spec`.
    pub(crate) fn get(&mut self, spec: &Arc<PodSpec>, cluster: &mut Cluster) -> Arc<SpecInfo> {
        let same = |i: &Arc<SpecInfo>| Arc::ptr_eq(&i.spec, spec);
        let found = self
            .recent
            .iter()
            .position(same)
            .or_else(|| self.recent.iter().position(|i| *i.spec == **spec));
        if let Some(at) = found {
            // Moves to the front in a few uses; the order in between does not matter.
            self.recent.swap(at, at / 2);
            return self.recent[at / 2].clone();
        }
        let class = cluster.class(spec);
        let info = Arc::new(SpecInfo {
            spec: spec.clone(),
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

    fn spec(n: usize) -> Arc<PodSpec> {
        let scheduler_name = Some(format!("s{n}"));
        Arc::new(PodSpec {
            scheduler_name,
            ..PodSpec::default()
        })
    }

    #[test]
    fn equal_specs_are_one_and_few_are_remembered() {
        let (mut specs, mut cluster) = (Specs::default(), Cluster::new());
        let kept = specs.get(&spec(0), &mut cluster);
        assert!(Arc::ptr_eq(&kept, &specs.get(&spec(0), &mut cluster)));
        for n in 1..500 {
            assert_eq!(
                specs.get(&spec(n), &mut cluster).class,
                kept.class,
                "only the name differs"
            );
            assert!(
                Arc::ptr_eq(&kept, &specs.get(&spec(0), &mut cluster)),
                "{n}"
            );
        }
        assert_eq!(specs.recent.len(), MOST);
    }
}
