//! `setpoint wait`: until objects are as told.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use setpoint_apis::ObjectKey;
use tokio::time::Instant;

use crate::client::Client;
use crate::context::{Context, DEFAULT_NAMESPACE};
use crate::kinds::KindInfo;
use crate::manifest::FileArgs;
use crate::object::Object;
use crate::printers::jsonpath::{Path, plain};
use crate::resolve::{self, Targets};
use crate::select::SelectArgs;
use crate::term::Progress;

/// Flags of `setpoint wait`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WaitArgs {
    /// TYPE NAME..., TYPE/NAME... or TYPE
    #[arg(required_unless_present = "filenames", value_name = "RESOURCE")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// condition=NAME[=VALUE], delete, create or jsonpath=PATH[=VALUE]
    #[arg(long = "for", value_name = "STATE")]
    state: State,
    /// Give up after so long; 0 looks once
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
    /// All of the type
    #[arg(long)]
    all: bool,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    select: SelectArgs,
}

/// What is waited for.
#[derive(Clone, Debug)]
enum State {
    Condition(String, String),
    Delete,
    Create,
    JsonPath(std::sync::Arc<Path>, Option<String>),
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?}: there are condition=NAME[=VALUE], delete, create and jsonpath=PATH[=VALUE]"
            )
        };
        match text.split_once('=') {
            None if text == "delete" => Ok(Self::Delete),
            None if text == "create" => Ok(Self::Create),
            Some(("condition", rest)) if !rest.is_empty() => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "True"));
                Ok(Self::Condition(name.to_owned(), value.to_owned()))
            }
            Some(("jsonpath", rest)) => {
                // The path may hold a '=' itself, in a filter.
                let (path, value) = match rest.rfind('}') {
                    Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('=')),
                    None => rest
                        .split_once('=')
                        .map_or((rest, None), |(p, v)| (p, Some(v))),
                };
                let parsed = Path::parse(path).map_err(|e| format!("{e:#}"))?;
                Ok(Self::JsonPath(
                    std::sync::Arc::new(parsed),
                    value.map(str::to_owned),
                ))
            }
            _ => Err(bad()),
        }
    }
}

impl State {
    fn holds(&self, object: Option<&Object>) -> bool {
        match (self, object) {
            (Self::Delete, object) => object.is_none(),
            (_, None) => false,
            (Self::Create, Some(_)) => true,
            (Self::Condition(name, value), Some(object)) => {
                is_current(object) && condition(object, name, value)
            }
            (Self::JsonPath(path, value), Some(object)) => {
                let found = path.query(&object.value);
                match value {
                    None => found.iter().any(|v| !v.is_null()),
                    Some(value) => found.iter().any(|v| plain(v) == *value),
                }
            }
        }
    }
}

/// Whether the status is about the document as it is now.
fn is_current(object: &Object) -> bool {
    let observed = object
        .at(&["status", "observedGeneration"])
        .and_then(Value::as_i64);
    let wanted = object.revisions.map(|r| r.version);
    observed
        .zip(wanted)
        .is_none_or(|(observed, wanted)| observed >= wanted)
}

fn condition(object: &Object, name: &str, value: &str) -> bool {
    let all = object.list_at(&["status", "conditions"]).iter();
    let mut named = all.filter(|c| {
        c["type"]
            .as_str()
            .is_some_and(|t| t.eq_ignore_ascii_case(name))
    });
    named.any(|c| {
        c["status"]
            .as_str()
            .is_some_and(|s| s.eq_ignore_ascii_case(value))
    })
}

