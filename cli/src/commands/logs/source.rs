//! Where a log is read from: the agent's files when they are on this machine, else the agent's endpoint.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use reqwest::{StatusCode, Url};
use setpoint_agent::layout::DataDir;
use setpoint_agent::logs::{LogFollower, LogOptions, LogReader};
use setpoint_apis::records::{Binding, NodeStatusRecord, PodActual};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Key, document};
use setpoint_store::etcd::TlsOptions;

use super::{tls, why_no_log};
use crate::client::Client;
use crate::object::Object;

/// What of a log to show.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) tail: Option<usize>,
    pub(super) since: Option<Timestamp>,
    pub(super) timestamps: bool,
}

/// A log, chunk by chunk.
pub(super) enum Source {
    /// A file on this machine, to its present end.
    File(Box<LogReader>),
    /// A file on this machine, as it grows.
    Follow(Box<LogFollower>),
    /// An agent's answer.
    Http {
        /// The answer.
        answer: reqwest::Response,
        /// Who gives it.
        endpoint: String,
    },
}

impl Source {
    /// The next lines; `None` when there will be no more.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match self {
            Self::File(reader) => reader.next_chunk().context("reading the log"),
            Self::Follow(follower) => follower.next_chunk().await.context("following the log"),
            Self::Http { answer, endpoint } => Ok(answer
                .chunk()
                .await
                .with_context(|| format!("reading the answer of the agent at {endpoint}"))?
                .map(|b| b.to_vec())),
        }
    }
}

/// Finds logs on nodes.
pub(super) struct Nodes {
    /// This machine's id; empty when it has none.
    machine_id: String,
    /// The certificates that lead to etcd: they lead to agents too.
    tls: Option<TlsOptions>,
}

impl Nodes {
    /// Agents beyond this machine are asked with these certificates.
    pub(super) fn new(tls: Option<TlsOptions>) -> Self {
        let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Self {
            machine_id: id.trim().to_owned(),
            tls,
        }
    }

    /// Opens the log of a container.
    pub(super) async fn open(
        &self,
        client: &Client,
        pod: &Object,
        container: &str,
        options: &Options,
    ) -> Result<Source> {
        let node = pod.text_at(&["spec", "nodeName"]);
        if node.is_empty() {
            let why = pod
                .condition("PodScheduled")
                .and_then(|c| c["message"].as_str())
                .unwrap_or("it has not been placed on a node");
            bail!("there is no log: {why}");
        }
        let keys = [
            Key::NodeStatus(node),
            Key::NodePod(node, pod.key.clone()),
            Key::Binding(pod.key.clone()),
        ];
        let [status, actual, binding] = &keys;
        let ((status, _), (actual, _), (binding, _)) =
            tokio::try_join!(client.get(status), client.get(actual), client.get(binding))?;
        let status: NodeStatusRecord = match status {
            Some(kv) => document::decode_value(&kv.value)
                .with_context(|| format!("reading the status of node {node}"))?,
            None => bail!("node {node} has not reported"),
        };
        let actual: Option<PodActual> =
            actual.and_then(|kv| document::decode_value(&kv.value).ok());
        let Some(actual) = actual else {
            let bound: Option<Binding> =
                binding.and_then(|kv| document::decode_value(&kv.value).ok());
            let since = bound
                .map(|b| format!(" since {}", b.bound_at.whole_seconds()))
                .unwrap_or_default();
            bail!("there is no log: the pod is waiting for node {node}{since}");
        };
        if let Some(dir) = self.local(&status) {
            return local(dir, pod, &actual, container, options);
        }
        let endpoint = status.endpoint.as_deref();
        let endpoint = endpoint.with_context(|| {
            format!("node {node} is another machine, and its agent serves no logs")
        })?;
        self.remote(endpoint, pod, &actual, container, options)
            .await
    }

