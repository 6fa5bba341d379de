//! What a kind is. A user's own kind implements [`Kind`] exactly as ours do.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::{self, DecodeError};
use crate::meta::ObjectMeta;

/// A resource type: a struct with `apiVersion`, `kind`, `metadata` and what is wanted of it.
///
/// The desired document (`Self`) and the status live under different keys, because they have different writers.
pub trait Kind:
    Serialize + DeserializeOwned + JsonSchema + Clone + PartialEq + fmt::Debug + Send + Sync + 'static
{
    /// `apps/v1`.
    const API_VERSION: &'static str;
    /// `Deployment`.
    const KIND: &'static str;
    /// `deployments`: the segment of the keys, and a word the CLI takes.
    const PLURAL: &'static str;
    /// Short words the CLI takes besides the plural and the singular (the lower-case kind).
    const SHORT_NAMES: &'static [&'static str] = &[];
    /// Whether objects live in a namespace.
    const NAMESPACED: bool = true;
    /// Whether documents of the kind may be read in parts, the metadata apart from the rest
    /// ([`Reader`](crate::document::Reader)): the struct has `api_version`, `kind`, `metadata` and a `spec`, defaults
    /// leave the metadata alone, what is valid of the one does not depend on the other, and every DNS subdomain is a
    /// valid name. Worth saying of kinds of which there are many that are cheap to clone.
    const PARTS_STAND_ALONE: bool = false;
    /// What its controller reports. Use [`NoStatus`] when there is nothing to report.
    type Status: Serialize
        + DeserializeOwned
        + JsonSchema
        + Clone
        + PartialEq
        + Default
        + fmt::Debug
        + Send
        + Sync
        + 'static;

    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;

    /// Fills in what the document leaves out. Called once on every read; stored documents stay as written.
    fn apply_defaults(&mut self) {}

    /// What is wrong with the document beyond its shape; empty when it is valid. Called after [`Kind::apply_defaults`].
    fn validate(&self) -> Vec<FieldError> {
        Vec::new()
    }

    /// Names another node in the requirement that pins the object to one, when it has one and no other. What makes objects
    /// for each node writes them so, and the [`Reader`](crate::document::Reader) reads what they have in common once.
    fn pin_to(&mut self, node: &str) -> bool {
        let _ = node;
        false
    }

    /// What `new`, a later version of this object, changes and may not: empty when the change is fine. Both have their
    /// defaults. `apply` refuses such a change; a controller that meets one, written by hand, says so in a condition.
    fn immutable_changes(&self, new: &Self) -> Vec<FieldError> {
        let _ = new;
        Vec::new()
    }

    /// Reads a document of the kind, as [`document::decode_value`] does. This one and the next three are provided;
    /// [`compile_reading_here!`](crate::compile_reading_here) says why a kind may want to write them out.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no document of that shape.
    fn from_document(bytes: &[u8]) -> Result<Self, DecodeError> {
        document::decode_value(bytes)
    }

    /// Reads the YAML of a document in the quickest ways, which do not know all of YAML. `None` says nothing about it.
    fn from_yaml(text: &str) -> Option<Self> {
        document::decode_yaml(text)
    }

    /// Reads what a document means.
    ///
    /// # Errors
    /// What of it does not fit the kind.
    fn from_json(value: serde_json::Value) -> serde_json::Result<Self> {
        serde_json::from_value(value)
    }

    /// Reads a document of the kind's status.
    ///
    /// # Errors
    /// As [`Kind::from_document`].
    fn status_from_document(bytes: &[u8]) -> Result<Self::Status, DecodeError> {
        document::decode_value(bytes)
    }
}

/// Writes out in an `impl Kind` the methods that read documents, as they are provided.
///
/// A provided method is compiled in every crate that names the kind, and what reads a pod's template is half a megabyte:
/// of all kinds in all crates, that was two thirds of the program and of the time to build it. Methods that are written
/// out are compiled once, in the crate of the kind. Nothing else differs; small kinds of one's own do not need it.
#[macro_export]
macro_rules! compile_reading_here {
    () => {
        fn from_document(bytes: &[u8]) -> Result<Self, $crate::document::DecodeError> {
            $crate::document::decode_value(bytes)
        }

        fn from_yaml(text: &str) -> Option<Self> {
            $crate::document::decode_yaml(text)
        }

        fn from_json(value: serde_json::Value) -> serde_json::Result<Self> {
            serde_json::from_value(value)
        }

        fn status_from_document(
            bytes: &[u8],
        ) -> Result<Self::Status, $crate::document::DecodeError> {
            $crate::document::decode_value(bytes)
        }
    };
}

/// The status of kinds that have none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NoStatus {}

/// One thing wrong with a field, found by validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, as in `spec.containers[0].image`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl FieldError {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

macro_rules! type_tag {
    ($(#[$doc:meta])* $tag:ident, $const:ident, $field:literal) => {
        $(#[$doc])*
        pub struct $tag<K>(PhantomData<fn() -> K>);

        impl<K> Default for $tag<K> {
            fn default() -> Self {
                Self(PhantomData)
            }
        }
        impl<K> Clone for $tag<K> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<K> Copy for $tag<K> {}
        impl<K> PartialEq for $tag<K> {
            fn eq(&self, _: &Self) -> bool {
                true
            }
        }
        impl<K> Eq for $tag<K> {}
        impl<K: Kind> fmt::Debug for $tag<K> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(K::$const)
            }
        }
        impl<K: Kind> Serialize for $tag<K> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(K::$const)
            }
        }
        impl<'de, K: Kind> Deserialize<'de> for $tag<K> {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct V<K>(PhantomData<fn() -> K>);
                impl<K: Kind> serde::de::Visitor<'_> for V<K> {
                    type Value = ();
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, concat!($field, " {:?}"), K::$const)
                    }
                    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<(), E> {
                        if v == K::$const {
                            Ok(())
                        } else {
                            Err(E::custom(format_args!(concat!($field, " is {:?}, expected {:?}"), v, K::$const)))
                        }
                    }
                }
                d.deserialize_str(V::<K>(PhantomData)).map_err(D::Error::custom)?;
                Ok(Self::default())
            }
        }
        impl<K: Kind> JsonSchema for $tag<K> {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                concat!(stringify!($tag)).into()
            }
            fn schema_id() -> std::borrow::Cow<'static, str> {
                format!(concat!(stringify!($tag), "<{}>"), K::KIND).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "const": K::$const })
            }
        }
    };
}

type_tag!(
    /// The `apiVersion` field of kind `K`: takes no memory, always writes `K::API_VERSION`, and reads nothing else.
    ApiVersion, API_VERSION, "apiVersion"
);
type_tag!(
    /// The `kind` field of kind `K`: takes no memory, always writes `K::KIND`, and reads nothing else.
    KindName, KIND, "kind"
);
