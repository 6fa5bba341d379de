//! What is wrong with a scenario beyond its shape: names that do not exist, shares over 1, manifests that nobody would
//! take. Each finding names its field, so that the reader shows its line.

use std::collections::BTreeSet;
use std::time::Duration;

use setpoint_apis::kind::FieldError;
use setpoint_apis::strict::{self, Options};
use setpoint_controllers::{Name, Shardable};

use super::{AtWrite, BadTime, Event, Network, ScenarioSpec, Time, object};

/// What is simulated is kept in memory, and time with it: a day of 5,000 nodes is beyond use already.
const MOST_NODES: u32 = 5000;
const MOST_CONTROLLERS: u32 = 100;
/// etcd grants leases in whole seconds.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

pub(super) fn errors(spec: &ScenarioSpec) -> Vec<FieldError> {
    let mut found = Found(Vec::new());
    found.times(spec);
    let known = found.processes(spec);
    found.network("spec.network", &spec.network);
    for (i, event) in spec.timeline.iter().enumerate() {
        found.event(&format!("spec.timeline[{i}]"), event, &known);
    }
    for (i, at) in spec.at_writes.iter().enumerate() {
        found.at_write(&format!("spec.atWrites[{i}]"), at);
    }
    found.0
}

struct Found(Vec<FieldError>);

