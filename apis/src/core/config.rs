//! ConfigMap and Secret.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base64::Base64;
use crate::kind::{ApiVersion, FieldError, Kind, KindName, NoStatus};
use crate::meta::ObjectMeta;

/// Settings, as text or bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMap {
    /// `v1`.
    pub api_version: ApiVersion<Self>,
    /// `ConfigMap`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// Text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Bytes by key, base64 in the document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binary_data: BTreeMap<String, Base64>,
    /// Whether changes are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

impl Kind for ConfigMap {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "ConfigMap";
    const PLURAL: &'static str = "configmaps";
    const SHORT_NAMES: &'static [&'static str] = &["cm"];
    type Status = NoStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::config_map(self)
    }
}

/// Settings that are not for everyone's eyes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// `v1`.
    pub api_version: ApiVersion<Self>,
    /// `Secret`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// Bytes by key, base64 in the document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Base64>,
    /// Text by key; wins over `data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, String>,
    /// `Opaque` by default.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub type_: Option<String>,
    /// Whether changes are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

impl Kind for Secret {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "Secret";
    const PLURAL: &'static str = "secrets";
    type Status = NoStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::secret(self)
    }
}

impl ConfigMap {
    /// The bytes of a key, text or binary.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.data
            .get(key)
            .map(String::as_bytes)
            .or_else(|| self.binary_data.get(key).map(Base64::as_bytes))
    }

    /// All keys with their bytes, sorted.
    pub fn entries(&self) -> BTreeMap<&str, &[u8]> {
        let binary = self
            .binary_data
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_bytes()));
        binary
            .chain(self.data.iter().map(|(k, v)| (k.as_str(), v.as_bytes())))
            .collect()
    }
}

impl Secret {
    /// The secret as it is shown: `stringData` is only a way to write, and what it says is in `data`.
    #[must_use]
    pub fn with_data_alone(mut self) -> Self {
        for (key, text) in std::mem::take(&mut self.string_data) {
            self.data.insert(key, Base64(text.into_bytes()));
        }
        self
    }

    /// The bytes of a key; `stringData` wins.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.string_data
            .get(key)
            .map(String::as_bytes)
            .or_else(|| self.data.get(key).map(Base64::as_bytes))
    }

    /// All keys with their bytes, sorted; `stringData` wins.
    pub fn entries(&self) -> BTreeMap<&str, &[u8]> {
        let data = self.data.iter().map(|(k, v)| (k.as_str(), v.as_bytes()));
        data.chain(
            self.string_data
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_bytes())),
        )
        .collect()
    }
}
