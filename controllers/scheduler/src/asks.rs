//! What a pod asks beyond its own document: the priority that its class gives it, and the profile by which its nodes are
//! scored.
//!
//! Both are looked up here and nowhere else, from the last good versions of their documents. A pod whose class or profile
//! does not exist waits, with that reason, until it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{PodSpec, PreemptionPolicy};
use setpoint_apis::placement::{self, SchedulerProfile, SchedulerProfileSpec, profile_of};
use setpoint_apis::records::{ConstraintKind, Hope, WaitReason};
use setpoint_apis::resolve::{PriorityProblem, global_default, priority};
use setpoint_apis::scheduling::PriorityClass;
use setpoint_apis::stored::{Entry, Stored};
use setpoint_runtime::View;
use setpoint_scheduler_core::{Pin, Profile};

use crate::claims;

/// What keeps a pod from being placed before any node is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// The reason of the condition.
    pub(crate) reason: &'static str,
    /// Its sentence.
    pub(crate) message: String,
    pub(crate) constraint: ConstraintKind,
    /// The object that it is about, and what of it.
    pub(crate) detail: String,
    /// Whether waiting can help: objects can be made and gates removed, while the pod stays as it is.
    pub(crate) hope: Hope,
}

/// The reason of pods that are held back by their own document.
pub(crate) const GATED: &str = "SchedulingGated";
/// The reason of pods that no node can run, or that have to wait before nodes are asked.
pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";

impl Hold {
    pub(crate) fn new(constraint: ConstraintKind, detail: &str, message: String) -> Self {
        Self {
            reason: UNSCHEDULABLE,
            message,
            constraint,
            detail: detail.into(),
            hope: Hope::Waits,
        }
    }

    /// The reason in the pod's record.
    pub(crate) fn wait_reason(&self) -> WaitReason {
        WaitReason {
            constraint: self.constraint,
            detail: self.detail.clone(),
            nodes: 0,
            hope: self.hope,
        }
    }

    /// The gates of a pod.
    pub(crate) fn of_gates(spec: &PodSpec) -> Option<Self> {
        let gates = &spec.scheduling_gates;
        let gates: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
        (!gates.is_empty()).then(|| Self {
            reason: GATED,
            message: "Scheduling is blocked due to non-empty scheduling gates".into(),
            constraint: ConstraintKind::SchedulingGates,
            detail: gates.join(", "),
            hope: Hope::Waits,
        })
    }
}

/// What is looked up for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) priority: i32,
    /// Whether it may displace others.
    pub(crate) preempts: bool,
    pub(crate) profile: Profile,
    /// Where its volume claims are.
    pub(crate) pin: Option<Pin>,
}

/// The priority classes and profiles that there are. `None`: a document that never parsed.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    classes: BTreeMap<Arc<str>, Option<Arc<Stored<PriorityClass>>>>,
    profiles: BTreeMap<Arc<str>, Option<Profile>>,
}

impl Asks {
    /// A priority class is there, changed, or is gone. Returns whether that makes a difference, and whether it makes one
    /// to pods without a class.
    pub(crate) fn set_class(
        &mut self,
        name: &Arc<str>,
        entry: Option<&Entry<PriorityClass>>,
    ) -> (bool, bool) {
        let says = |c: Option<&PriorityClass>| c.map(|c| (c.value, c.preemption_policy()));
        let default = says(self.default_class());
        let known = |asks: &Self| {
            let known = asks.classes.get(name)?;
            Some(says(known.as_ref().map(|c| &c.value)))
        };
        let before = known(self);
        match entry {
            Some(entry) => {
                let class = entry.last_good().cloned();
                self.classes.insert(name.clone(), class);
            }
            None => {
                self.classes.remove(name);
            }
        }
        (before != known(self), default != says(self.default_class()))
    }

