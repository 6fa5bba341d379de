use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::Pod;
use crate::document;

const BODY: &str =
    "spec:\n  containers:\n  - name: c\n    image: host\n    command: [sh, -c, 'echo a && b']\n";

fn pod(metadata: &str, body: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n{metadata}{body}")
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// Reads with a reader and without, and wants the same.
fn check(reader: &Reader<Pod>, key: &ObjectKey, text: &str) -> Result<Option<Pod>, TestCaseError> {
    let with = reader.decode_keyed(key, text.as_bytes());
    let without = document::decode_keyed::<Pod>(key, text.as_bytes());
    match (with, without) {
        (Ok(with), Ok(without)) => {
            prop_assert_eq!(&with, &without, "{}", text);
            Ok(Some(with))
        }
        (Err(with), Err(without)) => {
            prop_assert_eq!(with.to_string(), without.to_string(), "{}", text);
            Ok(None)
        }
        (with, without) => Err(TestCaseError::fail(format!(
            "with: {with:?}\nwithout: {without:?}\n{text}"
        ))),
    }
}

fn read(reader: &Reader<Pod>, name: &str, text: &str) -> Pod {
    check(reader, &key(name), text).unwrap().expect("it parses")
}

#[test]
fn pods_of_one_template_share_their_spec_and_nothing_else_of_them_is_mixed_up() {
    let reader = Reader::default();
    let text = |name: &str, app: &str, body: &str| {
        let metadata = format!("  name: {name}\n  namespace: default\n  labels:\n    app: {app}\n");
        read(&reader, name, &pod(&metadata, body))
    };
    let other = BODY.replace("host", "img:1");
    let (a, b) = (text("a", "x", BODY), text("b", "x", BODY));
    let (c, d) = (text("c", "y", BODY), text("d", "x", &other));
    let e = text("e", "y", &other);
    for same in [&b, &c] {
        assert!(Arc::ptr_eq(&a.spec, &same.spec));
    }
    assert!(Arc::ptr_eq(&d.spec, &e.spec) && !Arc::ptr_eq(&a.spec, &d.spec));
    assert_eq!(
        [&a, &b, &c, &d, &e].map(|p| (&*p.metadata.name, &*p.metadata.labels["app"])),
        [("a", "x"), ("b", "x"), ("c", "y"), ("d", "x"), ("e", "y")]
    );
}

#[test]
fn a_document_that_is_not_valid_is_refused_however_known_its_parts_are() {
    let reader = Reader::default();
    let metadata =
        |label: &str| format!("  name: a\n  namespace: default\n  labels:\n    app: {label}\n");
    let good = pod(&metadata("x"), BODY);
    assert!(check(&reader, &key("a"), &good).unwrap().is_some());
    for (key, text) in [
        (key("b"), good.clone()),
        (ObjectKey::namespaced("other", "a"), good.clone()),
        (key("a"), pod(&metadata("x:y"), BODY)),
        (
            key("a"),
            pod(&metadata("x"), &BODY.replace("name: c", "name: C")),
        ),
        (key("a"), good.replace("kind: Pod", "kind: Node")),
        (key("a"), format!("{good}---\n{good}")),
        (key("a"), format!("{good}metadata:\n  name: b\n")),
    ] {
        for _ in 0..2 {
            assert!(check(&reader, &key, &text).unwrap().is_none(), "{text}");
        }
    }
    assert!(check(&reader, &key("a"), &good).unwrap().is_some());
}

/// What mentions a null is read in another way by an ordinary read, as a whole.
#[test]
fn a_null_in_one_part_matters_to_the_others() {
    let reader = Reader::default();
    let metadata = |name: &str, more: &str| format!("  name: {name}\n  namespace: default\n{more}");
    let merged = "spec:\n  containers:\n  - <<: {tty: true}\n    name: c\n    image: host\n";
    for body in [BODY, merged] {
        assert!(
            check(&reader, &key("a"), &pod(&metadata("a", ""), body))
                .unwrap()
                .is_some()
        );
    }
    let tty = |pod: Option<Pod>| pod.unwrap().spec.containers[0].tty;
    let named = check(
        &reader,
        &key("null-a"),
        &pod(&metadata("null-a", ""), merged),
    )
    .unwrap();
    assert_eq!(tty(named), Some(true));
    let labelled = metadata("a", "  labels:\n    app: null\n    b: c\n");
    let labelled = check(&reader, &key("a"), &pod(&labelled, BODY))
        .unwrap()
        .unwrap();
    assert_eq!(labelled.metadata.labels.len(), 1);
    let other =
        "spec:\n  nodeSelector: {x: null, y: z}\n  containers:\n  - name: c\n    image: host\n";
    for name in ["a", "b"] {
        let pod = check(&reader, &key(name), &pod(&metadata(name, ""), other)).unwrap();
        assert_eq!(pod.unwrap().spec.node_selector.len(), 1);
    }
}

/// Lines that programs write, lines that people write, and lines that are there to deceive.
const METADATA: &[&str] = &[
    "  namespace: default\n",
    "  labels:\n    app: web\n",
    "  labels:\n    app: 'web'\n    tier: \"x: {[&*\"\n",
    "  labels: {app: web}\n",
    "  labels:\n    app: yes\n",
    "  labels:\n",
    "  labels:\n    n: 12\n",
    "  labels:\n    app: null\n",
    "  labels: null\n",
    "  annotations:\n    note: 'a\nspec:\n  b'\n",
    "  annotations:\n    note: \"a\n    b\"\n",
    "  annotations:\n    note: \"a\\\"\n",
    "  annotations:\n    note: |\n      a\n\n",
    "  annotations:\n    note: >-\n      a\n      b\n",
    "  annotations:\n    note: a\n      b\n",
    "  annotations:\n    note: '{\"a\":[1,{\"b\":2}]}'\n",
    "  annotations: &x\n    note: a\n",
    "  annotations: {note: \"a\nspec: b\"}\n",
    "  annotations:\n    note: a: b\n",
    "  annotations:\n    note: a:\n",
    "  annotations:\n    null: 'null'\n",
    "  ownerReferences:\n  - apiVersion: apps/v1\n    kind: ReplicaSet\n    name: rs\n    uid: u\n    controller: true\n",
    "  ownerReferences:\n    - {apiVersion: apps/v1, kind: R, name: r, uid: u}\n",
    "  ownerReferences:\n  - apiVersion: apps/v1\n    kind: R\n    name: r\n    uid: u\n    controller: yes\n",
    "  uid: 7c2e\n",
    "  uid: 12\n",
    "  generateName: a-\n",
    "  creationTimestamp: null\n",
    "  future:\n    x:\n    - y: z\n",
    "  name: again\n",
    "    deeper: x\n",
    " shallower: x\n",
    "  continued\n",
    "  # comment\n",
    "\n",
    "  ~: x\n",
    "  <<: *x\n",
    "\tx: y\n",
    "  x: y\r\n",
    "  x: \u{85}y\n",
    "  x: %y\n",
    "  x: @y\n",
    "  x: -y\n",
    "  x: y#z\n",
    "  x: y #z\n",
    "  x: [[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
    "  - x: y\n",
    "  -\n",
    "  ? x\n",
];

const BODIES: &[&str] = &[
    BODY,
    "spec:\n  hostNetwork: yes\n  containers:\n  - {name: c, image: host}\n",
    "spec:\n  hostNetwork: true\n  containers: [{name: c, image: host}]\n",
    "spec: {containers: [{name: c, image: host}]}\nstatus: {}\n",
    "spec:\n  x: &x {name: c, image: host}\n  containers:\n  - *x\n",
    "spec:\n  containers:\n  - <<: *x\n    name: c\n    image: host\n",
    "spec:\n  nodeSelector: *x\n  containers:\n  - name: c\n    image: host\n",
    "spec:\n  containers:\n  - name: c\n    image: host\n    args: ['a\nmetadata:\n  name: b']\n",
    "spec:\n  containers:\n  - name: c\n    image: host\n    args:\n    - |\n      a\n\n\n",
    "spec:\n  containers:\n  - name: c\n    image: host\nmetadata:\n  name: b\n",
    "spec:\n  containers:\n  - name: c\n    image: host\n<<: {metadata: {name: b}}\n",
    "spec:\n  containers:\n  - name: c\n    image: host\n...\n",
    "spec:\n  containers:\n  - name: c\n    image: host\n---\nx: y\n",
    "spec:\n  containers:\n  - name: c\n    image: null\n    args: [~]\n",
    "spec:\n  containers: []\n",
    "spec:\n",
    "spec:\nspec:\n  containers:\n  - name: c\n    image: host\n",
    "spec:\r\n  containers:\r\n  - name: c\r\n    image: host\r\n",
    "# comment\nspec:\n  containers:\n  - name: c\n    image: host\n",
    "status: {}\nspec:\n  containers:\n  - name: c\n    image: host\n",
    "%x\nspec:\n  containers:\n  - name: c\n    image: host\n",
    "",
];

/// A body as what makes pods for each node writes it.
fn pinned(node: &str, args: &str) -> String {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    format!(
        "{BODY}    args:\n{args}  affinity:\n    nodeAffinity:\n      {required}:\n        nodeSelectorTerms:\n        \
         - matchFields:\n          - key: metadata.name\n            operator: In\n            values:\n            - {node}\n"
    )
}

#[test]
fn pods_that_differ_in_their_node_are_read_once_and_none_is_taken_for_another() {
    let reader = Reader::default();
    let metadata = |name: &str| format!("  name: {name}\n  namespace: default\n");
    let see = |name: &str, body: &str| read(&reader, name, &pod(&metadata(name), body));
    let known = |body: &str| {
        let (before, node, after) = parts::pin(body)?;
        reader.on_node(before, node, after)
    };
    let plain = "    - x\n";
    assert!(known(&pinned("'n1'", plain)).is_none());
    let first = pinned("'n1'", plain);
    see("a", &first);
    for node in ["n1", "n2", "12", "1e3", "true", "rack-1.x"] {
        let body = pinned(&format!("'{node}'"), plain);
        assert!(known(&body).is_some(), "{node}");
        let mut found = see("b", &body);
        let affinity = Arc::make_mut(&mut found.spec).affinity.as_mut().unwrap();
        assert_eq!(affinity.pin().unwrap(), node);
    }
    // As the pods of a DaemonSet are written.
    let mut daemon = see("a", &first);
    assert!(daemon.pin_to("NODE"));
    let text = document::encode(&daemon).replace("- NODE\n", "- 'n8'\n");
    let (_, body) = text.split_once("\nspec:\n").unwrap();
    assert_eq!(parts::pin(body).map(|(_, node, _)| node), Some("n8"));
    // The same lines within a text, before a pin that is written otherwise.
    let lines = pinned("'n1'", plain);
    let (_, lines) = lines.split_once("nodeSelectorTerms").unwrap();
    let text = format!("    - |\n      x\n        nodeSelectorTerms{lines}");
    let flow = "  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
                [{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}]}}}\n";
    let hidden = format!("{BODY}    args:\n{text}{flow}");
    see("a", &hidden);
    assert!(parts::pin(&hidden).is_some() && known(&hidden).is_none());
    see("a", &hidden.replace("'n1'", "'n2'"));
    // Twice, so that nobody can say which one it is.
    let twice = pinned("'n1'", &text);
    assert!(parts::pin(&twice).is_none());
    see("a", &twice);
    // Several values, a text that YAML ends otherwise, no value at all.
    for values in [
        "'n1'\n            - 'n2'",
        "'n''1'",
        "''",
        "'n1' # x",
        "n1",
        "'null'",
        "'N1'",
    ] {
        let text = pod(&metadata("a"), &pinned(values, plain));
        for _ in 0..2 {
            check(&reader, &key("a"), &text).unwrap();
        }
    }
}

