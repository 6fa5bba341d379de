//! Pods that are bound nowhere and whose documents do not parse: their records say so, and nothing else is done.

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_apis::stored::Stored;
use setpoint_runtime::View;

use super::{Account, Planned, PodState, Tell, Then, Turn};
use crate::writes::Says;

/// The reason of the condition, and of the event.
const INVALID: &str = "Invalid";

/// What there is to say of a document that does not parse.
struct Invalid {
    /// The revision that brought it.
    revision: i64,
    /// The uid of the last version that could be read; empty when none could.
    uid: String,
    says: Says,
}

fn invalid(view: &View<'_>, key: &ObjectKey) -> Option<Invalid> {
    let entry = view.desired::<Pod>().entry(key)?;
    let invalid = entry.invalid()?;
    let uid = entry.last_good().map(|pod| Stored::uid(pod));
    Some(Invalid {
        revision: invalid.mod_revision,
        uid: uid.unwrap_or_default(),
        says: Says {
            reason: INVALID,
            message: format!("the document does not parse: {}", invalid.message),
            ..Says::default()
        },
    })
}

impl Account {
    /// Writes what is wrong with a pod's document, when that is not what stands there. People are told once it is.
    pub(super) fn say_invalid(
        &self,
        turn: &Turn<'_>,
        key: &ObjectKey,
        state: &PodState,
    ) -> Option<Planned> {
        let Invalid {
            revision,
            uid,
            says,
        } = invalid(turn.view, key)?;
        let recorded = state.recorded.as_ref();
        if says.is_said_by(recorded) {
            return None;
        }
        let tell = Tell {
            uid,
            warning: true,
            reason: INVALID,
            message: says.message.clone(),
        };
        let (write, effects) = turn.writer(key).record_invalid(revision, recorded, says);
        Some(Planned {
            write,
            then: Then::Pod {
                key: key.clone(),
                effects,
                binds: false,
                tell: Some(tell),
            },
        })
    }

    /// Whether the record of a pod says what is wrong with its document.
    pub(super) fn is_said_invalid(&self, turn: &Turn<'_>, key: &ObjectKey) -> bool {
        let recorded = self.pods.get(key).and_then(|state| state.recorded.as_ref());
        invalid(turn.view, key).is_none_or(|found| found.says.is_said_by(recorded))
    }
}
