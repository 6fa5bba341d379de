//! Scalars, as Kubernetes' tools take them.

use super::{errors, only, pod, read};

fn config_map(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  k: {value}\n")
}

#[test]
fn norway_is_a_boolean_and_must_be_quoted() {
    for word in ["no", "NO", "yes", "on", "off", "y", "n", "true", "False"] {
        let found = errors(&config_map(word));
        assert_eq!(found.len(), 1, "{word}");
        assert!(
            found[0].contains("expected a text, found the boolean")
                && found[0].ends_with("put it in quotes")
        );
        assert_eq!(
            only(&config_map(&format!("{word:?}"))).value["data"]["k"],
            word
        );
    }
    assert_eq!(only(&config_map("'no'")).value["data"]["k"], "no");
}

#[test]
fn numbers_are_no_texts() {
    for word in ["1", "0644", "1e3", ".5", "0x1F", "1_000", "-1"] {
        assert!(
            errors(&config_map(word))[0].ends_with("put it in quotes"),
            "{word}"
        );
    }
    // Base 60, dates and versions are texts.
    for word in [
        "12:30",
        "1:30:45",
        "2001-01-01",
        "2001-01-01T00:00:00Z",
        "1.2.3",
        "1.x",
        "0x",
        "1k",
    ] {
        assert_eq!(only(&config_map(word)).value["data"]["k"], word);
    }
    assert!(errors(&config_map(".nan")).len() == 1 && errors(&config_map("-.inf")).len() == 1);
}

#[test]
fn null_is_nothing_for_fields_and_an_error_for_entries() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: , creationTimestamp: null}\n\
                spec:\n  nodeName: ~\n  containers: [{name: c, image: host, resources: , args: null}]\n";
    let d = only(text);
    assert!(d.value["spec"].get("nodeName").is_none());
    assert!(errors(&config_map(""))[0].ends_with("an empty text is written \"\""));
    assert!(errors(&config_map("null")).len() == 1);
    assert_eq!(errors(&pod("    args: [a, null]\n")).len(), 1);
}

#[test]
fn yaml_1_1_words_are_stored_as_every_reader_takes_them() {
    let d = only(&pod(
        "  hostNetwork: yes # as always\n  terminationGracePeriodSeconds: 0x10\n",
    ));
    assert!(
        d.text
            .contains("  hostNetwork: true # as always\n  terminationGracePeriodSeconds: 16\n"),
        "{}",
        d.text
    );
    let d = only(&pod(
        "  volumes:\n  - name: v\n    secret: {secretName: s, defaultMode: 0400} # private\n",
    ));
    assert!(
        d.text
            .contains("{secretName: s, defaultMode: 256} # private\n"),
        "{}",
        d.text
    );
    let d = only(&pod("  terminationGracePeriodSeconds: 1e1\n"));
    assert!(
        d.text.contains("terminationGracePeriodSeconds: 10\n"),
        "{}",
        d.text
    );
    let d = only(&pod("  terminationGracePeriodSeconds: 1_0\n"));
    assert!(
        d.text.contains("terminationGracePeriodSeconds: 10\n"),
        "{}",
        d.text
    );
}

#[test]
fn quoted_numbers_are_no_numbers() {
    let found = errors(&pod("  terminationGracePeriodSeconds: \"10\"\n"));
    assert!(
        found[0].ends_with("expected a whole number, found the text \"10\": take the quotes off"),
        "{found:?}"
    );
    let found = errors(&pod("  hostNetwork: \"true\"\n"));
    assert!(
        found[0].ends_with("expected true or false, found the text \"true\": take the quotes off"),
        "{found:?}"
    );
    assert!(
        errors(&pod("  terminationGracePeriodSeconds: 1.5\n"))[0].contains("found the number 1.5")
    );
    assert!(errors(&pod("  priority: 3000000000\n"))[0].contains("out of range"));
}

#[test]
fn quantities_take_numbers_and_texts() {
    let d = only(&pod(
        "    resources:\n      requests: {cpu: 0.5, memory: 1e9, example.com/gpu: 02}\n      limits: {cpu: '1', memory: 1Gi, example.com/gpu: 2}\n",
    ));
    let requests = &d.value["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!(
        *requests,
        serde_json::json!({ "cpu": 0.5, "memory": 1_000_000_000, "example.com/gpu": 2 })
    );
    assert!(
        d.text
            .contains("{cpu: 0.5, memory: 1e9, example.com/gpu: 2}"),
        "{}",
        d.text
    );
    assert_eq!(
        errors(&pod("    resources: {requests: {cpu: yes}}\n")).len(),
        1
    );
    assert_eq!(
        errors(&pod("    resources: {requests: {cpu: '1 '}}\n")).len(),
        1
    );
}

#[test]
fn int_or_string_takes_both() {
    let probe = |port: &str| {
        pod(&format!(
            "    ports: [{{name: http, containerPort: 80}}]\n    readinessProbe: {{tcpSocket: {{port: {port}}}}}\n"
        ))
    };
    for port in ["80", "http", "'http'", "0120"] {
        assert_eq!(errors(&probe(port)), Vec::<String>::new(), "{port}");
    }
    assert!(only(&probe("0120")).text.contains("port: 80}"));
    for port in ["'80'", "yes", "1.5", "admin"] {
        assert_eq!(errors(&probe(port)).len(), 1, "{port}");
    }
}

#[test]
fn keys_are_texts_whatever_they_look_like() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  8080: a\n  0644: b\n  on: c # switch\n  1.5: d\n";
    let d = only(text);
    assert_eq!(
        d.value["data"],
        serde_json::json!({ "8080": "a", "420": "b", "true": "c", "1.5": "d" })
    );
    assert!(
        d.text
            .contains("  8080: a\n  \"420\": b\n  \"true\": c # switch\n  1.5: d\n"),
        "{}",
        d.text
    );
    assert_eq!(
        read("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {? [a] : b, ~: c}\n")
            .errors
            .len(),
        2
    );
}

#[test]
fn tags_mean_what_yaml_says_or_are_errors() {
    assert_eq!(only(&config_map("!!str 8080")).value["data"]["k"], "8080");
    assert!(only(&config_map("!!str 8080")).text.contains("k: '8080'"));
    assert_eq!(errors(&config_map("!mine x")).len(), 1);
    assert_eq!(errors(&config_map("!!binary aGk=")).len(), 1);
    assert_eq!(
        only(&pod("  terminationGracePeriodSeconds: !!int '10'\n")).value["spec"]["terminationGracePeriodSeconds"],
        10
    );
}

#[test]
fn base64_is_checked() {
    let secret = |data: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ndata: {{k: {data}}}\n")
    };
    assert_eq!(only(&secret("aGVsbG8=")).value["data"]["k"], "aGVsbG8=");
    assert!(errors(&secret("hello"))[0].contains("stringData"));
}
