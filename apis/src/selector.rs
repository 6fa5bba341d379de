//! Label selectors: as documents write them, and as the command line takes them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Selects objects by their labels: all entries of both fields must hold. An empty selector selects everything.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with the value they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// A requirement on one label.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: LabelSelectorOperator,
    /// With what; empty for `Exists` and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum LabelSelectorOperator {
    /// Has one of the values.
    #[default]
    In,
    /// Is absent or has none of the values.
    NotIn,
    /// Is present.
    Exists,
    /// Is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Selects objects that have all of `labels`.
    pub fn labels(labels: BTreeMap<String, String>) -> Self {
        Self {
            match_labels: labels,
            match_expressions: Vec::new(),
        }
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|r| r.matches(labels))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl LabelSelectorRequirement {
    /// Whether it holds for an object with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelSelectorOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelSelectorOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelSelectorOperator::Exists => value.is_some(),
            LabelSelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}: {problem}")]
pub struct BadSelector {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FromStr for LabelSelector {
    type Err = BadSelector;

    /// Reads what `-l` takes: `a=b,c!=d,e in (x,y),g notin (z),f,!h`.
    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let bad = |problem: String| BadSelector {
            text: text.into(),
            problem,
        };
        let mut selector = Self::default();
        for term in split_terms(text).map_err(|p| bad(p.into()))? {
            let requirement = parse_term(term).map_err(&bad)?;
            let already = selector.match_labels.contains_key(&requirement.key);
            if requirement.operator == LabelSelectorOperator::In
                && requirement.values.len() == 1
                && !already
            {
                let value = requirement.values.into_iter().next().unwrap_or_default();
                selector.match_labels.insert(requirement.key, value);
            } else {
                selector.match_expressions.push(requirement);
            }
        }
        Ok(selector)
    }
}

fn split_terms(text: &str) -> Result<Vec<&str>, &'static str> {
    let (mut terms, mut start, mut inside) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            '(' if inside => return Err("a '(' inside of parentheses"),
            '(' => inside = true,
            ')' if !inside => return Err("a ')' without its '('"),
            ')' => inside = false,
            ',' if !inside => {
                terms.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a '(' without its ')'");
    }
    let last = text[start..].trim();
    if !(last.is_empty() && terms.is_empty()) {
        terms.push(last);
    }
    Ok(terms)
}

fn parse_term(term: &str) -> Result<LabelSelectorRequirement, String> {
    use LabelSelectorOperator::{DoesNotExist, Exists, In, NotIn};
    let (key, operator, values) = if let Some(inner) = term.strip_suffix(')') {
        let (head, list) = inner
            .split_once('(')
            .ok_or_else(|| format!("{term:?} lacks a '('"))?;
        let mut words = head.split_whitespace();
        let (key, operator) = match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => (key, In),
            (Some(key), Some("notin"), None) => (key, NotIn),
            _ => {
                return Err(format!(
                    "{term:?} is not of the form `key in (a,b)` or `key notin (a,b)`"
                ));
            }
        };
        (
            key,
            operator,
            list.split(',').map(|v| v.trim().to_owned()).collect(),
        )
    } else if let Some((key, value)) = term.split_once("!=") {
        (key, NotIn, vec![value.trim().to_owned()])
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, In, vec![value.trim().to_owned()])
    } else if let Some(key) = term.strip_prefix('!') {
        (key, DoesNotExist, Vec::new())
    } else {
        (term, Exists, Vec::new())
    };
    let key = key.trim();
    crate::names::label_key(key).map_err(|e| format!("{key:?} {e}"))?;
    for value in &values {
        crate::names::label_value(value).map_err(|e| format!("{value:?} {e}"))?;
    }
    Ok(LabelSelectorRequirement {
        key: key.into(),
        operator,
        values,
    })
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.match_labels.iter().map(|(k, v)| format!("{k}={v}"));
        let expressions = self.match_expressions.iter().map(|r| {
            let (key, values) = (&r.key, r.values.join(","));
            match r.operator {
                LabelSelectorOperator::In => format!("{key} in ({values})"),
                LabelSelectorOperator::NotIn => format!("{key} notin ({values})"),
                LabelSelectorOperator::Exists => key.clone(),
                LabelSelectorOperator::DoesNotExist => format!("!{key}"),
            }
        });
        f.write_str(&labels.chain(expressions).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect()
    }

    #[test]
    fn the_command_line_form_selects_as_kubectl_does() {
        let s: LabelSelector = "a=b, c!=d,e in (x, y),g notin (z),f,!h,i==j"
            .parse()
            .unwrap();
        let good = labels(&[("a", "b"), ("e", "y"), ("f", ""), ("i", "j")]);
        assert!(s.matches(&good));
        for (k, v) in [
            ("a", "x"),
            ("c", "d"),
            ("e", "z"),
            ("g", "z"),
            ("h", ""),
            ("i", "k"),
        ] {
            let mut worse = good.clone();
            worse.insert(k.into(), v.into());
            assert!(!s.matches(&worse), "{k}={v}");
        }
        let mut without = good;
        without.remove("f");
        assert!(!s.matches(&without));
        assert_eq!(s.to_string().parse::<LabelSelector>().unwrap(), s);
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        let s: LabelSelector = "".parse().unwrap();
        assert!(s.is_empty() && s.matches(&labels(&[("a", "b")])) && s.matches(&labels(&[])));
    }

    #[test]
    fn two_values_for_one_label_select_nothing() {
        let s: LabelSelector = "a=b,a=c".parse().unwrap();
        assert!(!s.matches(&labels(&[("a", "b")])) && !s.matches(&labels(&[("a", "c")])));
    }

    #[test]
    fn malformed_selectors_are_errors() {
        for bad in [
            ",",
            "a=b,",
            "a in x",
            "a in (x",
            "a x)",
            "a=b c",
            "!",
            "=b",
            "a in ((x))",
            "-a=b",
        ] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad}");
        }
    }
}
