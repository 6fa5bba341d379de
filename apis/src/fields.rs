//! What becomes of every field of the kinds we take: one table, which the strict reader obeys and the documentation is
//! made from. It says what is so today.
//!
//! A field is looked up by the type that holds it (`PodSpec`) and its name, so a pod template and a pod share a row.

mod markdown;
mod table;

pub use markdown::markdown;
pub use table::KINDS;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It does what it does in Kubernetes.
    Supported,
    /// It is kept and has no effect here; using it gives a warning.
    Accepted,
    /// Ignoring it would change what runs; using it is an error, unless the user insists.
    Refused,
    /// etcd or a status keeps it; it is left out of the stored document, with a note.
    Dropped,
}

impl Class {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Dropped => "left out",
        }
    }
}

/// Fields of one type that share a class and a reason.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What becomes of them.
    pub class: Class,
    /// Their names, separated by spaces.
    pub fields: &'static str,
    /// Values, as JSON, that ask for nothing special and are fine whatever the class. Null and empty always are.
    pub unless: &'static [&'static str],
    /// Why they are not supported.
    pub why: &'static str,
}

/// What is said of one field.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What becomes of it.
    pub class: Class,
    /// Values, as JSON, that ask for nothing special.
    pub unless: &'static [&'static str],
    /// Why it is not supported.
    pub why: &'static str,
}

impl Row {
    /// Whether the value asks for something: it is neither empty nor one of those in the row.
    pub fn concerns(&self, value: &serde_json::Value) -> bool {
        use serde_json::Value;
        let empty = match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        !empty
            && !self
                .unless
                .iter()
                .any(|u| serde_json::from_str::<Value>(u).is_ok_and(|u| u == *value))
    }
}

/// All types and their fields.
pub fn types() -> impl Iterator<Item = (&'static str, &'static [Group])> {
    table::GROUPS.iter().flat_map(|types| types.iter().copied())
}

/// What is said of `field` of the type `type_name`. `None` for types and fields that are not in the table: kinds that a
/// user added, and fields that do not exist.
pub fn lookup(type_name: &str, field: &str) -> Option<Row> {
    let groups = types().find(|(name, _)| *name == type_name)?.1;
    let group = groups
        .iter()
        .find(|g| g.fields.split(' ').any(|f| f == field))?;
    Some(Row {
        class: group.class,
        unless: group.unless,
        why: group.why,
    })
}

/// All fields of a type in the table.
pub fn fields_of(type_name: &str) -> impl Iterator<Item = (&'static str, Class)> {
    let groups = types()
        .filter(move |(name, _)| *name == type_name)
        .flat_map(|(_, groups)| groups.iter());
    groups.flat_map(|g| g.fields.split(' ').map(|f| (f, g.class)))
}

/// Annotations that have no effect on a kind, though they have one on others, and why.
pub(crate) fn idle_annotations(
    kind: &str,
) -> impl Iterator<Item = (&'static str, &'static str)> + use<'_> {
    let of_kind = table::IDLE_ANNOTATIONS
        .iter()
        .filter(move |(of, ..)| *of == kind);
    of_kind.map(|(_, annotation, why)| (*annotation, *why))
}

/// For a kind that is stored and shown but acts later: why.
pub fn kind_note(kind: &str) -> Option<&'static str> {
    KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, why)| *why)
}

#[cfg(test)]
mod tests;
