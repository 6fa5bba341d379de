//! `setpoint move`, and what it shares with `setpoint evict` and `drain`: requests to the scheduler to take a pod elsewhere.
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
use setpoint_store::{KeyValue, Revision};
use tokio::time::Instant;

use super::budgets;
use super::requests::{self, Request, Written};
use crate::client::watch::ChangeStream;
use crate::client::{Client, is_away, patiently};
use crate::context::Context;
use crate::kinds::{self, KindInfo};
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

/// The flags of every request.
#[derive(Args, Clone, Debug)]
pub(super) struct CommonArgs {
    /// Why, for events and for people
    #[arg(
        long,
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true
    )]
    pub(super) reason: String,
    /// Do it although a disruption budget forbids it
    #[arg(long)]
    pub(super) ignore_budgets: bool,
    /// Wait for what becomes of it, and fail when it comes to nothing
    #[arg(long)]
    pub(super) wait: bool,
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
    let key = named(&client, "move", &args.words, &namespace).await?;
    let target = target(&client, "move", key).await?;
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
    let request = ask(&client, "move", vec![(&target, intent)]).await?;
    let request = request.first().copied().unwrap_or_default();
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
    let budgets = !args.common.ignore_budgets;
    let moved = wait_for_move(&client, &target, request, (limit, budgets), context).await?;
    context.out.line(moved);
    Ok(())
}

/// What `--grace-period` asks for: less than 0 is the pod's own.
pub(super) fn grace_seconds(flag: i64) -> Option<i64> {
    (flag >= 0).then_some(flag)
}

/// The pod that is meant, as it is now.
pub(super) struct Target {
    pub(super) key: ObjectKey,
    pub(super) binding: Binding,
    uid: String,
    /// The create revision of its document.
    created: i64,
}

impl Target {
    pub(super) fn name(&self) -> String {
        kinds::builtin("pods").full_name(&self.key.name)
    }

    /// Whether this is its uid, as far as both are known.
    pub(super) fn is(&self, uid: &str) -> bool {
        uid.is_empty() || self.uid.is_empty() || *uid == *self.uid
    }

    pub(super) fn intent(&self, args: &CommonArgs, now: Timestamp) -> Intent {
        Intent {
            node: Some(self.binding.node.clone()),
            uid: Some(self.uid.clone()).filter(|uid| !uid.is_empty()),
            reason: args.reason.clone(),
            ignore_budgets: args.ignore_budgets,
            at: Some(now.whole_seconds()),
            ..Intent::default()
        }
    }
}

/// The pod that words name.
async fn named(
    client: &Client,
    verb: &str,
    words: &[String],
    namespace: &str,
) -> Result<ObjectKey> {
    if let [one] = words
        && kinds::by_word(one).is_some()
    {
        bail!("a name is needed: setpoint {verb} pod/NAME");
    }
    let (kind, key) = resolve::pod_or_owner(client, words, namespace).await?;
    check_is_pod(kind, &key)?;
    Ok(key)
}

/// Whether a kind is that of pods.
///
/// # Errors
/// When it is another.
pub(super) fn check_is_pod(kind: KindInfo, key: &ObjectKey) -> Result<()> {
    if kind.plural != "pods" {
        bail!(
            "{} is no pod; `setpoint get pods` lists the pods that belong to it",
            kind.full_name(&key.name)
        );
    }
    Ok(())
}

