//! Other sizes, and what a step relies on.

use super::*;

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_out() {
    let mut w = running(10, "a");
    w.s.template = template("b");
    w.settle();
    assert_eq!(w.sizes(), [8, 3]);
    w.replica_sets_act();
    w.s.wanted = 20;
    let plan = w.plan();
    w.apply(&plan);
    // 25 pods may be: 8 of 13 and 3 of 13, and what rounding leaves to the biggest.
    assert_eq!(w.sizes(), [19, 6]);
    assert!(
        w.s.sets
            .iter()
            .all(|r| r.annotations[DESIRED_REPLICAS] == "20")
    );
    w.run();
    assert_eq!(w.sizes(), [0, 20]);
}

#[test]
fn a_smaller_size_in_the_middle_of_a_rollout_takes_no_available_pods_that_are_needed() {
    for wanted in 0..10 {
        let mut w = running(10, "a");
        w.s.template = template("b");
        w.settle();
        assert_eq!(w.sizes(), [8, 3]);
        w.s.wanted = wanted;
        w.settle_with(|w, plan| {
            w.replica_sets_act();
            // 25 % may be missing, rounded down; no new pod becomes ready.
            let least = wanted - wanted / 4;
            assert!(w.ready() >= least, "{} of {wanted}: {plan}", w.ready());
        });
        let sizes: i32 = w.sizes().iter().sum();
        // 25 % may be too many, rounded up.
        assert_eq!(sizes, wanted + (wanted + 3) / 4, "{:?}", w.sizes());
        w.run();
        assert_eq!(w.sizes(), [0, wanted]);
    }
}

#[test]
fn pods_that_a_former_step_has_taken_are_not_relied_on_when_their_set_grows_again() {
    let mut w = running(5, "a");
    w.s.strategy = rolling("25%", "25%");
    w.s.template = template("b");
    w.settle();
    w.replica_sets_act();
    w.agents_act(9);
    w.settle();
    assert_eq!(w.sizes(), [2, 3], "two pods of the old set still exist");
    // Back, before anybody has taken them away: they go now, or right before what is planned is written.
    w.s.template = template("a");
    for step in 0.. {
        let plan = w.plan();
        if plan.is_empty() {
            break;
        }
        assert!(step < 20, "it does not settle: {plan}");
        let ready =
            w.s.sets
                .iter()
                .map(|r| i32::try_from(r.ready_since.len()).unwrap());
        let before: Vec<i32> = ready
            .zip(w.sizes())
            .map(|(ready, size)| ready.min(size))
            .collect();
        w.apply(&plan);
        let kept: i32 = before
            .iter()
            .zip(w.sizes())
            .map(|(n, size)| size.min(*n))
            .sum();
        assert!(kept >= 4, "{before:?} to {:?}: {plan}", w.sizes());
    }
    assert_eq!(w.sizes(), [5, 0]);
}

#[test]
fn a_pod_of_a_set_that_has_too_many_is_not_relied_on_before_it_has_deleted_some() {
    let mut w = running(5, "a");
    w.s.template = template("b");
    w.settle();
    w.replica_sets_act();
    w.s.wanted = 2;
    let plan = w.plan();
    w.apply(&plan);
    assert_eq!(w.sizes(), [2, 1]);
    w.s.sets[0].pods = 2;
    w.s.sets[0].ready_since.truncate(2);
    // One of the new ones has become ready, and the set has yet to choose which one it keeps.
    assert!(w.s.sets[1].pods > 1);
    w.s.sets[1].ready_since = vec![at(w.now)];
    w.settle();
    assert_eq!(w.sizes(), [2, 1]);
    // It has kept that one.
    w.s.sets[1].pods = 1;
    w.settle();
    assert_eq!(w.sizes(), [1, 1]);
}

/// Those that a set has too many of may be the ones that are not available.
#[test]
fn a_pod_of_a_set_that_has_too_many_is_not_taken_for_a_broken_one() {
    let mut w = running(10, "a");
    w.s.sets[0].ready_since.truncate(8);
    w.s.template = template("b");
    w.settle();
    assert_eq!(w.sizes(), [8, 3], "of 10 pods, two of which are broken");
    w.s.template = template("c");
    w.settle();
    assert_eq!(w.sizes(), [8, 0, 3], "8 of 10 must stay available");
}

#[test]
fn the_largest_numbers_are_planned_with_like_any_other() {
    for strategy in [
        rolling("100%", "25%"),
        rolling("2147483647", "0"),
        recreate(),
    ] {
        let mut world = World::new(deployment(i32::MAX, "one"));
        world.s.strategy = strategy.clone();
        let plan = world.plan();
        assert_eq!(plan.create.as_ref().unwrap().replicas, i32::MAX);
        world.apply(&plan);
        world.settle();
        world.s.template = template("two");
        world.settle();
        // In the middle of a rollout, and another size.
        for set in &mut world.s.sets {
            set.replicas = i32::MAX;
        }
        for wanted in [i32::MAX - 1, 3, i32::MAX] {
            world.s.wanted = wanted;
            let plan = world.plan();
            assert!(
                plan.change.iter().all(|c| c.replicas >= 0),
                "{strategy:?}: {plan}"
            );
            world.apply(&plan);
        }
    }
}

