//! Documents of our own that are not kinds: what agents and controllers record beside the objects.
//!
//! All of them are YAML a person can read. Readers keep and ignore fields they do not know.

mod amounts;
mod decision;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::{
    ContainerStatus, NodeAddress, NodeCondition, NodeImage, NodeSystemInfo, PodCondition,
    ResourceList, Taint,
};
use crate::meta::ObjectMeta;
use crate::time::Timestamp;

pub use amounts::SharedAmounts;
pub use decision::{
    ConstraintKind, Hope, NearestMiss, NodeScore, PlacementDecision, RunnerUpLost, ScorePart,
    ScoreParts, WaitReason,
};

/// The annotation of a pod that says what becomes of it when its node is lost: `replace` (the default), `keep` or `stop`.
///
/// `stop` is for pods that must never run twice: such a pod may run elsewhere once its agent is certain to have stopped
/// it, which is when the fence is gone under which it was claimed ([`PodActual::fence`]).
pub const PARTITION_POLICY: &str = "setpoint.dev/partition-policy";

/// Whether a pod's partition policy is `stop`: it must never run twice.
pub fn never_twice(metadata: &ObjectMeta) -> bool {
    metadata
        .annotations
        .get(PARTITION_POLICY)
        .is_some_and(|policy| policy == "stop")
}

/// `bindings/<ns>/<pod>`: where a pod is. Written by the scheduler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// The node.
    pub node: String,
    /// The node's session when the pod was bound: the create revision of its `alive` key.
    pub session: i64,
    /// Counts the placements of this pod, from 1.
    pub placement: u32,
    /// The mod revision of the pod's desired document that the node's work copy was made from.
    pub pod_revision: i64,
    /// When it was bound.
    pub bound_at: Timestamp,
    /// Whether the pod's partition policy was `stop` when this was last written: so that it is known when the document is
    /// gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_twice: bool,
    /// What the pod takes of the node: its document may be gone before it has stopped, and its room is not free until
    /// then.
    #[serde(default, skip_serializing_if = "SharedAmounts::is_empty")]
    pub requests: SharedAmounts,
    /// Set when the pod is being withdrawn (deleted, evicted): its agent stops it, then the binding goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawal>,
    /// Why this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<PlacementDecision>,
    /// The mod revision of the node's work copy where it is not the binding's own: a move changes the binding, and not the
    /// copy under which the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_revision: Option<i64>,
    /// A move in progress. Together with `withdrawn`: the pod is stopped here first, and then started there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Box<Moving>>,
    /// Another node, on which the pod is being stopped: it was moved from there, or was not moved there after all. Its
    /// room is not free until that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// The highest number that a placement of the pod was given, where that is not `placement`: a move that was undone
    /// took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placements: Option<u32>,
    /// What became of the last request to move the pod that was acted on here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_move: Option<Box<MoveResult>>,
}

impl Binding {
    /// The highest number that a placement of the pod was given.
    pub fn most_placements(&self) -> u32 {
        let moving = self.moving.as_ref().map_or(0, |m| m.placement);
        self.placement.max(self.placements.unwrap_or(0)).max(moving)
    }

    /// The node beside `node` that has, or is to have, an instance of the pod.
    pub fn other_node(&self) -> Option<&str> {
        let moving = self.moving.as_ref().map(|m| m.to.as_str());
        moving.or(self.leaving.as_deref())
    }
}

/// A move in progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Moving {
    /// The node that the pod goes to.
    pub to: String,
    /// That node's session when it was chosen.
    pub session: i64,
    /// The number of the placement there.
    pub placement: u32,
    /// Since when.
    pub since: Timestamp,
    /// Until when the pod must be ready there. Then the move is undone.
    pub deadline: Timestamp,
    /// How long it must have been ready there, in seconds, before it is stopped here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i64>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why, in the words of who asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The mod revision of the request.
    pub request: i64,
    /// Why that node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<PlacementDecision>,
}

/// What became of a request to move a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoveResult {
    /// What.
    pub outcome: MoveOutcome,
    /// The node that the pod was on.
    pub from: String,
    /// The node that it was to go to; `None` when none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The mod revision of the request.
    pub request: i64,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// See [`MoveResult`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MoveOutcome {
    /// It is on the other node.
    Moved,
    /// It was started on the other node, which came to nothing: it is where it was.
    Undone,
    /// Nothing was done: no node can take it, or it cannot be moved.
    #[default]
    Refused,
    /// What a newer version has written.
    #[serde(other)]
    Other,
}

/// How long a move may take until the pod is ready on the other node, when the request does not say, in seconds.
pub const MOVE_TIMEOUT_SECONDS: i64 = 60;
/// The most that a request to move a pod may give it, and the most that it may ask it to be ready for, in seconds.
pub const MOST_MOVE_SECONDS: i64 = 86_400;

