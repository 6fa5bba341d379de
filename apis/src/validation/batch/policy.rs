//! What a Job makes of pods that fail, and when it has succeeded.

use super::super::{Findings, container};
use crate::batch::{
    ExitCodeOperator, JobSpec, PodFailurePolicyAction, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, SuccessPolicyRule, indexes,
};
use crate::core::RestartPolicy;
use crate::names;

/// The most rules of a policy, and the most conditions of a rule.
const RULES: usize = 20;

/// The most exit codes of a rule.
const EXIT_CODES: usize = 255;

/// The most characters of `succeededIndexes`.
const INDEXES_BYTES: usize = 64 * 1024;

fn number(f: &mut Findings, path: &str, what: &str, count: usize, most: usize) {
    if count == 0 {
        f.add(path, format!("needs at least one {what}"));
    } else if count > most {
        f.add(path, format!("has {count}, the most is {most}"));
    }
}

pub(super) fn failures(f: &mut Findings, path: &str, spec: &JobSpec) {
    let Some(policy) = &spec.pod_failure_policy else {
        return;
    };
    let policy_path = format!("{path}.podFailurePolicy");
    if spec.template.spec.restart_policy() != RestartPolicy::Never {
        f.add(
            policy_path.as_str(),
            "has a meaning only when the restartPolicy is Never",
        );
    }
    let rules = format!("{policy_path}.rules");
    if policy.rules.len() > RULES {
        number(f, &rules, "rule", policy.rules.len(), RULES);
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let path = format!("{rules}[{i}]");
        if rule.action == PodFailurePolicyAction::FailIndex
            && spec.backoff_limit_per_index.is_none()
        {
            f.add(
                format!("{path}.action"),
                "FailIndex has a meaning only with backoffLimitPerIndex",
            );
        }
        container::exactly_one(
            f,
            &path,
            &[
                ("onExitCodes", rule.on_exit_codes.is_some()),
                ("onPodConditions", !rule.on_pod_conditions.is_empty()),
            ],
        );
        if let Some(codes) = &rule.on_exit_codes {
            exit_codes(f, &format!("{path}.onExitCodes"), codes, spec);
        }
        conditions(
            f,
            &format!("{path}.onPodConditions"),
            &rule.on_pod_conditions,
        );
    }
}

fn exit_codes(
    f: &mut Findings,
    path: &str,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    spec: &JobSpec,
) {
    if let Some(name) = &codes.container_name
        && !spec.template.spec.all_containers().any(|c| c.name == *name)
    {
        f.add(
            format!("{path}.containerName"),
            format!("the pod has no container {name:?}"),
        );
    }
    let path = format!("{path}.values");
    number(f, &path, "exit code", codes.values.len(), EXIT_CODES);
    for (i, code) in codes.values.iter().enumerate() {
        if *code == 0 && codes.operator == ExitCodeOperator::In {
            f.add(
                format!("{path}[{i}]"),
                "0 is no failure, so it has no meaning with the operator In",
            );
        }
        if i > 0 && codes.values[i - 1] >= *code {
            f.add(
                format!("{path}[{i}]"),
                format!("{code} is not in rising order, each once"),
            );
        }
    }
}

fn conditions(f: &mut Findings, path: &str, list: &[PodFailurePolicyOnPodConditionsPattern]) {
    if list.len() > RULES {
        number(f, path, "condition", list.len(), RULES);
    }
    for (i, condition) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        f.name(
            format!("{path}.type"),
            &condition.type_,
            names::label_key(&condition.type_),
        );
        f.one_of(
            format!("{path}.status"),
            condition.status.as_deref(),
            &["True", "False", "Unknown"],
        );
    }
}

pub(super) fn success(f: &mut Findings, path: &str, spec: &JobSpec) {
    let Some(policy) = &spec.success_policy else {
        return;
    };
    let rules = format!("{path}.successPolicy.rules");
    number(f, &rules, "rule", policy.rules.len(), RULES);
    for (i, rule) in policy.rules.iter().enumerate() {
        success_rule(f, &format!("{rules}[{i}]"), rule, spec);
    }
}

fn success_rule(f: &mut Findings, path: &str, rule: &SuccessPolicyRule, spec: &JobSpec) {
    if rule.succeeded_indexes.is_none() && rule.succeeded_count.is_none() {
        f.add(path, "needs succeededIndexes or succeededCount");
    }
    let mut most = i64::from(spec.completions.unwrap_or(0));
    if let Some(text) = &rule.succeeded_indexes {
        let path = format!("{path}.succeededIndexes");
        if text.len() > INDEXES_BYTES {
            f.add(
                path.as_str(),
                format!("has {} characters, the most is {INDEXES_BYTES}", text.len()),
            );
        }
        match indexes::parse(text) {
            Err(problem) => f.add(path, format!("{text:?} {problem}")),
            Ok(ranges) => {
                if let Some(last) = ranges.last().map(|r| i64::from(*r.end()))
                    && last >= most
                {
                    f.add(
                        path,
                        format!(
                            "{last} is not a number of this Job: the last one is {}",
                            most - 1
                        ),
                    );
                } else {
                    most = indexes::count(&ranges);
                }
            }
        }
    }
    let path = format!("{path}.succeededCount");
    f.at_least(path.as_str(), rule.succeeded_count, 0);
    f.at_most(path, rule.succeeded_count.map(Into::into), most);
}
