//! Where etcd is and how to get in: flags, environment, and a file with named contexts.
//!
//! The command line is parsed elsewhere; here is what it amounts to. Each setting is taken from the first place that has
//! it: flag, environment, the chosen context of the file, default.
//!
//! Endpoints that are given by a flag or the environment stand for a cluster of their own. The file's *current* context is
//! then left out, so that its certificates and passwords do not go to a server they were not meant for. A context that
//! is *named* by flag or environment applies all the same.

mod file;

use std::path::{Path, PathBuf};

use crate::etcd::{ConnectOptions, Credentials, Pem, TlsOptions};

pub use self::file::{ConfigFile, Context};

/// The key prefix where none is given.
pub const DEFAULT_PREFIX: &str = "/setpoint";

/// The endpoint where none is given.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:2379";

/// What was given on the command line. `None` and empty for what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The file to read, instead of the usual one.
    pub config: Option<PathBuf>,
    /// The context to use, instead of the current one.
    pub context: Option<String>,
    /// Endpoints; each may hold several, separated by commas.
    pub endpoints: Vec<String>,
    /// The key prefix.
    pub prefix: Option<String>,
    /// The CA certificate.
    pub cacert: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// The client certificate's key.
    pub key: Option<PathBuf>,
    /// The user, or `user:password`.
    pub user: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
}

/// Where etcd is, how to get in, and under which prefix Setpoint's keys are.
#[derive(Clone, Debug)]
pub struct Connection {
    /// How to connect.
    pub options: ConnectOptions,
    /// The key prefix, without a slash at the end.
    pub prefix: String,
    /// The namespace that the context works in.
    pub namespace: Option<String>,
    /// Where the endpoints come from: `--endpoints`, `SETPOINT_ENDPOINTS`, `context prod of ~/.config/...`, `default`.
    pub source: String,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration file is malformed.
    #[error("{}{}: {message}", path.display(), position(*line, *column))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 when it is not known.
        line: usize,
        /// The column, from 1; 0 when it is not known.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A context is asked for that the file does not have.
    #[error("there is no context {name:?} in {}{}", path.as_deref().map_or("any configuration file".into(), |path| path.display().to_string()), known(known_names))]
    UnknownContext {
        /// The context.
        name: String,
        /// The file that was read, if there is one.
        path: Option<PathBuf>,
        /// The contexts that it has.
        known_names: Vec<String>,
    },
    /// A setting that does not go with the others.
    #[error("{setting}: {message}")]
    Contradiction {
        /// The setting, and where it comes from.
        setting: String,
        /// What is wrong.
        message: String,
    },
}

fn position(line: usize, column: usize) -> String {
    match (line, column) {
        (0, _) => String::new(),
        (line, 0) => format!(":{line}"),
        (line, column) => format!(":{line}:{column}"),
    }
}

fn known(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(" (it has {})", names.join(", "))
    }
}

/// Reads the environment and the file, and resolves.
///
/// # Errors
/// See [`ConfigError`]. A file that nobody asked for may be missing; one that was named may not.
pub fn load(flags: &Flags) -> Result<Connection, ConfigError> {
    let env = |name: &str| std::env::var(name).ok();
    let file = match config_path(flags, env) {
        Some((path, named)) if named || path.exists() => Some(ConfigFile::read(&path)?),
        _ => None,
    };
    resolve(flags, env, file.as_ref())
}

/// The configuration file, and whether it was named by flag or environment.
pub fn config_path(flags: &Flags, env: impl Fn(&str) -> Option<String>) -> Option<(PathBuf, bool)> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(path) = flags
        .config
        .clone()
        .or_else(|| set("SETPOINT_CONFIG").map(PathBuf::from))
    {
        return Some((path, true));
    }
    let base = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some((base.join("setpoint/config.yaml"), false))
}

