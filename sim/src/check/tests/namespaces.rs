//! The checks of namespaces notice what they are there for.

use super::*;

/// A namespace `team` with a settings object in it.
fn team() -> Told {
    let mut told = Told::new();
    told.namespace("team");
    put(&mut told, "user", "settings");
    told
}

fn settings(name: &str) -> Key<'static> {
    Key::Desired("configmaps", ObjectKey::namespaced("team", name))
}

fn put(told: &mut Told, by: &str, name: &str) {
    let value = manifest("configmaps", name, json!({}), None);
    told.write(by, &settings(name), Some(value));
}

fn delete(told: &mut Told) {
    let key = Key::Desired("namespaces", ObjectKey::cluster("team"));
    told.write("user", &key, None);
}

#[test]
fn what_is_created_in_a_namespace_that_has_gone_is_noticed() {
    let mut told = team();
    told.write("user", &settings("settings"), None);
    put(&mut told, "controllers-0#1", "copy");
    told.write("user", &settings("copy"), None);
    delete(&mut told);
    assert_eq!(told.found("namespace"), [""; 0]);
    put(&mut told, "controllers-0#1", "copy");
    assert_eq!(told.found("namespace").len(), 1);
    // It is one creation, and what is written over it is none.
    put(&mut told, "user", "copy");
    assert_eq!(told.found("namespace").len(), 1);
    put(&mut told, "user", "settings");
    assert_eq!(told.found("namespace").len(), 2);
    // A namespace of the same name is another one.
    told.namespace("team");
    put(&mut told, "user", "more");
    assert_eq!(told.found("namespace").len(), 2);
}

#[test]
fn what_stays_when_its_namespace_goes_is_noticed() {
    let mut told = team();
    delete(&mut told);
    let found = told.found("namespace");
    assert!(found[0].contains("configmaps/team/settings"), "{found:?}");
    assert_eq!(found.len(), 1);
}
