//! What disruption budgets say of taking a pod down now, by what the scheduler has written of them last. The scheduler alone
//! decides: this only tells people what it waits for.

use std::collections::BTreeMap;

use anyhow::Result;
use setpoint_apis::core::Pod;
use setpoint_apis::policy::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_apis::resolve::{Allowance, Disruption, PodHealth, disruption};
use setpoint_apis::{Key, Kind, ObjectKey, StringMap, document};

use crate::client::Client;

/// The disruption budgets of one namespace.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    by_name: BTreeMap<String, Budget>,
}

#[derive(Debug)]
enum Budget {
    Is(
        Box<PodDisruptionBudget>,
        Option<Box<PodDisruptionBudgetStatus>>,
    ),
    /// It could be about any pod, and could allow nothing.
    Unreadable,
}

/// A budget that does not let a pod go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Its name.
    pub(super) budget: String,
    /// The sentence for people.
    pub(super) message: String,
}

impl Budgets {
    /// Reads the budgets of a namespace.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn read(client: &Client, namespace: &str) -> Result<Self> {
        let plural = PodDisruptionBudget::PLURAL;
        let keyspace = client.keyspace();
        let desired = keyspace.desired_range(plural, Some(namespace));
        let actual = keyspace.actual_range(plural, Some(namespace));
        let (desired, at) = client.range(&desired, None).await?;
        if desired.is_empty() {
            return Ok(Self::default());
        }
        let (actual, _) = client.range(&actual, Some(at)).await?;
        let name = |key: &str| match keyspace.split(key) {
            Ok(Key::Desired(_, key) | Key::Actual(_, key)) => Some(key),
            _ => None,
        };
        let mut statuses: BTreeMap<ObjectKey, PodDisruptionBudgetStatus> = actual
            .iter()
            .filter_map(|kv| Some((name(&kv.key)?, document::decode_value(&kv.value).ok()?)))
            .collect();
        let by_name = desired.iter().filter_map(|kv| {
            let key = name(&kv.key)?;
            let budget = match document::decode_keyed(&key, &kv.value) {
                Ok(budget) => Budget::Is(Box::new(budget), statuses.remove(&key).map(Box::new)),
                Err(_) => Budget::Unreadable,
            };
            Some((key.name.to_string(), budget))
        });
        Ok(Self {
            by_name: by_name.collect(),
        })
    }

    /// The first budget, by name, that does not let a pod of its namespace go.
    pub(super) fn hold_back(&self, labels: &StringMap, health: PodHealth) -> Option<Held> {
        self.by_name.iter().find_map(|(name, budget)| {
            Some(Held {
                budget: name.clone(),
                message: format!(
                    "the disruption budget {name} {}",
                    budget.refuses(labels, health)?
                ),
            })
        })
    }
}

impl Budget {
    /// What to say of a budget that does not let a pod go.
    fn refuses(&self, labels: &StringMap, health: PodHealth) -> Option<String> {
        let Self::Is(budget, status) = self else {
            return (health != PodHealth::Idle)
                .then(|| "cannot be read, so it allows nothing".to_owned());
        };
        let selector = budget.spec.selector.as_ref()?;
        if !selector.matches(labels) {
            return None;
        }
        let status = status.as_deref();
        let now = status.map_or_else(Allowance::default, |s| Allowance {
            current_healthy: s.current_healthy,
            desired_healthy: s.desired_healthy,
            disruptions_allowed: s.disruptions_allowed,
        });
        if disruption(&budget.spec, now, health) != Disruption::Refused {
            return None;
        }
        let Some(status) = status else {
            return Some("has not been counted by the scheduler yet".to_owned());
        };
        if status.conditions.iter().any(|c| c.reason == "SyncFailed") {
            return Some("cannot be understood, so it allows nothing".to_owned());
        }
        Some(format!(
            "allows no disruption now: it needs {} healthy pods and has {}",
            now.desired_healthy, now.current_healthy
        ))
    }
}

/// How a pod is, as budgets see it. Whether its node is lost is not asked.
pub(super) fn health(binding: &Binding, report: Option<&PodActual>) -> PodHealth {
    if binding.withdrawn.is_some() {
        return PodHealth::Idle;
    }
    match report {
        Some(report) if report.is_ready() => PodHealth::Ready,
        Some(report) if report.stage == PodStage::Running => PodHealth::Unready,
        _ => PodHealth::Idle,
    }
}

