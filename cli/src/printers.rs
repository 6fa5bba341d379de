//! How objects are written: tables, YAML, JSON, names, JSONPath, custom columns.

pub(crate) mod age;
pub(crate) mod columns;
pub(crate) mod jsonpath;
pub(crate) mod table;

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use setpoint_apis::document::to_yaml;
use setpoint_apis::time::Timestamp;

use crate::kinds::KindInfo;
use crate::object::Object;
use crate::term::Out;
use columns::Column;
use jsonpath::{Path, Template};
use table::Table;

/// What `-o` takes.
#[derive(Clone, Debug, Default)]
pub(crate) enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// `kind/name`, one per line.
    Name,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// A template of JSONPaths.
    JsonPath(Arc<Template>),
    /// Columns of the user's: header and path.
    Custom(Arc<Vec<(String, Path)>>),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = text
            .split_once('=')
            .map_or((text, None), |(n, a)| (n, Some(a)));
        Ok(match (name, argument) {
            ("wide", None) => Self::Wide,
            ("name", None) => Self::Name,
            ("yaml", None) => Self::Yaml,
            ("json", None) => Self::Json,
            ("jsonpath", Some(template)) => Self::JsonPath(Arc::new(
                Template::parse(template).map_err(|e| format!("{e:#}"))?,
            )),
            ("custom-columns", Some(spec)) => {
                Self::Custom(Arc::new(custom(spec).map_err(|e| format!("{e:#}"))?))
            }
            ("jsonpath" | "custom-columns", None) => {
                return Err(format!("-o {name}=... needs what comes after the '='"));
            }
            _ => {
                return Err(format!(
                    "unknown output format {text:?}; there are wide, name, yaml, json, jsonpath=TEMPLATE and \
                     custom-columns=HEADER:PATH,..."
                ));
            }
        })
    }
}

impl Format {
    /// What `-o` names it by.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Wide => "wide",
            Self::Name => "name",
            Self::Yaml => "yaml",
            Self::Json => "json",
            Self::JsonPath(_) => "jsonpath",
            Self::Custom(_) => "custom-columns",
        }
    }
}

/// Refuses tables where objects are printed by name, or as they are.
///
/// # Errors
/// When the format is one.
pub(crate) fn check_of_objects(format: Option<&Format>) -> Result<()> {
    match format.filter(|f| Printer::is_table(f)) {
        Some(format) => bail!(
            "-o {} is not supported here: name, yaml, json or jsonpath=TEMPLATE",
            format.word()
        ),
        None => Ok(()),
    }
}

fn custom(spec: &str) -> Result<Vec<(String, Path)>> {
    let column = |part: &str| -> Result<(String, Path)> {
        let (header, path) = part
            .split_once(':')
            .with_context(|| format!("{part:?} is not of the form HEADER:PATH"))?;
        Ok((header.to_owned(), Path::parse(path)?))
    };
    spec.split(',').map(column).collect()
}

/// How to print tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableOptions {
    /// Whether to show the namespace.
    pub(crate) namespaces: bool,
    /// Whether to show all labels.
    pub(crate) labels: bool,
    /// Labels that get a column each.
    pub(crate) label_columns: Vec<String>,
    /// Whether to leave the headers out.
    pub(crate) no_headers: bool,
    /// Whether names carry their kind.
    pub(crate) kinds: bool,
}

/// Prints objects of one kind, now and as they change.
pub(crate) struct Printer {
    format: Format,
    options: TableOptions,
    columns: Vec<Column>,
    table: Table,
}

