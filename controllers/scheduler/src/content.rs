//! The ConfigMaps, Secrets and volume claims that the pods of a node use, projected into the node's work: which are there, which have
//! to be.
//!
//! Level-triggered per node and source: whatever happened, [`wanted`] compares what is used, what there is, and what was
//! written last. Of a claim a node is told only when it is the node that has, or is to have, its directory.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, PodSpec, Secret};
use setpoint_apis::records::WorkHeader;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::{Entry, View, Write};
use setpoint_store::{Compare, Put, TxnOp};

use crate::claims;

/// What can be projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    ConfigMap,
    Secret,
    Claim,
}

/// An object that can be projected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) kind: SourceKind,
    pub(crate) object: ObjectKey,
}

impl Source {
    pub(crate) fn of(plural: &str, object: &ObjectKey) -> Option<Self> {
        let kind = match plural {
            ConfigMap::PLURAL => SourceKind::ConfigMap,
            Secret::PLURAL => SourceKind::Secret,
            PersistentVolumeClaim::PLURAL => SourceKind::Claim,
            _ => return None,
        };
        Some(Self {
            kind,
            object: object.clone(),
        })
    }

    pub(crate) fn plural(&self) -> &'static str {
        match self.kind {
            SourceKind::ConfigMap => ConfigMap::PLURAL,
            SourceKind::Secret => Secret::PLURAL,
            SourceKind::Claim => PersistentVolumeClaim::PLURAL,
        }
    }
}

/// What a pod uses, by name within its namespace.
pub(crate) type Uses = Arc<[(SourceKind, Arc<str>)]>;

/// What pods with this spec use.
pub(crate) fn uses(spec: &PodSpec) -> Uses {
    let config_maps = spec
        .config_maps()
        .into_keys()
        .map(|n| (SourceKind::ConfigMap, Arc::from(n)));
    let secrets = spec
        .secrets()
        .into_keys()
        .map(|n| (SourceKind::Secret, Arc::from(n)));
    let pull = spec
        .image_pull_secrets
        .iter()
        .filter(|r| !r.name.is_empty());
    let pull = pull.map(|r| (SourceKind::Secret, Arc::from(r.name.as_str())));
    let claims = spec.claim_names().into_iter();
    let claims = claims.map(|n| (SourceKind::Claim, Arc::from(n)));
    let objects = config_maps.chain(secrets).chain(pull);
    let mut all: Vec<_> = objects.chain(claims).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// A source on a node.
pub(crate) type Place = (Arc<str>, Source);

/// What is known of a source on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Projection {
    /// How many pods there use it.
    users: u32,
    /// The source's revision that was written there last; 0 when it cannot be read any more.
    written: Option<i64>,
    /// The store's revision when that was written.
    changed_at: i64,
    /// A write is under way.
    busy: bool,
    /// Something changed meanwhile.
    again: bool,
    failures: u32,
}

/// What to do about a source on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentStep {
    Rest,
    /// Write the source as of this revision.
    Put(i64),
    Delete,
}

/// The state of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceState {
    Absent,
    /// It does not parse: what was written stays.
    Frozen,
    At(i64),
}

/// Where a pod is of which nobody knows what it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Somewhere {
    /// On this node.
    On(Arc<str>),
    /// Its binding cannot be read.
    Anywhere,
}

/// Decides about one source on one node. `unknown`: whether there are pods of which it is not known what they use.
pub(crate) fn wanted(
    users: u32,
    unknown: bool,
    source: SourceState,
    written: Option<i64>,
) -> ContentStep {
    match (users, source, written) {
        (0, _, Some(_)) if unknown => ContentStep::Rest,
        (0, _, Some(_)) | (1.., SourceState::Absent, Some(_)) => ContentStep::Delete,
        (1.., SourceState::At(revision), written) if written != Some(revision) => {
            ContentStep::Put(revision)
        }
        _ => ContentStep::Rest,
    }
}

/// A write about a projection, and what it makes of it.
#[derive(Debug)]
pub(crate) struct ContentWrite {
    pub(crate) place: Place,
    pub(crate) write: Write,
    pub(crate) written: Option<i64>,
}

/// The account of all projections.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    projections: FxHashMap<Place, Projection>,
    nodes: FxHashMap<Source, FxHashSet<Arc<str>>>,
    dirty: FxHashSet<Place>,
    /// How many pods there are on each node of which it is not known what they use, or of which not even the node is.
    unknown: FxHashMap<Arc<str>, u32>,
    unknown_anywhere: u32,
    /// What would be deleted but for those.
    held: FxHashMap<Arc<str>, FxHashSet<Place>>,
    /// Claims that are used on nodes of which they are not.
    misplaced: FxHashSet<ObjectKey>,
}

