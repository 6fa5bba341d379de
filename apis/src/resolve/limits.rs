//! What LimitRanges give to pods, and what they hold them to: Kubernetes' LimitRanger.
//!
//! [`apply`] comes first, on a spec with its defaults, then the pod's own validation (a limit that was given can be less
//! than the request that the pod says), then [`check`].

use crate::core::{
    Container, LimitRange, LimitRangeItem, LimitType, PersistentVolumeClaimSpec, PodSpec,
};
use crate::kind::FieldError;
use crate::quantity::{Quantity, ResourceList};
use crate::validation::key_path;
use crate::view::{pod_limits, pod_requests};

/// The annotation of a pod that says what LimitRanges gave to its containers; Kubernetes' own, in its words.
pub const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// What LimitRanges gave to a container of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// The container.
    pub container: String,
    /// Its list in the spec: `containers` or `initContainers`.
    pub list: &'static str,
    /// Its place there.
    pub index: usize,
    /// Requests that it did not say.
    pub requests: ResourceList,
    /// Limits that it did not say.
    pub limits: ResourceList,
}

/// What [`ANNOTATION`] says of what was given; `None` when that is nothing.
pub fn annotation(given: &[Given]) -> Option<String> {
    let mut all = Vec::new();
    for g in given {
        for (list, word) in [(&g.requests, "request"), (&g.limits, "limit")] {
            if !list.is_empty() {
                let names: Vec<&str> = list.keys().map(String::as_str).collect();
                let names = names.join(", ");
                all.push(format!("{names} {word} for container {}", g.container));
            }
        }
    }
    (!all.is_empty()).then(|| format!("LimitRanger plugin set: {}", all.join("; ")))
}

/// The limits of one type, with the name of their LimitRange.
fn items<'a>(
    ranges: &[&'a LimitRange],
    type_: LimitType,
) -> impl Iterator<Item = (&'a str, &'a LimitRangeItem)> {
    ranges.iter().flat_map(move |range| {
        let items = range.spec.limits.iter().filter(move |i| i.type_ == type_);
        items.map(|i| (range.metadata.name.as_str(), i))
    })
}

/// Fills in the limits and requests that containers do not say, and says what it gave. The LimitRanges have their
/// defaults; of several the first that says something of a resource wins, so their order should be that of their names.
pub fn apply(ranges: &[&LimitRange], spec: &mut PodSpec) -> Vec<Given> {
    let mut all = Vec::new();
    for (list, containers) in [
        ("containers", &mut spec.containers),
        ("initContainers", &mut spec.init_containers),
    ] {
        for (index, c) in containers.iter_mut().enumerate() {
            let mut given = Given {
                container: c.name.clone(),
                list,
                index,
                ..Given::default()
            };
            for (_, item) in items(ranges, LimitType::Container) {
                let resources = c.resources.get_or_insert_default();
                for (has, gives, notes) in [
                    (&mut resources.limits, &item.default, &mut given.limits),
                    (
                        &mut resources.requests,
                        &item.default_request,
                        &mut given.requests,
                    ),
                ] {
                    for (name, amount) in gives {
                        if !has.contains_key(name) {
                            has.insert(name.clone(), *amount);
                            notes.insert(name.clone(), *amount);
                        }
                    }
                }
            }
            if !(given.limits.is_empty() && given.requests.is_empty()) {
                all.push(given);
            }
        }
    }
    all
}

/// Where what was given contradicts what the pod says: a limit below the request, at paths from `spec` on.
pub fn contradictions(given: &[Given], spec: &PodSpec) -> Vec<FieldError> {
    let mut found = Vec::new();
    for g in given {
        let containers = match g.list {
            "containers" => &spec.containers,
            _ => &spec.init_containers,
        };
        let Some(container) = containers.get(g.index) else {
            continue;
        };
        let (requests, limits) = said(container);
        for (name, limit) in limits {
            let is_given = g.limits.contains_key(name) || g.requests.contains_key(name);
            if let Some(request) = requests.get(name).filter(|r| is_given && *r > limit) {
                let path = format!("spec.{}[{}].resources.limits", g.list, g.index);
                found.push(FieldError::new(
                    key_path(&path, name),
                    format!(
                        "{limit} is less than the request, {request}; one of the two is what a LimitRange gives to a \
                         container that does not say it: say both"
                    ),
                ));
            }
        }
    }
    found
}

