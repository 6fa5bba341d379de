//! Pods that run together or not at all.

use std::cmp::Reverse;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;

use crate::cluster::{Cluster, Decision, PodRequest};
use crate::reasons::Unschedulable;
use crate::resources::{CPU, MEMORY};
use crate::state::Pod;

impl Cluster {
    /// All or nothing: at least `min` of the pods are placed, and as many more as fit, or none is and the cluster is as
    /// before. Decisions are in the order of the pods.
    ///
    /// Pods that are nominated go to their nodes when enough of the gang fits then. Otherwise the pods are tried in the
    /// given order first, then those that ask for the most first, each where it is best. When that gets stuck and all of
    /// them must be near each other, the places where they could be are tried one after the other, the best first, at
    /// most 64 of those that have the room. Where other constraints between pods make some orders fail, one that would
    /// succeed can be missed.
    ///
    /// # Errors
    ///
    /// Fewer than `min` fit: the reasons of the first pod that did not, as they were while the others held their places.
    pub fn schedule_gang(
        &mut self,
        pods: &[PodRequest],
        min: usize,
        seed: u64,
    ) -> Result<Vec<Decision>, Arc<Unschedulable>> {
        let before: Vec<Pod> = pods
            .iter()
            .filter_map(|p| self.state.remove(&p.pod))
            .collect();
        let latest = self.state.latest;
        let promised = before.iter().filter(|p| p.nominated.is_some());
        let promised: FxHashMap<ObjectKey, u32> =
            promised.map(|p| (p.key.clone(), p.slot)).collect();
        let nobody = FxHashMap::default();
        let mut attempts: Vec<_> = orders(pods).into_iter().map(|o| (o, &nobody)).collect();
        if !promised.is_empty() {
            // Those who were promised a node first, so that the others do not take it.
            let mut order = attempts[0].0.clone();
            order.sort_by_key(|i| !promised.contains_key(&pods[*i].pod));
            attempts.insert(0, (order, &promised));
        }
        let mut failed = None;
        for (order, promised) in attempts {
            match self.try_gang(pods, &order, promised, min, seed) {
                Ok(decisions) => return Ok(decisions),
                // What is told is what keeps it from any other place.
                Err(why) if promised.is_empty() => failed = failed.or(Some(why)),
                Err(_) => {}
            }
            self.state.latest = latest;
        }
        if let Some(decisions) = self.try_places(pods, min, seed) {
            return Ok(decisions);
        }
        for pod in before {
            self.restore(pod);
        }
        self.state.latest = latest;
        Err(failed.unwrap_or_default())
    }

    /// One place after the other, when the pods can only be in one.
    fn try_places(&mut self, pods: &[PodRequest], min: usize, seed: u64) -> Option<Vec<Decision>> {
        let company = self.company(pods)?;
        let latest = self.state.latest;
        let orders = orders(pods);
        let order = orders.last()?;
        for (first, place) in self.places(&company, pods, order, min) {
            let mut order = order.clone();
            order.sort_by_key(|i| *i != first);
            let pinned = FxHashMap::from_iter([(pods[first].pod.clone(), place.slot)]);
            if let Ok(decisions) = self.try_gang(pods, &order, &pinned, min, seed) {
                return Some(decisions);
            }
            self.state.latest = latest;
        }
        None
    }

    fn try_gang(
        &mut self,
        pods: &[PodRequest],
        order: &[usize],
        promised: &FxHashMap<ObjectKey, u32>,
        min: usize,
        seed: u64,
    ) -> Result<Vec<Decision>, Arc<Unschedulable>> {
        self.batch += 1;
        let mut decisions: Vec<Option<Decision>> = pods.iter().map(|_| None).collect();
        let mut placed = 0;
        let mut why = None;
        for i in order {
            let decision = match promised.get(&pods[*i].pod) {
                Some(slot) => self.schedule_at(&pods[*i], *slot, seed),
                None => self.schedule_one(&pods[*i], seed),
            };
            match &decision {
                Decision::Bind(_) => placed += 1,
                Decision::Unschedulable(reasons) => why = why.or_else(|| Some(reasons.clone())),
            }
            decisions[*i] = Some(decision);
        }
        let decisions: Vec<Decision> = decisions.into_iter().flatten().collect();
        if placed >= min {
            return Ok(decisions);
        }
        for pod in pods {
            self.forget(&pod.pod);
        }
        let mut why = why.map_or_else(Unschedulable::default, |w| Unschedulable::clone(&w));
        why.nodes = self.state.known;
        why.gang = Some((placed, min));
        Err(Arc::new(why))
    }

    /// Puts back what was taken out.
    pub(crate) fn restore(&mut self, pod: Pod) {
        self.state.put_back(pod);
    }
}

/// The orders in which the pods of a gang are tried: as they are given, and those that ask for the most first.
pub(crate) fn orders(pods: &[PodRequest]) -> Vec<Vec<usize>> {
    let given: Vec<usize> = (0..pods.len()).collect();
    let mut largest = given.clone();
    largest.sort_by_key(|i| {
        let requests = &pods[*i].class.0.kind.requests;
        (
            Reverse(requests.fixed[CPU]),
            Reverse(requests.fixed[MEMORY]),
            *i,
        )
    });
    let mut orders = vec![given];
    if orders[0] != largest {
        orders.push(largest);
    }
    orders
}
