//! Which fields commands have set one by one, noted on the object, so that `apply` keeps what its manifest says nothing of.
//!
//! A manifest is stored as the whole document, and what it does not say is gone with that. Only the fields that the
//! annotation [`SET_BY_COMMAND`] names stay as they are: until a manifest says something of them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;
use setpoint_apis::meta::SET_BY_COMMAND;
use setpoint_apis::strict::Document;
use setpoint_store::KeyValue;

use crate::kinds::KindInfo;
use crate::yaml_edit::{self, Change, Edited};

/// The keys that lead to a field, from the outermost.
type Path = Vec<String>;

/// Where the annotation is.
const PLACE: [&str; 3] = ["metadata", "annotations", SET_BY_COMMAND];

/// Makes changes that a command was asked for, and notes the fields that have got another value by them: not those that
/// are mappings or lists, such as a whole template. Fields that are gone are not named any more.
///
/// # Errors
/// As [`yaml_edit::edit`].
pub(crate) fn edit(text: &str, changes: &[Change]) -> Result<Edited> {
    let edited = yaml_edit::edit(text, changes)?;
    if edited.text == text {
        return Ok(edited);
    }
    let (before, after) = (parse(text)?, parse(&edited.text)?);
    let mut paths = named_by(&after);
    for change in changes {
        match change {
            Change::Set(path, value)
                if !value.is_object()
                    && !value.is_array()
                    && *path != PLACE
                    && at(&before, path) != at(&after, path) =>
            {
                paths.insert(path.clone());
            }
            Change::Remove(path) => {
                paths.remove(path);
            }
            Change::Set(..) | Change::Append(..) => {}
        }
    }
    paths.retain(|path| at(&after, path).is_some());
    let marked = yaml_edit::edit(&edited.text, &[mark(&paths)])?;
    Ok(Edited {
        text: marked.text,
        rewritten: edited.rewritten || marked.rewritten,
    })
}

/// Whether a word is anywhere in a text: when not, it need not be read to know that it does not say it.
pub(super) fn mentions(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|part| part == word.as_bytes())
}

/// A manifest with what it leaves to commands, as it is in the document that it replaces; `None` when that changes
/// nothing of it. The flag says whether it had to be written anew, so that its comments are lost.
///
/// What a manifest says of a field holds, and the field is not named any more; unless the manifest itself has the
/// annotation, as one that `get -o yaml` has printed: then what it names stays named.
///
/// # Errors
/// When the manifest cannot be changed.
pub(super) fn kept(
    document: &Document,
    stored: Option<&KeyValue>,
) -> Result<Option<(Document, bool)>> {
    // Most objects name nothing, and then nothing has to be read. JSON may have a backslash before the slash of the name.
    let word = SET_BY_COMMAND.rsplit('/').next().unwrap_or(SET_BY_COMMAND);
    let may_name = |text: &[u8]| mentions(text, word);
    let stored = stored.filter(|kv| may_name(&kv.value) || may_name(document.text.as_bytes()));
    let Some(stored) = stored else {
        return Ok(None);
    };
    // Of one that cannot be read nothing can be kept.
    let live: Value = serde_yaml::from_slice(&stored.value).unwrap_or_default();
    // The text: a field that says `null` is not in the value any more.
    let said = &parse(&document.text)?;
    let mut paths = named_by(said);
    paths.retain(|path| at(said, path).is_some());
    let mut changes = Vec::new();
    for path in named_by(&live) {
        let Some(value) = at(&live, &path) else {
            continue;
        };
        if is_left_open(said, &path) {
            changes.push(Change::Set(path.clone(), value.clone()));
            paths.insert(path);
        }
    }
    if paths == named_by(said) {
        return Ok(None);
    }
    changes.push(mark(&paths));
    let name = KindInfo::from(&document.kind).full_name(&document.key.name);
    let edited = yaml_edit::edit(&document.text, &changes)
        .with_context(|| format!("keeping what commands have set in {name}"))?;
    let mut document = document.clone();
    document.value = parse(&edited.text)?;
    document.text = edited.text;
    Ok(Some((document, edited.rewritten)))
}

