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

#[cfg(test)]
mod tests {
    use setpoint_apis::core::PersistentVolumeClaim;
    use setpoint_runtime::WriteOutcome;

    use super::*;
    use crate::led::Led;

    #[tokio::test(start_paused = true)]
    async fn many_get_another_owner_in_one_commit_but_what_is_another_by_now() {
        let led = Led::start().await;
        let key = |n: usize| ObjectKey::namespaced("default", format!("data-{n:02}"));
        let text = "apiVersion: v1\nkind: PersistentVolumeClaim\nfuture: {kept: 1}\nmetadata:\n  \
                    ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: other}]\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
        let mut seen = Vec::new();
        for n in 0..80 {
            let key = key(n);
            let mod_revision = led.put_desired::<PersistentVolumeClaim>(&key, text).await.0;
            seen.push(Seen { key, mod_revision });
        }
        led.put_desired::<PersistentVolumeClaim>(&key(40), text)
            .await;
        let owner = OwnerReference {
            api_version: "apps/v1".into(),
            kind: "StatefulSet".into(),
            name: "db".into(),
            uid: "u".into(),
            ..OwnerReference::default()
        };
        let own = Compare::Exists(led.desired::<PersistentVolumeClaim>(&key(0)));
        let add = |owners: &mut Vec<OwnerReference>| owners.push(owner.clone());
        let writes =
            super::writes::<PersistentVolumeClaim>(&led.leader, &seen, &own, "own", add).await;
        let writes = writes.unwrap();
        assert_eq!(writes.len(), 79);
        let outcomes = led.leader.commit(writes).await.unwrap();
        let written = |o: &WriteOutcome| matches!(o, WriteOutcome::Committed(_));
        assert!(outcomes.iter().all(written), "{outcomes:?}");
        for n in 0..80 {
            let stored = led.desired::<PersistentVolumeClaim>(&key(n));
            let (kv, _) = led.store.get(&stored).await.unwrap();
            let text = String::from_utf8(kv.unwrap().value.to_vec()).unwrap();
            assert!(
                text.contains("kept: 1") && text.contains("uid: other"),
                "{text}"
            );
            assert_eq!(text.contains("name: db"), n != 40, "{text}");
        }
    }
}