/// What of a pod's spec is outside the limits, at paths from `spec` on.
pub fn check(ranges: &[&LimitRange], spec: &PodSpec) -> Vec<FieldError> {
    let mut found = Vec::new();
    for (range, item) in items(ranges, LimitType::Container) {
        for (list, containers) in [
            ("initContainers", &spec.init_containers),
            ("containers", &spec.containers),
        ] {
            for (i, c) in containers.iter().enumerate() {
                let path = format!("spec.{list}[{i}].resources");
                let (requests, limits) = said(c);
                let asked = Asked {
                    what: "container",
                    path,
                    requests,
                    limits,
                };
                asked.check(range, item, &mut found);
            }
        }
    }
    if items(ranges, LimitType::Pod).next().is_some() {
        // What the node needs besides the containers is nobody's choice.
        let mut bare = spec.clone();
        bare.overhead = ResourceList::new();
        let (requests, limits) = (pod_requests(&bare), pod_limits(&bare));
        for (range, item) in items(ranges, LimitType::Pod) {
            let asked = Asked {
                what: "pod",
                path: "spec.resources".into(),
                requests: &requests,
                limits: &limits,
            };
            asked.check(range, item, &mut found);
        }
    }
    found
}

/// What of a claim's spec is outside the limits.
pub fn check_claim(ranges: &[&LimitRange], spec: &PersistentVolumeClaimSpec) -> Vec<FieldError> {
    let nothing = ResourceList::new();
    let requests = spec.resources.as_ref().map_or(&nothing, |r| &r.requests);
    let mut found = Vec::new();
    for (range, item) in items(ranges, LimitType::PersistentVolumeClaim) {
        let asked = Asked {
            what: "claim",
            path: "spec.resources".into(),
            requests,
            limits: &nothing,
        };
        asked.least(range, &item.min, &mut found);
        for (name, most) in &item.max {
            // A claim has no limit, so that its request is held to the most.
            asked.at_most(
                "requests",
                range,
                name,
                *most,
                requests.get(name),
                &mut found,
            );
        }
    }
    found
}

fn said(c: &Container) -> (&ResourceList, &ResourceList) {
    static NOTHING: ResourceList = ResourceList::new();
    c.resources
        .as_ref()
        .map_or((&NOTHING, &NOTHING), |r| (&r.requests, &r.limits))
}

/// What something asks for.
struct Asked<'a> {
    what: &'static str,
    path: String,
    requests: &'a ResourceList,
    limits: &'a ResourceList,
}

