//! Manifests: where they come from, and what the strict reader makes of them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;
use setpoint_apis::ObjectKey;
use setpoint_apis::records::PARTITION_POLICY;
use setpoint_apis::registry::Registry;
use setpoint_apis::strict::{self, Document, Manifest, Options, Problem};

use crate::kinds::KindInfo;
use crate::resolve;
use crate::term;

/// The most bytes of one file or answer. Far beyond what etcd takes; keeps a mistaken `-f` of a disk image cheap.
const MAX_SOURCE_BYTES: u64 = 64 << 20;

/// How long a web server may take.
const FETCH_LIMIT: Duration = Duration::from_secs(30);

/// The flags that name manifests.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FileArgs {
    /// A file, a directory, `-` for standard input, or a URL; can be given again
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) filenames: Vec<String>,
    /// Directories below directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// The flags of how strictly manifests are read.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct StrictArgs {
    /// Take fields and kinds that are not supported here as if they were not there, with a warning
    #[arg(long)]
    pub(crate) ignore_unsupported: bool,
}

/// A text and how messages call it.
pub(crate) struct Source {
    /// The path, `-`, or the URL.
    pub(crate) name: String,
    /// The text.
    pub(crate) text: String,
}

impl FileArgs {
    /// Whether any is named.
    pub(crate) fn is_given(&self) -> bool {
        !self.filenames.is_empty()
    }

    /// Reads everything that is named.
    ///
    /// # Errors
    /// When something cannot be read, or nothing is there.
    pub(crate) async fn read(&self) -> Result<Vec<Source>> {
        if self.filenames.is_empty() {
            bail!("a manifest is needed: -f FILE, a directory, - or a URL");
        }
        if self.filenames.iter().filter(|f| *f == "-").count() > 1 {
            bail!("standard input can be read once");
        }
        let mut sources = Vec::new();
        for name in &self.filenames {
            if name == "-" {
                sources.push(Source {
                    name: "-".into(),
                    text: stdin().await?,
                });
            } else if name.starts_with("http://") || name.starts_with("https://") {
                sources.push(Source {
                    name: name.clone(),
                    text: fetch(name).await?,
                });
            } else {
                let path = Path::new(name);
                for file in files(path, self.recursive)? {
                    sources.push(Source {
                        name: file.display().to_string(),
                        text: read_file(&file)?,
                    });
                }
            }
        }
        Ok(sources)
    }
}

/// Reads one source: a file, or `-`.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn read(name: &str) -> Result<Source> {
    let text = match name {
        "-" => stdin().await?,
        name => read_file(Path::new(name))?,
    };
    Ok(Source {
        name: name.to_owned(),
        text,
    })
}

/// Reads sources strictly.
pub(crate) fn parse(sources: &[Source], options: &Options<'_>) -> Manifest {
    let mut manifest = Manifest::default();
    for source in sources {
        manifest.extend(strict::read_manifest(&source.name, &source.text, options));
    }
    manifest
}

/// Reads sources strictly; warnings go to standard error.
///
/// # Errors
/// All that is wrong, as one error; and when there is no document at all.
pub(crate) fn documents(sources: &[Source], options: &Options<'_>) -> Result<Vec<Document>> {
    let manifest = parse(sources, options);
    for warning in &manifest.warnings {
        term::warn(warning);
    }
    if !manifest.errors.is_empty() {
        bail!("{}", all_errors(&manifest.errors));
    }
    if manifest.documents.is_empty() {
        bail!(
            "no objects in {}",
            sources
                .iter()
                .map(|s| s.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Ok(manifest.documents)
}

/// Whether a document is about pods that must never run twice: it is one, or it has a template of them.
pub(crate) fn never_twice(value: &Value) -> bool {
    [
        "/metadata",
        "/spec/template/metadata",
        "/spec/jobTemplate/spec/template/metadata",
    ]
    .into_iter()
    .filter_map(|path| {
        value
            .pointer(path)?
            .get("annotations")?
            .get(PARTITION_POLICY)
    })
    .any(|policy| policy == "stop")
}

/// The objects that sources name, whatever else stands in them: enough to delete them.
///
/// # Errors
/// When a source is not YAML, or a document does not say what it is about.
pub(crate) fn identities(
    sources: &[Source],
    default_namespace: &str,
) -> Result<Vec<(KindInfo, ObjectKey)>> {
    let mut found = Vec::new();
    for source in sources {
        for document in serde_yaml::Deserializer::from_str(&source.text) {
            let value = Value::deserialize(document)
                .with_context(|| format!("{} is not valid YAML", source.name))?;
            collect_identities(&source.name, &value, default_namespace, &mut found)?;
        }
    }
    if found.is_empty() {
        bail!("no objects are named");
    }
    Ok(found)
}

fn collect_identities(
    source: &str,
    value: &Value,
    default_namespace: &str,
    found: &mut Vec<(KindInfo, ObjectKey)>,
) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&value["apiVersion"]), text(&value["kind"]));
    if let (true, Some(items)) = (kind.ends_with("List"), value["items"].as_array()) {
        return items
            .iter()
            .try_for_each(|item| collect_identities(source, item, default_namespace, found));
    }
    let Some(info) = Registry::builtin()
        .lookup(&api_version, &kind)
        .map(KindInfo::from)
    else {
        bail!("{source}: the kind {kind:?} ({api_version:?}) is not known here");
    };
    let name = text(&value["metadata"]["name"]);
    resolve::check_name(&info, &name).with_context(|| source.to_owned())?;
    let key = match (info.namespaced, text(&value["metadata"]["namespace"])) {
        (false, _) => ObjectKey::cluster(name),
        (true, none) if none.is_empty() => ObjectKey::namespaced(default_namespace, name),
        (true, namespace) => {
            resolve::check_namespace(&namespace).with_context(|| source.to_owned())?;
            ObjectKey::namespaced(namespace, name)
        }
    };
    found.push((info, key));
    Ok(())
}

