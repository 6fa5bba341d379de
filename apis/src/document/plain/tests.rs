use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::read;
use crate::core::Pod;
use crate::document::encode;
use crate::records::{Binding, NodeHealth, NodeStatusRecord, PodActual};

const BINDING: &str = "node: n1\nsession: 7\nplacement: 2\npodRevision: 12\nboundAt: 2026-11-23T15:25:03Z\nneverTwice: true\nrequests:\n  cpu: '100m'\n  \
                       memory: '64Mi'\ndecision:\n  revision: 11\n  nodes: 3\n  feasible: 2\n  score: -5\n  runnerUp:\n  - n2\n  - 4\n  best:\n  - node: n1\n    \
                       score: 9\n    parts: resources=9 podAffinity=-2\n  - node: \"n2\"\n    score: 0\n";

const ACTUAL: &str = "placement: 1\nuid: 5e790000-0000-4000-8000-000000000001\nstage: Running\nhostIP: 10.0.0.1\nstartTime: 2026-11-23T15:25:03.120Z\n\
                      conditions:\n- type: Ready\n  status: 'True'\n  lastTransitionTime: 2026-11-23T15:25:03Z\ncontainerStatuses:\n- name: web\n  ready: true\n  \
                      restartCount: 0\n  image: registry.example.com/shop/web:1.27.3\n  started: true\n  state:\n    running:\n      startedAt: \
                      2026-11-23T15:25:03Z\n";

fn ordinary<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_yaml::from_str(text).ok()
}

/// What this reader reads, the ordinary one reads to the same.
fn same<T: serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) -> bool {
    let here = read::<T>(text);
    if here.is_some() {
        assert_eq!(here, ordinary(text), "{text}");
    }
    here.is_some()
}

#[test]
fn what_writers_write_is_read_here() {
    assert!(same::<Binding>(BINDING));
    assert!(same::<PodActual>(ACTUAL));
    let status: NodeStatusRecord = ordinary(
        "capacity: {cpu: 4, memory: 8Gi}\nallocatable: {cpu: 3900m}\nlabels: {kubernetes.io/hostname: n1}\ndrivers: [process]\n",
    )
    .unwrap();
    assert!(same::<NodeStatusRecord>(&encode(&status)));
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: web\n    image: host\n    args:\n    - --listen=:8080\n    \
               resources:\n      requests:\n        cpu: 100m\n        memory: 64Mi\n";
    assert!(same::<Pod>(pod));
    assert!(same::<NodeHealth>(&encode(&NodeHealth::default())));
    let map = BTreeMap::from([("a", vec![BTreeMap::from([("b", "x"), ("c", "1")])])]);
    assert!(same::<Value>(&encode(&map)));
}

#[test]
fn lists_have_room_for_what_is_in_them_and_no_more() {
    let actual: PodActual = read(ACTUAL).unwrap();
    assert_eq!(actual.container_statuses.capacity(), 1);
    assert_eq!(actual.conditions.capacity(), 1);
    let nested = "a:\n- - x: 1\n    y:\n    - 1\n    - 2\n  - z\n- b\n- - c\nd:\n- 1\n";
    let lists: BTreeMap<String, Vec<Value>> = read(nested).unwrap();
    let room: Vec<_> = lists.values().map(|l| (l.len(), l.capacity())).collect();
    assert_eq!(room, [(3, 3), (1, 1)]);
}

#[test]
fn every_change_of_a_line_is_read_to_the_same_or_left_to_the_ordinary_reader() {
    let mut read_here = 0;
    for whole in [BINDING, ACTUAL] {
        let lines: Vec<&str> = whole.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let mut put = |instead: &[&str]| {
                let mut changed = lines.clone();
                changed.splice(at..=at, instead.iter().copied());
                let text = changed.join("\n") + "\n";
                read_here += usize::from(same::<Binding>(&text));
                read_here += usize::from(same::<PodActual>(&text));
                read_here += usize::from(same::<Value>(&text));
            };
            let (name, _) = line.split_once(": ").unwrap_or((line, ""));
            put(&[]);
            put(&[line, line]);
            put(&[line, "  more"]);
            put(&[&format!(" {line}")]);
            put(&[&format!("  {line}")]);
            put(&[line.trim_start()]);
            put(&[&format!("- {line}")]);
            put(&[&line.replace(": ", ":")]);
            put(&[&format!("{name}:"), "  a: 1"]);
            put(&[&format!("{name}:"), "- a"]);
            put(&[&format!("{name}:"), "  a"]);
            put(&[line, "unknown: {}"]);
            put(&[line, "---"]);
            put(&[line, "..."]);
            put(&[line, ""]);
            for value in SCALARS {
                put(&[&format!("{name}: {value}")]);
            }
        }
    }
    assert!(read_here > 500, "{read_here}");
}

