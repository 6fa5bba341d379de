//! What is left of a node for a pod, where more counts than what is placed there: capacity that is held for others,
//! nominated pods, pods that would be gone.

use crate::class::Kind;
use crate::intern::Symbol;
use crate::node::Node;
use crate::resources::Resources;
use crate::state::State;

/// What counts as used of a node for the pods of a class.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    used: [i64; 4],
    allocatable: [i64; 4],
    /// Name, allocatable, used.
    extended: Vec<(Symbol, i64, i64)>,
}

/// What is left out of account.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Without<'a> {
    /// These pods, which are counted on the node.
    pub(crate) removed: &'a [u32],
    /// All nominated pods.
    pub(crate) nominated: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) kind: &'a Kind,
    /// The matchers of the reservations that they own.
    pub(crate) owned: &'a [u32],
}

impl Room {
    /// What a node has beside what is placed there, whatever is kept for whom.
    pub(crate) fn bare(node: &Node) -> Self {
        Self {
            used: node.used,
            allocatable: node.allocatable,
            extended: node.extended.clone(),
        }
    }

    /// How many pods with these requests fit.
    pub(crate) fn times(&self, requests: &Resources) -> i64 {
        let fixed = requests
            .fixed
            .into_iter()
            .zip(self.allocatable)
            .zip(self.used);
        let fixed = fixed.map(|((amount, all), used)| (amount, all - used));
        let extended = requests.extended.iter().map(|(name, amount)| {
            let known = self.extended.iter().find(|e| e.0 == *name);
            (*amount, known.map_or(0, |e| e.1 - e.2))
        });
        let asked = fixed.chain(extended).filter(|(amount, _)| *amount > 0);
        let times = asked.map(|(amount, free)| free.max(0) / amount).min();
        times.unwrap_or(i64::MAX)
    }

    /// The room on a node.
    pub(crate) fn of(state: &State, node: &Node, asker: Asker<'_>, without: Without<'_>) -> Self {
        let mut room = Self::bare(node);
        for pod in without.removed {
            room.change(&state.pods[*pod].class.0.kind.requests, -1);
        }
        let coming = node.nominated.iter().filter(|_| !without.nominated);
        let coming = coming.map(|pod| &*state.pods[*pod].class.0);
        let coming = coming.filter(|class| class.kind.priority >= asker.kind.priority);
        for class in coming.clone() {
            room.change(&class.kind.requests, 1);
        }
        let staying = node.pods.iter();
        let staying = staying.filter(|pod| !without.removed.contains(pod));
        let staying = staying.map(|pod| &*state.pods[*pod].class.0);
        for id in &node.reserved {
            let reservation = &state.reservations[*id];
            if !asker.owned.contains(&reservation.matcher) {
                // Owners that are to come draw on it as those do that are there: their requests are counted already.
                let held = state.held(reservation, staying.clone().chain(coming.clone()));
                room.change(&held, 1);
            }
        }
        room
    }

    /// Counts `sign` times the requests.
    pub(crate) fn change(&mut self, requests: &Resources, sign: i64) {
        for (used, amount) in self.used.iter_mut().zip(requests.fixed) {
            *used += sign * amount;
        }
        for (name, amount) in &requests.extended {
            match self.extended.iter_mut().find(|e| e.0 == *name) {
                Some(e) => e.2 += sign * amount,
                None => self.extended.push((*name, 0, sign * amount)),
            }
        }
    }

    /// Whether one more pod with these requests fits.
    pub(crate) fn fits(&self, requests: &Resources) -> bool {
        (0..4).all(|i| self.lacks(i, requests.fixed[i]) == 0)
            && requests
                .extended
                .iter()
                .all(|(name, amount)| self.lacks_extended(*name, *amount) == 0)
    }

    /// How much is missing of a fixed resource, 0 when there is enough.
    pub(crate) fn lacks(&self, resource: usize, amount: i64) -> i64 {
        let missing = self.used[resource] + amount - self.allocatable[resource];
        // Who asks for nothing needs nothing, even on a node that is over-full.
        if amount > 0 { missing.max(0) } else { 0 }
    }

    /// The same of an extended resource.
    pub(crate) fn lacks_extended(&self, name: Symbol, amount: i64) -> i64 {
        let known = self.extended.iter().find(|e| e.0 == name);
        let free = known.map_or(0, |e| e.1 - e.2);
        (amount - free).max(0)
    }
}
