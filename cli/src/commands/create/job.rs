//! `setpoint create job`: a Job of one container, or of a CronJob's template, now.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use setpoint_apis::batch::labels;
use setpoint_apis::document;

use crate::commands::DryRun;
use crate::commands::apply::finish;
use crate::context::Context;
use crate::object::Object;
use crate::printers::Format;
use crate::resolve;
use crate::write::{Mode, WriteOptions};

/// Flags of `setpoint create job`.
#[derive(Args, Clone, Debug)]
pub(crate) struct JobArgs {
    /// Its name
    name: String,
    /// What it is made from: cronjob/NAME
    #[arg(long, value_name = "CRONJOB", conflicts_with_all = ["image", "command"])]
    from: Option<String>,
    /// The image of its container
    #[arg(long, required_unless_present = "from")]
    image: Option<String>,
    /// What its container runs
    #[arg(last = true)]
    command: Vec<String>,
    /// Do not write
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// name, yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs the command.
pub(super) async fn run(args: JobArgs, context: &mut Context) -> Result<()> {
    let namespace = context.namespace()?;
    let (metadata, spec) = match &args.from {
        Some(from) => from_cron_job(from, &namespace, context).await?,
        None => (json!({}), plain(&args)),
    };
    let mut job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": spec,
    });
    job["metadata"]["name"] = json!(args.name);
    let documents = super::documents(&job, Some(&namespace))?;
    let options = WriteOptions {
        mode: Mode::Create,
        split: false,
        dry_run: args.dry_run == DryRun::Server,
    };
    let output = args.output.as_ref();
    finish(context, &documents, options, args.dry_run, output).await
}

fn plain(args: &JobArgs) -> Value {
    let mut container = json!({ "name": args.name, "image": args.image });
    if !args.command.is_empty() {
        container["command"] = json!(args.command);
    }
    json!({ "template": { "spec": { "restartPolicy": "Never", "containers": [container] } } })
}

/// Metadata and spec of a Job of a CronJob's template.
async fn from_cron_job(
    from: &str,
    namespace: &str,
    context: &mut Context,
) -> Result<(Value, Value)> {
    let client = context.client().await?;
    let named = resolve::named(&client, &[from.to_owned()], namespace).await?;
    let [(kind, key)] = named.as_slice() else {
        bail!("--from names one CronJob: cronjob/NAME");
    };
    if kind.plural != "cronjobs" {
        bail!("--from takes a CronJob, and {from:?} is none");
    }
    let found = client.find(*kind, key).await?;
    let cron_job =
        found.with_context(|| format!("{} {:?} not found", kind.full_plural(), &*key.name))?;
    if let Some(message) = &cron_job.invalid {
        bail!("{} cannot be used: {message}", cron_job.full_name());
    }
    let template = cron_job.at(&["spec", "jobTemplate"]);
    let template = template.context("the CronJob has no jobTemplate")?;
    let text = cron_job.text.as_deref().unwrap_or_default();
    let document: Value = document::decode_value(text.as_bytes())
        .with_context(|| format!("reading {}", cron_job.full_name()))?;
    let template = written(template, &document["spec"]["jobTemplate"]);
    Ok((metadata(&cron_job, &template), template["spec"].clone()))
}

/// A value without the defaults that were filled in: what is in the document, too. A Job gets its own, and nobody is
/// warned of fields that nobody wrote.
fn written(read: &Value, document: &Value) -> Value {
    match (read, document) {
        (Value::Object(read), Value::Object(document)) => {
            let both = read.iter().filter_map(|(name, read)| {
                let document = document.get(name).filter(|v| !v.is_null())?;
                Some((name.clone(), written(read, document)))
            });
            Value::Object(both.collect())
        }
        (Value::Array(read), Value::Array(document)) if read.len() == document.len() => {
            let both = read.iter().zip(document);
            both.map(|(read, document)| written(read, document))
                .collect()
        }
        _ => read.clone(),
    }
}

fn metadata(cron_job: &Object, template: &Value) -> Value {
    let mut metadata = json!({
        "annotations": { labels::INSTANTIATE: "manual" },
        "ownerReferences": [{
            "apiVersion": cron_job.kind.api_version,
            "kind": cron_job.kind.kind,
            "name": &*cron_job.key.name,
            "uid": cron_job.uid(),
            "controller": true,
        }],
    });
    let of_template = &template["metadata"];
    if of_template["labels"].is_object() {
        metadata["labels"] = of_template["labels"].clone();
    }
    for (name, value) in of_template["annotations"].as_object().into_iter().flatten() {
        metadata["annotations"][name] = value.clone();
    }
    metadata
}
