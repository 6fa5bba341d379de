use setpoint_apis::core::{ConfigMap, Secret};
use setpoint_apis::{ObjectKey, document};

use super::*;

fn pod(container: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\n  labels: {{tier: front}}\n  annotations: {{note: hi}}\nspec:\n  containers:\n  - name: c\n    image: host\n    {}\n",
        container.replace('\n', "\n    ")
    );
    document::decode(text.as_bytes()).unwrap()
}

fn content() -> Content {
    let content = Content::default();
    let config: ConfigMap =
        document::decode(b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf, namespace: shop}\ndata: {A: from-a, B.C: dotted}\n").unwrap();
    let secret: Secret =
        document::decode(b"apiVersion: v1\nkind: Secret\nmetadata: {name: sec, namespace: shop}\ndata: {P: aHVudGVyMg==, raw: /w==}\n").unwrap();
    content.put_config_map(ObjectKey::namespaced("shop", "conf"), Some(config));
    content.put_secret(ObjectKey::namespaced("shop", "sec"), Some(secret));
    content
}

fn resolved(container: &str) -> Result<Invocation, ConfigError> {
    let pod = pod(container);
    let allocatable = ResourceList::from([
        ("cpu".to_owned(), Quantity::from_whole(2)),
        ("memory".to_owned(), Quantity::from_bytes(1 << 30)),
    ]);
    let facts = PodFacts {
        pod: &pod,
        uid: "u-1",
        node_name: "n1",
        host_ip: "10.0.0.1",
        pod_ip: "127.10.0.2",
        allocatable: &allocatable,
    };
    let base = vec![("PATH".to_owned(), "/bin".to_owned())];
    resolve(&facts, &pod.spec.containers[0], &content(), base)
}

fn env_of(container: &str) -> Vec<(String, String)> {
    resolved(&format!("command: [x]\n{container}")).unwrap().env
}

fn value(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
}

#[test]
fn command_replaces_and_args_follow() {
    let i = resolved("command: [sh, $(A)]\nargs: [$(B), $$(A), $(NONE)]\nenv: [{name: A, value: '1'}, {name: B, value: $(A)2}]").unwrap();
    assert_eq!(i.argv, ["sh", "1", "12", "$(A)", "$(NONE)"]);
}

#[test]
fn a_host_container_without_a_command_is_refused() {
    assert!(matches!(
        resolved("args: [x]"),
        Err(ConfigError::Definition(_))
    ));
}

#[test]
fn variables_see_those_before_them_and_override_env_from() {
    let env = env_of(
        "env:\n- {name: LATER, value: $(X)}\n- {name: X, value: x}\n- {name: Y, value: $(X)$(CFG_A)}\n- {name: CFG_A, value: own}\n\
         envFrom:\n- {prefix: CFG_, configMapRef: {name: conf}}\n- {secretRef: {name: gone, optional: true}}",
    );
    assert_eq!(value(&env, "LATER").unwrap(), "$(X)");
    assert_eq!(value(&env, "Y").unwrap(), "xfrom-a");
    assert_eq!(value(&env, "CFG_A").unwrap(), "own");
    assert_eq!(value(&env, "CFG_B.C").unwrap(), "dotted");
    assert_eq!(value(&env, "PATH").unwrap(), "/bin");
    assert_eq!(env.iter().filter(|(n, _)| n == "CFG_A").count(), 1);
}

#[test]
fn fields_and_resources_are_the_pods_own() {
    let env = env_of(
        "resources: {limits: {memory: 64Mi}, requests: {cpu: 250m}}\nenv:\n\
         - {name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n\
         - {name: U, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}\n\
         - {name: L, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['tier']\"}}}\n\
         - {name: NL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['none']\"}}}\n\
         - {name: AN, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['note']\"}}}\n\
         - {name: SA, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}\n\
         - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n\
         - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n\
         - {name: HIP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}\n\
         - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}\n\
         - {name: CPU, valueFrom: {resourceFieldRef: {resource: requests.cpu}}}\n\
         - {name: MILLI, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}\n\
         - {name: NODECPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}",
    );
    for (name, want) in [
        ("N", "web"),
        ("U", "u-1"),
        ("L", "front"),
        ("NL", ""),
        ("AN", "hi"),
        ("SA", "default"),
        ("NODE", "n1"),
        ("IP", "127.10.0.2"),
        ("HIP", "10.0.0.1"),
        ("MEM", "64"),
        ("CPU", "1"),
        ("MILLI", "250"),
        ("NODECPU", "2"),
    ] {
        assert_eq!(value(&env, name).as_deref(), Some(want), "{name}");
    }
}

#[test]
fn missing_content_is_an_error_that_names_it_unless_it_is_optional() {
    let key = |kind: &str, name: &str, key: &str, optional: bool| {
        resolved(&format!("command: [x]\nenv: [{{name: V, valueFrom: {{{kind}: {{name: {name}, key: {key}, optional: {optional}}}}}}}]"))
            .map(|i| value(&i.env, "V"))
    };
    assert_eq!(
        key("configMapKeyRef", "conf", "A", false),
        Ok(Some("from-a".into()))
    );
    assert_eq!(
        key("secretKeyRef", "sec", "P", false),
        Ok(Some("hunter2".into()))
    );
    assert_eq!(key("configMapKeyRef", "conf", "Z", true), Ok(None));
    assert_eq!(key("secretKeyRef", "none", "Z", true), Ok(None));
    assert_eq!(
        key("configMapKeyRef", "conf", "Z", false)
            .unwrap_err()
            .to_string(),
        "couldn't find key Z in ConfigMap shop/conf"
    );
    assert_eq!(
        key("secretKeyRef", "none", "Z", false)
            .unwrap_err()
            .to_string(),
        "secret \"none\" not found"
    );
    assert!(matches!(
        key("secretKeyRef", "sec", "raw", false),
        Err(ConfigError::NotText { .. })
    ));
    let from = resolved("command: [x]\nenvFrom: [{configMapRef: {name: none}}]");
    assert_eq!(
        from.unwrap_err().to_string(),
        "configmap \"none\" not found"
    );
}
