//! How many pods the workloads want that pods belong to: what disruption budgets count among.

use std::collections::BTreeMap;

use crate::apps::{
    Deployment, DeploymentStatus, ReplicaSet, ReplicaSetStatus, StatefulSet, StatefulSetStatus,
    WorkloadCondition,
};
use crate::autoscaling::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use crate::fixed::{self, FixedFields};
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
    pub said: Said,
}

impl<'a> Scaled<'a> {
    /// What matters of a workload, by its last good document and what its status says, if that can be read. What a former
    /// object of the name has left behind counts for nothing.
    pub fn of<K: Kind>(workload: &'a Stored<K>, replicas: Option<i32>, said: Option<Said>) -> Self {
        let uid = workload.uid();
        let said = said.filter(|said| said.of.as_ref().is_none_or(|of| *of == uid));
        Self {
            uid,
            controller: workload.value.metadata().controller(),
            replicas,
            said: said.unwrap_or_default(),
        }
    }

    /// `None` when its controller has frozen it because of a change that may not be: what its document says of replicas is
    /// not followed either.
    fn asked(&self) -> Option<i32> {
        (!self.said.frozen).then(|| self.replicas.unwrap_or(1))
    }
}

/// What the status of a workload says that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The uid of the object that it is about, when that is known.
    of: Option<String>,
    /// Whether its controller has frozen it because of a change that may not be.
    frozen: bool,
    /// How many pods an autoscaler wanted when the status was written.
    decided: Option<i32>,
}

impl Said {
    fn new(
        conditions: &[WorkloadCondition],
        decided: Option<i32>,
        fixed: Option<&FixedFields>,
    ) -> Self {
        let frozen = conditions.iter().any(|c| {
            let reason = c.reason.as_deref();
            c.type_ == "Invalid" && c.status == "True" && reason == Some(fixed::CHANGED)
        });
        Self {
            of: fixed.map(|fixed| fixed.of.clone()),
            frozen,
            decided,
        }
    }
}

macro_rules! said {
    ($($status:ty),*) => {
        $(impl From<&$status> for Said {
            fn from(status: &$status) -> Self {
                let fixed = status.fixed.as_ref();
                Self::new(&status.conditions, status.desired_replicas, fixed)
            }
        })*
    };
}

said!(DeploymentStatus, ReplicaSetStatus, StatefulSetStatus);

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

/// What an autoscaler has recorded.
#[derive(Clone, Copy, Debug)]
pub enum Recorded<'a> {
    /// Nothing yet.
    Nothing,
    /// This.
    Is(&'a HorizontalPodAutoscalerStatus),
    /// Something that cannot be read, and never could as far as is known.
    Unreadable,
}

/// Who has a say in how many pods a workload is to have, beside its document.
#[derive(Clone, Copy, Debug)]
pub enum Decider<'a> {
    /// Nobody.
    Nobody,
    /// This autoscaler, with what it has recorded.
    Autoscaler(&'a HorizontalPodAutoscaler, Recorded<'a>),
    /// An autoscaler that cannot be read, if it is about the workload: nobody knows that.
    Unknown,
}

impl Decider<'_> {
    /// How many pods a workload is to have whose document asks for `asked`.
    ///
    /// `before` is what an autoscaler had decided when the workload's status was written. That holds while the record
    /// cannot be read, or an autoscaler that may be the workload's: a document that somebody has broken takes no pods
    /// away.
    pub fn wanted(&self, asked: i32, before: Option<i32>) -> i32 {
        match self {
            Self::Nobody | Self::Autoscaler(_, Recorded::Nothing) => asked,
            Self::Autoscaler(scaler, Recorded::Is(status)) => {
                scaler.spec.wanted(asked, Some(status))
            }
            // Asking for none switches autoscalers off.
            Self::Autoscaler(_, Recorded::Unreadable) | Self::Unknown => {
                before.filter(|_| asked > 0).unwrap_or(asked)
            }
        }
    }
}

/// The autoscalers of a namespace, by the plural and name of what they are about: of several the first by name.
#[derive(Clone, Debug, Default)]
pub struct Scalers<'a> {
    about: BTreeMap<(&'static str, &'a str), (&'a ObjectKey, &'a HorizontalPodAutoscaler)>,
    /// There is one of which nobody knows what it is about.
    has_unreadable: bool,
}