/// Why a binding is being taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Withdrawal {
    /// One CamelCase word: `Deleted`, `Evicted`, `NodeNameChanged`.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// In how many seconds it is to be stopped, instead of its own `terminationGracePeriodSeconds`; 0: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<i64>,
}

/// `work/<node>/stops/<ns>/<pod>`: in how many seconds a node is to stop a pod that is withdrawn from it. Written with the
/// withdrawal, by the scheduler, when somebody asked for that; gone with the binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopOrder {
    /// Which placement of the pod: [`Binding::placement`].
    pub placement: u32,
    /// The seconds; 0: at once.
    pub grace_seconds: i64,
}

/// `actual/pods/<ns>/<name>`: what the scheduler has to say about a pod that has no binding. Removed when it is bound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodScheduling {
    /// How often the pod has been placed before.
    #[serde(default)]
    pub placements: u32,
    /// `PodScheduled=False` with reason `Unschedulable` and the reasons per node class, as `kubectl describe` shows them.
    #[serde(default)]
    pub conditions: Vec<PodCondition>,
    /// The node that is being cleared for the pod: others do not get its room while victims stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nominated_node: Option<String>,
    /// How many nodes there were when it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// Why it waits, by constraint, most nodes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<WaitReason>,
    /// What would have to change for it to fit, least change first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<NearestMiss>,
}

impl PodScheduling {
    /// Whether the pod cannot fit any of the nodes there are, whatever other pods do.
    pub fn never_fits(&self) -> bool {
        !self.reasons.is_empty() && self.reasons.iter().all(|r| r.hope == Hope::Never)
    }
}

/// Where in its life a pod is on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodStage {
    /// Claimed: nothing has been started, or containers are being started.
    #[default]
    Starting,
    /// At least one container runs or will be restarted.
    Running,
    /// Being stopped.
    Stopping,
    /// All containers ended with exit code 0 and will not be restarted.
    Succeeded,
    /// All containers ended, one of them not with 0, and will not be restarted; or the node refused the pod.
    Failed,
}

/// `actual/nodes/<node>/pods/<ns>/<pod>`: the claim, then the status, of a pod on its node. Written by the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodActual {
    /// The placement that was claimed: [`Binding::placement`].
    pub placement: u32,
    /// The pod's uid.
    pub uid: String,
    /// Where in its life the pod is.
    pub stage: PodStage,
    /// One CamelCase word when there is something to explain: `Evicted`, `VolumeNotFound`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sentence that goes with `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The node's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// The pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "podIP")]
    pub pod_ip: Option<String>,
    /// When the agent claimed the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// `Initialized`, `ContainersReady`, `Ready`, and ours (`ResourceLimitsApplied`, ...).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PodCondition>,
    /// The init containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// The containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    /// The fence under which the pod was claimed. Its agent stops the pod before that can have ended. `None`: there was
    /// none, so that the absence of a fence proves nothing about the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<ClaimFence>,
    /// Labels, annotations and owners, from when the pod is being stopped: its document and its work copy may be gone by
    /// then, and what still runs is to be found by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<ObjectMeta>>,
}

impl PodActual {
    /// Keeps of a pod's metadata what the record's key and `uid` do not say.
    pub fn keep_metadata(&mut self, metadata: &ObjectMeta) {
        self.metadata = Some(Box::new(ObjectMeta {
            labels: metadata.labels.clone(),
            annotations: metadata.annotations.clone(),
            owner_references: metadata.owner_references.clone(),
            ..ObjectMeta::default()
        }));
    }

    /// Whether the pod is ready to serve.
    pub fn is_ready(&self) -> bool {
        self.stage == PodStage::Running
            && self
                .conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
    }
}

/// The fence that a pod was claimed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFence {
    /// The create revision of the node's `fence` key.
    pub revision: i64,
    /// The lease's time to live, in seconds.
    pub lease_ttl_seconds: i64,
}

/// `actual/nodes/<node>/fence`: who holds the node's fence lease. It is there while containers of pods may run that must
/// never run twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFence {
    /// As in [`NodeAlive`].
    pub hostname: String,
    /// As in [`NodeAlive`].
    pub instance: String,
    /// The lease's time to live, in seconds.
    pub lease_ttl_seconds: i64,
}

/// `actual/nodes/<node>/alive`: who holds the node's detection lease. Its create revision is the node's session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAlive {
    /// The host the agent runs on.
    pub hostname: String,
    /// The agent's process id there.
    pub pid: u32,
    /// Names the agent's directory: an agent that is started again there takes the session over.
    pub instance: String,
    /// When the agent started: a session goes on across a restart, this does not.
    pub since: Timestamp,
    /// The lease's time to live, in seconds.
    pub lease_ttl_seconds: i64,
}

