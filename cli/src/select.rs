//! Which objects of a listing are meant: by labels (`-l`) and by fields (`--field-selector`).

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::LabelSelector;

use crate::kinds::KindInfo;
use crate::object::Object;
use crate::printers::jsonpath::plain;

/// The flags that select objects.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SelectArgs {
    /// Only objects with these labels: a=b,c!=d,e in (x,y),!f
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Only objects with these fields: metadata.name=a,status.phase!=Running
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) field_selector: Option<String>,
}

/// Decides whether an object is meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    labels: LabelSelector,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    value: String,
    negated: bool,
}

impl SelectArgs {
    /// Whether anything is selected by flags.
    pub(crate) fn is_given(&self) -> bool {
        self.selector.is_some() || self.field_selector.is_some()
    }

    /// The filter that the flags describe.
    ///
    /// # Errors
    /// When a selector is malformed.
    pub(crate) fn filter(&self) -> Result<Filter> {
        let labels = match &self.selector {
            Some(text) => text.parse()?,
            None => LabelSelector::default(),
        };
        let fields = match &self.field_selector {
            Some(text) => text
                .split(',')
                .filter(|t| !t.trim().is_empty())
                .map(field_term)
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        Ok(Filter { labels, fields })
    }
}

impl Filter {
    /// Whether the fields are ones that objects of a kind are selected by.
    ///
    /// # Errors
    /// Names the field that is not, and those that are.
    pub(crate) fn check(&self, kind: &KindInfo) -> Result<()> {
        let known = fields_of(kind.plural);
        for term in &self.fields {
            if !known.contains(&term.path.as_str()) {
                bail!(
                    "{} cannot be selected by the field {:?}; they can by {}",
                    kind.plural,
                    term.path,
                    known.join(", ")
                );
            }
        }
        Ok(())
    }

    /// Whether an object is meant.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(&object.labels()) && self.fields.iter().all(|t| t.matches(object))
    }
}

impl FieldTerm {
    fn matches(&self, object: &Object) -> bool {
        let path: Vec<&str> = self.path.split('.').collect();
        let have = match object.at(&path) {
            Some(value) => plain(value),
            None if self.path == "status.phase" && object.kind.plural == "pods" => "Pending".into(),
            None if self.path == "spec.unschedulable" => "false".into(),
            None => String::new(),
        };
        (have == self.value) != self.negated
    }
}

fn field_term(text: &str) -> Result<FieldTerm> {
    let text = text.trim();
    let (path, value, negated) = if let Some((path, value)) = text.split_once("!=") {
        (path, value, true)
    } else if let Some((path, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (path, value, false)
    } else {
        bail!("field selector {text:?} is not of the form FIELD=VALUE or FIELD!=VALUE");
    };
    Ok(FieldTerm {
        path: path.trim().into(),
        value: value.trim().into(),
        negated,
    })
}

fn fields_of(plural: &str) -> &'static [&'static str] {
    match plural {
        "pods" => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "status.phase",
            "status.podIP",
        ],
        "events" => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.uid",
            "reason",
            "type",
        ],
        "nodes" => &["metadata.name", "spec.unschedulable"],
        "namespaces" => &["metadata.name", "status.phase"],
        "secrets" => &["metadata.name", "metadata.namespace", "type"],
        _ => &["metadata.name", "metadata.namespace"],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::printers::tests::object;

    fn filter(fields: &str) -> Filter {
        SelectArgs {
            field_selector: Some(fields.into()),
            selector: None,
        }
        .filter()
        .unwrap()
    }

    #[test]
    fn fields_select() {
        let pod = object(
            "pods",
            json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}),
        );
        assert!(filter("spec.nodeName=n1,status.phase==Running").matches(&pod));
        assert!(!filter("spec.nodeName!=n1").matches(&pod));
        assert!(filter("metadata.name=x").matches(&pod));
        assert!(filter("status.phase=Pending").matches(&object("pods", json!({}))));
    }

    #[test]
    fn labels_select() {
        let args = SelectArgs {
            selector: Some("a in (b,c),!d".into()),
            field_selector: None,
        };
        let pod = object("pods", json!({"metadata": {"labels": {"a": "c"}}}));
        assert!(args.filter().unwrap().matches(&pod));
    }

    #[test]
    fn unknown_fields_are_refused_and_malformed_terms_too() {
        let pods = crate::kinds::builtin("pods");
        let text = filter("spec.node=n1").check(&pods).unwrap_err().to_string();
        assert!(text.contains("spec.nodeName"), "{text}");
        assert!(
            SelectArgs {
                field_selector: Some("a".into()),
                selector: None
            }
            .filter()
            .is_err()
        );
    }
}