impl<'a> Scalers<'a> {
    /// Those of one namespace, given in the order of their names; `None` for one that cannot be read, and never could as
    /// far as is known.
    pub fn of(
        scalers: impl IntoIterator<Item = (&'a ObjectKey, Option<&'a HorizontalPodAutoscaler>)>,
    ) -> Self {
        let mut all = Self::default();
        for (key, scaler) in scalers {
            let Some(scaler) = scaler else {
                all.has_unreadable = true;
                continue;
            };
            if let Some(target) = scale_target(scaler) {
                all.about.entry(target).or_insert((key, scaler));
            }
        }
        all
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
        recorded: impl Fn(&ObjectKey) -> Recorded<'r>,
    ) -> Option<i32> {
        let asked = workload.asked()?;
        let of_kind = [Deployment::PLURAL, ReplicaSet::PLURAL, StatefulSet::PLURAL];
        let plural = of_kind.into_iter().find(|known| *known == plural)?;
        let decider = match self.about((plural, name)) {
            Some((key, scaler)) => Decider::Autoscaler(scaler, recorded(key)),
            None if self.has_unreadable => Decider::Unknown,
            None => Decider::Nobody,
        };
        Some(decider.wanted(asked, workload.said.decided).max(0))
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
            said: Said::default(),
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

    fn said(status: &str) -> Said {
        let status: DeploymentStatus = decode_value(status.as_bytes()).unwrap();
        Said::from(&status)
    }

    fn status(n: i32) -> HorizontalPodAutoscalerStatus {
        decode_value(format!("{{desiredReplicas: {n}}}").as_bytes()).unwrap()
    }

    fn scaler(name: &str) -> HorizontalPodAutoscaler {
        let text = format!(
            "{{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {{name: {name}}}, spec: \
             {{maxReplicas: 9, scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}}}}}"
        );
        crate::document::decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_an_autoscaler_decided_takes_the_place_of_what_was_asked_for() {
        let keys = ["a", "b"].map(|name| ObjectKey::namespaced("default", name));
        let all = [scaler("a"), scaler("b")];
        let scalers = Scalers::of(keys.iter().zip(all.iter().map(Some)));
        let (five, eight) = (status(5), status(8));
        let recorded = |key: &ObjectKey| match &*key.name {
            "a" => Recorded::Is(&five),
            _ => Recorded::Is(&eight),
        };
        let web = scaled("d1", None);
        let wanted =
            |name, workload: &Scaled<'_>| scalers.wanted(("deployments", name), workload, recorded);
        assert_eq!(wanted("web", &web), Some(5), "the first by name");
        assert_eq!(wanted("other", &web), Some(3));
        let frozen = said(&format!(
            "conditions: [{{type: Invalid, status: 'True', reason: {}}}]",
            fixed::CHANGED
        ));
        let web = Scaled {
            said: frozen,
            ..web
        };
        assert_eq!(wanted("web", &web), None);
    }

    #[test]
    fn what_was_decided_before_holds_while_what_decides_cannot_be_read() {
        let keys = ["a", "b"].map(|name| ObjectKey::namespaced("default", name));
        let (of_web, five) = (scaler("a"), status(5));
        let before = Scaled {
            said: said("desiredReplicas: 6"),
            ..scaled("d1", None)
        };
        let never = scaled("d1", None);
        let none = Scaled {
            replicas: Some(0),
            ..before.clone()
        };
        let unreadable = |_: &ObjectKey| Recorded::Unreadable;
        let wanted = |scalers: &Scalers<'_>, workload| {
            scalers.wanted(("deployments", "web"), workload, unreadable)
        };
        // Its own autoscaler, whose record is broken; one that may be about it.
        for scalers in [Some(&of_web), None] {
            let scalers = Scalers::of([(&keys[0], scalers)]);
            assert_eq!(wanted(&scalers, &before), Some(6));
            assert_eq!(wanted(&scalers, &never), Some(3));
            assert_eq!(wanted(&scalers, &none), Some(0), "switched off");
        }
        let both = Scalers::of([(&keys[0], Some(&of_web)), (&keys[1], None)]);
        let recorded = |_: &ObjectKey| Recorded::Is(&five);
        let of_both = both.wanted(("deployments", "web"), &before, recorded);
        assert_eq!(of_both, Some(5), "its own can be read");
        let nobody = Scalers::default();
        assert_eq!(wanted(&nobody, &before), Some(3), "the autoscaler is gone");
    }

    #[test]
    fn a_status_that_a_former_object_left_behind_says_nothing() {
        let web = |uid: &str| {
            let text = format!(
                "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, uid: {uid}}}, spec: {{selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: host}}]}}}}}}}}"
            );
            Stored {
                value: crate::document::decode::<Deployment>(text.as_bytes()).unwrap(),
                create_revision: 1,
                mod_revision: 1,
                version: 1,
            }
        };
        let status = said("{desiredReplicas: 6, fixed: {of: d1}}");
        for (uid, decided) in [("d1", Some(6)), ("d2", None)] {
            let web = web(uid);
            let scaled = Scaled::of(&web, Some(3), Some(status.clone()));
            assert_eq!(scaled.said.decided, decided);
        }
    }
}
