//! From what is stored about a node to what the scheduler is told of it.

use setpoint_apis::core::{self, Node};
use setpoint_apis::records::{NodeHealth, NodeState, NodeStatusRecord};
use setpoint_apis::view::NodeView;

use super::{NodeFacts, NodeImage, NotReady, Usage};

impl NodeFacts {
    /// A node of which this is stored: what users want of it, what its agent reports, what node-lifecycle concludes, and
    /// the session while that is alive.
    ///
    /// `unreadable`: something of it never parsed. It could have said anything, so nothing is placed on what it may have
    /// forbidden.
    pub fn stored(
        name: &str,
        desired: Option<&Node>,
        status: Option<&NodeStatusRecord>,
        health: Option<&NodeHealth>,
        session: Option<i64>,
        unreadable: bool,
    ) -> Self {
        let view = NodeView::new(name, desired, status, health, session);
        let not_ready = match (view.session, view.state) {
            _ if unreadable => Some(NotReady::Invalid),
            (_, NodeState::Suspended) => Some(NotReady::Suspended),
            (None, _) => Some(NotReady::Lost),
            (_, NodeState::Removed) => Some(NotReady::Removed),
            (_, NodeState::Unreachable) => Some(NotReady::Lost),
            (Some(_), NodeState::Ready) if status.is_none() => Some(NotReady::NotReported),
            (Some(_), NodeState::Ready) => (!view.ready).then_some(NotReady::AgentNotReady),
        };
        let usage = status
            .filter(|s| view.state == NodeState::Ready && is_of(s, view.session))
            .and_then(usage);
        Self {
            name: name.into(),
            session: view.session.unwrap_or_default(),
            not_ready,
            unschedulable: view.unschedulable,
            labels: view.labels,
            taints: view.taints,
            drivers: view.drivers,
            allocatable: view.allocatable,
            images: view.images.iter().map(image).collect(),
            usage,
        }
    }
}

fn image(stored: &core::NodeImage) -> NodeImage {
    NodeImage {
        names: stored.names.clone(),
        bytes: u64::try_from(stored.size_bytes).unwrap_or(0),
    }
}

/// Whether a status was reported under the session that is alive. An agent reports its usage when that changes and says
/// everything again under a new session, so what was reported last holds until then, however long ago that was: an age
/// limit would make idle nodes write, or forget what they said.
fn is_of(status: &NodeStatusRecord, session: Option<i64>) -> bool {
    session.is_some_and(|alive| status.session.is_none_or(|under| under == alive))
}

fn usage(status: &NodeStatusRecord) -> Option<Usage> {
    let cpu = status.usage.get("cpu");
    let memory = status.usage.get("memory");
    (cpu.is_some() || memory.is_some()).then(|| Usage {
        cpu_milli: cpu.map_or(0, |q| q.milli_value()),
        memory_bytes: memory.map_or(0, |q| q.value()),
    })
}

#[cfg(test)]
mod tests {
    use setpoint_apis::document;

    use super::*;

    fn status(yaml: &str) -> NodeStatusRecord {
        let text =
            format!("{{drivers: [process], capacity: {{}}, allocatable: {{cpu: 2}}, {yaml}}}");
        document::decode_value(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_keeps_everything_off_a_node_is_told_and_what_cannot_be_read_first() {
        let reported = status("");
        let not_ready = |status, session, unreadable| {
            NodeFacts::stored("n", None, status, None, session, unreadable).not_ready
        };
        assert_eq!(not_ready(Some(&reported), Some(7), false), None);
        let lost = not_ready(Some(&reported), None, false);
        assert_eq!(lost, Some(NotReady::Lost));
        let silent = not_ready(None, Some(7), false);
        assert_eq!(silent, Some(NotReady::NotReported));
        let broken = not_ready(None, None, true);
        assert_eq!(broken, Some(NotReady::Invalid));
    }

    #[test]
    fn usage_holds_as_long_as_the_session_lives_and_nobody_doubts_the_node() {
        let used = |status: &NodeStatusRecord, session, state| {
            let health = NodeHealth {
                state,
                ..NodeHealth::default()
            };
            NodeFacts::stored("n", None, Some(status), Some(&health), session, false).usage
        };
        let dated = status("usage: {cpu: 1500m}, session: 7");
        let usage = used(&dated, Some(7), NodeState::Ready).unwrap();
        assert_eq!((usage.cpu_milli, usage.memory_bytes), (1500, 0));
        assert_eq!(used(&dated, None, NodeState::Ready), None);
        assert_eq!(
            used(&dated, Some(9), NodeState::Ready),
            None,
            "of a former session"
        );
        for doubt in [
            NodeState::Unreachable,
            NodeState::Suspended,
            NodeState::Removed,
        ] {
            assert_eq!(used(&dated, Some(7), doubt), None, "{doubt:?}");
        }
        let undated = status("usage: {cpu: 1500m}");
        let usage = used(&undated, Some(9), NodeState::Ready);
        assert_eq!(usage.map(|u| u.cpu_milli), Some(1500), "of an older agent");
    }
}
