//! The texts of bindings and work copies.
//!
//! They are written by hand where thousands are written per second: a serializer takes twenty times as long. Tests
//! hold them against the reader.

use std::fmt::Write;

use setpoint_apis::core::{Pod, PodSpec};
use setpoint_apis::document;
use setpoint_apis::meta::OwnerReference;
use setpoint_apis::records::{Binding, WorkHeader};

/// A binding as YAML.
pub(crate) fn binding(b: &Binding) -> String {
    // Of moves there are few.
    let moves = b.moving.is_some()
        || b.leaving.is_some()
        || b.last_move.is_some()
        || b.work_revision.is_some()
        || b.placements.is_some();
    if moves {
        return document::encode(b);
    }
    let mut out = String::with_capacity(256);
    field(&mut out, "node", &b.node);
    let _ = write!(
        out,
        "session: {}\nplacement: {}\npodRevision: {}\nboundAt: {}\n",
        b.session, b.placement, b.pod_revision, b.bound_at
    );
    if b.never_twice {
        out.push_str("neverTwice: true\n");
    }
    if !b.requests.is_empty() {
        out.push_str("requests:\n");
        for (name, amount) in b.requests.iter() {
            out.push_str("  ");
            scalar(&mut out, name);
            let _ = writeln!(out, ": '{amount}'");
        }
    }
    if let Some(w) = &b.withdrawn {
        out.push_str("withdrawn:\n  ");
        field(&mut out, "reason", &w.reason);
        let _ = writeln!(out, "  at: {}", w.at);
        if let Some(seconds) = w.grace_seconds {
            let _ = writeln!(out, "  graceSeconds: {seconds}");
        }
    }
    if let Some(d) = &b.decision {
        let _ = write!(
            out,
            "decision:\n  revision: {}\n  nodes: {}\n  feasible: {}\n  score: {}\n",
            d.revision, d.nodes, d.feasible, d.score
        );
        if let Some((node, score)) = &d.runner_up {
            out.push_str("  runnerUp:\n  - ");
            scalar(&mut out, node);
            let _ = write!(out, "\n  - {score}\n");
        }
        if !d.best.is_empty() {
            out.push_str("  best:\n");
            for best in &d.best {
                out.push_str("  - ");
                field(&mut out, "node", &best.node);
                let _ = writeln!(out, "    score: {}", best.score);
                if !best.parts.is_empty() {
                    let _ = writeln!(out, "    parts: {}", best.parts);
                }
            }
        }
        for (name, value) in [("profile", &d.profile), ("movedFrom", &d.moved_from)] {
            if let Some(value) = value {
                out.push_str("  ");
                field(&mut out, name, value);
            }
        }
        if !d.preempted.is_empty() {
            out.push_str("  preempted:\n");
            for pod in &d.preempted {
                out.push_str("  - ");
                scalar(&mut out, pod);
                out.push('\n');
            }
        }
    }
    out
}

/// A pod's work copy: header and document.
pub(crate) fn work(header: &WorkHeader, pod: &Pod, spec: &str) -> String {
    let mut out = String::with_capacity(spec.len() + 512);
    if let Some(placement) = header.placement {
        let _ = writeln!(out, "placement: {placement}");
    }
    field(&mut out, "uid", &header.uid);
    let _ = write!(
        out,
        "sourceRevision: {}\n---\napiVersion: v1\nkind: Pod\nmetadata:\n",
        header.source_revision
    );
    let m = &pod.metadata;
    for (name, value) in [
        ("name", Some(&m.name)),
        ("generateName", m.generate_name.as_ref()),
        ("namespace", Some(&m.namespace).filter(|n| !n.is_empty())),
        ("uid", m.uid.as_ref()),
    ] {
        if let Some(value) = value {
            out.push_str("  ");
            field(&mut out, name, value);
        }
    }
    for (name, map) in [("labels", &m.labels), ("annotations", &m.annotations)] {
        if !map.is_empty() {
            let _ = writeln!(out, "  {name}:");
            for (key, value) in map {
                out.push_str("    ");
                scalar(&mut out, key);
                out.push_str(": ");
                scalar(&mut out, value);
                out.push('\n');
            }
        }
    }
    if !m.owner_references.is_empty() {
        out.push_str("  ownerReferences:\n");
        for owner in &m.owner_references {
            owner_reference(&mut out, owner);
        }
    }
    out.push_str("spec:\n");
    out.push_str(spec);
    out
}

