//! What happens in a simulation: a document like any other, read as strictly.

mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use setpoint_apis::kind::{ApiVersion, FieldError, KindName, NoStatus};
use setpoint_apis::registry::Registry;
use setpoint_apis::strict::{self, Options, Problem};
use setpoint_apis::{Kind, ObjectMeta, ResourceList, Timestamp};

/// A simulation: nodes, workloads, and what befalls them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scenario {
    /// `setpoint.dev/v1`.
    #[serde(default)]
    pub api_version: ApiVersion<Self>,
    /// `Scenario`.
    #[serde(default)]
    pub kind: KindName<Self>,
    /// The name.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The scenario.
    pub spec: ScenarioSpec,
}

/// What a scenario consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioSpec {
    /// The seed of the run where none is asked for. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Processes of controllers; one of them leads.
    #[serde(default)]
    pub controllers: Controllers,
    /// The nodes.
    pub nodes: Vec<NodeGroup>,
    /// How messages fare, unless an event says otherwise.
    #[serde(default)]
    pub network: Network,
    /// How far each process's clock is ahead of or behind the true time, at most. Default 0s.
    #[serde(default)]
    pub clock_error: Time,
    /// What happens, in any order.
    #[serde(default)]
    pub timeline: Vec<Event>,
    /// What happens at single writes of controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_writes: Vec<AtWrite>,
    /// What time it is at the beginning. Default 2030-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<Timestamp>,
    /// How long after the last event actual must match desired. Default 90s.
    #[serde(default = "settle")]
    pub settle: Time,
    /// How long after that nothing may be written. Default 60s.
    #[serde(default = "quiet")]
    pub quiet: Time,
}

fn settle() -> Time {
    Time::seconds(90)
}

fn quiet() -> Time {
    Time::seconds(60)
}

impl ScenarioSpec {
    /// What time it is at the beginning.
    pub(crate) fn begins(&self) -> Timestamp {
        // 2030-01-01T00:00:00Z.
        let default = Timestamp::from_unix_seconds(1_893_456_000);
        self.begins.unwrap_or(default)
    }
}

/// A fault that strikes at a write of a controller, whichever process sends it. Transactions count, each of which may hold
/// the writes of several objects, and those of other controllers of the same process besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AtWrite {
    /// The controller: `workloads`.
    pub controller: String,
    /// The how manieth of its transactions it is, from 1 on.
    pub write: u64,
    /// What happens to it.
    pub strike: Strike,
}

/// What happens at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Strike {
    /// It never arrives. Its sender lives, and does not know what became of it.
    Lost,
    /// It is carried out, and no answer comes. Its sender lives, and does not know what became of it.
    Unanswered,
    /// It never arrives: its sender has died.
    CrashBefore,
    /// It is carried out, and then its sender dies before it hears of it.
    CrashAfter,
}

impl Strike {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Lost,
        Self::Unanswered,
        Self::CrashBefore,
        Self::CrashAfter,
    ];
}

/// The processes of controllers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Controllers {
    /// How many. They are called `controllers-0` and so on.
    #[serde(default = "two")]
    pub replicas: u32,
    /// Time to live of their election lease. Default 3s.
    #[serde(default = "leader_lease")]
    pub lease: Time,
    /// The controllers whose work is split among the processes, as by `setpoint controllers --shard`: `gc`, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shard: Vec<String>,
    /// So many of the processes, the first ones, do not split it, as in the middle of a change. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsharded: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn two() -> u32 {
    2
}

fn leader_lease() -> Time {
    Time::seconds(3)
}

impl Default for Controllers {
    fn default() -> Self {
        Self {
            replicas: two(),
            lease: leader_lease(),
            shard: Vec::new(),
            unsharded: 0,
        }
    }
}

/// Nodes that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroup {
    /// The nodes are called `<name>-0` and so on.
    pub name: String,
    /// How many.
    pub count: u32,
    /// What each has. Default: 4 cpus, 8Gi of memory, 110 pods.
    #[serde(default)]
    pub capacity: ResourceList,
    /// Their labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long a pod takes to become ready, at most. Default 100ms.
    #[serde(default = "latency")]
    pub start_latency: Time,
    /// How long a pod takes to stop, at most. Default 100ms.
    #[serde(default = "latency")]
    pub stop_latency: Time,
    /// Time to live of a node's lease. Default 6s.
    #[serde(default = "node_lease")]
    pub lease: Time,
}

fn latency() -> Time {
    Time::milliseconds(100)
}

fn node_lease() -> Time {
    Time::seconds(6)
}

/// How messages fare. Probabilities are between 0 and 1, of single messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// How long a message takes at least. Default 1ms.
    #[serde(default = "shortest")]
    pub min_delay: Time,
    /// How long a message takes at most. Default 3ms.
    #[serde(default = "longest")]
    pub max_delay: Time,
    /// How long news of what has changed takes at most: caches are stale by that much. Default: as any message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch_delay: Option<Time>,
    /// Requests that never arrive.
    #[serde(default)]
    pub lost_requests: f64,
    /// Answers that never arrive: what was asked for has happened.
    #[serde(default)]
    pub lost_answers: f64,
    /// Writes that arrive only after their sender has given up.
    #[serde(default)]
    pub late_writes: f64,
    /// Deliveries after which a watch breaks.
    #[serde(default)]
    pub broken_watches: f64,
}

fn shortest() -> Time {
    Time::milliseconds(1)
}

fn longest() -> Time {
    Time::milliseconds(3)
}

impl Default for Network {
    fn default() -> Self {
        Self {
            min_delay: shortest(),
            max_delay: longest(),
            watch_delay: None,
            lost_requests: 0.0,
            lost_answers: 0.0,
            late_writes: 0.0,
            broken_watches: 0.0,
        }
    }
}

