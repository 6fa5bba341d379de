//! The columns of each kind's table: kubectl's, by name and content.

mod batch;
mod node;
mod placing;
mod pod;
mod workload;

use serde_json::Value;
use setpoint_apis::time::Timestamp;

use super::age;
use crate::object::{Object, pairs};

pub(crate) use node::{roles as node_roles, state as node_state};
pub(crate) use pod::state as pod_state;

/// A column.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// Its header.
    pub(crate) name: &'static str,
    /// Only shown with `-o wide`.
    pub(crate) wide: bool,
    /// What it shows of an object, at a time.
    pub(crate) cell: fn(&Object, Timestamp) -> String,
}

impl Column {
    /// Whether it shows a number that the object's controller has counted.
    pub(crate) fn is_counted(&self, object: &Object) -> bool {
        let counts = match object.kind.plural {
            "deployments" | "replicasets" | "statefulsets" => {
                matches!(self.name, "UP-TO-DATE" | "AVAILABLE" | "CURRENT" | "READY")
            }
            "daemonsets" => matches!(
                self.name,
                "DESIRED" | "UP-TO-DATE" | "AVAILABLE" | "CURRENT" | "READY"
            ),
            _ => false,
        };
        counts && object.at(&["status"]).is_some()
    }
}

const fn column(name: &'static str, cell: fn(&Object, Timestamp) -> String) -> Column {
    Column {
        name,
        wide: false,
        cell,
    }
}

const fn wide(name: &'static str, cell: fn(&Object, Timestamp) -> String) -> Column {
    Column {
        name,
        wide: true,
        cell,
    }
}

const NAME: Column = column("NAME", |o, _| o.key.name.to_string());
const AGE: Column = column("AGE", |o, now| age::since(o.created, now));

/// The columns of a kind, by its plural.
pub(crate) fn of(plural: &str) -> &'static [Column] {
    match plural {
        "pods" => pod::COLUMNS,
        "nodes" => node::COLUMNS,
        "deployments" => DEPLOYMENT,
        "replicasets" => REPLICA_SET,
        "statefulsets" => workload::STATEFUL_SET,
        "daemonsets" => workload::DAEMON_SET,
        "controllerrevisions" => workload::REVISION,
        "jobs" => batch::JOB,
        "cronjobs" => batch::CRON_JOB,
        "horizontalpodautoscalers" => workload::AUTOSCALER,
        "limitranges" => placing::LIMIT_RANGE,
        "namespaces" => NAMESPACE,
        "configmaps" => CONFIG_MAP,
        "secrets" => SECRET,
        "services" => SERVICE,
        "ingresses" => INGRESS,
        "persistentvolumeclaims" => CLAIM,
        "events" => EVENT,
        "priorityclasses" => placing::PRIORITY_CLASS,
        "poddisruptionbudgets" => placing::BUDGET,
        "resourcequotas" => placing::QUOTA,
        "podgroups" => placing::POD_GROUP,
        "reservations" => placing::RESERVATION,
        "schedulerprofiles" => placing::PROFILE,
        _ => ANY,
    }
}

const ANY: &[Column] = &[NAME, AGE];

const DEPLOYMENT: &[Column] = &[
    NAME,
    column("READY", |o, _| {
        format!(
            "{}/{}",
            o.number_at(&["status", "readyReplicas"]),
            replicas(o)
        )
    }),
    column("UP-TO-DATE", |o, _| {
        o.number_at(&["status", "updatedReplicas"]).to_string()
    }),
    column("AVAILABLE", |o, _| {
        o.number_at(&["status", "availableReplicas"]).to_string()
    }),
    AGE,
    wide("CONTAINERS", |o, _| of_containers(o, "name")),
    wide("IMAGES", |o, _| of_containers(o, "image")),
    wide("SELECTOR", |o, _| selector(o.at(&["spec", "selector"]))),
];

