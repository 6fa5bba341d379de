//! How many pods the workloads want that pods belong to: what disruption budgets count among.

use std::collections::BTreeMap;

use crate::apps::{Deployment, ReplicaSet, StatefulSet, WorkloadCondition};
use crate::autoscaling::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use crate::fixed;
use crate::kind::Kind;
use crate::meta::{ObjectKey, OwnerReference};
use crate::stored::Stored;

/// What of a workload matters here.
#[derive(Clone, Debug)]
pub struct Scaled<'a> {
    /// Its uid.
    pub uid: String,
    /// What it belongs to itself.
    pub controller: Option<&'a OwnerReference>,
    /// How many pods its document asks for; one when it does not say.
    pub replicas: Option<i32>,
    /// What its controller says of it.
    pub conditions: &'a [WorkloadCondition],
}

impl<'a> Scaled<'a> {
    /// What matters of a workload, by its last good document and the conditions of its status.
    pub fn of<K: Kind>(
        workload: &'a Stored<K>,
        replicas: Option<i32>,
        conditions: &'a [WorkloadCondition],
    ) -> Self {
        Self {
            uid: workload.uid(),
            controller: workload.value.metadata().controller(),
            replicas,
            conditions,
        }
    }

    /// `None` when its controller has frozen it because of a change that may not be: what its document says of replicas is
    /// not followed either.
    fn asked(&self) -> Option<i32> {
        let frozen = self.conditions.iter().any(|c| {
            let reason = c.reason.as_deref();
            c.type_ == "Invalid" && c.status == "True" && reason == Some(fixed::CHANGED)
        });
        (!frozen).then(|| self.replicas.unwrap_or(1))
    }
}

/// The plural of a kind of workload that has a number of pods.
pub fn scaled_plural(kind: &str) -> Option<&'static str> {
    match kind {
        Deployment::KIND => Some(Deployment::PLURAL),
        ReplicaSet::KIND => Some(ReplicaSet::PLURAL),
        StatefulSet::KIND => Some(StatefulSet::PLURAL),
        _ => None,
    }
}

/// The workload that a pod with this controller belongs to and that has a number, as plural and name: of the pods of a
/// ReplicaSet the Deployment behind it, when there is one. `None` for pods of nobody, and of those that have none, as
/// DaemonSets.
///
/// `find` finds the workload of a plural and a name in the pod's namespace.
pub fn scaled_owner<'a>(
    controller: Option<&'a OwnerReference>,
    find: impl Fn(&str, &str) -> Option<Scaled<'a>>,
) -> Option<(&'static str, &'a str)> {
    let controller = controller?;
    let plural = scaled_plural(&controller.kind).filter(|p| *p != Deployment::PLURAL)?;
    // The object that a reference is to, not another of its name.
    let is_meant = |plural: &str, reference: &OwnerReference| {
        find(plural, &reference.name).filter(|found| found.uid == reference.uid)
    };
    let found = is_meant(plural, controller)?;
    let above = found.controller;
    let above = above.filter(|c| plural == ReplicaSet::PLURAL && c.kind == Deployment::KIND);
    match above.filter(|c| is_meant(Deployment::PLURAL, c).is_some()) {
        Some(deployment) => Some((Deployment::PLURAL, &deployment.name)),
        None => Some((plural, &controller.name)),
    }
}

/// The autoscalers of a namespace, by the plural and name of what they are about: of several the first by name.
#[derive(Clone, Debug, Default)]
pub struct Scalers<'a> {
    about: BTreeMap<(&'static str, &'a str), (&'a ObjectKey, &'a HorizontalPodAutoscaler)>,
}

impl<'a> Scalers<'a> {
    /// Those of one namespace, given in the order of their names.
    pub fn of(
        scalers: impl IntoIterator<Item = (&'a ObjectKey, &'a HorizontalPodAutoscaler)>,
    ) -> Self {
        let mut about = BTreeMap::new();
        for (key, scaler) in scalers {
            if let Some(target) = scale_target(scaler) {
                about.entry(target).or_insert((key, scaler));
            }
        }
        Self { about }
    }

    /// The autoscaler that is about a workload of the namespace.
    pub fn about(
        &self,
        workload: (&str, &str),
    ) -> Option<(&'a ObjectKey, &'a HorizontalPodAutoscaler)> {
        self.about.get(&workload).copied()
    }