    /// The agent's data directory when it is on this machine and may be read.
    fn local<'a>(&self, status: &'a NodeStatusRecord) -> Option<&'a Path> {
        let dir = Path::new(status.data_dir.as_deref()?);
        let here = !self.machine_id.is_empty() && status.node_info.machine_id == self.machine_id;
        (here && std::fs::read_dir(dir.join("pods")).is_ok()).then_some(dir)
    }

    async fn remote(
        &self,
        endpoint: &str,
        pod: &Object,
        actual: &PodActual,
        container: &str,
        options: &Options,
    ) -> Result<Source> {
        let url = url(endpoint, actual, container, options)?;
        let has_certificate = self.tls.as_ref().is_some_and(|tls| tls.client.is_some());
        let answer = tls::client(endpoint, self.tls.as_ref())?
            .get(url)
            .send()
            .await
            .map_err(|error| tls::explain(error, endpoint, has_certificate))?;
        match answer.status() {
            status if status.is_success() => Ok(Source::Http {
                answer,
                endpoint: endpoint.to_owned(),
            }),
            StatusCode::NOT_FOUND => bail!("{}", why_no_log(pod, container, options.previous)),
            status => {
                let words = answer.text().await.unwrap_or_default();
                bail!(
                    "the agent at {endpoint} answered {status}: {}",
                    words.trim()
                )
            }
        }
    }
}

fn local(
    dir: &Path,
    pod: &Object,
    actual: &PodActual,
    container: &str,
    options: &Options,
) -> Result<Source> {
    let place = DataDir::new(dir).pod(&actual.uid, actual.placement);
    let found = place.find_log(container, options.previous);
    let Some(found) = found else {
        bail!("{}", why_no_log(pod, container, options.previous))
    };
    let log = LogOptions {
        tail: options.tail,
        since: options.since.map(nanos),
        timestamps: options.timestamps,
    };
    let reading = || format!("opening {}", found.log.display());
    Ok(if options.follow && !options.previous {
        Source::Follow(Box::new(
            LogFollower::open(&found.log, &log, Some(found.exit_record.clone()))
                .with_context(reading)?,
        ))
    } else {
        Source::File(Box::new(
            LogReader::open(&found.log, &log).with_context(reading)?,
        ))
    })
}

fn url(endpoint: &str, actual: &PodActual, container: &str, options: &Options) -> Result<Url> {
    let mut url =
        Url::parse(endpoint).with_context(|| format!("the agent's endpoint {endpoint:?}"))?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend([
            "logs",
            &actual.uid,
            &actual.placement.to_string(),
            container,
        ]);
    }
    let mut query = url.query_pairs_mut();
    for (name, set) in [
        ("follow", options.follow && !options.previous),
        ("previous", options.previous),
        ("timestamps", options.timestamps),
    ] {
        if set {
            query.append_pair(name, "true");
        }
    }
    if let Some(lines) = options.tail {
        query.append_pair("tail", &lines.to_string());
    }
    if let Some(since) = options.since {
        query.append_pair("since", &nanos(since).to_string());
    }
    drop(query);
    Ok(url)
}

fn nanos(time: Timestamp) -> i64 {
    time.as_unix_millis().saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_asked_for_what_was_asked_for() {
        let actual = PodActual {
            uid: "a/b".into(),
            placement: 2,
            ..PodActual::default()
        };
        let mut options = Options {
            follow: true,
            previous: false,
            tail: Some(5),
            since: Some(Timestamp::from_unix_seconds(1)),
            timestamps: true,
        };
        let text = |o: &Options| {
            url("http://127.0.0.1:1", &actual, "c", o)
                .unwrap()
                .to_string()
        };
        assert_eq!(
            text(&options),
            "http://127.0.0.1:1/logs/a%2Fb/2/c?follow=true&timestamps=true&tail=5&since=1000000000"
        );
        options.previous = true;
        assert!(!text(&options).contains("follow"));
    }
}
