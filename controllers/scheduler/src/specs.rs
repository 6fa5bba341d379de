//! What follows from a pod's spec and labels, worked out once for all pods that share them.

use std::sync::{Arc, OnceLock};

use setpoint_apis::StringMap;
use setpoint_apis::core::{Pod, PodSpec};
use setpoint_scheduler_core::{Class, Cluster, PodAsk};

use crate::asks::Asked;
use crate::content::{Uses, uses};
use crate::quota::PodUse;
use crate::text;

/// How many specs are remembered: as many Deployments can grow at the same time at full speed.
const MOST: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct SpecInfo {
    spec: Arc<PodSpec>,
    labels: StringMap,
    namespace: Arc<str>,
    pub(crate) asked: Asked,
    pub(crate) class: Class,
    pub(crate) uses: Uses,
    text: OnceLock<String>,
    usage: OnceLock<Arc<PodUse>>,
}

impl SpecInfo {
    /// The spec as it stands in a work copy.
    pub(crate) fn text(&self) -> &str {
        self.text.get_or_init(|| text::spec(&self.spec))
    }

    /// What quotas count.
    pub(crate) fn usage(&self) -> &Arc<PodUse> {
        self.usage.get_or_init(|| Arc::new(PodUse::of(&self.spec)))
    }

    fn is_of(&self, pod: &Pod, namespace: &str, asked: &Asked) -> bool {
        self.labels == pod.metadata.labels && *self.namespace == *namespace && self.asked == *asked
    }
}

/// The specs that were seen last.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    recent: Vec<Arc<SpecInfo>>,
}

impl Specs {
    /// What follows from a pod's document and what it asks.
    pub(crate) fn get(
        &mut self,
        pod: &Pod,
        namespace: &Arc<str>,
        asked: &Asked,
        cluster: &mut Cluster,
    ) -> Arc<SpecInfo> {
        let spec = &pod.spec;
        let same = |i: &Arc<SpecInfo>| Arc::ptr_eq(&i.spec, spec) && i.is_of(pod, namespace, asked);
        let equal = |i: &Arc<SpecInfo>| *i.spec == **spec && i.is_of(pod, namespace, asked);
        let found = self
            .recent
            .iter()
            .position(same)
            .or_else(|| self.recent.iter().position(equal));
        if let Some(at) = found {
            // Moves to the front in a few uses; the order in between does not matter.
            self.recent.swap(at, at / 2);
            return self.recent[at / 2].clone();
        }
        let ask = PodAsk {
            namespace,
            labels: &pod.metadata.labels,
            spec,
            priority: asked.priority,
            profile: asked.profile.clone(),
        };
        let class = cluster.class_pinned(&ask, asked.pin.as_ref());
        let info = Arc::new(SpecInfo {
            spec: spec.clone(),
            labels: pod.metadata.labels.clone(),
            namespace: namespace.clone(),
            asked: asked.clone(),
            class,
            uses: uses(spec),
            text: OnceLock::new(),
            usage: OnceLock::new(),
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
        let (ns, asked) = (Arc::from("default"), Asked::default());
        let kept = specs.get(&pod(0), &ns, &asked, &mut cluster);
        let again = specs.get(&pod(0), &ns, &asked, &mut cluster);
        assert!(Arc::ptr_eq(&kept, &again));
        for n in 1..500 {
            assert_eq!(
                specs.get(&pod(n), &ns, &asked, &mut cluster).class,
                kept.class,
                "only the name differs"
            );
            let again = specs.get(&pod(0), &ns, &asked, &mut cluster);
            assert!(Arc::ptr_eq(&kept, &again), "{n}");
        }
        assert_eq!(specs.recent.len(), MOST);
    }

    #[test]
    fn pods_are_one_only_with_equal_labels_namespaces_and_priorities() {
        let (mut specs, mut cluster) = (Specs::default(), Cluster::new());
        let (ns, asked) = (Arc::from("default"), Asked::default());
        let plain = specs.get(&pod(0), &ns, &asked, &mut cluster);
        let mut labelled = pod(0);
        labelled.metadata.labels = [("a".to_owned(), "b".to_owned())].into_iter().collect();
        let high = Asked {
            priority: 5,
            ..Asked::default()
        };
        let others = [
            specs.get(&labelled, &ns, &asked, &mut cluster),
            specs.get(&pod(0), &"other".into(), &asked, &mut cluster),
            specs.get(&pod(0), &ns, &high, &mut cluster),
        ];
        assert!(others.iter().all(|o| !Arc::ptr_eq(o, &plain)));
    }
}