/// Errors as one text, each on a line.
pub(crate) fn all_errors(errors: &[Problem]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        many => format!(
            "{} problems, nothing was changed:\n{}",
            many.len(),
            many.join("\n")
        ),
    }
}

async fn stdin() -> Result<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = Vec::new();
        std::io::stdin()
            .take(MAX_SOURCE_BYTES + 1)
            .read_to_end(&mut text)
            .map(|_| text)
    });
    text_of(
        "standard input",
        read.await?.context("reading standard input")?,
    )
}

fn read_file(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).with_context(|| format!("opening {name}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_SOURCE_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {name}"))?;
    text_of(&name, bytes)
}

fn text_of(name: &str, bytes: Vec<u8>) -> Result<String> {
    if bytes.len() as u64 > MAX_SOURCE_BYTES {
        bail!(
            "{name} is larger than {} MiB: that is no manifest",
            MAX_SOURCE_BYTES >> 20
        );
    }
    String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))
}

/// The manifests under a path, in order. A file that is named is taken whatever it is called.
fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let meta = std::fs::metadata(path)
        .with_context(|| format!("the path {:?} cannot be read", path.display().to_string()))?;
    if !meta.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    collect(path, recursive, &mut found)?;
    if found.is_empty() {
        bail!(
            "there are no .yaml, .yml or .json files in {}{}",
            path.display(),
            if recursive {
                ""
            } else {
                " (-R looks below it too)"
            }
        );
    }
    Ok(found)
}

fn collect(dir: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<std::io::Result<_>>()?;
    paths.sort();
    for path in paths {
        // A link that leads nowhere, or in a circle, is not followed.
        let Ok(meta) = std::fs::metadata(&path) else {
            continue;
        };
        let is_link = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink());
        if meta.is_dir() {
            if recursive && !is_link {
                collect(&path, recursive, found)?;
            }
        } else if path
            .extension()
            .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|k| e == *k))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// An HTTP client with the system's certificates.
///
/// # Errors
/// When it cannot be set up.
pub(crate) fn http() -> Result<reqwest::Client> {
    // Fails when one is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("setting up the HTTP client")
}

async fn fetch(url: &str) -> Result<String> {
    let fetched = async {
        let answer = http()?.get(url).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        let mut answer = answer;
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_SOURCE_BYTES {
                break;
            }
        }
        anyhow::Ok(bytes)
    };
    let bytes = tokio::time::timeout(FETCH_LIMIT, fetched)
        .await
        .with_context(|| format!("{url} did not answer within {} s", FETCH_LIMIT.as_secs()))?
        .with_context(|| format!("fetching {url}"))?;
    text_of(url, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_give_their_manifests_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "c.json", "readme.md", "sub/d.yaml"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let names = |recursive| -> Vec<String> {
            let found = files(dir.path(), recursive).unwrap();
            found
                .iter()
                .map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string())
                .collect()
        };
        assert_eq!(names(false), ["a.yaml", "b.yml", "c.json"]);
        assert_eq!(names(true), ["a.yaml", "b.yml", "c.json", "sub/d.yaml"]);
        assert!(files(&dir.path().join("nope"), false).is_err());
    }
}
