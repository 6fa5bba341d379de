//! Any kind: its content as an outline. Secrets show sizes, not values.

use serde_json::Value;

use super::sheet::Sheet;
use crate::object::Object;
use crate::printers::jsonpath::plain;

/// Adds everything but what every object has in common.
pub(super) fn describe(sheet: &mut Sheet, object: &Object) {
    if let Some(created) = object.created {
        sheet.field("Created", created.whole_seconds());
    }
    sheet.pairs("Labels", &object.labels());
    sheet.pairs(
        "Annotations",
        &crate::object::pairs(object.at(&["metadata", "annotations"])),
    );
    let Some(map) = object.value.as_object() else {
        return;
    };
    for (key, value) in map {
        match key.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            "data" if object.kind.plural == "secrets" => sizes(sheet, value),
            _ => outline(sheet, &title(key), value),
        }
    }
}

fn sizes(sheet: &mut Sheet, data: &Value) {
    let Some(map) = data.as_object() else { return };
    sheet.section("Data", |s| {
        for (key, value) in map {
            let text = value.as_str().unwrap_or_default();
            let bytes = setpoint_apis::base64::Base64::parse(text)
                .map_or(text.len(), |b| b.as_bytes().len());
            s.field(key, format!("{bytes} bytes"));
        }
    });
}

fn outline(sheet: &mut Sheet, name: &str, value: &Value) {
    match value {
        Value::Object(map) if map.is_empty() => sheet.field(name, "<none>"),
        Value::Object(map) => sheet.section(name, |s| {
            for (key, value) in map {
                outline(s, key, value);
            }
        }),
        Value::Array(items) if items.iter().all(|i| !i.is_object() && !i.is_array()) => {
            sheet.field(name, items.iter().map(plain).collect::<Vec<_>>().join(", "));
        }
        Value::Array(items) => sheet.section(name, |s| {
            for (i, item) in items.iter().enumerate() {
                let label = item["name"]
                    .as_str()
                    .or_else(|| item["type"].as_str())
                    .map_or_else(|| format!("[{i}]"), str::to_owned);
                outline(s, &label, item);
            }
        }),
        Value::Null => {}
        scalar => sheet.field(name, plain(scalar)),
    }
}

/// `involvedObject` as `Involved Object`.
fn title(key: &str) -> String {
    let mut out = String::new();
    for (i, c) in key.chars().enumerate() {
        if i == 0 {
            out.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() {
                out.push(' ');
            }
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::printers::tests::object;

    #[test]
    fn values_of_secrets_are_not_shown() {
        let mut sheet = Sheet::default();
        describe(
            &mut sheet,
            &object(
                "secrets",
                json!({"data": {"password": "aHVudGVyMg=="}, "type": "Opaque"}),
            ),
        );
        let text = sheet.to_string();
        assert!(
            text.contains("password:") && text.contains("7 bytes") && !text.contains("aHVudGVyMg"),
            "{text}"
        );
    }
}
