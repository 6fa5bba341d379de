//! `setpoint drain`: takes the pods from nodes, within disruption budgets.
//!
//! A drain cordons the nodes, asks the scheduler to evict every pod there, and waits until they have left. The requests are
//! keys of their own: those that a budget holds back stand until it allows them, also when nobody waits any more. Whoever
//! changes his mind uncordons the nodes, or cancels.
//!
//! What is done follows from what is there, look by look, so that a drain may be broken off and begun again at any time,
//! and two of them do what one does. A request is written only while the node is cordoned as it was seen: nothing is asked
//! for after somebody has uncordoned it.

mod decide;
mod look;
mod say;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::records::Intent;
use setpoint_apis::{Key, LabelSelector, ObjectKey};
use setpoint_store::Revision;
use tokio::time::Instant;

use super::requests::{self, Request, Written};
use super::{DryRun, cordon, displace};
use crate::client::watch::ChangeStream;
use crate::client::{Client, is_away, patiently};
use crate::context::Context;
use crate::select::SelectArgs;
use crate::term::{self, Out};
use crate::{INTERRUPTED, kinds, signals};
use decide::{Allows, Asked, Resident, Verdict, Wait, decide};
use look::Seen;

/// Who asks, in the keys of the requests.
pub(super) const BY: &str = "drain";
/// How long nothing may change before a drain looks all the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same at first while a request stands and nothing says why, twice as long each time: what holds it back is a count
/// that the scheduler is about to write of a budget, which is no change of a pod.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// Changes come many at a time.
const BRIEFLY: Duration = Duration::from_millis(50);
/// How long etcd may be away before a drain gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a drain that was broken off may take to read what it leaves behind.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// Flags of `setpoint drain`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A pod that is evicted is placed on another node; it is not deleted. Evictions that a disruption budget does not allow now wait until it does, also after --timeout or Ctrl-C; `drain --cancel` and `uncordon` withdraw them.\n\nExit codes: 0 when nothing is left on the nodes but pods of DaemonSets and pods that have ended, 1 when that could not be reached, 130 after Ctrl-C."
)]
pub(crate) struct DrainArgs {
    /// The nodes
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    select: SelectArgs,
    /// Only pods with these labels
    #[arg(long, value_name = "SELECTOR")]
    pod_selector: Option<LabelSelector>,
    /// Leave pods of DaemonSets where they are; without it they are a reason to evict nothing
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Evict pods with emptyDir volumes as well: what is in these is lost
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Evict pods as well that no other node can run, since a volume claim of theirs is a directory of this one: they stop, and
    /// wait until the node takes pods again
    #[arg(long)]
    stop_pinned: bool,
    /// Evict pods without a controller as well that run to an end (restartPolicy other than Always): they begin anew; and pods
    /// whose DaemonSet does not exist. Other pods without a controller need no force: they are placed again
    #[arg(long)]
    force: bool,
    /// Evict also what disruption budgets forbid
    #[arg(long, visible_alias = "disable-eviction")]
    ignore_budgets: bool,
    /// Give up waiting after so long; 0 for never. The requests stand
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
    /// In how many seconds each pod is to be stopped, instead of its own terminationGracePeriodSeconds; 0: at once; less than
    /// 0: its own
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true, hide_default_value = true)]
    grace_period: i64,
    /// Why, for events and for people
    #[arg(
        long,
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true
    )]
    reason: String,
    /// Withdraw what drains of the nodes have asked for and the scheduler has not acted on; the nodes stay cordoned
    #[arg(long)]
    cancel: bool,
    /// Write nothing, and say what would be evicted
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
}

