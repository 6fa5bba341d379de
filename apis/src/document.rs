//! Reading and writing stored documents.
//!
//! Readers are tolerant: fields they do not know are ignored, because a newer version may have written them. What no
//! reader can make sense of is an error, never a panic.

mod parts;
mod plain;
mod reader;
mod recent;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kind::{FieldError, Kind};
use crate::meta::ObjectKey;
use crate::records::WorkHeader;

pub use reader::Reader;
pub use write::to_yaml;

/// The most bytes a document may have. Far above what etcd stores by default; keeps hostile input cheap.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why a stored document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no text.
    #[error("the document is not UTF-8")]
    NotText,
    /// There is too much of it.
    #[error("the document has {0} bytes, the most is {MAX_BYTES}")]
    TooBig(usize),
    /// It is not YAML, or not of the expected shape.
    #[error("the document does not parse: {0}")]
    Malformed(String),
    /// It parses, but what it says cannot be.
    #[error("the document is not valid: {}", list(.0))]
    NotValid(Vec<FieldError>),
    /// It names another object than its key does.
    #[error("the document is about {found}, but its key is that of {expected}")]
    WrongName {
        /// What the key names.
        expected: ObjectKey,
        /// What the document names.
        found: ObjectKey,
    },
    /// A work document without its header.
    #[error("the document has no header that ends in a line with ---")]
    NoHeader,
}

