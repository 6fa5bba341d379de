//! Everything that has a say in where pods go, at one revision.

use anyhow::Result;
use futures::stream::{self, StreamExt, TryStreamExt};
use setpoint_what_if::{Record, World};

use super::Client;

/// How many ranges are read at a time.
const AT_ONCE: usize = 8;

impl Client {
    /// Reads everything that has a say in where pods go.
    ///
    /// # Errors
    /// When the store does not answer. A document that cannot be read is noted in the world.
    pub(crate) async fn world(&self) -> Result<World> {
        let ranges = World::ranges(&self.keyspace);
        let mut world = World::default();
        let Some((first, rest)) = ranges.split_first() else {
            return Ok(world);
        };
        let (first, revision) = self.range(first, None).await?;
        let rest: Vec<_> = stream::iter(rest)
            .map(|range| self.range(range, Some(revision)))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        world.revision = revision.0;
        for kv in first.iter().chain(rest.iter().flat_map(|(kvs, _)| kvs)) {
            let record = Record {
                key: &kv.key,
                value: &kv.value,
                create_revision: kv.create_revision,
                mod_revision: kv.mod_revision,
            };
            world.take(&self.keyspace, record);
        }
        world.complete();
        Ok(world)
    }
}
