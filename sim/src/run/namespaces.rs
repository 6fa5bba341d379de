//! What users do with namespaces: nothing is created in one that is not there, and one is deleted with all that is in it,
//! at one revision.

use std::time::Duration;

use setpoint_apis::core::Namespace;
use setpoint_apis::registry::Registry;
use setpoint_apis::{Key, KeyRange, Kind, ObjectKey, keyspace};
use setpoint_store::{Compare, Txn, TxnOp};
use tokio::time::sleep;

use super::Run;

/// How long a command takes at most from what it has read to what it writes, in milliseconds.
const LONGEST_COMMAND: u64 = 20;

impl Run<'_> {
    /// Deletes a namespace as `setpoint delete namespace` does. That it finds all kinds there are is not tried here: the
    /// ranges of all that are known are deleted.
    pub(super) async fn delete_namespace(&mut self, name: &str) -> Result<(), String> {
        let keyspace = self.world.keyspace.clone();
        let document = namespace(&keyspace, name);
        let Some(found) = self.read(&document).await?.0 else {
            self.note(format!("there is no namespace {name} to be deleted"));
            return Ok(());
        };
        sleep(Duration::from_millis(self.rng.u64(1..=LONGEST_COMMAND))).await;
        let kinds = Registry::builtin().kinds().iter().filter(|k| k.namespaced);
        let ranges = kinds.map(|kind| keyspace.desired_range(kind.plural, Some(name)));
        let mut txn = Txn::new().when(Compare::CreateRevision(
            document.clone(),
            found.create_revision,
        ));
        let delete = |range: KeyRange| TxnOp::DeleteRange {
            start: range.start,
            end: range.end,
        };
        txn.then = ranges.map(delete).collect();
        txn.then.push(delete(keyspace.event_range(name)));
        let mark = keyspace.build(&Key::Meta(&keyspace::admissions(name)));
        let txn = txn.delete(mark).delete(document);
        let done = self.world.user(txn).await.map_err(|e| e.to_string())?;
        self.note(match done {
            true => format!("namespace {name} is deleted with all that is in it"),
            false => format!("namespace {name} has been deleted already"),
        });
        Ok(())
    }

    /// What must hold for an object to be written: its namespace is there.
    pub(super) fn has_namespace(&self, object: &ObjectKey) -> Option<Compare> {
        let named = !object.namespace.is_empty();
        named.then(|| Compare::Exists(namespace(&self.world.keyspace, &object.namespace)))
    }
}

fn namespace(keyspace: &setpoint_apis::Keyspace, name: &str) -> String {
    keyspace.build(&Key::Desired(Namespace::PLURAL, ObjectKey::cluster(name)))
}
