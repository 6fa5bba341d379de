//! Agents that are cut off past their leases, and come back.

use setpoint_e2e::faults::rig::AGENTS;
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
    let node = rig.eventually("some node has pods", |rig| {
        let mut left = Err("all are without".to_owned());
        for node in AGENTS {
            if rig.bound_to(node)? > 0 {
                left = Ok(node);
            }
        }
        left
    });
    let held = rig.hold_requests(node);
    rig.kill_a_pod_of(node);
    let records = format!("/setpoint/actual/nodes/{node}/pods/");
    let reports = |t: &Transaction| {
        let mut effects = t.items.iter().flat_map(|i| &i.effects);
        *t.sender.name == *node && effects.any(|e| e.key.starts_with(&records))
    };
    rig.eventually("a report is under way", |rig| {
        let report = rig.sent(held, reports);
        report.map(drop).ok_or_else(|| rig.log(node))
    });
    rig.freeze(node);
    is_replaced(&mut rig, node);
    rig.arrives_late(node, |_| true);
    rig.thaw(node);
    rig.node_is(node, "Ready");
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