/// Something that happens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, from the beginning.
    pub at: Time,
    /// For how long; then it is undone. For what can be: `cut`, `crash`, `powerOff`, `freeze`, `restart`, `cordon`,
    /// `network`, `corrupt`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Time>,
    /// Manifests to write into the desired tree. What is for a namespace that is not there then is refused, as
    /// `setpoint apply` does, and the report says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apply: Vec<serde_json::Value>,
    /// Deployments to scale: `namespace/name`, and to how many replicas.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scale: BTreeMap<String, u32>,
    /// What users delete: a desired object, `plural/namespace/name`, or a key, `/setpoint/leaders/gc`. A key that ends in
    /// `/*` means one of those that are there, by the seed. A namespace, `namespaces/team`, goes with all that is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<String>,
    /// Processes that the network no longer reaches: `controllers-0`, `node-3`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// Processes that die as of SIGKILL. The pods of a node go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crash: Vec<String>,
    /// Nodes that lose power: agent and pods are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub power_off: Vec<String>,
    /// Processes that stand still as of SIGSTOP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Processes that are stopped in good order, and started again at once or after `for`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
    /// How messages fare from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The history of the store is compacted, up to now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compact: bool,
    /// Nodes that no new pods are placed on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cordon: Vec<String>,
    /// So many of the pods that are bound then are asked to be moved, by the seed.
    #[serde(default, rename = "move", skip_serializing_if = "is_zero")]
    pub moves: u32,
    /// So many of the pods that are bound then are asked to be evicted, by the seed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evict: u32,
    /// Documents that are overwritten with what does not parse: as with `delete`, desired objects or keys. It is undone
    /// only where nobody has mended it by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrupt: Vec<String>,
}

impl Event {
    /// The processes that it befalls, by the field that names them.
    pub(crate) fn processes(&self) -> [(&'static str, &Vec<String>); 6] {
        [
            ("cut", &self.cut),
            ("crash", &self.crash),
            ("powerOff", &self.power_off),
            ("freeze", &self.freeze),
            ("restart", &self.restart),
            ("cordon", &self.cordon),
        ]
    }

    /// Whether there is something in it that can be undone.
    pub(crate) fn ends(&self) -> bool {
        self.network.is_some()
            || !self.corrupt.is_empty()
            || self.processes().iter().any(|(_, names)| !names.is_empty())
    }
}

/// A time, in YAML as `300ms`, `10s`, `2m`.
///
/// Reading never fails, so that validation can say where in a file the text stands that is no time: see [`Time::is_bad`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

impl Time {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// What was read where no time stood.
    const BAD: Self = Self(Duration::MAX);

    /// Whether it was read from a text that is no time. [`read`] gives back no scenario with such a one.
    pub fn is_bad(self) -> bool {
        self == Self::BAD
    }

    /// As a duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a time such as 300ms, 10s, 2m or 1h, of at most a day")]
pub struct BadTime;

impl FromStr for Time {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, BadTime> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(BadTime)?;
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(BadTime),
        };
        let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        match millis {
            Some(millis) if millis <= 24 * 3_600_000 => Ok(Self::milliseconds(millis)),
            _ => Err(BadTime),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis if millis % 1000 == 0 => write!(f, "{}s", millis / 1000),
            millis => write!(f, "{millis}ms"),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(text.parse().unwrap_or(Self::BAD))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A time such as 300ms, 10s, 2m or 1h.",
            "pattern": "^[0-9]+(ms|s|m|h)$",
        })
    }
}

impl Kind for Scenario {
    const API_VERSION: &'static str = "setpoint.dev/v1";
    const KIND: &'static str = "Scenario";
    const PLURAL: &'static str = "scenarios";
    const NAMESPACED: bool = false;
    type Status = NoStatus;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn validate(&self) -> Vec<FieldError> {
        validate::errors(&self.spec)
    }
}

/// `plural/namespace/name` in parts.
pub(crate) fn object(path: &str) -> Option<(&str, setpoint_apis::ObjectKey)> {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let (plural, first) = (parts.next()?, parts.next()?);
    let key = match (parts.next(), parts.next()) {
        (None, _) => setpoint_apis::ObjectKey::cluster(first),
        (Some(name), None) => setpoint_apis::ObjectKey::namespaced(first, name),
        _ => return None,
    };
    Some((plural, key))
}

/// Reads a scenario from a file's text; `source` is how messages call it.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub fn read(source: &str, text: &str) -> Result<Scenario, Vec<Problem>> {
    let registry = Registry::builtin().clone().with::<Scenario>();
    let options = Options {
        registry: &registry,
        ..Options::default()
    };
    let manifest = strict::read_manifest(source, text, &options);
    if !manifest.errors.is_empty() {
        return Err(manifest.errors);
    }
    let problem = |line: usize, message: String| {
        vec![Problem {
            source: source.into(),
            line,
            column: 1,
            path: String::new(),
            message,
            hint: None,
        }]
    };
    let document = match &manifest.documents[..] {
        [document] => document,
        [] => {
            return Err(problem(
                1,
                "holds no document, and must hold a Scenario".into(),
            ));
        }
        [_, second, ..] => {
            let message = "holds another document, and must hold one Scenario alone";
            return Err(problem(second.line, message.into()));
        }
    };
    if document.kind.kind != Scenario::KIND {
        let message = format!("is a {}, and must be a Scenario", document.kind.kind);
        return Err(problem(document.line, message));
    }
    setpoint_apis::document::decode(document.text.as_bytes())
        .map_err(|error| problem(document.line, error.to_string()))
}

#[cfg(test)]
mod tests;
