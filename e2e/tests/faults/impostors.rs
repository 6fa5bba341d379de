//! Whether the checks would notice: writes that break a promise, made over the proxies of processes.

use setpoint_e2e::faults::Rig;
use setpoint_store::{SharedStore, Txn};

#[test]
fn writes_that_break_a_promise_are_found() {
    let mut rig = Rig::start("impostors");
    rig.block(rig.user().deploy("web", 1));
    rig.converge();
    let [leader, standby] = match rig.leading(None) {
        leader @ "controllers-a" => [leader, "controllers-b"],
        leader => [leader, "controllers-a"],
    };
    let put = |rig: &Rig, store: &SharedStore, key: &str, value: &str| {
        let done = rig.block(store.txn(Txn::new().put(key, value.to_owned())));
        done.unwrap().revision.0
    };
    assert_eq!(rig.findings(), []);

    // Not by the leader, and by the leader without its guard.
    let verdict = "/setpoint/actual/deployments/default/other";
    let stranger = put(&rig, &rig.impostor(standby), verdict, "replicas: 1\n");
    let unguarded = put(&rig, &rig.impostor(leader), verdict, "replicas: 2\n");
    // A node that claims what nobody has given to it.
    let claim = "placement: 1\nuid: u\nstage: Starting\n";
    let record = "/setpoint/actual/nodes/n2/pods/default/other";
    let claimed = put(&rig, &rig.impostor("n2"), record, claim);
    let found: Vec<_> = rig
        .findings()
        .into_iter()
        .map(|f| (f.check, f.revision))
        .collect();
    let expected = [
        ("fencing", stranger),
        ("fencing", unguarded),
        ("fencing", claimed),
        ("single placement", claimed),
    ];
    for finding in expected {
        assert!(
            found.contains(&finding),
            "{finding:?} is missing: {found:?}"
        );
    }
}
