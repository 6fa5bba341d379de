//! How many pods per second the core places, by nodes and by what the pods ask. Run with `--release`.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::time::Instant;

use setpoint_apis::core::PodSpec;
use setpoint_apis::{ObjectKey, Quantity};
use setpoint_scheduler_core::{Cluster, Decision, NodeFacts, PodAsk, PodRequest, Profile};

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for n in 0..nodes {
        cluster.set_node(NodeFacts {
            name: format!("n{n}").into(),
            labels: [
                ("kubernetes.io/hostname".to_owned(), format!("n{n}")),
                ("zone".to_owned(), format!("z{}", n % 10)),
            ]
            .into(),
            drivers: vec!["hollow".into()],
            allocatable: [
                ("cpu".to_owned(), Quantity::from_whole(32)),
                ("memory".to_owned(), Quantity::from_bytes(128 << 30)),
                ("pods".to_owned(), Quantity::from_whole(110)),
            ]
            .into(),
            ..NodeFacts::default()
        });
    }
    cluster
}

fn spec(class: usize) -> PodSpec {
    let yaml = format!(
        "containers: [{{name: a, image: host, resources: {{requests: {{cpu: {}m, memory: {}Mi}}}}}}]",
        100 + class,
        128 + class
    );
    serde_yaml::from_str(&yaml).expect("a literal")
}

fn main() {
    println!(
        "{:>7} {:>8} {:>8} {:>14} {:>12}",
        "nodes", "pods", "classes", "pods/s", "us/pod"
    );
    for nodes in [500, 1_000, 5_000, 10_000] {
        for classes in [1, 20, 200] {
            let pods = 20_000;
            let mut cluster = cluster(nodes);
            let classes_of: Vec<_> = (0..classes)
                .map(|c| {
                    cluster.class(&PodAsk {
                        namespace: "default",
                        labels: &Default::default(),
                        spec: &spec(c),
                        priority: 0,
                        profile: Profile::default(),
                    })
                })
                .collect();
            let requests: Vec<_> = (0..pods)
                .map(|p| PodRequest {
                    pod: ObjectKey::namespaced("default", format!("p{p}")),
                    class: classes_of[p % classes].clone(),
                })
                .collect();
            let start = Instant::now();
            let mut bound = 0;
            for chunk in requests.chunks(500) {
                let decisions = cluster.schedule(chunk, 42);
                bound += decisions
                    .iter()
                    .filter(|d| matches!(d, Decision::Bind(_)))
                    .count();
            }
            let took = start.elapsed().as_secs_f64();
            assert_eq!(bound, pods);
            println!(
                "{nodes:>7} {pods:>8} {classes:>8} {:>14.0} {:>12.2}",
                pods as f64 / took,
                took * 1e6 / pods as f64
            );
        }
    }
}
