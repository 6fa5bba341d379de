//! ControllerRevision: what a StatefulSet or DaemonSet was at a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{ApiVersion, FieldError, Kind, KindName, NoStatus};
use crate::meta::ObjectMeta;

/// A template that a workload had, to go back to. Its owner is the workload. Its data never change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControllerRevision {
    /// `apps/v1`.
    pub api_version: ApiVersion<Self>,
    /// `ControllerRevision`.
    pub kind: KindName<Self>,
    /// Name, labels and owner.
    pub metadata: ObjectMeta,
    /// Which one it is: the newest has the highest number.
    pub revision: i64,
    /// What the workload was, as its controller keeps it.
    #[serde(default)]
    pub data: serde_json::Value,
}

impl Kind for ControllerRevision {
    const API_VERSION: &'static str = "apps/v1";
    const KIND: &'static str = "ControllerRevision";
    const PLURAL: &'static str = "controllerrevisions";
    type Status = NoStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::controller_revision(self)
    }

    fn immutable_changes(&self, new: &Self) -> Vec<FieldError> {
        crate::validation::immutable::controller_revision(self, new)
    }
}