impl Printer {
    /// A printer of objects of a kind.
    pub(crate) fn new(kind: KindInfo, format: Format, options: TableOptions) -> Self {
        let wide = matches!(format, Format::Wide);
        let columns: Vec<Column> = columns::of(kind.plural)
            .iter()
            .filter(|c| wide || !c.wide)
            .copied()
            .collect();
        let mut headers: Vec<String> = Vec::new();
        match &format {
            Format::Custom(custom) => headers.extend(custom.iter().map(|(h, _)| h.clone())),
            _ => {
                headers.extend(options.namespaces.then(|| "NAMESPACE".to_owned()));
                headers.extend(columns.iter().map(|c| c.name.to_owned()));
                headers.extend(
                    options
                        .label_columns
                        .iter()
                        .map(|l| l.rsplit('/').next().unwrap_or_default().to_owned()),
                );
                headers.extend(options.labels.then(|| "LABELS".to_owned()));
            }
        }
        let mut table = Table::new(headers);
        if options.no_headers {
            table = table.without_headers();
        }
        Self {
            format,
            options,
            columns,
            table,
        }
    }

    /// Whether it prints rows of a table.
    pub(crate) fn is_table(format: &Format) -> bool {
        matches!(format, Format::Table | Format::Wide | Format::Custom(_))
    }

    /// The cells of an object; two that are equal need not be printed twice.
    pub(crate) fn row(&self, object: &Object, now: Timestamp) -> Vec<String> {
        if let Format::Custom(custom) = &self.format {
            let cell = |path: &Path| {
                let found: Vec<String> = path
                    .query(&object.value)
                    .into_iter()
                    .map(jsonpath::plain)
                    .collect();
                if found.is_empty() {
                    "<none>".to_owned()
                } else {
                    found.join(",")
                }
            };
            return custom.iter().map(|(_, path)| cell(path)).collect();
        }
        let mut row = Vec::with_capacity(self.columns.len() + 3);
        row.extend(
            self.options
                .namespaces
                .then(|| object.key.namespace.to_string()),
        );
        for (i, column) in self.columns.iter().enumerate() {
            let unreadable = object.is_unreadable();
            let frozen = unreadable || object.frozen().is_some();
            let cell = match column.name {
                "NAME" if self.options.kinds => object.full_name(),
                "NAME" | "AGE" => (column.cell)(object, now),
                // What cannot be read has no content to show; nor may it look as if it were well.
                _ if frozen && i == 1 => "Invalid".to_owned(),
                _ if frozen && column.name == "STATUS" => "Invalid".to_owned(),
                // What was counted last is still the best that is known.
                _ if unreadable && column.is_counted(object) => (column.cell)(object, now),
                _ if unreadable => "?".to_owned(),
                _ => (column.cell)(object, now),
            };
            row.push(cell);
        }
        let labels = object.labels();
        row.extend(
            self.options
                .label_columns
                .iter()
                .map(|l| labels.get(l).cloned().unwrap_or_default()),
        );
        if self.options.labels {
            let all: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            row.push(if all.is_empty() {
                "<none>".to_owned()
            } else {
                all.join(",")
            });
        }
        row
    }

    /// Prints rows.
    pub(crate) fn rows(&mut self, out: &mut Out, rows: &[Vec<String>]) {
        self.table.print(out, rows);
    }
}

/// Prints values in a format that is no table: one object as it is, several as a List.
///
/// # Errors
/// When a value cannot be written.
pub(crate) fn document(
    out: &mut Out,
    format: &Format,
    objects: &[Object],
    as_list: bool,
) -> Result<()> {
    if let Format::Name = format {
        for object in objects {
            out.line(object.full_name());
        }
        return Ok(());
    }
    let value = match objects {
        [one] if !as_list => one.value.clone(),
        many => json!({
            "apiVersion": "v1",
            "items": many.iter().map(|o| &o.value).collect::<Vec<_>>(),
            "kind": "List",
            "metadata": {},
        }),
    };
    self::value(out, format, &value)
}

