use super::*;
use crate::generate;

const GOOD: &str = "\
apiVersion: setpoint.dev/v1
kind: Scenario
metadata:
  name: test
spec:
  nodes:
  - name: node
    count: 2
  timeline:
  - at: 10s
    cut: [node-1]
    for: 2s
  - at: 11s
    network: {lostRequests: 0.1}
";

/// What is said of the good scenario with one thing replaced.
fn problem(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    let problems = read("s.yaml", &GOOD.replacen(from, to, 1)).unwrap_err();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn mistakes_are_shown_with_their_place_and_what_was_meant() {
    read("s.yaml", GOOD).unwrap();
    for (from, to, place, words) in [
        (
            "count: 2",
            "cuont: 2",
            "s.yaml:8:5: spec.nodes[0].cuont",
            "did you mean \"count\"",
        ),
        (
            "[node-1]",
            "[nod-1]",
            "s.yaml:11:11: spec.timeline[0].cut[0]",
            "did you mean \"node-1\"",
        ),
        (
            "at: 10s",
            "at: 10x",
            "s.yaml:10:9: spec.timeline[0].at",
            "is not a time",
        ),
        (
            "at: 10s",
            "at: 30h",
            "s.yaml:10:9: spec.timeline[0].at",
            "at most a day",
        ),
        (
            "0.1}",
            "1.5}",
            "s.yaml:14:29: spec.timeline[1].network.lostRequests",
            "between 0 and 1",
        ),
        (
            "for: 2s",
            "cut: [node-0]",
            "s.yaml:12:5: spec.timeline[0].cut",
            "twice",
        ),
        (
            "cut: [node-1]",
            "compact: true",
            "s.yaml:12:10: spec.timeline[0].for",
            "undone",
        ),
        (
            "name: node\n",
            "name: controllers\n",
            "s.yaml:7:11: spec.nodes[0].name",
            "controllers",
        ),
        (
            "count: 2",
            "count: 0",
            "s.yaml:6:3: spec.nodes",
            "at least one node",
        ),
        (
            "count: 2",
            "count: 50000",
            "s.yaml:8:12: spec.nodes[0].count",
            "5000",
        ),
        (
            "kind: Scenario",
            "kind: Scenrio",
            "s.yaml:2:7: kind",
            "did you mean \"Scenario\"",
        ),
        (
            "{lostRequests: 0.1}",
            "{minDelay: 2s}",
            "s.yaml:14:",
            "maxDelay",
        ),
        (
            "for: 2s",
            "delete: [web]",
            "s.yaml:12:14: spec.timeline[0].delete[0]",
            "plural/namespace/name",
        ),
    ] {
        let said = problem(from, to);
        assert!(said.contains(place) && said.contains(words), "{to}: {said}");
    }
}

#[test]
fn manifests_in_a_scenario_are_read_as_strictly_as_any() {
    let manifest = "apply:\n    - {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dota: {}}";
    let said = problem("for: 2s", manifest);
    let place = "s.yaml:13:62: spec.timeline[0].apply[0].dota";
    assert!(said.contains(place) && said.contains("data"), "{said}");
}

#[test]
fn a_file_holds_one_scenario_and_nothing_else() {
    let said = |text: &str| read("s.yaml", text).unwrap_err()[0].to_string();
    assert!(said("").contains("s.yaml:1:1: holds no document"));
    let two = format!("{GOOD}---\n{GOOD}");
    assert!(
        said(&two).contains("s.yaml:16:1: holds another document"),
        "{}",
        said(&two)
    );
    let pod = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    assert!(
        said(pod).contains("s.yaml:1:1: is a ConfigMap"),
        "{}",
        said(pod)
    );
}

#[test]
fn standard_scenarios_are_good_and_read_back_as_they_were_written() {
    for seed in 0..300 {
        let scenario = generate::standard(seed);
        let text = setpoint_apis::document::encode(&scenario);
        let problems = |p: Vec<Problem>| p.iter().map(ToString::to_string).collect::<String>();
        let read = read("s.yaml", &text).map_err(problems).unwrap();
        assert_eq!(read, scenario, "seed {seed}");
    }
}
