//! The rules of autoscalers and of limits.

use super::check;
use crate::autoscaling::HorizontalPodAutoscaler;
use crate::core::LimitRange;

const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 10
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
  - {type: Object, object: {describedObject: {kind: Service, name: s}, metric: {name: m}, target: {type: Value, value: 2}}}
  - {type: ContainerResource, containerResource: {name: memory, container: main, target: {type: Value, averageValue: 1Gi}}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 60, policies: [{type: Pods, value: 1, periodSeconds: 30}]}}
";

#[test]
fn autoscalers_are_held_to_their_rules() {
    check::<HorizontalPodAutoscaler>(
        AUTOSCALER,
        &[
            ("minReplicas: 2", "minReplicas: 0", "spec.minReplicas: 0"),
            (
                "maxReplicas: 10",
                "maxReplicas: 1",
                "spec.maxReplicas: 1 is less than minReplicas, 2",
            ),
            (
                "kind: Deployment",
                "kind: ''",
                "spec.scaleTargetRef.kind: must not be empty",
            ),
            (
                "name: web}\n  min",
                "name: a/b}\n  min",
                "spec.scaleTargetRef.name: \"a/b\"",
            ),
            (
                "type: Resource",
                "type: Pods",
                "spec.metrics[0].pods: is missing",
            ),
            (
                "type: Resource",
                "type: Pods",
                "spec.metrics[0].resource: must not be there",
            ),
            (
                "averageUtilization: 60",
                "averageUtilization: 0",
                "spec.metrics[0].resource.target.averageUtilization: 0",
            ),
            (
                "averageUtilization: 60",
                "averageUtilization: 60, averageValue: 1",
                "spec.metrics[0].resource.target.averageUtilization: only one",
            ),
            (
                "averageUtilization: 60",
                "value: 1",
                "spec.metrics[0].resource.target: needs one of averageValue, averageUtilization",
            ),
            (
                "type: Value, value: 2",
                "type: Value",
                "spec.metrics[1].object.target: needs one of value, averageValue",
            ),
            (
                "type: Value, value: 2",
                "type: Utilization, value: 2",
                "spec.metrics[1].object.target.type: Utilization is not possible",
            ),
            (
                "value: 2",
                "value: 0",
                "spec.metrics[1].object.target.value: must be more",
            ),
            (
                "{name: m}",
                "{name: ''}",
                "spec.metrics[1].object.metric.name: must not be empty",
            ),
            (
                "name: memory",
                "name: disk",
                "spec.metrics[2].containerResource.name: \"disk\" is not cpu",
            ),
            (
                "container: main",
                "container: Main",
                "spec.metrics[2].containerResource.container: \"Main\"",
            ),
            (
                "Seconds: 60",
                "Seconds: 3601",
                "spec.behavior.scaleDown.stabilizationWindowSeconds: 3601",
            ),
            (
                "periodSeconds: 30",
                "periodSeconds: 1801",
                "spec.behavior.scaleDown.policies[0].periodSeconds: 1801",
            ),
            (
                "value: 1,",
                "value: 0,",
                "spec.behavior.scaleDown.policies[0].value: 0",
            ),
        ],
    );
}

const LIMITS: &str = "
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec:
  limits:
  - {type: Container, min: {cpu: 100m}, defaultRequest: {cpu: 200m}, default: {cpu: 1}, max: {cpu: 2}, maxLimitRequestRatio: {cpu: 10}}
  - {type: PersistentVolumeClaim, max: {storage: 1Gi}}
";

#[test]
fn limit_ranges_are_held_to_their_rules() {
    check::<LimitRange>(
        LIMITS,
        &[
            (
                "min: {cpu: 100m}",
                "min: {cpu: 3}",
                "spec.limits[0].min.cpu: 3 is more than max, 2",
            ),
            (
                "defaultRequest: {cpu: 200m}",
                "defaultRequest: {cpu: 1500m}",
                "spec.limits[0].defaultRequest.cpu: 1500m is more than default, 1",
            ),
            (
                "default: {cpu: 1}",
                "default: {cpu: 3}",
                "spec.limits[0].default.cpu: 3 is more than max, 2",
            ),
            (
                "{cpu: 10}",
                "{cpu: 500m}",
                "spec.limits[0].maxLimitRequestRatio.cpu: 500m is less than 1",
            ),
            (
                "{cpu: 10}",
                "{cpu: 21}",
                "spec.limits[0].maxLimitRequestRatio.cpu: 21 is more than max / min",
            ),
            (
                "type: Container",
                "type: Pod",
                "spec.limits[0].default: is for containers",
            ),
            (
                "type: PersistentVolumeClaim, max: {storage: 1Gi}",
                "type: Container",
                "spec.limits[1].type: there are limits of the type Container already",
            ),
            (
                "max: {storage: 1Gi}",
                "max: {}",
                "spec.limits[1]: needs the least (min) or the most (max) storage",
            ),
            (
                "storage: 1Gi",
                "storage: 1Gi, cpu: 1",
                "spec.limits[1].max.cpu: \"cpu\" is not what claims ask for",
            ),
            (
                "max: {cpu: 2}",
                "max: {cpus: 2}",
                "spec.limits[0].max.cpus: ",
            ),
        ],
    );
}
