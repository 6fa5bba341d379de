use super::*;

mod scalars;
mod text;

fn read(text: &str) -> Manifest {
    read_manifest("f.yaml", text, &Options::default())
}

fn errors(text: &str) -> Vec<String> {
    read(text).errors.iter().map(ToString::to_string).collect()
}

/// The only document of a text that has no errors.
fn only(text: &str) -> Document {
    let mut m = read(text);
    assert!(
        m.errors.is_empty(),
        "{:#?}",
        m.errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
    assert_eq!(m.documents.len(), 1);
    m.documents.remove(0)
}

/// A pod whose spec has these further lines.
fn pod(lines: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n    image: host\n{lines}"
    )
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels:
    app: web
spec:
  replica: 3
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: other
    spec:
      restartPolicy: Sometimes
      containers:
      - name: web
        image: host
        ports:
        - containerPort: 70000
        - containerport: 80
        env:
        - name: PORT
          value: 8080
        resources:
          requests:
            cpu: 1x
        volumeMounts:
        - name: data
          mountPath: /data
";

#[test]
fn every_problem_is_found_at_once_at_its_place() {
    assert_eq!(
        errors(DEPLOYMENT),
        [
            "f.yaml:8:3: spec.replica: there is no such field (did you mean \"replicas\"?)",
            "f.yaml:14:7: spec.template.metadata.labels: the selector (app=web) does not select the pods of this template",
            "f.yaml:17:22: spec.template.spec.restartPolicy: \"Sometimes\" is not one of Always, OnFailure, Never",
            "f.yaml:22:26: spec.template.spec.containers[0].ports[0].containerPort: 70000 is not a port: it must be \
             between 1 and 65535",
            "f.yaml:23:11: spec.template.spec.containers[0].ports[1].containerport: there is no such field (did you \
             mean \"containerPort\"?)",
            "f.yaml:26:18: spec.template.spec.containers[0].env[0].value: expected a text, found the number 8080: put \
             it in quotes",
            "f.yaml:29:18: spec.template.spec.containers[0].resources.requests.cpu: \"1x\" is not a quantity such as \
             250m, 0.5, 1Gi or 1e3",
            "f.yaml:31:17: spec.template.spec.containers[0].volumeMounts[0].name: the pod has no volume \"data\"",
        ]
    );
}

#[test]
fn kinds_and_versions_are_suggested() {
    assert_eq!(
        errors("apiVersion: v1\nkind: Deploymnet\n"),
        [
            "f.yaml:2:7: kind: the kind Deploymnet (v1) is not known here (did you mean \"Deployment\"?)"
        ]
    );
    assert_eq!(
        errors("apiVersion: extensions/v1beta1\nkind: Deployment\n"),
        [
            "f.yaml:1:13: apiVersion: \"extensions/v1beta1\" is not the version of Deployment that is known: apps/v1"
        ]
    );
    assert_eq!(
        errors("kind: Pod\n"),
        ["f.yaml:1:1: apiVersion: is required"]
    );
    assert_eq!(errors("a\n").len(), 1);
    assert_eq!(errors("- a\n").len(), 1);
}

#[test]
fn unsupported_fields_are_errors_unless_the_user_insists() {
    let text = pod(
        "    readinessProbe:\n      grpc: {port: 80}\n  subdomain: high\n  volumes:\n  - name: v\n    iscsi: {lun: 1}\n",
    );
    let m = read(&text);
    let of = |list: &[Problem]| list.iter().map(|p| p.path.clone()).collect::<Vec<_>>();
    assert_eq!(
        of(&m.errors),
        [
            "spec.containers[0].readinessProbe.grpc",
            "spec.volumes[0]",
            "spec.volumes[0].iscsi"
        ]
    );
    assert_eq!(of(&m.warnings), ["spec.subdomain"]);
    assert!(
        m.errors[0]
            .message
            .contains("probes do not speak gRPC yet; --ignore-unsupported"),
        "{}",
        m.errors[0]
    );
    let options = Options {
        ignore_unsupported: true,
        ..Options::default()
    };
    let m = read_manifest(
        "f",
        &text.replace("  volumes:\n  - name: v\n    iscsi: {lun: 1}\n", ""),
        &options,
    );
    assert!(m.errors.is_empty(), "{:?}", m.errors);
    assert_eq!(
        of(&m.warnings),
        ["spec.containers[0].readinessProbe.grpc", "spec.subdomain"]
    );
    assert!(m.documents[0].text.contains("grpc"));
}

#[test]
fn asking_for_what_happens_anyway_is_no_problem() {
    let m = read(&pod(
        "    imagePullPolicy: IfNotPresent\n    tty: false\n    securityContext: {readOnlyRootFilesystem: false}\n    \
         lifecycle: {}\n  schedulerName: default-scheduler\n  hostNetwork: false\n  affinity: {}\n  priority: 0\n",
    ));
    assert_eq!((m.errors, m.warnings), (vec![], vec![]));
}

#[test]
fn everything_about_placing_is_supported() {
    let term = "{topologyKey: zone, labelSelector: {matchLabels: {a: b}}, matchLabelKeys: [rev]}";
    let m = read(&pod(&format!(
        "    ports: [{{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}}]\n  \
         schedulerName: batch\n  priorityClassName: high\n  preemptionPolicy: Never\n  \
         schedulingGates: [{{name: example.com/wait}}]\n  \
         topologySpreadConstraints: [{{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, minDomains: 2}}]\n  \
         affinity:\n    podAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{term}]}}\n    \
         podAntiAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 1, podAffinityTerm: {term}}}]}}\n"
    )));
    assert_eq!((m.errors, m.warnings), (vec![], vec![]));
}

#[test]
fn kinds_that_act_later_say_so_once() {
    let m = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}], type: NodePort}\n",
    );
    assert!(m.errors.is_empty());
    let said: Vec<_> = m.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["f.yaml:1:1: a Service is stored and shown; nothing serves it yet"]
    );
}

