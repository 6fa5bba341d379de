//! Which documents go into one transaction, and what it holds to.
//!
//! # Guarantee
//! Nothing becomes true in a namespace that is gone: a transaction that writes in one holds only while it exists, unless
//! it writes the namespace itself.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use setpoint_apis::registry::Registry;
use setpoint_apis::strict::Document;
use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_store::{Compare, KeyValue, Put, Txn, TxnOp};

use super::door::Guards;
use super::plan::Verdict;

/// How many operations, and how many guards, etcd takes in one transaction.
const OPERATIONS: usize = 128;

/// How many objects go into one transaction.
const MAX_OBJECTS: usize = 120;

/// How many bytes of keys and values go into one transaction. etcd takes 1.5 MiB per request.
const MAX_BYTES: usize = 1_536 * 1024 - 16 * 1024;

/// About how many bytes the keys of a namespace's guard have.
const GUARD_BYTES: usize = 256;

/// What goes into one transaction.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    /// The places of the documents.
    documents: Vec<usize>,
    /// The namespaces that they are in.
    pub(super) spaces: BTreeSet<&'a str>,
    /// The namespaces that are among them.
    made: BTreeSet<&'a str>,
    size: Size,
}

/// What of etcd's limits is used.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    compares: usize,
    puts: usize,
    bytes: usize,
}

/// One transaction for everything that is to be written, or several when that was asked for. Each has room for one more
/// operation.
///
/// # Errors
/// When it needs several and `split` is not set.
pub(super) fn chunks<'a>(
    keyspace: &Keyspace,
    documents: &'a [Document],
    verdicts: &[Verdict],
    guards: &Guards,
    split: bool,
) -> Result<Vec<Chunk<'a>>> {
    let mut order: Vec<usize> = (0..documents.len())
        .filter(|i| verdicts[*i] != Verdict::Unchanged)
        .collect();
    // Namespaces first, and pods before what counts them, so that a part of it makes sense by itself.
    let rank = |d: &Document| {
        Registry::builtin()
            .kinds()
            .iter()
            .position(|k| k.plural == d.kind.plural)
    };
    order.sort_by_key(|i| rank(&documents[*i]));
    let mut chunks: Vec<Chunk<'a>> = Vec::new();
    for &i in &order {
        let document = &documents[i];
        let has_room = |c: &Chunk<'a>| c.has_room(c.size_with(keyspace, document, guards));
        if !chunks.last().is_some_and(has_room) {
            chunks.push(Chunk::default());
        }
        if let Some(last) = chunks.last_mut() {
            last.size = last.size_with(keyspace, document, guards);
            last.documents.push(i);
            last.spaces.extend(namespace_of(document));
            if document.kind.plural == "namespaces" {
                last.made.insert(&document.key.name);
            }
        }
    }
    let bytes: usize = chunks.iter().map(|c| c.size.bytes).sum();
    if !split && (chunks.len() > 1 || bytes > MAX_BYTES) {
        let spaces: BTreeSet<&str> = chunks.iter().flat_map(|c| c.spaces.clone()).collect();
        bail!(
            "{} objects in {} namespaces with {} KiB are more than etcd takes in one transaction (about {MAX_OBJECTS} objects, \
             fewer in many namespaces, 1.5 MiB), so they cannot become true at one revision; --split writes them in several \
             transactions",
            order.len(),
            spaces.len().max(1),
            bytes / 1024
        );
    }
    Ok(chunks)
}

fn namespace_of(document: &Document) -> Option<&str> {
    document.kind.namespaced.then_some(&*document.key.namespace)
}

fn key(keyspace: &Keyspace, document: &Document) -> String {
    keyspace.build(&Key::Desired(document.kind.plural, document.key.clone()))
}

