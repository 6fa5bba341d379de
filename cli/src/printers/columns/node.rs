//! The columns of nodes.

use serde_json::Value;

use super::{AGE, Column, NAME, column, or_none, wide};
use crate::object::Object;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("STATUS", |o, _| state(o)),
    column("ROLES", |o, _| roles(o)),
    AGE,
    column("VERSION", |o, _| {
        o.text_at(&["status", "nodeInfo", "kubeletVersion"]).into()
    }),
    wide("INTERNAL-IP", |o, _| or_none(address(o, "InternalIP"))),
    wide("OS-IMAGE", |o, _| {
        or_none(o.text_at(&["status", "nodeInfo", "osImage"]))
    }),
    wide("KERNEL-VERSION", |o, _| {
        or_none(o.text_at(&["status", "nodeInfo", "kernelVersion"]))
    }),
    wide("CONTAINER-RUNTIME", |o, _| {
        or_none(o.text_at(&["status", "nodeInfo", "containerRuntimeVersion"]))
    }),
];

/// `Ready`, `NotReady`, `Unreachable`, `Suspended`, `Removed`, with `,SchedulingDisabled` when it is cordoned.
pub(crate) fn state(o: &Object) -> String {
    let ready = o.condition("Ready");
    let returning = ready.is_some_and(|c| c["reason"] == "Returning");
    let concluded = match o.text_at(&["status", "state"]) {
        "Suspended" => Some("Suspended"),
        "Unreachable" if !returning => Some("Unreachable"),
        "Removed" => Some("Removed"),
        _ => None,
    };
    let mut words = vec![match ready.and_then(|c| c["status"].as_str()) {
        _ if o.terminating => "Removed",
        Some("True") => "Ready",
        Some(status) => match concluded {
            Some(word) => word,
            None if status == "Unknown" && !returning => "Unreachable",
            None => "NotReady",
        },
        None => "Unknown",
    }];
    if o.at(&["spec", "unschedulable"]).and_then(Value::as_bool) == Some(true) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

/// The roles, from labels `node-role.kubernetes.io/<role>`.
pub(crate) fn roles(o: &Object) -> String {
    let mut roles: Vec<String> = o
        .labels()
        .into_iter()
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role.to_owned()),
            _ if k == "kubernetes.io/role" && !v.is_empty() => Some(v),
            _ => None,
        })
        .collect();
    roles.dedup();
    or_none(&roles.join(","))
}

fn address<'a>(o: &'a Object, type_: &str) -> &'a str {
    let all = o.list_at(&["status", "addresses"]).iter();
    all.filter(|a| a["type"] == type_)
        .find_map(|a| a["address"].as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::printers::tests::object;

    #[test]
    fn the_status_of_a_node_names_its_state_and_whether_it_is_cordoned() {
        let node = |status: &str, reason: &str, cordoned: bool| {
            object(
                "nodes",
                json!({"spec": {"unschedulable": cordoned}, "status": {"conditions": [{"type": "Ready", "status": status, "reason": reason}]}}),
            )
        };
        assert_eq!(state(&node("True", "", false)), "Ready");
        assert_eq!(state(&node("True", "", true)), "Ready,SchedulingDisabled");
        assert_eq!(state(&node("False", "DiskPressure", false)), "NotReady");
        assert_eq!(state(&node("Unknown", "SessionLost", false)), "Unreachable");
        assert_eq!(state(&node("Unknown", "Returning", false)), "NotReady");
        assert_eq!(state(&object("nodes", json!({}))), "Unknown");
        let suspended = json!({"status": {"state": "Suspended", "conditions": [{"type": "Ready", "status": "Unknown"}]}});
        assert_eq!(state(&object("nodes", suspended)), "Suspended");
    }

    #[test]
    fn roles_come_from_labels() {
        let o = object(
            "nodes",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": ""}}}),
        );
        assert_eq!(roles(&o), "edge,worker");
        assert_eq!(roles(&object("nodes", json!({}))), "<none>");
    }
}