const REPLICA_SET: &[Column] = &[
    NAME,
    column("DESIRED", |o, _| replicas(o).to_string()),
    column("CURRENT", |o, _| {
        o.number_at(&["status", "replicas"]).to_string()
    }),
    column("READY", |o, _| {
        o.number_at(&["status", "readyReplicas"]).to_string()
    }),
    AGE,
    wide("CONTAINERS", |o, _| of_containers(o, "name")),
    wide("IMAGES", |o, _| of_containers(o, "image")),
    wide("SELECTOR", |o, _| selector(o.at(&["spec", "selector"]))),
];

const NAMESPACE: &[Column] = &[
    NAME,
    column("STATUS", |o, _| match o.text_at(&["status", "phase"]) {
        "" => "Active".into(),
        phase => phase.into(),
    }),
    AGE,
];

const CONFIG_MAP: &[Column] = &[
    NAME,
    column("DATA", |o, _| {
        (count(o.at(&["data"])) + count(o.at(&["binaryData"]))).to_string()
    }),
    AGE,
];

const SECRET: &[Column] = &[
    NAME,
    column("TYPE", |o, _| match o.text_at(&["type"]) {
        "" => "Opaque".into(),
        type_ => type_.into(),
    }),
    column("DATA", |o, _| pairs(o.at(&["data"])).len().to_string()),
    AGE,
];

const SERVICE: &[Column] = &[
    NAME,
    column("TYPE", |o, _| match o.text_at(&["spec", "type"]) {
        "" => "ClusterIP".into(),
        type_ => type_.into(),
    }),
    column("CLUSTER-IP", |o, _| {
        or_none(o.text_at(&["spec", "clusterIP"]))
    }),
    column("EXTERNAL-IP", |o, _| {
        let name = o.text_at(&["spec", "externalName"]);
        if !name.is_empty() {
            return name.into();
        }
        let listed = o
            .list_at(&["spec", "externalIPs"])
            .iter()
            .filter_map(Value::as_str);
        or_none(
            &listed
                .map(str::to_owned)
                .chain(load_balancer(o))
                .collect::<Vec<_>>()
                .join(","),
        )
    }),
    column("PORT(S)", |o, _| {
        let port = |p: &Value| {
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            match p["nodePort"].as_i64() {
                Some(node) => format!("{}:{node}/{protocol}", p["port"]),
                None => format!("{}/{protocol}", p["port"]),
            }
        };
        or_none(
            &o.list_at(&["spec", "ports"])
                .iter()
                .map(port)
                .collect::<Vec<_>>()
                .join(","),
        )
    }),
    AGE,
    wide("SELECTOR", |o, _| selector(o.at(&["spec", "selector"]))),
];

const INGRESS: &[Column] = &[
    NAME,
    column("CLASS", |o, _| {
        or_none(o.text_at(&["spec", "ingressClassName"]))
    }),
    column("HOSTS", |o, _| {
        let hosts = o
            .list_at(&["spec", "rules"])
            .iter()
            .filter_map(|r| r["host"].as_str());
        match hosts.collect::<Vec<_>>().join(",") {
            none if none.is_empty() => "*".into(),
            hosts => hosts,
        }
    }),
    column("ADDRESS", |o, _| {
        load_balancer(o).collect::<Vec<_>>().join(",")
    }),
    column("PORTS", |o, _| {
        if o.list_at(&["spec", "tls"]).is_empty() {
            "80"
        } else {
            "80, 443"
        }
        .into()
    }),
    AGE,
];

const CLAIM: &[Column] = &[
    NAME,
    column("STATUS", |o, _| match o.text_at(&["status", "phase"]) {
        "" => "Pending".into(),
        phase => phase.into(),
    }),
    column("VOLUME", |o, _| o.text_at(&["spec", "volumeName"]).into()),
    column("CAPACITY", |o, _| {
        o.text_at(&["status", "capacity", "storage"]).into()
    }),
    column("ACCESS MODES", |o, _| {
        let short = |m: &Value| match m.as_str() {
            Some("ReadWriteOnce") => "RWO".to_owned(),
            Some("ReadOnlyMany") => "ROX".to_owned(),
            Some("ReadWriteMany") => "RWX".to_owned(),
            Some("ReadWriteOncePod") => "RWOP".to_owned(),
            other => other.unwrap_or_default().to_owned(),
        };
        o.list_at(&["spec", "accessModes"])
            .iter()
            .map(short)
            .collect::<Vec<_>>()
            .join(",")
    }),
    column("STORAGECLASS", |o, _| {
        o.text_at(&["spec", "storageClassName"]).into()
    }),
    AGE,
];

