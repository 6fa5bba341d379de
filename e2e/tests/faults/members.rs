//! Members of etcd that die: one, the one that leads, and so many that no quorum is left.

use std::time::{Duration, Instant};

use setpoint_e2e::faults::Rig;

/// Longer than any lease of this cluster, which are for 3 s.
const PAST_ALL_LEASES: Duration = Duration::from_secs(5);

#[test]
fn members_of_etcd_die_and_come_back() {
    let mut rig = Rig::start("members");
    rig.block(rig.user().deploy("web", 4));
    rig.converge();
    let load = rig.load("web", 3, 6);
    for member in 0..3 {
        dies_and_comes_back(&mut rig, member);
    }
    let leader = rig.eventually("one member leads", |rig| rig.block(rig.etcd.leader()));
    dies_and_comes_back(&mut rig, leader);
    rig.end_load(load, "web", 5);
    rig.finish();
}

fn dies_and_comes_back(rig: &mut Rig, member: usize) {
    rig.etcd.kill(member);
    rig.note(format!("m{member} is killed"));
    let leader = rig.eventually("the others agree on a leader", |rig| {
        rig.block(rig.etcd.leader())
    });
    rig.note(format!("m{leader} leads etcd"));
    rig.caches_are_complete(&format!("the death of m{member}"));
    rig.etcd.restart(member);
    rig.eventually("all agree on a leader", |rig| rig.block(rig.etcd.leader()));
    rig.note(format!("m{member} is back"));
}

#[test]
fn without_a_quorum_pods_run_on_and_work_goes_on_when_it_returns() {
    let mut rig = Rig::start("quorum");
    rig.block(rig.user().deploy("web", 4));
    rig.converge();
    let leader = rig.eventually("one member leads", |rig| rig.block(rig.etcd.leader()));
    let other = (leader + 1) % 3;
    for member in [leader, other] {
        rig.etcd.kill(member);
        rig.note(format!("m{member} is killed"));
    }
    let failed = rig.setpoint(&["get", "pods", "--request-timeout=1s"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let lost = Instant::now();
    rig.eventually("all leases would have run out", |rig| {
        assert_eq!(
            rig.pod_processes(),
            4,
            "no pod is stopped because etcd is away"
        );
        let left = PAST_ALL_LEASES.checked_sub(lost.elapsed());
        left.map_or(Ok(()), |left| Err(format!("{left:?} to go")))
    });
    for member in [other, leader] {
        rig.etcd.restart(member);
    }
    rig.eventually("all agree on a leader", |rig| rig.block(rig.etcd.leader()));
    rig.note("the quorum is back");
    rig.block(rig.user().deploy("web", 6));
    rig.converge();
    rig.caches_are_complete("the loss of the quorum");
    rig.finish();
}
