//! The writes of an object that manages pods: each holds only while the object and the pod are as they were seen.

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use setpoint_apis::core::{Namespace, PersistentVolumeClaim, Pod, PodTemplateSpec};
use setpoint_apis::{Key, Kind, ObjectKey, OwnerReference};
use setpoint_runtime::events::EventRef;
use setpoint_runtime::{Leader, Stored, Write};
use setpoint_store::{Compare, StoreError, TxnOp};
use tracing::info;

use crate::Shared;
use crate::documents::controller_reference;
use crate::door::{Admission, Asked, Doors, Furnished, Together};
use crate::reown::{self, ReadRaw};
use crate::seen::Seen;
use crate::writes::{self, Tally};

/// Pods that are created in one go. When the store refuses some of them the rest is not tried.
const BATCH: usize = 2_500;
/// Batches that are under way at a time: one fills the line while what is made of the one before is being looked at.
const BATCHES: usize = 2;
/// Up to so many pods are named in events, each in its own.
const EVENTS: usize = 10;

/// Why a pass did not do all that it had planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused a write. It is tried again with backoff, and the status or an event says so.
    #[error("{refused} writes were refused")]
    Refused {
        /// How many.
        refused: usize,
        /// The first refusal.
        #[source]
        source: StoreError,
    },
    /// The raw document of a pod, to change its owners, could not be read.
    #[error(transparent)]
    Read(#[from] ReadRaw),
}

/// What became of creates.
pub(crate) struct Created {
    /// `false` when nothing more may be written on this snapshot.
    pub(crate) go_on: bool,
    /// Why the last of them did not succeed: reason and sentence.
    pub(crate) failure: Option<(String, String)>,
}

/// An object that manages pods, as it was seen.
pub(crate) struct Manager<'a> {
    shared: &'a Shared,
    leader: &'a Leader,
    kind: &'static str,
    key: &'a ObjectKey,
    own: Compare,
    reference: OwnerReference,
    about: EventRef,
}

impl<'a> Manager<'a> {
    pub(crate) fn new<K: Kind>(
        shared: &'a Shared,
        leader: &'a Leader,
        key: &'a ObjectKey,
        object: &Stored<K>,
    ) -> Self {
        let own = leader
            .keyspace()
            .build(&Key::Desired(K::PLURAL, key.clone()));
        Self {
            shared,
            leader,
            kind: K::KIND,
            key,
            own: Compare::ModRevision(own, object.mod_revision),
            reference: controller_reference::<K>(&key.name, &object.uid()),
            about: EventRef::stored(object),
        }
    }

    /// The reference that the pods carry.
    pub(crate) fn reference(&self) -> OwnerReference {
        self.reference.clone()
    }

    /// What events are about.
    pub(crate) fn about(&self) -> EventRef {
        self.about.clone()
    }

    /// Holds while the object is as it was seen.
    pub(crate) fn guard(&self) -> Compare {
        self.own.clone()
    }

    /// Holds while the object's namespace exists.
    pub(crate) fn namespace(&self) -> Compare {
        let namespace = ObjectKey::cluster(self.key.namespace.clone());
        Compare::Exists(self.desired::<Namespace>(&namespace))
    }