impl Found {
    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(path, message));
    }

    fn at_write(&mut self, path: &str, at: &AtWrite) {
        let mut names = Name::ALL.iter().map(|name| name.as_str());
        if names.all(|name| name != at.controller) {
            let message = format!("there is no controller {:?}", at.controller);
            self.error(format!("{path}.controller"), message);
        }
        if at.write == 0 {
            self.error(format!("{path}.write"), "must be at least 1");
        }
    }

    /// Every time that is none.
    fn times(&mut self, spec: &ScenarioSpec) {
        let mut times = vec![
            ("spec.controllers.lease".to_owned(), spec.controllers.lease),
            ("spec.clockError".to_owned(), spec.clock_error),
            ("spec.settle".to_owned(), spec.settle),
            ("spec.quiet".to_owned(), spec.quiet),
        ];
        let network = |path: &str, network: &Network| {
            [
                ("minDelay", network.min_delay),
                ("maxDelay", network.max_delay),
                ("watchDelay", network.watch_delay.unwrap_or_default()),
            ]
            .map(|(field, time)| (format!("{path}.{field}"), time))
        };
        times.extend(network("spec.network", &spec.network));
        for (i, group) in spec.nodes.iter().enumerate() {
            for (field, time) in [
                ("startLatency", group.start_latency),
                ("stopLatency", group.stop_latency),
                ("lease", group.lease),
            ] {
                times.push((format!("spec.nodes[{i}].{field}"), time));
            }
        }
        for (i, event) in spec.timeline.iter().enumerate() {
            let path = format!("spec.timeline[{i}]");
            times.push((format!("{path}.at"), event.at));
            times.extend(event.lasts.map(|time| (format!("{path}.for"), time)));
            let weather = event.network.as_ref();
            times.extend(
                weather
                    .into_iter()
                    .flat_map(|n| network(&format!("{path}.network"), n)),
            );
        }
        for (path, _) in times.into_iter().filter(|(_, time)| time.is_bad()) {
            self.error(path, BadTime.to_string());
        }
    }

    /// The names of all processes.
    fn processes(&mut self, spec: &ScenarioSpec) -> BTreeSet<String> {
        let replicas = spec.controllers.replicas;
        if replicas > MOST_CONTROLLERS {
            let message = format!("must be at most {MOST_CONTROLLERS}");
            self.error("spec.controllers.replicas", message);
        }
        self.lease("spec.controllers.lease", spec.controllers.lease);
        for (i, name) in spec.controllers.shard.iter().enumerate() {
            if let Err(error) = name.parse::<Shardable>() {
                self.error(format!("spec.controllers.shard[{i}]"), error.to_string());
            }
        }
        let mut known: BTreeSet<String> = (0..replicas.min(MOST_CONTROLLERS))
            .map(|i| format!("controllers-{i}"))
            .collect();
        let mut nodes = 0_u32;
        for (i, group) in spec.nodes.iter().enumerate() {
            let path = format!("spec.nodes[{i}]");
            nodes = nodes.saturating_add(group.count);
            if nodes > MOST_NODES {
                let message = format!("there must be at most {MOST_NODES} nodes in all");
                self.error(format!("{path}.count"), message);
                return known;
            }
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if group.name == "controllers" {
                self.error(format!("{path}.name"), "is what the controllers are called");
            } else if !group.name.starts_with(|c: char| c.is_ascii_lowercase())
                || !group.name.chars().all(word)
                || group.name.len() > 50
            {
                let message = "must be lower-case letters, digits and dashes, at most 50, and begin with a letter";
                self.error(format!("{path}.name"), message);
            }
            self.lease(format!("{path}.lease"), group.lease);
            let names = (0..group.count).map(|n| format!("{}-{n}", group.name));
            let before = known.len();
            known.extend(names);
            if known.len() - before < usize::try_from(group.count).unwrap_or(usize::MAX) {
                let message = "another group of nodes has nodes of the same name";
                self.error(format!("{path}.name"), message);
            }
        }
        if nodes == 0 {
            self.error("spec.nodes", "must have at least one node");
        }
        known
    }

    fn lease(&mut self, path: impl Into<String>, lease: Time) {
        if lease.get() < SHORTEST_LEASE {
            self.error(path, "must be at least 1s");
        }
    }

    fn network(&mut self, path: &str, network: &Network) {
        for (field, share) in [
            ("lostRequests", network.lost_requests),
            ("lostAnswers", network.lost_answers),
            ("lateWrites", network.late_writes),
            ("brokenWatches", network.broken_watches),
        ] {
            if !(0.0..=1.0).contains(&share) {
                let message = format!("is a probability, between 0 and 1, and not {share}");
                self.error(format!("{path}.{field}"), message);
            }
        }
        let both = !network.min_delay.is_bad() && !network.max_delay.is_bad();
        if both && network.min_delay > network.max_delay {
            let message = format!("is more than maxDelay, {}", network.max_delay);
            self.error(format!("{path}.minDelay"), message);
        }
    }

    fn event(&mut self, path: &str, event: &Event, known: &BTreeSet<String>) {
        for (field, names) in event.processes() {
            for (i, name) in names
                .iter()
                .enumerate()
                .filter(|(_, n)| !known.contains(*n))
            {
                let path = format!("{path}.{field}[{i}]");
                self.unknown(path, "process", name, known.iter().map(String::as_str));
            }
        }
        if let Some(network) = &event.network {
            self.network(&format!("{path}.network"), network);
        }
        for (field, paths) in [("delete", &event.delete), ("corrupt", &event.corrupt)] {
            let bad = |path: &str| !path.starts_with('/') && object(path).is_none();
            for (i, text) in paths.iter().enumerate().filter(|(_, path)| bad(path)) {
                let message = format!("{text:?} is neither plural/namespace/name nor a whole key");
                self.error(format!("{path}.{field}[{i}]"), message);
            }
        }
        if event.lasts.is_some() && !event.ends() {
            let message = "nothing that happens here can be undone: only faults can";
            self.error(format!("{path}.for"), message);
        }
        for (i, manifest) in event.apply.iter().enumerate() {
            self.manifest(&format!("{path}.apply[{i}]"), manifest);
        }
    }

    /// Reads a manifest as `setpoint apply` does.
    fn manifest(&mut self, path: &str, manifest: &serde_json::Value) {
        let read = strict::read_manifest("", &manifest.to_string(), &Options::default());
        for problem in read.errors {
            let hint = problem
                .hint
                .map(|hint| format!(" (did you mean {hint:?}?)"));
            let dot = if problem.path.is_empty() { "" } else { "." };
            self.error(
                format!("{path}{dot}{}", problem.path),
                format!("{}{}", problem.message, hint.unwrap_or_default()),
            );
        }
    }

    fn unknown<'a>(
        &mut self,
        path: String,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) {
        let hint = strict::nearest(name, known).map(|near| format!(" (did you mean {near:?}?)"));
        let hint = hint.unwrap_or_default();
        self.error(
            path,
            format!("there is no {what} {name:?} in this scenario{hint}"),
        );
    }
}
