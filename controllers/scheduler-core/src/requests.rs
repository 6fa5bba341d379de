//! What a pod asks for, counted as Kubernetes counts it.

use setpoint_apis::ResourceList;
use setpoint_apis::core::PodSpec;

use crate::resources::is_positive;

/// The resources that a pod needs at once: all containers together with the sidecars, or, where that is more, an init
/// container together with the sidecars that were started before it; requests of the pod as a whole replace that; the
/// overhead comes on top. `pods` is not part of it.
pub fn pod_requests(spec: &PodSpec) -> ResourceList {
    let mut total = ResourceList::new();
    for c in &spec.containers {
        add(&mut total, c.requests());
    }
    let mut sidecars = ResourceList::new();
    let mut highest_init = ResourceList::new();
    for c in &spec.init_containers {
        if c.is_sidecar() {
            add(&mut total, c.requests());
            add(&mut sidecars, c.requests());
            raise(&mut highest_init, &sidecars);
        } else {
            let mut at_once = sidecars.clone();
            add(&mut at_once, c.requests());
            raise(&mut highest_init, &at_once);
        }
    }
    raise(&mut total, &highest_init);
    if let Some(whole) = &spec.resources {
        for (name, quantity) in &whole.requests {
            total.insert(name.clone(), *quantity);
        }
    }
    add(&mut total, &spec.overhead);
    total
}

fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more.iter().filter(|(_, q)| is_positive(q)) {
        match total.get_mut(name) {
            Some(sum) => *sum += *quantity,
            None => {
                total.insert(name.clone(), *quantity);
            }
        }
    }
}

fn raise(total: &mut ResourceList, least: &ResourceList) {
    for (name, quantity) in least {
        match total.get_mut(name) {
            Some(sum) => *sum = (*sum).max(*quantity),
            None => {
                total.insert(name.clone(), *quantity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(yaml: &str) -> String {
        let spec: PodSpec = serde_yaml::from_str(yaml).unwrap();
        pod_requests(&spec)
            .get("cpu")
            .map_or_else(|| "none".into(), ToString::to_string)
    }

    const C: &str = "containers: [{name: a, resources: {requests: {cpu: 100m}}}, {name: b, resources: {requests: {cpu: 200m}}}]\n";

    #[test]
    fn containers_add_up() {
        assert_eq!(cpu(C), "300m");
        assert_eq!(cpu("containers: [{name: a}]"), "none");
    }

    #[test]
    fn an_init_container_counts_only_where_it_needs_more_than_all_containers() {
        for (init, total) in [("250m", "300m"), ("700m", "700m")] {
            assert_eq!(
                cpu(&format!(
                    "{C}initContainers: [{{name: i, resources: {{requests: {{cpu: {init}}}}}}}]"
                )),
                total
            );
        }
    }

    #[test]
    fn sidecars_stay_and_count_beside_containers_and_beside_later_init_containers() {
        let sidecar = "{name: s, restartPolicy: Always, resources: {requests: {cpu: 50m}}}";
        let init = "{name: i, resources: {requests: {cpu: 320m}}}";
        assert_eq!(cpu(&format!("{C}initContainers: [{sidecar}]")), "350m");
        assert_eq!(
            cpu(&format!("{C}initContainers: [{sidecar}, {init}]")),
            "370m"
        );
        assert_eq!(
            cpu(&format!("{C}initContainers: [{init}, {sidecar}]")),
            "350m"
        );
    }

    #[test]
    fn requests_of_the_whole_pod_replace_the_sum_and_overhead_comes_on_top() {
        assert_eq!(cpu(&format!("{C}overhead: {{cpu: 10m}}")), "310m");
        assert_eq!(
            cpu(&format!(
                "{C}resources: {{requests: {{cpu: 1}}}}\noverhead: {{cpu: 10m}}"
            )),
            "1010m"
        );
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        assert_eq!(
            cpu("containers: [{name: a, resources: {requests: {cpu: -1}}}]"),
            "none"
        );
    }
}
