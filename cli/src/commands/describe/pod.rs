//! Pods: where, since when, what each container does, and why a pod waits.

use anyhow::Result;
use serde_json::Value;
use setpoint_apis::records::Binding;
use setpoint_apis::{Key, document};

use super::super::why::print;
use super::sheet::Sheet;
use super::workload::conditions;
use crate::client::Client;
use crate::object::{Object, pairs};
use crate::printers::columns::pod_state;
use crate::printers::jsonpath::plain;

/// Adds what is particular to a pod.
pub(super) async fn describe(sheet: &mut Sheet, client: &Client, pod: &Object) -> Result<()> {
    let node = pod.text_at(&["spec", "nodeName"]);
    let host = pod.text_at(&["status", "hostIP"]);
    sheet.field(
        "Node",
        match (node, host) {
            ("", _) => "<none>".to_owned(),
            (node, "") => node.to_owned(),
            (node, host) => format!("{node}/{host}"),
        },
    );
    if let Some(start) = pod.time_at(&["status", "startTime"]) {
        sheet.field("Start Time", start.whole_seconds());
    }
    super::common(sheet, pod, client.now());
    sheet.field("Status", pod_state(pod));
    sheet.field_unless_empty("Reason", pod.text_at(&["status", "reason"]));
    sheet.field_unless_empty("Message", pod.text_at(&["status", "message"]));
    if pod.text_at(&["status", "phase"]) == "Pending" {
        let leaders = client.keys(&client.keyspace().leader_range(), None).await?;
        if let Some(why) = why_it_waits(pod, !leaders.0.is_empty()) {
            sheet.field("Waits", why);
        }
    }
    sheet.field_unless_empty("IP", pod.text_at(&["status", "podIP"]));
    placement(sheet, client, pod).await?;
    containers(
        sheet,
        "Init Containers",
        pod.list_at(&["spec", "initContainers"]),
        pod.list_at(&["status", "initContainerStatuses"]),
    );
    containers(
        sheet,
        "Containers",
        pod.list_at(&["spec", "containers"]),
        pod.list_at(&["status", "containerStatuses"]),
    );
    conditions(sheet, pod);
    volumes(sheet, pod);
    sheet.field("QoS Class", pod.text_at(&["status", "qosClass"]));
    sheet.pairs("Node-Selectors", &pairs(pod.at(&["spec", "nodeSelector"])));
    tolerations(sheet, pod);
    Ok(())
}

/// Why a pending pod does not run, in the words of whoever holds it back. `led` says whether any controller runs.
fn why_it_waits(pod: &Object, led: bool) -> Option<String> {
    if let Some(condition) = pod
        .condition("PodScheduled")
        .filter(|c| c["status"] != "True")
    {
        let reason = condition["reason"].as_str().unwrap_or("NotScheduled");
        return Some(format!(
            "{reason}: {}",
            condition["message"].as_str().unwrap_or("no message")
        ));
    }
    let all = pod
        .list_at(&["status", "initContainerStatuses"])
        .iter()
        .chain(pod.list_at(&["status", "containerStatuses"]));
    for status in all {
        let waiting = &status["state"]["waiting"];
        if let Some(reason) = waiting["reason"].as_str() {
            let name = status["name"].as_str().unwrap_or_default();
            let message = waiting["message"]
                .as_str()
                .map(|m| format!(": {m}"))
                .unwrap_or_default();
            return Some(format!("container {name}: {reason}{message}"));
        }
    }
    match pod.text_at(&["spec", "nodeName"]) {
        "" if pod.invalid.is_some() && led => {
            Some("what is invalid about it has to be put right first".into())
        }
        "" if led => Some("the scheduler has not looked at it yet".into()),
        "" => Some(
            "the scheduler has not looked at it yet (is `setpoint controllers` running?)".into(),
        ),
        node if pod.list_at(&["status", "containerStatuses"]).is_empty() => Some(format!(
            "node {node} has not started it yet (is its agent running?)"
        )),
        _ => None,
    }
}

async fn placement(sheet: &mut Sheet, client: &Client, pod: &Object) -> Result<()> {
    let (stored, _) = client.get(&Key::Binding(pod.key.clone())).await?;
    let Some(binding) = stored.and_then(|kv| document::decode_value::<Binding>(&kv.value).ok())
    else {
        return Ok(());
    };
    let mut text = format!(
        "number {} on {}, bound at {}",
        binding.placement,
        binding.node,
        binding.bound_at.whole_seconds()
    );
    if let Some(d) = &binding.decision {
        text.push_str(&format!(
            "\n{} of {} nodes could run it; score {}",
            d.feasible, d.nodes, d.score
        ));
        if let Some((node, score)) = &d.runner_up {
            text.push_str(&format!(", next best {node} with {score}"));
        }
    }
    if let Some(w) = &binding.withdrawn {
        text.push_str(&format!(
            "\nbeing withdrawn since {}: {}",
            w.at.whole_seconds(),
            w.reason
        ));
    }
    sheet.field("Placement", text);
    if let Some(moving) = &binding.moving {
        let text = print::move_in_progress(moving, binding.withdrawn.is_some());
        sheet.field("Moving", text);
    }
    if let Some(leaving) = &binding.leaving {
        sheet.field("Still On", format!("{leaving}, until it has stopped there"));
    }
    if let Some(last) = &binding.last_move {
        sheet.field("Last Move", print::last_move(last));
    }
    Ok(())
}

