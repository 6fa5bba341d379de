//! The pods of the cases: their documents, what is there before them, and what must hold when all are bound.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use serde::Serialize;

/// What the pods ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// One template with requests
    Basic,
    /// Groups of pods that have to be in one zone: required pod affinity to their own label
    Affinity,
    /// Groups of pods of which no two may be on one node: required pod anti-affinity
    AntiAffinity,
    /// Groups of pods spread over the zones: DoNotSchedule, maxSkew 1
    Spread,
    /// Nodes that are full of pods of low priority, then pods of high priority
    Preemption,
    /// PodGroups of 10 to 50 pods, each all or nothing
    Gang,
    /// While pods are bound, others are deleted
    Churn,
    /// Pods of all these kinds, node selectors and deletions together; nothing is preempted
    Mixed,
    /// One pod at a time on an idle cluster
    Idle,
}

/// Pods of a group with affinity or a spread constraint.
const GROUP: usize = 100;
/// Sizes of gangs, by turns.
const GANGS: [usize; 3] = [10, 25, 50];
/// Pods that fill a node, where nodes are to be full.
const FILL_PER_NODE: usize = 4;
/// The label that says of which PodGroup a pod is.
const POD_GROUP_LABEL: &str = "setpoint.dev/pod-group";

/// What one pod asks for, beyond its requests. Numbers are of groups, gangs and zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Plain,
    High,
    Low,
    Affinity(usize),
    Anti(usize),
    Spread(usize),
    Gang(usize),
    Zone(usize),
}

/// The pods of one run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) case: Case,
    nodes: usize,
    pub(super) pods: usize,
    pub(super) zones: usize,
}

/// Where a pod is: its number, and its node's.
pub(super) type Placed = (usize, usize);

/// What every node has, beside [`Plan::cpus`].
pub(super) const NODE_MEMORY_MIB: u64 = 64 * 1024;
pub(super) const NODE_PODS: u64 = 110;
/// What every pod takes.
const POD_MEMORY_MIB: u64 = 64;

/// What is taken of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    millicpus: u64,
    memory_mib: u64,
    pods: u64,
}

impl Plan {
    /// A run of a case.
    ///
    /// # Errors
    /// In words, when so many pods cannot all be bound.
    pub(super) fn new(
        case: Case,
        nodes: usize,
        pods: Option<usize>,
        zones: usize,
    ) -> Result<Self, String> {
        let pods = pods.unwrap_or(match case {
            Case::Idle => 200,
            Case::Preemption => nodes.min(10_000),
            _ => 10_000,
        });
        let most = match case {
            Case::Preemption => nodes,
            // Those that are deleted meanwhile take room as well.
            Case::Churn | Case::Mixed => nodes * 60,
            _ => nodes * 100,
        };
        if pods > most {
            return Err(format!(
                "{pods} pods are too many for {nodes} nodes in this case: at most {most}"
            ));
        }
        Ok(Self {
            case,
            nodes,
            pods,
            zones: zones.min(nodes),
        })
    }

    /// Cpus of each node.
    pub(super) fn cpus(&self) -> u32 {
        if self.case == Case::Preemption { 4 } else { 16 }
    }

    /// How many pods are bound before the measurement begins.
    pub(super) fn fill(&self) -> usize {
        match self.case {
            Case::Preemption => self.nodes * FILL_PER_NODE,
            Case::Churn => self.pods / 2,
            Case::Mixed => self.pods / 4,
            _ => 0,
        }
    }

    /// Whether those are deleted while the others are bound.
    pub(super) fn churns(&self) -> bool {
        matches!(self.case, Case::Churn | Case::Mixed)
    }

    /// The document of a pod that is there before.
    pub(super) fn fill_document(&self, name: &str) -> String {
        match self.case {
            Case::Preemption => self.document(name, Shape::Low),
            _ => self.document(name, Shape::Plain),
        }
    }

    /// The document of the pod with this number.
    pub(super) fn pod_document(&self, name: &str, number: usize) -> String {
        self.document(name, self.shape(number))
    }

    /// The PodGroups: names and documents.
    pub(super) fn pod_groups(&self) -> Vec<(String, String)> {
        self.gang_members()
            .into_iter()
            .map(|(gang, members)| {
                let name = format!("gang-{gang}");
                let document = format!(
                    "apiVersion: setpoint.dev/v1\nkind: PodGroup\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  minMember: {members}\n"
                );
                (name, document)
            })
            .collect()
    }

