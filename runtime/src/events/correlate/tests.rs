//! What becomes of occurrences, value in, value out.

use setpoint_apis::Kind as _;
use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;

use super::*;

fn correlator() -> Correlator {
    Correlator::new(Writer {
        component: "scheduler".into(),
        node: None,
    })
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_700_000_000 + secs)
}

fn pod(name: &str) -> EventRef {
    EventRef::of::<Pod>(&ObjectKey::namespaced("shop", name), "u-1")
}

fn saying(object: EventRef, message: impl Into<String>, secs: i64) -> Occurrence {
    Occurrence {
        object,
        event_type: EventType::Warning,
        reason: "FailedScheduling".into(),
        message: message.into(),
        at: at(secs),
    }
}

fn written(c: &mut Correlator) -> Vec<Event> {
    c.take_dirty(usize::MAX)
        .iter()
        .map(|o| serde_yaml::from_str(&o.document).unwrap())
        .collect()
}

#[test]
fn an_event_is_kubernetes_document() {
    let mut c = Correlator::new(Writer {
        component: "agent".into(),
        node: Some("n1".into()),
    });
    c.observe(saying(pod("web-0"), "0/3 nodes are available", 0));
    let out = c.take_dirty(10).remove(0);
    assert_eq!(out.namespace, "shop");
    let expected = format!(
        "apiVersion: v1\nkind: Event\nmetadata:\n  name: {id}\n  namespace: shop\ninvolvedObject:\n  kind: Pod\n  \
         namespace: shop\n  name: web-0\n  uid: u-1\n  apiVersion: v1\nreason: FailedScheduling\nmessage: 0/3 nodes are \
         available\ntype: Warning\nsource:\n  component: agent\n  host: n1\nfirstTimestamp: 2023-11-14T22:13:20Z\n\
         lastTimestamp: 2023-11-14T22:13:20Z\ncount: 1\neventTime: 2023-11-14T22:13:20.000000Z\nreportingComponent: \
         agent\nreportingInstance: n1\n",
        id = out.id
    );
    assert_eq!(out.document, expected);
    assert!(
        out.id.starts_with("web-0.") && out.id.len() == "web-0.".len() + 16,
        "{}",
        out.id
    );
}

#[test]
fn the_same_again_counts_up_on_the_same_key() {
    let mut c = correlator();
    c.observe(saying(pod("a"), "no", 0));
    let first = written(&mut c).remove(0);
    c.observe(saying(pod("a"), "no", 5));
    c.observe(saying(pod("a"), "no", 9));
    let again = written(&mut c);
    assert_eq!(again.len(), 1, "two occurrences, one write");
    assert_eq!(again[0].metadata.name, first.metadata.name);
    assert_eq!(
        (
            again[0].count,
            again[0].first_timestamp,
            again[0].last_timestamp
        ),
        (Some(3), Some(at(0)), Some(at(9)))
    );
    assert!(written(&mut c).is_empty(), "nothing is written twice");
}

#[test]
fn what_failed_to_be_written_is_written_later() {
    let mut c = correlator();
    c.observe(saying(pod("a"), "no", 0));
    let out = c.take_dirty(10);
    c.mark_dirty(out[0].series);
    c.observe(saying(pod("a"), "no", 1));
    let events = written(&mut c);
    assert_eq!((events.len(), events[0].count), (1, Some(2)));
}

#[test]
fn an_hour_of_silence_begins_a_new_event() {
    let mut c = correlator();
    c.observe(saying(pod("a"), "no", 0));
    let first = written(&mut c).remove(0);
    c.observe(saying(pod("a"), "no", 3_601));
    let second = written(&mut c).remove(0);
    assert_ne!(first.metadata.name, second.metadata.name);
    assert_eq!(second.count, Some(1));
}

#[test]
fn a_new_incarnation_of_an_object_has_events_of_its_own() {
    let mut c = correlator();
    c.observe(saying(pod("a"), "no", 0));
    c.observe(saying(
        EventRef {
            uid: "u-2".into(),
            ..pod("a")
        },
        "no",
        0,
    ));
    assert_eq!(written(&mut c).len(), 2);
}

