//! `setpoint move` and `setpoint evict`: requests to the scheduler to take a pod elsewhere.
//!
//! A request is a key of its own, which the scheduler acts on and removes. What it makes of a request to move is in the
//! pod's binding: the move in progress, and what became of the last one, each with the revision of its request.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::records::{
    Binding, Intent, MOST_MOVE_SECONDS, MOVE_TIMEOUT_SECONDS, MoveOutcome, MoveResult,
};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Key, ObjectKey, document, strict};
use setpoint_store::{Compare, KeyValue, Put, Revision, Txn, TxnOp};
use tokio::time::Instant;

use crate::client::Client;
use crate::context::Context;
use crate::kinds;
use crate::object::Object;
use crate::printers::columns;
use crate::resolve;
use crate::term;

/// Who asks, in the request's key: one request of this program for each pod.
const BY: &str = "cli";
/// A request that nothing is written for goes away without a trace in what is watched.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the scheduler may take beside what the request gives the pod.
const GRACE: Duration = Duration::from_secs(30);

/// Flags of `setpoint move`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MoveArgs {
    /// pod/NAME, pod NAME, or the name of a pod
    #[arg(required = true, value_name = "POD")]
    words: Vec<String>,
    /// The node that it is to go to; without it the scheduler chooses
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// How long it may take to become ready there; then it stays where it is. Of a pod that is stopped first (a member of a
    /// StatefulSet, one with restartPolicy other than Always, or with partition policy stop) nothing is undone, however
    /// long it takes
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
    /// How long it must have been ready there before it is stopped where it is; no effect on pods that are stopped first
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = super::duration)]
    min_ready: Duration,
    #[command(flatten)]
    common: CommonArgs,
}

/// Flags of `setpoint evict`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvictArgs {
    /// pod/NAME, pod NAME, or the name of a pod
    #[arg(required = true, value_name = "POD")]
    words: Vec<String>,
    /// With --wait: give up waiting after so long; the request stays
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args, Clone, Debug)]
struct CommonArgs {
    /// Why, for events and for people
    #[arg(
        long,
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true
    )]
    reason: String,
    /// Do it although a disruption budget forbids it
    #[arg(long)]
    ignore_budgets: bool,
    /// Wait for what becomes of it, and fail when it comes to nothing
    #[arg(long)]
    wait: bool,
}

/// Runs `setpoint move`.
pub(crate) async fn run_move(args: MoveArgs, context: &mut Context) -> Result<()> {
    let timeout = whole_seconds("--timeout", args.timeout)?;
    let min_ready = whole_seconds("--min-ready", args.min_ready)?;
    if !(1..=MOST_MOVE_SECONDS).contains(&timeout) {
        bail!("--timeout must be between 1s and 24h");
    }
    if min_ready >= timeout {
        bail!("--min-ready must be less than --timeout");
    }
    let namespace = context.namespace()?;
    let client = context.client().await?;
    let target = target(&client, "move", &args.words, &namespace).await?;
    if let Some(to) = &args.to {
        check_node(&client, to).await?;
        if *to == target.binding.node {
            bail!("{} is on {to} already", target.name());
        }
    }
    let intent = Intent {
        to: args.to.clone(),
        timeout_seconds: (timeout != MOVE_TIMEOUT_SECONDS).then_some(timeout),
        min_ready_seconds: (min_ready > 0).then_some(min_ready),
        ..target.intent(&args.common, context.now())
    };
    let request = ask(&client, "move", &target, &intent).await?;
    let goal = args.to.as_deref().unwrap_or("another node");
    context.out.line(format_args!(
        "{} is to be moved from {} to {goal}",
        target.name(),
        target.binding.node
    ));
    context.out.flush()?;
    warn_without_scheduler(&client).await?;
    if !args.common.wait {
        return Ok(());
    }
    let limit = args.timeout + GRACE;
    let moved = wait_for_move(&client, &target, request, limit, context).await?;
    context.out.line(moved);
    Ok(())
}

