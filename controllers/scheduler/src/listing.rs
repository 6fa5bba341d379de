//! What a new leader has to know of its predecessor's writes outside the cache: work keys, projected content, tombstones,
//! and the scheduling records.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use rustc_hash::FxHashMap;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{PodScheduling, WorkHeader};
use setpoint_apis::{Key, KeyRange, Keyspace, Kind, ObjectKey, document};
use setpoint_store::{KeyValue, RangeRequest, Revision, SharedStore, StoreError};
use std::sync::Arc;

use crate::content::{Place, Source};
use crate::decide::WorkCopy;
use crate::tombstones::Stone;
use crate::writes::Recorded;

/// Keys without values per page.
const KEYS: i64 = 10_000;
/// Keys with values per page: content can be large, and a message holds 4 MiB.
const VALUES: i64 = 500;
/// Nodes whose content is read at a time.
const NODES_AT_ONCE: usize = 16;

/// See the module. All of it as of one revision.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) revision: i64,
    pub(crate) work: FxHashMap<ObjectKey, Vec<WorkCopy>>,
    /// With the revision of the source; 0 where that cannot be read.
    pub(crate) content: FxHashMap<Place, i64>,
    pub(crate) records: FxHashMap<ObjectKey, Recorded>,
    /// The tombstones that stand, with their revisions.
    pub(crate) tombstones: BTreeMap<Stone, i64>,
}

/// Reads it.
pub(crate) async fn list(store: &SharedStore, keyspace: &Keyspace) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let mut nodes: FxHashMap<Arc<str>, ()> = FxHashMap::default();
    let mut pinned = None;
    each(
        store,
        keyspace.work_range(None),
        KEYS,
        true,
        &mut pinned,
        |kv| match keyspace.split(&kv.key) {
            Ok(Key::WorkPod(node, pod)) => {
                let copy = WorkCopy {
                    node: node.into(),
                    revision: kv.mod_revision,
                };
                listing.work.entry(pod).or_default().push(copy);
            }
            Ok(Key::WorkTombstone(node, name)) => {
                let stone = (node.into(), name.to_owned());
                listing.tombstones.insert(stone, kv.mod_revision);
            }
            Ok(Key::WorkContent(node, ..)) if !nodes.contains_key(node) => {
                nodes.insert(node.into(), ());
            }
            _ => {}
        },
    )
    .await?;
    let records = keyspace.actual_range(Pod::PLURAL, None);
    each(store, records, VALUES, false, &mut pinned, |kv| {
        if let Ok(Key::Actual(_, pod)) = keyspace.split(&kv.key) {
            // A record that cannot be read is one of ours that somebody broke: it is written anew when there is something
            // to say, and goes with the binding like any other.
            let record = document::decode_value::<PodScheduling>(&kv.value).unwrap_or_default();
            listing.records.insert(pod, Recorded::of(&record));
        }
    })
    .await?;
    let read = |node: Arc<str>| async move {
        let mut found = Vec::new();
        let mut at = pinned;
        // `pods/` sorts behind `content/`, so the range ends where the pods begin.
        let all = keyspace.work_range(Some(&node));
        let range = KeyRange {
            end: format!("{}pods/", all.start),
            start: all.start,
        };
        each(store, range, VALUES, false, &mut at, |kv| {
            if let Ok(Key::WorkContent(node, plural, object)) = keyspace.split(&kv.key)
                && let Some(source) = Source::of(plural, &object)
            {
                found.push(((Arc::from(node), source), source_revision(&kv.value)));
            }
        })
        .await?;
        Ok::<_, StoreError>(found)
    };
    let found: Vec<_> = stream::iter(nodes.into_keys().map(read))
        .buffer_unordered(NODES_AT_ONCE)
        .try_collect()
        .await?;
    listing.content = found.into_iter().flatten().collect();
    listing.revision = pinned.map_or(0, |r: Revision| r.0);
    Ok(listing)
}

/// Reads a range page by page, at one revision: the pinned one, or that of the first page, which is pinned then.
async fn each(
    store: &SharedStore,
    range: KeyRange,
    page_size: i64,
    keys_only: bool,
    pinned: &mut Option<Revision>,
    mut take: impl FnMut(&KeyValue),
) -> Result<(), StoreError> {
    let mut start = range.start;
    loop {
        let request = RangeRequest {
            start,
            end: range.end.clone(),
            limit: page_size,
            revision: *pinned,
            keys_only,
            count_only: false,
        };
        let page = store.range(request).await?;
        pinned.get_or_insert(page.revision);
        page.kvs.iter().for_each(&mut take);
        match page.kvs.last().filter(|_| page.more) {
            // The smallest key after the last one of this page.
            Some(last) => start = format!("{}\0", last.key),
            None => return Ok(()),
        }
    }
}

fn source_revision(value: &[u8]) -> i64 {
    document::split_work(value)
        .ok()
        .and_then(|(header, _)| document::decode_value::<WorkHeader>(header).ok())
        .map_or(0, |h| h.source_revision)
}
