use super::*;
use crate::registry::Registry;
use std::collections::BTreeSet;

/// Every field of every type that the schemas of our kinds hold.
fn schema_fields() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for kind in Registry::builtin().kinds() {
        let schema = crate::schema::raw(kind);
        for name in markdown::types_in_order(&schema, kind.kind) {
            let definition = if name == kind.kind {
                &schema
            } else {
                &schema["$defs"][&name]
            };
            let fields = definition["properties"].as_object().unwrap().keys();
            found.extend(fields.map(|f| (name.clone(), f.clone())));
        }
    }
    found
}

#[test]
fn every_field_is_classed_once() {
    let mut seen = BTreeSet::new();
    for (type_name, groups) in types() {
        for group in groups {
            for field in group.fields.split(' ') {
                assert!(
                    seen.insert((type_name, field)),
                    "{type_name}.{field} is in the table twice"
                );
            }
            for unless in group.unless {
                assert!(
                    serde_json::from_str::<serde_json::Value>(unless).is_ok(),
                    "{type_name}: {unless} is no JSON"
                );
            }
        }
    }
    let missing: Vec<_> = schema_fields()
        .into_iter()
        .filter(|(t, f)| lookup(t, f).is_none())
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[test]
fn what_the_table_does_not_refuse_exists() {
    let fields = schema_fields();
    for (type_name, groups) in types() {
        for (field, class) in groups
            .iter()
            .flat_map(|g| g.fields.split(' ').map(|f| (f, g.class)))
        {
            let exists = fields.contains(&(type_name.to_owned(), field.to_owned()));
            // Two kinds of metadata and of node settings are accepted without anybody keeping them.
            let unkept = matches!(field, "finalizers" | "externalID");
            assert!(
                exists || unkept || matches!(class, Class::Refused | Class::Dropped),
                "{type_name}.{field}"
            );
        }
    }
}

#[test]
fn kinds_that_act_later_exist() {
    assert!(
        KINDS
            .iter()
            .all(|(kind, _)| Registry::builtin().by_kind(kind).is_some())
    );
}

#[test]
fn the_field_reference_is_up_to_date() {
    // As cargo says it now, not when this was built: checkouts may share their build artefacts.
    let own = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let path = format!("{own}/../docs/reference/fields.md");
    let wanted = markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/reference/fields.md is not up to date: UPDATE=1 cargo test -p setpoint-apis fields"
    );
}
