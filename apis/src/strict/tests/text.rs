//! The text that is stored, and texts that are hard to read.

use super::{Options, errors, only, pod, read, read_manifest};

#[test]
fn what_is_fine_is_stored_as_it_was_written() {
    let text = "# The front door.\napiVersion: v1\nkind: Pod\nmetadata:\n  name: 'a'   # quoted\n\n  labels: {x: \"1\"}\nspec:\n  \
                containers:\n    - image: host\n      name: c\n      args: [\"-c\", 'echo ü 😀',\n             b]\n      # the end\n";
    assert_eq!(only(text).text, text);
    assert_eq!(only(&format!("---\n{text}")).text, text);
    assert_eq!(
        only(&format!("\u{feff}--- # one\n\n\n{text}\n\n")).text,
        text
    );
    let twice = read(&format!("{text}---\n{}", text.replace("'a'", "'b'")));
    assert_eq!(twice.documents.len(), 2);
    assert_eq!(twice.documents[0].text, text);
}

#[test]
fn json_is_stored_as_json() {
    let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"data\": {\"k\": \"\\u00e4\\/\"}\n}\n";
    let d = only(text);
    assert_eq!(d.value["data"]["k"], "ä/");
    assert_eq!(d.text, text);
}

#[test]
fn characters_that_json_escapes_in_two_parts_are_one() {
    let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"\ud83d\ude00 \\ud83d"}}"#;
    assert_eq!(only(text).value["data"]["k"], "\u{1f600} \\ud83d");
    assert_eq!(errors(&text.replace("\\ude00", "")).len(), 1);
}

#[test]
fn a_flood_of_problems_is_cut_short() {
    let keys: String = (0..1000).map(|i| format!("k{i}: 1\n")).collect();
    let found = errors(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\n{keys}"
    ));
    assert_eq!(
        (found.len(), found[200].as_str()),
        (201, "f.yaml: and 800 more of this sort")
    );
}

#[test]
fn windows_line_endings_are_kept_and_understood() {
    let text = "apiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: a\r\n---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: b\r\ndata:\r\n  x: |\r\n    one\r\n    two\r\n";
    let m = read(text);
    assert!(m.errors.is_empty(), "{:?}", m.errors);
    assert_eq!(m.documents[1].value["data"]["x"], "one\ntwo\n");
    assert!(m.documents[0].text.contains("\r\n"));
    let bad = read(&text.replace("name: b", "nome: b"));
    assert_eq!(
        (bad.errors[0].line, bad.errors[0].column),
        (9, 3),
        "{:?}",
        bad.errors
    );
}

#[test]
fn what_etcd_keeps_is_left_out_with_a_note_and_comments_stay() {
    let text = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: a # mine
  uid: 0e3c
  resourceVersion: \"12\"
  managedFields:
  - manager: kubectl
    operation: Update
  # still mine
  labels: {x: z}
data:
  k: v
status:
  phase: Active
  conditions:
  - a
";
    let m = read(&text.replace("ConfigMap", "Pod").replace(
        "data:\n  k: v",
        "spec:\n  containers: [{name: c, image: host}]",
    ));
    assert!(m.errors.is_empty(), "{:?}", m.errors);
    assert_eq!(
        m.documents[0].text,
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a # mine\n  # still mine\n  labels: {x: z}\nspec:\n  containers: [{name: c, \
         image: host}]\n"
    );
    assert_eq!(m.notes.len(), 1);
    assert_eq!(
        m.notes[0].to_string(),
        "f.yaml:5:3: left out, because etcd and the status keep it: metadata.uid, metadata.resourceVersion, \
         metadata.managedFields, status"
    );
    // A flow mapping cannot be cut by lines: it is written afresh.
    let m = read("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, uid: x}}\n");
    assert_eq!(
        m.documents[0].text,
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"
    );
    let options = Options {
        keep_uid: true,
        ..Options::default()
    };
    let m = read_manifest(
        "f",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, uid: x}}\n",
        &options,
    );
    assert_eq!(m.documents[0].value["metadata"]["uid"], "x");
}

