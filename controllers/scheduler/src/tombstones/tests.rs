use super::*;

fn on(node: &str, uid: &str) -> Place {
    Place::On {
        node: node.into(),
        uid: uid.into(),
    }
}

#[test]
fn a_status_becomes_a_tombstone_exactly_when_its_claim_is_gone_for_certain() {
    let is = |uid: &str| Claim::Is(uid.into());
    let bury = || ClaimStep::Bury("n1".into(), "u1".into());
    let at = || ClaimStep::Place("n2".into());
    use ClaimStep::{Forget, Rest};
    for (claim, place, exists, waited, step) in [
        (Claim::Absent, Place::Absent, false, false, Rest),
        (Claim::Absent, Place::Nowhere, false, false, Forget),
        (Claim::Absent, Place::Unreadable, false, false, Forget),
        (Claim::Absent, on("n1", "u1"), true, false, bury()),
        // Nobody would ever obey it.
        (Claim::Absent, on("n1", "u1"), false, false, Forget),
        // It may be the claim that the status is about.
        (Claim::Frozen, on("n1", "u1"), true, false, Rest),
        (Claim::Frozen, on("n1", "u1"), false, false, Rest),
        (Claim::Frozen, Place::Absent, false, true, Rest),
        (is("u1"), on("n1", "u1"), true, true, Rest),
        (is("u1"), on("n1", "u1"), false, true, Rest),
        // Another one of the same name: first the former one goes.
        (is("u2"), on("n1", "u1"), true, true, bury()),
        (is("u2"), on("n1", "u1"), false, true, Forget),
        (is("u2"), Place::Absent, false, false, Rest),
        (is("u2"), Place::Absent, false, true, at()),
        (is("u2"), Place::Nowhere, false, true, at()),
        (is("u2"), Place::Unreadable, false, true, Rest),
    ] {
        let facts = ClaimFacts {
            claim,
            place,
            node_exists: exists,
            waited_for_on: waited.then(|| "n2".into()),
        };
        assert_eq!(claim_step(&facts), step, "{facts:?}");
    }
}

#[test]
fn a_tombstone_goes_when_it_is_obeyed_or_nobody_is_left_to_obey_it() {
    for (exists, obeyed, step) in [
        (true, None, StoneStep::Rest),
        (true, Some(7), StoneStep::Obeyed),
        // An earlier one of the same name was: this one is still to be.
        (true, Some(6), StoneStep::Rest),
        (false, None, StoneStep::NodeGone),
        (false, Some(6), StoneStep::NodeGone),
    ] {
        assert_eq!(stone_step(7, exists, obeyed), step, "{exists} {obeyed:?}");
    }
}
