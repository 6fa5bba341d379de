//! `setpoint validate`: everything that is wrong with manifests, without a cluster.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use setpoint_apis::strict::{Options, Problem};

use crate::context::Context;
use crate::kinds::{self, KindInfo};
use crate::manifest::{self, FileArgs, StrictArgs};
use crate::term;

/// Flags of `setpoint validate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ValidateArgs {
    /// Files, directories, `-` or URLs
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    strict: StrictArgs,
    /// How to report
    #[arg(short, long, value_enum, default_value_t)]
    output: Report,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Report {
    /// A line per problem
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// Runs the command.
pub(crate) async fn run(args: ValidateArgs, context: &mut Context) -> Result<()> {
    let mut files = args.files;
    files.filenames.extend(args.paths);
    let sources = files.read().await?;
    let options = Options {
        ignore_unsupported: args.strict.ignore_unsupported,
        default_namespace: Some(crate::context::DEFAULT_NAMESPACE),
        allow_generate_name: true,
        registry: kinds::documents(),
        ..Options::default()
    };
    let manifest = manifest::parse(&sources, &options);
    let names = || {
        manifest
            .documents
            .iter()
            .map(|d| KindInfo::from(&d.kind).full_name(&d.key.name))
    };
    if args.output == Report::Json {
        let report = json!({
            "valid": manifest.errors.is_empty(),
            "objects": names().collect::<Vec<_>>(),
            "errors": manifest.errors.iter().map(problem).collect::<Vec<_>>(),
            "warnings": manifest.warnings.iter().map(problem).collect::<Vec<_>>(),
            "notes": manifest.notes.iter().map(problem).collect::<Vec<_>>(),
        });
        context.out.line(serde_json::to_string_pretty(&report)?);
        context.out.flush()?;
    } else {
        for warning in &manifest.warnings {
            term::warn(warning);
        }
        for note in manifest
            .notes
            .iter()
            .filter(|_| context.global().verbose > 0)
        {
            term::note(format_args!("note: {note}"));
        }
        for name in names() {
            context.out.line(format_args!("{name} valid"));
        }
    }
    match manifest.errors.as_slice() {
        [] if manifest.documents.is_empty() => bail!("there is no object in it"),
        [] => Ok(()),
        errors if args.output == Report::Json => bail!("{} problems", errors.len()),
        [one] => bail!("{one}"),
        errors => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            bail!("{} problems:\n{}", lines.len(), lines.join("\n"))
        }
    }
}

fn problem(p: &Problem) -> Value {
    json!({
        "source": &*p.source, "line": p.line, "column": p.column, "path": p.path, "message": p.message, "hint": p.hint,
    })
}
