//! `setpoint get`: shows objects, once or as they change.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use setpoint_apis::{Key, ObjectKey};

use crate::client::{Client, Listing};
use crate::context::{Context, DEFAULT_NAMESPACE};
use crate::kinds::KindInfo;
use crate::manifest::FileArgs;
use crate::object::Object;
use crate::printers::jsonpath::{Path, plain};
use crate::printers::{self, Format, Printer, TableOptions, columns};
use crate::resolve::{self, Targets};
use crate::select::{Filter, SelectArgs};
use crate::term;

/// Flags of `setpoint get`.
#[derive(Args, Clone, Debug)]
pub(crate) struct GetArgs {
    /// TYPE, TYPE NAME..., TYPE/NAME..., TYPE,TYPE or `all`
    #[arg(required_unless_present = "filenames", value_name = "RESOURCE")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// wide, name, yaml, json, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,...
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// Stay, and show changes as they come
    #[arg(short, long)]
    watch: bool,
    /// Stay, and show only what changes from now on
    #[arg(long)]
    watch_only: bool,
    /// Show all labels in a column
    #[arg(long)]
    show_labels: bool,
    /// Show these labels in a column each
    #[arg(short = 'L', long, value_delimiter = ',', value_name = "LABEL,...")]
    label_columns: Vec<String>,
    /// Show the kind with each name
    #[arg(long)]
    show_kind: bool,
    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
    /// Sort by what this JSONPath leads to
    #[arg(long, value_name = "JSONPATH")]
    sort_by: Option<String>,
    /// Exit with 0 when a named object does not exist
    #[arg(long)]
    ignore_not_found: bool,
}

/// Runs the command.
pub(crate) async fn run(args: GetArgs, context: &mut Context) -> Result<()> {
    let filter = args.select.filter()?;
    let sort = args.sort_by.as_deref().map(Path::parse).transpose()?;
    let client = context.client().await?;
    let namespace = if args.all_namespaces {
        None
    } else {
        Some(context.namespace()?)
    };
    let targets = resolve::words_or_files(
        &client,
        &args.words,
        &args.files,
        namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
    )
    .await?;
    if args.watch || args.watch_only {
        return watch(&args, context, &client, targets, namespace, &filter).await;
    }
    let found = collect(&args, &client, &targets, namespace.as_deref(), &filter).await?;
    let format = args.output.clone().unwrap_or_default();
    let Found {
        mut groups,
        missing,
    } = found;
    for (kind, objects) in &mut groups {
        match &sort {
            Some(path) => objects.sort_by(|a, b| compare(path, a, b)),
            None if kind.plural == "events" => objects.sort_by_key(columns::event_time),
            None => {}
        }
    }
    if Printer::is_table(&format) {
        tables(
            &args,
            context,
            &format,
            &groups,
            namespace.as_deref(),
            missing.is_empty(),
        );
    } else {
        let single = matches!(&targets, Targets::Named(names) if names.len() == 1);
        let all: Vec<Object> = groups.iter().flat_map(|(_, o)| o.clone()).collect();
        if !(single && all.is_empty()) {
            printers::document(&mut context.out, &format, &all, !single)?;
        }
    }
    context.out.flush()?;
    for object in groups.iter().flat_map(|(_, o)| o) {
        if let Some(message) = object.frozen() {
            term::warn(format_args!("{} is frozen: {message}", object.full_name()));
        }
        if let Some(message) = &object.invalid {
            let name = object.full_name();
            match nameless(&client, object) {
                None => term::warn(format_args!("{name} is invalid: {message}")),
                Some(key) => term::warn(format_args!(
                    "the key '{key}' can be no {}'s: {message}; `etcdctl del '{key}'` removes it",
                    object.kind.singular()
                )),
            }
        }
    }
    if args.ignore_not_found || missing.is_empty() {
        return Ok(());
    }
    bail!("{}", missing.join("\nerror: "))
}

/// The key of a document that somebody has put under a name that no object can have, so that no command takes it.
fn nameless(client: &Client, object: &Object) -> Option<String> {
    let key = &object.key;
    let named = resolve::check_name(&object.kind, &key.name).is_ok()
        && (key.namespace.is_empty() || resolve::check_namespace(&key.namespace).is_ok());
    (!named).then(|| client.key(&Key::Desired(object.kind.plural, key.clone())))
}

struct Found {
    groups: Vec<(KindInfo, Vec<Object>)>,
    missing: Vec<String>,
}

async fn collect(
    args: &GetArgs,
    client: &Client,
    targets: &Targets,
    namespace: Option<&str>,
    filter: &Filter,
) -> Result<Found> {
    let mut found = Found {
        groups: Vec::new(),
        missing: Vec::new(),
    };
    match targets {
        Targets::Kinds(kinds) => {
            for kind in kinds {
                filter.check(kind)?;
                let Listing { mut objects, .. } = client.list(*kind, namespace).await?;
                objects.retain(|o| filter.matches(o));
                found.groups.push((*kind, objects));
            }
        }
        Targets::Named(names) => {
            if args.all_namespaces {
                bail!("a resource cannot be retrieved by name across all namespaces");
            }
            if args.select.is_given() {
                bail!("a name and a selector exclude each other");
            }
            for (kind, key) in names {
                match client.find(*kind, key).await? {
                    None => {
                        let name = &*key.name;
                        found
                            .missing
                            .push(format!("{} {name:?} not found", kind.full_plural()));
                    }
                    Some(object) => match found.groups.last_mut() {
                        Some((last, objects)) if last == kind => objects.push(object),
                        _ => found.groups.push((*kind, vec![object])),
                    },
                }
            }
        }
    }
    Ok(found)
}

