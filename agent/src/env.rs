//! A container's environment, command and arguments, as Kubernetes computes them.

mod expand;
mod fields;

use setpoint_apis::core::{
    Container, EnvVar, EnvVarSource, KeySelector, Pod, PodSpec, ResourceFieldSelector,
};
use setpoint_apis::{Quantity, ResourceList};

use crate::content::Content;
pub use expand::expand;
pub use fields::field;

/// What a pod knows of itself and its node.
#[derive(Clone, Debug)]
pub struct PodFacts<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its uid.
    pub uid: &'a str,
    /// The node's name.
    pub node_name: &'a str,
    /// The node's address.
    pub host_ip: &'a str,
    /// The pod's address.
    pub pod_ip: &'a str,
    /// What pods may request of the node: the limits of a container that has none.
    pub allocatable: &'a ResourceList,
}

/// Why a container cannot be started as it is configured. It is tried again when the content changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An object that it needs is not there.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The object.
        name: String,
    },
    /// An object that it needs lacks a key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The namespace.
        namespace: String,
        /// The object.
        name: String,
        /// The key.
        key: String,
    },
    /// A value that cannot be a part of an environment.
    #[error("{what} is no text that an environment can hold")]
    NotText {
        /// Which.
        what: String,
    },
    /// A field that does not exist.
    #[error("unsupported field path {0:?}")]
    NoField(String),
    /// Anything else about the container's definition.
    #[error("{0}")]
    Definition(String),
}

/// What a process is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment, each name once.
    pub env: Vec<(String, String)>,
}

/// Computes environment, command and arguments. `base` is what is there before the container's own variables.
///
/// # Errors
/// [`ConfigError`], as a pod shows it under `CreateContainerConfigError`.
pub fn resolve(
    facts: &PodFacts<'_>,
    container: &Container,
    content: &Content,
    base: Vec<(String, String)>,
) -> Result<Invocation, ConfigError> {
    let mut env = Environment(base);
    for source in &container.env_from {
        env_from(&mut env, facts, source, content)?;
    }
    for variable in &container.env {
        if let Some(value) = value_of(&env, facts, container, variable, content)? {
            if value.contains('\0') || variable.name.contains(['=', '\0']) {
                return Err(ConfigError::NotText {
                    what: format!("environment variable {}", variable.name),
                });
            }
            env.set(&variable.name, value);
        }
    }
    let words = container.command.iter().chain(&container.args);
    let argv: Vec<String> = words.map(|w| expand(w, |name| env.get(name))).collect();
    if container.command.is_empty() {
        return Err(ConfigError::Definition(
            "image: host has no program of its own, so the container needs a command".to_owned(),
        ));
    }
    Ok(Invocation { argv, env: env.0 })
}

/// Expands a text with a container's environment, as `subPathExpr` does.
pub fn expand_with(env: &[(String, String)], text: &str) -> String {
    expand(text, |name| {
        env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    })
}

/// In order of first appearance, the last value of each name.
struct Environment(Vec<(String, String)>);

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

