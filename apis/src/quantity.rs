//! Quantities of resources (`250m`, `1Gi`, `1e3`), with Kubernetes' semantics.
//!
//! A quantity is exact to a billionth. What is finer is rounded away from zero, so that whoever asks for a little gets
//! something; what is beyond ±(2^63 - 1) is capped. Two quantities are equal when their values are, however written.

mod parse;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use parse::BadQuantity;

/// Quantities by resource: `cpu`, `memory`, `pods`, `example.com/gpu`.
pub type ResourceList = BTreeMap<String, Quantity>;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// With `Ki`, `Mi`, `Gi`, ...
    BinarySi,
    /// With `m`, `k`, `M`, ...
    #[default]
    DecimalSi,
    /// With `e3`, `e6`, ...
    DecimalExponent,
}

/// An amount of something.
///
/// Sixteen bytes; sums and comparisons are a few instructions.
#[derive(Clone, Copy, Default)]
pub struct Quantity {
    /// The value rounded down.
    whole: i64,
    /// What is missing to the value, in billionths: 0 to 999,999,999.
    nano: u32,
    format: Format,
}

const NANO: u32 = 1_000_000_000;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self {
        whole: 0,
        nano: 0,
        format: Format::DecimalSi,
    };

    /// So many.
    pub const fn from_whole(whole: i64) -> Self {
        Self {
            whole,
            nano: 0,
            format: Format::DecimalSi,
        }
    }

    /// So many thousandths.
    pub const fn from_milli(milli: i64) -> Self {
        let nano = milli.rem_euclid(1000) as u32 * 1_000_000;
        Self {
            whole: milli.div_euclid(1000),
            nano,
            format: Format::DecimalSi,
        }
    }

    /// So many bytes: written with `Ki`, `Mi`, ...
    pub const fn from_bytes(bytes: i64) -> Self {
        Self {
            whole: bytes,
            nano: 0,
            format: Format::BinarySi,
        }
    }

    /// The value, rounded away from zero to a whole number.
    pub const fn value(&self) -> i64 {
        if self.nano > 0 && self.whole >= 0 {
            self.whole.saturating_add(1)
        } else {
            self.whole
        }
    }

    /// The value in thousandths, rounded away from zero; saturates.
    pub const fn milli_value(&self) -> i64 {
        let (down, rest) = (self.nano / 1_000_000, self.nano % 1_000_000);
        let part = down as i64 + (rest > 0 && self.whole >= 0) as i64;
        self.whole.saturating_mul(1000).saturating_add(part)
    }

    /// The value as a floating-point number.
    pub fn as_f64(&self) -> f64 {
        self.whole as f64 + f64::from(self.nano) / f64::from(NANO)
    }

    /// Whether it is nothing.
    pub const fn is_zero(&self) -> bool {
        self.whole == 0 && self.nano == 0
    }

    /// Whether it is less than nothing.
    pub const fn is_negative(&self) -> bool {
        self.whole < 0
    }

    /// Whether it is a whole number.
    pub const fn is_whole(&self) -> bool {
        self.nano == 0
    }

    /// How it is written.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The same amount, written another way.
    #[must_use]
    pub const fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// How often `divisor` fits, rounded up: what `resourceFieldRef` hands to a container. A zero divisor counts as 1.
    pub fn divided_by(&self, divisor: &Self) -> i64 {
        let divisor = if divisor.is_zero() {
            Self::from_whole(1)
        } else {
            *divisor
        };
        let (a, b) = (self.nanos(), divisor.nanos());
        let quotient = a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0);
        i64::try_from(quotient).unwrap_or(if quotient > 0 { i64::MAX } else { i64::MIN })
    }

    fn nanos(&self) -> i128 {
        i128::from(self.whole) * i128::from(NANO) + i128::from(self.nano)
    }

    fn cap(whole: i64, nano: u32, format: Format) -> Self {
        // Kubernetes caps at both ends symmetrically, which leaves i64::MIN out.
        if whole == i64::MAX {
            Self {
                whole,
                nano: 0,
                format,
            }
        } else if whole == i64::MIN {
            Self {
                whole: -i64::MAX,
                nano: 0,
                format,
            }
        } else {
            Self {
                whole,
                nano,
                format,
            }
        }
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, capped. It is written as `self` is, or as `other` when `self` is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        let (nano, carry) = match self.nano + other.nano {
            n if n >= NANO => (n - NANO, 1),
            n => (n, 0),
        };
        Self::cap(
            self.whole.saturating_add(other.whole).saturating_add(carry),
            nano,
            format,
        )
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, capped. It is written as `self` is, or as `other` when `self` is zero.
    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        let (nano, borrow) = if self.nano >= other.nano {
            (self.nano - other.nano, 0)
        } else {
            (self.nano + NANO - other.nano, 1)
        };
        Self::cap(
            self.whole
                .saturating_sub(other.whole)
                .saturating_sub(borrow),
            nano,
            format,
        )
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        (self.whole, self.nano) == (other.whole, other.nano)
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.whole, self.nano).hash(state);
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.whole, self.nano).cmp(&(other.whole, other.nano))
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Quantity {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        parse::parse(text)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, no precision lost, the largest suffix possible.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi
            && self.is_whole()
            && !(-1023..=1023).contains(&self.whole);
        if binary {
            let (mut number, mut power) = (self.whole, 0);
            while number % 1024 == 0 && power < 6 {
                number /= 1024;
                power += 1;
            }
            return write!(
                f,
                "{number}{}",
                ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]
            );
        }
        let (mut number, mut power) = if self.is_whole() {
            (i128::from(self.whole), 0)
        } else {
            (self.nanos(), -3)
        };
        while number % 1000 == 0 && power < 6 {
            number /= 1000;
            power += 1;
        }
        if self.format == Format::DecimalExponent {
            return if power == 0 {
                write!(f, "{number}")
            } else {
                write!(f, "{number}e{}", power * 3)
            };
        }
        write!(
            f,
            "{number}{}",
            ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][(power + 3) as usize]
        )
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl de::Visitor<'_> for V {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 250m or 1Gi")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Quantity, E> {
                v.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Quantity, E> {
                Ok(Quantity::cap(v, 0, Format::DecimalSi))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Quantity, E> {
                Ok(Quantity::from_whole(i64::try_from(v).unwrap_or(i64::MAX)))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Quantity, E> {
                // The shortest text that means this number is what the writer wrote, but for zeros at its end.
                v.to_string().parse().map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "format": "quantity",
            "description": "An amount: `250m`, `0.5`, `1Gi`, `1e3`.",
            "pattern": "^[+-]?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
        })
    }
}

#[cfg(test)]
mod tests;
