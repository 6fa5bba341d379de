use std::num::NonZeroU16;

use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;

fn shards(count: u16) -> Shards {
    Shards::new(NonZeroU16::new(count).unwrap())
}

/// A world to look at; each test changes what it is about.
struct World {
    shards: Shards,
    members: BTreeMap<String, Option<Member>>,
    taken: BTreeMap<Shard, Taken>,
    taken_at: i64,
    mine: BTreeMap<Shard, Mine>,
    led_whole: bool,
}

impl World {
    fn of(members: &[&str]) -> Self {
        let shards = shards(8);
        Self {
            shards,
            members: members
                .iter()
                .map(|name| ((*name).to_owned(), Some(member(shards.count()))))
                .collect(),
            taken: BTreeMap::new(),
            taken_at: 100,
            mine: BTreeMap::new(),
            led_whole: false,
        }
    }

    fn plan(&self, me: &str) -> Plan {
        decide(&Observed {
            me,
            shards: self.shards,
            members: &self.members,
            taken: &self.taken,
            taken_at: self.taken_at,
            mine: &self.mine,
            led_whole: self.led_whole,
        })
    }

    /// The shards of `me`, and those of others.
    fn split(&self, me: &str) -> (Vec<Shard>, Vec<Shard>) {
        let members: Vec<_> = self.members.keys().map(String::as_str).collect();
        self.shards
            .iter()
            .partition(|shard| owner(*shard, members.iter().copied()) == Some(me))
    }

    fn take(&mut self, shard: Shard, holder: Holder, revision: i64) {
        self.taken.insert(shard, Taken { holder, revision });
    }
}

fn member(shards: u16) -> Member {
    Member {
        shards,
        leaving: false,
    }
}

#[test]
fn a_member_alone_claims_every_shard_and_one_that_is_not_registered_none() {
    let world = World::of(&["a"]);
    let claim = world.shards.iter().map(|shard| (shard, 0)).collect();
    assert_eq!(
        world.plan("a"),
        Plan {
            claim,
            ..Plan::default()
        }
    );
    assert_eq!(world.plan("b"), Plan::default());
}

#[test]
fn what_belongs_to_others_is_handed_over_and_what_others_still_hold_is_awaited() {
    let mut world = World::of(&["a", "b"]);
    let (own, others) = world.split("a");
    assert!(!own.is_empty() && !others.is_empty(), "{own:?} {others:?}");
    for shard in &others {
        world.take(*shard, Holder::Me, 50);
        world.mine.insert(*shard, Mine::Leading(50));
    }
    for shard in &own {
        world.take(*shard, Holder::Other, 50);
    }
    assert_eq!(
        world.plan("a"),
        Plan {
            hand_over: others,
            awaited: own,
            ..Plan::default()
        }
    );
}

#[test]
fn a_member_that_leaves_owns_nothing() {
    let mut world = World::of(&["a", "b"]);
    world
        .members
        .get_mut("b")
        .unwrap()
        .as_mut()
        .unwrap()
        .leaving = true;
    assert_eq!(world.plan("a").claim.len(), 8);
    assert_eq!(world.plan("b"), Plan::default());
}

#[test]
fn a_key_that_is_gone_or_taken_ends_a_leadership_but_an_old_sight_of_it_does_not() {
    let mut world = World::of(&["a"]);
    let [gone, taken, stranger, new, led, ..] = world.shards.iter().collect::<Vec<_>>()[..] else {
        panic!("eight shards");
    };
    for shard in world.shards.iter() {
        world.mine.insert(shard, Mine::Busy);
    }
    for (shard, epoch) in [
        (gone, 90),
        (taken, 90),
        (stranger, 90),
        (new, 101),
        (led, 90),
    ] {
        world.mine.insert(shard, Mine::Leading(epoch));
    }
    world.take(taken, Holder::Other, 95);
    world.take(stranger, Holder::Stranger, 95);
    world.take(led, Holder::Me, 90);
    assert_eq!(
        world.plan("a"),
        Plan {
            lost: vec![gone, taken, stranger],
            ..Plan::default()
        }
    );
}

#[test]
fn leftovers_are_claimed_anew_or_freed_and_keys_of_strangers_are_taken_back() {
    let mut world = World::of(&["a", "b"]);
    let (own, others) = world.split("a");
    world.take(own[0], Holder::Me, 40);
    world.take(own[1], Holder::Stranger, 41);
    world.take(others[0], Holder::Me, 42);
    world.take(others[1], Holder::Stranger, 43);
    for shard in &own[2..] {
        world.mine.insert(*shard, Mine::Busy);
    }
    assert_eq!(
        world.plan("a"),
        Plan {
            claim: vec![(own[0], 40), (own[1], 41)],
            free: vec![(others[0], 42)],
            ..Plan::default()
        }
    );
}