/// Runs `setpoint evict`.
pub(crate) async fn run_evict(args: EvictArgs, context: &mut Context) -> Result<()> {
    let namespace = context.namespace()?;
    let client = context.client().await?;
    let target = target(&client, "evict", &args.words, &namespace).await?;
    let intent = target.intent(&args.common, context.now());
    let request = ask(&client, "evict", &target, &intent).await?;
    context.out.line(format_args!(
        "{} is to be evicted from {}",
        target.name(),
        target.binding.node
    ));
    context.out.flush()?;
    warn_without_scheduler(&client).await?;
    if !args.common.wait {
        return Ok(());
    }
    let left = wait_for_eviction(&client, &target, request, args.timeout).await?;
    context.out.line(left);
    Ok(())
}

/// The pod that is meant, as it is now.
struct Target {
    key: ObjectKey,
    binding: Binding,
    uid: String,
    /// The create revision of its document.
    created: i64,
}

/// A request as it was written.
#[derive(Clone, Copy)]
struct Request {
    revision: Revision,
}

impl Target {
    fn name(&self) -> String {
        kinds::builtin("pods").full_name(&self.key.name)
    }

    fn intent(&self, args: &CommonArgs, now: Timestamp) -> Intent {
        Intent {
            node: Some(self.binding.node.clone()),
            uid: Some(self.uid.clone()).filter(|uid| !uid.is_empty()),
            reason: args.reason.clone(),
            ignore_budgets: args.ignore_budgets,
            at: Some(now.whole_seconds()),
            ..Intent::default()
        }
    }

    fn intent_key(&self, client: &Client, verb: &str) -> String {
        client.key(&Key::Intent {
            verb,
            pod: self.key.clone(),
            by: BY,
        })
    }
}

/// Reads the pod that words name, and where it is.
async fn target(client: &Client, verb: &str, words: &[String], namespace: &str) -> Result<Target> {
    if let [one] = words
        && kinds::by_word(one).is_some()
    {
        bail!("a name is needed: setpoint {verb} pod/NAME");
    }
    let (kind, key) = resolve::pod_or_owner(client, words, namespace).await?;
    if kind.plural != "pods" {
        bail!(
            "{} is no pod; `setpoint get pods` lists the pods that belong to it",
            kind.full_name(&key.name)
        );
    }
    let Some(pod) = client.find(kind, &key).await? else {
        bail!("{}", not_found(client, &key).await?);
    };
    let name = pod.full_name();
    let Some(created) = pod.revisions.map(|r| r.created) else {
        bail!("{name} is deleted already, and stops");
    };
    let (stored, _) = client.get(&Key::Binding(key.clone())).await?;
    let Some(stored) = stored else {
        bail!("{name} is on no node yet; `setpoint why {name}` says why");
    };
    let binding = binding(&name, &stored)?;
    if let Some(withdrawn) = &binding.withdrawn {
        bail!(
            "{name} is leaving {} already: {}",
            binding.node,
            withdrawn.reason
        );
    }
    if matches!(pod.text_at(&["status", "phase"]), "Succeeded" | "Failed") {
        bail!(
            "{name} has ended on {}: there is nothing to {verb}",
            binding.node
        );
    }
    Ok(Target {
        uid: pod.uid().to_owned(),
        key,
        binding,
        created,
    })
}

fn binding(name: &str, stored: &KeyValue) -> Result<Binding> {
    match document::decode_value(&stored.value) {
        Ok(binding) => Ok(binding),
        Err(error) => bail!("the binding of {name} cannot be read: {error}"),
    }
}

async fn not_found(client: &Client, key: &ObjectKey) -> Result<String> {
    let pods = client
        .list(kinds::builtin("pods"), Some(&key.namespace))
        .await?;
    let names = pods.objects.iter().map(|pod| &*pod.key.name);
    let near = strict::nearest(&key.name, names);
    Ok(format!(
        "pods {:?} not found in namespace {:?}{}",
        &*key.name,
        &*key.namespace,
        near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
    ))
}

async fn check_node(client: &Client, name: &str) -> Result<()> {
    let nodes = client.list(kinds::builtin("nodes"), None).await?.objects;
    if nodes.iter().any(|node| *node.key.name == *name) {
        return Ok(());
    }
    let near = strict::nearest(name, nodes.iter().map(|node| &*node.key.name));
    bail!(
        "nodes {name:?} not found{}",
        near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
    )
}

