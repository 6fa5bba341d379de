//! `setpoint logs`: what containers write, from the agent's files on the same machine or over its endpoint.

mod source;
mod tls;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;
use setpoint_apis::LabelSelector;
use setpoint_apis::time::Timestamp;
use setpoint_store::config;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::context::Context;
use crate::kinds;
use crate::object::Object;
use crate::resolve;
use crate::select::SelectArgs;
use crate::term;
use source::{Nodes, Source};

/// How many logs are followed at once, unless more are asked for.
const MAX_FOLLOWED: usize = 5;

/// How many lines of each log are shown for a selector, as kubectl.
const SELECTED_TAIL: usize = 10;

/// The label of a Job's pods that says whose they are.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// Flags of `setpoint logs`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogsArgs {
    /// POD, TYPE/NAME, and possibly the container
    #[arg(value_name = "POD")]
    words: Vec<String>,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// All containers of the pod
    #[arg(long)]
    all_containers: bool,
    /// Stay, and show what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// The run before the present one
    #[arg(short, long)]
    previous: bool,
    /// Only so many lines from the end; -1 all
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what is no older than this
    #[arg(long, value_name = "DURATION", value_parser = super::duration, conflicts_with = "since_time")]
    since: Option<Duration>,
    /// Only what was written from this time on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<Timestamp>,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// Begin each line with its pod and container
    #[arg(long)]
    prefix: bool,
    /// How many logs may be followed at once
    #[arg(long, default_value_t = MAX_FOLLOWED, value_name = "NUMBER")]
    max_log_requests: usize,
    #[command(flatten)]
    select: SelectArgs,
}

/// Runs the command.
pub(crate) async fn run(args: LogsArgs, context: &mut Context) -> Result<()> {
    let client = context.client().await?;
    let namespace = context.namespace()?;
    let (pods, container) = pods(&args, &client, &namespace).await?;
    let selected = args.select.is_given();
    let all = args.all_containers;
    let mut wanted: Vec<(Object, String)> = Vec::new();
    for pod in pods {
        for name in containers(&pod, container.as_deref(), all)? {
            wanted.push((pod.clone(), name));
        }
    }
    if args.follow && wanted.len() > args.max_log_requests {
        bail!(
            "{} logs are to be followed at once, the most is {}; --max-log-requests raises it",
            wanted.len(),
            args.max_log_requests
        );
    }
    let options = source::Options {
        follow: args.follow,
        previous: args.previous,
        tail: match args.tail {
            Some(lines) => usize::try_from(lines).ok(),
            None => selected.then_some(SELECTED_TAIL),
        },
        since: args
            .since_time
            .or_else(|| args.since.map(|d| context.now().saturating_sub(d))),
        timestamps: args.timestamps,
    };
    let nodes = Nodes::new(config::load(&context.global().flags())?.options.tls);
    let several = wanted.len() > 1;
    let mut sources = Vec::new();
    for (pod, name) in wanted {
        let opened = nodes.open(&client, &pod, &name, &options).await;
        let opened =
            opened.with_context(|| format!("container {name:?} of pod {:?}", &*pod.key.name));
        match opened {
            Ok(source) => sources.push((format!("[pod/{}/{name}] ", pod.key.name), source)),
            // One of several that has no log is no reason to show none.
            Err(error) if several => term::warn(term::chain(&error)),
            Err(error) => return Err(error),
        }
    }
    if args.follow && sources.len() > 1 {
        together(context, sources, args.prefix).await
    } else {
        for (label, mut source) in sources {
            let mut lines = Labelled::new(args.prefix.then_some(label));
            while let Some(chunk) = source.next().await? {
                lines.write(context, &chunk)?;
            }
        }
        Ok(())
    }
}

/// Follows several logs: each chunk as it comes.
async fn together(
    context: &mut Context,
    sources: Vec<(String, Source)>,
    names: bool,
) -> Result<()> {
    let (sender, mut receiver) = mpsc::channel(16);
    let count = sources.len();
    let mut lines: Vec<Labelled> = Vec::with_capacity(count);
    for (i, (label, mut source)) in sources.into_iter().enumerate() {
        lines.push(Labelled::new(names.then_some(label)));
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                let next = source.next().await;
                let last = !matches!(next, Ok(Some(_)));
                if sender.send((i, next)).await.is_err() || last {
                    return;
                }
            }
        });
    }
    drop(sender);
    while let Some((i, next)) = receiver.recv().await {
        match next {
            Ok(Some(chunk)) => lines[i].write(context, &chunk)?,
            Ok(None) => {}
            Err(error) => term::warn(term::chain(&error)),
        }
    }
    Ok(())
}

/// Writes chunks, each line with a label when there is one.
struct Labelled {
    label: Option<String>,
    in_line: bool,
}

impl Labelled {
    fn new(label: Option<String>) -> Self {
        Self {
            label,
            in_line: false,
        }
    }

    fn write(&mut self, context: &mut Context, chunk: &[u8]) -> Result<()> {
        match &self.label {
            None => context.out.bytes(chunk),
            Some(label) => {
                for line in chunk.split_inclusive(|b| *b == b'\n') {
                    if !self.in_line {
                        context.out.bytes(label.as_bytes());
                    }
                    context.out.bytes(line);
                    self.in_line = !line.ends_with(b"\n");
                }
            }
        }
        Ok(context.out.flush()?)
    }
}

