//! Nodes: health, what the machine has, which pods it runs and what they take.

use std::collections::BTreeMap;

use anyhow::Result;
use setpoint_apis::core::Pod;
use setpoint_apis::{Quantity, ResourceList, document, view};

use super::sheet::Sheet;
use super::workload::conditions;
use crate::client::Client;
use crate::kinds;
use crate::object::{Object, pairs};
use crate::printers::age;
use crate::printers::columns::{node_roles, node_state, pod_state};
use crate::printers::jsonpath::plain;

/// Adds what is particular to a node.
pub(super) async fn describe(sheet: &mut Sheet, client: &Client, node: &Object) -> Result<()> {
    sheet.field("Status", node_state(node));
    sheet.field("Roles", node_roles(node));
    super::common(sheet, node, client.now());
    let taints: Vec<String> = node
        .list_at(&["spec", "taints"])
        .iter()
        .map(|t| match t["value"].as_str() {
            Some(value) if !value.is_empty() => {
                format!("{}={value}:{}", plain(&t["key"]), plain(&t["effect"]))
            }
            _ => format!("{}:{}", plain(&t["key"]), plain(&t["effect"])),
        })
        .collect();
    sheet.field(
        "Taints",
        if taints.is_empty() {
            "<none>".into()
        } else {
            taints.join("\n")
        },
    );
    sheet.field(
        "Unschedulable",
        node.at(&["spec", "unschedulable"])
            .is_some_and(|v| v == true),
    );
    if let Some(agent) = node.at(&["status", "agent"]) {
        sheet.field(
            "Agent",
            format!(
                "process {} on {}, since {}",
                agent["pid"],
                plain(&agent["hostname"]),
                plain(&agent["since"])
            ),
        );
    }
    sheet.field_unless_empty("Endpoint", node.text_at(&["status", "endpoint"]));
    let drivers: Vec<String> = node
        .list_at(&["status", "drivers"])
        .iter()
        .map(plain)
        .collect();
    sheet.field(
        "Drivers",
        if drivers.is_empty() {
            "<none>".into()
        } else {
            drivers.join(", ")
        },
    );
    conditions(sheet, node);
    let addresses: BTreeMap<String, String> = node
        .list_at(&["status", "addresses"])
        .iter()
        .map(|a| (plain(&a["type"]), plain(&a["address"])))
        .collect();
    sheet.pairs("Addresses", &addresses);
    for (field, title) in [
        ("capacity", "Capacity"),
        ("allocatable", "Allocatable"),
        ("usage", "Usage"),
    ] {
        let list = pairs(node.at(&["status", field]));
        if !list.is_empty() {
            sheet.section(title, |s| s.aligned(&list));
        }
    }
    let info = pairs(node.at(&["status", "nodeInfo"]));
    if !info.is_empty() {
        sheet.section("System Info", |s| s.aligned(&info));
    }
    pods(sheet, client, node).await
}

async fn pods(sheet: &mut Sheet, client: &Client, node: &Object) -> Result<()> {
    let mut pods = client.list(kinds::builtin("pods"), None).await?.objects;
    pods.retain(|p| p.text_at(&["spec", "nodeName"]) == &*node.key.name);
    let allocatable: ResourceList = node
        .at(&["status", "allocatable"])
        .and_then(|v| serde_json::from_value(v.clone()).ok())
        .unwrap_or_default();
    let (mut requests, mut limits) = (ResourceList::new(), ResourceList::new());
    let mut rows = Vec::new();
    for pod in &pods {
        let spec = pod
            .text
            .as_ref()
            .and_then(|t| document::decode_keyed::<Pod>(&pod.key, t.as_bytes()).ok())
            .map(|p| p.spec);
        let (wants, most) = spec
            .map(|s| (view::pod_requests(&s), view::pod_limits(&s)))
            .unwrap_or_default();
        let cell = |list: &ResourceList, name: &str| match list.get(name) {
            Some(q) => share(q, allocatable.get(name)),
            None => "0".to_owned(),
        };
        rows.push(vec![
            pod.key.namespace.to_string(),
            pod.key.name.to_string(),
            pod_state(pod),
            cell(&wants, "cpu"),
            cell(&most, "cpu"),
            cell(&wants, "memory"),
            cell(&most, "memory"),
            age::since(pod.created, client.now()),
        ]);
        if !matches!(pod.text_at(&["status", "phase"]), "Succeeded" | "Failed") {
            add(&mut requests, &wants);
            add(&mut limits, &most);
        }
    }
    sheet.section(&format!("Pods ({} in total)", pods.len()), |s| {
        if !rows.is_empty() {
            let headers = [
                "Namespace",
                "Name",
                "Status",
                "CPU Requests",
                "CPU Limits",
                "Memory Requests",
                "Memory Limits",
                "Age",
            ];
            s.table(&headers, &rows);
        }
    });
    let names: Vec<&String> = requests
        .keys()
        .chain(limits.keys())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if !names.is_empty() {
        let cell = |list: &ResourceList, name: &str| {
            list.get(name)
                .map_or_else(|| "0".to_owned(), |q| share(q, allocatable.get(name)))
        };
        let rows: Vec<Vec<String>> = names
            .iter()
            .map(|n| vec![(*n).clone(), cell(&requests, n), cell(&limits, n)])
            .collect();
        sheet.section("Allocated resources", |s| {
            s.table(&["Resource", "Requests", "Limits"], &rows)
        });
    }
    Ok(())
}

/// An amount with its share of what there is: `500m (25%)`.
fn share(amount: &Quantity, of: Option<&Quantity>) -> String {
    match of {
        Some(total) if !total.is_zero() => format!(
            "{amount} ({:.0}%)",
            100.0 * amount.as_f64() / total.as_f64()
        ),
        _ => amount.to_string(),
    }
}

fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}