fn list(errors: &[FieldError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Reads an object: parses, fills in defaults, validates.
///
/// # Errors
/// [`DecodeError`] when the bytes are no valid object of the kind.
pub fn decode<K: Kind>(bytes: &[u8]) -> Result<K, DecodeError> {
    finish(K::from_document(bytes)?)
}

/// Like [`decode`], and takes from the key what the metadata leaves out (the namespace, or the name too).
///
/// # Errors
/// [`DecodeError`]; [`DecodeError::WrongName`] when the document names another object than its key.
pub fn decode_keyed<K: Kind>(key: &ObjectKey, bytes: &[u8]) -> Result<K, DecodeError> {
    let mut object = K::from_document(bytes)?;
    let meta = object.metadata_mut();
    if meta.name.is_empty() {
        meta.name = (*key.name).into();
    }
    if meta.namespace.is_empty() {
        meta.namespace = (*key.namespace).into();
    }
    if *meta.name != *key.name || *meta.namespace != *key.namespace {
        return Err(DecodeError::WrongName {
            expected: key.clone(),
            found: meta.key(),
        });
    }
    finish(object)
}

fn finish<K: Kind>(mut object: K) -> Result<K, DecodeError> {
    object.apply_defaults();
    let errors = object.validate();
    if errors.is_empty() {
        Ok(object)
    } else {
        Err(DecodeError::NotValid(errors))
    }
}

/// Reads a document that is not an object: a status, a record. No defaults, no validation.
///
/// # Errors
/// [`DecodeError`] when the bytes are no document of that shape.
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MAX_BYTES {
        return Err(DecodeError::TooBig(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    if brackets(text) > SUSPICIOUS_BRACKETS && crate::strict::yaml::parse(text).is_err() {
        return Err(DecodeError::Malformed("nested too deeply".into()));
    }
    if mentions_null(text)
        && let Some(value) = decode_slowly(text)
    {
        return Ok(value);
    }
    match read(text) {
        Ok(value) => Ok(value),
        // The slower reader knows YAML 1.1, merge keys, and that null is the same as nothing.
        Err(e) => decode_slowly(text).ok_or_else(|| DecodeError::Malformed(e.to_string())),
    }
}

/// Reads YAML; by the quick reader when it is the YAML that our own writers write.
fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_yaml::Error> {
    plain::read(text).map_or_else(|| serde_yaml::from_str(text), Ok)
}

/// Reads YAML in the quickest ways: see [`Kind::from_yaml`].
pub fn decode_yaml<T: DeserializeOwned>(text: &str) -> Option<T> {
    read(text).ok()
}

/// Whether a text may hold a null, which the fast reader takes for a text where a text is wanted.
fn mentions_null(text: &str) -> bool {
    ["null", "~", "Null", "NULL"]
        .iter()
        .any(|null| text.contains(null))
}

/// From here on a text is looked at by the reader with a depth limit first: the other one takes time that grows with
/// the square of the depth before it gives up.
const SUSPICIOUS_BRACKETS: usize = 300;

/// How deep brackets nest at most, those in texts and comments included.
fn brackets(text: &str) -> usize {
    let (mut depth, mut most) = (0usize, 0);
    for b in text.bytes() {
        match b {
            b'[' | b'{' => {
                depth += 1;
                most = most.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn decode_slowly<T: DeserializeOwned>(text: &str) -> Option<T> {
    let tree = crate::strict::yaml::parse(text).ok()??;
    let mut json = tree.root.to_json();
    drop_nulls(&mut json);
    serde_json::from_value(json).ok()
}

/// Takes out of mappings what is null.
pub(crate) fn drop_nulls(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Writes a document as YAML.
///
/// Types that cannot be written (maps with keys that are no texts) give a comment that says so; ours all can.
pub fn encode<T: Serialize>(value: &T) -> String {
    to_yaml(value).unwrap_or_else(|e| format!("# cannot be written: {e}\n"))
}

/// Reads a work document: the header, and the object behind it.
///
/// # Errors
/// [`DecodeError`] when either cannot be read.
pub fn decode_work<K: Kind>(bytes: &[u8]) -> Result<(WorkHeader, K), DecodeError> {
    let (header, document) = split_work(bytes)?;
    Ok((decode_value(header)?, decode(document)?))
}

/// The two parts of a work document, unread.
///
/// # Errors
/// [`DecodeError::NoHeader`] when there is no line with `---`.
pub fn split_work(bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    const SEPARATOR: &[u8] = b"\n---\n";
    let at = bytes
        .windows(SEPARATOR.len())
        .position(|w| w == SEPARATOR)
        .ok_or(DecodeError::NoHeader)?;
    Ok((&bytes[..=at], &bytes[at + SEPARATOR.len()..]))
}

/// Writes a work document: the header, a line with `---`, the object as its writer wrote it.
pub fn encode_work(header: &WorkHeader, document: &str) -> String {
    let mut text = encode(header);
    text.push_str("---\n");
    text.push_str(document);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::Deployment;
    use crate::core::{ConfigMap, Pod, RestartPolicy};

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: host}]}\n";

    #[test]
    fn documents_are_defaulted_and_validated() {
        let pod: Pod = decode(POD.as_bytes()).unwrap();
        assert_eq!(pod.spec.restart_policy, Some(RestartPolicy::Always));
        assert!(matches!(
            decode::<Pod>(POD.replace("name: c", "name: C").as_bytes()),
            Err(DecodeError::NotValid(_))
        ));
        assert!(matches!(
            decode::<Pod>(POD.replace("Pod", "Node").as_bytes()),
            Err(DecodeError::Malformed(_))
        ));
    }

    #[test]
    fn unknown_fields_nulls_and_yaml_1_1_do_not_disturb_readers() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: , creationTimestamp: null}\nstatus: {}\n\
                    spec:\n  hostNetwork: yes\n  future: {x: 1}\n  containers: [{name: c, image: host, args: }]\n";
        let pod: Pod = decode(text.as_bytes()).unwrap();
        assert_eq!(pod.spec.host_network, Some(true));
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: null}\ndata: {x: '~'}\n";
        let map: ConfigMap = decode(text.as_bytes()).unwrap();
        assert_eq!(
            (map.metadata.namespace.as_str(), map.data["x"].as_str()),
            ("", "~")
        );
        let text = "x: &base {name: c, image: host}\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
                    spec: {containers: [{<<: *base, tty: on}]}\n";
        assert_eq!(
            decode::<Pod>(text.as_bytes()).unwrap().spec.containers[0].tty,
            Some(true)
        );
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"\u00e4\ud83d\ude00"}}"#;
        assert_eq!(
            decode::<ConfigMap>(text.as_bytes()).unwrap().data["k"],
            "ä😀"
        );
    }

    #[test]
    fn names_come_from_the_key_and_must_not_contradict_it() {
        let key = ObjectKey::namespaced("ns", "a");
        assert_eq!(
            decode_keyed::<Pod>(&key, POD.as_bytes())
                .unwrap()
                .metadata
                .namespace,
            "ns"
        );
        let other = ObjectKey::namespaced("ns", "b");
        assert!(matches!(
            decode_keyed::<Pod>(&other, POD.as_bytes()),
            Err(DecodeError::WrongName { .. })
        ));
    }

    #[test]
    fn work_documents_keep_the_writers_text() {
        let header = WorkHeader {
            placement: Some(2),
            uid: "u".into(),
            source_revision: 7,
        };
        for document in [POD.to_owned(), format!("---\n# mine\n{POD}")] {
            let text = encode_work(&header, &document);
            let (h, pod) = decode_work::<Pod>(text.as_bytes()).unwrap();
            assert_eq!((h, pod.metadata.name.as_str()), (header.clone(), "a"));
            assert_eq!(split_work(text.as_bytes()).unwrap().1, document.as_bytes());
        }
        assert!(matches!(
            decode_work::<Pod>(b"x"),
            Err(DecodeError::NoHeader)
        ));
    }

    #[test]
    fn hostile_bytes_are_errors() {
        let deep = "[".repeat(100_000);
        let deep_map = "{a: ".repeat(100_000);
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                      d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n\
                      f: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        for bytes in [
            &b"\xff\xfe"[..],
            b"",
            b"\0",
            b"{",
            b"a: *a",
            b"&a [*a]",
            deep.as_bytes(),
            deep_map.as_bytes(),
            laughs.as_bytes(),
        ] {
            assert!(decode::<Deployment>(bytes).is_err());
        }
        assert!(matches!(
            decode::<Pod>(&vec![b' '; MAX_BYTES + 1]),
            Err(DecodeError::TooBig(_))
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = decode::<Pod>(&bytes);
            let _ = decode_work::<Pod>(&bytes);
        }

        #[test]
        fn no_yaml_like_text_panics(text in "[-:?\\[\\]{},#&*!|>'\"%@` \n\ta-c0-9~<]{0,80}") {
            let _ = decode::<Pod>(text.as_bytes());
        }
    }
}