/// Runs the command.
pub(crate) async fn run(args: WaitArgs, context: &mut Context) -> Result<()> {
    let filter = args.select.filter()?;
    let client = context.client().await?;
    let namespace = if args.all_namespaces {
        None
    } else {
        Some(context.namespace()?)
    };
    let in_namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut pending: BTreeMap<&'static str, (KindInfo, Vec<ObjectKey>)> = BTreeMap::new();
    match resolve::words_or_files(&client, &args.words, &args.files, in_namespace).await? {
        Targets::Named(names) => {
            for (kind, key) in names {
                pending
                    .entry(kind.plural)
                    .or_insert_with(|| (kind, Vec::new()))
                    .1
                    .push(key);
            }
        }
        Targets::Kinds(kinds) if args.all || args.select.is_given() => {
            for kind in kinds {
                filter.check(&kind)?;
                let listed = client.list(kind, namespace.as_deref()).await?.objects;
                let keys: Vec<ObjectKey> = listed
                    .into_iter()
                    .filter(|o| filter.matches(o))
                    .map(|o| o.key)
                    .collect();
                if !keys.is_empty() {
                    pending.insert(kind.plural, (kind, keys));
                }
            }
            if pending.is_empty() {
                if matches!(args.state, State::Delete) {
                    return Ok(());
                }
                bail!("no matching resources found");
            }
        }
        Targets::Kinds(_) => bail!("a resource name is needed, a selector or --all"),
    }
    let deadline = Instant::now() + args.timeout;
    for (kind, keys) in pending.into_values() {
        one_kind(&args, context, &client, kind, keys, deadline).await?;
    }
    Ok(())
}

async fn one_kind(
    args: &WaitArgs,
    context: &mut Context,
    client: &Client,
    kind: KindInfo,
    mut keys: Vec<ObjectKey>,
    deadline: Instant,
) -> Result<()> {
    let progress = Progress::new(String::new());
    // The watch begins before the first look, so that nothing falls between the two.
    let (_, revision) = client.get(&setpoint_apis::Key::Meta("schema")).await?;
    let mut changes = client.changes(kind, revision).await?;
    let mut first = true;
    loop {
        let mut left = Vec::new();
        for (key, found) in client.find_many(kind, std::mem::take(&mut keys)).await? {
            if found.is_none() && first && !matches!(args.state, State::Delete | State::Create) {
                bail!("{} {:?} not found", kind.full_plural(), &*key.name);
            }
            if args.state.holds(found.as_ref()) {
                progress.suspend(|| {
                    context
                        .out
                        .line(format_args!("{} condition met", kind.full_name(&key.name)));
                    context.out.flush()
                })?;
            } else {
                left.push(key);
            }
        }
        first = false;
        if left.is_empty() {
            return Ok(());
        }
        progress.say(format!("waiting for {}", names(&kind, &left)));
        loop {
            let Ok(change) = tokio::time::timeout_at(deadline, changes.next()).await else {
                bail!(
                    "timed out waiting for the condition on {}",
                    names(&kind, &left)
                )
            };
            let change = change?;
            if change.keys.iter().any(|k| left.contains(k)) {
                break;
            }
        }
        keys = left;
    }
}

/// A few names, and how many more.
pub(crate) fn names(kind: &KindInfo, keys: &[ObjectKey]) -> String {
    let shown: Vec<String> = keys
        .iter()
        .take(3)
        .map(|k| kind.full_name(&k.name))
        .collect();
    match keys.len() {
        n if n > 3 => format!("{} and {} more", shown.join(", "), n - 3),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::printers::tests::object;

    #[test]
    fn the_states_of_kubectl_are_understood() {
        let pod = object(
            "pods",
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        let holds = |state: &str, o: Option<&Object>| state.parse::<State>().unwrap().holds(o);
        assert!(holds("condition=ready", Some(&pod)));
        assert!(!holds("condition=Ready=False", Some(&pod)));
        assert!(holds("jsonpath={.status.phase}=Running", Some(&pod)));
        assert!(holds(
            "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True",
            Some(&pod)
        ));
        assert!(holds("jsonpath=.status.phase", Some(&pod)));
        assert!(!holds("jsonpath={.status.nope}", Some(&pod)));
        assert!(holds("delete", None) && !holds("delete", Some(&pod)));
        assert!(holds("create", Some(&pod)) && !holds("create", None));
        for bad in ["", "ready", "condition=", "condition"] {
            assert!(bad.parse::<State>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_status_of_an_earlier_document_does_not_count() {
        let mut o = object(
            "deployments",
            json!({"status": {"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}}),
        );
        o.revisions = Some(crate::object::Revisions {
            created: 1,
            modified: 5,
            version: 2,
        });
        assert!(
            !"condition=Available"
                .parse::<State>()
                .unwrap()
                .holds(Some(&o))
        );
    }
}
