//! Beginning a session: what etcd, the disk copy and the machine say this node has claimed, brought together.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use setpoint_apis::records::{ClaimFence, PodActual, WorkHeader};
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::StoreError;
use setpoint_store::list::{List, list_all};
use tracing::{info, warn};

use super::NodeLoop;
use crate::node::disk::{Claim, Disk};
use crate::node::session::Session;
use crate::node::state::{Local, Phase, State, Work, is_current, stale};
use crate::workload::{Begin, PodWork};

impl NodeLoop {
    /// The work of this session is listed. What etcd, the disk and the machine say this node has claimed is brought
    /// together; what is no longer its own is marked to be gone before anything is claimed.
    pub(super) async fn begin_session(
        &mut self,
        session: &Session,
        adopted: &mut bool,
    ) -> Result<(), StoreError> {
        self.note_records().await?;
        self.resume_fence(session, *adopted).await?;
        if !*adopted {
            self.adopt_from_disk();
            *adopted = true;
        }
        self.adopt_work();
        // Whatever else has left files here has no record to delete.
        let known = self
            .state
            .locals
            .values()
            .filter(|l| l.phase != Phase::Gone);
        self.parts
            .runner
            .purge_all_but(known.map(|l| (l.uid.clone(), l.placement)).collect());
        self.state.stale = stale(&self.state);
        info!(
            node = self.parts.config.node,
            pods = self.state.locals.len(),
            stale = self.state.stale.len(),
            "session begins"
        );
        Ok(())
    }

    /// Takes note of what etcd has on record of this node's pods: what it was told, and what it was told by an agent of
    /// which nothing else is known here.
    pub(super) async fn note_records(&mut self) -> Result<(), StoreError> {
        let node = self.parts.config.node.clone();
        let prefix = self
            .parts
            .keyspace
            .build(&Key::NodePod(&node, ObjectKey::cluster("")));
        let range = setpoint_apis::KeyRange::prefix(prefix);
        let (records, _) = list_all(&*self.parts.store, List::new(range.start, range.end)).await?;
        let mut known = BTreeSet::new();
        for kv in records {
            let Ok(Key::NodePod(_, key)) = self.parts.keyspace.split(&kv.key) else {
                continue;
            };
            known.insert(key.clone());
            let record = document::decode_value(&kv.value);
            if let Err(error) = &record {
                warn!(object = %key, error = error as &dyn std::error::Error, "a pod's record cannot be read");
            }
            note_record(&mut self.state, &key, record.ok(), || {
                claim_of(&self.parts.disk, &key)
            });
        }
        for (key, local) in &mut self.state.locals {
            if !known.contains(key) {
                local.written = None;
            }
        }
        Ok(())
    }

    /// Takes up the claims of the disk copy that the pod layer does not run yet.
    pub(super) fn adopt_from_disk(&mut self) {
        for claim in self.parts.disk.claims() {
            let key = ObjectKey::namespaced(claim.namespace.as_str(), claim.name.as_str());
            let running = self
                .state
                .locals
                .get(&key)
                .is_some_and(|l| l.phase != Phase::Gone);
            // The document may leave its namespace to its key.
            let decoded = document::split_work(claim.work.as_bytes()).and_then(|(header, pod)| {
                let header: WorkHeader = document::decode_value(header)?;
                Ok((
                    header,
                    document::decode_keyed::<setpoint_apis::core::Pod>(&key, pod)?,
                ))
            });
            let (false, Ok((header, pod))) = (running, decoded) else {
                continue;
            };
            let mut pod = Arc::new(pod);
            let mut work_revision = claim.work_revision;
            if let (Some(ip), Some(addresses)) = (claim.pod_ip, &mut self.addresses) {
                addresses.keep(ip);
                self.pod_ips.insert(key.clone(), ip);
            }
            let placement = header.placement.unwrap_or_default();
            let before = self
                .state
                .locals
                .get(&key)
                .filter(|l| l.placement == placement && l.uid == header.uid);
            let (last, written) =
                before.map_or((None, None), |l| (l.actual.clone(), l.written.clone()));
            let fence = before.and_then(|l| l.fence).or(claim.fence);
            if before.is_none() && self.state.locals.contains_key(&key) {
                // etcd has a record of another placement: that one counts, and what this claim left is purged.
                continue;
            }
            // What etcd says of this very placement is as new as the disk copy or newer: what runs is compared with it.
            let newer = self.state.work.get(&key);
            if let Some(work) = newer
                .filter(|w| w.header.uid == header.uid && w.placement() == placement)
                .cloned()
            {
                work_revision = work.mod_revision;
                pod = work.pod.clone();
                if work.mod_revision != claim.work_revision {
                    self.write_claim(&key, &work, claim.pod_ip, fence);
                }
            }
            let local = Local {
                uid: header.uid.clone(),
                placement,
                work_revision,
                phase: Phase::Running,
                fence,
                actual: last.clone(),
                written,
            };
            self.state.locals.insert(key.clone(), local);
            let work = PodWork {
                key,
                header,
                pod,
                pod_ip: claim.pod_ip,
                fence,
            };
            self.parts
                .runner
                .start(work, Begin::Adopt, last.map(Arc::unwrap_or_clone));
        }
    }