const NAMES: &[&str] = &[
    "a",
    "web-1",
    "web.x",
    "'a'",
    "\"web-1\"",
    "null-a",
    "null",
    "1e3",
    "yes",
    "a # b",
    "A",
    "a\n    b",
    "",
    "a: b",
    "&x a",
    "!!str a",
];

fn texts() -> impl Strategy<Value = String> {
    let pick = proptest::sample::select::<&str>;
    let metadata = proptest::collection::vec(pick(METADATA.to_vec()), 0..4);
    let name = prop_oneof![3 => Just("a"), 2 => pick(NAMES.to_vec())];
    let node = pick(vec!["'n1'", "'n2'", "n3", "'n''4'", "'N5'", "'null'"]);
    let on_node = node.prop_map(|node| pinned(node, "    - x\n"));
    let body = prop_oneof![
        1 => Just(BODY.to_owned()),
        2 => pick(BODIES.to_vec()).prop_map(str::to_owned),
        1 => on_node,
    ];
    (
        name,
        metadata,
        body,
        any::<u8>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(name, mut lines, body, shape, at)| {
            let name = format!("  name: {name}\n");
            // Without a namespace nothing is shared, so most have one.
            if shape % 8 != 0 && !lines.contains(&METADATA[0]) {
                lines.insert(0, METADATA[0]);
            }
            let place = if shape % 4 == 0 {
                at.index(lines.len() + 1)
            } else {
                0
            };
            lines.insert(place, &name);
            let mut text = pod(&lines.concat(), &body);
            if shape % 16 == 1 {
                // One character more, or one less.
                let at = at.index(text.len());
                if text.is_char_boundary(at) {
                    let odd = ["'", "\"", "\n", " ", "&", "#", ":", "|"];
                    text.insert_str(at, odd[usize::from(shape / 16) % odd.len()]);
                }
            } else if shape % 16 == 2 {
                let at = at.index(text.len());
                if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                    text.remove(at);
                }
            }
            text
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// One reader for many documents, so that each meets the parts of the others.
    #[test]
    fn a_reader_reads_what_an_ordinary_read_reads(texts in proptest::collection::vec(texts(), 1..40)) {
        let reader = Reader::default();
        for text in texts.iter().chain(&texts) {
            check(&reader, &key("a"), text)?;
        }
    }
}

/// Without this the property could hold because nothing is ever shared, or because nothing ever parses.
#[test]
fn the_generated_documents_are_shared_and_refused_often_enough() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (reader, texts) = (Reader::<Pod>::default(), texts());
    let (mut parts, mut ordinary, mut refused) = (0, 0, 0);
    for _ in 0..2000 {
        let text = texts.new_tree(&mut runner).unwrap().current();
        match check(&reader, &key("a"), &text).unwrap() {
            Some(_) if reader.in_parts(&key("a"), text.as_bytes()).is_some() => parts += 1,
            Some(_) => ordinary += 1,
            None => refused += 1,
        }
    }
    assert!(
        parts > 150 && ordinary > 100 && refused > 300,
        "{parts} in parts, {ordinary} otherwise, {refused} refused"
    );
}