    fn shape(&self, number: usize) -> Shape {
        match self.case {
            Case::Basic | Case::Churn | Case::Idle => Shape::Plain,
            Case::Affinity => Shape::Affinity(number / GROUP),
            Case::AntiAffinity => Shape::Anti(number / self.apart()),
            Case::Spread => Shape::Spread(number / GROUP),
            Case::Preemption => Shape::High,
            Case::Gang => Shape::Gang(gang(number)),
            Case::Mixed => {
                let turn = number / 10;
                match number % 10 {
                    0 => Shape::Affinity(turn / GROUP),
                    1 => Shape::Anti(turn / self.apart()),
                    2 => Shape::Spread(turn / GROUP),
                    3 => Shape::Gang(gang(turn)),
                    4 => Shape::Zone(turn % self.zones),
                    5 => Shape::High,
                    _ => Shape::Plain,
                }
            }
        }
    }

    /// How many pods of a group are kept apart: far fewer than there are nodes.
    fn apart(&self) -> usize {
        (self.nodes / 10).clamp(1, GROUP)
    }

    fn document(&self, name: &str, shape: Shape) -> String {
        let labels = match shape {
            Shape::Affinity(group) => format!("near: g{group}"),
            Shape::Anti(group) => format!("apart: g{group}"),
            Shape::Spread(group) => format!("spread: g{group}"),
            Shape::Gang(gang) => format!("{POD_GROUP_LABEL}: gang-{gang}"),
            Shape::Plain | Shape::High | Shape::Low | Shape::Zone(_) => "app: bench".to_owned(),
        };
        let term = |kind: &str, key: &str, label: &str, topology: &str| {
            format!(
                "  affinity:\n    {kind}:\n      requiredDuringSchedulingIgnoredDuringExecution:\n      - labelSelector:\n          matchLabels:\n            \
                 {key}: {label}\n        topologyKey: {topology}\n"
            )
        };
        let asks = match shape {
            Shape::Plain | Shape::Gang(_) => String::new(),
            Shape::High => "  priority: 1000\n".to_owned(),
            Shape::Low => "  priority: 1\n".to_owned(),
            Shape::Zone(zone) => {
                format!("  nodeSelector:\n    topology.kubernetes.io/zone: zone-{zone}\n")
            }
            Shape::Affinity(group) => term(
                "podAffinity",
                "near",
                &format!("g{group}"),
                "topology.kubernetes.io/zone",
            ),
            Shape::Anti(group) => term(
                "podAntiAffinity",
                "apart",
                &format!("g{group}"),
                "kubernetes.io/hostname",
            ),
            Shape::Spread(group) => format!(
                "  topologySpreadConstraints:\n  - maxSkew: 1\n    topologyKey: topology.kubernetes.io/zone\n    whenUnsatisfiable: DoNotSchedule\n    \
                 labelSelector:\n      matchLabels:\n        spread: g{group}\n"
            ),
        };
        let millicpus = self.millicpus(shape);
        format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  labels:
    {labels}
    app.kubernetes.io/part-of: shop
    app.kubernetes.io/version: 1.27.3
  annotations:
    prometheus.io/scrape: \"true\"
    prometheus.io/port: \"8080\"
    example.com/team: storefront
spec:
{asks}  terminationGracePeriodSeconds: 30
  containers:
  - name: web
    image: registry.example.com/shop/web:1.27.3
    args:
    - --listen=:8080
    - --database=postgres://db.default.svc:5432/shop
    ports:
    - name: http
      containerPort: 8080
    env:
    - name: DATABASE_HOST
      value: db.default.svc
    - name: LOG_LEVEL
      value: info
    - name: CACHE_SIZE
      value: 64Mi
    - name: TELEMETRY_ENDPOINT
      value: http://collector.monitoring.svc:4317
    - name: PAYMENT_ENDPOINT
      value: http://payments.default.svc:8080
    resources:
      requests:
        cpu: {millicpus}m
        memory: {POD_MEMORY_MIB}Mi
      limits:
        memory: 128Mi
    readinessProbe:
      httpGet:
        path: /healthz
        port: http
      periodSeconds: 5
    livenessProbe:
      httpGet:
        path: /livez
        port: http
      periodSeconds: 10
"
        )
    }

    /// What a pod takes of a node's cpus, in thousandths.
    fn millicpus(&self, shape: Shape) -> u64 {
        match (self.case, shape) {
            (Case::Preemption, Shape::High) => 3000,
            (Case::Preemption, _) => 900,
            _ => 100,
        }
    }

    /// What the placements break, in words: of what the pods ask for, of the room that the nodes have, or of the groups
    /// that are placed as a whole or not at all. `others` are the nodes of pods that are not measured, one for each.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub(super) fn check(&self, placed: &[Placed], others: &[usize]) -> Result<(), String> {
        self.check_room(placed, others)?;
        self.check_gangs(placed)?;
        self.check_asks(placed)
    }

    fn check_room(&self, placed: &[Placed], others: &[usize]) -> Result<(), String> {
        let mut nodes = vec![Taken::default(); self.nodes];
        // Those that are there before, or show that the scheduler is at work, are made by `fill_document`.
        let other = self.millicpus(Shape::Low);
        let measured = placed
            .iter()
            .map(|&(pod, node)| (node, self.millicpus(self.shape(pod))));
        for (node, millicpus) in measured.chain(others.iter().map(|node| (*node, other))) {
            let Some(taken) = nodes.get_mut(node) else {
                return Err(format!("a pod is on node {node}, which does not exist"));
            };
            taken.millicpus += millicpus;
            taken.memory_mib += POD_MEMORY_MIB;
            taken.pods += 1;
        }
        for (node, taken) in nodes.iter().enumerate() {
            for (what, taken, most) in [
                (
                    "thousandths of a cpu",
                    taken.millicpus,
                    u64::from(self.cpus()) * 1000,
                ),
                ("MiB of memory", taken.memory_mib, NODE_MEMORY_MIB),
                ("pods", taken.pods, NODE_PODS),
            ] {
                if taken > most {
                    return Err(format!(
                        "node {node} has {most} {what}, of which {taken} are taken"
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_gangs(&self, placed: &[Placed]) -> Result<(), String> {
        let mut bound = BTreeMap::<usize, usize>::new();
        for &(pod, _) in placed {
            if let Shape::Gang(gang) = self.shape(pod) {
                *bound.entry(gang).or_default() += 1;
            }
        }
        let members = self.gang_members();
        for (gang, bound) in bound {
            let members = members.get(&gang).copied().unwrap_or_default();
            if bound != members {
                return Err(format!(
                    "of the {members} pods of gang {gang}, which is all or nothing, {bound} are bound"
                ));
            }
        }
        Ok(())
    }

    /// How many pods each gang has.
    fn gang_members(&self) -> BTreeMap<usize, usize> {
        let mut members = BTreeMap::new();
        for number in 0..self.pods {
            if let Shape::Gang(gang) = self.shape(number) {
                *members.entry(gang).or_default() += 1;
            }
        }
        members
    }

    fn check_asks(&self, placed: &[Placed]) -> Result<(), String> {
        let mut near = BTreeMap::<usize, BTreeSet<usize>>::new();
        let mut apart = BTreeSet::new();
        let mut spread = BTreeMap::<usize, Vec<usize>>::new();
        for &(pod, node) in placed {
            let zone = node % self.zones;
            match self.shape(pod) {
                Shape::Affinity(group) => {
                    near.entry(group).or_default().insert(zone);
                }
                Shape::Anti(group) => {
                    if !apart.insert((group, node)) {
                        return Err(format!(
                            "two pods of the group {group} are on node {node}, which their anti-affinity forbids"
                        ));
                    }
                }
                Shape::Spread(group) => {
                    spread.entry(group).or_insert_with(|| vec![0; self.zones])[zone] += 1;
                }
                Shape::Zone(wanted) if wanted != zone => {
                    return Err(format!("pod {pod} is in zone {zone} and not in {wanted}"));
                }
                Shape::Plain | Shape::High | Shape::Low | Shape::Gang(_) | Shape::Zone(_) => {}
            }
        }
        if let Some((group, zones)) = near.iter().find(|(_, zones)| zones.len() > 1) {
            return Err(format!(
                "pods of the group {group} are in {} zones, which their affinity forbids",
                zones.len()
            ));
        }
        for (group, counts) in &spread {
            let (least, most) = (counts.iter().min(), counts.iter().max());
            if let (Some(least), Some(most)) = (least, most)
                && most - least > 1
            {
                return Err(format!(
                    "the group {group} has {least} to {most} pods in a zone, which its spread constraint forbids"
                ));
            }
        }
        Ok(())
    }
}

/// The gang of a pod: gangs have 10, 25 and 50 pods, by turns.
fn gang(number: usize) -> usize {
    let round: usize = GANGS.iter().sum();
    let (rounds, rest) = (number / round, number % round);
    let mut end = 0;
    let within = GANGS
        .iter()
        .take_while(|size| {
            end += **size;
            end <= rest
        })
        .count();
    rounds * GANGS.len() + within
}

#[cfg(test)]
mod tests {
    use setpoint_apis::core::Pod;
    use setpoint_apis::document;

    use super::*;

    const ALL: [Case; 9] = [
        Case::Basic,
        Case::Affinity,
        Case::AntiAffinity,
        Case::Spread,
        Case::Preemption,
        Case::Gang,
        Case::Churn,
        Case::Mixed,
        Case::Idle,
    ];

    fn plan(case: Case) -> Plan {
        Plan::new(case, 200, Some(200), 10).unwrap()
    }

    #[test]
    fn every_pod_of_every_case_is_a_pod_that_says_what_its_case_is_about() {
        for case in ALL {
            let plan = plan(case);
            for number in 0..plan.pods {
                let text = plan.pod_document("p", number);
                let pod: Pod = document::decode(text.as_bytes()).unwrap();
                assert!((1000..1700).contains(&text.len()), "{}", text.len());
                let spec = &pod.spec;
                let resources = spec.containers[0].resources.as_ref();
                assert!(resources.is_some_and(|r| !r.requests.is_empty()));
                let affinity = spec.affinity.as_ref();
                match plan.shape(number) {
                    Shape::Affinity(_) => assert!(affinity.unwrap().pod_affinity.is_some()),
                    Shape::Anti(_) => assert!(affinity.unwrap().pod_anti_affinity.is_some()),
                    Shape::Spread(_) => assert_eq!(spec.topology_spread_constraints.len(), 1),
                    Shape::High => assert_eq!(spec.priority, Some(1000)),
                    Shape::Zone(_) => assert_eq!(spec.node_selector.len(), 1),
                    Shape::Gang(_) => {
                        assert!(pod.metadata.labels.contains_key(POD_GROUP_LABEL));
                    }
                    Shape::Plain | Shape::Low => assert!(affinity.is_none()),
                }
            }
        }
    }

    #[test]
    fn gangs_have_ten_to_fifty_pods() {
        let sizes: Vec<usize> = (0..6)
            .map(|g| (0..170).filter(|n| gang(*n) == g).count())
            .collect();
        assert_eq!(sizes, [10, 25, 50, 10, 25, 50]);
        let groups = plan(Case::Gang).pod_groups();
        assert!(groups[1].1.contains("minMember: 25"), "{groups:?}");
    }

    #[test]
    fn placements_that_break_a_constraint_are_named() {
        let near = plan(Case::Affinity);
        assert!(near.check(&[(0, 3), (1, 13), (100, 4)], &[]).is_ok());
        assert!(near.check(&[(0, 3), (1, 4)], &[]).is_err());
        let apart = plan(Case::AntiAffinity);
        assert!(apart.check(&[(0, 3), (1, 13), (20, 3)], &[]).is_ok());
        assert!(apart.check(&[(0, 3), (1, 3)], &[]).is_err());
        let spread = plan(Case::Spread);
        let even: Vec<Placed> = (0..15).map(|n| (n, n)).collect();
        assert!(spread.check(&even, &[]).is_ok());
        assert!(spread.check(&[(0, 3), (1, 13)], &[]).is_err());
    }

    #[test]
    fn nodes_that_have_given_away_more_than_they_have_are_named() {
        let basic = Plan::new(Case::Basic, 2, Some(200), 10).unwrap();
        let on_one: Vec<Placed> = (0..110).map(|pod| (pod, 1)).collect();
        assert!(basic.check(&on_one, &[0; 110]).is_ok());
        let why = basic.check(&on_one, &[1]).unwrap_err();
        assert!(why.contains("node 1 has 110 pods"), "{why}");
        assert!(basic.check(&[(0, 2)], &[]).is_err(), "no such node");

        let full = Plan::new(Case::Preemption, 2, Some(2), 10).unwrap();
        assert!(full.check(&[(0, 0), (1, 1)], &[0]).is_ok());
        let why = full.check(&[(0, 0)], &[0, 0]).unwrap_err();
        assert!(why.contains("4000 thousandths of a cpu"), "{why}");
    }

    #[test]
    fn gangs_of_which_a_part_is_bound_are_named() {
        let gangs = plan(Case::Gang);
        let first: Vec<Placed> = (0..10).map(|pod| (pod, pod)).collect();
        assert!(gangs.check(&first, &[]).is_ok());
        assert!(gangs.check(&first[1..], &[]).is_err());
    }

    #[test]
    fn more_pods_than_can_be_bound_are_refused() {
        assert!(Plan::new(Case::Preemption, 10, Some(11), 10).is_err());
        assert!(Plan::new(Case::Basic, 10, Some(1001), 10).is_err());
        assert_eq!(Plan::new(Case::Basic, 3, Some(3), 10).unwrap().zones, 3);
    }
}
