//! Random manifests, made from our schemas: every field turns up, with values that are mostly valid.

#[path = "workload.rs"]
mod workload;

use fastrand::Rng;
use serde_json::{Map, Value, json};
use setpoint_apis::registry::KindInfo;

/// Types of which exactly one of the fields is set, besides those named.
const ONE_OF: &[(&str, &[&str])] = &[
    ("Volume", &["name"]),
    ("EnvVarSource", &[]),
    ("EnvFromSource", &["prefix"]),
    ("VolumeProjection", &[]),
    ("LifecycleHandler", &[]),
    ("IngressBackend", &[]),
    ("ServiceBackendPort", &[]),
    ("PodFailurePolicyRule", &["action"]),
    ("MetricSpec", &["type"]),
];

const HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];

struct Generator<'a> {
    schema: &'a Value,
    rng: Rng,
    /// For names that must differ.
    count: usize,
    volumes: Vec<String>,
}

/// A manifest of the kind. The same seed gives the same manifest.
pub(crate) fn manifest(kind: &KindInfo, seed: u64) -> Value {
    let schema = Value::from((kind.schema)());
    let mut g = Generator {
        schema: &schema,
        rng: Rng::with_seed(seed),
        count: 0,
        volumes: Vec::new(),
    };
    let mut value = g.value(&schema, "", kind.kind, 0).unwrap_or(Value::Null);
    let metadata = value["metadata"]
        .as_object_mut()
        .expect("every kind has metadata");
    metadata.remove("generateName");
    metadata.remove("uid");
    metadata.insert("name".into(), "a1".into());
    if !kind.namespaced {
        metadata.remove("namespace");
    }
    repair(kind.kind, &mut value);
    value
}

