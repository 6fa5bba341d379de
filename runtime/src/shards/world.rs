//! What a member knows of the others: who takes part, and who has the key of which shard.

use std::collections::BTreeMap;

use setpoint_apis::{Key, KeyRange, Keyspace};
use setpoint_store::{Compare, LeaseId, SharedStore};

use super::decide::{Holder, Member, Taken};
use super::mirror::Mirror;
use super::{Shard, Shards};

pub(super) struct World {
    /// The key of this member.
    pub(super) own: String,
    /// The keys of all.
    among: KeyRange,
    /// The key of whoever leads the controller as a whole: in mode `lease`.
    pub(super) whole_key: String,
    pub(super) members: Mirror,
    pub(super) seats: Mirror,
    pub(super) whole: Mirror,
}

impl World {
    pub(super) fn new(
        store: &SharedStore,
        keyspace: &Keyspace,
        controller: &str,
        me: &str,
        seed: u64,
    ) -> Self {
        let own = keyspace.build(&Key::Member(controller, me));
        let among = KeyRange::prefix(&own[..own.len() - me.len()]);
        let whole_key = keyspace.build(&Key::Leader(controller, None));
        let alone = KeyRange {
            start: whole_key.clone(),
            end: format!("{whole_key}\0"),
        };
        let seats = crate::election::seats_of(&whole_key);
        Self {
            own,
            members: Mirror::new(store.clone(), among.clone(), seed),
            seats: Mirror::new(store.clone(), seats, seed),
            whole: Mirror::new(store.clone(), alone, seed),
            whole_key,
            among,
        }
    }

    /// Whether all has been listed.
    pub(super) fn is_known(&self) -> bool {
        [&self.members, &self.seats, &self.whole]
            .iter()
            .all(|mirror| mirror.revision > 0)
    }

    /// Counts what has come.
    pub(super) fn news(&self) -> u64 {
        self.members.news + self.seats.news + self.whole.news
    }

    /// Takes one piece of news in. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            biased;
            () = self.members.next() => {}
            () = self.seats.next() => {}
            () = self.whole.next() => {}
        }
    }

    /// Whether somebody leads the controller as a whole, or a stranger has put that key.
    pub(super) fn is_led_whole(&self) -> bool {
        !self.whole.rows.is_empty()
    }

    /// The lease of whoever leads the controller as a whole.
    pub(super) fn lease_of_whole(&self) -> Option<LeaseId> {
        self.whole.rows.values().find_map(|row| row.lease)
    }

    /// The mod revision of the key of the whole that a stranger has put: without a lease it would never go.
    pub(super) fn strangers_whole(&self) -> Option<i64> {
        let mut strange = self.whole.rows.values().filter(|row| row.lease.is_none());
        strange.next().map(|row| row.mod_revision)
    }

    /// The revision at which the members were seen, and the guard that none has come since.
    pub(super) fn generation(&self) -> (i64, Compare) {
        let revision = self.members.revision;
        let unchanged = Compare::RangeUnchangedSince {
            start: self.among.start.clone(),
            end: self.among.end.clone(),
            revision,
        };
        (revision, unchanged)
    }

    /// Those whose key hangs on a lease; others are strangers' and would never go.
    pub(super) fn members(&self) -> BTreeMap<String, Option<Member>> {
        let leased = self
            .members
            .rows
            .iter()
            .filter(|(_, row)| row.lease.is_some());
        leased
            .map(|(name, row)| (name.clone(), serde_yaml::from_slice(&row.value).ok()))
            .collect()
    }

    /// The keys of shards, as the holder of the lease `mine` sees them.
    pub(super) fn taken(&self, shards: Shards, mine: LeaseId) -> BTreeMap<Shard, Taken> {
        let rows = self.seats.rows.iter();
        rows.filter_map(|(name, row)| {
            let holder = match row.lease {
                Some(lease) if lease == mine => Holder::Me,
                Some(_) => Holder::Other,
                None => Holder::Stranger,
            };
            let revision = row.mod_revision;
            Some((shards.named(name)?, Taken { holder, revision }))
        })
        .collect()
    }

    /// The lease of the member that this one watches over: the next in the order of names, so that everybody is watched
    /// by one.
    pub(super) fn neighbour(&self, me: &str, mine: LeaseId) -> Option<LeaseId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let rows = &self.members.rows;
        rows.range::<str, _>((Excluded(me), Unbounded))
            .chain(rows.iter())
            .find_map(|(_, row)| row.lease.filter(|lease| *lease != mine))
    }
}
