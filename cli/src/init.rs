//! What a keyspace needs before anything is put into it: its identity, the version of its layout, and namespaces.

use anyhow::{Context as _, Result, bail};
use setpoint_apis::timeline::Timeline;
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_store::{Compare, SharedStore, Txn};

use crate::client::Client;
use crate::random;

/// The version of the keyspace's layout that this program writes.
const SCHEMA_VERSION: i64 = 1;

/// The namespaces that there are from the beginning.
const NAMESPACES: [&str; 2] = ["default", "setpoint-system"];

/// What initialisation has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Initialised {
    /// The cluster's id.
    pub(crate) cluster_id: String,
    /// What was made; empty when all was there.
    pub(crate) created: Vec<String>,
}

/// Makes sure that the keyspace has a layout that this program knows; one that was not initialised has none yet.
///
/// # Errors
/// When it was made by a newer version of Setpoint, or does not say by which.
pub(crate) async fn check_layout(store: &SharedStore, keyspace: &Keyspace) -> Result<()> {
    let key = keyspace.build(&Key::Meta("schema"));
    let Some(kv) = store.get(&key).await?.0 else {
        return Ok(());
    };
    let schema: serde_json::Value = document::decode_value(&kv.value).with_context(|| {
        format!("{key} cannot be read, so the layout of the keyspace is unknown")
    })?;
    match schema["version"].as_i64() {
        Some(version) if version <= SCHEMA_VERSION => Ok(()),
        Some(version) => bail!(
            "the keyspace {keyspace} has layout version {version}, and this program knows {SCHEMA_VERSION}: use a newer setpoint"
        ),
        None => bail!("{key} does not say a version: {schema}"),
    }
}

/// Makes what is missing. Doing it again, or at once from two places, does no harm.
///
/// # Errors
/// When etcd does not answer, or the keyspace was made by a newer version of Setpoint.
pub(crate) async fn initialise(store: &SharedStore, keyspace: &Keyspace) -> Result<Initialised> {
    let client = Client::new(store.clone(), keyspace.clone());
    let mut created = Vec::new();
    let mut timeline = client.timeline().await?;
    let key = keyspace.build(&Key::Meta("schema"));
    put_if_absent(
        &client,
        &key,
        format!("version: {SCHEMA_VERSION}\n"),
        "meta/schema",
        &mut created,
        &mut timeline,
    )
    .await?;
    check_layout(store, keyspace).await?;
    let key = keyspace.build(&Key::Meta("cluster"));
    put_if_absent(
        &client,
        &key,
        format!("id: {}\n", new_id()?),
        "meta/cluster",
        &mut created,
        &mut timeline,
    )
    .await?;
    let cluster: serde_json::Value = read(store, &key).await?;
    let cluster_id = cluster["id"]
        .as_str()
        .with_context(|| format!("{key} has no id"))?
        .to_owned();
    for name in NAMESPACES {
        let key = keyspace.build(&Key::Desired("namespaces", ObjectKey::cluster(name)));
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n");
        put_if_absent(
            &client,
            &key,
            text,
            &format!("namespace/{name}"),
            &mut created,
            &mut timeline,
        )
        .await?;
    }
    Ok(Initialised {
        cluster_id,
        created,
    })
}

async fn put_if_absent(
    client: &Client,
    key: &str,
    value: String,
    what: &str,
    created: &mut Vec<String>,
    timeline: &mut Timeline,
) -> Result<()> {
    let mut txn = Txn::new().when(Compare::absent(key)).put(key, value);
    txn.then.push(client.clock_put(timeline));
    let result = client
        .txn(txn)
        .await
        .with_context(|| format!("creating {what}"))?;
    if result.succeeded {
        timeline.insert(result.revision.0, client.now());
        created.push(what.to_owned());
    }
    Ok(())
}

async fn read(store: &SharedStore, key: &str) -> Result<serde_json::Value> {
    let (kv, _) = store.get(key).await?;
    let kv = kv.with_context(|| format!("{key} was removed meanwhile"))?;
    document::decode_value(&kv.value).with_context(|| format!("reading {key}"))
}

/// A random UUID (version 4).
fn new_id() -> Result<String> {
    let n = u128::from_ne_bytes(random::bytes()?);
    let n = (n & !(0xf000_u128 << 64) & !(0xc000_u128 << 48))
        | (0x4000_u128 << 64)
        | (0x8000_u128 << 48);
    let hex = format!("{n:032x}");
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_4_and_differ() {
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        assert_ne!(a, b);
        let parts: Vec<usize> = a.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(
            a[14..].starts_with('4') && "89ab".contains(&a[19..20]),
            "{a}"
        );
    }
}
