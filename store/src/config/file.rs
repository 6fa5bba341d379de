//! The configuration file: named contexts, read strictly.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `~/.config/setpoint/config.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigFile {
    /// The context that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_context: Option<String>,
    /// The contexts.
    #[serde(default)]
    pub contexts: Vec<Context>,
    /// The file it was read from.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A cluster, and how to get in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Context {
    /// Its name.
    pub name: String,
    /// etcd's endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The key prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The namespace that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The CA certificate; like all paths, relative to the file it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The client certificate's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate bears, when it is not the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file with the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Read`] and [`ConfigError::Malformed`], the latter with the line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            what: "configuration file",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`], with the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let malformed = |line, column, message| ConfigError::Malformed {
            path: path.to_owned(),
            line,
            column,
            message,
        };
        // A file with nothing but comments is an empty one.
        let parsed: Option<Self> = serde_yaml::from_str(text).map_err(|error| {
            let (line, column) = error
                .location()
                .map_or((0, 0), |location| (location.line(), location.column()));
            let message = error.to_string();
            let position = format!(" at line {line} column {column}");
            malformed(
                line,
                column,
                message
                    .strip_suffix(&position)
                    .unwrap_or(&message)
                    .to_owned(),
            )
        })?;
        let file = Self {
            path: path.to_owned(),
            ..parsed.unwrap_or_default()
        };
        for (at, context) in file.contexts.iter().enumerate() {
            let earlier = file.contexts[..at]
                .iter()
                .filter(|other| other.name == context.name)
                .count();
            let line = || line_of(text, "name", &context.name, earlier);
            if context.name.is_empty() {
                return Err(malformed(line(), 0, "a context needs a name".to_owned()));
            }
            if earlier > 0 {
                return Err(malformed(
                    line(),
                    0,
                    format!("there are two contexts named {:?}", context.name),
                ));
            }
        }
        if let Some(current) = &file.current_context
            && file.context(current).is_none()
        {
            let line = line_of(text, "currentContext", current, 0);
            return Err(malformed(
                line,
                0,
                format!("currentContext: there is no context {current:?}"),
            ));
        }
        Ok(file)
    }

    /// A context by name.
    pub fn context(&self, name: &str) -> Option<&Context> {
        self.contexts.iter().find(|context| context.name == name)
    }

    /// The current context; the only one, where the file names none.
    pub(super) fn current(&self) -> Result<Option<&Context>, ConfigError> {
        match (&self.current_context, self.contexts.as_slice()) {
            (Some(name), _) => Ok(self.context(name)),
            (None, [] | [_]) => Ok(self.contexts.first()),
            (None, several) => Err(ConfigError::Malformed {
                path: self.path.clone(),
                line: 0,
                column: 0,
                message: format!(
                    "currentContext is not set and there are several contexts ({}): set it, or name one with --context",
                    several
                        .iter()
                        .map(|context| context.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            }),
        }
    }
}

/// The line of the n-th `key: value`, from 1; 0 when it is written in another way.
fn line_of(text: &str, key: &str, value: &str, nth: usize) -> usize {
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            let line = line.trim().trim_start_matches("- ").trim_start();
            let written = line
                .strip_prefix(key)
                .and_then(|rest| rest.trim_start().strip_prefix(':'));
            written.is_some_and(|rest| {
                let rest = rest.split(" #").next().unwrap_or(rest).trim();
                rest.trim_matches(['"', '\'']) == value
            })
        })
        .nth(nth)
        .map_or(0, |(at, _)| at + 1)
}
