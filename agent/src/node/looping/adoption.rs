//! Beginning a session: what etcd, the disk copy and the machine say this node has claimed, brought together.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use setpoint_apis::records::PodActual;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::StoreError;
use setpoint_store::list::{List, list_all};
use tracing::{info, warn};

use super::NodeLoop;
use crate::node::disk::Claim;
use crate::node::state::{Local, Phase, Work, stale};
use crate::workload::{Begin, PodWork};

impl NodeLoop {
    /// The work of this session is listed. What etcd, the disk and the machine say this node has claimed is brought
    /// together; what is no longer its own is marked to be gone before anything is claimed.
    pub(super) async fn begin_session(&mut self, adopted: &mut bool) -> Result<(), StoreError> {
        self.note_records().await?;
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
            // A record that does not parse is written anew with the next status, or deleted with its pod.
            let record: PodActual = document::decode_value(&kv.value).unwrap_or_default();
            known.insert(key.clone());
            let local = self
                .state
                .locals
                .entry(key.clone())
                .or_insert_with(|| Local {
                    uid: record.uid.clone(),
                    placement: record.placement,
                    work_revision: 0,
                    phase: Phase::Gone,
                    actual: Some(Box::new(record.clone())),
                    written: None,
                });
            if local.placement == record.placement {
                local.written = Some(Box::new(record));
            }
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
                let header: setpoint_apis::records::WorkHeader = document::decode_value(header)?;
                Ok((
                    header,
                    document::decode_keyed::<setpoint_apis::core::Pod>(&key, pod)?,
                ))
            });
            let (false, Ok((header, pod))) = (running, decoded) else {
                continue;
            };
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
            if before.is_none() && self.state.locals.contains_key(&key) {
                // etcd has a record of another placement: that one counts, and what this claim left is purged.
                continue;
            }
            let local = Local {
                uid: header.uid.clone(),
                placement,
                work_revision: claim.work_revision,
                phase: Phase::Running,
                actual: last.clone(),
                written,
            };
            self.state.locals.insert(key.clone(), local);
            let work = PodWork {
                key,
                header,
                pod: Arc::new(pod),
                pod_ip: claim.pod_ip,
            };
            self.parts
                .runner
                .start(work, Begin::Adopt, last.map(|l| *l));
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
            self.begin_pod(&key, &work, Begin::Adopt, last.map(|l| *l));
        }
    }

    /// Hands a claimed pod to the pod layer.
    pub(super) fn begin_pod(
        &mut self,
        key: &ObjectKey,
        work: &Work,
        begin: Begin,
        last: Option<PodActual>,
    ) {
        let pod_ip = self.address_for(key, last.as_ref());
        let claim = Claim {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            work_revision: work.mod_revision,
            pod_ip,
            work: work.text.to_string(),
        };
        if let Err(error) = self.parts.disk.save_claim(&claim) {
            // It runs all the same: only a restart of the agent without etcd would miss it.
            warn!(object = %key, error = &error as &dyn std::error::Error, "a claim is not in the disk copy");
        }
        if let Some(local) = self.state.locals.get_mut(key) {
            local.phase = Phase::Running;
            local.work_revision = work.mod_revision;
        }
        let work = PodWork {
            key: key.clone(),
            header: work.header.clone(),
            pod: work.pod.clone(),
            pod_ip,
        };
        self.parts.runner.start(work, begin, last);
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