/// Writes the request.
async fn ask(client: &Client, verb: &str, target: &Target, intent: &Intent) -> Result<Request> {
    let put = Put {
        key: target.intent_key(client, verb),
        value: document::encode(intent).into(),
        lease: None,
    };
    let pod = client.key(&Key::Desired("pods", target.key.clone()));
    let mut txn = Txn::new().when(Compare::CreateRevision(pod, target.created));
    txn.then.push(TxnOp::Put(put));
    let done = client.txn(txn).await?;
    if !done.succeeded {
        bail!("{} has just been deleted", target.name());
    }
    Ok(Request {
        revision: done.revision,
    })
}

async fn warn_without_scheduler(client: &Client) -> Result<()> {
    let (leader, _) = client.get(&Key::Leader("scheduler", None)).await?;
    if leader.is_none() {
        term::warn("no scheduler is running: the request waits until one does");
    }
    Ok(())
}

/// What is there of a request and of its pod.
struct State {
    /// The mod revision of the request, while it is there.
    asked: Option<i64>,
    binding: Option<Binding>,
    revision: Revision,
}

impl State {
    /// The request first: what removes it writes the binding in the same transaction.
    async fn read(client: &Client, verb: &str, target: &Target) -> Result<Self> {
        let key = Key::Intent {
            verb,
            pod: target.key.clone(),
            by: BY,
        };
        let (asked, revision) = client.get(&key).await?;
        let (stored, _) = client.get(&Key::Binding(target.key.clone())).await?;
        let binding = stored.map(|kv| binding(&target.name(), &kv)).transpose()?;
        Ok(Self {
            asked: asked.map(|kv| kv.mod_revision),
            binding,
            revision,
        })
    }
}

/// Waits until a move is over. Returns what to say of it.
async fn wait_for_move(
    client: &Client,
    target: &Target,
    request: Request,
    limit: Duration,
    context: &mut Context,
) -> Result<String> {
    let name = target.name();
    let mut request = request.revision.0;
    let end = Instant::now() + limit;
    let mut state = State::read(client, "move", target).await?;
    let mut changes = client
        .changes(kinds::builtin("pods"), state.revision)
        .await?;
    let mut said = false;
    loop {
        let moving = state.binding.as_ref().and_then(|b| b.moving.as_deref());
        let last = state.binding.as_ref().and_then(|b| b.last_move.as_deref());
        if let Some(last) = last.filter(|last| last.request == request) {
            let to = last.to.as_deref().unwrap_or("another node");
            return match last.outcome {
                MoveOutcome::Moved => Ok(format!("{name} moved from {} to {to}", last.from)),
                MoveOutcome::Undone => bail!(
                    "{name} was not moved to {to}: {}; it stays on {}",
                    last.message,
                    last.from
                ),
                MoveOutcome::Refused => bail!("{name} cannot be moved: {}", last.message),
                MoveOutcome::Other => bail!(
                    "{name} is on {}; a newer version of Setpoint has ended the move: {}",
                    state
                        .binding
                        .as_ref()
                        .map_or("no node", |b| b.node.as_str()),
                    last.message
                ),
            };
        }
        match (moving, state.asked) {
            (_, Some(asked)) if asked > request => {
                bail!("another request to move {name} has taken the place of this one");
            }
            (Some(moving), None) if !said => {
                // It may be somebody else's who asked for the same.
                request = moving.request;
                said = true;
                let how = match state
                    .binding
                    .as_ref()
                    .is_some_and(|b| b.withdrawn.is_some())
                {
                    true => "stops where it is first",
                    false => "starts there first",
                };
                context
                    .out
                    .line(format_args!("{name} is moving to {}: it {how}", moving.to));
                context.out.flush()?;
            }
            // One move can be the answer to several requests, and names one of them.
            (None, None) => match last.filter(|last| answers(last, target)) {
                Some(last) => {
                    let to = last.to.as_deref().unwrap_or("another node");
                    return Ok(format!("{name} moved from {} to {to}", last.from));
                }
                None => bail!("{}", gone(&name, &state)),
            },
            _ => {}
        }
        if Instant::now() >= end {
            let why = blocked(client, target, Revision(request)).await?;
            bail!(
                "{name} has not been moved within {} s{why}",
                limit.as_secs()
            );
        }
        wait(&mut changes, target, end).await?;
        state = State::read(client, "move", target).await?;
    }
}

