//! `setpoint why`: why a pod waits, or why it is where it is.
//!
//! The reasons of a pod that waits are worked out here, from the state at one revision: they are right also when no
//! scheduler runs, or when what it wrote is old.

pub(super) mod print;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use setpoint_apis::{ObjectKey, strict};
use setpoint_what_if::{World, why};

use crate::client::Client;
use crate::context::Context;
use crate::kinds::{self, KindInfo};
use crate::printers::{self, Format};
use crate::{planning, resolve};

/// Flags of `setpoint why`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhyArgs {
    /// pod/NAME, pod NAME, or the name of a pod
    #[arg(required = true, value_name = "POD")]
    words: Vec<String>,
    /// wide, yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: WhyArgs, context: &mut Context) -> Result<()> {
    planning::check_format(args.output.as_ref())?;
    let namespace = context.namespace()?;
    let client = context.client().await?;
    let key = pod(&client, &args.words, &namespace).await?;
    let world = client.world().await?;
    let Some(told) = why(&world, &key) else {
        bail!("{}", not_found(&world, &key));
    };
    match &args.output {
        None | Some(Format::Table) => context.out.text(print::sheet(&told, false)),
        Some(Format::Wide) => context.out.text(print::sheet(&told, true)),
        Some(format) => {
            let value = serde_json::to_value(&told).context("writing the reasons")?;
            printers::value(&mut context.out, format, &value)?;
        }
    }
    Ok(())
}

/// The pod that words name.
async fn pod(client: &Client, words: &[String], namespace: &str) -> Result<ObjectKey> {
    if let [one] = words
        && kinds::by_word(one).is_some()
    {
        bail!("a name is needed: setpoint why pod/NAME");
    }
    let (kind, key) = resolve::pod_or_owner(client, words, namespace).await?;
    if kind.plural != "pods" {
        bail!("{}", other_kind(&kind, &key));
    }
    Ok(key)
}

fn other_kind(kind: &KindInfo, key: &ObjectKey) -> String {
    let hint = match kind.plural {
        "deployments" | "replicasets" => {
            "`setpoint get pods` lists its pods, and `setpoint describe` tells of itself"
        }
        _ => "`setpoint describe` tells of it",
    };
    format!(
        "{} is no pod, and only pods are placed; {hint}",
        kind.full_name(&key.name)
    )
}

fn not_found(world: &World, key: &ObjectKey) -> String {
    let mut text = format!(
        "pods {:?} not found in namespace {:?}",
        &*key.name, &*key.namespace
    );
    let elsewhere = world.pods.keys().find(|k| k.name == key.name);
    let here = world.pods.keys().filter(|k| k.namespace == key.namespace);
    if let Some(other) = elsewhere {
        text.push_str(&format!(
            "; there is one in namespace {0:?} (-n {0})",
            &*other.namespace
        ));
    } else if let Some(near) = strict::nearest(&key.name, here.map(|k| &*k.name)) {
        text.push_str(&format!("; did you mean {near:?}?"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_not_there_is_looked_for_nearby() {
        let mut world = World::default();
        for key in [
            ObjectKey::namespaced("default", "web-1"),
            ObjectKey::namespaced("team", "api"),
        ] {
            world
                .pods
                .insert(key, setpoint_what_if::KnownPod::default());
        }
        let says = |name: &str| not_found(&world, &ObjectKey::namespaced("default", name));
        assert!(
            says("wbe-1").ends_with("did you mean \"web-1\"?"),
            "{}",
            says("wbe-1")
        );
        assert!(says("api").contains("(-n team)"), "{}", says("api"));
        assert!(says("zzz").ends_with("in namespace \"default\""));
    }
}
