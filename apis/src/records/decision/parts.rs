//! The parts that a node's score is made of.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One part of a node's score. The words are those of a scheduler profile's `weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScorePart {
    /// How well the pod fits what is free.
    Resources,
    /// Preferred node affinity.
    NodeAffinity,
    /// Preferred pod affinity and anti-affinity.
    PodAffinity,
    /// How evenly pods are spread.
    TopologySpread,
    /// Taints that would rather have other pods.
    TaintToleration,
    /// Images that are there already.
    ImageLocality,
}

impl ScorePart {
    /// All parts, in the order in which they are written.
    pub const ALL: [Self; 6] = [
        Self::Resources,
        Self::NodeAffinity,
        Self::PodAffinity,
        Self::TopologySpread,
        Self::TaintToleration,
        Self::ImageLocality,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::NodeAffinity => "nodeAffinity",
            Self::PodAffinity => "podAffinity",
            Self::TopologySpread => "topologySpread",
            Self::TaintToleration => "taintToleration",
            Self::ImageLocality => "imageLocality",
        }
    }
}

impl fmt::Display for ScorePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The weighted parts of a score. In a document they are one line, without those that are 0: `resources=80
/// topologySpread=12`. Parts that a newer version may add are read over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScoreParts([i32; ScorePart::ALL.len()]);

impl ScoreParts {
    /// What a part is worth.
    pub const fn get(&self, part: ScorePart) -> i32 {
        self.0[part as usize]
    }

    /// Sets what a part is worth.
    pub const fn set(&mut self, part: ScorePart, worth: i32) {
        self.0[part as usize] = worth;
    }

    /// Whether all parts are 0.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|worth| *worth == 0)
    }

    /// All parts together.
    pub fn total(&self) -> i64 {
        self.0.iter().map(|worth| i64::from(*worth)).sum()
    }

    /// The parts that are not 0.
    pub fn iter(&self) -> impl Iterator<Item = (ScorePart, i32)> {
        ScorePart::ALL
            .into_iter()
            .map(|part| (part, self.get(part)))
            .filter(|(_, worth)| *worth != 0)
    }
}

impl FromIterator<(ScorePart, i32)> for ScoreParts {
    fn from_iter<I: IntoIterator<Item = (ScorePart, i32)>>(iter: I) -> Self {
        let mut parts = Self::default();
        for (part, worth) in iter {
            parts.set(part, worth);
        }
        parts
    }
}

impl fmt::Display for ScoreParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (part, worth)) in self.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{part}={worth}")?;
        }
        Ok(())
    }
}

impl Serialize for ScoreParts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScoreParts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        let mut parts = Self::default();
        for word in text.split_whitespace() {
            let bad = || de::Error::custom(format_args!("{word:?} is not a part of a score"));
            let (name, worth) = word.split_once('=').ok_or_else(bad)?;
            let worth = worth.parse().map_err(|_| bad())?;
            if let Some(part) = ScorePart::ALL.into_iter().find(|p| p.as_str() == name) {
                parts.set(part, worth);
            }
        }
        Ok(parts)
    }
}

impl JsonSchema for ScoreParts {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ScoreParts".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
