//! A Pod as users see it.

use crate::core::{HostIp, Pod, PodCondition, PodIp, PodPhase, PodStatus};
use crate::document;
use crate::meta::ObjectKey;
use crate::records::{
    Binding, NodeHealth, NodeState, PodActual, PodScheduling, PodStage, WorkHeader,
};

/// A pod whose desired document is gone and that has not stopped yet, or whose document does not parse, as far as it is
/// still known: from the copy that its node was given (`work`), else from what its agent has kept (`actual`). Of the
/// latter there is no spec.
pub fn stopping_pod(key: &ObjectKey, work: Option<&[u8]>, actual: Option<&PodActual>) -> Pod {
    let reported = actual.map(|a| a.uid.as_str()).filter(|u| !u.is_empty());
    let copy = work.and_then(|bytes| {
        let (header, document) = document::split_work(bytes).ok()?;
        let header: WorkHeader = document::decode_value(header).ok()?;
        let pod: Pod = document::decode_keyed(key, document).ok()?;
        // The copy of a later pod of the same name says nothing about the one that runs.
        let same = reported.is_none_or(|uid| uid == header.uid);
        same.then_some((header.uid, pod))
    });
    let (uid, mut pod) = copy.unwrap_or_else(|| {
        let mut pod = Pod::default();
        if let Some(kept) = actual.and_then(|a| a.metadata.as_deref()) {
            pod.metadata = kept.clone();
        }
        (reported.unwrap_or_default().to_owned(), pod)
    });
    pod.metadata.name = (*key.name).into();
    pod.metadata.namespace = (*key.namespace).into();
    pod.metadata.uid = Some(uid).filter(|uid| !uid.is_empty());
    pod
}

/// The status of a pod: what its agent reports (`actual`), where the scheduler put it (`binding`), or why it has not
/// (`scheduling`).
///
/// `deleted` says that the pod is no longer wanted and is shown because it still runs; its reason is then `Terminating`.
/// A report of an earlier placement than the binding's says nothing about the present one and is not used.
/// `health` is what is concluded about the pod's node: of a pod on a lost node (`NodeLost`) nobody knows what it does, and
/// the rest of the status is what its agent reported last.
pub fn pod_status(
    pod: &Pod,
    binding: Option<&Binding>,
    actual: Option<&PodActual>,
    scheduling: Option<&PodScheduling>,
    health: Option<&NodeHealth>,
    deleted: bool,
) -> PodStatus {
    let actual = actual.filter(|a| binding.is_none_or(|b| a.placement >= b.placement));
    let mut status = PodStatus {
        qos_class: Some(super::qos_class(&pod.spec)),
        ..PodStatus::default()
    };
    if let Some(b) = binding {
        status
            .conditions
            .push(PodCondition::new("PodScheduled", true, b.bound_at));
        if let Some(w) = &b.withdrawn {
            status.reason = Some(w.reason.clone());
        }
    } else if let Some(s) = scheduling {
        status.conditions.clone_from(&s.conditions);
        status.nominated_node_name.clone_from(&s.nominated_node);
    }
    if let Some(a) = actual {
        report(&mut status, a);
    }
    if deleted && !matches!(status.phase, PodPhase::Succeeded | PodPhase::Failed) {
        status.reason = Some("Terminating".into());
    }
    if let Some(health) = health.filter(|h| h.state == NodeState::Unreachable) {
        lost(&mut status, binding, health);
    }
    status
}

fn lost(status: &mut PodStatus, binding: Option<&Binding>, health: &NodeHealth) {
    if matches!(status.phase, PodPhase::Succeeded | PodPhase::Failed) {
        return;
    }
    let node = binding.map_or("its node", |b| b.node.as_str());
    let message = format!(
        "{node} is unreachable since {}; what the pod does there is not known",
        health.since.whole_seconds()
    );
    for condition in &mut status.conditions {
        if matches!(condition.type_.as_str(), "Ready" | "ContainersReady") {
            *condition = PodCondition::new(&condition.type_, false, health.since)
                .because("NodeLost", &message);
        }
    }
    status.reason = Some("NodeLost".into());
    status.message = Some(message);
}

