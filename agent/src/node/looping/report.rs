//! The node's own status.

use setpoint_apis::{Key, document};
use setpoint_store::{Compare, Outcome, Txn};
use tracing::warn;

use super::NodeLoop;
use crate::node::session::Session;
use crate::node::status::{describe, keep};

impl NodeLoop {
    /// Looks at the machine, and writes the node's status when it says something new. Returns whether it is unknown what
    /// became of that write: then the fence has to move on, or the old status could arrive after the next one.
    pub(super) async fn report_node(&mut self, session: &Session) -> bool {
        let now = self.parts.clock.now();
        let machine = &self.parts.machine;
        let seen = machine.sample(&self.parts.config.data_dir);
        let mut record = describe(
            &self.parts.config,
            machine,
            self.parts.endpoint.clone(),
            &seen,
            now,
        );
        record.usage = self.meter.take(machine.cpus, &seen);
        record.usage_at = Some(now);
        record.session = Some(session.id);
        record.discarded = self.state.obeyed_tombstones();
        let key = self
            .parts
            .keyspace
            .build(&Key::NodeStatus(&self.parts.config.node));
        if self.reported.is_none() {
            // After a restart of the agent the store may say the same already.
            if let Ok((Some(kv), _)) = self.parts.store.get(&key).await {
                self.reported = document::decode_value(&kv.value).ok();
            }
        }
        if let Some(reported) = &self.reported {
            keep(reported, &mut record);
            if *reported == record {
                return false;
            }
        }
        let fence = Compare::ModRevision(
            self.parts
                .keyspace
                .build(&Key::NodeAlive(&self.parts.config.node)),
            session.epoch,
        );
        let txn = Txn::new().when(fence).put(key, document::encode(&record));
        match self.parts.store.txn(txn).await {
            Ok(done) if done.succeeded => self.reported = Some(record),
            Ok(_) => {}
            Err(error) => {
                self.reported = None;
                warn!(
                    node = self.parts.config.node,
                    error = &error as &dyn std::error::Error,
                    "the node's status could not be written; trying again"
                );
                return error.outcome() == Outcome::Unknown;
            }
        }
        false
    }
}