#[test]
fn anchors_and_merge_keys_are_expanded() {
    let text = "\
apiVersion: v1
kind: Pod
metadata: {name: a, labels: &labels {app: a, tier: web}}
spec:
  containers:
  - &base
    name: c
    image: host
    env: [{name: A, value: a}]
  - <<: *base
    name: d
  - {<<: [{name: e}, *base]}
  nodeSelector: *labels
";
    let d = only(text);
    let c = &d.value["spec"]["containers"];
    assert_eq!(
        (&c[1]["name"], &c[1]["image"], &c[1]["env"]),
        (&"d".into(), &"host".into(), &c[0]["env"])
    );
    assert_eq!(
        (&c[2]["name"], &c[2]["image"]),
        (&"e".into(), &"host".into())
    );
    assert_eq!(d.value["spec"]["nodeSelector"]["tier"], "web");
    assert!(
        !d.text.contains(['&', '*']) && !d.text.contains("<<"),
        "{}",
        d.text
    );
    let pod: crate::core::Pod = crate::document::decode(d.text.as_bytes()).unwrap();
    assert_eq!(pod.spec.containers.len(), 3);
    assert_eq!(errors("a: *x\n").len(), 1);
    assert_eq!(errors("a: &x [*x]\n").len(), 1);
    assert_eq!(errors("<<: 3\n").len(), 1);
}

#[test]
fn aliases_cannot_be_used_to_exhaust_memory() {
    let mut text = String::from(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n",
    );
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        text += &format!("a{i}: &a{i} [{refs}]\n");
    }
    let found = errors(&text);
    assert!(
        found.iter().any(|e| e.contains("expand to too much")),
        "{found:?}"
    );
}

#[test]
fn tabs_and_nesting_are_clear_errors() {
    let found = errors("apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\n");
    assert!(
        found.len() == 1 && found[0].starts_with("f.yaml:4:"),
        "{found:?}"
    );
    for deep in [
        "[".repeat(10_000),
        "{a: ".repeat(10_000),
        "- ".repeat(10_000),
    ] {
        assert_eq!(errors(&deep).len(), 1);
    }
}

#[test]
fn a_document_that_etcd_would_not_take_is_refused_with_the_reason() {
    let big = "x".repeat(600_000);
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  k: {big}\n# {big}\n# {big}\n"
    );
    let found = errors(&text);
    assert!(
        found.len() == 1 && found[0].contains("etcd takes no more than 1.5 MiB"),
        "{}",
        &found[0][..200]
    );
    // The data alone has a limit of its own.
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  k: {big}\n  l: {big}\n"
    );
    assert!(errors(&text)[0].contains("data: holds 1200000 bytes"));
    let huge = format!("a: {}", "x".repeat(20 * 1024 * 1024));
    assert!(errors(&huge)[0].contains("1.5 MiB"));
}

#[test]
fn several_documents_need_separators() {
    let one = pod("");
    assert_eq!(errors(&format!("{one}...\n{one}")).len(), 1);
    assert!(
        errors(&format!(
            "{one}...\n---\n{}",
            one.replace("name: a", "name: b")
        ))
        .is_empty()
    );
    assert!(read("").documents.is_empty() && read("# nothing\n---\n---\n").errors.is_empty());
    assert!(errors(&format!("%YAML 1.1\n---\n{one}")).is_empty());
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_yaml_like_text_panics(text in "[-:?\\[\\]{},#&*!|>'\"%@` \r\n\ta-c0-9~<ü.]{0,120}") {
        read(&text);
    }

    #[test]
    fn no_change_of_a_manifest_panics(at in 0usize..2000, cut in 0usize..20, put in "[-:?\\[\\]{},#&*!|>'\" \n\ta0~]{0,4}") {
        let mut text: Vec<char> = super::DEPLOYMENT.chars().collect();
        let at = at % text.len();
        let end = (at + cut).min(text.len());
        text.splice(at..end, put.chars());
        let text: String = text.into_iter().collect();
        for d in read(&text).documents {
            // What is stored means what was read, to the strict reader as well.
            let again = only(&d.text);
            proptest::prop_assert_eq!(again.value, d.value);
        }
    }
}
