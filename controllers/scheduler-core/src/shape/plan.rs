//! Which counts matter to the pods of a shape, and whether they are read per group or per node.

use crate::class::Kind;
use crate::shape::Shape;
use crate::state::State;
use crate::terms::Registry;
use crate::topology::NOWHERE;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nothing matters.
    pub(super) flat: bool,
    /// The keys that are used, and the sum of their turns when this was made.
    pub(super) keys: Vec<u32>,
    pub(super) turns: u64,
    /// The keys whose domains are in the signature, in its order.
    pub(super) coarse: Vec<u32>,
    /// Terms that must have no pods (own) or no holders (foreign) in the node's domain.
    pub(super) anti: Vec<Anti>,
    /// Terms that must have pods in the node's domain.
    pub(super) affinity: Vec<(u32, At)>,
    /// By spread constraint.
    pub(super) spread: Vec<At>,
    /// Terms whose pods count in the score, with weight, and terms whose holders do.
    pub(super) wishes: Vec<(u32, i64, At)>,
    pub(super) wished: Vec<(u32, At)>,
    /// Where the signature has what the fine ones of these two add up to.
    pub(super) fine_score: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Anti {
    pub(super) term: u32,
    pub(super) own: bool,
    pub(super) foreign: bool,
    pub(super) at: At,
}

/// In a signature: no nominated pod counts in the domain.
pub(super) const UNCLAIMED: i64 = i64::MIN;

/// Where the count of a term is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// By the domain that is at this place of the signature.
    Domain(usize),
    /// At this place of the signature.
    Value(usize),
    /// Nowhere: nodes for which it matters are in no group.
    Node,
}

impl Plan {
    pub(super) fn new(kind: &Kind, foreign: &[u32], registry: &Registry) -> Self {
        let mut plan = Self::default();
        if kind.bound {
            plan.flat = true;
            return plan;
        }
        let own = &kind.own;
        let mut terms: Vec<u32> = foreign.to_vec();
        terms.extend(own.terms());
        plan.flat = terms.is_empty();
        plan.keys = terms.iter().map(|t| registry.terms[*t].key).collect();
        plan.keys.sort_unstable();
        plan.keys.dedup();
        plan.turns = registry.turns(&plan.keys);
        plan.coarse = plan
            .keys
            .iter()
            .copied()
            .filter(|k| !registry.keys[*k].fine)
            .collect();
        let mut next = plan.coarse.len();
        let coarse = plan.coarse.clone();
        let domain = |term: u32| {
            let key = registry.terms[term].key;
            coarse.iter().position(|k| *k == key).map(At::Domain)
        };
        let mut value = || {
            next += 1;
            At::Value(next - 1)
        };
        plan.affinity = own
            .affinity
            .iter()
            .map(|t| (*t, domain(*t).unwrap_or_else(&mut value)))
            .collect();
        plan.spread = own
            .spread
            .iter()
            .map(|s| {
                domain(s.term).unwrap_or_else(|| {
                    let at = value();
                    if s.hard {
                        // And one for what nominated pods make of it.
                        value();
                    }
                    at
                })
            })
            .collect();
        let node = |t: u32| domain(t).unwrap_or(At::Node);
        let anti = |t: u32, own: bool, foreign: bool| Anti {
            term: t,
            own,
            foreign,
            at: node(t),
        };
        plan.anti = own
            .anti
            .iter()
            .map(|t| anti(*t, true, foreign.contains(t)))
            .collect();
        let others = foreign.iter().filter(|t| !own.anti.contains(t));
        plan.anti.extend(others.map(|t| anti(*t, false, true)));
        plan.wishes = own
            .preferred
            .iter()
            .map(|(t, w)| (*t, i64::from(*w), node(*t)))
            .collect();
        plan.wished = foreign.iter().map(|t| (*t, node(*t))).collect();
        let fine = plan.wishes.iter().any(|w| w.2 == At::Node)
            || plan.wished.iter().any(|w| w.1 == At::Node);
        if fine {
            plan.fine_score = Some(next);
        }
        plan
    }
}

impl Shape {
    /// Writes down what tells a node's group from others. Returns whether the node can be in one.
    pub(super) fn sign(&self, slot: u32, state: &State, out: &mut Vec<i64>) -> bool {
        let registry = &state.registry;
        let plan = &self.plan;
        let domain_of = |term: u32| registry.keys[registry.terms[term].key].of(slot);
        out.clear();
        out.extend(
            plan.coarse
                .iter()
                .map(|k| match registry.keys[*k].of(slot) {
                    NOWHERE => -1,
                    domain => i64::from(domain),
                }),
        );
        for (term, at) in &plan.affinity {
            let domain = domain_of(*term);
            if domain == NOWHERE {
                return false;
            }
            if let At::Value(_) = at {
                out.push(i64::from(registry.terms[*term].pods.get(domain) > 0));
            }
        }
        for (table, at) in self.tables.iter().zip(&plan.spread) {
            let domain = domain_of(table.spread.term);
            if domain == NOWHERE && table.spread.hard {
                return false;
            }
            if let At::Value(_) = at {
                out.push(if domain == NOWHERE {
                    -1
                } else {
                    table.pods(domain)
                });
                if table.spread.hard {
                    out.push(table.pods_then(domain).unwrap_or(UNCLAIMED));
                }
            }
        }
        for anti in plan.anti.iter().filter(|a| a.at == At::Node) {
            if self.clashes(anti, domain_of(anti.term), state) {
                return false;
            }
        }
        if plan.fine_score.is_some() {
            let wishes = plan.wishes.iter().filter(|w| w.2 == At::Node);
            let mine: i64 = wishes
                .map(|(t, w, _)| w * registry.terms[*t].pods.get(domain_of(*t)))
                .sum();
            let wished = plan.wished.iter().filter(|w| w.1 == At::Node);
            let theirs: i64 = wished
                .map(|(t, _)| registry.terms[*t].weight.get(domain_of(*t)))
                .sum();
            out.push(mine + theirs);
        }
        true
    }

    /// Whether anti-affinity, in one direction or the other, keeps the pods out of a domain.
    pub(super) fn clashes(&self, anti: &Anti, domain: u32, state: &State) -> bool {
        if domain == NOWHERE {
            return false;
        }
        let (term, priority) = (&state.registry.terms[anti.term], self.kind.priority);
        (anti.own && (term.pods.get(domain) > 0 || term.nominated(domain, priority) > 0))
            || (anti.foreign
                && (term.anti.get(domain) > 0 || term.anti_nominated(domain, priority) > 0))
    }
}