/// `actual/nodes/<node>/status`: what an agent reports of its node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatusRecord {
    /// What the machine has.
    pub capacity: ResourceList,
    /// What pods may request.
    pub allocatable: ResourceList,
    /// `Ready` with the agent's own opinion, `DiskPressure`, `MemoryPressure`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<NodeCondition>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Labels the agent gives itself: `kubernetes.io/hostname`, `kubernetes.io/os`, `kubernetes.io/arch`, and its flags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints that the agent was started with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// The drivers that run containers here, in order of preference: `process`, `hollow`, `cri`, ...
    #[serde(default)]
    pub drivers: Vec<String>,
    /// Versions and identity of the machine.
    #[serde(default)]
    pub node_info: NodeSystemInfo,
    /// What is used of cpu, memory and disk, coarsely quantised so that an idle node writes nothing. What cannot be
    /// measured is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usage: ResourceList,
    /// When `usage` was measured: when it last moved by more than a tenth of what the node has. An agent that measures the
    /// same again does not write it, so an old time is no sign of age: `usage` holds as long as `session` lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_at: Option<Timestamp>,
    /// The session under which all of this was reported: an agent that takes a new one says everything again. `None` of
    /// agents that did not say so yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<i64>,
    /// The images that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<NodeImage>,
    /// Where the agent serves logs: `http://127.0.0.1:10250`; `https` beyond loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The agent's data directory, so that a reader on the same machine (same `machine_id`) opens the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
    /// The tombstones that were obeyed and still stand (`work/<node>/tombstones/`): by name, the mod revision that was
    /// obeyed. What another revision asks is still to be done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub discarded: BTreeMap<String, i64>,
}

/// What the control plane concludes about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeState {
    /// Its session is alive.
    #[default]
    Ready,
    /// Its session is gone: its pods are released.
    Unreachable,
    /// Its session is gone together with those of more than half of the nodes: nothing is moved.
    Suspended,
    /// Its desired document was deleted while its agent is alive: nothing new is placed there.
    Removed,
}

/// `actual/health/<node>`: what node-lifecycle concludes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeHealth {
    /// The conclusion.
    pub state: NodeState,
    /// The session that it is about: the create revision of `alive`, or the last one known.
    pub session: i64,
    /// The start of the agent that it is about (`since` of `alive`), or the last one known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_since: Option<Timestamp>,
    /// Since when.
    pub since: Timestamp,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Taints that follow from it (`node.kubernetes.io/unreachable:NoExecute`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// `deletions/<plural>/<ns>/<name>`: how an object is to be deleted where it matters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// `Orphan`: dependents stay, without the owner reference. `Foreground`: the owner goes last.
    pub propagation_policy: String,
    /// The uid of the object that the record is about.
    pub uid: String,
}

impl Deletion {
    /// The policy of an object whose dependents stay.
    pub const ORPHAN: &str = "Orphan";
    /// The policy of an object whose dependents go before it does.
    pub const FOREGROUND: &str = "Foreground";
}

/// `work/<node>/tombstones/<uid>`: a volume claim is gone for good, and the node is to give up its directory as soon as no
/// pod there uses it. Written by the scheduler, and removed by it when the node's status says that this is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// The claim's namespace, for people: another claim may have its name by now.
    pub namespace: String,
    /// The claim's name, for people.
    pub name: String,
    /// The claim's uid: its directory is called after it.
    pub uid: String,
}

/// `intents/<verb>/<ns>/<pod>/<by>`: a request to the scheduler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// For `release`: the node that is lost and its session, so that a late intent cannot hit a new placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// See `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<i64>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For `evict` and `move`: the pod's uid, so that a late intent cannot hit another pod of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// For `move`: the node it is to go to. `None`: the scheduler chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// For `move`: how long the pod may take to become ready on the other node, in seconds; then the move is undone. 1 to
    /// 86400. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// For `move`: how long the pod must have been ready on the other node, in seconds, before it is stopped where it is.
    /// Less than the time-out. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i64>,
    /// For `evict`, and for `move` of pods that are stopped first: do it although a disruption budget forbids it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_budgets: bool,
    /// For `evict`: in how many seconds the pod is to be stopped, instead of its own `terminationGracePeriodSeconds`; 0: at
    /// once. Of several requests the shortest counts; less than 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<i64>,
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// The first document of a work key; the second one, after `---`, is the object as its writer wrote it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkHeader {
    /// For pods: [`Binding::placement`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<u32>,
    /// The uid of the object.
    pub uid: String,
    /// The mod revision of the desired document that follows.
    pub source_revision: i64,
}