const EVENT: &[Column] = &[
    column("LAST SEEN", |o, now| age::since(event_time(o), now)),
    column("TYPE", |o, _| o.text_at(&["type"]).into()),
    column("REASON", |o, _| o.text_at(&["reason"]).into()),
    column("OBJECT", |o, _| {
        let kind = o.text_at(&["involvedObject", "kind"]).to_lowercase();
        format!("{kind}/{}", o.text_at(&["involvedObject", "name"]))
    }),
    wide("SUBOBJECT", |o, _| {
        o.text_at(&["involvedObject", "fieldPath"]).into()
    }),
    wide("SOURCE", |o, _| event_source(o)),
    column("MESSAGE", |o, _| o.text_at(&["message"]).trim().into()),
    wide("FIRST SEEN", |o, now| {
        age::since(o.time_at(&["firstTimestamp"]).or(event_time(o)), now)
    }),
    wide("COUNT", |o, _| o.number_at(&["count"]).max(1).to_string()),
    wide("NAME", |o, _| o.key.name.to_string()),
];

/// When an event happened last.
pub(crate) fn event_time(event: &Object) -> Option<Timestamp> {
    let micro = |path: &[&str]| event.time_at(path);
    micro(&["series", "lastObservedTime"])
        .or_else(|| micro(&["lastTimestamp"]))
        .or_else(|| micro(&["eventTime"]))
        .or_else(|| micro(&["firstTimestamp"]))
}

/// Who reported an event: `agent, n1`.
pub(crate) fn event_source(event: &Object) -> String {
    let component = match event.text_at(&["source", "component"]) {
        "" => event.text_at(&["reportingComponent"]),
        component => component,
    };
    let host = event.text_at(&["source", "host"]);
    if host.is_empty() {
        component.into()
    } else {
        format!("{component}, {host}")
    }
}

/// How many pods are wanted: what an autoscaler has decided, else what the document says; Kubernetes' default is 1.
pub(crate) fn replicas(o: &Object) -> i64 {
    let number = |path: &[&str]| o.at(path).and_then(Value::as_i64);
    let asked = number(&["spec", "replicas"]).unwrap_or(1);
    // No autoscaler brings back what was scaled to nothing.
    let decided = number(&["status", "desiredReplicas"]).filter(|_| asked > 0);
    decided.unwrap_or(asked)
}

fn count(value: Option<&Value>) -> usize {
    value
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn or_none(text: &str) -> String {
    if text.is_empty() {
        "<none>".into()
    } else {
        text.into()
    }
}

fn load_balancer(o: &Object) -> impl Iterator<Item = String> {
    let all = o.list_at(&["status", "loadBalancer", "ingress"]).iter();
    all.filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str()))
        .map(str::to_owned)
}

fn of_containers(o: &Object, field: &str) -> String {
    containers_at(o, &["spec", "template", "spec", "containers"], field)
}

fn containers_at(o: &Object, path: &[&str], field: &str) -> String {
    let containers = o.list_at(path).iter();
    containers
        .filter_map(|c| c[field].as_str())
        .collect::<Vec<_>>()
        .join(",")
}

/// A label selector in the form that `-l` takes; also Service's plain mapping.
pub(crate) fn selector(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "<none>".into();
    };
    let plain = value.get("matchLabels").is_none() && value.get("matchExpressions").is_none();
    if plain {
        let all: Vec<String> = pairs(Some(value))
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        return or_none(&all.join(","));
    }
    match serde_json::from_value::<setpoint_apis::selector::LabelSelector>(value.clone()) {
        Ok(selector) => or_none(&selector.to_string()),
        Err(_) => "<invalid>".into(),
    }
}