fn tables(
    args: &GetArgs,
    context: &mut Context,
    format: &Format,
    groups: &[(KindInfo, Vec<Object>)],
    namespace: Option<&str>,
    nothing_is_missing: bool,
) {
    let now = context.now();
    let filled: Vec<_> = groups
        .iter()
        .filter(|(_, objects)| !objects.is_empty())
        .collect();
    if filled.is_empty() && nothing_is_missing {
        let namespaced = groups.iter().any(|(k, _)| k.namespaced);
        term::note(match namespace {
            Some(namespace) if namespaced => {
                format!("No resources found in {namespace} namespace.")
            }
            _ => "No resources found".to_owned(),
        });
    }
    for (i, (kind, objects)) in filled.iter().enumerate() {
        if i > 0 {
            context.out.line("");
        }
        let mut printer =
            Printer::new(*kind, format.clone(), options(args, kind, groups.len() > 1));
        let rows: Vec<Vec<String>> = objects.iter().map(|o| printer.row(o, now)).collect();
        printer.rows(&mut context.out, &rows);
    }
}

fn options(args: &GetArgs, kind: &KindInfo, several: bool) -> TableOptions {
    TableOptions {
        namespaces: args.all_namespaces && kind.namespaced,
        labels: args.show_labels,
        label_columns: args.label_columns.clone(),
        no_headers: args.no_headers,
        kinds: several || args.show_kind,
    }
}

fn compare(path: &Path, a: &Object, b: &Object) -> Ordering {
    let (a, b) = (path.query(&a.value), path.query(&b.value));
    match (a.first(), b.first()) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a
            .as_f64()
            .partial_cmp(&b.as_f64())
            .unwrap_or(Ordering::Equal),
        (Some(a), Some(b)) => plain(a).cmp(&plain(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

async fn watch(
    args: &GetArgs,
    context: &mut Context,
    client: &Client,
    targets: Targets,
    namespace: Option<String>,
    filter: &Filter,
) -> Result<()> {
    let (kind, name) = match targets {
        Targets::Kinds(kinds) => match kinds.as_slice() {
            [one] => (*one, None),
            _ => bail!("only one resource type can be watched"),
        },
        Targets::Named(names) => match names.as_slice() {
            [(kind, key)] => (*kind, Some(key.name.to_string())),
            _ => bail!("only one resource can be watched"),
        },
    };
    filter.check(&kind)?;
    let meant = |o: &Object| {
        filter.matches(o)
            && name.as_ref().is_none_or(|n| *o.key.name == **n)
            && (!kind.namespaced || namespace.as_ref().is_none_or(|n| *o.key.namespace == **n))
    };
    let format = args.output.clone().unwrap_or_default();
    let mut printer = Printer::new(kind, format.clone(), options(args, &kind, false));
    let Listing {
        mut objects,
        revision,
    } = client.list(kind, namespace.as_deref()).await?;
    objects.retain(&meant);
    if kind.plural == "events" {
        objects.sort_by_key(columns::event_time);
    }
    if let Some(name) = &name
        && objects.is_empty()
        && !args.ignore_not_found
    {
        bail!("{} {name:?} not found", kind.full_plural());
    }
    let mut shown: BTreeMap<ObjectKey, Vec<String>> = BTreeMap::new();
    let first: Vec<Object> = if args.watch_only {
        Vec::new()
    } else {
        objects.clone()
    };
    let rows: Vec<_> = objects
        .iter()
        .map(|o| (o.key.clone(), row_without_age(&printer, o, context)))
        .collect();
    shown.extend(rows);
    show(&mut printer, &format, context, &first)?;
    let mut changes = client.changes(kind, revision).await?;
    loop {
        let change = changes.next().await?;
        let mut changed = Vec::new();
        let elsewhere = |k: &ObjectKey| {
            kind.namespaced && namespace.as_ref().is_some_and(|n| *k.namespace != **n)
        };
        let keys = change.keys.into_iter().filter(|k| !elsewhere(k)).collect();
        for (key, found) in client.find_many(kind, keys).await? {
            match found {
                Some(object) if meant(&object) => {
                    let row = row_without_age(&printer, &object, context);
                    if shown.get(&key) != Some(&row) {
                        shown.insert(key, row);
                        changed.push(object);
                    }
                }
                _ => {
                    shown.remove(&key);
                }
            }
        }
        show(&mut printer, &format, context, &changed)?;
    }
}

/// What of a row decides whether it is worth printing again: not the age, which always changes.
fn row_without_age(printer: &Printer, object: &Object, context: &Context) -> Vec<String> {
    let mut frozen = object.clone();
    frozen.created = None;
    let mut row = printer.row(&frozen, context.now());
    if object.kind.plural == "events" {
        row.push(object.number_at(&["count"]).to_string());
        row.remove(0);
    }
    row
}

fn show(
    printer: &mut Printer,
    format: &Format,
    context: &mut Context,
    objects: &[Object],
) -> Result<()> {
    if Printer::is_table(format) {
        let now = context.now();
        let rows: Vec<Vec<String>> = objects.iter().map(|o| printer.row(o, now)).collect();
        if !rows.is_empty() {
            printer.rows(&mut context.out, &rows);
        }
    } else {
        for object in objects {
            if matches!(format, Format::Yaml) {
                context.out.line("---");
            }
            printers::document(
                &mut context.out,
                format,
                std::slice::from_ref(object),
                false,
            )?;
        }
    }
    context.out.flush()?;
    Ok(())
}
