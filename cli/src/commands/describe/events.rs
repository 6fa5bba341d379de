//! The events about an object.

use anyhow::Result;
use setpoint_apis::time::Timestamp;

use super::sheet::Sheet;
use crate::client::Client;
use crate::kinds;
use crate::object::Object;
use crate::printers::{age, columns};

/// Adds the events about an object, the oldest first.
pub(super) async fn describe(
    sheet: &mut Sheet,
    client: &Client,
    object: &Object,
    now: Timestamp,
) -> Result<()> {
    // Events about what lives in no namespace are in `default`, as in Kubernetes.
    let namespace = if object.kind.namespaced {
        &*object.key.namespace
    } else {
        "default"
    };
    let mut events = client
        .list(kinds::builtin("events"), Some(namespace))
        .await?
        .objects;
    events.retain(|e| {
        let about = |field: &str| e.text_at(&["involvedObject", field]);
        let same_life = match (about("uid"), object.uid()) {
            ("", _) | (_, "") => true,
            (a, b) => a == b,
        };
        about("kind") == object.kind.kind && about("name") == &*object.key.name && same_life
    });
    if events.is_empty() {
        sheet.field("Events", "<none>");
        return Ok(());
    }
    events.sort_by_key(columns::event_time);
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|e| {
            let last = age::since(columns::event_time(e), now);
            let count = e
                .number_at(&["count"])
                .max(e.number_at(&["series", "count"]))
                .max(1);
            let first = e
                .time_at(&["firstTimestamp"])
                .or_else(|| e.time_at(&["eventTime"]));
            let when = if count > 1 {
                format!("{last} (x{count} over {})", age::since(first, now))
            } else {
                last
            };
            vec![
                e.text_at(&["type"]).to_owned(),
                e.text_at(&["reason"]).to_owned(),
                when,
                columns::event_source(e),
                e.text_at(&["message"]).replace('\n', " "),
            ]
        })
        .collect();
    sheet.section("Events", |s| {
        s.table(&["Type", "Reason", "Age", "From", "Message"], &rows)
    });
    Ok(())
}