fn report(status: &mut PodStatus, a: &PodActual) {
    let started = a
        .container_statuses
        .iter()
        .any(|c| c.state.running.is_some() || c.state.terminated.is_some());
    status.phase = match a.stage {
        PodStage::Starting => PodPhase::Pending,
        PodStage::Running => PodPhase::Running,
        PodStage::Stopping if started => PodPhase::Running,
        PodStage::Stopping => PodPhase::Pending,
        PodStage::Succeeded => PodPhase::Succeeded,
        PodStage::Failed => PodPhase::Failed,
    };
    for condition in &a.conditions {
        status.conditions.retain(|c| c.type_ != condition.type_);
        status.conditions.push(condition.clone());
    }
    if a.reason.is_some() {
        status.reason.clone_from(&a.reason);
        status.message.clone_from(&a.message);
    }
    status.start_time = a.start_time;
    status
        .init_container_statuses
        .clone_from(&a.init_container_statuses);
    status.container_statuses.clone_from(&a.container_statuses);
    if let Some(ip) = &a.host_ip {
        status.host_ip = Some(ip.clone());
        status.host_ips = vec![HostIp { ip: ip.clone() }];
    }
    if let Some(ip) = &a.pod_ip {
        status.pod_ip = Some(ip.clone());
        status.pod_ips = vec![PodIp { ip: ip.clone() }];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ContainerState, ContainerStateRunning, ContainerStatus};
    use crate::time::Timestamp;

    fn binding() -> Binding {
        Binding {
            node: "n1".into(),
            session: 7,
            placement: 2,
            pod_revision: 3,
            bound_at: Timestamp::from_unix_seconds(10),
            never_twice: false,
            requests: Default::default(),
            withdrawn: None,
            decision: None,
            ..Binding::default()
        }
    }

    fn actual(stage: PodStage) -> PodActual {
        let running = ContainerState {
            running: Some(ContainerStateRunning::default()),
            ..ContainerState::default()
        };
        PodActual {
            placement: 2,
            stage,
            pod_ip: Some("127.10.1.1".into()),
            conditions: vec![PodCondition::new("Ready", true, Timestamp::EPOCH)],
            container_statuses: vec![ContainerStatus {
                name: "c".into(),
                state: running,
                ..ContainerStatus::default()
            }],
            ..PodActual::default()
        }
    }

    #[test]
    fn a_pod_nobody_has_looked_at_is_pending_without_conditions() {
        let s = pod_status(&Pod::default(), None, None, None, None, false);
        assert_eq!((s.phase, s.conditions.len()), (PodPhase::Pending, 0));
    }

    #[test]
    fn an_unschedulable_pod_says_why() {
        let why = PodCondition::new("PodScheduled", false, Timestamp::EPOCH)
            .because("Unschedulable", "0/3 nodes");
        let scheduling = PodScheduling {
            placements: 0,
            conditions: vec![why],
            nominated_node: Some("n1".into()),
            ..PodScheduling::default()
        };
        let s = pod_status(&Pod::default(), None, None, Some(&scheduling), None, false);
        assert_eq!(s.nominated_node_name.as_deref(), Some("n1"));
        assert_eq!(
            s.condition("PodScheduled").unwrap().message.as_deref(),
            Some("0/3 nodes")
        );
        // Once it is bound the old reasons do not matter.
        let s = pod_status(
            &Pod::default(),
            Some(&binding()),
            None,
            Some(&scheduling),
            None,
            false,
        );
        assert!(s.condition("PodScheduled").unwrap().is_true());
    }

    #[test]
    fn what_the_agent_reports_is_shown() {
        let s = pod_status(
            &Pod::default(),
            Some(&binding()),
            Some(&actual(PodStage::Running)),
            None,
            None,
            false,
        );
        assert_eq!((s.phase, s.is_ready()), (PodPhase::Running, true));
        assert_eq!(s.pod_ips[0].ip, "127.10.1.1");
        for (stage, phase) in [
            (PodStage::Starting, PodPhase::Pending),
            (PodStage::Stopping, PodPhase::Running),
            (PodStage::Succeeded, PodPhase::Succeeded),
            (PodStage::Failed, PodPhase::Failed),
        ] {
            let s = pod_status(
                &Pod::default(),
                Some(&binding()),
                Some(&actual(stage)),
                None,
                None,
                false,
            );
            assert_eq!(s.phase, phase);
        }
    }

    #[test]
    fn reports_of_an_earlier_placement_are_not_shown() {
        let old = PodActual {
            placement: 1,
            ..actual(PodStage::Running)
        };
        let s = pod_status(
            &Pod::default(),
            Some(&binding()),
            Some(&old),
            None,
            None,
            false,
        );
        assert_eq!((s.phase, s.pod_ip), (PodPhase::Pending, None));
    }

    #[test]
    fn a_deleted_pod_that_still_runs_is_terminating() {
        let s = pod_status(
            &Pod::default(),
            Some(&binding()),
            Some(&actual(PodStage::Stopping)),
            None,
            None,
            true,
        );
        assert_eq!(s.reason.as_deref(), Some("Terminating"));
    }

    fn work(uid: &str) -> Vec<u8> {
        let header = WorkHeader {
            placement: Some(2),
            uid: uid.into(),
            source_revision: 3,
        };
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: web}}\nspec: {containers: [{name: c, image: host}]}\n";
        document::encode_work(&header, text).into_bytes()
    }

    #[test]
    fn a_stopping_pod_is_what_its_node_was_given() {
        let key = ObjectKey::namespaced("ns", "p");
        let running = PodActual {
            uid: "u1".into(),
            ..actual(PodStage::Running)
        };
        let pod = stopping_pod(&key, Some(&work("u1")), Some(&running));
        assert_eq!(pod.metadata.labels["app"], "web");
        assert_eq!(pod.spec.containers.len(), 1);
        assert_eq!(
            (pod.metadata.key(), pod.metadata.uid.as_deref()),
            (key.clone(), Some("u1"))
        );
        // Not claimed yet: nobody has reported anything.
        let pod = stopping_pod(&key, Some(&work("u1")), None);
        assert_eq!(pod.metadata.uid.as_deref(), Some("u1"));
        let pod = stopping_pod(&key, Some(&work("u2")), Some(&running));
        assert!(pod.metadata.labels.is_empty() && pod.spec.containers.is_empty());
        assert_eq!(pod.metadata.uid.as_deref(), Some("u1"));
    }

    #[test]
    fn a_stopping_pod_without_a_work_copy_is_what_its_agent_has_kept() {
        let key = ObjectKey::namespaced("ns", "p");
        let given: Pod = document::decode(
            b"apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ns, uid: x, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: r}]}\nspec: {containers: [{name: c, image: host}]}\n",
        )
        .unwrap();
        let mut stopping = PodActual {
            uid: "u1".into(),
            ..actual(PodStage::Stopping)
        };
        stopping.keep_metadata(&given.metadata);
        let stored: PodActual =
            document::decode_value(document::encode(&stopping).as_bytes()).unwrap();
        let pod = stopping_pod(&key, None, Some(&stored));
        assert_eq!(pod.metadata.labels, given.metadata.labels);
        assert_eq!(
            pod.metadata.owner_references,
            given.metadata.owner_references
        );
        assert_eq!(pod.metadata.uid.as_deref(), Some("u1"));
        assert_eq!(stopping_pod(&key, None, None).metadata.key(), key);
    }

    #[test]
    fn of_a_pod_on_a_lost_node_nothing_is_known() {
        let health = NodeHealth {
            state: NodeState::Unreachable,
            since: Timestamp::from_unix_seconds(60),
            ..NodeHealth::default()
        };
        let pod = Pod::default();
        let on = |stage, health: &NodeHealth, deleted| {
            pod_status(
                &pod,
                Some(&binding()),
                Some(&actual(stage)),
                None,
                Some(health),
                deleted,
            )
        };
        for deleted in [false, true] {
            let s = on(PodStage::Running, &health, deleted);
            assert_eq!(s.reason.as_deref(), Some("NodeLost"));
            assert!(s.message.as_deref().unwrap().contains("n1"), "{s:?}");
            assert!(!s.is_ready());
            assert_eq!(
                s.condition("Ready").unwrap().last_transition_time,
                Some(health.since)
            );
            // What was reported last is all there is to show.
            assert_eq!(s.container_statuses.len(), 1);
        }
        let s = on(PodStage::Succeeded, &health, false);
        assert_eq!((s.phase, s.reason), (PodPhase::Succeeded, None));
        let ready = NodeHealth {
            state: NodeState::Ready,
            ..health.clone()
        };
        assert_eq!(on(PodStage::Running, &ready, false).reason, None);
    }
}