    /// Takes up pods that etcd says this node has claimed and still is to run, and of which the disk knows nothing.
    pub(super) fn adopt_work(&mut self) {
        let mut adopt = Vec::new();
        for (key, local) in &self.state.locals {
            if local.phase == Phase::Gone
                && let Some(work) = self.state.work.get(key)
                && work.placement() == local.placement
                && work.header.uid == local.uid
            {
                adopt.push((key.clone(), work.clone(), local.actual.clone()));
            }
        }
        for (key, work, last) in adopt {
            self.begin_pod(&key, &work, Begin::Adopt, last);
        }
    }

    /// Hands a claimed pod to the pod layer.
    pub(super) fn begin_pod(
        &mut self,
        key: &ObjectKey,
        work: &Work,
        begin: Begin,
        last: Option<Arc<PodActual>>,
    ) {
        let pod_ip = self.address_for(key, last.as_deref());
        let fence = self.state.locals.get(key).and_then(|l| l.fence);
        self.write_claim(key, work, pod_ip, fence);
        if let Some(local) = self.state.locals.get_mut(key) {
            local.phase = Phase::Running;
            local.work_revision = work.mod_revision;
        }
        let work = PodWork {
            key: key.clone(),
            header: work.header.clone(),
            pod: work.pod.clone(),
            pod_ip,
            fence,
        };
        self.parts
            .runner
            .start(work, begin, last.map(Arc::unwrap_or_clone));
    }

    /// Brings the disk copy of a claim up to date after its work has changed.
    pub(super) fn save_claim_of(&self, key: &ObjectKey, work: &Work) {
        let fence = self.state.locals.get(key).and_then(|l| l.fence);
        self.write_claim(key, work, self.pod_ips.get(key).copied(), fence);
    }

    fn write_claim(
        &self,
        key: &ObjectKey,
        work: &Work,
        pod_ip: Option<IpAddr>,
        fence: Option<ClaimFence>,
    ) {
        let claim = Claim {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            work_revision: work.mod_revision,
            pod_ip,
            fence,
            work: work.text.to_string(),
        };
        if let Err(error) = self.parts.disk.save_claim(&claim) {
            // It runs all the same: only a restart of the agent without etcd would miss it.
            warn!(object = %key, error = &error as &dyn std::error::Error, "a claim is not in the disk copy");
        }
    }

    pub(super) fn address_for(
        &mut self,
        key: &ObjectKey,
        last: Option<&PodActual>,
    ) -> Option<IpAddr> {
        let addresses = self.addresses.as_mut()?;
        if let Some(ip) = self.pod_ips.get(key) {
            return Some(*ip);
        }
        let former = last.and_then(|l| l.pod_ip.as_ref()?.parse().ok());
        let ip = match former {
            Some(ip) => {
                addresses.keep(ip);
                Some(ip)
            }
            None => addresses.take(),
        };
        if let Some(ip) = ip {
            self.pod_ips.insert(key.clone(), ip);
        }
        ip
    }
}

