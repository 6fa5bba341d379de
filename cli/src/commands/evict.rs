//! `setpoint evict`: requests to the scheduler to stop pods where they are and to place them again.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use futures::stream::{FuturesUnordered, StreamExt};
use setpoint_apis::ObjectKey;
use setpoint_apis::records::Intent;
use tokio::time::Instant;

mod answers;

use super::budgets::{self, Held};
use super::displace::{self, CommonArgs, State, Target};
use crate::client::{Client, is_away};
use crate::context::Context;
use crate::kinds;
use crate::resolve::{self, Targets};
use crate::select::SelectArgs;
use crate::term;
use answers::Answers;

/// The exit code when every request is written, and one of them is not acted on: a budget holds it back, or nobody answers.
const STANDS: u8 = 3;
/// How long the scheduler is given to answer. It takes milliseconds to act on a request, and some hundred to say that a budget
/// holds it back.
const ANSWER: Duration = Duration::from_secs(10);

/// Flags of `setpoint evict`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 when the scheduler has acted on all requests, so that the pods are being stopped (with --wait: when all of them have left), 3 when a request stands that it has not acted on, since a disruption budget does not allow it now or no scheduler answers, 1 for whatever else is wrong. A request that stands is carried out as soon as it can be."
)]
pub(crate) struct EvictArgs {
    /// pod/NAME..., pod NAME..., or names of pods
    #[arg(required_unless_present_any = ["selector", "field_selector"], value_name = "POD")]
    words: Vec<String>,
    #[command(flatten)]
    select: SelectArgs,
    /// With --wait: give up waiting after so long; the requests stand
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
    /// In how many seconds each pod is to be stopped, instead of its own terminationGracePeriodSeconds; 0: at once; less than
    /// 0: its own
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true, hide_default_value = true)]
    grace_period: i64,
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the command.
pub(crate) async fn run(args: EvictArgs, context: &mut Context) -> Result<ExitCode> {
    let namespace = context.namespace()?;
    let client = context.client().await?;
    let targets = targets(&client, &args, &namespace).await?;
    let now = context.now();
    let asked = targets.iter().map(|target| {
        let intent = Intent {
            grace_seconds: displace::grace_seconds(args.grace_period),
            ..target.intent(&args.common, now)
        };
        (target, intent)
    });
    let asked = displace::ask(&client, "evict", asked.collect()).await?;
    for target in &targets {
        context.out.line(format_args!(
            "{} is to be evicted from {}",
            target.name(),
            target.binding.node
        ));
    }
    context.out.flush()?;
    let heard = match displace::warn_without_scheduler(&client).await {
        // That is waited for too.
        Err(error) if args.common.wait && is_away(&error) => true,
        heard => heard?,
    };
    let budgets = !args.common.ignore_budgets;
    if args.common.wait {
        wait_for_all(&client, &targets, (args.timeout, budgets), context).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if !heard {
        return Ok(STANDS.into());
    }
    let asked = targets.iter().zip(asked);
    let answers = Answers::of(&client, &namespace, asked).await?;
    hear(&client, answers, budgets).await
}

/// The pods that are meant. Those that are named must all be such that they can be evicted.
async fn targets(client: &Client, args: &EvictArgs, namespace: &str) -> Result<Vec<Target>> {
    let pods = kinds::builtin("pods");
    if args.select.is_given() {
        if !args.words.is_empty() {
            bail!("names of pods and selectors exclude each other");
        }
        let filter = args.select.filter()?;
        filter.check(&pods)?;
        let listed = client.list(pods, Some(namespace)).await?.objects;
        let chosen: Vec<_> = listed.into_iter().filter(|o| filter.matches(o)).collect();
        if chosen.is_empty() {
            bail!("no pod is selected in namespace {namespace:?}");
        }
        let mut targets = Vec::new();
        for pod in chosen {
            match displace::target(client, "evict", pod.key).await {
                Ok(target) => targets.push(target),
                // It needs no eviction, or cannot have one.
                Err(error) => term::note(format_args!("left out: {}", term::chain(&error))),
            }
        }
        if targets.is_empty() {
            bail!("none of the selected pods can be evicted");
        }
        return Ok(targets);
    }
    let mut keys = named(client, &args.words, namespace).await?;
    let mut seen = BTreeSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    let mut targets = Vec::new();
    let mut wrong = Vec::new();
    for key in keys {
        match displace::target(client, "evict", key).await {
            Ok(target) => targets.push(target),
            Err(error) => wrong.push(term::chain(&error)),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\nerror: "));
    }
    Ok(targets)
}

/// The pods that words name: `pod/a pod/b`, `pod a b`, or `a b`.
async fn named(client: &Client, words: &[String], namespace: &str) -> Result<Vec<ObjectKey>> {
    let pods = kinds::builtin("pods");
    let of_a_type = words.first().is_some_and(|w| kinds::by_word(w).is_some());
    if of_a_type || words.iter().any(|word| word.contains('/')) {
        let Targets::Named(named) = resolve::targets(client, words, namespace).await? else {
            bail!("a name is needed: setpoint evict pod/NAME");
        };
        for (kind, key) in &named {
            displace::check_is_pod(*kind, key)?;
        }
        return Ok(named.into_iter().map(|(_, key)| key).collect());
    }
    let keys = words.iter().map(|name| {
        resolve::check_name(&pods, name)?;
        Ok(ObjectKey::namespaced(namespace, name.as_str()))
    });
    keys.collect()
}

/// Waits for the scheduler's answers, and says what becomes of the requests, which `budgets` may hold back.
async fn hear(client: &Client, mut answers: Answers<'_>, budgets: bool) -> Result<ExitCode> {
    let end = Instant::now() + ANSWER;
    let mut dropped = Vec::new();
    let mut stand = Vec::new();
    loop {
        let mut still = Vec::new();
        for (target, asked) in std::mem::take(&mut answers.waiting) {
            let state = State::read(client, "evict", target).await?;
            match fate(target, &state) {
                Fate::Asked if budgets && answers.refused.contains_key(&target.key) => {
                    stand.push((target, answers.refused.remove(&target.key)));
                }
                Fate::Asked => still.push((target, asked)),
                Fate::Leaves | Fate::Left(_) => {}
                Fate::Dropped => dropped.push(displace::gone(&target.name(), &state)),
            }
        }
        answers.waiting = still;
        if answers.waiting.is_empty() || Instant::now() >= end {
            break;
        }
        answers.wait(end).await;
    }
    stand.extend(answers.waiting.drain(..).map(|(target, _)| (target, None)));
    let stands = !stand.is_empty();
    let mut silent = Vec::new();
    for (target, refused) in stand {
        let held = match budgets {
            true => budgets::hold_back(client, &target.key, &target.binding).await?,
            false => None,
        };
        match held.map(|held| held.message).or(refused) {
            Some(why) => term::note(format_args!(
                "{} stays for now: {why}. The request stands, and is carried out when the budget allows it",
                target.name(),
            )),
            None => silent.push(target.name()),
        }
    }
    if !silent.is_empty() {
        let silent = silent.join(", ");
        // It may be gone by now.
        if displace::warn_without_scheduler(client).await? {
            term::warn(format_args!(
                "the scheduler has not answered within {} s: {silent} stays for now, and the request stands",
                ANSWER.as_secs()
            ));
        }
    }
    if !dropped.is_empty() {
        bail!("{}", dropped.join("\nerror: "));
    }
    Ok(match stands {
        true => STANDS.into(),
        false => ExitCode::SUCCESS,
    })
}

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It stands.
    Asked,
    /// The pod is being stopped.
    Leaves,
    /// The pod is not where it was any more; the node that it is on now.
    Left(Option<String>),
    /// The request is gone, and nothing came of it.
    Dropped,
}

fn fate(target: &Target, state: &State) -> Fate {
    match &state.binding {
        None => Fate::Left(None),
        Some(b) if b.placement != target.binding.placement => Fate::Left(Some(b.node.clone())),
        Some(b) if b.withdrawn.is_some() => Fate::Leaves,
        Some(_) if state.asked.is_none() => Fate::Dropped,
        Some(_) => Fate::Asked,
    }
}

/// Waits until all pods have left their nodes.
async fn wait_for_all(
    client: &Client,
    targets: &[Target],
    how: (Duration, bool),
    context: &mut Context,
) -> Result<()> {
    let mut waits: FuturesUnordered<_> = targets
        .iter()
        .map(|target| wait_for_eviction(client, target, how))
        .collect();
    let mut failed = Vec::new();
    while let Some(left) = waits.next().await {
        match left {
            Ok(left) => {
                context.out.line(left);
                context.out.flush()?;
            }
            Err(error) => failed.push(term::chain(&error)),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("\nerror: "))
}

/// Waits until a pod has left its node, so long at most; `budgets` may hold it back. Returns what to say of it.
async fn wait_for_eviction(
    client: &Client,
    target: &Target,
    (limit, budgets): (Duration, bool),
) -> Result<String> {
    let (name, node) = (target.name(), &target.binding.node);
    let end = Instant::now() + limit;
    let mut state = State::read_patiently(client, "evict", target, end).await?;
    let mut changes = client
        .changes(kinds::builtin("pods"), state.revision)
        .await?;
    let mut told: Option<Held> = None;
    // What is written in the same moment is not held back yet.
    let mut first = true;
    loop {
        let fate = fate(target, &state);
        match &fate {
            Fate::Left(None) => return Ok(format!("{name} was evicted from {node}")),
            Fate::Left(Some(now)) => {
                return Ok(format!(
                    "{name} was evicted from {node}; it is on {now} now"
                ));
            }
            Fate::Dropped => bail!("{}", displace::gone(&name, &state)),
            Fate::Leaves | Fate::Asked => {}
        }
        let over = Instant::now() >= end;
        if fate == Fate::Asked
            && budgets
            && (over || !first)
            && let Some(binding) = &state.binding
        {
            let held = match budgets::hold_back(client, &target.key, binding).await {
                // It is looked at again.
                Err(error) if is_away(&error) && !over => None,
                held => held?,
            };
            if let Some(held) = &held
                && told.as_ref().is_none_or(|told| told.budget != held.budget)
            {
                term::note(format_args!("{name} is not evicted yet: {}", held.message));
            }
            told = held;
        }
        if over {
            let why = told.map_or_else(String::new, |held| format!(": {}", held.message));
            let what = match fate {
                Fate::Asked => format!("has not been evicted within {} s{why}", limit.as_secs()),
                _ => format!("has not stopped on {node} within {} s", limit.as_secs()),
            };
            bail!("{name} {what}");
        }
        state = displace::next(&mut changes, client, ("evict", target), end).await?;
        first = false;
    }
}
