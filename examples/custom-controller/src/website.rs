//! The kind: a struct, its schema, and what [`Kind`] wants to know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_apis::{ApiVersion, Kind, KindName, ObjectMeta};

/// A website, served by processes that are all alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Website {
    /// `example.com/v1`.
    pub api_version: ApiVersion<Self>,
    /// `Website`.
    pub kind: KindName<Self>,
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: WebsiteSpec,
}

/// What is wanted of a website.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebsiteSpec {
    /// How many processes serve it.
    pub replicas: u32,
    /// The program that does, with its arguments.
    pub command: Vec<String>,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebsiteStatus {
    /// The pods there are.
    pub replicas: u32,
    /// Those of them that are ready.
    pub ready: u32,
}

impl Kind for Website {
    const API_VERSION: &'static str = "example.com/v1";
    const KIND: &'static str = "Website";
    const PLURAL: &'static str = "websites";
    type Status = WebsiteStatus;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