#[test]
fn one_loud_object_is_silenced_and_the_others_are_not() {
    let mut c = correlator();
    let verdicts: Vec<_> = (0..40)
        .map(|_| c.observe(saying(pod("loud"), "no", 0)))
        .collect();
    assert_eq!(
        verdicts.iter().filter(|v| **v == Verdict::Taken).count(),
        25
    );
    assert_eq!(c.observe(saying(pod("calm"), "no", 0)), Verdict::Taken);
    assert_eq!(
        c.observe(saying(pod("loud"), "no", 299)),
        Verdict::Suppressed
    );
    assert_eq!(
        c.observe(saying(pod("loud"), "no", 300)),
        Verdict::Taken,
        "one more every five minutes"
    );
    assert_eq!(
        c.observe(saying(pod("loud"), "no", 300)),
        Verdict::Suppressed
    );
}

#[test]
fn what_an_object_does_all_day_takes_no_room_from_its_warnings() {
    let mut c = correlator();
    let ordinary = || Occurrence {
        event_type: EventType::Normal,
        ..saying(pod("busy"), "created a pod", 0)
    };
    let taken = (0..40).filter(|_| c.observe(ordinary()) == Verdict::Taken);
    assert_eq!(taken.count(), 25);
    assert_eq!(c.observe(saying(pod("busy"), "no", 0)), Verdict::Taken);
    assert_eq!(c.observe(ordinary()), Verdict::Suppressed);
}

#[test]
fn many_similar_messages_share_one_event() {
    let mut c = correlator();
    for i in 0..20 {
        c.observe(saying(pod("a"), format!("0/{i} nodes are available"), i));
    }
    let events = written(&mut c);
    assert_eq!(events.len(), 11);
    let combined = events.last().unwrap();
    assert_eq!(combined.count, Some(10));
    assert_eq!(
        combined.message.as_deref(),
        Some("(combined from similar events): 0/19 nodes are available")
    );
}

#[test]
fn cluster_scoped_objects_have_their_events_in_default() {
    let mut c = correlator();
    let node = EventRef::of::<setpoint_apis::core::Node>(&ObjectKey::cluster("n1"), "");
    c.observe(saying(node, "gone", 0));
    let event = written(&mut c).remove(0);
    assert_eq!(event.metadata.namespace, "default");
    assert_eq!(
        (event.involved_object.namespace, event.involved_object.uid),
        (None, None)
    );
    assert_eq!(
        event.involved_object.kind.as_deref(),
        Some(setpoint_apis::core::Node::KIND)
    );
}

#[test]
fn texts_are_cut_at_a_character_and_names_stay_names() {
    let mut c = correlator();
    let long = format!("{}-{}", "a".repeat(235), "b".repeat(17));
    c.observe(saying(pod(&long), "ä".repeat(1_000), 0));
    let event = written(&mut c).remove(0);
    assert_eq!(event.message.unwrap().len(), 1024);
    assert!(
        setpoint_apis::names::dns_subdomain(&event.metadata.name).is_ok(),
        "{}",
        event.metadata.name
    );
}

#[test]
fn memory_is_bounded_and_what_waits_to_be_written_is_kept() {
    let mut c = correlator();
    let taken = (0..3_000)
        .filter(|i| c.observe(saying(pod(&format!("p{i}")), "no", 0)) == Verdict::Taken)
        .count();
    assert_eq!(
        taken, MAX_SERIES,
        "nothing that waits is forgotten for something new"
    );
    assert_eq!(written(&mut c).len(), MAX_SERIES);
    for i in 0..5_000_i32 {
        c.observe(saying(pod(&format!("q{i}")), "no", 1 + i64::from(i)));
        c.take_dirty(10);
    }
    assert!(c.series.len() <= MAX_SERIES && c.objects.len() <= MAX_OBJECTS);
}