const SCALARS: &[&str] = &[
    "null",
    "Null",
    "~",
    "",
    "''",
    "\"\"",
    "'a'",
    "\"a\"",
    "'it''s'",
    "\"a\\n\"",
    "'a' b",
    "a 'b'",
    "1",
    "01",
    "-1",
    "-0",
    "+1",
    "1_000",
    "0x1f",
    "0o7",
    "1e3",
    "1.5",
    ".5",
    ".inf",
    "inf",
    "nan",
    "true",
    "True",
    "yes",
    "No",
    "off",
    "y",
    "2026-11-23",
    "12:30",
    "100m",
    "64Mi",
    "1_0",
    "1e400",
    "0b1",
    "0b",
    "0xg",
    "5s",
    "a: b",
    "a:b",
    "a :b",
    "a:",
    "a #b",
    "a#b",
    "#a",
    "*a",
    "&a b",
    "!a b",
    "!!str 1",
    "|",
    ">",
    "|-",
    "@a",
    "`a",
    "%a",
    "- a",
    "-a",
    "-",
    "--",
    "---",
    "--a",
    "--a=:1 b",
    "--1",
    "-.inf",
    "-0x1f",
    "? a",
    "?a",
    "[a]",
    "[]",
    "{}",
    "{a: 1}",
    "[",
    "a, b",
    "a]",
    "<<",
    "=",
    "999999999999999999",
    "9999999999999999999",
    "99999999999999999999999",
    "/",
    "_",
    "a/b",
    "a ",
    " a",
    "\ta",
    "a\tb",
    "\u{e4}",
];

#[test]
fn scalars_mean_the_same_to_whoever_expects_anything() {
    for scalar in SCALARS {
        for text in [
            format!("a: {scalar}\n"),
            format!("a: {scalar}"),
            format!("- {scalar}\n- {scalar}\n"),
            format!("- a: {scalar}\n  b: {scalar}\n"),
            format!("{scalar}: a\n"),
            format!("a:\n  {scalar}\n"),
            format!("a:\n- {scalar}\nb: 1\n"),
            format!("{scalar}\n"),
        ] {
            same::<Value>(&text);
            same::<BTreeMap<String, String>>(&text);
            same::<BTreeMap<String, Option<bool>>>(&text);
            same::<BTreeMap<String, Option<i32>>>(&text);
            same::<BTreeMap<String, u64>>(&text);
            same::<BTreeMap<String, Vec<String>>>(&text);
            same::<Vec<String>>(&text);
            same::<Vec<BTreeMap<String, String>>>(&text);
        }
    }
}

#[test]
fn what_is_too_deep_or_too_long_is_left_to_the_ordinary_reader() {
    let deep: String = (0..40).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(read::<Value>(&format!("{deep}{}a: 1\n", " ".repeat(40))).is_none());
    let items = "- ".repeat(100) + "a\n";
    assert!(read::<Value>(&items).is_none());
    let long = format!("{}: 1\n", "a".repeat(2000));
    assert!(read::<Value>(&long).is_none());
}

fn pieces() -> impl Strategy<Value = String> {
    let line = (
        0_usize..4,
        prop::sample::select(&["", "- ", "- - ", "a: ", "b: ", "'c': ", "a:", "- b: ", "-"][..]),
        prop::sample::select(SCALARS),
    );
    prop::collection::vec(line, 1..8).prop_map(|lines| {
        lines
            .into_iter()
            .map(|(indent, head, scalar)| format!("{}{head}{scalar}\n", " ".repeat(indent)))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn texts_that_look_like_yaml_mean_the_same(text in pieces()) {
        same::<Value>(&text);
    }

    #[test]
    fn any_text_means_the_same(text in "[-:?\\[\\]{},#&*!|>'\"%@` \n\\ta-c0-9~<]{0,60}") {
        same::<Value>(&text);
        same::<BTreeMap<String, String>>(&text);
    }

    #[test]
    fn nested_values_are_read_back_equal(value in json()) {
        same::<Value>(&encode(&value));
    }
}

fn json() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(SCALARS).prop_map(Value::from);
    let leaf = prop_oneof![
        text,
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}
