//! `setpoint config`: the contexts of the configuration file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use setpoint_apis::document;
use setpoint_store::config::{self, ConfigFile};

use crate::context::Context;
use crate::printers::table::Table;
use crate::resolve::check_namespace;
use crate::yaml_edit::{self, Change};

/// Flags of `setpoint config`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Print the name of the current context
    #[command(name = "current-context")]
    CurrentContext,
    /// List the contexts
    #[command(name = "get-contexts")]
    GetContexts,
    /// Choose the current context
    #[command(name = "use-context")]
    UseContext {
        /// Its name
        name: String,
    },
    /// Add a context, or change one, as --endpoints, --key-prefix, --namespace, --cacert, --cert, --key, --user and
    /// --password-file say
    #[command(name = "set-context")]
    SetContext {
        /// Its name
        #[arg(required_unless_present = "current")]
        name: Option<String>,
        /// The current context
        #[arg(long, conflicts_with = "name")]
        current: bool,
    },
    /// Print the configuration file
    View,
}

/// Runs the command.
pub(crate) fn run(args: ConfigArgs, context: &mut Context) -> Result<()> {
    let env = |name: &str| std::env::var(name).ok();
    let path = config::config_path(&context.global().flags(), env).map(|(path, _)| path);
    let path = path.context("there is no place for a configuration file: neither --config, SETPOINT_CONFIG, XDG_CONFIG_HOME nor HOME is set")?;
    match args.what {
        What::CurrentContext => match read(&path)?.current_context {
            Some(name) => context.out.line(name),
            None => bail!("no current context is set in {}", path.display()),
        },
        What::GetContexts => contexts(context, &read(&path)?),
        What::UseContext { name } => {
            let file = read(&path)?;
            if file.context(&name).is_none() {
                let known: Vec<&str> = file.contexts.iter().map(|c| c.name.as_str()).collect();
                bail!(
                    "there is no context {name:?} in {} (it has {})",
                    path.display(),
                    known.join(", ")
                );
            }
            let text = std::fs::read_to_string(&path)?;
            let edited =
                yaml_edit::edit(&text, &[Change::set(&["currentContext"], name.as_str())])?;
            save(&path, &edited.text)?;
            context
                .out
                .line(format_args!("Switched to context {name:?}."));
        }
        What::SetContext { name, .. } => {
            let name = match name {
                Some(name) => name,
                None => read(&path)?
                    .current_context
                    .context("no current context is set")?,
            };
            let created = set(&path, &name, context)?;
            context.out.line(format_args!(
                "Context {name:?} {}.",
                if created { "created" } else { "modified" }
            ));
        }
        What::View => match std::fs::read_to_string(&path) {
            Ok(text) => context.out.text(text),
            // Nothing is configured: as kubectl, that is no mistake.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                context.out.text(document::encode(&ConfigFile::default()));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", path.display()));
            }
        },
    }
    Ok(())
}

fn read(path: &Path) -> Result<ConfigFile> {
    if !path.exists() {
        bail!(
            "there is no configuration file {}; `setpoint config set-context NAME --endpoints ...` makes one",
            path.display()
        );
    }
    Ok(ConfigFile::read(path)?)
}

fn contexts(context: &mut Context, file: &ConfigFile) {
    let rows: Vec<Vec<String>> = file
        .contexts
        .iter()
        .map(|c| {
            let current = file.current_context.as_ref() == Some(&c.name);
            vec![
                if current { "*" } else { "" }.to_owned(),
                c.name.clone(),
                c.endpoints.join(","),
                c.prefix
                    .clone()
                    .unwrap_or_else(|| config::DEFAULT_PREFIX.to_owned()),
                c.namespace.clone().unwrap_or_default(),
                c.user.clone().unwrap_or_default(),
            ]
        })
        .collect();
    Table::new([
        "CURRENT",
        "NAME",
        "ENDPOINTS",
        "PREFIX",
        "NAMESPACE",
        "USER",
    ])
    .print(&mut context.out, &rows);
}

fn set(path: &Path, name: &str, context: &Context) -> Result<bool> {
    let flags = context.global().flags();
    let absolute = |p: &Option<PathBuf>| -> Result<Option<PathBuf>> {
        p.as_ref()
            .map(|p| std::path::absolute(p).context("making a path absolute"))
            .transpose()
    };
    let mut file = if path.exists() {
        ConfigFile::read(path)?
    } else {
        ConfigFile::default()
    };
    let created = file.context(name).is_none();
    if created {
        file.contexts.push(config::Context {
            name: name.to_owned(),
            ..config::Context::default()
        });
    }
    let Some(entry) = file.contexts.iter_mut().find(|c| c.name == name) else {
        bail!("the context was just made")
    };
    if !flags.endpoints.is_empty() {
        entry.endpoints = flags
            .endpoints
            .iter()
            .flat_map(|e| e.split(','))
            .map(|e| e.trim().to_owned())
            .collect();
    }
    entry.prefix = flags.prefix.or(entry.prefix.take());
    if let Some(namespace) = context.given_namespace() {
        check_namespace(namespace)?;
        entry.namespace = Some(namespace.to_owned());
    }
    entry.ca_file = absolute(&flags.cacert)?.or(entry.ca_file.take());
    entry.cert_file = absolute(&flags.cert)?.or(entry.cert_file.take());
    entry.key_file = absolute(&flags.key)?.or(entry.key_file.take());
    entry.user = flags.user.or(entry.user.take());
    entry.password_file = absolute(&flags.password_file)?.or(entry.password_file.take());
    if file.current_context.is_none() {
        file.current_context = Some(name.to_owned());
    }
    let text = if path.exists() {
        std::fs::read_to_string(path)?
    } else {
        "{}\n".to_owned()
    };
    let current = Value::from(file.current_context.unwrap_or_default());
    let list = vec!["contexts".to_owned()];
    let change = if created {
        // The others stay as they were written.
        Change::Append(list, serde_json::to_value(file.contexts.pop())?)
    } else {
        Change::Set(list, serde_json::to_value(&file.contexts)?)
    };
    let changes = [change, Change::Set(vec!["currentContext".into()], current)];
    let edited = yaml_edit::edit(&text, &changes)?;
    ConfigFile::parse(&edited.text, path)?;
    save(path, &edited.text)?;
    Ok(created)
}

/// Replaces the file in one step: a reader sees the old text or the new one.
fn save(path: &Path, text: &str) -> Result<()> {
    let dir = path
        .parent()
        .context("the configuration file has no directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut file = tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("writing into {}", dir.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(path)
        .with_context(|| format!("replacing {}", path.display()))?;
    Ok(())
}