#[test]
fn pods_that_are_yet_to_be_deleted_take_room() {
    let mut w = World::new(deployment(3, "a"));
    w.s.strategy = rolling("1", "1");
    w.run();
    w.s.template = template("b");
    w.settle();
    assert_eq!(w.sizes(), [2, 1]);
    // The old set has been scaled to 2, and still has its 3 pods: nothing more is created.
    w.s.sets[1].pods = 1;
    w.s.sets[1].ready_since = vec![at(w.now)];
    w.settle();
    assert_eq!(w.sizes(), [1, 1]);
    assert_eq!((w.s.sets[0].pods, w.pods()), (3, 4));
    w.s.sets[0].pods = 2;
    w.s.sets[0].ready_since.truncate(2);
    w.settle();
    assert_eq!(w.sizes(), [1, 2]);
}

#[test]
fn growing_counts_pods_that_are_yet_to_be_deleted() {
    for (paused, wanted) in [(false, 12), (false, 20), (true, 12), (true, 20)] {
        let mut w = running(10, "a");
        w.s.template = template("b");
        w.settle();
        w.replica_sets_act();
        w.agents_act(9);
        w.settle();
        let sizes = w.sizes();
        assert!(w.s.sets[0].pods > sizes[0], "some of the old are to go");
        w.s.wanted = wanted;
        w.s.paused = paused;
        // 25 % may be too many, rounded up.
        let most = wanted + (wanted + 3) / 4;
        w.settle_with(|w, plan| {
            let there: i32 = w.s.sets.iter().map(|r| r.replicas.max(r.pods)).sum();
            assert!(there <= most, "{there} of {most}: {plan}");
        });
        assert_eq!(
            w.s.sets[0].annotations[DESIRED_REPLICAS],
            wanted.to_string()
        );
        w.run();
        let sum: i32 = w.sizes().iter().sum();
        assert_eq!(sum, if paused { most } else { wanted }, "{:?}", w.sizes());
    }
}

#[test]
fn what_a_set_has_too_many_of_it_may_keep_when_it_grows_again() {
    let mut w = running(10, "a");
    for wanted in [2, 9] {
        w.s.wanted = wanted;
        let plan = w.plan();
        w.apply(&plan);
        assert_eq!(w.sizes(), [wanted], "{plan}");
    }
}

/// A pod whose document does not parse is left alone whatever the size of its set, so the others go in its place.
#[test]
fn pods_that_are_left_alone_do_not_go() {
    let mut w = running(4, "a");
    w.s.strategy = rolling("1", "0");
    // Two do not parse, one of which is not available.
    w.s.sets[0].frozen = 2;
    w.s.sets[0].ready_since.truncate(3);
    w.s.template = template("b");
    w.settle();
    assert_eq!(
        w.sizes(),
        [4, 1],
        "one that is not available does not go either"
    );
    // None of those that the old set has too many goes, so those that are available stay so.
    w.s.strategy = rolling("2", "0");
    w.s.sets[0].replicas = 1;
    w.s.sets[0].pods = 2;
    w.s.sets[0].ready_since.truncate(1);
    w.s.sets[1].replicas = 4;
    w.s.sets[1].pods = 4;
    w.s.sets[1].ready_since = vec![at(w.now); 4];
    w.settle();
    assert_eq!(w.sizes(), [0, 4]);
}

#[test]
fn scaling_to_nothing_and_back() {
    let mut w = running(3, "a");
    for wanted in [0, 5] {
        w.s.wanted = wanted;
        w.run();
        assert_eq!(w.sizes(), [wanted]);
    }
}

#[test]
fn what_is_not_available_anyway_goes_first() {
    let mut w = running(10, "a");
    // Three of the old ones break.
    w.s.sets[0].ready_since.truncate(7);
    w.settle();
    w.s.template = template("broken");
    let plans = w.settle();
    assert_eq!(
        plans[0].to_string(),
        "create replicaset web-6f7d7f9f47 replicas=3 revision=2\n"
            .replace("6f7d7f9f47", &w.s.sets[1].seen.key.name[4..])
    );
    // 13 pods, 8 must stay available, 3 new ones are not: 2 may go, and those are not available either.
    assert_eq!(w.sizes(), [8, 3]);
}

#[test]
fn a_paused_deployment_is_scaled_and_not_rolled() {
    let mut w = running(2, "a");
    w.s.paused = true;
    w.s.template = template("b");
    w.s.wanted = 4;
    w.run();
    assert_eq!(w.sizes(), [4]);
    assert_eq!(w.reason("Progressing"), "Unknown/DeploymentPaused");
    w.s.paused = false;
    w.run();
    assert_eq!(w.sizes(), [0, 4]);
    assert_eq!(w.reason("Progressing"), "True/NewReplicaSetAvailable");
}