/// The uid and placement that the disk copy has for a pod, and the fence under which it was claimed.
fn claim_of(disk: &Disk, key: &ObjectKey) -> Option<(String, u32, Option<ClaimFence>)> {
    let claims = disk.claims();
    let claim = claims
        .iter()
        .find(|c| c.namespace == key.namespace.as_ref() && c.name == key.name.as_ref())?;
    let (header, _) = document::split_work(claim.work.as_bytes()).ok()?;
    let header: WorkHeader = document::decode_value(header).ok()?;
    Some((
        header.uid,
        header.placement.unwrap_or_default(),
        claim.fence,
    ))
}

/// Takes note of one record; `None` when it cannot be read. Of such a record it is known that it is there: the pod that
/// it must be about is the one that is known here, by the disk copy (`claimed`: uid, placement, fence), or by the work.
fn note_record(
    state: &mut State,
    key: &ObjectKey,
    record: Option<PodActual>,
    claimed: impl FnOnce() -> Option<(String, u32, Option<ClaimFence>)>,
) {
    let Some(record) = record else {
        if !state.locals.contains_key(key) {
            let of_work = || {
                let work = state.work.get(key)?;
                Some((work.header.uid.clone(), work.placement(), None))
            };
            let Some((uid, placement, fence)) = claimed().or_else(of_work) else {
                warn!(object = %key, "nothing is known of a pod whose record cannot be read; the record stays");
                return;
            };
            let local = Local {
                uid,
                placement,
                work_revision: 0,
                phase: Phase::Gone,
                fence,
                actual: None,
                written: None,
            };
            state.locals.insert(key.clone(), local);
        }
        if let Some(local) = state.locals.get_mut(key) {
            // There is a record, and it says nothing that a pod's status could be equal to: the next one is written.
            local.written = Some(Arc::default());
        }
        return;
    };
    let local = state.locals.entry(key.clone()).or_insert_with(|| Local {
        uid: record.uid.clone(),
        placement: record.placement,
        work_revision: 0,
        phase: Phase::Gone,
        fence: record.fence,
        actual: Some(Arc::new(record.clone())),
        written: None,
    });
    // Of a placement that runs here the record says something else only when it was written by somebody else.
    if local.placement == record.placement || is_current(state.work.get(key), local) {
        local.written = Some(Arc::new(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::state::{NodeWrite, plan};

    fn mk_key() -> ObjectKey {
        ObjectKey::namespaced("default", "a")
    }

    fn mk_work(placement: u32) -> Work {
        let header = WorkHeader {
            placement: Some(placement),
            uid: "u".into(),
            source_revision: 1,
        };
        Work {
            mod_revision: 7,
            header,
            pod: Arc::default(),
            text: Arc::from(""),
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_about_what_was_claimed() {
        let mut state = State::default();
        state.work.insert(mk_key(), mk_work(2));
        note_record(&mut state, &mk_key(), None, || Some(("u".into(), 1, None)));
        let local = &state.locals[&mk_key()];
        assert_eq!((local.uid.as_str(), local.placement), ("u", 1));

        state.locals.clear();
        note_record(&mut state, &mk_key(), None, || None);
        let local = &state.locals[&mk_key()];
        assert_eq!((local.uid.as_str(), local.placement), ("u", 2));
    }

    #[test]
    fn a_record_that_cannot_be_read_and_that_nobody_knows_is_left_alone() {
        let mut state = State::default();
        note_record(&mut state, &mk_key(), None, || None);
        assert!(state.locals.is_empty());
    }

    #[test]
    fn a_running_pod_whose_record_was_broken_writes_it_anew() {
        let actual = PodActual {
            uid: "u".into(),
            placement: 1,
            ..PodActual::default()
        };
        let mut state = State::default();
        state.work.insert(mk_key(), mk_work(1));
        note_record(&mut state, &mk_key(), Some(actual.clone()), || None);
        let local = state.locals.get_mut(&mk_key()).unwrap();
        local.phase = Phase::Running;
        local.work_revision = 7;
        assert_eq!(plan(&state).writes, []);
        note_record(&mut state, &mk_key(), None, || None);
        assert_eq!(plan(&state).writes, [NodeWrite::Status(mk_key())]);
        assert_eq!(state.locals[&mk_key()].actual, Some(Arc::new(actual)));
    }
}