/// Adds containers with what is wanted of them and, where there is a status, what they do.
pub(super) fn containers(sheet: &mut Sheet, title: &str, specs: &[Value], statuses: &[Value]) {
    // A pod whose document is gone is known by its report alone.
    let known: Vec<&Value> = if specs.is_empty() {
        statuses.iter().collect()
    } else {
        specs.iter().collect()
    };
    if known.is_empty() {
        return;
    }
    sheet.section(title, |s| {
        for spec in known {
            let name = spec["name"].as_str().unwrap_or_default();
            let status = statuses.iter().find(|st| st["name"] == name);
            s.section(name, |s| container(s, spec, status));
        }
    });
}

fn container(s: &mut Sheet, spec: &Value, status: Option<&Value>) {
    let text = |v: &Value, f: &str| v[f].as_str().unwrap_or_default().to_owned();
    if let Some(status) = status {
        s.field_unless_empty("Container ID", &text(status, "containerID"));
    }
    s.field("Image", text(spec, "image"));
    let ports = spec["ports"].as_array().into_iter().flatten();
    let ports: Vec<String> = ports
        .map(|p| {
            format!(
                "{}/{}",
                p["containerPort"],
                p["protocol"].as_str().unwrap_or("TCP")
            )
        })
        .collect();
    s.field_unless_empty("Ports", &ports.join(", "));
    for (field, title) in [("command", "Command"), ("args", "Args")] {
        let words: Vec<String> = spec[field]
            .as_array()
            .into_iter()
            .flatten()
            .map(plain)
            .collect();
        s.field_unless_empty(title, &words.join("\n"));
    }
    if let Some(status) = status {
        state(s, "State", &status["state"]);
        if status["lastState"]
            .as_object()
            .is_some_and(|m| !m.is_empty())
        {
            state(s, "Last State", &status["lastState"]);
        }
        s.field(
            "Ready",
            if status["ready"] == true {
                "True"
            } else {
                "False"
            },
        );
        s.field(
            "Restart Count",
            status["restartCount"].as_i64().unwrap_or_default(),
        );
    }
    for (field, title) in [("limits", "Limits"), ("requests", "Requests")] {
        let list = pairs(spec["resources"].get(field));
        let words: Vec<String> = list.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        s.field_unless_empty(title, &words.join(", "));
    }
    for (field, title) in [
        ("livenessProbe", "Liveness"),
        ("readinessProbe", "Readiness"),
        ("startupProbe", "Startup"),
    ] {
        if spec[field].is_object() {
            s.field(title, probe(&spec[field]));
        }
    }
    environment(s, spec);
    let mounts = spec["volumeMounts"].as_array().into_iter().flatten();
    let mounts: Vec<String> = mounts
        .map(|m| {
            let mode = if m["readOnly"] == true { "ro" } else { "rw" };
            format!("{} from {} ({mode})", text(m, "mountPath"), text(m, "name"))
        })
        .collect();
    s.field_unless_empty("Mounts", &mounts.join("\n"));
}

fn state(s: &mut Sheet, title: &str, state: &Value) {
    let text = |v: &Value, f: &str| v[f].as_str().unwrap_or_default().to_owned();
    if let Some(running) = state.get("running") {
        s.field(title, "Running");
        s.field_unless_empty("  Started", &text(running, "startedAt"));
    } else if let Some(ended) = state.get("terminated") {
        s.field(title, "Terminated");
        s.field_unless_empty("  Reason", &text(ended, "reason"));
        s.field_unless_empty("  Message", &text(ended, "message"));
        s.field(
            "  Exit Code",
            ended["exitCode"].as_i64().unwrap_or_default(),
        );
        if let Some(signal) = ended["signal"].as_i64() {
            s.field("  Signal", signal);
        }
        s.field_unless_empty("  Started", &text(ended, "startedAt"));
        s.field_unless_empty("  Finished", &text(ended, "finishedAt"));
    } else {
        s.field(title, "Waiting");
        let waiting = &state["waiting"];
        s.field_unless_empty("  Reason", &text(waiting, "reason"));
        s.field_unless_empty("  Message", &text(waiting, "message"));
    }
}

