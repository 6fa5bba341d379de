//! Volume claims: each is a directory of the node that the first pod which uses it was placed on, so all others go there.

use std::fmt;
use std::sync::Arc;

use setpoint_apis::core::{PersistentVolumeClaimStatus, PodSpec};

use crate::class::Pin;

/// What there is to know of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// There is none of this name.
    Missing,
    /// Its document never parsed.
    Unreadable,
    /// Its status does not parse: placed somewhere else it would be without its data.
    Nowhere,
    /// This node has the directory of a former claim of this name, and is being told to give it up.
    Former(Arc<str>),
    /// It has a directory on no node yet.
    Free,
    /// This node has its directory.
    On(Arc<str>),
}

impl Claim {
    /// The claim of this uid, where its status is that.
    pub fn of(status: Option<&PersistentVolumeClaimStatus>, uid: &str) -> Self {
        let Some((status, node)) = status.and_then(|s| Some((s, s.node.as_deref()?))) else {
            return Self::Free;
        };
        match status.node_of(uid) {
            Some(node) => Self::On(node.into()),
            // What was written of it now would be lost, and the directory left.
            None if status.uid.is_some() => Self::Former(node.into()),
            None => Self::Free,
        }
    }
}

/// Why a pod has to wait for its claims. What it displays is a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The claim.
    pub claim: Arc<str>,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Missing,
    Unreadable,
    Nowhere,
    Former(Arc<str>),
    /// Another claim is on another node.
    Apart {
        node: Arc<str>,
        other: Pin,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &*self.claim;
        match &self.problem {
            Problem::Missing => write!(f, "persistentvolumeclaim {name:?} not found"),
            Problem::Unreadable => write!(f, "persistentvolumeclaim {name:?} does not parse"),
            Problem::Nowhere => {
                write!(f, "where persistentvolumeclaim {name:?} is cannot be read")
            }
            Problem::Former(node) => write!(
                f,
                "persistentvolumeclaim {name:?} is a new one: node {node} is being told to give up the former one"
            ),
            Problem::Apart { node, other } => write!(
                f,
                "volume claim {} is on node {}, and {name} on node {node}",
                other.claim, other.node
            ),
        }
    }
}

impl std::error::Error for Unusable {}

/// The one node that pods with this spec can run on, when a claim of theirs is placed. `find` is asked for each of their
/// claims, by name.
///
/// # Errors
/// Why they have to wait: a claim that does not exist or cannot be read, or claims on two nodes.
pub fn pin(spec: &PodSpec, mut find: impl FnMut(&str) -> Claim) -> Result<Option<Pin>, Unusable> {
    let mut pin: Option<Pin> = None;
    for name in spec.claim_names() {
        let claim: Arc<str> = name.into();
        let unusable = |problem| {
            Err(Unusable {
                claim: claim.clone(),
                problem,
            })
        };
        let node = match find(name) {
            Claim::Missing => return unusable(Problem::Missing),
            Claim::Unreadable => return unusable(Problem::Unreadable),
            Claim::Nowhere => return unusable(Problem::Nowhere),
            Claim::Former(node) => return unusable(Problem::Former(node)),
            Claim::Free => continue,
            Claim::On(node) => node,
        };
        match pin {
            Some(other) if other.node != node => {
                return unusable(Problem::Apart { node, other });
            }
            _ => pin = Some(Pin { claim, node }),
        }
    }
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use setpoint_apis::document::decode_value;

    use super::*;

    #[test]
    fn a_placed_claim_pins_and_what_cannot_be_used_is_waited_for() {
        let spec: PodSpec = decode_value(
            b"containers: [{name: c, image: host}]\nvolumes:\n- {name: a, persistentVolumeClaim: {claimName: a}}\n- {name: b, \
              persistentVolumeClaim: {claimName: b}}\n- {name: t, emptyDir: {}}\n",
        )
        .unwrap();
        let with = |a: Claim, b: Claim| {
            let found = pin(
                &spec,
                |name| if name == "a" { a.clone() } else { b.clone() },
            );
            match found {
                Ok(pin) => Ok(pin.map(|p| format!("{} {}", p.claim, p.node))),
                Err(why) => Err(why.to_string()),
            }
        };
        let on = |node: &str| Claim::On(node.into());
        assert_eq!(with(Claim::Free, Claim::Free), Ok(None));
        assert_eq!(with(Claim::Free, on("n1")), Ok(Some("b n1".into())));
        assert!(with(on("n1"), on("n1")).is_ok());
        for (a, b, why) in [
            (
                on("n1"),
                on("n2"),
                "volume claim a is on node n1, and b on node n2",
            ),
            (
                on("n1"),
                Claim::Missing,
                "persistentvolumeclaim \"b\" not found",
            ),
            (
                Claim::Unreadable,
                on("n1"),
                "persistentvolumeclaim \"a\" does not parse",
            ),
            (
                Claim::Former("n3".into()),
                on("n1"),
                "persistentvolumeclaim \"a\" is a new one: node n3 is being told to give up the former one",
            ),
            (
                Claim::Nowhere,
                on("n1"),
                "where persistentvolumeclaim \"a\" is cannot be read",
            ),
        ] {
            assert_eq!(with(a, b), Err(why.into()));
        }
    }
}
