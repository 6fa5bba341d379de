//! How single pods are.

use setpoint_apis::ObjectKey;
use setpoint_apis::records::PodStage;

use super::State;

impl State {
    /// Whether a pod of a Job has ended where it is bound.
    pub(super) fn has_ended(&self, pod: &ObjectKey) -> bool {
        let of_job = self.pods.get(pod).and_then(Option::as_ref);
        let (Some(_), Some(binding)) = (
            of_job.filter(|owner| self.jobs.is_one(owner)),
            self.bindings.get(pod),
        ) else {
            return false;
        };
        let mut records = self.actual.get(pod).into_iter().flatten();
        let ended = [PodStage::Succeeded, PodStage::Failed];
        records.any(|(node, actual)| {
            let here = *node == binding.node && actual.placement == binding.placement;
            here && ended.contains(&actual.stage)
        })
    }

    pub(super) fn not_running(&self, pod: &ObjectKey) -> Option<String> {
        let Some(binding) = self.bindings.get(pod) else {
            return Some("is not bound".to_owned());
        };
        if binding.withdrawn.is_some() {
            return Some(format!("is being withdrawn from {}", binding.node));
        }
        if let Some(moving) = &binding.moving {
            return Some(format!("moves from {} to {}", binding.node, moving.to));
        }
        if let Some(leaving) = &binding.leaving {
            return Some(format!("has not left {leaving}"));
        }
        match self.actual.get(pod).map(Vec::as_slice) {
            None => Some(format!("is not claimed on {}", binding.node)),
            Some([(node, actual)]) if *node == binding.node => {
                if self.has_ended(pod) {
                    None
                } else if actual.placement != binding.placement {
                    Some(format!(
                        "runs as placement {}, not {}",
                        actual.placement, binding.placement
                    ))
                } else if actual.stage != PodStage::Running || !actual.is_ready() {
                    Some(format!("is {:?} on {node}, not ready", actual.stage))
                } else {
                    None
                }
            }
            Some(records) => {
                let nodes: Vec<&str> = records.iter().map(|(node, _)| node.as_str()).collect();
                Some(format!(
                    "is on record at {}, bound to {}",
                    nodes.join(", "),
                    binding.node
                ))
            }
        }
    }
}