#[test]
fn an_annotation_that_another_kind_has_is_warned_of() {
    let workload = |kind: &str, more: &str| {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata:\n  name: w\n  annotations:\n    setpoint.dev/progress-deadline-seconds: '30'\n\
             spec:\n  selector: {{matchLabels: {{a: b}}}}\n{more}  \
             template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: host}}]}}}}\n"
        )
    };
    let said = |kind: &str, more: &str| {
        let m = read(&workload(kind, more));
        assert!(m.errors.is_empty(), "{kind}: {:?}", m.errors);
        let said: Vec<_> = m.warnings.iter().map(ToString::to_string).collect();
        said
    };
    assert_eq!(
        said("Deployment", ""),
        [
            "f.yaml:6:45: metadata.annotations[\"setpoint.dev/progress-deadline-seconds\"]: has no effect here: a Deployment has the \
          field spec.progressDeadlineSeconds for that"
        ]
    );
    assert_eq!(said("StatefulSet", "  serviceName: w\n"), [""; 0]);
    assert_eq!(said("DaemonSet", ""), [""; 0]);
}

#[test]
fn lists_are_expanded() {
    let m = read(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n\
         - apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  spec: {containers: [{name: c, image: host, x: 1}]}\n",
    );
    assert_eq!(m.documents.len(), 1);
    assert_eq!(
        m.documents[0].text,
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n"
    );
    assert_eq!(
        m.errors[0].to_string(),
        "f.yaml:8:46: items[1].spec.containers[0].x: there is no such field"
    );
    let m = read(
        "apiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]\n",
    );
    assert_eq!(
        m.documents
            .iter()
            .map(|d| d.key.to_string())
            .collect::<Vec<_>>(),
        ["a", "b"],
        "{:?}",
        m.errors
    );
    assert!(
        read("apiVersion: v1\nkind: List\nitems:\n")
            .errors
            .is_empty()
    );
    assert_eq!(errors("apiVersion: v1\nkind: List\nitems: 3\n").len(), 1);
}

#[test]
fn documents_do_not_hide_each_other() {
    let text = "# head\n---\na: [\n---\n# only a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nb: }\n";
    let m = read(text);
    assert_eq!(m.documents.len(), 1);
    assert_eq!(m.documents[0].line, 7);
    let lines: Vec<usize> = m.errors.iter().map(|e| e.line).collect();
    assert_eq!(lines.len(), 2, "{:?}", m.errors);
    assert!((3..=4).contains(&lines[0]) && lines[1] == 11, "{lines:?}");
}