    /// A template with what the namespace gives to containers that do not say it.
    pub(crate) fn furnished<'t>(&self, template: &'t PodTemplateSpec) -> Furnished<'t> {
        Doors::furnished(&self.leader.cache().view(), &self.key.namespace, template)
    }

    /// Asks the namespace whether it lets so many objects in.
    pub(crate) async fn enter(
        &self,
        asked: &Asked<'_>,
        count: usize,
    ) -> Result<Admission<'a>, StoreError> {
        let by = (self.kind, self.key);
        self.shared.doors.enter(self.leader, by, asked, count).await
    }

    /// As [`Self::enter`], for objects that are of use together alone.
    pub(crate) async fn enter_together(
        &self,
        asked: &[(Asked<'_>, usize)],
    ) -> Result<Together<'a>, StoreError> {
        let by = (self.kind, self.key);
        self.shared
            .doors
            .enter_together(self.leader, by, asked)
            .await
    }

    /// What has been turned away; says so once. Not what others may only seem to have taken: that is asked for again.
    pub(crate) fn turned_away(
        &self,
        tally: &mut Tally,
        door: &Admission<'_>,
    ) -> Option<(String, String)> {
        let refusal = door.refusal.clone()?;
        if door.is_contested {
            tally.contested = true;
            return None;
        }
        if door.is_news {
            info!(object = %self.key, reason = %refusal, "the namespace lets nothing more in");
            let recorder = &self.shared.recorder;
            recorder.warning(self.about(), "FailedCreate", refusal.clone());
            tally.turned_away = true;
        }
        Some(("FailedCreate".to_owned(), refusal))
    }

    /// The object waits for something that it was refused, whatever else it has got since.
    pub(crate) fn still_waits(&self, refusal: &str) {
        let by = (self.kind, self.key);
        self.shared.doors.wait(by, refusal);
    }

    /// The key of what is wanted of an object.
    pub(crate) fn desired<K: Kind>(&self, key: &ObjectKey) -> String {
        let key = Key::Desired(K::PLURAL, key.clone());
        self.leader.keyspace().build(&key)
    }

    fn pod_key(&self, pod: &ObjectKey) -> String {
        self.desired::<Pod>(pod)
    }

    /// Puts pods under the object, or takes them out. `false` when nothing more may be written on this snapshot.
    pub(crate) async fn change_owner(
        &self,
        tally: &mut Tally,
        pods: &[Seen],
        adopts: bool,
    ) -> Result<bool, ReadRaw> {
        let verb = if adopts { "adopt" } else { "release" };
        for pods in pods.chunks(BATCH) {
            let change = |owners: &mut Vec<OwnerReference>| {
                owners.retain(|r| r.uid != self.reference.uid);
                owners.extend(adopts.then(|| self.reference()));
            };
            let own = self.guard();
            let writes = reown::writes::<Pod>(self.leader, pods, &own, verb, change).await?;
            // What is another by now is looked at again, though the cache may say nothing of it that matters.
            tally.conflicts += pods.len() - writes.len();
            info!(object = %self.key, pods = writes.len(), verb, "changing the owner of pods");
            if !tally.commit(self.leader, writes).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes pods. `false` when nothing more may be written on this snapshot.
    pub(crate) async fn delete(&self, tally: &mut Tally, pods: &[&Seen]) -> bool {
        self.delete_when(tally, pods, |_| None).await
    }

    /// Deletes pods, each while one thing more is so. `false` when nothing more may be written on this snapshot.
    pub(crate) async fn delete_when(
        &self,
        tally: &mut Tally,
        pods: &[&Seen],
        more: impl Fn(&Seen) -> Option<Compare>,
    ) -> bool {
        let alone: Vec<(&Seen, &[Seen])> = pods.iter().map(|pod| (*pod, &[][..])).collect();
        self.delete_all(tally, &alone, more).await
    }

    /// As [`Self::delete`]; each pod goes together with claims, or neither does.
    pub(crate) async fn delete_with_claims(
        &self,
        tally: &mut Tally,
        pods: &[(&Seen, &[Seen])],
    ) -> bool {
        self.delete_all(tally, pods, |_| None).await
    }

    async fn delete_all(
        &self,
        tally: &mut Tally,
        pods: &[(&Seen, &[Seen])],
        more: impl Fn(&Seen) -> Option<Compare>,
    ) -> bool {
        let deletes = pods.iter().map(|(pod, claims)| {
            let claims = claims.iter().map(|claim| {
                let key = self.desired::<PersistentVolumeClaim>(&claim.key);
                (key, claim.mod_revision)
            });
            let own = (self.pod_key(&pod.key), pod.mod_revision);
            let gone: Vec<(String, i64)> = [own].into_iter().chain(claims).collect();
            let guards = gone.iter().cloned();
            let guards = guards.map(|(key, revision)| Compare::ModRevision(key, revision));
            Write {
                guards: guards.chain([self.guard()]).chain(more(pod)).collect(),
                ops: gone
                    .into_iter()
                    .map(|(key, _)| TxnOp::Delete(key))
                    .collect(),
                context: format!("delete pod {}", pod.key),
            }
        });
        let deletes: Vec<Write> = deletes.collect();
        if deletes.is_empty() {
            return true;
        }
        let before = tally.committed;
        let go_on = tally.commit(self.leader, deletes).await;
        let deleted = tally.committed - before;
        if deleted > 0 {
            info!(object = %self.key, pods = deleted, "deleted pods");
            let names: Vec<&str> = pods.iter().map(|(pod, _)| &*pod.key.name).collect();
            self.tell("SuccessfulDelete", "Deleted pod", deleted, &names);
        }
        go_on
    }

    /// Creates pods of these names, as many as the namespace lets in, a batch at a time; those that remain are not tried
    /// when some are refused.
    pub(crate) async fn create(
        &self,
        tally: &mut Tally,
        names: &[String],
        asked: &Asked<'_>,
        document: impl Fn(&str) -> String,
    ) -> Created {
        let namespace = self.namespace();
        let mut created = Created {
            go_on: true,
            failure: None,
        };
        let door = match self.enter(asked, names.len()).await {
            Ok(door) => door,
            Err(error) => {
                created.failure = Some(("FailedCreate".to_owned(), error.to_string()));
                tally.refuse(error);
                return created;
            }
        };
        let names = &names[..door.allowed.min(names.len())];
        let mut batches = names.chunks(BATCH);
        let mut under_way = FuturesOrdered::new();
        let mut stopped = false;
        loop {
            // Each is waited for, whatever becomes of the others: a write whose outcome nobody takes is fenced off.
            while !stopped && under_way.len() < BATCHES {
                let Some(batch) = batches.next() else {
                    break;
                };
                let writes = batch.iter().map(|name| {
                    let pod = ObjectKey::namespaced(self.key.namespace.clone(), name.as_str());
                    let key = self.pod_key(&pod);
                    let guards = [
                        Compare::absent(key.clone()),
                        self.guard(),
                        namespace.clone(),
                    ];
                    Write {
                        guards: guards.into_iter().chain(door.guard.clone()).collect(),
                        ops: vec![writes::put(key, document(name))],
                        context: format!("create pod {pod}"),
                    }
                });
                let (leader, writes) = (self.leader, writes.collect());
                under_way.push_back(async move { (batch, leader.commit(writes).await) });
            }
            let Some((batch, outcomes)) = under_way.next().await else {
                break;
            };
            let before = (tally.committed, tally.refused);
            let go_on = tally.count(outcomes);
            created.go_on &= go_on;
            let done = tally.committed - before.0;
            if done > 0 {
                info!(object = %self.key, pods = done, "created pods");
                let names: Vec<&str> = batch.iter().map(String::as_str).collect();
                self.tell("SuccessfulCreate", "Created pod", done, &names);
            }
            let failed = tally.refused > before.1;
            if failed && let Some(error) = &tally.first_error {
                let (reason, message) = ("FailedCreate".to_owned(), error.to_string());
                let recorder = &self.shared.recorder;
                recorder.warning(self.about(), reason.clone(), message.clone());
                created.failure = Some((reason, message));
            }
            stopped |= !go_on || failed || tally.conflicts > 0;
        }
        if stopped {
            return created;
        }
        created.failure = self.turned_away(tally, &door);
        if created.failure.is_none() {
            self.shared.doors.forget((self.kind, self.key));
        }
        created
    }

    fn tell(&self, reason: &'static str, verb: &str, count: usize, names: &[&str]) {
        let recorder = &self.shared.recorder;
        if count <= EVENTS && names.len() == count {
            for name in names {
                recorder.normal(self.about(), reason, format!("{verb}: {name}"));
            }
        } else {
            recorder.normal(self.about(), reason, format!("{verb}s: {count}"));
        }
    }
}