/// The pods that are meant, and the container when it stands behind the pod.
async fn pods(
    args: &LogsArgs,
    client: &Client,
    namespace: &str,
) -> Result<(Vec<Object>, Option<String>)> {
    let kind = kinds::builtin("pods");
    let filter = args.select.filter()?;
    if args.select.is_given() {
        if !args.words.is_empty() {
            bail!("a pod and a selector exclude each other");
        }
        filter.check(&kind)?;
        let mut pods = client.list(kind, Some(namespace)).await?.objects;
        pods.retain(|p| filter.matches(p));
        if pods.is_empty() {
            bail!("No resources found in {namespace} namespace.");
        }
        return Ok((pods, args.container.clone()));
    }
    let (words, container) = match args.words.as_slice() {
        [] => bail!("a pod is needed: POD or TYPE/NAME"),
        [one] => (vec![one.clone()], args.container.clone()),
        [one, container] if args.container.is_none() => {
            (vec![one.clone()], Some(container.clone()))
        }
        _ => bail!("one pod is needed: POD [CONTAINER]"),
    };
    let (found, key) = resolve::pod_or_owner(client, &words, namespace).await?;
    let object = client.find(found, &key).await?;
    let object =
        object.with_context(|| format!("{} {:?} not found", found.full_plural(), &*key.name))?;
    if found.plural == "pods" {
        return Ok((vec![object], container));
    }
    let selector = match found.plural {
        "services" => object
            .at(&["spec", "selector"])
            .map(|s| serde_json::json!({ "matchLabels": s })),
        // One that says none has its pods by its uid.
        "jobs" => Some(object.at(&["spec", "selector"]).cloned().unwrap_or_else(
            || serde_json::json!({ "matchLabels": { CONTROLLER_UID: object.uid() } }),
        )),
        "cronjobs" => bail!(
            "{} has no pods of its own, its jobs have: `setpoint get jobs` lists them, `setpoint logs job/NAME` shows one's",
            object.full_name()
        ),
        _ => object.at(&["spec", "selector"]).cloned(),
    };
    let selector = selector.with_context(|| format!("{} have no pods", found.plural))?;
    let selector: LabelSelector =
        serde_json::from_value(selector).context("reading its selector")?;
    let mut pods = client.list(kind, Some(namespace)).await?.objects;
    pods.retain(|p| selector.matches(&p.labels()));
    // Those that are ready first, then the oldest.
    pods.sort_by_key(|p| {
        (
            p.condition("Ready").is_none_or(|c| c["status"] != "True"),
            p.revisions.map(|r| r.created),
        )
    });
    match pods.len() {
        0 => bail!("{} has no pods", object.full_name()),
        1 => {}
        n => term::note(format_args!(
            "Found {n} pods, using pod/{}",
            pods[0].key.name
        )),
    }
    pods.truncate(1);
    Ok((pods, container))
}

/// The containers whose logs are meant.
fn containers(pod: &Object, wanted: Option<&str>, all: bool) -> Result<Vec<String>> {
    let names = |spec: &str, status: &str| -> Vec<String> {
        let listed = pod.list_at(&["spec", spec]);
        // Without its document a pod is known by its report.
        let listed = if listed.is_empty() {
            pod.list_at(&["status", status])
        } else {
            listed
        };
        listed
            .iter()
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect()
    };
    let (inits, mains) = (
        names("initContainers", "initContainerStatuses"),
        names("containers", "containerStatuses"),
    );
    if let Some(wanted) = wanted {
        if inits.iter().chain(&mains).any(|n| n == wanted) {
            return Ok(vec![wanted.to_owned()]);
        }
        let known: Vec<String> = mains.into_iter().chain(inits).collect();
        bail!(
            "container {wanted} is not valid for pod {}; it has {}",
            pod.key.name,
            known.join(", ")
        );
    }
    if all {
        return Ok(inits.into_iter().chain(mains).collect());
    }
    let marked = pod.text_at(&[
        "metadata",
        "annotations",
        "kubectl.kubernetes.io/default-container",
    ]);
    match mains.as_slice() {
        [] => bail!("nothing is known of the containers of pod {}", pod.key.name),
        _ if mains.iter().any(|n| n == marked) => Ok(vec![marked.to_owned()]),
        [one] => Ok(vec![one.clone()]),
        [first, ..] => {
            term::note(format_args!(
                "Defaulted container {first:?} out of: {}",
                mains.join(", ")
            ));
            Ok(vec![first.clone()])
        }
    }
}

/// Why a container has no log yet, from its status.
fn why_no_log(pod: &Object, container: &str, previous: bool) -> String {
    if previous {
        return format!("previous terminated container {container:?} not found");
    }
    let all = pod
        .list_at(&["status", "containerStatuses"])
        .iter()
        .chain(pod.list_at(&["status", "initContainerStatuses"]));
    let status = all
        .clone()
        .find(|c| c["name"] == container)
        .unwrap_or(&Value::Null);
    match status["state"]["waiting"]["reason"].as_str() {
        Some(reason) => format!("it is waiting to start: {reason}"),
        None => "it has not written anything that is kept".to_owned(),
    }
}