fn parse(text: &str) -> Result<Value> {
    serde_yaml::from_str(text).context("the document is not valid YAML")
}

/// The change that makes the annotation name these fields.
fn mark(paths: &BTreeSet<Path>) -> Change {
    if paths.is_empty() {
        return Change::remove(&PLACE);
    }
    let all: Vec<String> = paths.iter().map(|path| pointer(path)).collect();
    Change::set(&PLACE, all.join(" "))
}

/// The fields that a document's annotation names.
fn named_by(document: &Value) -> BTreeSet<Path> {
    let text = document.pointer(&pointer(&PLACE.map(str::to_owned)));
    let text = text.and_then(Value::as_str).unwrap_or_default();
    let mut paths: BTreeSet<Path> = text.split_whitespace().filter_map(path).collect();
    paths.retain(|path| *path != PLACE);
    paths
}

/// The value of a field. Nothing is as good as none.
fn at<'a>(document: &'a Value, path: &[String]) -> Option<&'a Value> {
    let found = path
        .iter()
        .try_fold(document, |value, key| value.as_object()?.get(key));
    found.filter(|value| !value.is_null())
}

/// Whether a manifest says nothing of a field, so that there is room for it. One that says `null` says that there is to be
/// none.
fn is_left_open(manifest: &Value, path: &[String]) -> bool {
    let Some((last, way)) = path.split_last() else {
        return false;
    };
    let mut here = manifest;
    for key in way {
        match here.as_object().map(|map| map.get(key)) {
            Some(Some(Value::Null) | None) => return true,
            Some(Some(next)) => here = next,
            None => return false,
        }
    }
    here.as_object().is_some_and(|map| !map.contains_key(last))
}

/// A JSON Pointer to a field.
fn pointer(path: &[String]) -> String {
    let part = |key: &String| format!("/{}", key.replace('~', "~0").replace('/', "~1"));
    path.iter().map(part).collect()
}

