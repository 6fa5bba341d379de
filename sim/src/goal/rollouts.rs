//! Which rollouts may have failed for good: those of broken templates, and those that took too long and were taken back,
//! where nothing but a broken one is known to go back to.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::apps::{FormerRevision, ROLLBACK_ON_FAILURE, RollbackRecord};
use setpoint_apis::{Key, ObjectKey, ObjectMeta, document};

use crate::pods::BROKEN;

/// What Deployments, StatefulSets and DaemonSets have alike. Their names differ here.
#[derive(Default)]
pub(super) struct Rollouts {
    /// Workloads whose template is broken, and whether that is to be taken back.
    broken: BTreeMap<ObjectKey, bool>,
    /// Revisions that are not broken.
    good: BTreeSet<ObjectKey>,
    /// Workloads whose rollout was taken back.
    reverted: BTreeSet<ObjectKey>,
    /// The revisions that may be gone back to.
    former: BTreeMap<ObjectKey, Vec<String>>,
}

#[derive(serde::Deserialize)]
struct Workload {
    metadata: ObjectMeta,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    rollback: Option<RollbackRecord>,
    last_available_revision: Option<String>,
    former_available_revision: Option<FormerRevision>,
}

impl Rollouts {
    /// Takes note of what matters here. Who counts workloads says when one cannot be read.
    pub(super) fn take(&mut self, key: &Key<'_>, value: &[u8]) {
        let is_broken = || String::from_utf8_lossy(value).contains(BROKEN);
        match key {
            Key::Desired("deployments" | "statefulsets" | "daemonsets", object) => {
                if is_broken()
                    && let Ok(workload) = document::decode_value::<Workload>(value)
                {
                    let noted = workload.metadata.annotations;
                    let off = noted.get(ROLLBACK_ON_FAILURE).map(String::as_str) == Some("false");
                    self.broken.insert(object.clone(), !off);
                }
            }
            Key::Desired("replicasets" | "controllerrevisions", object) if !is_broken() => {
                self.good.insert(object.clone());
            }
            Key::Actual("deployments" | "statefulsets" | "daemonsets", object) => {
                if let Ok(status) = document::decode_value::<Status>(value) {
                    if status.rollback.is_some() {
                        self.reverted.insert(object.clone());
                    }
                    let former = status.former_available_revision.map(|f| f.revision);
                    let all = status.last_available_revision.into_iter().chain(former);
                    self.former.insert(object.clone(), all.collect());
                }
            }
            _ => {}
        }
    }

    /// Whether a workload may be left with pods that never become available.
    pub(super) fn may_fail(&self, workload: &ObjectKey) -> bool {
        let good = |revision: &String| {
            let key = ObjectKey::namespaced(workload.namespace.clone(), revision.as_str());
            self.good.contains(&key)
        };
        let mut former = self.former.get(workload).into_iter().flatten();
        match self.broken.get(workload) {
            Some(is_taken_back) => !is_taken_back || !former.any(good),
            None => self.reverted.contains(workload) && !former.any(good),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a Deployment with a broken template may fail, when its status says this.
    fn may_fail(annotations: &str, status: &str) -> bool {
        let broken = format!("{{metadata: {{annotations: {{{BROKEN}: crashes}}}}}}");
        may_fail_with(&broken, annotations, status)
    }

    fn may_fail_with(template: &str, annotations: &str, status: &str) -> bool {
        let key = |name: &str| ObjectKey::namespaced("default", name);
        let broken = format!("template: {{metadata: {{annotations: {{{BROKEN}: crashes}}}}}}");
        let workload =
            format!("metadata: {{annotations: {{{annotations}}}}}\nspec: {{template: {template}}}");
        let mut rollouts = Rollouts::default();
        let mut take = |key: Key<'_>, text: &str| rollouts.take(&key, text.as_bytes());
        take(Key::Desired("deployments", key("web")), &workload);
        take(Key::Desired("replicasets", key("web-good")), "spec: {}");
        take(Key::Desired("replicasets", key("web-bad")), &broken);
        take(Key::Actual("deployments", key("web")), status);
        rollouts.may_fail(&key("web"))
    }

    #[test]
    fn a_broken_template_is_left_only_where_there_is_nothing_to_go_back_to() {
        let last = "lastAvailableRevision: ";
        assert!(may_fail("", "{}"));
        assert!(may_fail("", &format!("{last}web-bad")));
        assert!(!may_fail("", &format!("{last}web-good")));
        let former =
            "formerAvailableRevision: {revision: web-good, replacedAt: 2026-01-01T00:00:00Z}";
        assert!(!may_fail("", &format!("{last}web-bad\n{former}")));
        let off = format!("{ROLLBACK_ON_FAILURE}: 'false'");
        assert!(may_fail(&off, &format!("{last}web-good")));
        // A good one that was taken back.
        let record = "rollback: {failedRevision: web-new, toRevision: web-bad, reason: ProgressDeadlineExceeded, at: 2026-01-01T00:00:00Z}";
        let taken_back = |of: &str| may_fail_with("{}", "", &format!("{last}{of}\n{record}"));
        assert!(taken_back("web-bad") && !taken_back("web-good"));
        assert!(!may_fail_with("{}", "", &format!("{last}web-bad")));
    }
}