/// Takes each setting from the first place that has it.
///
/// # Errors
/// See [`ConfigError`].
pub fn resolve(
    flags: &Flags,
    env: impl Fn(&str) -> Option<String>,
    file: Option<&ConfigFile>,
) -> Result<Connection, ConfigError> {
    let env = |name: &'static str| env(name).filter(|value| !value.trim().is_empty());

    let named = flags.context.clone().or_else(|| env("SETPOINT_CONTEXT"));
    let given = given_endpoints(flags, &env);
    let context = match (&named, file) {
        (Some(name), _) => Some(find_context(name, file)?),
        (None, Some(file)) if given.is_none() => file.current()?,
        _ => None,
    };
    // Paths in the file are relative to the file.
    let directory = file
        .and_then(|file| file.path.parent())
        .unwrap_or_else(|| Path::new(""));
    let path = |flag: &Option<PathBuf>,
                variable: &'static str,
                of_context: fn(&Context) -> &Option<PathBuf>| {
        flag.clone()
            .or_else(|| env(variable).map(PathBuf::from))
            .or_else(|| {
                context
                    .and_then(|context| of_context(context).as_ref())
                    .map(|path| directory.join(path))
            })
    };

    let (endpoints, source) = match (given, context, file) {
        (Some((endpoints, source)), ..) => (endpoints, source.to_owned()),
        (None, Some(context), Some(file)) if !context.endpoints.is_empty() => (
            context.endpoints.clone(),
            format!("context {} of {}", context.name, file.path.display()),
        ),
        _ => (vec![DEFAULT_ENDPOINT.to_owned()], "default".to_owned()),
    };
    let prefix = flags
        .prefix
        .clone()
        .or_else(|| env("SETPOINT_PREFIX"))
        .or_else(|| context.and_then(|context| context.prefix.clone()))
        .unwrap_or_else(|| DEFAULT_PREFIX.to_owned());

    let tls = tls(
        path(&flags.cacert, "SETPOINT_CACERT", |context| &context.ca_file),
        path(&flags.cert, "SETPOINT_CERT", |context| &context.cert_file),
        path(&flags.key, "SETPOINT_KEY", |context| &context.key_file),
        context.and_then(|context| context.server_name.clone()),
    )?;
    let user = flags
        .user
        .clone()
        .or_else(|| env("SETPOINT_USER"))
        .or_else(|| context.and_then(|context| context.user.clone()));
    let password = flags
        .password_file
        .is_none()
        .then(|| env("SETPOINT_PASSWORD"))
        .flatten();
    let password_file = flags.password_file.clone().or_else(|| {
        context
            .and_then(|context| context.password_file.as_ref())
            .map(|path| directory.join(path))
    });
    let user = user
        .map(|user| credentials(user, password, password_file.as_deref()))
        .transpose()?;

    Ok(Connection {
        options: ConnectOptions {
            tls,
            user,
            ..ConnectOptions::new(endpoints)
        },
        prefix: checked_prefix(&prefix)?,
        namespace: context.and_then(|context| context.namespace.clone()),
        source,
    })
}

fn given_endpoints(
    flags: &Flags,
    env: &impl Fn(&'static str) -> Option<String>,
) -> Option<(Vec<String>, &'static str)> {
    let split = |text: &str| -> Vec<String> {
        text.split(',')
            .map(str::trim)
            .filter(|endpoint| !endpoint.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let flag: Vec<String> = flags
        .endpoints
        .iter()
        .flat_map(|text| split(text))
        .collect();
    if !flag.is_empty() {
        return Some((flag, "--endpoints"));
    }
    env("SETPOINT_ENDPOINTS")
        .map(|text| split(&text))
        .filter(|list| !list.is_empty())
        .map(|list| (list, "SETPOINT_ENDPOINTS"))
}

fn find_context<'a>(name: &str, file: Option<&'a ConfigFile>) -> Result<&'a Context, ConfigError> {
    file.and_then(|file| file.context(name))
        .ok_or_else(|| ConfigError::UnknownContext {
            name: name.to_owned(),
            path: file.map(|file| file.path.clone()),
            known_names: file
                .map(|file| {
                    file.contexts
                        .iter()
                        .map(|context| context.name.clone())
                        .collect()
                })
                .unwrap_or_default(),
        })
}

fn tls(
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
) -> Result<Option<TlsOptions>, ConfigError> {
    let contradiction = |setting: &str, message: &str| {
        Err(ConfigError::Contradiction {
            setting: setting.to_owned(),
            message: message.to_owned(),
        })
    };
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((Pem::File(certificate), Pem::File(key))),
        (None, None) => None,
        (Some(_), None) => {
            return contradiction("client certificate", "its key is missing (--key)");
        }
        (None, Some(_)) => {
            return contradiction("client key", "its certificate is missing (--cert)");
        }
    };
    match ca {
        Some(ca) => Ok(Some(TlsOptions {
            ca: Pem::File(ca),
            client,
            server_name,
        })),
        None if client.is_some() => contradiction(
            "client certificate",
            "the CA certificate is missing (--cacert)",
        ),
        None => Ok(None),
    }
}

fn credentials(
    user: String,
    password: Option<String>,
    password_file: Option<&Path>,
) -> Result<Credentials, ConfigError> {
    if let Some((name, password)) = user.split_once(':') {
        return Ok(Credentials {
            name: name.to_owned(),
            password: password.to_owned(),
        });
    }
    if let Some(password) = password {
        return Ok(Credentials {
            name: user,
            password,
        });
    }
    match password_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                what: "password file",
                path: path.to_owned(),
                source,
            })?;
            Ok(Credentials { name: user, password: text.trim_end_matches(['\r', '\n']).to_owned() })
        }
        None => Err(ConfigError::Contradiction {
            setting: format!("user {user}"),
            message: "the password is missing (SETPOINT_PASSWORD, --password-file, or passwordFile in the context)".to_owned(),
        }),
    }
}

/// Keys are `<prefix>/desired/...`: the prefix begins with a slash and does not end in one.
fn checked_prefix(prefix: &str) -> Result<String, ConfigError> {
    let trimmed = prefix.trim_end_matches('/');
    let problem = if !prefix.starts_with('/') {
        "must begin with a slash"
    } else if trimmed.is_empty() {
        "must not be empty"
    } else if trimmed.contains("//")
        || trimmed
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii())
    {
        "must be a plain path such as /setpoint"
    } else {
        return Ok(trimmed.to_owned());
    };
    Err(ConfigError::Contradiction {
        setting: format!("prefix {prefix:?}"),
        message: problem.to_owned(),
    })
}

#[cfg(test)]
mod tests;
