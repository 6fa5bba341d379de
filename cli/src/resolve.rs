//! What the words after a verb name: `TYPE`, `TYPE NAME...`, `TYPE/NAME...`, `TYPE,TYPE`, `all`.

use anyhow::{Result, bail};
use setpoint_apis::{ObjectKey, names};

use crate::client::Client;
use crate::kinds::{self, KindInfo};
use crate::manifest::{self, FileArgs};

/// What is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// All objects of these kinds.
    Kinds(Vec<KindInfo>),
    /// These objects.
    Named(Vec<(KindInfo, ObjectKey)>),
}

/// Reads the words, or the manifests where there are any in their place.
///
/// # Errors
/// As [`targets`]; and when both are given, or a manifest does not say what it is about.
pub(crate) async fn words_or_files(
    client: &Client,
    words: &[String],
    files: &FileArgs,
    namespace: &str,
) -> Result<Targets> {
    if !files.is_given() {
        return targets(client, words, namespace).await;
    }
    if !words.is_empty() {
        bail!("-f and resources on the command line exclude each other");
    }
    Ok(Targets::Named(manifest::identities(
        &files.read().await?,
        namespace,
    )?))
}

/// Reads the words; names are those of objects in `namespace`, where their kind has one. Kinds that this program does not know are looked for in the store.
///
/// # Errors
/// When a word means no kind, a name cannot be one, or the forms are mixed.
pub(crate) async fn targets(client: &Client, words: &[String], namespace: &str) -> Result<Targets> {
    let (types, named) = split(words)?;
    let mut found = Vec::new();
    for word in &types {
        for kind in expand(client, word).await? {
            if !found.contains(&kind) {
                found.push(kind);
            }
        }
    }
    let names: Vec<(KindInfo, String)> = match named {
        Names::None => return Ok(Targets::Kinds(found)),
        Names::OfTypes(names) => found
            .iter()
            .flat_map(|k| names.iter().map(|n| (*k, n.clone())))
            .collect(),
        Names::WithType(pairs) => {
            let mut all = Vec::with_capacity(pairs.len());
            for (word, name) in pairs {
                match expand(client, &word).await?.as_slice() {
                    [kind] => all.push((*kind, name)),
                    _ => bail!("{word}/{name}: a name needs one resource type"),
                }
            }
            all
        }
    };
    let keys = names
        .into_iter()
        .map(|(kind, name)| Ok((kind, key_of(&kind, namespace, &name)?)));
    Ok(Targets::Named(keys.collect::<Result<_>>()?))
}

/// The key of a named object.
fn key_of(kind: &KindInfo, namespace: &str, name: &str) -> Result<ObjectKey> {
    check_name(kind, name)?;
    Ok(if kind.namespaced {
        ObjectKey::namespaced(namespace, name)
    } else {
        ObjectKey::cluster(name)
    })
}

/// Like [`targets`], for verbs that only take named objects.
///
/// # Errors
/// As [`targets`], and when no object is named.
pub(crate) async fn named(
    client: &Client,
    words: &[String],
    namespace: &str,
) -> Result<Vec<(KindInfo, ObjectKey)>> {
    match targets(client, words, namespace).await? {
        Targets::Named(all) => Ok(all),
        Targets::Kinds(_) => bail!("a resource name is needed: TYPE NAME or TYPE/NAME"),
    }
}

/// Like [`named`], for verbs that take one pod or something that has pods: a bare name is a pod's.
///
/// # Errors
/// As [`named`].
pub(crate) async fn pod_or_owner(
    client: &Client,
    words: &[String],
    namespace: &str,
) -> Result<(KindInfo, ObjectKey)> {
    match words {
        [one] if !one.contains('/') => {
            let pods = kinds::builtin("pods");
            Ok((pods, key_of(&pods, namespace, one)?))
        }
        _ => match named(client, words, namespace).await?.as_slice() {
            [one] => Ok(one.clone()),
            _ => bail!("one resource is needed: POD or TYPE/NAME"),
        },
    }
}

/// Whether a name may become a part of a key. What is refused here could never have been created.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_name(kind: &KindInfo, name: &str) -> Result<()> {
    if let Err(problem) = names::dns_subdomain(name) {
        bail!(
            "{name:?} is not a valid name of a {}: it {problem}",
            kind.singular()
        );
    }
    Ok(())
}

/// Whether a namespace's name may become a part of a key.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_namespace(name: &str) -> Result<()> {
    if let Err(problem) = names::dns_label(name) {
        bail!("{name:?} is not a valid name of a namespace: it {problem}");
    }
    Ok(())
}

async fn expand(client: &Client, word: &str) -> Result<Vec<KindInfo>> {
    if word == "all" {
        return Ok(kinds::ALL.iter().map(|p| kinds::builtin(p)).collect());
    }
    if let Some(kind) = kinds::by_word(word) {
        return Ok(vec![kind]);
    }
    match client.foreign_kind(word).await? {
        Some(kind) => Ok(vec![kind]),
        None => kinds::unknown(word),
    }
}

enum Names {
    None,
    OfTypes(Vec<String>),
    WithType(Vec<(String, String)>),
}

fn split(words: &[String]) -> Result<(Vec<String>, Names)> {
    let Some((first, rest)) = words.split_first() else {
        bail!("a resource type is needed, such as `pods` (`setpoint api-resources` lists them)");
    };
    if first.contains('/') {
        let mut pairs = Vec::new();
        for word in words {
            let Some((type_, name)) = word.split_once('/') else {
                bail!("TYPE/NAME cannot be mixed with TYPE NAME: {word:?} has no '/'");
            };
            if type_.is_empty() || name.is_empty() {
                bail!("{word:?} is not of the form TYPE/NAME");
            }
            pairs.push((type_.to_owned(), name.to_owned()));
        }
        return Ok((Vec::new(), Names::WithType(pairs)));
    }
    let types: Vec<String> = first.split(',').map(str::to_owned).collect();
    if types.iter().any(String::is_empty) {
        bail!("{first:?}: an empty resource type");
    }
    let names = if rest.is_empty() {
        Names::None
    } else {
        Names::OfTypes(rest.to_vec())
    };
    Ok((types, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_forms_of_kubectl_are_told_apart() {
        assert!(matches!(split(&words("pods")).unwrap(), (t, Names::None) if t == ["pods"]));
        assert!(
            matches!(split(&words("po,deploy a b")).unwrap(), (t, Names::OfTypes(n)) if t == ["po", "deploy"] && n == ["a", "b"])
        );
        assert!(
            matches!(split(&words("po/a deploy/b")).unwrap(), (t, Names::WithType(p)) if t.is_empty() && p.len() == 2)
        );
        for bad in ["", "po/a b", "po/", "/a", "po,,x"] {
            assert!(split(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_would_leave_their_place_in_the_keyspace_are_refused() {
        let pods = kinds::builtin("pods");
        for bad in ["..", "a/b", "", "A", "a..b", "../../x"] {
            assert!(check_name(&pods, bad).is_err(), "{bad}");
        }
        assert!(check_name(&pods, "web-1.x").is_ok());
        assert!(check_namespace("a.b").is_err() && check_namespace("kube-system").is_ok());
    }
}