/// Prints one value in a format that is neither a table nor names.
///
/// # Errors
/// When the format is one of those, or the value cannot be written.
pub(crate) fn value(out: &mut Out, format: &Format, value: &Value) -> Result<()> {
    match format {
        Format::Yaml => out.text(to_yaml(value).context("writing YAML")?),
        Format::Json => out.line(serde_json::to_string_pretty(value).context("writing JSON")?),
        Format::JsonPath(template) => out.text(template.render(value)),
        Format::Table | Format::Wide | Format::Name | Format::Custom(_) => {
            bail!(
                "-o {} is not supported here: yaml, json or jsonpath=TEMPLATE",
                format.word()
            )
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use setpoint_apis::ObjectKey;

    use super::*;
    use crate::kinds;

    pub(crate) fn object(plural: &str, value: Value) -> Object {
        let mut value = value;
        value["metadata"]["name"] = json!("x");
        Object {
            kind: kinds::builtin(plural),
            key: ObjectKey::namespaced("default", "x"),
            value,
            invalid: None,
            text: None,
            revisions: None,
            created: Some(Timestamp::EPOCH),
            terminating: false,
        }
    }

    fn row(format: &str, options: TableOptions, object: &Object) -> String {
        let format = if format.is_empty() {
            Format::Table
        } else {
            format.parse().unwrap()
        };
        Printer::new(object.kind, format, options)
            .row(object, Timestamp::from_unix_seconds(60))
            .join(" | ")
    }

    #[test]
    fn rows_have_kubectls_cells() {
        let deployment = object(
            "deployments",
            json!({
                "metadata": {"labels": {"app": "web"}},
                "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                         "template": {"spec": {"containers": [{"name": "c", "image": "host"}]}}},
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
            }),
        );
        assert_eq!(
            row("", TableOptions::default(), &deployment),
            "x | 2/3 | 3 | 2 | 60s"
        );
        assert_eq!(
            row("wide", TableOptions::default(), &deployment),
            "x | 2/3 | 3 | 2 | 60s | c | host | app=web"
        );
        let all = TableOptions {
            namespaces: true,
            labels: true,
            kinds: true,
            ..TableOptions::default()
        };
        assert_eq!(
            row("", all, &deployment),
            "default | deployment.apps/x | 2/3 | 3 | 2 | 60s | app=web"
        );
        assert_eq!(
            row(
                "custom-columns=A:.metadata.name,B:.nope",
                TableOptions::default(),
                &deployment
            ),
            "x | <none>"
        );
        let daemon_set = object(
            "daemonsets",
            json!({
                "spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
                "status": {"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2,
                           "updatedNumberScheduled": 1},
            }),
        );
        assert_eq!(
            row("", TableOptions::default(), &daemon_set),
            "x | 4 | 3 | 2 | 1 | 0 | disk=ssd | 60s"
        );
        let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true}]);
        let revision = object(
            "controllerrevisions",
            json!({"metadata": {"ownerReferences": owner}, "revision": 3}),
        );
        assert_eq!(
            row("", TableOptions::default(), &revision),
            "x | daemonset.apps/d | 3 | 60s"
        );
        let service = object(
            "services",
            json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]}}),
        );
        assert_eq!(
            row("", TableOptions::default(), &service),
            "x | ClusterIP | 10.0.0.1 | <none> | 80/TCP,53:30053/UDP | 60s"
        );
        let event = object(
            "events",
            json!({"type": "Warning", "reason": "BackOff", "message": "no\n", "lastTimestamp": "1970-01-01T00:00:50Z",
                   "involvedObject": {"kind": "Pod", "name": "p"}}),
        );
        assert_eq!(
            row("", TableOptions::default(), &event),
            "10s | Warning | BackOff | pod/p | no"
        );
    }

    #[test]
    fn an_invalid_document_is_shown_as_such_and_not_as_well() {
        let mut broken = object("pods", json!({"invalid": {"message": "no"}}));
        broken.invalid = Some("no".into());
        assert_eq!(
            row("", TableOptions::default(), &broken),
            "x | Invalid | Invalid | ? | 60s"
        );
        let counted = json!({"invalid": {"message": "no"}, "status": {"readyReplicas": 3, "updatedReplicas": 3, "availableReplicas": 2}});
        let mut broken = object("deployments", counted);
        broken.invalid = Some("no".into());
        assert_eq!(
            row("", TableOptions::default(), &broken),
            "x | Invalid | 3 | 2 | 60s"
        );
    }

    #[test]
    fn unknown_formats_name_the_known_ones() {
        assert!("yml".parse::<Format>().unwrap_err().contains("yaml"));
        assert!("jsonpath".parse::<Format>().is_err());
    }
}