impl Contents {
    /// A projection that is found in the store.
    pub(crate) fn found(&mut self, place: Place, source_revision: i64) {
        self.change(place, |p| p.written = Some(source_revision));
    }

    /// A pod that uses something is on a node.
    pub(crate) fn add(&mut self, node: &Arc<str>, namespace: &Arc<str>, uses: &Uses) {
        self.count(node, namespace, uses, |users| users + 1);
    }

    /// It is no longer.
    pub(crate) fn remove(&mut self, node: &Arc<str>, namespace: &Arc<str>, uses: &Uses) {
        self.count(node, namespace, uses, |users| users.saturating_sub(1));
    }

    /// A pod of which it is not known what it uses is somewhere: nothing is taken away that it may use.
    pub(crate) fn add_unknown(&mut self, pod: &Somewhere) {
        match pod {
            Somewhere::On(node) => *self.unknown.entry(node.clone()).or_default() += 1,
            Somewhere::Anywhere => self.unknown_anywhere += 1,
        }
    }

    /// It is no longer, or it is known by now.
    pub(crate) fn remove_unknown(&mut self, pod: &Somewhere) {
        match pod {
            Somewhere::On(node) => {
                if let Some(count) = self.unknown.get_mut(node) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.unknown.remove(node);
                        self.dirty
                            .extend(self.held.remove(node).into_iter().flatten());
                    }
                }
            }
            Somewhere::Anywhere => {
                self.unknown_anywhere = self.unknown_anywhere.saturating_sub(1);
                if self.unknown_anywhere == 0 {
                    self.dirty
                        .extend(std::mem::take(&mut self.held).into_values().flatten());
                }
            }
        }
    }

    /// What to do about a projection, which is noted when it is held back.
    fn step(&mut self, place: &Place, source: SourceState) -> ContentStep {
        let Some(projection) = self.projections.get(place) else {
            return ContentStep::Rest;
        };
        let unknown = self.unknown_anywhere > 0 || self.unknown.contains_key(&place.0);
        if unknown && projection.users == 0 && projection.written.is_some() {
            self.held
                .entry(place.0.clone())
                .or_default()
                .insert(place.clone());
        }
        wanted(projection.users, unknown, source, projection.written)
    }

    /// A source changed.
    pub(crate) fn source_changed(&mut self, source: &Source) {
        for node in self.nodes.get(source).into_iter().flatten() {
            self.dirty.insert((node.clone(), source.clone()));
        }
    }

    /// Somebody else deleted a projection, at this revision of the store.
    pub(crate) fn deleted(&mut self, place: Place, at: i64) {
        let Some(projection) = self.projections.get_mut(&place) else {
            return;
        };
        if projection.busy {
            projection.again = true;
        } else {
            projection.written = None;
            projection.changed_at = at;
            self.dirty.insert(place);
        }
    }

    /// Whether pods that are bound, or are about to be, use a source.
    pub(crate) fn is_used(&self, source: &Source) -> bool {
        let mut nodes = self.nodes.get(source).into_iter().flatten();
        nodes.any(|node| {
            let place = (node.clone(), source.clone());
            self.projections.get(&place).is_some_and(|p| p.users > 0)
        })
    }

    /// The claims that were found to be used where they are not, since the last call.
    pub(crate) fn take_misplaced(&mut self) -> FxHashSet<ObjectKey> {
        std::mem::take(&mut self.misplaced)
    }

    /// Looks at a projection again.
    pub(crate) fn touch(&mut self, place: Place) {
        self.dirty.insert(place);
    }

    /// Whether there is something to look at.
    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Plans at most `limit` writes.
    pub(crate) fn plan(
        &mut self,
        view: &View<'_>,
        keyspace: &Keyspace,
        limit: usize,
    ) -> Vec<ContentWrite> {
        let mut writes = Vec::new();
        let mut texts = FxHashMap::default();
        let mut later = FxHashSet::default();
        for place in std::mem::take(&mut self.dirty) {
            if writes.len() >= limit {
                later.insert(place);
                continue;
            }
            let Some(projection) = self.projections.get_mut(&place) else {
                continue;
            };
            if projection.busy {
                projection.again = true;
                continue;
            }
            let source = &place.1;
            let state = state(view, &place);
            let step = self.step(&place, state);
            let Some(projection) = self.projections.get_mut(&place) else {
                continue;
            };
            let claim = source.kind == SourceKind::Claim;
            if claim && projection.users > 0 && state == SourceState::Absent {
                self.misplaced.insert(source.object.clone());
            }
            let key = keyspace.build(&Key::WorkContent(
                &place.0,
                source.plural(),
                source.object.clone(),
            ));
            match step {
                ContentStep::Rest => {
                    if projection.users == 0 && projection.written.is_none() {
                        self.forget(&place);
                    }
                }
                ContentStep::Put(revision) => {
                    let value = texts
                        .entry(source.clone())
                        .or_insert_with(|| text(view, source))
                        .clone();
                    let desired =
                        keyspace.build(&Key::Desired(source.plural(), source.object.clone()));
                    projection.busy = true;
                    let write = Write {
                        guards: vec![Compare::ModRevision(desired, revision)],
                        ops: vec![TxnOp::Put(Put {
                            key,
                            value,
                            lease: None,
                        })],
                        context: format!(
                            "{} {} for node {}",
                            source.plural(),
                            source.object,
                            place.0
                        ),
                    };
                    writes.push(ContentWrite {
                        place,
                        write,
                        written: Some(revision),
                    });
                }
                ContentStep::Delete => {
                    projection.busy = true;
                    let write = Write {
                        guards: Vec::new(),
                        ops: vec![TxnOp::Delete(key)],
                        context: format!(
                            "removal of {} {} from node {}",
                            source.plural(),
                            source.object,
                            place.0
                        ),
                    };
                    writes.push(ContentWrite {
                        place,
                        write,
                        written: None,
                    });
                }
            }
        }
        self.dirty = later;
        writes
    }

    /// A write was carried out.
    pub(crate) fn committed(&mut self, place: &Place, written: Option<i64>, at: i64) {
        if let Some(projection) = self.projections.get_mut(place) {
            // Looked at once more in any case: the source or the users may have changed meanwhile.
            *projection = Projection {
                written,
                changed_at: at,
                busy: false,
                again: false,
                failures: 0,
                ..*projection
            };
            self.dirty.insert(place.clone());
        }
    }

    /// A write was not carried out. Returns how often in a row.
    pub(crate) fn failed(&mut self, place: &Place) -> u32 {
        let Some(projection) = self.projections.get_mut(place) else {
            return 0;
        };
        projection.busy = false;
        projection.failures = projection.failures.saturating_add(1);
        if std::mem::take(&mut projection.again) {
            self.dirty.insert(place.clone());
        }
        projection.failures
    }

    /// Compares with what is in the store as of `revision`, and corrects the account. Returns how often.
    pub(crate) fn audit(&mut self, found: &FxHashMap<Place, i64>, revision: i64) -> usize {
        let mut wrong: Vec<(Place, Option<i64>)> = Vec::new();
        for (place, projection) in &self.projections {
            let written = found.get(place).copied();
            if !projection.busy
                && projection.changed_at <= revision
                && projection.written != written
            {
                wrong.push((place.clone(), written));
            }
        }
        let unknown = found
            .iter()
            .filter(|(place, _)| !self.projections.contains_key(*place));
        wrong.extend(unknown.map(|(place, written)| (place.clone(), Some(*written))));
        let count = wrong.len();
        for (place, written) in wrong {
            self.change(place, |p| p.written = written);
        }
        count
    }

    fn count(&mut self, node: &Arc<str>, namespace: &Arc<str>, uses: &Uses, apply: fn(u32) -> u32) {
        for (kind, name) in uses.iter() {
            let object = ObjectKey {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            self.change(
                (
                    node.clone(),
                    Source {
                        kind: *kind,
                        object,
                    },
                ),
                |p| p.users = apply(p.users),
            );
        }
    }

    fn change(&mut self, place: Place, apply: impl FnOnce(&mut Projection)) {
        apply(self.projections.entry(place.clone()).or_default());
        self.nodes
            .entry(place.1.clone())
            .or_default()
            .insert(place.0.clone());
        self.dirty.insert(place);
    }

    fn forget(&mut self, place: &Place) {
        self.projections.remove(place);
        if let Some(nodes) = self.nodes.get_mut(&place.1) {
            nodes.remove(&place.0);
            if nodes.is_empty() {
                self.nodes.remove(&place.1);
            }
        }
    }
}

