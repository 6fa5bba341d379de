//! What this process may write at present: as leader of the whole, or of some of the shards.

use std::collections::BTreeMap;

use setpoint_runtime::{Leader, Shard, Shards};
use tokio::sync::oneshot;

use crate::plan::ObjectId;

/// A leadership, and whoever waits until nothing is done under it any more.
pub(crate) struct Seat {
    pub(crate) leader: Leader,
    /// Dropped with the seat.
    pub(crate) _held: oneshot::Sender<()>,
}

/// What the elections say.
pub(crate) enum News {
    Take(Seat),
    /// Some leadership is lost or to be given up.
    Leave,
}

/// The leaderships of this process.
pub(crate) struct Seats {
    /// How the work is split; `None` when it is not.
    shards: Option<Shards>,
    held: BTreeMap<Option<Shard>, Seat>,
}

impl Seats {
    pub(crate) fn new(shards: Option<Shards>) -> Self {
        Self {
            shards,
            held: BTreeMap::new(),
        }
    }

    /// Takes seats, and leaves those whose leadership is lost or to be given up. Whether any was taken.
    pub(crate) fn hear(&mut self, news: impl Iterator<Item = News>) -> bool {
        let mut taken = false;
        for news in news {
            if let News::Take(seat) = news {
                taken = true;
                self.held.insert(seat.leader.shard(), seat);
            }
        }
        self.held
            .retain(|_, seat| !seat.leader.lost().is_cancelled());
        taken
    }

    /// Any of them, to read through.
    pub(crate) fn any(&self) -> Option<&Leader> {
        self.held.values().next().map(|seat| &seat.leader)
    }

    /// The shard of an object; `None` when the work is not split.
    pub(crate) fn shard(&self, id: &ObjectId) -> Option<Shard> {
        self.shards.map(|shards| shard_of(shards, id))
    }

    /// The leadership under which everything about an object is written; `None` when it is another process's.
    pub(crate) fn of(&self, id: &ObjectId) -> Option<&Leader> {
        self.held.get(&self.shard(id)).map(|seat| &seat.leader)
    }
}

/// The shard that an object is in, with its status and its deletion record: a pass about it writes no key but theirs.
fn shard_of(shards: Shards, id: &ObjectId) -> Shard {
    let ObjectId { plural, key } = id;
    shards.of_key(&format!("{plural}/{}/{}", key.namespace, key.name))
}

#[cfg(test)]
mod tests {
    use setpoint_apis::ObjectKey;

    use super::*;

    #[test]
    fn an_object_is_in_the_same_shard_in_every_version() {
        let shard = |plural, namespace: &str| {
            let key = ObjectKey::namespaced(namespace, "web");
            shard_of(Shards::DEFAULT, &ObjectId::new(plural, key)).to_string()
        };
        // Two processes of which one computes otherwise would both write.
        assert_eq!(shard("deployments", "default"), "57");
        assert_eq!(shard("replicasets", "default"), "36");
        assert_eq!(shard("deployments", "shop"), "31");
    }
}