fn env_from(
    env: &mut Environment,
    facts: &PodFacts<'_>,
    source: &setpoint_apis::core::EnvFromSource,
    content: &Content,
) -> Result<(), ConfigError> {
    let namespace = &facts.pod.metadata.namespace;
    let prefix = source.prefix.as_deref().unwrap_or_default();
    if let Some(reference) = &source.config_map_ref {
        match content.config_map(namespace, &reference.name) {
            Some(object) => object
                .data
                .iter()
                .for_each(|(k, v)| set_from(env, prefix, k, v)),
            None if reference.optional == Some(true) => {}
            None => {
                return Err(ConfigError::NotFound {
                    kind: "configmap",
                    name: reference.name.clone(),
                });
            }
        }
    }
    if let Some(reference) = &source.secret_ref {
        match content.secret(namespace, &reference.name) {
            Some(object) => {
                for (key, value) in object.entries() {
                    let what = || format!("key {key} of secret {:?}", reference.name);
                    let value = std::str::from_utf8(value)
                        .map_err(|_| ConfigError::NotText { what: what() })?;
                    set_from(env, prefix, key, value);
                }
            }
            None if reference.optional == Some(true) => {}
            None => {
                return Err(ConfigError::NotFound {
                    kind: "secret",
                    name: reference.name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Keys that cannot be names of variables are left out, as Kubernetes does.
fn set_from(env: &mut Environment, prefix: &str, key: &str, value: &str) {
    let name = format!("{prefix}{key}");
    if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
        env.set(&name, value.to_owned());
    }
}

fn value_of(
    env: &Environment,
    facts: &PodFacts<'_>,
    container: &Container,
    variable: &EnvVar,
    content: &Content,
) -> Result<Option<String>, ConfigError> {
    match (&variable.value, &variable.value_from) {
        (Some(value), _) if !value.is_empty() => Ok(Some(expand(value, |name| env.get(name)))),
        (_, Some(from)) => value_from(facts, container, from, content),
        _ => Ok(Some(String::new())),
    }
}

fn value_from(
    facts: &PodFacts<'_>,
    container: &Container,
    from: &EnvVarSource,
    content: &Content,
) -> Result<Option<String>, ConfigError> {
    let namespace = &facts.pod.metadata.namespace;
    if let Some(reference) = &from.field_ref {
        return field(facts, &reference.field_path).map(Some);
    }
    if let Some(reference) = &from.resource_field_ref {
        return resource(facts, &facts.pod.spec, Some(container), reference).map(Some);
    }
    if let Some(reference) = &from.config_map_key_ref {
        let object = content.config_map(namespace, &reference.name);
        let value = object.as_ref().map(|o| o.get(&reference.key));
        return key_value(value, "configmap", "ConfigMap", namespace, reference);
    }
    if let Some(reference) = &from.secret_key_ref {
        let object = content.secret(namespace, &reference.name);
        let value = object.as_ref().map(|o| o.get(&reference.key));
        return key_value(value, "secret", "Secret", namespace, reference);
    }
    Ok(Some(String::new()))
}

fn key_value(
    value: Option<Option<&[u8]>>,
    lower: &'static str,
    kind: &'static str,
    namespace: &str,
    reference: &KeySelector,
) -> Result<Option<String>, ConfigError> {
    let KeySelector { name, key, .. } = reference;
    match value {
        Some(Some(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(ConfigError::NotText {
                what: format!("key {key} of {lower} {name:?}"),
            }),
        },
        _ if reference.optional == Some(true) => Ok(None),
        Some(None) => Err(ConfigError::NoKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.clone(),
            key: key.clone(),
        }),
        None => Err(ConfigError::NotFound {
            kind: lower,
            name: name.clone(),
        }),
    }
}

/// A request or limit of a container, in units of the divisor, rounded up. A limit that is not set is what the node has.
///
/// # Errors
/// [`ConfigError::Definition`] for a container or resource that does not exist.
pub fn resource(
    facts: &PodFacts<'_>,
    spec: &PodSpec,
    own: Option<&Container>,
    reference: &ResourceFieldSelector,
) -> Result<String, ConfigError> {
    let container = match &reference.container_name {
        Some(name) if !name.is_empty() => spec.all_containers().find(|c| c.name == *name),
        _ => own,
    };
    let Some(container) = container else {
        return Err(ConfigError::Definition(format!(
            "resource {}: no such container",
            reference.resource
        )));
    };
    let amount = match reference.resource.split_once('.') {
        Some(("limits", name)) => container
            .limits()
            .get(name)
            .or_else(|| facts.allocatable.get(name))
            .copied()
            .unwrap_or_default(),
        Some(("requests", name)) => container.requests().get(name).copied().unwrap_or_default(),
        _ => {
            return Err(ConfigError::Definition(format!(
                "resource {:?} is neither a limit nor a request",
                reference.resource
            )));
        }
    };
    let divisor = reference.divisor.unwrap_or(Quantity::from_whole(1));
    Ok(amount.divided_by(&divisor).to_string())
}

#[cfg(test)]
mod tests;