    /// How many pods a workload of the namespace wants, as its controller takes up what an autoscaler makes of what the
    /// document asks for; `None` when its controller does not follow its document. `recorded` finds what an autoscaler
    /// has decided.
    pub fn wanted<'r>(
        &self,
        (plural, name): (&str, &str),
        workload: &Scaled<'_>,
        recorded: impl Fn(&ObjectKey) -> Option<&'r HorizontalPodAutoscalerStatus>,
    ) -> Option<i32> {
        let asked = workload.asked()?;
        let of_kind = [Deployment::PLURAL, ReplicaSet::PLURAL, StatefulSet::PLURAL];
        let plural = of_kind.into_iter().find(|known| *known == plural)?;
        let wanted = match self.about((plural, name)) {
            Some((key, scaler)) => scaler.spec.wanted(asked, recorded(key)),
            None => asked,
        };
        Some(wanted.max(0))
    }
}

/// The workload that an autoscaler is about, as plural and name.
pub fn scale_target(scaler: &HorizontalPodAutoscaler) -> Option<(&'static str, &str)> {
    let target = &scaler.spec.scale_target_ref;
    Some((scaled_plural(&target.kind)?, &target.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::decode_value;

    fn reference(kind: &str, name: &str, uid: &str) -> OwnerReference {
        OwnerReference {
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            controller: Some(true),
            ..OwnerReference::default()
        }
    }

    fn scaled<'a>(uid: &str, controller: Option<&'a OwnerReference>) -> Scaled<'a> {
        Scaled {
            uid: uid.into(),
            controller,
            replicas: Some(3),
            conditions: &[],
        }
    }

    #[test]
    fn pods_of_a_replica_set_belong_to_the_deployment_that_is_meant() {
        let above = reference("Deployment", "web", "d1");
        let of = |deployment: &'static str| {
            let above = &above;
            move |plural: &str, name: &str| match (plural, name) {
                ("replicasets", "web-1") => Some(scaled("r1", Some(above))),
                ("deployments", "web") => Some(scaled(deployment, None)),
                _ => None,
            }
        };
        let of_set = reference("ReplicaSet", "web-1", "r1");
        let found = scaled_owner(Some(&of_set), of("d1"));
        assert_eq!(found, Some(("deployments", "web")));
        // Another Deployment of that name.
        let found = scaled_owner(Some(&of_set), of("d2"));
        assert_eq!(found, Some(("replicasets", "web-1")));
        // Another ReplicaSet of that name.
        let other = reference("ReplicaSet", "web-1", "r0");
        assert_eq!(scaled_owner(Some(&other), of("d1")), None);
        let daemons = reference("DaemonSet", "web-1", "r1");
        assert_eq!(scaled_owner(Some(&daemons), of("d1")), None);
        assert_eq!(scaled_owner(None, of("d1")), None);
    }

    #[test]
    fn what_an_autoscaler_decided_takes_the_place_of_what_was_asked_for() {
        let scaler = |name: &str| -> HorizontalPodAutoscaler {
            let text = format!(
                "{{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {{name: {name}}}, spec: \
                 {{maxReplicas: 9, scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}}}}}"
            );
            crate::document::decode(text.as_bytes()).unwrap()
        };
        let keys = ["a", "b"].map(|name| ObjectKey::namespaced("default", name));
        let all = [scaler("a"), scaler("b")];
        let scalers = Scalers::of(keys.iter().zip(&all));
        let status = |n: i32| -> HorizontalPodAutoscalerStatus {
            decode_value(format!("{{desiredReplicas: {n}}}").as_bytes()).unwrap()
        };
        let (five, eight) = (status(5), status(8));
        let recorded = |key: &ObjectKey| match &*key.name {
            "a" => Some(&five),
            _ => Some(&eight),
        };
        let web = scaled("d1", None);
        let wanted =
            |name, workload: &Scaled<'_>| scalers.wanted(("deployments", name), workload, recorded);
        assert_eq!(wanted("web", &web), Some(5), "the first by name");
        assert_eq!(wanted("other", &web), Some(3));
        let frozen: Vec<WorkloadCondition> = decode_value(
            format!(
                "[{{type: Invalid, status: 'True', reason: {}}}]",
                fixed::CHANGED
            )
            .as_bytes(),
        )
        .unwrap();
        let web = Scaled {
            conditions: &frozen,
            ..web
        };
        assert_eq!(wanted("web", &web), None);
    }
}