/// The text with a few characters or lines changed.
pub(crate) fn mutate(text: &str, seed: u64) -> String {
    let mut rng = Rng::with_seed(seed);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..lines.len());
        match rng.u8(..8) {
            0 => {
                lines.remove(at);
            }
            1 => lines.insert(rng.usize(..lines.len()), lines[at].clone()),
            2 => lines[at] += [" # remark", " ", ":", "\t", " ~", "!"][rng.usize(..6)],
            3 => lines[at] = format!("{}{}", [" ", "  ", "- ", "#"][rng.usize(..4)], lines[at]),
            4 => lines[at] = lines[at].trim_start().to_owned(),
            _ => {
                // Another value.
                let values = [
                    "yes",
                    "no",
                    "0644",
                    "1e3",
                    "'1'",
                    "null",
                    "''",
                    "{}",
                    "[]",
                    "1.5",
                    "on",
                    "0x1F",
                    "~",
                    "2001-01-01",
                    "-1",
                    "a",
                    "'a b'",
                ];
                if let Some((key, _)) = lines[at].clone().split_once(':') {
                    lines[at] = format!("{key}: {}", values[rng.usize(..values.len())]);
                }
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join(if rng.u8(..8) == 0 { "\r\n" } else { "\n" }) + "\n"
}

impl Generator<'_> {
    fn pick<'b>(&mut self, words: &[&'b str]) -> &'b str {
        words[self.rng.usize(..words.len())]
    }

    fn unique(&mut self) -> String {
        self.count += 1;
        format!("n{}", self.count)
    }

    fn value(
        &mut self,
        schema: &Value,
        field: &str,
        type_name: &str,
        depth: usize,
    ) -> Option<Value> {
        if let Some(name) = schema["$ref"]
            .as_str()
            .and_then(|r| r.strip_prefix("#/$defs/"))
        {
            let schema = self.schema["$defs"][name].clone();
            return self.value(&schema, field, name, depth);
        }
        if let Some(option) = schema["anyOf"]
            .as_array()
            .and_then(|o| o.iter().find(|o| o["type"] != "null"))
        {
            return self.value(&option.clone(), field, type_name, depth);
        }
        if let Some(word) = schema["const"].as_str() {
            return Some(word.into());
        }
        if let Some(options) = schema["oneOf"].as_array() {
            return Some(options[self.rng.usize(..options.len())]["const"].clone());
        }
        if let Some(words) = schema["enum"].as_array() {
            return Some(words[self.rng.usize(..words.len())].clone());
        }
        match schema["format"].as_str() {
            Some("quantity") => {
                return Some(
                    self.pick(&["100m", "0.5", "1", "2Gi", "1e3", "1500m", "3M"])
                        .into(),
                );
            }
            Some("int-or-string") if field.starts_with("max") => {
                return Some([json!(1), json!("25%")][self.rng.usize(..2)].clone());
            }
            Some("int-or-string") => return Some(json!(self.rng.u16(1..))),
            Some("byte") => return Some(self.pick(&["", "aGVsbG8=", "AAECAw=="]).into()),
            Some("date-time") => {
                return Some(
                    self.pick(&["2026-11-23T15:25:03Z", "2026-11-23T15:25:03.000001Z"])
                        .into(),
                );
            }
            _ => {}
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        Some(match *types.first()? {
            "object" if schema["properties"].is_object() => self.object(schema, type_name, depth),
            "object" => self.map(&schema["additionalProperties"].clone(), field, depth),
            "array" => {
                let least = usize::from(matches!(
                    field,
                    "containers"
                        | "paths"
                        | "nodeSelectorTerms"
                        | "command"
                        | "ports"
                        | "rules"
                        | "accessModes"
                        | "onPodConditions"
                        | "policies"
                ));
                let n = self.rng.usize(least..3);
                (0..n)
                    .filter_map(|_| self.value(&schema["items"].clone(), field, "", depth + 1))
                    .collect()
            }
            "boolean" => json!(self.rng.bool()),
            "integer" => self.integer(field),
            _ => self.text(field, type_name).into(),
        })
    }

    fn object(&mut self, schema: &Value, type_name: &str, depth: usize) -> Value {
        let properties = schema["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let one_of = ONE_OF.iter().find(|(name, _)| *name == type_name);
        let chosen = one_of.map(|(_, but)| {
            let choices: Vec<&String> = properties
                .keys()
                .filter(|k| !but.contains(&k.as_str()))
                .collect();
            choices[self.rng.usize(..choices.len())].clone()
        });
        let handler = HANDLERS[self.rng.usize(..HANDLERS.len())];
        let mut object = Map::new();
        for (name, property) in &properties {
            let wanted = match &chosen {
                Some(chosen) if name == chosen => true,
                Some(_) if one_of.is_some_and(|(_, but)| !but.contains(&name.as_str())) => false,
                _ if type_name == "Probe" && HANDLERS.contains(&name.as_str()) => name == handler,
                _ => {
                    name == "spec"
                        || required.contains(&name.as_str())
                        || self.rng.usize(..3 + depth / 3) == 0
                }
            };
            if wanted && let Some(value) = self.value(property, name, "", depth + 1) {
                object.insert(name.clone(), value);
            }
        }
        self.fix(type_name, &mut object);
        Value::Object(object)
    }

    fn map(&mut self, values: &Value, field: &str, depth: usize) -> Value {
        let keys: &[&str] = match field {
            "limits" | "requests" | "overhead" | "resources" => {
                &["cpu", "memory", "ephemeral-storage"]
            }
            "hard" => &["cpu", "requests.memory", "limits.ephemeral-storage"],
            "data" | "stringData" | "volumeAttributes" => &["a", "b.txt", "C_D", "8080"],
            "binaryData" => &["e", "f"],
            _ => &["app", "example.com/tier", "x"],
        };
        let mut map = Map::new();
        for key in keys {
            if self.rng.bool()
                && let Some(value) = self.value(values, "value", "", depth + 1)
            {
                map.insert((*key).into(), value);
            }
        }
        Value::Object(map)
    }

    fn integer(&mut self, field: &str) -> Value {
        json!(match field {
            "weight" | "maxSkew" => self.rng.i64(1..=100),
            "mode" | "defaultMode" => self.rng.i64(0..=0o777),
            "successThreshold" => 1,
            "progressDeadlineSeconds" => self.rng.i64(1000..2000),
            "priority" => self.rng.i64(-5..5),
            f if f.ends_with("ort") => self.rng.i64(1..=65535),
            _ => self.rng.i64(1..1000),
        })
    }

    fn text(&mut self, field: &str, type_name: &str) -> String {
        match (type_name, field) {
            (_, "fieldPath") => self
                .pick(&[
                    "metadata.name",
                    "metadata.namespace",
                    "metadata.labels['a']",
                ])
                .into(),
            (_, "resource") => self.pick(&["limits.cpu", "requests.memory"]).into(),
            (_, "mountPropagation") => self.pick(&["None", "HostToContainer"]).into(),
            (_, "nodeAffinityPolicy" | "nodeTaintsPolicy") => {
                self.pick(&["Honor", "Ignore"]).into()
            }
            (_, "ip" | "hostIP") => "10.0.0.1".into(),
            (_, "medium") => self.pick(&["", "Memory"]).into(),
            (_, "volumeMode") => self.pick(&["Filesystem", "Block"]).into(),
            (_, "sessionAffinity") => self.pick(&["None", "ClientIP"]).into(),
            (_, "externalTrafficPolicy" | "internalTrafficPolicy") => {
                self.pick(&["Cluster", "Local"]).into()
            }
            (_, "type") => String::new(),
            (_, "path" | "mountPath") => format!("/{}", self.unique()),
            (_, "value") => self
                .pick(&[
                    "",
                    "a",
                    "1",
                    "yes",
                    "null",
                    "1e3",
                    "x.y",
                    "0644",
                    "2001-01-01",
                ])
                .into(),
            (_, "message" | "args") => self
                .pick(&[
                    "",
                    "a: b",
                    "- c",
                    "# d",
                    " e ",
                    "ü😀",
                    "$(A)",
                    "two\nlines\n",
                    "'",
                    "\"",
                    "no",
                ])
                .into(),
            (_, "divisor") => "1".into(),
            _ => self.unique(),
        }
    }

    /// What one type wants that its schema does not say.
    fn fix(&mut self, type_name: &str, o: &mut Map<String, Value>) {
        let text = |o: &Map<String, Value>, field: &str| {
            o.get(field).and_then(Value::as_str).map(str::to_owned)
        };
        match type_name {
            "Volume" => self.volumes.extend(text(o, "name")),
            "EnvVar" if o.contains_key("valueFrom") => {
                o.remove("value");
            }
            "KeyToPath" | "DownwardApiVolumeFile" => {
                o.insert("path".into(), self.unique().into());
                if type_name != "KeyToPath" {
                    o.remove("resourceFieldRef");
                    o.insert("fieldRef".into(), json!({ "fieldPath": "metadata.name" }));
                }
            }
            "SecretVolumeSource" => {
                o.entry("secretName").or_insert("s".into());
            }
            "ConfigMapVolumeSource"
            | "ConfigMapProjection"
            | "SecretProjection"
            | "KeySelector"
            | "EnvFromRef" => {
                o.entry("name").or_insert("s".into());
            }
            "LabelSelectorRequirement" | "NodeSelectorRequirement" => {
                let values = match text(o, "operator").as_deref() {
                    Some("In" | "NotIn") => json!(["a"]),
                    Some("Gt" | "Lt") => json!(["1"]),
                    _ => json!([]),
                };
                o.insert("values".into(), values);
            }
            "NodeSelectorTerm" => {
                o.remove("matchFields");
            }
            "PodAffinityTerm" if !o.contains_key("labelSelector") => {
                o.remove("matchLabelKeys");
                o.remove("mismatchLabelKeys");
            }
            "TopologySpreadConstraint" => {
                if !o.contains_key("labelSelector") {
                    o.remove("matchLabelKeys");
                }
                if text(o, "whenUnsatisfiable").as_deref() != Some("DoNotSchedule") {
                    o.remove("minDomains");
                }
            }
            "PodDisruptionBudgetSpec" => {
                if o.remove("minAvailable").is_some() {
                    o.remove("maxUnavailable");
                    o.insert("minAvailable".into(), json!("50%"));
                } else {
                    o.entry("maxUnavailable").or_insert(json!(1));
                }
            }
            "ResourceQuotaSpec" => {
                if o.contains_key("scopeSelector") || self.rng.bool() {
                    o.remove("scopes");
                } else {
                    o.insert("scopes".into(), json!(["NotTerminating", "NotBestEffort"]));
                }
            }
            "ScopedResourceSelectorRequirement" => {
                o.insert("scopeName".into(), "PriorityClass".into());
                let values = match text(o, "operator").as_deref() {
                    Some("In" | "NotIn") => json!(["a"]),
                    _ => json!([]),
                };
                o.insert("values".into(), values);
            }
            "ReservationSpec" => {
                o.insert("resources".into(), json!({ "cpu": "1" }));
                o.remove("nodeName");
                if let Some(affinity) = o.get_mut("affinity").and_then(Value::as_object_mut) {
                    affinity.retain(|k, _| k == "nodeAffinity");
                }
            }
            "ProfileWeights" => o
                .values_mut()
                .for_each(|w| *w = json!(self.rng.i64(0..=100))),
            "Toleration" => {
                if text(o, "operator").as_deref() == Some("Exists") {
                    o.remove("value");
                } else {
                    o.entry("key").or_insert("k".into());
                }
                o.remove("tolerationSeconds");
            }
            "SecurityContext" => {
                o.remove("privileged");
            }
            "Container" => self.container(o),
            "ServicePort" => {
                o.insert("name".into(), self.unique().into());
                o.remove("nodePort");
            }
            "HttpIngressPath" => {
                o.insert("path".into(), "/".into());
            }
            "Lifecycle" => {
                o.remove("stopSignal");
            }
            "DeploymentStrategy" if text(o, "type").as_deref() == Some("Recreate") => {
                o.remove("rollingUpdate");
            }
            _ if workload::FIXED.contains(&type_name) => workload::fix(type_name, o, self.unique()),
            "PersistentVolumeClaimSpec" => {
                o.insert("accessModes".into(), json!(["ReadWriteOnce"]));
                o.insert(
                    "resources".into(),
                    json!({ "requests": { "storage": "1Gi" } }),
                );
            }
            "ServiceSpec" => {
                o.entry("ports").or_insert(json!([{ "port": 80 }]));
                o.insert("externalName".into(), "a.example".into());
            }
            "IngressSpec" => {
                o.insert(
                    "defaultBackend".into(),
                    json!({ "service": { "name": "a", "port": { "number": 80 } } }),
                );
            }
            "IngressServiceBackend" => {
                o.entry("port").or_insert(json!({ "number": 80 }));
            }
            "TypedLocalObjectReference" | "ClientIpConfig" => {}
            _ => {}
        }
    }

    fn container(&mut self, o: &mut Map<String, Value>) {
        o.insert(
            "image".into(),
            self.pick(&["host", "nginx", "example.com:5000/a/b:1.2"])
                .into(),
        );
        o.remove("restartPolicy");
        if let Some(r) = o.get_mut("resources").and_then(Value::as_object_mut) {
            // Never more requested than allowed.
            if self.rng.bool() {
                r.remove("limits");
            } else {
                r.remove("requests");
            }
        }
        if let Some(p) = o.get_mut("readinessProbe").and_then(Value::as_object_mut) {
            p.remove("terminationGracePeriodSeconds");
        }
    }
}

/// What holds across a document.
fn repair(kind: &str, value: &mut Value) {
    match kind {
        "Pod" => pod(&mut value["spec"]),
        "Job" => workload::job(&mut value["spec"]),
        "CronJob" => {
            value["spec"]["schedule"] = json!("*/5 0 1,15 * 1-5");
            value["spec"]["timeZone"] = json!("Europe/Berlin");
            workload::job(&mut value["spec"]["jobTemplate"]["spec"]);
        }
        "ControllerRevision" => {
            value["data"] =
                json!({ "spec": { "a": [1, true, "no", 1.5], "b": "1e3", "8": { "c": "" } } });
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            let labels = json!({ "app": "a" });
            value["spec"]["selector"] = json!({ "matchLabels": labels });
            if value["spec"]["template"].is_null() {
                value["spec"]["template"] =
                    json!({ "spec": { "containers": [{ "name": "a", "image": "host" }] } });
            }
            value["spec"]["template"]["metadata"] = json!({ "labels": labels });
            let spec = &mut value["spec"]["template"]["spec"];
            pod(spec);
            if let Some(spec) = spec.as_object_mut() {
                spec.remove("restartPolicy");
                spec.remove("activeDeadlineSeconds");
            }
        }
        "ConfigMap" | "Secret" => {
            if let Some(o) = value.as_object_mut() {
                o.retain(|_, v| !v.is_null());
            }
        }
        _ => {}
    }
}

fn pod(spec: &mut Value) {
    if spec["dnsPolicy"] == "None" {
        spec["dnsPolicy"] = json!("Default");
    }
    let volumes: Vec<Value> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| v["name"].clone())
        .filter(|n| !n.is_null())
        .collect();
    for list in ["containers", "initContainers"] {
        for c in spec[list].as_array_mut().into_iter().flatten() {
            if let Some(mounts) = c["volumeMounts"].as_array_mut() {
                for m in mounts.iter_mut() {
                    m["name"] = volumes.first().cloned().unwrap_or_default();
                    m.as_object_mut()
                        .map(|m| (m.remove("subPathExpr"), m.remove("recursiveReadOnly")));
                }
            }
            if let Some(c) = c.as_object_mut() {
                c.retain(|k, v| !(v.is_null() || k == "volumeMounts" && volumes.is_empty()));
                if list == "initContainers" {
                    for field in [
                        "livenessProbe",
                        "readinessProbe",
                        "startupProbe",
                        "lifecycle",
                    ] {
                        c.remove(field);
                    }
                }
            }
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|_, v| !v.is_null());
        if spec.contains_key("schedulingGates") {
            spec.remove("nodeName");
        }
        if spec.get("hostNetwork") == Some(&json!(true)) {
            spec.remove("hostNetwork");
        }
        // Host ports of several containers may clash.
        for c in spec
            .get_mut("containers")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            for p in c
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                p.as_object_mut().map(|p| p.remove("hostPort"));
            }
        }
    }
}