/// Whether a move that is over took the pod away from where it was when it was asked for.
fn answers(last: &MoveResult, target: &Target) -> bool {
    last.outcome == MoveOutcome::Moved
        && last.from == target.binding.node
        && last.to.as_deref() != Some(&target.binding.node)
        && target
            .binding
            .last_move
            .as_ref()
            .is_none_or(|before| before.request < last.request)
}

/// Waits until a pod has left its node. Returns what to say of it.
async fn wait_for_eviction(
    client: &Client,
    target: &Target,
    request: Request,
    limit: Duration,
) -> Result<String> {
    let (name, node) = (target.name(), &target.binding.node);
    let end = Instant::now() + limit;
    let mut state = State::read(client, "evict", target).await?;
    let mut changes = client
        .changes(kinds::builtin("pods"), state.revision)
        .await?;
    let mut told = String::new();
    loop {
        match &state.binding {
            None => return Ok(format!("{name} was evicted from {node}")),
            Some(b) if b.placement != target.binding.placement => {
                return Ok(format!(
                    "{name} was evicted from {node}; it is on {} now",
                    b.node
                ));
            }
            Some(b) if b.withdrawn.is_none() && state.asked.is_none() => {
                bail!("{}", gone(&name, &state));
            }
            Some(_) => {}
        }
        if state.asked.is_some() {
            let why = blocked(client, target, request.revision).await?;
            if !why.is_empty() && why != told {
                term::note(format_args!("{name} is not evicted yet{why}"));
                told = why;
            }
        }
        if Instant::now() >= end {
            let what = match state.asked {
                Some(_) => format!("has not been evicted within {} s{told}", limit.as_secs()),
                None => format!("has not stopped on {node} within {} s", limit.as_secs()),
            };
            bail!("{name} {what}");
        }
        wait(&mut changes, target, end).await?;
        state = State::read(client, "evict", target).await?;
    }
}

/// Of a request that went away without effect.
fn gone(name: &str, state: &State) -> String {
    match &state.binding {
        None => format!("{name} has been deleted, or taken from its node"),
        Some(b) if b.withdrawn.is_some() => {
            let why = b.withdrawn.as_ref().map_or("", |w| w.reason.as_str());
            format!("{name} is leaving {}: {why}", b.node)
        }
        Some(b) => format!(
            "the request was dropped: {name} has ended on {0}, or is not where it was; `setpoint describe {name}` tells more",
            b.node
        ),
    }
}

/// Waits until something about the pod has changed, or it is time to look again.
async fn wait(
    changes: &mut crate::client::watch::ChangeStream<'_>,
    target: &Target,
    end: Instant,
) -> Result<()> {
    let look = end.min(Instant::now() + LOOK_EVERY);
    loop {
        tokio::select! {
            change = changes.next() => {
                if change?.keys.contains(&target.key) {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(look) => return Ok(()),
        }
    }
}

/// The budget that holds a request back, as the scheduler has said; empty when none does.
async fn blocked(client: &Client, target: &Target, request: Revision) -> Result<String> {
    let events = client
        .list(kinds::builtin("events"), Some(&target.key.namespace))
        .await?
        .objects;
    let about = |e: &&Object| {
        e.text_at(&["reason"]) == "EvictionBlocked"
            && e.text_at(&["involvedObject", "name"]) == &*target.key.name
            && e.revisions.is_some_and(|r| r.modified > request.0)
    };
    let last = events
        .iter()
        .filter(about)
        .max_by_key(|e| columns::event_time(e));
    Ok(last.map_or_else(String::new, |e| format!(": {}", e.text_at(&["message"]))))
}

fn whole_seconds(flag: &str, duration: Duration) -> Result<i64> {
    if duration.subsec_nanos() != 0 {
        bail!("{flag} must be whole seconds");
    }
    Ok(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}