#[test]
fn keys_come_from_metadata_and_options() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    assert_eq!(only(text).key, ObjectKey::namespaced("", "a"));
    let options = Options {
        default_namespace: Some("team"),
        ..Options::default()
    };
    assert_eq!(
        read_manifest("f", text, &options).documents[0].key,
        ObjectKey::namespaced("team", "a")
    );
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
    assert_eq!(
        read_manifest("f", node, &options).documents[0].key,
        ObjectKey::cluster("n1")
    );
    assert_eq!(
        errors("apiVersion: v1\nkind: Node\nmetadata: {name: n1, namespace: x}\n").len(),
        1
    );
    for name in ["a/b", "..", "", "A", "a b"] {
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name:?}}}\n");
        assert_eq!(errors(&text).len(), 1, "{name}");
    }
}

#[test]
fn names_are_generated_only_when_that_is_wanted() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n";
    assert_eq!(errors(text).len(), 1);
    let options = Options {
        allow_generate_name: true,
        ..Options::default()
    };
    let m = read_manifest("f", text, &options);
    assert_eq!(
        m.documents[0].generate_name.as_deref(),
        Some("a-"),
        "{:?}",
        m.errors
    );
}

#[test]
fn duplicate_keys_are_errors() {
    let found = errors(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: a\n  y: b\n  x: c\n",
    );
    assert_eq!(
        found,
        ["f.yaml:7:3: data.x: the key is here twice: it is on line 5 already"]
    );
}

#[test]
fn a_kind_of_a_user_is_read_as_strictly() {
    use crate::kind::{ApiVersion, Kind, KindName, NoStatus};
    use crate::meta::ObjectMeta;
    #[derive(
        Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
    )]
    #[serde(rename_all = "camelCase")]
    struct Website {
        api_version: ApiVersion<Self>,
        kind: KindName<Self>,
        metadata: ObjectMeta,
        spec: WebsiteSpec,
    }
    #[derive(
        Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
    )]
    struct WebsiteSpec {
        pages: u8,
        theme: Option<Theme>,
    }
    #[derive(
        Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
    )]
    enum Theme {
        Light,
        Dark,
    }
    impl Kind for Website {
        const API_VERSION: &'static str = "example.com/v1";
        const KIND: &'static str = "Website";
        const PLURAL: &'static str = "websites";
        type Status = NoStatus;
        fn metadata(&self) -> &ObjectMeta {
            &self.metadata
        }
        fn metadata_mut(&mut self) -> &mut ObjectMeta {
            &mut self.metadata
        }
    }
    let registry = Registry::builtin().clone().with::<Website>();
    let options = Options {
        registry: &registry,
        ..Options::default()
    };
    let head = "apiVersion: example.com/v1\nkind: Website\nmetadata: {name: w}\n";
    let m = read_manifest(
        "f",
        &format!("{head}spec: {{pages: 300, theme: Drak, x: 1}}\n"),
        &options,
    );
    let found: Vec<_> = m.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "f:4:15: spec.pages: 300 is out of range: it must be between 0 and 255",
            "f:4:27: spec.theme: \"Drak\" is not one of Light, Dark (did you mean \"Dark\"?)",
            "f:4:33: spec.x: there is no such field",
        ]
    );
    let m = read_manifest(
        "f",
        &format!("{head}spec: {{pages: 3, theme: Dark}}\n"),
        &options,
    );
    assert_eq!(
        (m.documents.len(), m.errors, m.warnings),
        (1, vec![], vec![])
    );
}

#[test]
fn what_is_accepted_and_kept_by_nobody_has_its_shape_all_the_same() {
    let pod = |finalizers: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, finalizers: {finalizers}}}\n\
             spec: {{containers: [{{name: c, image: host}}]}}\n"
        )
    };
    assert_eq!(errors(&pod("[a/b]")), Vec::<String>::new());
    for wrong in ["[{a: 1}]", "a", "{a: b}"] {
        let errors = errors(&pod(wrong));
        assert!(
            errors.len() == 1 && errors[0].contains("metadata.finalizers"),
            "{wrong}: {errors:?}"
        );
    }
}
