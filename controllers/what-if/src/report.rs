//! What a plan says.

use std::collections::BTreeMap;

use serde::Serialize;
use setpoint_apis::Quantity;
use setpoint_apis::records::{Hope, WaitReason};

use crate::text::Nearest;

/// Where pods would go, and which would wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The revision of the store that it is about; 0 when it is about files alone.
    pub revision: i64,
    /// The pods that find a node, in the order of their age.
    pub placed: Vec<Placed>,
    /// The pods that find none.
    pub waiting: Vec<Waiting>,
    /// The pods that give way to others.
    pub displaced: Vec<Displaced>,
    /// The nodes with what is asked of them then.
    pub nodes: Vec<NodeUse>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// A pod that finds a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// `namespace/name`.
    pub pod: String,
    /// The workload that it belongs to: `deployment/web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether it is of the manifests; else it waited already, or was displaced.
    pub new: bool,
    /// The node.
    pub node: String,
    /// The node's score; 0 when others were displaced.
    pub score: i64,
    /// How many nodes there were.
    pub nodes: u32,
    /// How many of them could run it; 0 when others had to be displaced.
    pub feasible: u32,
    /// The best node that was not chosen, with its score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<(String, i64)>,
    /// The pods that give way to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub displaces: Vec<String>,
    /// How many of these a disruption budget protects.
    #[serde(skip_serializing_if = "is_zero")]
    pub violated_budgets: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A pod that finds no node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// `namespace/name`.
    pub pod: String,
    /// The workload that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether it is of the manifests.
    pub new: bool,
    /// Whether waiting can help.
    pub hope: Hope,
    /// Why, by constraint, most nodes first.
    pub reasons: Vec<WaitReason>,
    /// What would have to change for it to fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<Nearest>,
}

/// A pod that gives way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Displaced {
    /// `namespace/name`.
    pub pod: String,
    /// Where it is.
    pub from: String,
    /// The pod that it gives way to.
    pub by: String,
    /// Where it goes; it waits when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A node and what is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeUse {
    /// The node.
    pub node: String,
    /// How many pods it has.
    pub pods: u32,
    /// How many it had.
    pub pods_before: u32,
    /// By resource.
    pub resources: BTreeMap<String, ResourceUse>,
}

/// How much of a resource of a node is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceUse {
    /// How much there is.
    pub allocatable: Quantity,
    /// How much was requested.
    pub before: Quantity,
    /// How much is requested then.
    pub after: Quantity,
}

impl ResourceUse {
    /// `after` in hundredths of what there is, rounded; 0 when there is nothing.
    pub fn percent(&self) -> u32 {
        let all = self.allocatable.as_f64();
        if all <= 0.0 {
            return 0;
        }
        (self.after.as_f64() / all * 100.0).round() as u32
    }
}
