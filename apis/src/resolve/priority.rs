//! The priority of a pod.

use crate::core::{PodSpec, PreemptionPolicy};
use crate::scheduling::{PriorityClass, system_priority};

/// How important a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// Of two pods the one with more is placed first, and the one with less gives way.
    pub value: i32,
    /// Whether others give way to it.
    pub preemption: PreemptionPolicy,
}

/// Why a pod has no priority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriorityProblem {
    /// Its class does not exist.
    #[error("there is no priority class {0:?}")]
    UnknownClass(String),
    /// It says another priority than its class.
    #[error("spec.priority is {given}, but the priority class {class:?} has {value}")]
    Disagrees {
        /// The class.
        class: String,
        /// The priority of the class.
        value: i32,
        /// What the pod says.
        given: i32,
    },
}

/// The priority of a pod: of its class; without one, the pod's own `spec.priority`; else that of the `default` class
/// ([`global_default`]); else 0. Whether others give way to it is for the pod to say, then for its class.
///
/// `class` looks a stored class up. The system's own need not be stored.
///
/// # Errors
/// When the class does not exist, or says something else than the pod.
pub fn priority<'a>(
    spec: &PodSpec,
    class: impl FnOnce(&str) -> Option<&'a PriorityClass>,
    default: Option<&PriorityClass>,
) -> Result<Priority, PriorityProblem> {
    let (value, of_class) = match spec.priority_class_name.as_deref() {
        Some(name) if !name.is_empty() => {
            let stored = class(name);
            let value = system_priority(name)
                .or(stored.map(|c| c.value))
                .ok_or_else(|| PriorityProblem::UnknownClass(name.into()))?;
            if let Some(given) = spec.priority.filter(|given| *given != value) {
                return Err(PriorityProblem::Disagrees {
                    class: name.into(),
                    value,
                    given,
                });
            }
            (value, stored.map(PriorityClass::preemption_policy))
        }
        _ => match (spec.priority, default) {
            (Some(own), _) => (own, None),
            (None, Some(c)) => (c.value, Some(c.preemption_policy())),
            (None, None) => (0, None),
        },
    };
    Ok(Priority {
        value,
        preemption: spec.preemption_policy.or(of_class).unwrap_or_default(),
    })
}

/// The class of pods that name none. Of several that want to be the default it is the one with the lowest value, then
/// the first by name.
pub fn global_default<'a>(
    classes: impl IntoIterator<Item = &'a PriorityClass>,
) -> Option<&'a PriorityClass> {
    classes
        .into_iter()
        .filter(|c| c.is_global_default())
        .min_by_key(|c| (c.value, &c.metadata.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, value: i32, default: bool) -> PriorityClass {
        let mut c = PriorityClass {
            value,
            global_default: Some(default),
            preemption_policy: Some(PreemptionPolicy::Never),
            ..PriorityClass::default()
        };
        c.metadata.name = name.into();
        c
    }

    fn spec(class: Option<&str>, priority: Option<i32>) -> PodSpec {
        PodSpec {
            priority_class_name: class.map(Into::into),
            priority,
            ..PodSpec::default()
        }
    }

    #[test]
    fn the_class_decides_then_the_pod_then_the_default() {
        let high = class("high", 1000, false);
        let default = class("usual", 7, true);
        let of = |class, own, with_default: bool| {
            priority(
                &spec(class, own),
                |name| (name == "high").then_some(&high),
                with_default.then_some(&default),
            )
            .map(|p| p.value)
            .map_err(|e| e.to_string())
        };
        assert_eq!(of(Some("high"), None, true), Ok(1000));
        assert_eq!(of(Some("high"), Some(1000), true), Ok(1000));
        assert_eq!(of(None, Some(3), true), Ok(3));
        assert_eq!(of(None, None, true), Ok(7));
        assert_eq!(of(Some(""), None, false), Ok(0));
        assert_eq!(
            of(Some("system-node-critical"), None, true),
            Ok(2_000_001_000)
        );
        assert_eq!(
            of(Some("system-cluster-critical"), None, true),
            Ok(2_000_000_000)
        );
        assert!(of(Some("low"), None, true).unwrap_err().contains("\"low\""));
        assert!(
            of(Some("high"), Some(1), true)
                .unwrap_err()
                .contains("1000")
        );
    }

    #[test]
    fn a_pod_may_say_itself_whether_others_give_way() {
        let high = class("high", 1000, false);
        let mut pod = spec(Some("high"), None);
        let policy = |pod: &PodSpec| priority(pod, |_| Some(&high), None).unwrap().preemption;
        assert_eq!(policy(&pod), PreemptionPolicy::Never);
        pod.preemption_policy = Some(PreemptionPolicy::PreemptLowerPriority);
        assert_eq!(policy(&pod), PreemptionPolicy::PreemptLowerPriority);
    }

    #[test]
    fn of_several_defaults_the_lowest_is_taken() {
        let classes = [
            class("c", 5, true),
            class("b", 5, true),
            class("a", 9, true),
            class("x", 1, false),
        ];
        assert_eq!(global_default(&classes).unwrap().metadata.name, "b");
        assert_eq!(global_default(&classes[3..]), None);
    }
}
