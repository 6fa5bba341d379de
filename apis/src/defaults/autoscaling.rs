//! The HorizontalPodAutoscaler.

use crate::autoscaling::{
    HorizontalPodAutoscalerSpec, HpaScalingPolicy, HpaScalingPolicyType, HpaScalingRules,
    MetricSourceType, MetricSpec, MetricTarget, MetricTargetType, ResourceMetricSource,
    ScalingPolicySelect,
};

/// Fills in the spec of an autoscaler.
pub fn autoscaler(spec: &mut HorizontalPodAutoscalerSpec) {
    spec.min_replicas.get_or_insert(1);
    if spec.metrics.is_empty() {
        spec.metrics.push(MetricSpec {
            type_: MetricSourceType::Resource,
            resource: Some(ResourceMetricSource {
                name: "cpu".into(),
                target: MetricTarget {
                    type_: MetricTargetType::Utilization,
                    average_utilization: Some(80),
                    ..MetricTarget::default()
                },
            }),
            ..MetricSpec::default()
        });
    }
    // Without a behavior its default is the autoscaler's.
    if let Some(behavior) = &mut spec.behavior {
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        rules(
            up,
            &[
                (HpaScalingPolicyType::Pods, 4),
                (HpaScalingPolicyType::Percent, 100),
            ],
        );
        let down = behavior.scale_down.get_or_insert_default();
        down.stabilization_window_seconds.get_or_insert(300);
        rules(down, &[(HpaScalingPolicyType::Percent, 100)]);
    }
}

fn rules(rules: &mut HpaScalingRules, policies: &[(HpaScalingPolicyType, i32)]) {
    rules.select_policy.get_or_insert(ScalingPolicySelect::Max);
    if rules.policies.is_empty() {
        rules.policies = policies
            .iter()
            .map(|&(type_, value)| HpaScalingPolicy {
                type_,
                value,
                period_seconds: 15,
            })
            .collect();
    }
}