    /// A profile is there, changed, or is gone. Returns whether that makes a difference.
    pub(crate) fn set_profile(
        &mut self,
        name: &Arc<str>,
        entry: Option<&Entry<SchedulerProfile>>,
    ) -> bool {
        let profile = entry.map(|entry| entry.last_good().map(|p| stored_profile(&p.value.spec)));
        replace(&mut self.profiles, name, profile)
    }

    /// What a pod with this spec asks.
    ///
    /// # Errors
    /// Why it has to wait: a class or a profile that does not exist, or never made sense.
    pub(crate) fn of(&self, spec: &PodSpec) -> Result<Asked, Hold> {
        let class = |name: &str| self.classes.get(name)?.as_ref().map(|c| &c.value);
        let asked = priority(spec, class, self.default_class())
            .map_err(|problem| self.without_priority(spec, &problem))?;
        let profile = match profile_of(spec) {
            None => Profile::default(),
            Some(name) => match self.profiles.get(name) {
                Some(Some(profile)) => profile.clone(),
                found => {
                    return Err(Hold::new(
                        ConstraintKind::SchedulerProfile,
                        name,
                        match found {
                            Some(_) => format!("the scheduler profile {name:?} is not valid"),
                            None => format!("there is no scheduler profile {name:?}"),
                        },
                    ));
                }
            },
        };
        Ok(Asked {
            priority: asked.value,
            preempts: asked.preemption != PreemptionPolicy::Never,
            profile,
            pin: None,
        })
    }

    /// The same of a pod that is placed already, as far as it can be told.
    pub(crate) fn of_placed(&self, spec: &PodSpec) -> Asked {
        self.of(spec).unwrap_or(Asked {
            priority: spec.priority.unwrap_or_default(),
            preempts: false,
            profile: Profile::default(),
            pin: None,
        })
    }

    /// The same, and where its volume claims are: of a pod that is to be placed.
    pub(crate) fn of_waiting(
        &self,
        view: &View<'_>,
        namespace: &Arc<str>,
        spec: &PodSpec,
    ) -> Result<Asked, Hold> {
        let asked = self.of(spec)?;
        let pin = claims::pin(view, namespace, spec)?;
        Ok(Asked { pin, ..asked })
    }

    fn without_priority(&self, spec: &PodSpec, problem: &PriorityProblem) -> Hold {
        let name = class_of(spec).unwrap_or_default();
        let message = match problem {
            PriorityProblem::UnknownClass(_) if self.classes.contains_key(name) => {
                format!("the priority class {name:?} is not valid")
            }
            problem => problem.to_string(),
        };
        Hold {
            hope: match problem {
                PriorityProblem::UnknownClass(_) => Hope::Waits,
                PriorityProblem::Disagrees { .. } => Hope::Never,
            },
            ..Hold::new(ConstraintKind::PriorityClass, &message, message.clone())
        }
    }

    fn default_class(&self) -> Option<&PriorityClass> {
        global_default(self.classes.values().flatten().map(|c| &c.value))
    }
}

fn stored_profile(spec: &SchedulerProfileSpec) -> Profile {
    (&placement::Profile::from(spec)).into()
}

