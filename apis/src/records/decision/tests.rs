use super::*;
use crate::document::{decode_value, encode};
use crate::records::PodScheduling;

fn score(node: &str, parts: &[(ScorePart, i32)]) -> NodeScore {
    let parts: ScoreParts = parts.iter().copied().collect();
    NodeScore {
        node: node.into(),
        score: parts.total(),
        parts,
    }
}

fn decision() -> PlacementDecision {
    PlacementDecision {
        best: vec![
            score(
                "n1",
                &[(ScorePart::Resources, 80), (ScorePart::TopologySpread, 12)],
            ),
            score("n2", &[(ScorePart::Resources, 85)]),
            score("n3", &[(ScorePart::Resources, 60)]),
        ],
        ..PlacementDecision::default()
    }
}

#[test]
fn the_reasons_of_a_decision_are_small_and_read_back_equal() {
    let bare = encode(&PlacementDecision::default());
    let full = decision();
    let text = encode(&full);
    assert_eq!(
        decode_value::<PlacementDecision>(text.as_bytes()).unwrap(),
        full
    );
    assert!(
        text.len() - bare.len() <= 170,
        "{} bytes more:\n{text}",
        text.len() - bare.len()
    );
}

#[test]
fn documents_of_before_are_read_and_those_of_later_too() {
    let old = "revision: 1\nnodes: 3\nfeasible: 2\nscore: 9\nrunnerUp:\n- n2\n- 4\n";
    let read: PlacementDecision = decode_value(old.as_bytes()).unwrap();
    assert_eq!(read.runner_up, Some(("n2".into(), 4)));
    assert_eq!(encode(&read), old);
    assert_eq!(read.runner_up_lost(), None);

    let later = "best:\n- {node: n1, score: 3, parts: 'resources=1 moonPhase=2'}\nrevision: 1\nnodes: 1\nfeasible: 1\nscore: 3\n";
    let read: PlacementDecision = decode_value(later.as_bytes()).unwrap();
    assert_eq!(read.best[0].parts.to_string(), "resources=1");
    let later = "reasons:\n- {constraint: Weather, hope: Perhaps, nodes: 2}\n";
    let read: PodScheduling = decode_value(later.as_bytes()).unwrap();
    assert_eq!(
        (read.reasons[0].constraint, read.reasons[0].hope),
        (ConstraintKind::Other, Hope::Waits)
    );
}

#[test]
fn parts_that_are_no_numbers_are_refused() {
    for text in ["resources", "resources=x", "resources=99999999999"] {
        let doc = format!("{{node: n, score: 1, parts: {text}}}");
        assert!(decode_value::<NodeScore>(doc.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn the_runner_up_lost_by_the_part_that_was_behind_most() {
    let d = decision();
    let lost = d.runner_up_lost().unwrap();
    assert_eq!(
        lost,
        RunnerUpLost {
            node: "n2",
            by: 7,
            part: Some((ScorePart::TopologySpread, 12))
        }
    );
    assert_eq!(
        lost.to_string(),
        "n2 was worth 7 less: 12 less for topologySpread"
    );
    let mut tie = decision();
    tie.best[1].score = tie.best[0].score;
    assert_eq!(
        tie.runner_up_lost().unwrap().to_string(),
        "n2 was worth the same"
    );
}

#[test]
fn a_nearest_miss_reads_as_a_sentence() {
    let mut miss = NearestMiss {
        constraint: ConstraintKind::Resources,
        nodes: 1,
        node: Some("n7".into()),
        shortfall: [("cpu".into(), "200m".parse().unwrap())].into(),
        ..NearestMiss::default()
    };
    assert_eq!(
        miss.to_string(),
        "n7 would fit with 200m cpu less requested"
    );
    miss.shortfall
        .insert("memory".into(), "1Gi".parse().unwrap());
    assert_eq!(
        miss.to_string(),
        "n7 would fit with 200m cpu, 1Gi memory less requested"
    );
    let miss = NearestMiss {
        constraint: ConstraintKind::Taint,
        nodes: 3,
        without: "taint dedicated=gpu".into(),
        ..NearestMiss::default()
    };
    assert_eq!(
        miss.to_string(),
        "3 nodes would fit without taint dedicated=gpu"
    );
}