fn probe(p: &Value) -> String {
    let what = if let Some(get) = p.get("httpGet") {
        let path = get["path"].as_str().unwrap_or("/");
        format!(
            "http-get {}://{}:{}{path}",
            get["scheme"].as_str().unwrap_or("HTTP").to_lowercase(),
            get["host"].as_str().unwrap_or_default(),
            plain(&get["port"])
        )
    } else if let Some(tcp) = p.get("tcpSocket") {
        format!("tcp-socket :{}", plain(&tcp["port"]))
    } else if let Some(exec) = p.get("exec") {
        let words: Vec<String> = exec["command"]
            .as_array()
            .into_iter()
            .flatten()
            .map(plain)
            .collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(grpc) = p.get("grpc") {
        format!("grpc :{}", grpc["port"])
    } else {
        "none".to_owned()
    };
    let number = |field: &str, default: i64| p[field].as_i64().unwrap_or(default);
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

fn environment(s: &mut Sheet, spec: &Value) {
    let mut lines = Vec::new();
    for from in spec["envFrom"].as_array().into_iter().flatten() {
        for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
            if let Some(name) = from[field]["name"].as_str() {
                lines.push(format!("all of {kind} {name}"));
            }
        }
    }
    for env in spec["env"].as_array().into_iter().flatten() {
        let name = env["name"].as_str().unwrap_or_default();
        let from = &env["valueFrom"];
        let reference = |field: &str, kind: &str| {
            let r = from.get(field)?;
            Some(format!(
                "<set to the key {} of {kind} {}>",
                plain(&r["key"]),
                plain(&r["name"])
            ))
        };
        let value = reference("configMapKeyRef", "ConfigMap")
            .or_else(|| reference("secretKeyRef", "Secret"))
            .or_else(|| {
                Some(format!(
                    "(field {})",
                    from.get("fieldRef")?["fieldPath"].as_str()?
                ))
            })
            .or_else(|| {
                Some(format!(
                    "(resource {})",
                    from.get("resourceFieldRef")?["resource"].as_str()?
                ))
            })
            .unwrap_or_else(|| env["value"].as_str().unwrap_or_default().to_owned());
        lines.push(format!("{name}: {value}"));
    }
    s.field_unless_empty("Environment", &lines.join("\n"));
}

fn volumes(sheet: &mut Sheet, pod: &Object) {
    let volumes = pod.list_at(&["spec", "volumes"]);
    if volumes.is_empty() {
        return;
    }
    sheet.section("Volumes", |s| {
        for v in volumes {
            let source = v
                .as_object()
                .into_iter()
                .flatten()
                .find(|(k, _)| *k != "name");
            let text = source.map_or_else(
                || "none".to_owned(),
                |(kind, value)| match ["name", "secretName", "path", "claimName"]
                    .iter()
                    .find_map(|f| value[*f].as_str())
                {
                    Some(name) => format!("{kind} {name}"),
                    None => kind.clone(),
                },
            );
            s.field(v["name"].as_str().unwrap_or_default(), text);
        }
    });
}

fn tolerations(sheet: &mut Sheet, pod: &Object) {
    let all: Vec<String> = pod
        .list_at(&["spec", "tolerations"])
        .iter()
        .map(|t| {
            let text = |f: &str| t[f].as_str().unwrap_or_default();
            let mut line = text("key").to_owned();
            if !text("value").is_empty() {
                line.push_str(&format!("={}", text("value")));
            }
            if !text("effect").is_empty() {
                line.push_str(&format!(":{}", text("effect")));
            }
            if text("operator") == "Exists" {
                line.push_str(" op=Exists");
            }
            match t["tolerationSeconds"].as_i64() {
                Some(s) => format!("{line} for {s}s"),
                None => line,
            }
        })
        .collect();
    sheet.field(
        "Tolerations",
        if all.is_empty() {
            "<none>".into()
        } else {
            all.join("\n")
        },
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::printers::tests::object;

    #[test]
    fn a_waiting_pod_says_who_holds_it_back() {
        let waits = |value: Value| why_it_waits(&object("pods", value), false).unwrap_or_default();
        let unschedulable = json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: 3 too small"}]}});
        assert_eq!(
            waits(unschedulable),
            "Unschedulable: 0/3 nodes: 3 too small"
        );
        let pulling = json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Pending", "containerStatuses": [
            {"name": "c", "state": {"waiting": {"reason": "CreateContainerError", "message": "no such program"}}}]}});
        assert_eq!(
            waits(pulling),
            "container c: CreateContainerError: no such program"
        );
        let mut unseen = object("pods", json!({"status": {"phase": "Pending"}}));
        let waits_led = |pod: &Object| why_it_waits(pod, true).unwrap_or_default();
        assert!(waits(unseen.value.clone()).contains("setpoint controllers"));
        assert_eq!(waits_led(&unseen), "the scheduler has not looked at it yet");
        unseen.invalid = Some("no".into());
        assert!(waits_led(&unseen).contains("invalid"));
        assert!(
            waits(json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Pending"}}))
                .contains("node n1")
        );
    }
}