/// A pod's spec, indented as it stands in a work copy.
pub(crate) fn spec(spec: &PodSpec) -> String {
    let text = document::encode(spec);
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        if !line.is_empty() {
            out.push_str("  ");
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn owner_reference(out: &mut String, owner: &OwnerReference) {
    let fields = [
        ("apiVersion", &owner.api_version),
        ("kind", &owner.kind),
        ("name", &owner.name),
        ("uid", &owner.uid),
    ];
    for (i, (name, value)) in fields.into_iter().enumerate() {
        out.push_str(if i == 0 { "  - " } else { "    " });
        field(out, name, value);
    }
    for (name, value) in [
        ("controller", owner.controller),
        ("blockOwnerDeletion", owner.block_owner_deletion),
    ] {
        if let Some(value) = value {
            let _ = writeln!(out, "    {name}: {value}");
        }
    }
}

fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str(": ");
    scalar(out, value);
    out.push('\n');
}

/// A text as a YAML scalar: plain where no reader can take it for anything else, else in double quotes.
fn scalar(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // What YAML does not take as it is, or takes for the end of a line.
            c if c.is_control()
                || matches!(
                    c,
                    '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
                ) =>
            {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn is_plain(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    // Words that some reader takes for a boolean, for nothing, or for a number. All are short.
    let word = text.len() <= 5
        && [
            "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf",
        ]
        .iter()
        .any(|w| text.eq_ignore_ascii_case(w));
    first && rest && !word
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use setpoint_apis::meta::ObjectMeta;
    use setpoint_apis::records::{NodeScore, PlacementDecision, ScorePart, Withdrawal};
    use setpoint_apis::time::Timestamp;

    use super::*;

    const AWKWARD: &[&str] = &[
        "n1",
        "1",
        "true",
        "No",
        "~",
        "",
        "1e3",
        "0x1f",
        "a: b",
        "a #b",
        "- a",
        "\"q\"",
        "'q'",
        "a\nb",
        "\u{e4}\u{1f600}",
        "null",
        ".inf",
        "2026-11-23",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "{a}",
        "[a]",
        "a\\b",
        " a ",
        "e1",
        "\u{7f}\u{85}",
        "=",
        "<<",
        "y",
        "\u{2028}\u{feff}\u{fffe}",
        "\r\n\t\u{0}",
    ];

    fn seen<T: serde::de::DeserializeOwned>(text: &str) -> T {
        document::decode_value(text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    #[test]
    fn bindings_are_read_back_equal() {
        for text in AWKWARD {
            let mut b = Binding {
                node: (*text).into(),
                session: 5,
                placement: 2,
                pod_revision: 7,
                bound_at: Timestamp::from_unix_millis(1_700_000_000_123),
                never_twice: false,
                requests: Default::default(),
                withdrawn: None,
                decision: None,
                ..Binding::default()
            };
            assert_eq!(seen::<Binding>(&binding(&b)), b);
            b.never_twice = true;
            for (name, amount) in [("cpu", "250m"), ("memory", "1Gi"), (*text, "3")] {
                b.requests.insert(name.into(), amount.parse().unwrap());
            }
            b.withdrawn = Some(Withdrawal {
                reason: (*text).into(),
                at: Timestamp::from_unix_seconds(3),
                grace_seconds: Some(5),
            });
            b.decision = Some(PlacementDecision {
                revision: 1,
                nodes: 3,
                feasible: 2,
                score: -9,
                ..PlacementDecision::default()
            });
            assert_eq!(seen::<Binding>(&binding(&b)), b);
            b.decision = Some(PlacementDecision {
                runner_up: Some(((*text).into(), 4)),
                best: vec![
                    NodeScore {
                        node: (*text).into(),
                        score: 9,
                        parts: [(ScorePart::Resources, 11), (ScorePart::PodAffinity, -2)]
                            .into_iter()
                            .collect(),
                    },
                    NodeScore {
                        node: "n2".into(),
                        ..NodeScore::default()
                    },
                ],
                profile: Some((*text).into()),
                preempted: vec![(*text).into(), "default/a".into()],
                moved_from: Some((*text).into()),
                ..b.decision.unwrap()
            });
            assert_eq!(seen::<Binding>(&binding(&b)), b);
            for move_of in [
                |b: &mut Binding| b.moving = Some(Box::default()),
                |b: &mut Binding| b.leaving = Some("n2".into()),
                |b: &mut Binding| b.last_move = Some(Box::default()),
                |b: &mut Binding| b.work_revision = Some(9),
                |b: &mut Binding| b.placements = Some(9),
            ] {
                let mut b = b.clone();
                move_of(&mut b);
                assert_eq!(seen::<Binding>(&binding(&b)), b);
            }
        }
    }

    #[test]
    fn work_copies_are_read_back_equal() {
        let texts: std::collections::BTreeMap<String, String> = AWKWARD
            .iter()
            .enumerate()
            .map(|(i, t)| (format!("k{i}"), (*t).to_owned()))
            .collect();
        let keys: std::collections::BTreeMap<String, String> = AWKWARD
            .iter()
            .map(|t| ((*t).to_owned(), "v".to_owned()))
            .collect();
        let script = "#!/bin/sh\n\n  indented\n\ttab\n\nend: of it\n";
        let container = setpoint_apis::core::Container {
            name: "c".into(),
            image: "host".into(),
            command: vec![
                "sh".into(),
                "-c".into(),
                script.into(),
                "\n\n".into(),
                "  x".into(),
                "x\n\n\n".into(),
            ],
            args: AWKWARD.iter().map(|t| (*t).to_owned()).collect(),
            ..Default::default()
        };
        let owner = OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "1".into(),
            uid: "2".into(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let mut pod = Pod {
            metadata: ObjectMeta {
                name: "123".into(),
                namespace: "default".into(),
                labels: keys.into(),
                annotations: texts.into(),
                owner_references: vec![
                    owner.clone(),
                    OwnerReference {
                        block_owner_deletion: Some(false),
                        ..owner
                    },
                ],
                ..ObjectMeta::default()
            },
            spec: Arc::new(PodSpec {
                containers: vec![container],
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        for (placement, uid) in [(Some(3), None), (None, Some("5e790000-x".to_owned()))] {
            pod.metadata.uid = uid;
            let header = WorkHeader {
                placement,
                uid: "77".into(),
                source_revision: 9,
            };
            let text = work(&header, &pod, &spec(&pod.spec));
            let (h, p) = document::split_work(text.as_bytes()).unwrap();
            assert_eq!(document::decode_value::<WorkHeader>(h).unwrap(), header);
            assert_eq!(
                document::decode_value::<Pod>(p).unwrap_or_else(|e| panic!("{e}\n{text}")),
                pod
            );
        }
    }
}
