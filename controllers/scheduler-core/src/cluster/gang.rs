//! Pods that run together or not at all.

use std::cmp::Reverse;
use std::sync::Arc;

use setpoint_apis::ObjectKey;

use crate::class::Class;
use crate::cluster::{Cluster, Decision, PodRequest};
use crate::reasons::Unschedulable;
use crate::resources::{CPU, MEMORY};
use crate::state::Pod;

impl Cluster {
    /// All or nothing: at least `min` of the pods are placed, and as many more as fit, or none is and the cluster is as
    /// before. Decisions are in the order of the pods.
    ///
    /// The pods are tried in the given order first, then those that ask for the most first. Where constraints between
    /// pods make some orders fail, one that would succeed can be missed.
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
        let mut failed = None;
        for order in orders {
            match self.try_gang(pods, &order, min, seed) {
                Ok(decisions) => return Ok(decisions),
                Err(why) => failed = failed.or(Some(why)),
            }
            self.state.latest = latest;
        }
        for pod in before {
            self.restore(pod);
        }
        self.state.latest = latest;
        Err(failed.unwrap_or_default())
    }

    fn try_gang(
        &mut self,
        pods: &[PodRequest],
        order: &[usize],
        min: usize,
        seed: u64,
    ) -> Result<Vec<Decision>, Arc<Unschedulable>> {
        self.batch += 1;
        let mut decisions: Vec<Option<Decision>> = pods.iter().map(|_| None).collect();
        let mut placed = 0;
        let mut why = None;
        for i in order {
            let decision = self.schedule_one(&pods[*i], seed);
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
        let (key, class): (ObjectKey, Class) = (pod.key, pod.class);
        // The slot may have been given up with the pod, when the node does not exist; nobody took it since.
        let node = self.state.nodes[pod.slot as usize].name.clone();
        let slot = self.state.slot_of(&node);
        self.state.add(&key, slot, class, pod.since, pod.nominated);
    }
}
