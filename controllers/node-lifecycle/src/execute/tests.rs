//! What the steps write, and what they are guarded on.

use super::*;

#[test]
fn a_registration_is_a_document_that_a_user_could_have_written() {
    for name in ["n1", "1", "true", "1e3", "0x10", "a.b-c"] {
        let node: Node = document::decode(declaration(name).as_bytes()).unwrap();
        assert_eq!(node.metadata.name, name);
    }
    assert_eq!(
        declaration("n1"),
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n"
    );
}

#[test]
fn every_step_is_guarded_on_what_it_was_decided_from() {
    let keyspace = Keyspace::default();
    let node: Arc<str> = "n1".into();
    let health = NodeHealth {
        session: 7,
        ..NodeHealth::default()
    };
    let alive = || "/setpoint/actual/nodes/n1/alive".to_owned();
    let desired = || "/setpoint/desired/nodes/n1".to_owned();
    let conclude = |because| Step::Conclude {
        node: node.clone(),
        health: health.clone(),
        because,
        before: None,
    };
    for (step, guards) in [
        (
            Step::Register {
                node: node.clone(),
                health: health.clone(),
            },
            vec![
                Compare::absent(desired()),
                Compare::CreateRevision(alive(), 7),
            ],
        ),
        (
            conclude(Because::Alive(7)),
            vec![Compare::CreateRevision(alive(), 7)],
        ),
        (
            conclude(Because::AliveUnwanted(7)),
            vec![
                Compare::CreateRevision(alive(), 7),
                Compare::absent(desired()),
            ],
        ),
        (conclude(Because::Silent), vec![Compare::absent(alive())]),
        (
            Step::Forget { node: node.clone() },
            vec![Compare::absent(alive()), Compare::absent(desired())],
        ),
    ] {
        assert_eq!(write(&keyspace, &step).guards, guards, "{step:?}");
    }
}
