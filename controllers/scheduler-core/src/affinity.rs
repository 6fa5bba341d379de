//! Node selector terms over interned labels.

use std::sync::Arc;

use setpoint_apis::core::{NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm};

use crate::intern::{Interner, Symbol};
use crate::node::Node;

/// A term: all of it must hold. A term without requirements matches nothing, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    labels: Box<[LabelRequirement]>,
    names: Box<[NameRequirement]>,
    /// A requirement that cannot be understood: the term matches nothing.
    never: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LabelRequirement {
    key: Symbol,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Test {
    In(Box<[Symbol]>),
    NotIn(Box<[Symbol]>),
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
    pub(crate) fn new(term: &NodeSelectorTerm, interner: &mut Interner) -> Self {
        let mut never = term.match_expressions.is_empty() && term.match_fields.is_empty();
        let mut labels = Vec::new();
        for r in &term.match_expressions {
            match test(r, interner) {
                Some(test) => labels.push(LabelRequirement {
                    key: interner.intern(&r.key),
                    test,
                }),
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

    pub(crate) fn matches(&self, node: &Node, interner: &Interner) -> bool {
        !self.never
            && self
                .names
                .iter()
                .all(|r| r.names.contains(&node.name) == r.wanted)
            && self
                .labels
                .iter()
                .all(|r| r.test.holds(label(node, r.key), interner))
    }

    /// The one node that can match, when the term names one.
    pub(crate) fn only_node(&self) -> Option<&Arc<str>> {
        self.names.iter().find_map(|r| match &*r.names {
            [name] if r.wanted => Some(name),
            _ => None,
        })
    }
}

/// The value of a node's label.
pub(crate) fn label(node: &Node, key: Symbol) -> Option<Symbol> {
    node.labels
        .binary_search_by_key(&key, |l| l.0)
        .ok()
        .map(|i| node.labels[i].1)
}

fn test(r: &NodeSelectorRequirement, interner: &mut Interner) -> Option<Test> {
    let mut values = || r.values.iter().map(|v| interner.intern(v)).collect();
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
    fn holds(&self, value: Option<Symbol>, interner: &Interner) -> bool {
        let number = || interner.text(value?).parse::<i64>().ok();
        match self {
            Self::In(values) => value.is_some_and(|v| values.contains(&v)),
            Self::NotIn(values) => value.is_none_or(|v| !values.contains(&v)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::Gt(bound) => number().is_some_and(|n| n > *bound),
            Self::Lt(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}
