//! The documents of the pods of Jobs.

use std::sync::Arc;

use setpoint_apis::batch::{Job, labels};
use setpoint_apis::core::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec, PodTemplateSpec,
};
use setpoint_apis::{ObjectMeta, OwnerReference, document};

use super::plan::NewPod;

/// Writes the pods of a Job.
pub(super) struct PodWriter<'a> {
    job: &'a Job,
    template: PodTemplateSpec,
    owner: OwnerReference,
}

impl<'a> PodWriter<'a> {
    /// Pods of `job`, made of `template`, managed by `owner`, which is a reference to it.
    pub(super) fn new(job: &'a Job, template: &PodTemplateSpec, owner: OwnerReference) -> Self {
        let mut template = template.clone();
        if job.spec.manual_selector != Some(true) {
            let of = &mut template.metadata.labels;
            let name = &*job.metadata.name;
            for (label, value) in [
                (labels::CONTROLLER_UID, owner.uid.as_str()),
                (labels::LEGACY_CONTROLLER_UID, owner.uid.as_str()),
                (labels::JOB_NAME, name),
                (labels::LEGACY_JOB_NAME, name),
            ] {
                of.insert(label.into(), value.into());
            }
        }
        if job.spec.is_indexed() {
            tell_index(Arc::make_mut(&mut template.spec));
        }
        Self {
            job,
            template,
            owner,
        }
    }

    /// The document of a pod.
    pub(super) fn document(&self, pod: &NewPod) -> String {
        let mut metadata = ObjectMeta {
            name: pod.name.as_str().into(),
            namespace: self.job.metadata.namespace.clone(),
            labels: self.template.metadata.labels.clone(),
            annotations: self.template.metadata.annotations.clone(),
            owner_references: vec![self.owner.clone()],
            ..ObjectMeta::default()
        };
        let mut spec = self.template.spec.clone();
        let mut note = |annotation: &str, value: String| {
            metadata.annotations.insert(annotation.into(), value);
        };
        note(labels::JOB_POD_NUMBER, pod.number.to_string());
        if let Some((failures, ignored)) = pod.failures {
            note(labels::INDEX_FAILURES, failures.to_string());
            if ignored > 0 {
                note(labels::INDEX_IGNORED_FAILURES, ignored.to_string());
            }
        }
        if let Some(index) = pod.index {
            note(labels::COMPLETION_INDEX, index.to_string());
            metadata
                .labels
                .insert(labels::COMPLETION_INDEX.into(), index.to_string());
            let host = format!("{}-{index}", self.job.metadata.name);
            Arc::make_mut(&mut spec).hostname = Some(host);
        }
        document::encode(&Pod {
            metadata,
            spec,
            ..Pod::default()
        })
    }
}

/// Gives every container the index in a variable, unless it has one of that name.
fn tell_index(spec: &mut PodSpec) {
    let variable = EnvVar {
        name: labels::INDEX_VARIABLE.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{}']", labels::COMPLETION_INDEX),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
    };
    let tell = |c: &mut Container| {
        if c.env.iter().all(|v| v.name != variable.name) {
            c.env.push(variable.clone());
        }
    };
    spec.init_containers.iter_mut().for_each(tell);
    spec.containers.iter_mut().for_each(tell);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::controller_reference;

    fn job(more: &str) -> Job {
        let text = format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sum, namespace: default}}\nspec:\n  {more}\n  template:\n    \
             metadata: {{labels: {{app: sum}}}}\n    spec:\n      restartPolicy: Never\n      initContainers: [{{name: i, image: host}}]\n      \
             containers: [{{name: c, image: host}}]\n"
        );
        document::decode(text.as_bytes()).unwrap()
    }

    fn pod(job: &Job, new: &NewPod) -> Pod {
        let owner = controller_reference::<Job>("sum", "u");
        let text = PodWriter::new(job, &job.spec.template, owner).document(new);
        document::decode(text.as_bytes()).unwrap()
    }

    fn new(index: Option<i32>, failures: Option<(i32, i32)>) -> NewPod {
        NewPod {
            name: "sum-x".into(),
            number: 4,
            index,
            failures,
        }
    }

    #[test]
    fn a_pod_carries_the_labels_that_kubernetes_selects_by_and_its_number() {
        let pod = pod(&job("completions: 2"), &new(None, None));
        let of = &pod.metadata.labels;
        for (label, value) in [
            ("app", "sum"),
            ("batch.kubernetes.io/controller-uid", "u"),
            ("controller-uid", "u"),
            ("batch.kubernetes.io/job-name", "sum"),
            ("job-name", "sum"),
        ] {
            assert_eq!(of[label], value);
        }
        assert_eq!(pod.metadata.annotations["setpoint.dev/job-pod-number"], "4");
        assert_eq!(pod.metadata.annotations.len(), 1);
        assert_eq!(pod.spec.hostname, None);
        assert!(pod.spec.containers[0].env.is_empty());
        assert_eq!(&*pod.metadata.controller().unwrap().name, "sum");
    }

    #[test]
    fn a_pod_of_an_indexed_job_knows_its_index() {
        let indexed = job("completions: 3\n  completionMode: Indexed");
        let pod = pod(&indexed, &new(Some(2), Some((1, 3))));
        let index = "batch.kubernetes.io/job-completion-index";
        assert_eq!(pod.metadata.labels[index], "2");
        assert_eq!(pod.metadata.annotations[index], "2");
        assert_eq!(pod.spec.hostname.as_deref(), Some("sum-2"));
        for c in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            let from = c.env[0].value_from.as_ref().unwrap();
            assert_eq!(c.env[0].name, "JOB_COMPLETION_INDEX");
            assert_eq!(
                from.field_ref.as_ref().unwrap().field_path,
                "metadata.labels['batch.kubernetes.io/job-completion-index']"
            );
        }
        let noted = &pod.metadata.annotations;
        assert_eq!(noted["batch.kubernetes.io/job-index-failure-count"], "1");
        assert_eq!(
            noted["batch.kubernetes.io/job-index-ignored-failure-count"],
            "3"
        );
    }

    #[test]
    fn a_manual_selector_leaves_the_labels_alone() {
        let manual = job("manualSelector: true\n  selector: {matchLabels: {app: sum}}");
        let pod = pod(&manual, &new(None, None));
        assert_eq!(pod.metadata.labels.len(), 1);
    }
}
