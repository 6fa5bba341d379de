//! Whether a controller has seen what is in the ConfigMaps and Secrets of a workload by now: a change of them is a rollout
//! too, and does not change the workload's generation.

use std::collections::BTreeMap;

use anyhow::Result;
use setpoint_apis::apps::CONFIG_ROLLOUT;
use setpoint_apis::content_seen::{self, Content};
use setpoint_apis::core::PodSpec;
use setpoint_apis::{Key, ObjectKey};

use super::progress::{self, Progressing};
use crate::client::Client;
use crate::object::Object;

/// How far a workload is; an error when it will not get further.
pub(super) async fn progress(client: &Client, o: &Object) -> Result<Progressing> {
    let progress = progress::progress(o)?;
    let done = matches!(progress, Progressing::Done(_));
    if done && !is_observed(client, o).await? {
        return Ok(Progressing::Waiting(format!(
            "Waiting for changed ConfigMaps and Secrets of {} {:?} to be observed...",
            o.kind.singular(),
            &*o.key.name
        )));
    }
    Ok(progress)
}

async fn is_observed(client: &Client, o: &Object) -> Result<bool> {
    let annotations = crate::object::pairs(o.at(&["metadata", "annotations"]));
    let pinned = annotations.get(CONFIG_ROLLOUT).is_none_or(|v| v != "false");
    // One of an older version says nothing of it.
    let Some(observed) = o.at(&["status", "observedConfig"]).filter(|_| pinned) else {
        return Ok(true);
    };
    let spec = o.at(&["spec", "template", "spec"]).cloned();
    let Ok(spec) = serde_json::from_value::<PodSpec>(spec.unwrap_or_default()) else {
        return Ok(true);
    };
    let mut revisions = BTreeMap::new();
    for content in content_seen::contents(&spec) {
        let plural = match content.secret {
            true => "secrets",
            false => "configmaps",
        };
        let key = ObjectKey::namespaced(o.key.namespace.clone(), content.name);
        let (found, _) = client.get(&Key::Desired(plural, key)).await?;
        revisions.insert(content, found.map(|kv| kv.mod_revision));
    }
    let revision = |content: &Content<'_>| revisions.get(content).copied().flatten();
    let now = content_seen::fingerprint(&spec, revision);
    Ok(now.as_deref() == observed.as_str())
}
