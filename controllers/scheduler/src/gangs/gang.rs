//! One group: how its members are, and what is to be done about it.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;
use setpoint_apis::records::ConstraintKind;

use super::{Group, Member, Step};
use crate::asks::Hold;
use crate::pending::{Order, Wish};

/// Why a group is not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Members,
    Willing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gang {
    pub(super) group: Group,
    members: FxHashMap<ObjectKey, Member>,
    pub(super) counts: Counts,
    /// Those that want a node.
    pub(super) queue: BTreeSet<Order>,
    /// Those that cannot be taken back.
    pub(super) fixed: BTreeSet<ObjectKey>,
    /// Whether it has been placed, and not been without any bound pod since.
    pub(super) placed: bool,
    /// The attempt to place it that is under way: from its first binding until it is placed, or nothing of it is bound.
    pub(super) attempt: Option<u64>,
    /// It was tried, and does not fit.
    pub(super) failed: bool,
    /// Other pods that are placed can help then.
    pub(super) social: bool,
    /// It was tried a short while ago, and is not tried again because the cluster changes before
    /// [`super::Gangs::rest_is_over`].
    pub(super) resting: bool,
    /// The cluster changed meanwhile.
    pub(super) stale: bool,
    /// Its order while it is among those to be looked at.
    pub(super) awake: Option<(bool, Order)>,
}

/// How many members there are, and how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) members: usize,
    pub(crate) bound: usize,
    pub(crate) binding: usize,
    pub(crate) wants: usize,
    pub(crate) soon: usize,
    pub(crate) held: usize,
}

impl Counts {
    fn add(&mut self, member: &Member, by: isize) {
        let own = match member {
            Member::Wants(_) => &mut self.wants,
            Member::Binding => &mut self.binding,
            Member::Bound => &mut self.bound,
            Member::Soon => &mut self.soon,
            Member::Held => &mut self.held,
        };
        *own = own.saturating_add_signed(by);
        self.members = self.members.saturating_add_signed(by);
    }
}

impl Gang {
    /// A group of which nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            group: Group::Missing,
            members: FxHashMap::default(),
            counts: Counts::default(),
            queue: BTreeSet::new(),
            fixed: BTreeSet::new(),
            placed: false,
            attempt: None,
            failed: false,
            social: false,
            resting: false,
            stale: false,
            awake: None,
        }
    }

    /// How a pod is, if it is a member.
    pub(super) fn member(&self, pod: &ObjectKey) -> Option<&Member> {
        self.members.get(pod)
    }

    /// All members, in no particular order.
    pub(super) fn members(&self) -> impl Iterator<Item = &ObjectKey> {
        self.members.keys()
    }

    pub(super) fn put(&mut self, pod: &ObjectKey, member: Member) {
        if let Member::Wants(wish) = &member {
            self.queue.insert(wish.order.clone());
        }
        self.counts.add(&member, 1);
        self.members.insert(pod.clone(), member);
    }

    pub(super) fn take(&mut self, pod: &ObjectKey) {
        let Some(member) = self.members.remove(pod) else {
            return;
        };
        if let Member::Wants(wish) = &member {
            self.queue.remove(&wish.order);
        }
        self.counts.add(&member, -1);
    }

    /// In their order.
    pub(super) fn wishes(&self) -> impl Iterator<Item = &Wish> {
        let queued = self.queue.iter().map(|order| self.members.get(&order.pod));
        queued.filter_map(|member| match member {
            Some(Member::Wants(wish)) => Some(wish),
            _ => None,
        })
    }

    /// Those that are bound and can be taken back.
    pub(super) fn movable(&self) -> Vec<ObjectKey> {
        let bound = self.members.iter();
        let bound = bound.filter(|(p, m)| matches!(m, Member::Bound) && !self.fixed.contains(*p));
        let mut pods: Vec<_> = bound.map(|(pod, _)| pod.clone()).collect();
        pods.sort_unstable();
        pods
    }

    /// Whether some pods are bound of a group that has never been placed.
    pub(super) fn is_half_bound(&self) -> bool {
        let counts = self.counts;
        let min = match self.group {
            Group::Of(min) => min as usize,
            Group::Missing | Group::Unknown => return false,
        };
        let bound = counts.bound + counts.binding;
        !self.placed && bound > 0 && bound < min
    }

    pub(super) fn step(&self) -> Step {
        let counts = self.counts;
        if counts.wants == 0 {
            return Step::Rest;
        }
        let min = match self.group {
            Group::Missing => {
                return Step::Hold(self.hold("there is no PodGroup of this name".into()));
            }
            Group::Unknown => {
                return Step::Hold(self.hold("the PodGroup of this name is not valid".into()));
            }
            Group::Of(min) => min as usize,
        };
        let there = counts.bound + counts.binding;
        let wishes = || self.wishes().cloned().collect();
        if there >= min {
            return Step::Singly(wishes());
        }
        let need = min - there;
        let lack = if counts.members < min && !self.placed {
            Lack::Members
        } else if counts.wants < need && !self.placed {
            // Those that come back in a while are waited for; those that are held back are not.
            if counts.wants + counts.soon < need
                && let Some(apart) = self.take_apart()
            {
                return apart;
            }
            Lack::Willing
        } else {
            return Step::Place {
                wishes: wishes(),
                need: need.min(counts.wants),
            };
        };
        if lack == Lack::Members
            && let Some(apart) = self.take_apart()
        {
            return apart;
        }
        let exist = match lack {
            Lack::Members => format!("{} of {min} members exist", counts.members),
            Lack::Willing => format!(
                "{} of {min} members can be placed now",
                counts.wants + there
            ),
        };
        Step::Hold(self.hold(exist))
    }

    /// Once no binding is under way, when there is anything to take back.
    fn take_apart(&self) -> Option<Step> {
        let pods = self.movable();
        (self.counts.binding == 0 && !pods.is_empty()).then_some(Step::TakeApart(pods))
    }

    fn hold(&self, what: String) -> Hold {
        // The group's name is in the pods' label.
        Hold::new(
            ConstraintKind::PodGroup,
            &what,
            format!("pod group: {what}"),
        )
    }
}
