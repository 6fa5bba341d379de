//! Fields that take a number or a text: ports by number or name, counts or percentages.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number or a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A text: the name of a port, or a percentage.
    String(String),
}

/// A text that is no percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number nor a percentage such as 25%")]
pub struct NotScalable(pub String);

impl IntOrString {
    /// The number, or the percentage of `total`, rounded up or down. Numbers are given back as they are.
    ///
    /// # Errors
    /// [`NotScalable`] for a text that is no percentage.
    pub fn scaled(&self, total: i32, round_up: bool) -> Result<i32, NotScalable> {
        match self {
            Self::Int(n) => Ok(*n),
            Self::String(s) => {
                let percent = self.percent().ok_or_else(|| NotScalable(s.clone()))?;
                let product = i64::from(percent) * i64::from(total);
                let whole =
                    product.div_euclid(100) + i64::from(round_up && product.rem_euclid(100) != 0);
                Ok(i32::try_from(whole).unwrap_or(if whole > 0 { i32::MAX } else { i32::MIN }))
            }
        }
    }

    /// The percentage, when it is one.
    pub fn percent(&self) -> Option<i32> {
        match self {
            Self::Int(_) => None,
            Self::String(s) => {
                let digits = s.strip_suffix('%')?;
                // Rust's parser would also take a leading plus sign.
                digits
                    .bytes()
                    .all(|b| b.is_ascii_digit())
                    .then(|| digits.parse().ok())
                    .flatten()
            }
        }
    }

    /// The number, when it is one.
    pub fn as_int(&self) -> Option<i32> {
        match self {
            Self::Int(n) => Some(*n),
            Self::String(_) => None,
        }
    }

    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Int(_) => None,
            Self::String(s) => Some(s),
        }
    }
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl From<i32> for IntOrString {
    fn from(n: i32) -> Self {
        Self::Int(n)
    }
}

impl From<&str> for IntOrString {
    fn from(s: &str) -> Self {
        Self::String(s.into())
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(n) => n.fmt(f),
            Self::String(s) => s.fmt(f),
        }
    }
}

impl Serialize for IntOrString {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(n) => s.serialize_i32(*n),
            Self::String(v) => s.serialize_str(v),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl de::Visitor<'_> for V {
            type Value = IntOrString;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<IntOrString, E> {
                i32::try_from(v)
                    .map(IntOrString::Int)
                    .map_err(|_| E::custom(format_args!("{v} is out of range")))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<IntOrString, E> {
                i32::try_from(v)
                    .map(IntOrString::Int)
                    .map_err(|_| E::custom(format_args!("{v} is out of range")))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(v.into()))
            }
        }
        d.deserialize_any(V)
    }
}

impl JsonSchema for IntOrString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrString".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "format": "int-or-string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked_and_numbers_stay() {
        let p = IntOrString::from("25%");
        assert_eq!(p.scaled(10, true), Ok(3));
        assert_eq!(p.scaled(10, false), Ok(2));
        assert_eq!(p.scaled(0, true), Ok(0));
        assert_eq!(IntOrString::from("100%").scaled(7, true), Ok(7));
        assert_eq!(IntOrString::from(3).scaled(100, true), Ok(3));
        assert_eq!(
            IntOrString::from("2147483647%").scaled(i32::MAX, true),
            Ok(i32::MAX)
        );
    }

    #[test]
    fn texts_that_are_no_percentage_are_errors() {
        for bad in ["25", "%", "x%", "+5%", "-5%", "2.5%", "http"] {
            assert!(IntOrString::from(bad).scaled(10, true).is_err(), "{bad}");
        }
    }
}
