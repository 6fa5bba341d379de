//! Node selector terms.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm};

use crate::node::Node;

/// A term: all of it must hold. A term without requirements matches nothing, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    labels: Box<[(Box<str>, Test)]>,
    names: Box<[NameRequirement]>,
    /// A requirement that cannot be understood: the term matches nothing.
    never: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Test {
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NameRequirement {
    names: Box<[Arc<str>]>,
    wanted: bool,
}

impl Term {
    pub(crate) fn new(term: &NodeSelectorTerm) -> Self {
        let mut never = term.match_expressions.is_empty() && term.match_fields.is_empty();
        let mut labels = Vec::new();
        for r in &term.match_expressions {
            match test(r) {
                Some(test) => labels.push((r.key.as_str().into(), test)),
                None => never = true,
            }
        }
        let mut names = Vec::new();
        for r in &term.match_fields {
            let wanted = match (r.key.as_str(), r.operator) {
                ("metadata.name", NodeSelectorOperator::In) => true,
                ("metadata.name", NodeSelectorOperator::NotIn) => false,
                _ => {
                    never = true;
                    continue;
                }
            };
            names.push(NameRequirement {
                names: r.values.iter().map(|v| Arc::from(v.as_str())).collect(),
                wanted,
            });
        }
        Self {
            labels: labels.into(),
            names: names.into(),
            never,
        }
    }

    pub(crate) fn matches(&self, node: &Node, labels: &BTreeMap<String, String>) -> bool {
        !self.never
            && self
                .names
                .iter()
                .all(|r| r.names.contains(&node.name) == r.wanted)
            && self
                .labels
                .iter()
                .all(|(key, test)| test.holds(labels.get(&**key).map(String::as_str)))
    }

    /// The one node that can match, when the term names one.
    pub(crate) fn only_node(&self) -> Option<&Arc<str>> {
        self.names.iter().find_map(|r| match &*r.names {
            [name] if r.wanted => Some(name),
            _ => None,
        })
    }
}

fn test(r: &NodeSelectorRequirement) -> Option<Test> {
    let values = || r.values.iter().map(|v| v.as_str().into()).collect();
    let number = || match r.values.as_slice() {
        [value] => value.parse().ok(),
        _ => None,
    };
    Some(match r.operator {
        NodeSelectorOperator::In => Test::In(values()),
        NodeSelectorOperator::NotIn => Test::NotIn(values()),
        NodeSelectorOperator::Exists => Test::Exists,
        NodeSelectorOperator::DoesNotExist => Test::DoesNotExist,
        NodeSelectorOperator::Gt => Test::Gt(number()?),
        NodeSelectorOperator::Lt => Test::Lt(number()?),
    })
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value?.parse::<i64>().ok();
        let among = |values: &[Box<str>]| values.iter().any(|v| value == Some(&**v));
        match self {
            Self::In(values) => among(values),
            Self::NotIn(values) => !among(values),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::Gt(bound) => number().is_some_and(|n| n > *bound),
            Self::Lt(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}
