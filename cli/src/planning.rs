//! Where pods would go: worlds out of files and out of the store, and plans as people read them.
//!
//! What is decided is decided in `setpoint-what-if`, which reads and prints nothing.

mod nodes;
mod print;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use setpoint_apis::core::Node;
use setpoint_apis::strict::Document;
use setpoint_apis::{Kind, document};
use setpoint_sim::Scenario;
use setpoint_what_if::{Plan, Proposal, World};

use crate::context::Context;
use crate::kinds::KindInfo;
use crate::manifest::Source;
use crate::printers::{self, Format};
use crate::term;

/// Which file a document is from, as far as nodes are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Of `--nodes`: nodes and nothing else.
    Nodes,
    /// Of `-f`: nodes are taken with what their status says they have.
    Files,
    /// Of `-f`, about a cluster: a node's status is its agent's.
    Cluster,
}

/// Lays documents over a proposal. `sources` are the texts that they were read from.
///
/// # Errors
/// Names file and line of a document that does not belong there, stands there twice, or says too little of a node.
pub(crate) fn lay_over(
    proposal: &mut Proposal,
    documents: &[Document],
    sources: &[Source],
    from: Origin,
) -> Result<()> {
    no_doubles(documents)?;
    let statuses = match from {
        Origin::Cluster => BTreeMap::new(),
        Origin::Nodes | Origin::Files => nodes::statuses(sources)?,
    };
    let (rules, others): (Vec<&Document>, Vec<&Document>) = documents
        .iter()
        .partition(|d| Proposal::comes_first(d.kind.plural));
    for d in rules.into_iter().chain(others) {
        let at = || format!("{}:{}", d.source, d.line);
        match (d.kind.plural, from) {
            (Node::PLURAL, Origin::Nodes | Origin::Files) => {
                let node: Node =
                    document::decode_keyed(&d.key, d.text.as_bytes()).with_context(at)?;
                let status = nodes::status(&statuses, &d.key.name).with_context(at)?;
                proposal.node(node, status);
            }
            (Scenario::PLURAL, Origin::Nodes) => {
                let scenario: Scenario = document::decode(d.text.as_bytes()).with_context(at)?;
                for (node, status) in nodes::of_scenario(&scenario) {
                    proposal.node(node, status);
                }
            }
            (_, Origin::Nodes) => bail!(
                "{}: is a {}; --nodes takes Nodes and Scenarios, everything else goes to -f",
                at(),
                d.kind.kind
            ),
            (Scenario::PLURAL, _) => bail!(
                "{}: is a Scenario, which has nodes: give it with --nodes",
                at()
            ),
            (plural, _) => proposal.apply(plural, &d.key, &d.text).with_context(at)?,
        }
    }
    Ok(())
}

fn no_doubles(documents: &[Document]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for d in documents {
        if let Some((source, line)) = seen.insert((d.kind.plural, &d.key), (&d.source, d.line)) {
            let name = KindInfo::from(&d.kind).full_name(&d.key.name);
            bail!(
                "{}:{}: {name} was described already at {source}:{line}",
                d.source,
                d.line
            );
        }
    }
    Ok(())
}

/// Says which documents of the store could not be read: the plan may be another one with them.
pub(crate) fn warn_of_unreadable(world: &World) {
    for (key, error) in &world.unreadable {
        term::warn(format_args!("{key} cannot be read: {error}"));
    }
}

/// Refuses the formats that plans do not have, before anything is worked out.
///
/// # Errors
/// When the format is one of those.
pub(crate) fn check_format(format: Option<&Format>) -> Result<()> {
    match format {
        Some(format @ (Format::Name | Format::Custom(_))) => bail!(
            "-o {} is not supported here: wide, yaml, json or jsonpath=TEMPLATE",
            format.word()
        ),
        _ => Ok(()),
    }
}

/// Prints a plan.
///
/// # Errors
/// When the format is none that plans have.
pub(crate) fn print(context: &mut Context, plan: &Plan, format: Option<&Format>) -> Result<()> {
    match format {
        None | Some(Format::Table) => print::tables(&mut context.out, plan, false),
        Some(Format::Wide) => print::tables(&mut context.out, plan, true),
        Some(format) => {
            let value = serde_json::to_value(plan).context("writing the plan")?;
            return printers::value(&mut context.out, format, &value);
        }
    }
    Ok(())
}