#[test]
fn nothing_is_claimed_or_moved_beside_a_member_that_splits_the_work_otherwise() {
    for other in [Some(member(16)), None] {
        let mut world = World::of(&["a", "b"]);
        world.members.insert("b".into(), other);
        for shard in world.shards.iter().take(4) {
            world.take(shard, Holder::Me, 50);
            world.mine.insert(shard, Mine::Leading(50));
        }
        assert_eq!(
            world.plan("a"),
            Plan {
                disagreement: Some("b".into()),
                ..Plan::default()
            }
        );
    }
}

#[test]
fn documents_of_members_are_read_as_they_are_written() {
    for leaving in [false, true] {
        let member = Member {
            shards: 64,
            leaving,
        };
        let read: Member = serde_yaml::from_str(&member.document()).unwrap();
        assert_eq!(read, member);
    }
}

/// Pinned: processes of two versions share one map.
#[test]
fn the_map_is_the_same_in_every_version() {
    let members = ["a", "b", "c"];
    let map: String = shards(16)
        .iter()
        .filter_map(|shard| owner(shard, members))
        .collect();
    assert_eq!(map, "babbaacbacaccaba");
    let of: Vec<_> = ["default/web", "default/db", "kube-system/dns"]
        .map(|key| Shards::DEFAULT.of_key(key).to_string())
        .into();
    assert_eq!(of, ["2", "46", "3"]);
}

fn map(members: &std::collections::BTreeSet<String>, of: Shards) -> Vec<Option<String>> {
    of.iter()
        .map(|shard| owner(shard, members.iter().map(String::as_str)).map(str::to_owned))
        .collect()
}

proptest! {
    #[test]
    fn a_member_that_comes_takes_shards_and_moves_no_others(
        members in btree_set("[a-z0-9-]{1,12}", 0..12),
        comes in "[A-Z]{1,12}",
        count in 1..300_u16,
    ) {
        let before = map(&members, shards(count));
        let mut more = members.clone();
        more.insert(comes.clone());
        let after = map(&more, shards(count));
        for (was, is) in before.iter().zip(&after) {
            prop_assert!(is == was || is.as_deref() == Some(comes.as_str()), "{was:?} {is:?}");
        }
        // The other way round: one that goes leaves its own, and nothing else moves.
        let back = map(&members, shards(count));
        for (was, is) in after.iter().zip(&back) {
            prop_assert!(is == was || was.as_deref() == Some(comes.as_str()), "{was:?} {is:?}");
        }
    }

    #[test]
    fn every_shard_has_one_owner_whoever_asks(
        members in btree_set("[a-z0-9-]{1,12}", 1..12),
        count in 1..100_u16,
    ) {
        let mut world = World::of(&[]);
        world.shards = shards(count);
        for name in &members {
            world.members.insert(name.clone(), Some(member(count)));
        }
        let mut claimed = Vec::new();
        for name in &members {
            claimed.extend(world.plan(name).claim.into_iter().map(|(shard, _)| shard));
        }
        claimed.sort_unstable();
        prop_assert_eq!(claimed, world.shards.iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_load_is_spread(names in btree_set("[a-z0-9]{8}", 4)) {
        // 1,024 shards on 4 members: 256 each, with a standard deviation of 14; six of them are next to impossible.
        for member in &names {
            let own = map(&names, shards(1024)).iter().filter(|o| o.as_ref() == Some(member)).count();
            prop_assert!((170..=342).contains(&own), "{own}");
        }
    }

    #[test]
    fn keys_are_spread_over_all_shards(seed in any::<u32>()) {
        let mut counts = [0_u32; 16];
        for n in 0..4096_u32 {
            let shard = shards(16).of_key(&format!("default/web-{seed}-{n}"));
            counts[usize::from(shard.0)] += 1;
        }
        // 256 each, with a standard deviation of 15.5.
        prop_assert!(counts.iter().all(|c| (163..=349).contains(c)), "{counts:?}");
    }
}

#[test]
fn nothing_is_claimed_or_handed_over_while_somebody_leads_the_whole() {
    let mut world = World::of(&["a", "b"]);
    world.led_whole = true;
    assert_eq!(world.plan("a"), Plan::default());
    let (_, of_b) = world.split("a");
    world.take(of_b[0], Holder::Me, 50);
    world.mine.insert(of_b[0], Mine::Leading(50));
    assert_eq!(world.plan("a"), Plan::default());
    world.led_whole = false;
    assert_eq!(world.plan("a").hand_over, [of_b[0]]);
}
