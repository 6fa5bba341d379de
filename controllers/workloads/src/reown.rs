//! Other owners for objects that somebody else has written. They are read as they are stored, so that nothing in their
//! documents is lost, and written while they are as they were seen.

use futures::StreamExt;
use futures::stream;
use setpoint_apis::{Key, Kind, ObjectKey, OwnerReference, document, owners};
use setpoint_runtime::{Leader, Write};
use setpoint_store::{Compare, KeyValue, StoreError};

use crate::seen::Seen;
use crate::writes;

/// Objects that are read at a time.
const READS: usize = 32;

/// The raw document of an object, to change its owners, could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {key} could not be read")]
pub struct ReadRaw {
    /// What it is.
    pub kind: &'static str,
    /// Its name.
    pub key: ObjectKey,
    /// Why.
    #[source]
    pub source: StoreError,
}

/// The writes that `change` the owners of objects of a kind, each while `own` holds too; `verb` is what that is called. What
/// is another object by now, or cannot be read as one, is left out: it is looked at again when the cache has it.
pub(crate) async fn writes<K: Kind>(
    leader: &Leader,
    objects: &[Seen],
    own: &Compare,
    verb: &str,
    change: impl Fn(&mut Vec<OwnerReference>),
) -> Result<Vec<Write>, ReadRaw> {
    let reads: Vec<_> = objects.iter().map(|seen| read::<K>(leader, seen)).collect();
    let found: Vec<_> = stream::iter(reads).buffered(READS).collect().await;
    let mut changed = Vec::new();
    for (seen, found) in objects.iter().zip(found) {
        let Some(found) = found?.filter(|kv| kv.mod_revision == seen.mod_revision) else {
            continue;
        };
        let Ok(present) = document::decode_keyed::<K>(&seen.key, &found.value) else {
            continue;
        };
        let mut references = present.metadata().owner_references.clone();
        change(&mut references);
        let text = owners::with_owner_references::<K>(&seen.key, &found.value, &references);
        let Ok(text) = text else { continue };
        changed.push(Write {
            guards: vec![
                Compare::ModRevision(found.key.clone(), seen.mod_revision),
                own.clone(),
            ],
            ops: vec![writes::put(found.key, text)],
            context: format!("{verb} {} {}", K::KIND, seen.key),
        });
    }
    Ok(changed)
}

async fn read<K: Kind>(leader: &Leader, seen: &Seen) -> Result<Option<KeyValue>, ReadRaw> {
    let key = Key::Desired(K::PLURAL, seen.key.clone());
    let read = leader.store().get(&leader.keyspace().build(&key)).await;
    let (found, _) = read.map_err(|source| ReadRaw {
        kind: K::KIND,
        key: seen.key.clone(),
        source,
    })?;
    Ok(found)
}