/// The priority class that a pod names.
pub(crate) fn class_of(spec: &PodSpec) -> Option<&str> {
    spec.priority_class_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

fn replace<T: PartialEq>(
    map: &mut BTreeMap<Arc<str>, T>,
    name: &Arc<str>,
    value: Option<T>,
) -> bool {
    match value {
        None => map.remove(name).is_some(),
        Some(value) if map.get(name) == Some(&value) => false,
        Some(value) => {
            map.insert(name.clone(), value);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::Kind;
    use setpoint_apis::document;
    use setpoint_scheduler_core::{Strategy, Weights};

    use super::*;

    fn entry<K: Kind>(text: &str) -> Entry<K> {
        let value = document::decode::<K>(text.as_bytes()).unwrap();
        Entry::good(Arc::new(Stored {
            value,
            create_revision: 1,
            mod_revision: 1,
            version: 1,
        }))
    }

    fn class(asks: &mut Asks, name: &str, more: &str) -> (bool, bool) {
        let text = format!(
            "{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {name}}}, {more}}}"
        );
        asks.set_class(&name.into(), Some(&entry(&text)))
    }

    fn spec(yaml: &str) -> PodSpec {
        let text = format!("{{containers: [{{name: c, image: host}}], {yaml}}}");
        document::decode_value(text.as_bytes()).unwrap()
    }

    fn priority(asks: &Asks, yaml: &str) -> Result<i32, String> {
        asks.of(&spec(yaml))
            .map(|a| a.priority)
            .map_err(|h| h.message)
    }

    #[test]
    fn a_class_gives_the_priority_and_one_that_is_missing_is_waited_for() {
        let mut asks = Asks::default();
        assert_eq!(priority(&asks, ""), Ok(0));
        assert_eq!(priority(&asks, "priority: 7"), Ok(7));
        assert_eq!(
            priority(&asks, "priorityClassName: high"),
            Err("there is no priority class \"high\"".into())
        );
        assert_eq!(class(&mut asks, "high", "value: 100"), (true, false));
        assert_eq!(class(&mut asks, "high", "value: 100"), (false, false));
        assert_eq!(priority(&asks, "priorityClassName: high"), Ok(100));
        let other = priority(&asks, "priorityClassName: high, priority: 7");
        assert!(other.unwrap_err().contains("spec.priority is 7"));
        assert_eq!(
            priority(&asks, "priorityClassName: system-cluster-critical"),
            Ok(2_000_000_000)
        );
        assert_eq!(asks.set_class(&"high".into(), None), (true, false));
        assert!(priority(&asks, "priorityClassName: high").is_err());
    }

    #[test]
    fn pods_without_a_class_have_the_lowest_of_the_default_ones() {
        let mut asks = Asks::default();
        assert_eq!(
            class(&mut asks, "a", "value: 50, globalDefault: true"),
            (true, true)
        );
        assert_eq!(
            class(&mut asks, "b", "value: 40, globalDefault: true"),
            (true, true)
        );
        assert_eq!(
            class(&mut asks, "c", "value: 60, globalDefault: true"),
            (true, false)
        );
        assert_eq!(priority(&asks, ""), Ok(40));
        assert_eq!(priority(&asks, "priority: 7"), Ok(7));
    }

    #[test]
    fn who_may_not_preempt_is_said_by_the_pod_then_by_the_class() {
        let mut asks = Asks::default();
        class(&mut asks, "meek", "value: 50, preemptionPolicy: Never");
        let preempts = |yaml: &str| asks.of(&spec(yaml)).unwrap().preempts;
        assert!(preempts(""));
        assert!(!preempts("priorityClassName: meek"));
        assert!(preempts(
            "priorityClassName: meek, preemptionPolicy: PreemptLowerPriority"
        ));
        assert!(!preempts("preemptionPolicy: Never"));
    }

    #[test]
    fn a_profile_scores_and_one_that_is_missing_is_waited_for() {
        let mut asks = Asks::default();
        let hold = asks.of(&spec("schedulerName: batch")).unwrap_err();
        assert_eq!(hold.message, "there is no scheduler profile \"batch\"");
        assert_eq!(hold.constraint, ConstraintKind::SchedulerProfile);
        let text = "{apiVersion: setpoint.dev/v1, kind: SchedulerProfile, metadata: {name: batch}, spec: {strategy: MostAllocated}}";
        assert!(asks.set_profile(&"batch".into(), Some(&entry(text))));
        let asked = asks.of(&spec("schedulerName: batch")).unwrap();
        assert_eq!(asked.profile.strategy, Strategy::MostAllocated);
        assert_eq!(asked.profile.weights, Weights::default());
        assert_eq!(
            asks.of(&spec("schedulerName: default-scheduler"))
                .unwrap()
                .profile,
            Profile::default()
        );
        let placed = asks.of_placed(&spec("schedulerName: gone, priority: 3"));
        assert_eq!((placed.priority, placed.preempts), (3, false));
    }
}