/// Runs the command.
pub(crate) async fn run(args: DrainArgs, context: &mut Context) -> Result<ExitCode> {
    let client = context.client().await?;
    let nodes = cordon::names(&client, &args.nodes, &args.select).await?;
    for node in &nodes {
        displace::check_node(&client, node).await?;
    }
    if args.cancel {
        if args.dry_run != DryRun::None {
            bail!("--cancel and --dry-run exclude each other");
        }
        if withdraw(&client, &nodes, &mut context.out).await? == 0 {
            context.out.line("No requests to withdraw");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let limit = args.timeout;
    let mut drain = Drain::new(client, nodes, args, context);
    let done = tokio::select! {
        done = drain.run(&mut context.out) => Some(done),
        () = signals::interrupted() => None,
        // It gives up by itself, unless it waits for etcd at that time.
        () = tokio::time::sleep(limit + LAST_LOOK), if !limit.is_zero() => {
            context.out.flush()?;
            if drain.began {
                drain.say_what_stands().await;
            }
            bail!("given up after {} s, in which etcd did not answer in time", limit.as_secs());
        }
    };
    match done {
        Some(Err(error)) if drain.began && is_away(&error) => {
            context.out.flush()?;
            drain.say_what_stands().await;
            Err(error)
        }
        Some(done) => done.map(|()| ExitCode::SUCCESS),
        None => {
            context.out.flush()?;
            if drain.began {
                drain.say_what_stands().await;
            }
            Ok(INTERRUPTED.into())
        }
    }
}

/// Withdraws what drains of these nodes have asked for, and says so. Returns how many requests that were.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn withdraw(client: &Client, nodes: &[String], out: &mut Out) -> Result<usize> {
    let standing = of_nodes(client, nodes).await?;
    let withdrawn = requests::withdraw(client, &standing).await?;
    for pod in &withdrawn {
        out.line(format_args!(
            "pod {pod}: the request to evict it is withdrawn"
        ));
    }
    Ok(withdrawn.len())
}

/// The requests of drains of these nodes that stand.
async fn of_nodes(client: &Client, nodes: &[String]) -> Result<Vec<requests::Standing>> {
    let mut standing = requests::standing(client, BY).await?;
    standing.retain(|s| s.intent.node.as_ref().is_some_and(|n| nodes.contains(n)));
    Ok(standing)
}

/// A drain of some nodes.
struct Drain {
    client: Client,
    nodes: Vec<String>,
    allows: Allows,
    /// Which pods.
    only: LabelSelector,
    /// What every request says.
    intent: Intent,
    limit: Duration,
    dry_run: DryRun,
    /// Whether the nodes are cordoned, so that there may be something that it leaves behind.
    began: bool,
    /// What this drain has asked for.
    asked: Asked,
    /// The pods that are waited for, where they are and whether they are evicted.
    waited: BTreeMap<ObjectKey, Waited>,
    /// Pods that were said to be in the way.
    refused: BTreeSet<ObjectKey>,
    /// Nodes that are known to be drained.
    drained: BTreeSet<String>,
    /// Whether it was looked whether there is a scheduler.
    warned: bool,
}

/// A pod that is waited for.
#[derive(Debug, Default)]
struct Waited {
    node: String,
    /// The budget that was told to hold it back, or another reason.
    told: Option<String>,
    /// How many looks have found that the request stands and that nothing says why.
    unexplained: u32,
}

/// A look at all nodes, and what follows.
type Round = Vec<(Resident, Verdict)>;

impl Drain {
    fn new(client: Client, nodes: Vec<String>, args: DrainArgs, context: &Context) -> Self {
        let reason = match args.reason.is_empty() {
            true => "drain".to_owned(),
            false => args.reason,
        };
        let grace_seconds = displace::grace_seconds(args.grace_period);
        Self {
            client,
            nodes,
            allows: Allows {
                ignore_daemon_sets: args.ignore_daemonsets,
                delete_local_data: args.delete_emptydir_data,
                stop_pinned: args.stop_pinned,
                force: args.force,
                ignore_budgets: args.ignore_budgets,
                grace_seconds,
            },
            only: args.pod_selector.unwrap_or_default(),
            intent: Intent {
                reason,
                ignore_budgets: args.ignore_budgets,
                grace_seconds,
                at: Some(context.now().whole_seconds()),
                ..Intent::default()
            },
            limit: args.timeout,
            dry_run: args.dry_run,
            began: false,
            asked: Asked::new(),
            waited: BTreeMap::new(),
            refused: BTreeSet::new(),
            drained: BTreeSet::new(),
            warned: false,
        }
    }

    async fn run(&mut self, out: &mut Out) -> Result<()> {
        let end = (!self.limit.is_zero()).then(|| Instant::now() + self.limit);
        let client = self.client.clone();
        let (_, revision) = client.get(&Key::Meta("schema")).await?;
        for node in &self.nodes {
            match self.dry_run {
                DryRun::None => cordon::set(&client, node, true, out).await?,
                dry => out.line(format_args!("node/{node} cordoned{}", dry.suffix())),
            }
        }
        out.flush()?;
        self.began = self.dry_run == DryRun::None;
        let (mut round, mut seen) = self.look().await?;
        if self.began {
            self.check_cordoned(&seen, out).await?;
        }
        let in_the_way = say::in_the_way(&round);
        if !in_the_way.is_empty() {
            let cordoned = match self.dry_run {
                DryRun::None => "the nodes stay cordoned, and ",
                _ => "",
            };
            bail!("{cordoned}nothing is evicted:\n{in_the_way}");
        }
        say::warn_at_first(&round, &seen, &self.nodes);
        if self.dry_run != DryRun::None {
            for (resident, verdict) in &round {
                if matches!(verdict, Verdict::Ask | Verdict::Wait(Wait::Request)) {
                    let (pod, node) = (&resident.key, &resident.node);
                    out.line(format_args!(
                        "pod {pod} is to be evicted from {node}{}",
                        self.dry_run.suffix()
                    ));
                }
            }
            return Ok(());
        }
        let mut changes: Option<ChangeStream<'_>> = None;
        loop {
            match self.act(&round, &seen, out).await {
                // What was not done is done after the next look.
                Err(error) if is_away(&error) => {}
                Err(error) => return Err(error),
                Ok(()) if self.waited.is_empty() => {
                    let in_the_way = say::in_the_way(&round);
                    if in_the_way.is_empty() {
                        return Ok(());
                    }
                    bail!("the nodes are not drained; what is left there:\n{in_the_way}");
                }
                Ok(()) => {}
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                // What was asked for since the last look stands as well.
                (round, seen) = self.look_patiently().await?;
                self.check_cordoned(&seen, out).await?;
                if round.iter().all(|(_, verdict)| verdict.is_done()) {
                    self.departed(&round, out).await?;
                    self.note_drained(&round, out);
                    return Ok(());
                }
                bail!("{}", self.given_up(&round).await?);
            }
            let changes = match &mut changes {
                Some(changes) => changes,
                none => none.insert(follow(&client, revision).await?),
            };
            match self.wait(changes, end).await {
                Err(error) if !is_away(&error) => return Err(error),
                _ => {}
            }
            (round, seen) = self.look_patiently().await?;
            self.check_cordoned(&seen, out).await?;
        }
    }

    /// Does what follows from a look, and says so.
    async fn act(&mut self, round: &Round, seen: &[Seen], out: &mut Out) -> Result<()> {
        self.departed(round, out).await?;
        self.ask(round, seen, out).await?;
        self.tell(round, out).await?;
        self.note_drained(round, out);
        out.flush()?;
        Ok(())
    }

    /// As [`Drain::look`], when etcd may be away for a while.
    async fn look_patiently(&self) -> Result<(Round, Vec<Seen>)> {
        let end = Instant::now() + PATIENCE;
        patiently(end, "the drain goes on", async || self.look().await).await
    }

    /// Looks at all nodes, and decides. Of the requests what was there before anything else was read: what removes one changes
    /// the binding in the same transaction.
    async fn look(&self) -> Result<(Round, Vec<Seen>)> {
        let standing = requests::standing(&self.client, BY).await?;
        let mut round = Round::new();
        let mut all = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut seen = look::look(&self.client, node, &self.only, &standing).await?;
            for resident in seen.residents.drain(..) {
                let verdict = decide(&resident, self.allows, &self.asked);
                round.push((resident, verdict));
            }
            all.push(seen);
        }
        Ok((round, all))
    }

    /// Asks for the evictions that are not asked for yet.
    async fn ask(&mut self, round: &Round, seen: &[Seen], out: &mut Out) -> Result<()> {
        let mut any = false;
        for (node, seen) in self.nodes.iter().zip(seen) {
            // The guard below is on the document as it was seen, which may be of a node that takes pods.
            if seen.cordoned != Some(true) {
                continue;
            }
            let mut requests = Vec::new();
            let mut placements = Vec::new();
            for (resident, verdict) in round {
                if *verdict != Verdict::Ask || resident.node != *node {
                    continue;
                }
                let (Some(pod), Some(binding)) = (resident.pod.get(), resident.binding.get())
                else {
                    continue;
                };
                requests.push(Request {
                    pod: resident.key.clone(),
                    created: pod.create_revision,
                    intent: Intent {
                        node: Some(node.clone()),
                        uid: Some(pod.uid()),
                        ..self.intent.clone()
                    },
                });
                placements.push(binding.placement);
            }
            if requests.is_empty() {
                continue;
            }
            // One that fails is decided again by the next look.
            let by = ("evict", BY);
            let Written::All(written) =
                requests::write(&self.client, by, &requests, Some(&seen.guard)).await?
            else {
                continue;
            };
            any = true;
            for ((request, placement), written) in requests.iter().zip(placements).zip(written) {
                if written.is_some() {
                    let pod = &request.pod;
                    self.asked.insert(pod.clone(), placement);
                    out.line(format_args!("evicting pod {pod} from {node}"));
                }
            }
        }
        if any && !self.warned {
            self.warned = true;
            out.flush()?;
            displace::warn_without_scheduler(&self.client).await?;
        }
        Ok(())
    }

    /// Somebody who uncordons a node wants no drain of it.
    async fn check_cordoned(&self, seen: &[Seen], out: &mut Out) -> Result<()> {
        for (node, seen) in self.nodes.iter().zip(seen) {
            if seen.cordoned == Some(false) {
                withdraw(&self.client, std::slice::from_ref(node), out).await?;
                let mut text =
                    format!("node/{node} was uncordoned meanwhile: it is drained no further");
                let others = self.nodes.iter().filter(|other| *other != node);
                let others: Vec<String> = others.cloned().collect();
                if !others.is_empty() {
                    let standing = of_nodes(&self.client, &others).await?;
                    let pods: Vec<String> = standing.iter().map(|s| s.pod.to_string()).collect();
                    text.push('\n');
                    text.push_str(&say::what_stands(&others, &pods));
                }
                bail!("{text}");
            }
        }
        Ok(())
    }

    /// Waits until something has changed about the pods that are waited for, or it is time to look again.
    async fn wait(&self, changes: &mut ChangeStream<'_>, end: Option<Instant>) -> Result<()> {
        let looks = self.waited.values().map(|waited| waited.unexplained);
        let looks = looks.filter(|looks| *looks > 0).min();
        let soon = looks.map(|looks| LOOK_SOON * 2_u32.saturating_pow(looks - 1));
        let look = Instant::now() + soon.map_or(LOOK_EVERY, |soon| soon.min(LOOK_EVERY));
        let look = end.map_or(look, |end| end.min(look));
        loop {
            tokio::select! {
                change = changes.next() => {
                    if change?.keys.iter().any(|key| self.waited.contains_key(key)) {
                        tokio::time::sleep(BRIEFLY).await;
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(look) => return Ok(()),
            }
        }
    }

    /// Says which requests stand when the command is broken off.
    async fn say_what_stands(&self) {
        let standing = of_nodes(&self.client, &self.nodes);
        let told = match tokio::time::timeout(LAST_LOOK, standing).await {
            Ok(Ok(standing)) => {
                let pods = standing.iter().map(|s| s.pod.to_string());
                say::what_stands(&self.nodes, &pods.collect::<Vec<_>>())
            }
            Ok(Err(error)) => format!("which requests stand is not known: {}", term::chain(&error)),
            Err(_) => "which requests stand is not known: etcd does not answer".to_owned(),
        };
        term::note(told);
    }
}

async fn follow(client: &Client, after: Revision) -> Result<ChangeStream<'_>> {
    client.changes(kinds::builtin("pods"), after).await
}

#[cfg(test)]
mod tests;
