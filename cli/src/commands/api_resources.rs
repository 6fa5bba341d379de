//! `setpoint api-resources`: the kinds that there are.

use anyhow::Result;
use clap::Args;

use crate::context::Context;
use crate::kinds;
use crate::printers::Format;
use crate::printers::table::Table;

/// Flags of `setpoint api-resources`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApiResourcesArgs {
    /// name prints names alone
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
    /// Only kinds that live in namespaces, or only those that do not
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    namespaced: Option<bool>,
}

/// Runs the command.
pub(crate) async fn run(args: ApiResourcesArgs, context: &mut Context) -> Result<()> {
    let mut all: Vec<_> = kinds::all()
        .filter(|k| args.namespaced.is_none_or(|n| n == k.namespaced))
        .collect();
    all.sort_by_key(|k| (k.group(), k.plural));
    if matches!(args.output, Some(Format::Name)) {
        for kind in all {
            context.out.line(kind.full_plural());
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|k| {
            vec![
                k.plural.into(),
                k.short_names.join(","),
                k.api_version.into(),
                k.namespaced.to_string(),
                k.kind.into(),
            ]
        })
        .collect();
    let mut table = Table::new(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]);
    if args.no_headers {
        table = table.without_headers();
    }
    table.print(&mut context.out, &rows);
    Ok(())
}