/// The field that a JSON Pointer points to; `None` for what is none.
fn path(pointer: &str) -> Option<Path> {
    let parts = pointer.strip_prefix('/')?.split('/');
    Some(
        parts
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use setpoint_apis::strict::{Options, read_manifest};

    use super::*;

    const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # its name
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - {name: c, image: host}
";

    fn document(text: &str) -> Document {
        let options = Options {
            default_namespace: Some("default"),
            ..Options::default()
        };
        let mut manifest = read_manifest("-", text, &options);
        assert!(manifest.errors.is_empty(), "{:?}", manifest.errors);
        manifest.documents.remove(0)
    }

    fn stored(text: &str) -> KeyValue {
        KeyValue {
            key: "k".into(),
            value: text.to_owned().into(),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            lease: Default::default(),
        }
    }

    /// What becomes of a manifest over what is stored.
    fn applied(manifest: &str, live: &str) -> String {
        let kept = kept(&document(manifest), Some(&stored(live))).unwrap();
        kept.map_or_else(|| manifest.to_owned(), |(document, _)| document.text)
    }

    fn named(text: &str) -> Vec<String> {
        let paths = named_by(&parse(text).unwrap());
        paths.iter().map(|path| pointer(path)).collect()
    }

    fn after(text: &str, changes: &[Change]) -> String {
        edit(text, changes).unwrap().text
    }

    fn restart() -> Change {
        let way = ["spec", "template", "metadata", "annotations"];
        Change::set(
            &[&way[..], &["kubectl.kubernetes.io/restartedAt"]].concat(),
            "now",
        )
    }

    #[test]
    fn pointers_hold_keys_with_dots_slashes_and_tildes() {
        for keys in [&["a", "b"][..], &["example.com/x~y", "~1", ""]] {
            let keys: Path = keys.iter().map(|k| (*k).to_owned()).collect();
            assert_eq!(path(&pointer(&keys)), Some(keys));
        }
        assert_eq!(path("spec"), None);
    }

    #[test]
    fn what_was_set_one_by_one_outlives_a_manifest_that_says_nothing_of_it() {
        let live = after(
            WEB,
            &[
                Change::set(&["spec", "replicas"], 6),
                Change::set(&["metadata", "labels", "example.com/team"], "a"),
                restart(),
            ],
        );
        assert_eq!(
            named(&live),
            [
                "/metadata/labels/example.com~1team",
                "/spec/replicas",
                "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt"
            ]
        );
        let again = applied(WEB, &live);
        assert_eq!(parse(&again).unwrap(), parse(&live).unwrap());
        assert!(again.contains("# its name"), "{again}");
        // And what is not named goes with the manifest that does not say it.
        let said = WEB.replace(
            "spec:\n  selector",
            "spec:\n  minReadySeconds: 5\n  selector",
        );
        let live = after(&said, &[Change::set(&["spec", "replicas"], 6)]);
        let again = parse(&applied(WEB, &live)).unwrap();
        assert_eq!(again["spec"]["minReadySeconds"], Value::Null);
        assert_eq!(again["spec"]["replicas"], 6);
    }

    #[test]
    fn what_a_manifest_says_holds_and_is_named_no_more() {
        let live = after(WEB, &[Change::set(&["spec", "replicas"], 6), restart()]);
        let said = WEB.replace("spec:\n  selector", "spec:\n  replicas: 2\n  selector");
        let live = applied(&said, &live);
        assert_eq!(parse(&live).unwrap()["spec"]["replicas"], 2);
        assert_eq!(named(&live).len(), 1, "{live}");
        // Nor is it kept afterwards.
        let live = applied(WEB, &live);
        assert_eq!(
            at(&parse(&live).unwrap(), &["spec".into(), "replicas".into()]),
            None
        );
        // That there is to be none is said too.
        let none = WEB.replace("spec:\n  selector", "spec:\n  replicas: null\n  selector");
        let scaled = after(WEB, &[Change::set(&["spec", "replicas"], 6)]);
        assert_eq!(named(&applied(&none, &scaled)), [""; 0]);
    }

    #[test]
    fn the_annotation_goes_when_it_names_nothing() {
        let label = ["metadata", "labels", "team"];
        let set = after(WEB, &[Change::set(&label, "a")]);
        assert_eq!(after(&set, &[Change::remove(&label)]), WEB);
        let paused = after(WEB, &[Change::set(&["spec", "paused"], true)]);
        assert_eq!(after(&paused, &[Change::remove(&["spec", "paused"])]), WEB);
        // A template that is replaced as a whole is not named, and what is gone with it neither.
        let restarted = after(WEB, &[restart()]);
        let template = parse(WEB).unwrap()["spec"]["template"].clone();
        let undone = after(&restarted, &[Change::set(&["spec", "template"], template)]);
        assert_eq!(parse(&undone).unwrap(), parse(WEB).unwrap());
    }

    #[test]
    fn nothing_that_changes_nothing_is_noted() {
        let said = WEB.replace("spec:\n  selector", "spec:\n  replicas: 2\n  selector");
        assert_eq!(after(&said, &[Change::set(&["spec", "replicas"], 2)]), said);
    }

    #[test]
    fn a_manifest_that_get_has_printed_stays_as_it_is() {
        let live = after(WEB, &[Change::set(&["spec", "replicas"], 6)]);
        assert_eq!(applied(&live, &live), live);
        // What it says counts, also where it was edited.
        let edited = live.replace("replicas: 6", "replicas: 4");
        assert_eq!(applied(&edited, &live), edited);
    }

    #[test]
    fn an_annotation_of_nonsense_keeps_nothing_and_breaks_nothing() {
        let odd = "nope /spec/selector/matchLabels/app/deep /spec/template/spec/containers/0/image /a~ //";
        let live = after(WEB, &[Change::set(&PLACE, odd)]);
        assert_eq!(applied(WEB, &live), WEB);
        // Where the manifest has something else in the way there is no room.
        let listed = json!({"a": [1]});
        assert!(!is_left_open(&listed, &["a".into(), "b".into()]));
        assert!(!is_left_open(&json!({}), &[]));
    }
}
