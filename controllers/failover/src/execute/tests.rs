//! What the steps write, and what they are guarded on.

use crate::decide::BindingFacts;

use super::*;

#[test]
fn a_request_names_the_placement_and_is_guarded_on_what_it_was_decided_from() {
    let binding = BindingFacts {
        node: "n1".into(),
        session: 7,
        revision: 40,
        withdrawn: false,
    };
    let step = |unfenced| Step::Release {
        pod: ObjectKey::namespaced("shop", "web-0"),
        binding: binding.clone(),
        health_revision: 50,
        unfenced,
    };
    let written = write(&Keyspace::default(), &step(false));
    let expected = vec![
        Compare::absent("/setpoint/actual/nodes/n1/alive"),
        Compare::ModRevision("/setpoint/actual/health/n1".into(), 50),
        Compare::ModRevision("/setpoint/bindings/shop/web-0".into(), 40),
    ];
    assert_eq!(written.guards, expected);
    let TxnOp::Put(put) = &written.ops[0] else {
        panic!("{:?}", written.ops)
    };
    assert_eq!(put.key, "/setpoint/intents/release/shop/web-0/failover");
    assert_eq!(
        put.value,
        "node: n1\nsession: 7\nreason: node n1 is unreachable\n"
    );

    let stop = write(&Keyspace::default(), &step(true));
    assert_eq!(
        stop.guards[3],
        Compare::absent("/setpoint/actual/nodes/n1/fence")
    );
}

#[test]
fn what_is_kept_is_told_with_a_way_out() {
    let pod = ObjectKey::namespaced("shop", "web-0");
    let text = |held, wanted| kept(&Keyspace::default(), &pod, "n1", held, wanted);
    assert_eq!(
        text(Held::Kept, true),
        "node n1 is unreachable, and the pod is kept on it until it is back (partition policy keep). Once it is certain \
         that nothing of the pod runs there any more, this gives it up: setpoint annotate pod web-0 -n shop \
         setpoint.dev/partition-policy=replace --overwrite"
    );
    let until = Timestamp::from_unix_seconds(0);
    let waiting = waits("n1", Some(until));
    assert!(
        waiting.ends_with("has ended, about 1970-01-01T00:00:00Z at the latest"),
        "{waiting}"
    );
    let stop = text(Held::Unfenceable, false);
    assert!(stop.contains("partition policy stop"), "{stop}");
    assert!(
        stop.ends_with("etcdctl del /setpoint/bindings/shop/web-0"),
        "{stop}"
    );
}