/// The budget that does not let a pod go from where it is.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn hold_back(
    client: &Client,
    pod: &ObjectKey,
    binding: &Binding,
) -> Result<Option<Held>> {
    let budgets = Budgets::read(client, &pod.namespace).await?;
    if budgets.by_name.is_empty() {
        return Ok(None);
    }
    let keys = [
        Key::Desired(Pod::PLURAL, pod.clone()),
        Key::NodePod(&binding.node, pod.clone()),
    ];
    let read = client.get_many(&keys).await?;
    let [document, report] = read.as_slice() else {
        return Ok(None);
    };
    let document = document.as_ref();
    let Some(labels) = document
        .and_then(|kv| document::decode_keyed::<Pod>(pod, &kv.value).ok())
        .map(|pod| pod.metadata.labels)
    else {
        return Ok(None);
    };
    let report = report.as_ref();
    let report = report.and_then(|kv| document::decode_value::<PodActual>(&kv.value).ok());
    Ok(budgets.hold_back(&labels, health(binding, report.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(spec: &str, status: Option<&str>) -> Budgets {
        let text = format!(
            "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: b, namespace: x}}, \
             spec: {{selector: {{matchLabels: {{app: web}}}}, {spec}}}}}"
        );
        let key = ObjectKey::namespaced("x", "b");
        let budget = document::decode_keyed(&key, text.as_bytes()).unwrap();
        let status =
            status.map(|s| Box::new(document::decode_value(s.as_bytes()).expect("a status")));
        Budgets {
            by_name: [("b".to_owned(), Budget::Is(Box::new(budget), status))].into(),
        }
    }

    fn labels(app: &str) -> StringMap {
        [("app".to_owned(), app.to_owned())].into_iter().collect()
    }

    #[test]
    fn a_budget_is_named_when_it_lets_a_pod_of_its_own_not_go() {
        use PodHealth::{Idle, Ready, Unready};
        let none = "{disruptionsAllowed: 0, currentHealthy: 2, desiredHealthy: 2}";
        let one = "{disruptionsAllowed: 1, currentHealthy: 3, desiredHealthy: 2}";
        let few = "{disruptionsAllowed: 0, currentHealthy: 1, desiredHealthy: 2}";
        let broken = "{disruptionsAllowed: 0, conditions: [{type: DisruptionAllowed, status: 'False', reason: SyncFailed, message: x, lastTransitionTime: null}]}";
        let at_least = "minAvailable: 2";
        let careless = "minAvailable: 2, unhealthyPodEvictionPolicy: AlwaysAllow";
        for (spec, status, app, health, says) in [
            (
                at_least,
                Some(none),
                "web",
                Ready,
                Some("allows no disruption now: it needs 2 healthy pods and has 2"),
            ),
            (at_least, Some(one), "web", Ready, None),
            (at_least, Some(none), "db", Ready, None),
            (at_least, Some(none), "web", Unready, None),
            (at_least, Some(few), "web", Unready, Some("has 1")),
            (careless, Some(few), "web", Unready, None),
            (at_least, Some(few), "web", Idle, None),
            (at_least, None, "web", Ready, Some("not been counted")),
            (
                at_least,
                Some(broken),
                "web",
                Ready,
                Some("cannot be understood"),
            ),
        ] {
            let held = budgets(spec, status).hold_back(&labels(app), health);
            match says {
                None => assert_eq!(held, None, "{spec} {status:?} {app} {health:?}"),
                Some(says) => {
                    let held = held.expect("a budget holds it back");
                    assert!(held.message.contains(says), "{says}: {held:?}");
                    assert!(held.message.contains("budget b "), "{held:?}");
                }
            }
        }
    }

    #[test]
    fn a_budget_that_cannot_be_read_holds_back_whatever_runs() {
        let budgets = Budgets {
            by_name: [("b".to_owned(), Budget::Unreadable)].into(),
        };
        let held = budgets.hold_back(&labels("db"), PodHealth::Ready).unwrap();
        assert!(held.message.contains("cannot be read"), "{held:?}");
        assert_eq!(budgets.hold_back(&labels("db"), PodHealth::Idle), None);
    }
}
