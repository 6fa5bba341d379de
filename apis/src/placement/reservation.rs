//! Reservation: room on nodes that is kept for certain pods.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::{Affinity, Toleration};
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::{Condition, ObjectMeta};
use crate::quantity::ResourceList;
use crate::selector::LabelSelector;
use crate::time::Timestamp;

/// Room on nodes that only its owners may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// `setpoint.dev/v1`.
    pub api_version: ApiVersion<Self>,
    /// `Reservation`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// For whom, how much, where, how long.
    pub spec: ReservationSpec,
}

impl Kind for Reservation {
    const API_VERSION: &'static str = "setpoint.dev/v1";
    const KIND: &'static str = "Reservation";
    const PLURAL: &'static str = "reservations";
    const SHORT_NAMES: &'static [&'static str] = &["rsv"];
    type Status = ReservationStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        self.spec.count.get_or_insert(1);
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::reservation(self)
    }
}

/// For whom room is kept, how much, where, how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationSpec {
    /// The pods that may use it.
    pub owners: ReservationOwners,
    /// How much is kept, on one node.
    pub resources: ResourceList,
    /// How many times that much is kept, possibly on as many nodes; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i32>,
    /// The one node; not together with `nodeSelector` and `affinity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Rules about the node: `nodeAffinity` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// The taints that do not keep it away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Seconds after its creation when it ends; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
}

impl ReservationSpec {
    /// How many times `resources` is kept.
    pub fn count(&self) -> i32 {
        self.count.unwrap_or(1)
    }

    /// When a reservation that was created at `created` ends; `None`: never.
    pub fn expires_at(&self, created: Timestamp) -> Option<Timestamp> {
        let seconds = u64::try_from(self.ttl_seconds?).unwrap_or(0);
        Some(created.saturating_add(std::time::Duration::from_secs(seconds)))
    }
}

/// The pods that may use a reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationOwners {
    /// Their labels; an empty selector means all pods of the namespaces.
    pub selector: LabelSelector,
    /// Their namespaces; the reservation's own when this and `namespaceSelector` are absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The same by labels of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

impl ReservationOwners {
    /// Whether a pod may use a reservation that lives in `home`. `namespace_labels` are those of the pod's namespace.
    pub fn owns(
        &self,
        home: &str,
        pod: &ObjectMeta,
        namespace_labels: &BTreeMap<String, String>,
    ) -> bool {
        let by_name = self.namespaces.contains(&pod.namespace);
        let by_label = self.selects(&pod.namespace, namespace_labels);
        let at_home = self.namespaces.is_empty()
            && self.namespace_selector.is_none()
            && pod.namespace == home;
        (by_name || by_label || at_home) && self.selector.matches(&pod.labels)
    }

    /// The namespaces whose pods may use a reservation that lives in `home`, in order. `all` are the namespaces that there
    /// are, with their labels.
    pub fn namespaces_of<'a>(
        &self,
        home: &str,
        all: impl IntoIterator<Item = (&'a str, &'a BTreeMap<String, String>)>,
    ) -> Vec<String> {
        if self.namespaces.is_empty() && self.namespace_selector.is_none() {
            return vec![home.to_owned()];
        }
        let selected = all.into_iter();
        let selected = selected.filter(|(name, labels)| self.selects(name, labels));
        let mut namespaces: Vec<_> = selected.map(|(name, _)| name.to_owned()).collect();
        namespaces.extend(self.namespaces.iter().cloned());
        namespaces.sort_unstable();
        namespaces.dedup();
        namespaces
    }

    /// Whether the selector selects a namespace, which has its name as a label.
    fn selects(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespace_selector.as_ref().is_some_and(|selector| {
            let mut labels = labels.clone();
            labels.insert(NAMESPACE_NAME.to_owned(), name.to_owned());
            selector.matches(&labels)
        })
    }
}

/// The label that every namespace has: its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What is, of a reservation. Written by the scheduler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationStatus {
    /// The generation of the reservation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where room is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<ReservedNode>,
    /// How much of it the owners use, on all nodes together.
    #[serde(default, skip_serializing_if = "ResourceList::is_empty")]
    pub used: ResourceList,
    /// When it ends; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// `Reserved`, `Expired`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The room that is kept on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedNode {
    /// The node.
    pub name: String,
    /// How many times the reservation is kept there.
    #[serde(default)]
    pub count: i32,
    /// How much of it the owners use there.
    #[serde(default, skip_serializing_if = "ResourceList::is_empty")]
    pub used: ResourceList,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, app: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: namespace.into(),
            labels: [("app".to_owned(), app.to_owned())].into_iter().collect(),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn owners_are_of_the_own_namespace_unless_others_are_named() {
        let labels: BTreeMap<String, String> = [("team".to_owned(), "ml".to_owned())].into();
        let none = BTreeMap::new();
        let mut owners = ReservationOwners {
            selector: "app=train".parse().unwrap(),
            ..ReservationOwners::default()
        };
        assert!(owners.owns("a", &pod("a", "train"), &none));
        assert!(!owners.owns("a", &pod("a", "web"), &none));
        assert!(!owners.owns("a", &pod("b", "train"), &labels));
        owners.namespace_selector = Some("team=ml".parse().unwrap());
        assert!(owners.owns("a", &pod("b", "train"), &labels));
        assert!(!owners.owns("a", &pod("a", "train"), &none));
        owners.namespaces = vec!["a".into()];
        assert!(owners.owns("a", &pod("a", "train"), &none));
    }

    #[test]
    fn a_reservation_ends_when_its_time_is_over_however_long_that_is() {
        let created = Timestamp::from_unix_seconds(100);
        let spec = |ttl_seconds| ReservationSpec {
            ttl_seconds,
            ..ReservationSpec::default()
        };
        assert_eq!(spec(None).expires_at(created), None);
        assert_eq!(
            spec(Some(60)).expires_at(created),
            Some(Timestamp::from_unix_seconds(160))
        );
        assert!(spec(Some(i64::MAX)).expires_at(created) > Some(created));
    }

    #[test]
    fn owners_are_at_home_unless_namespaces_are_named_or_selected_by_labels_their_name_among_them()
    {
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        let none = BTreeMap::new();
        let all = [("dev", &none), ("prod", &labels), ("test", &none)];
        let of = |yaml: &str| {
            let owners: ReservationOwners = crate::document::decode_value(yaml.as_bytes()).unwrap();
            owners.namespaces_of("home", all)
        };
        assert_eq!(of("{selector: {}}"), ["home"]);
        assert_eq!(of("{selector: {}, namespaces: [x]}"), ["x"]);
        let selector = "namespaceSelector: {matchLabels: {team: a}}";
        assert_eq!(of(&format!("{{selector: {{}}, {selector}}}")), ["prod"]);
        let both = of(&format!(
            "{{selector: {{}}, namespaces: [dev, prod], {selector}}}"
        ));
        assert_eq!(both, ["dev", "prod"]);
        let by_name = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: test}}";
        assert_eq!(of(&format!("{{selector: {{}}, {by_name}}}")), ["test"]);
    }
}