/// Reads a pod, and where it is.
///
/// # Errors
/// Why it cannot be taken from a node; when the store does not answer.
pub(super) async fn target(client: &Client, verb: &str, key: ObjectKey) -> Result<Target> {
    let kind = kinds::builtin("pods");
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

/// Whether a node exists.
///
/// # Errors
/// When it does not, with the name that is most like it.
pub(super) async fn check_node(client: &Client, name: &str) -> Result<()> {
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

/// Writes requests. Returns the revision of each.
///
/// # Errors
/// Names the pods that have just been deleted; the others are asked for. When the store does not answer.
pub(super) async fn ask(
    client: &Client,
    verb: &str,
    asked: Vec<(&Target, Intent)>,
) -> Result<Vec<Revision>> {
    let (targets, requests): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .map(|(target, intent)| {
            let request = Request {
                pod: target.key.clone(),
                created: target.created,
                intent,
            };
            (target, request)
        })
        .unzip();
    let written = requests::write(client, (verb, BY), &requests, None).await?;
    let Written::All(written) = written else {
        bail!("nothing was asked for");
    };
    let gone = targets.iter().zip(&written);
    let gone: Vec<_> = gone
        .filter(|(_, revision)| revision.is_none())
        .map(|(target, _)| format!("{} has just been deleted", target.name()))
        .collect();
    if !gone.is_empty() {
        bail!("{}", gone.join("\nerror: "));
    }
    Ok(written.into_iter().flatten().collect())
}

/// Says so when nobody acts on requests. Returns whether somebody does.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn warn_without_scheduler(client: &Client) -> Result<bool> {
    let (leader, _) = client.get(&Key::Leader("scheduler", None)).await?;
    if leader.is_none() {
        term::warn("no scheduler is running: the request waits until one does");
    }
    Ok(leader.is_some())
}

/// What is there of a request and of its pod.
pub(super) struct State {
    /// The mod revision of the request, while it is there.
    pub(super) asked: Option<i64>,
    pub(super) binding: Option<Binding>,
    pub(super) revision: Revision,
}

impl State {
    /// The request first: what removes it writes the binding in the same transaction.
    pub(super) async fn read(client: &Client, verb: &str, target: &Target) -> Result<Self> {
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

    /// As [`State::read`], when etcd may be away for a while, until `end` at most.
    pub(super) async fn read_patiently(
        client: &Client,
        verb: &str,
        target: &Target,
        end: Instant,
    ) -> Result<Self> {
        let goes_on = "the request stands, and is waited for";
        patiently(end, goes_on, async || {
            Self::read(client, verb, target).await
        })
        .await
    }
}

/// Waits until a move is over, so long at most; `budgets` may hold it back. Returns what to say of it.
async fn wait_for_move(
    client: &Client,
    target: &Target,
    request: Revision,
    (limit, budgets): (Duration, bool),
    context: &mut Context,
) -> Result<String> {
    let name = target.name();
    let mut request = request.0;
    let end = Instant::now() + limit;
    let mut state = State::read_patiently(client, "move", target, end).await?;
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
            let held = match (&state.asked, &state.binding) {
                (Some(_), Some(binding)) if budgets => {
                    budgets::hold_back(client, &target.key, binding).await?
                }
                _ => None,
            };
            let why = held.map_or_else(String::new, |held| format!(": {}", held.message));
            bail!(
                "{name} has not been moved within {} s{why}",
                limit.as_secs()
            );
        }
        state = next(&mut changes, client, ("move", target), end).await?;
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

/// Of a request that went away without effect.
pub(super) fn gone(name: &str, state: &State) -> String {
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

/// Waits until something about the pod has changed, or it is time to look again, and looks.
///
/// # Errors
/// When the store does not answer until `end`.
pub(super) async fn next(
    changes: &mut ChangeStream<'_>,
    client: &Client,
    (verb, target): (&str, &Target),
    end: Instant,
) -> Result<State> {
    match wait(changes, target, end).await {
        Err(error) if !is_away(&error) => return Err(error),
        _ => {}
    }
    State::read_patiently(client, verb, target, end).await
}

/// Waits until something about the pod has changed, or it is time to look again.
///
/// # Errors
/// When the store does not answer for a while.
async fn wait(changes: &mut ChangeStream<'_>, target: &Target, end: Instant) -> Result<()> {
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

fn whole_seconds(flag: &str, duration: Duration) -> Result<i64> {
    if duration.subsec_nanos() != 0 {
        bail!("{flag} must be whole seconds");
    }
    Ok(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}