fn state(view: &View<'_>, (node, source): &Place) -> SourceState {
    fn of<K: Kind>(entry: Option<&Entry<K>>) -> SourceState {
        match entry {
            None => SourceState::Absent,
            Some(entry) => entry
                .valid()
                .map_or(SourceState::Frozen, |s| SourceState::At(s.mod_revision)),
        }
    }
    match source.kind {
        SourceKind::ConfigMap => of(view.desired::<ConfigMap>().entry(&source.object)),
        SourceKind::Secret => of(view.desired::<Secret>().entry(&source.object)),
        SourceKind::Claim => {
            let key = &source.object;
            let claims = view.desired::<PersistentVolumeClaim>();
            let here = claims.get(key).map(|c| claims::is_on(view, key, c, node));
            match here {
                Some(Some(false)) => SourceState::Absent,
                Some(None) => SourceState::Frozen,
                Some(Some(true)) | None => of(claims.entry(key)),
            }
        }
    }
}

/// The document as it is written for nodes.
fn text(view: &View<'_>, source: &Source) -> bytes::Bytes {
    fn of<K: Kind>(table: &setpoint_runtime::cache::Table<K>, key: &ObjectKey) -> String {
        let Some(stored) = table.get(key) else {
            return String::new();
        };
        let header = WorkHeader {
            placement: None,
            uid: stored.uid(),
            source_revision: stored.mod_revision,
        };
        let mut value = stored.value.clone();
        if K::PLURAL == PersistentVolumeClaim::PLURAL {
            // The directory is called after it, and what an agent keeps of content is the document alone.
            value.metadata_mut().uid = Some(header.uid.clone());
        }
        document::encode_work(&header, &document::encode(&value))
    }
    match source.kind {
        SourceKind::ConfigMap => of(view.desired::<ConfigMap>(), &source.object),
        SourceKind::Secret => of(view.desired::<Secret>(), &source.object),
        SourceKind::Claim => of(view.desired::<PersistentVolumeClaim>(), &source.object),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_there_exactly_while_it_is_used_and_as_new_as_its_source() {
        use ContentStep::{Delete, Put, Rest};
        use SourceState::{Absent, At, Frozen};
        for (users, source, written, step) in [
            (0, Absent, None, Rest),
            (0, At(5), None, Rest),
            (0, At(5), Some(5), Delete),
            (0, Frozen, Some(5), Delete),
            (1, At(5), None, Put(5)),
            (2, At(5), Some(5), Rest),
            (2, At(6), Some(5), Put(6)),
            (2, At(6), Some(0), Put(6)),
            (1, Absent, None, Rest),
            (1, Absent, Some(5), Delete),
            (1, Frozen, None, Rest),
            (1, Frozen, Some(5), Rest),
        ] {
            let shown = format!("{users} {source:?} {written:?}");
            assert_eq!(wanted(users, false, source, written), step, "{shown}");
            let careful = if users == 0 { Rest } else { step };
            assert_eq!(wanted(users, true, source, written), careful, "{shown}");
        }
    }

    #[test]
    fn nothing_is_taken_away_that_a_pod_may_use_of_which_nothing_is_known() {
        use ContentStep::{Delete, Rest};
        let place = |node: &str| {
            let object = ObjectKey::namespaced("default", "settings");
            let kind = SourceKind::ConfigMap;
            (Arc::from(node), Source { kind, object })
        };
        let mut contents = Contents::default();
        contents.found(place("n1"), 5);
        contents.found(place("n2"), 5);
        let steps = |contents: &mut Contents| {
            contents.dirty.clear();
            [place("n1"), place("n2")].map(|p| contents.step(&p, SourceState::At(5)))
        };
        let on = Somewhere::On("n1".into());
        contents.add_unknown(&on);
        contents.add_unknown(&on);
        assert_eq!(steps(&mut contents), [Rest, Delete]);
        contents.remove_unknown(&on);
        assert_eq!(steps(&mut contents), [Rest, Delete]);
        contents.remove_unknown(&on);
        assert_eq!(contents.dirty, FxHashSet::from_iter([place("n1")]));
        assert_eq!(steps(&mut contents), [Delete, Delete]);

        contents.add_unknown(&Somewhere::Anywhere);
        contents.add_unknown(&on);
        assert_eq!(steps(&mut contents), [Rest, Rest]);
        contents.remove_unknown(&Somewhere::Anywhere);
        assert_eq!(
            contents.dirty,
            FxHashSet::from_iter([place("n1"), place("n2")])
        );
        assert_eq!(steps(&mut contents), [Rest, Delete]);
        contents.remove_unknown(&on);
        assert_eq!(steps(&mut contents), [Delete, Delete]);
        assert!(contents.held.is_empty() && contents.unknown.is_empty());
    }

    #[test]
    fn a_pod_uses_what_it_mounts_reads_and_pulls_with() {
        let spec: PodSpec = document::decode_value(
            b"containers:\n\
              - {name: a, envFrom: [{configMapRef: {name: c1}}, {secretRef: {name: s1}}],\n   env: [{name: X, valueFrom: {configMapKeyRef: {name: c2, key: k}}}]}\n\
              initContainers: [{name: i, env: [{name: X, valueFrom: {secretKeyRef: {name: s2, key: k}}}]}]\n\
              imagePullSecrets: [{name: s3}, {name: s1}]\n\
              volumes:\n\
              - {name: v, configMap: {name: c3}}\n\
              - {name: w, secret: {secretName: s4}}\n\
              - {name: x, projected: {sources: [{configMap: {name: c4}}, {secret: {name: s5}}]}}\n",
        )
        .unwrap();
        let names: Vec<_> = uses(&spec).iter().map(|(_, n)| n.to_string()).collect();
        assert_eq!(
            names,
            ["c1", "c2", "c3", "c4", "s1", "s2", "s3", "s4", "s5"]
        );
    }
}
