//! `setpoint simulate schedule`: where pods would go, out of files.

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::strict::Options;
use setpoint_what_if::{Proposal, World};

use crate::context::Context;
use crate::kinds;
use crate::manifest::{self, FileArgs, StrictArgs};
use crate::planning::{self, Origin};
use crate::printers::Format;

/// Flags of `setpoint simulate schedule`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 all pods find a node, 1 some would wait, 2 what was asked for cannot be simulated."
)]
pub(crate) struct ScheduleArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    strict: StrictArgs,
    /// Nodes: Node documents with status.allocatable, or a Scenario with groups of nodes; can be given again
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    nodes: Vec<String>,
    /// Begin with the nodes and pods of the cluster; without it no cluster is needed
    #[arg(long)]
    from_cluster: bool,
    /// Chooses between nodes that are equally good
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// wide, yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Whether all pods find a node.
///
/// # Errors
/// What was asked for cannot be simulated.
pub(super) async fn run(args: ScheduleArgs, context: &mut Context) -> Result<bool> {
    planning::check_format(args.output.as_ref())?;
    let namespace = context.namespace()?;
    let options = Options {
        ignore_unsupported: args.strict.ignore_unsupported,
        default_namespace: Some(&namespace),
        registry: kinds::documents(),
        ..Options::default()
    };
    let stdin = |f: &String| f == "-";
    if args.nodes.iter().any(stdin) && args.files.filenames.iter().any(stdin) {
        bail!("standard input can be read once: for -f or for --nodes");
    }
    let files = match args.files.is_given() || !args.from_cluster {
        true => args.files.read().await?,
        false => Vec::new(),
    };
    let manifests = match files.as_slice() {
        [] => Vec::new(),
        some => manifest::documents(some, &options)?,
    };
    let node_files = FileArgs {
        filenames: args.nodes,
        recursive: args.files.recursive,
    };
    let world = match args.from_cluster {
        true => context.client().await?.world().await?,
        false => World::default(),
    };
    planning::warn_of_unreadable(&world);
    let mut proposal = Proposal::new(world);
    if node_files.is_given() {
        let sources = node_files.read().await?;
        let documents = manifest::documents(&sources, &options)?;
        planning::lay_over(&mut proposal, &documents, &sources, Origin::Nodes)?;
    }
    let from = match args.from_cluster {
        true => Origin::Cluster,
        false => Origin::Files,
    };
    planning::lay_over(&mut proposal, &manifests, &files, from)?;
    if proposal.world().nodes.is_empty() {
        bail!(
            "there are no nodes: name them with --nodes FILE, or take those of the cluster with --from-cluster"
        );
    }
    if proposal.world().pods.is_empty() {
        bail!("there are no pods in what was given: Pods, ReplicaSets and Deployments make some");
    }
    let plan = proposal.plan(args.seed);
    planning::print(context, &plan, args.output.as_ref())?;
    context.out.flush()?;
    Ok(plan.waiting.is_empty())
}
