//! Agents that are cut off past their leases, and come back.

use setpoint_e2e::faults::tap::Transaction;
use setpoint_e2e::faults::{Mode, Rig};

#[test]
fn an_agent_that_was_away_past_its_lease_comes_back_in_order() {
    let mut rig = Rig::start("nodes");
    rig.block(rig.user().deploy("web", 6));
    rig.converge();
    for (node, mode) in [("n3", Mode::Cut), ("n2", Mode::Swallow)] {
        rig.set(node, mode);
        is_replaced(&mut rig, node);
        // Its pods run twice for now: they are for those who can bear it.
        rig.set(node, Mode::Pass);
        rig.node_is(node, "Ready");
        rig.converge();
        rig.caches_are_complete(&format!("{node}'s absence"));
    }

    // A report of an agent is on its way when it freezes, and arrives when others have the pods.
    let settled = rig.bound_to("n1").unwrap();
    if settled == 0 {
        rig.block(rig.user().deploy("web", 9));
        rig.converge();
    }
    rig.set("n1", Mode::HoldRequests);
    rig.kill_a_pod_of("n1");
    let reports = |t: &Transaction| {
        let mut effects = t.items.iter().flat_map(|i| &i.effects);
        *t.sender.name == *"n1"
            && t.answered.is_none()
            && effects.any(|e| e.key.starts_with("/setpoint/actual/nodes/n1/pods/"))
    };
    rig.eventually("a report is under way", |rig| {
        rig.sent(reports).map(drop).ok_or_else(|| rig.log("n1"))
    });
    rig.freeze("n1");
    is_replaced(&mut rig, "n1");
    rig.set("n1", Mode::Pass);
    let late = rig.eventually("the late report is rejected", |rig| {
        let mut fenced = rig.fenced().into_iter();
        let late = fenced.find(|f| *f.sender.name == *"n1");
        late.ok_or_else(|| "nothing was fenced off".to_owned())
    });
    rig.note(format!("{late:?}"));
    rig.thaw("n1");
    rig.node_is("n1", "Ready");
    rig.converge();
    rig.finish();
}

fn is_replaced(rig: &mut Rig, node: &str) {
    rig.node_is(node, "Unreachable");
    rig.eventually(
        &format!("others have the pods of {node}"),
        |rig| match rig.bound_to(node)? {
            0 => Ok(()),
            n => Err(format!("{n} are bound there")),
        },
    );
    rig.note(format!("others have the pods of {node}"));
}