impl Asked<'_> {
    fn check(&self, range: &str, item: &LimitRangeItem, found: &mut Vec<FieldError>) {
        self.least(range, &item.min, found);
        for (name, most) in &item.max {
            self.at_most("limits", range, name, *most, self.limits.get(name), found);
            if let Some(request) = self.requests.get(name).filter(|r| *r > most) {
                self.at_most("requests", range, name, *most, Some(request), found);
            }
        }
        for (name, ratio) in &item.max_limit_request_ratio {
            self.ratio(range, name, *ratio, found);
        }
    }

    fn add(&self, list: &str, name: &str, message: String, found: &mut Vec<FieldError>) {
        let path = key_path(&format!("{}.{list}", self.path), name);
        found.push(FieldError::new(path, message));
    }

    fn least(&self, range: &str, min: &ResourceList, found: &mut Vec<FieldError>) {
        let what = self.what;
        for (name, least) in min {
            match self.requests.get(name) {
                None => {
                    let message = format!(
                        "is missing: the LimitRange {range:?} wants at least {least} for a {what}"
                    );
                    self.add("requests", name, message, found);
                    continue;
                }
                Some(request) if request < least => {
                    let message = format!(
                        "{request} is less than {least}, the least for a {what} by the LimitRange {range:?}"
                    );
                    self.add("requests", name, message, found);
                }
                Some(_) => {}
            }
            if let Some(limit) = self.limits.get(name).filter(|l| *l < least) {
                let message = format!(
                    "{limit} is less than {least}, the least for a {what} by the LimitRange {range:?}"
                );
                self.add("limits", name, message, found);
            }
        }
    }

    fn at_most(
        &self,
        list: &str,
        range: &str,
        name: &str,
        most: Quantity,
        amount: Option<&Quantity>,
        found: &mut Vec<FieldError>,
    ) {
        let what = self.what;
        let message = match amount {
            None => {
                format!("is missing: the LimitRange {range:?} wants at most {most} for a {what}")
            }
            Some(amount) if *amount > most => format!(
                "{amount} is more than {most}, the most for a {what} by the LimitRange {range:?}"
            ),
            Some(_) => return,
        };
        self.add(list, name, message, found);
    }

    fn ratio(&self, range: &str, name: &str, most: Quantity, found: &mut Vec<FieldError>) {
        let what = self.what;
        let there = |list: &ResourceList| list.get(name).copied().filter(|q| !q.is_zero());
        let (Some(request), Some(limit)) = (there(self.requests), there(self.limits)) else {
            let list = if there(self.requests).is_none() {
                "requests"
            } else {
                "limits"
            };
            let message = format!(
                "is missing: the LimitRange {range:?} wants a limit of at most {most} times the request for a {what}"
            );
            return self.add(list, name, message, found);
        };
        if limit.as_f64() / request.as_f64() > most.as_f64() {
            let message = format!(
                "{limit} is more than {most} times the request, {request}, the most for a {what} by the LimitRange {range:?}"
            );
            self.add("limits", name, message, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{PersistentVolumeClaim, Pod};
    use crate::document;

    fn range(limits: &str) -> LimitRange {
        let text = format!(
            "{{apiVersion: v1, kind: LimitRange, metadata: {{name: r}}, spec: {{limits: [{limits}]}}}}"
        );
        document::decode(text.as_bytes()).unwrap()
    }

    fn pod(spec: &str) -> PodSpec {
        let text =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{spec}}}}}");
        let pod: Pod = document::decode(text.as_bytes()).unwrap();
        (*pod.spec).clone()
    }

    fn of(resources: &str) -> PodSpec {
        pod(&format!(
            "containers: [{{name: c, image: host, resources: {{{resources}}}}}]"
        ))
    }

    fn said(found: &[FieldError]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    /// Requests and limits of a container.
    fn resources(c: &Container) -> String {
        let r = c.resources.clone().unwrap();
        let show = |l: &ResourceList| {
            let all: Vec<String> = l.iter().map(|(n, q)| format!("{n}={q}")).collect();
            all.join(",")
        };
        format!("{} / {}", show(&r.requests), show(&r.limits))
    }

    #[test]
    fn containers_that_say_nothing_get_what_the_range_gives() {
        let r = range(
            "{type: Container, max: {cpu: 2}, min: {memory: 1Mi}, default: {memory: 1Gi}, defaultRequest: {cpu: 100m}}",
        );
        let mut spec = pod(
            "containers: [{name: a, image: host}, {name: b, image: host, resources: {limits: {cpu: 500m}}}], \
             initContainers: [{name: i, image: host}, {name: s, image: host, restartPolicy: Always}]",
        );
        let given = apply(&[&r], &mut spec);
        assert_eq!(
            annotation(&given).as_deref(),
            Some(
                "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; \
                 memory request for container b; memory limit for container b; cpu, memory request for container i; \
                 cpu, memory limit for container i; cpu, memory request for container s; cpu, memory limit for container s"
            )
        );
        assert_eq!(contradictions(&given, &spec), []);
        // The greatest limit is the limit, and a limit that is said is the request.
        assert_eq!(
            resources(&spec.containers[0]),
            "cpu=100m,memory=1Gi / cpu=2,memory=1Gi"
        );
        assert_eq!(
            resources(&spec.containers[1]),
            "cpu=500m,memory=1Gi / cpu=500m,memory=1Gi"
        );
        // An init container and a sidecar get the same.
        for c in &spec.init_containers {
            assert_eq!(resources(c), resources(&spec.containers[0]), "{}", c.name);
        }
        assert_eq!(check(&[&r], &spec), []);
        let once = spec.clone();
        assert_eq!(apply(&[&r], &mut spec), []);
        assert_eq!(spec, once);
        assert_eq!(annotation(&[]), None);
        // Where nothing else is said, the least is the request; there is no limit then.
        let mut spec = of("");
        apply(&[&range("{type: Container, min: {cpu: 50m}}")], &mut spec);
        assert_eq!(resources(&spec.containers[0]), "cpu=50m / ");
    }

    #[test]
    fn of_several_ranges_the_first_that_says_something_of_a_resource_counts_and_all_of_them_hold() {
        let a =
            range("{type: Container, defaultRequest: {cpu: 100m}, maxLimitRequestRatio: {cpu: 2}}");
        let b = range(
            "{type: Container, default: {cpu: 300m, memory: 1Gi}, defaultRequest: {cpu: 200m}}",
        );
        for (ranges, request, too_many) in [([&a, &b], "100m", 1), ([&b, &a], "200m", 0)] {
            let mut spec = of("");
            apply(&ranges, &mut spec);
            assert_eq!(
                resources(&spec.containers[0]),
                format!("cpu={request},memory=1Gi / cpu=300m,memory=1Gi")
            );
            let found = said(&check(&ranges, &spec));
            assert_eq!(found.len(), too_many, "{found:?}");
        }
    }

    #[test]
    fn a_limit_that_is_given_below_a_request_that_is_said_is_told() {
        let r = range("{type: Container, default: {cpu: 500m}}");
        let mut spec = of("requests: {cpu: 1}");
        let given = apply(&[&r], &mut spec);
        let found = said(&contradictions(&given, &spec));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with(
                "spec.containers[0].resources.limits.cpu: 500m is less than the request, 1"
            ),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_outside_the_limits_is_said_at_its_place() {
        let path = "spec.containers[0].resources";
        for (limits, resources, wanted) in [
            (
                "min: {cpu: 100m}",
                "requests: {cpu: 50m}, limits: {cpu: 60m}",
                vec![
                    format!("{path}.requests.cpu: 50m is less than 100m"),
                    format!("{path}.limits.cpu: 60m is less than 100m"),
                ],
            ),
            (
                "min: {cpu: 100m}",
                "",
                vec![format!("{path}.requests.cpu: is missing")],
            ),
            (
                "max: {memory: 1Gi}",
                "requests: {memory: 1Gi}",
                vec![format!("{path}.limits.memory: is missing")],
            ),
            (
                "max: {memory: 1Gi}",
                "limits: {memory: 2Gi}",
                vec![
                    format!("{path}.limits.memory: 2Gi is more than 1Gi"),
                    format!("{path}.requests.memory: 2Gi is more than 1Gi"),
                ],
            ),
            (
                "maxLimitRequestRatio: {cpu: 2}",
                "requests: {cpu: 1}, limits: {cpu: 2500m}",
                vec![format!("{path}.limits.cpu: 2500m is more than 2 times")],
            ),
            (
                "maxLimitRequestRatio: {cpu: 2}",
                "requests: {cpu: 1}, limits: {cpu: 2}",
                vec![],
            ),
            (
                "maxLimitRequestRatio: {cpu: 2}",
                "limits: {memory: 1Gi}",
                vec![format!("{path}.requests.cpu: is missing")],
            ),
        ] {
            let r = range(&format!("{{type: Container, {limits}}}"));
            let found = said(&check(&[&r], &of(resources)));
            assert_eq!(found.len(), wanted.len(), "{limits} {resources}: {found:?}");
            for (found, wanted) in found.iter().zip(wanted) {
                assert!(found.starts_with(&wanted), "{found}");
            }
        }
    }

    #[test]
    fn a_pod_is_held_to_the_sum_of_its_containers_without_its_overhead() {
        let r = range("{type: Pod, max: {cpu: 2}, min: {cpu: 1}}");
        let two = |cpu: &str| {
            pod(&format!(
                "overhead: {{cpu: 5}}, containers: [{{name: a, image: host, resources: {{limits: {{cpu: {cpu}}}}}}}, \
                 {{name: b, image: host, resources: {{limits: {{cpu: {cpu}}}}}}}]"
            ))
        };
        assert_eq!(check(&[&r], &two("1")), []);
        assert_eq!(said(&check(&[&r], &two("1100m"))).len(), 2);
        assert!(
            said(&check(&[&r], &two("100m")))[0]
                .starts_with("spec.resources.requests.cpu: 200m is less")
        );
        // Or to its greatest init container, and sidecars run besides.
        let with = |init: &str| {
            pod(&format!(
                "initContainers: [{init}], containers: [{{name: a, image: host, resources: {{limits: {{cpu: 1}}}}}}]"
            ))
        };
        let init = "{name: i, image: host, resources: {limits: {cpu: 2}}}";
        let more = "{name: j, image: host, resources: {limits: {cpu: 2500m}}}";
        let sidecar =
            "{name: s, image: host, restartPolicy: Always, resources: {limits: {cpu: 1500m}}}";
        assert_eq!(check(&[&r], &with(init)), []);
        for (init, wanted) in [
            (format!("{init}, {more}"), "2500m"),
            (sidecar.into(), "2500m"),
        ] {
            let found = said(&check(&[&r], &with(&init)));
            assert_eq!(found.len(), 2, "{found:?}");
            let words = format!("spec.resources.requests.cpu: {wanted} is more than 2");
            assert!(found.iter().any(|f| f.starts_with(&words)), "{found:?}");
        }
    }

    #[test]
    fn claims_are_held_by_what_they_request() {
        let r = range("{type: PersistentVolumeClaim, min: {storage: 1Gi}, max: {storage: 10Gi}}");
        let claim = |storage: &str| {
            let text = format!(
                "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: c}}, spec: {{accessModes: [ReadWriteOnce], \
                 resources: {{requests: {{storage: {storage}}}}}}}}}"
            );
            let claim: PersistentVolumeClaim = document::decode(text.as_bytes()).unwrap();
            said(&check_claim(&[&r], &claim.spec))
        };
        assert_eq!(claim("5Gi"), Vec::<String>::new());
        assert!(claim("1Mi")[0].contains("1Mi is less than 1Gi"));
        assert!(claim("11Gi")[0].contains("11Gi is more than 10Gi"));
    }
}