impl Chunk<'_> {
    /// What it has with one more document.
    fn size_with(&self, keyspace: &Keyspace, document: &Document, guards: &Guards) -> Size {
        let mut size = self.size;
        size.compares += 1;
        size.puts += 1;
        size.bytes += document.text.len() + 2 * key(keyspace, document).len();
        if let Some(space) = namespace_of(document).filter(|s| !self.spaces.contains(s)) {
            let (mut compares, mut puts) = (usize::from(!self.made.contains(space)), 0);
            if let Some(guard) = guards.of(space) {
                compares += guard.compares.len();
                puts += guard.puts.len();
            }
            size.compares += compares;
            size.puts += puts;
            size.bytes += (compares + puts) * GUARD_BYTES;
        }
        size
    }

    /// Whether it takes one more document, and is as large as told then.
    fn has_room(&self, then: Size) -> bool {
        self.documents.len() < MAX_OBJECTS
            && then.compares <= OPERATIONS
            && then.puts < OPERATIONS
            && then.bytes <= MAX_BYTES
    }

    /// The transaction that writes it over what is stored.
    pub(super) fn txn(
        &self,
        keyspace: &Keyspace,
        documents: &[Document],
        stored: &[Option<KeyValue>],
        guards: &Guards,
    ) -> Txn {
        let mut txn = Txn::new();
        for &i in &self.documents {
            let key = key(keyspace, &documents[i]);
            txn.compares.push(Compare::ModRevision(
                key.clone(),
                stored[i].as_ref().map_or(0, |kv| kv.mod_revision),
            ));
            txn.then.push(TxnOp::Put(Put {
                key,
                value: documents[i].text.clone().into(),
                lease: None,
            }));
        }
        for &space in &self.spaces {
            if !self.made.contains(space) {
                let namespace = Key::Desired("namespaces", ObjectKey::cluster(space));
                txn.compares
                    .push(Compare::Exists(keyspace.build(&namespace)));
            }
            if let Some(guard) = guards.of(space) {
                txn.compares.extend(guard.compares.iter().cloned());
                txn.then.extend(guard.puts.iter().cloned());
            }
        }
        txn
    }
}

#[cfg(test)]
mod tests {
    use super::super::door::Guard;
    use super::*;

    fn document(plural: &str, key: ObjectKey) -> Document {
        Document {
            kind: *Registry::builtin().by_plural(plural).unwrap(),
            key,
            generate_name: None,
            text: "text".into(),
            value: serde_json::Value::Null,
            source: "-".into(),
            line: 1,
        }
    }

    fn exists(keyspace: &Keyspace, name: &str) -> Compare {
        let key = Key::Desired("namespaces", ObjectKey::cluster(name));
        Compare::Exists(keyspace.build(&key))
    }

    #[test]
    fn what_is_written_holds_to_its_namespace_unless_that_is_written_with_it() {
        let keyspace = Keyspace::default();
        let documents = [
            document("configmaps", ObjectKey::namespaced("team", "a")),
            document("namespaces", ObjectKey::cluster("team")),
        ];
        let stored = [None, None];
        let guards = Guards::default();
        for (of_namespace, guarded) in [(Verdict::Unchanged, true), (Verdict::Created, false)] {
            let verdicts = [Verdict::Created, of_namespace];
            let chunks = chunks(&keyspace, &documents, &verdicts, &guards, false).unwrap();
            assert_eq!(chunks.len(), 1);
            let txn = chunks[0].txn(&keyspace, &documents, &stored, &guards);
            let found = txn.compares.contains(&exists(&keyspace, "team"));
            assert_eq!(found, guarded, "{of_namespace:?}");
        }
    }

    #[test]
    fn each_transaction_has_the_guards_of_its_own_namespaces_and_no_more_than_etcd_takes() {
        let keyspace = Keyspace::default();
        let mut documents = Vec::new();
        let mut guards = Guards::default();
        for i in 0..300 {
            let name = format!("n{i}");
            documents.push(document("namespaces", ObjectKey::cluster(name.as_str())));
            let map = ObjectKey::namespaced(name.as_str(), "a");
            documents.push(document("configmaps", map));
            let guard = Guard {
                compares: vec![exists(&keyspace, &format!("guard-of-{name}")); i % 4],
                puts: vec![TxnOp::Delete(format!("mark-of-{name}")); i % 2],
            };
            guards.0.insert(name, guard);
        }
        let stored = vec![None; documents.len()];
        let verdicts = vec![Verdict::Created; documents.len()];
        assert!(chunks(&keyspace, &documents, &verdicts, &guards, false).is_err());
        let chunks = chunks(&keyspace, &documents, &verdicts, &guards, true).unwrap();
        let mut places = Vec::new();
        for chunk in &chunks {
            let txn = chunk.txn(&keyspace, &documents, &stored, &guards);
            assert_eq!(txn.compares.len(), chunk.size.compares);
            assert_eq!(txn.then.len(), chunk.size.puts);
            assert!(txn.compares.len() <= OPERATIONS && txn.then.len() < OPERATIONS);
            for &i in &chunk.documents {
                let Some(space) = namespace_of(&documents[i]) else {
                    continue;
                };
                // The namespaces fill the transactions before.
                let guarded = txn.compares.contains(&exists(&keyspace, space));
                assert_ne!(guarded, chunk.made.contains(space), "{space}");
                let guard = guards.of(space).unwrap();
                assert!(guard.compares.iter().all(|c| txn.compares.contains(c)));
                assert!(guard.puts.iter().all(|p| txn.then.contains(p)));
            }
            places.extend(chunk.documents.clone());
        }
        places.sort_unstable();
        assert!(places.into_iter().eq(0..documents.len()));
    }
}
