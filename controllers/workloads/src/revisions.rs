//! The revisions of a StatefulSet or DaemonSet: one ControllerRevision per template that it had.
//!
//! A Deployment's revisions are its ReplicaSets; these kinds manage their pods themselves, so a template that is not
//! asked for any more, and may be gone back to, is kept in an object of its own.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use setpoint_apis::apps::ControllerRevision;
use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::{Kind, ObjectKey, ObjectMeta, OwnerReference, document};
use setpoint_runtime::{View, Write};
use setpoint_store::{Compare, StoreError, TxnOp};

use crate::children::{Child, Children};
use crate::config::CopyPlan;
use crate::door::{Asked, Together};
use crate::hash::template_hash;
use crate::manager::Manager;
use crate::seen::Seen;
use crate::writes;

/// The label of a pod that names the revision that it is of.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// Why a workload has no revision of its template: it could not be made. The newest that there is goes on.
pub const REVISION_REFUSED: &str = "RevisionCreateError";

/// The most bytes of an owner's name that its revisions' names begin with: with a dash and the ten letters of a hash the
/// whole fits a label's value.
const STEM: usize = 63 - 1 - 10;

/// A revision that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// It, as seen.
    pub seen: Seen,
    /// Counts the templates: the one that was asked for last has the greatest number.
    pub number: i64,
    /// The template, when it can be read.
    pub template: Option<PodTemplateSpec>,
    /// Its document does not parse: it is left alone.
    pub frozen: bool,
}

impl Revision {
    fn of(key: &ObjectKey, child: &Child<ControllerRevision>) -> Self {
        let revision = &child.object.value;
        Self {
            seen: Seen::of(key, &child.object),
            number: revision.revision,
            template: template(revision),
            frozen: child.invalid.is_some(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.seen.key.name
    }
}

/// The template that a ControllerRevision holds: its data is `{spec: {template: ...}}`, as in Kubernetes.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.get("spec")?.get("template")?;
    serde_json::from_value(template.clone()).ok()
}

/// The revisions that the object of this uid has, by number. Of equals the oldest comes last: it is the one that counts
/// when they hold the same template, for it is the one that pods have that were taken on.
pub fn of(all: &Children<ControllerRevision>, uid: &str) -> Vec<Revision> {
    let mut found: Vec<_> = all.of(uid).collect();
    found.sort_by_key(|(key, c)| {
        let age = Reverse(c.object.create_revision);
        (c.object.value.revision, age, &key.name)
    });
    found.iter().map(|(key, c)| Revision::of(key, c)).collect()
}

/// What is wrong with revisions of an object, `own` being those that are known to be its: each as part of a sentence. While
/// there is something nobody knows which templates the object had, so nothing is done with it. Of those that never parsed
/// nothing says whose they are but the name.
pub(crate) fn broken(
    all: &Children<ControllerRevision>,
    key: &ObjectKey,
    own: &[Revision],
) -> Vec<String> {
    let own = own.iter().filter_map(|r| {
        let what = match (r.frozen, &r.template) {
            (true, _) => "does not parse",
            (false, None) => "holds no template",
            (false, Some(_)) => return None,
        };
        Some(format!("ControllerRevision {} {what}", r.name()))
    });
    let unknown = all.unreadable().filter(|(revision, _)| {
        revision.namespace == key.namespace && is_named(&key.name, &revision.name)
    });
    let unknown =
        unknown.map(|(revision, error)| format!("ControllerRevision {}: {error}", revision.name));
    own.chain(unknown).collect()
}

/// The objects of a kind that would give a revision this name.
pub(crate) fn named_after<'a, K: Kind>(
    view: &'a View<'_>,
    revision: &'a ObjectKey,
) -> impl Iterator<Item = ObjectKey> + 'a {
    let all = view.desired::<K>().namespace(&revision.namespace);
    let owners = all.filter(|(key, _)| is_named(&key.name, &revision.name));
    owners.map(|(key, _)| key.clone())
}

/// The revision of a template: one that is there, or one to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name: `<owner>-<hash>`, shortened so that it can be the value of a label.
    pub name: String,
    /// Its place among those that are there.
    pub there: Option<usize>,
    /// The number that it is to have: greater than all others.
    pub number: i64,
    /// How many hashes were taken already.
    pub collisions: i32,
}

impl Wanted {
    /// Whether nothing is to be written for it.
    pub fn is_settled(&self, revisions: &[Revision]) -> bool {
        self.there
            .is_some_and(|i| revisions[i].number == self.number)
    }
}

/// What the names of the revisions of an owner begin with, before the dash.
fn stem(owner: &str) -> &str {
    // The name is the value of a label too. Names are ASCII (validated); `get` keeps a foreign one from panicking here.
    let stem = owner.get(..owner.len().min(STEM)).unwrap_or(owner);
    stem.trim_end_matches(['-', '.'])
}

/// Whether a revision has a name that one of this owner has: `<owner>-<hash>`, and not that of one of `<owner>-other`.
pub fn is_named(owner: &str, name: &str) -> bool {
    let hash = name
        .strip_prefix(stem(owner))
        .and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| !hash.is_empty() && !hash.contains('-'))
}

/// Finds the revision of a template by comparing templates, so that a version that hashes otherwise makes no new one.
/// `taken` are names of other objects.
pub fn wanted(
    owner: &str,
    template: &PodTemplateSpec,
    revisions: &[Revision],
    collisions: i32,
    taken: &BTreeSet<String>,
) -> Wanted {
    let is = |r: &Revision| r.template.as_ref() == Some(template);
    let there = revisions.iter().rposition(is);
    let others = revisions.iter().enumerate();
    let others = others.filter(|(i, _)| Some(*i) != there);
    let newest = others.map(|(_, r)| r.number).max().unwrap_or(0);
    if let Some(i) = there {
        let number = revisions[i].number;
        return Wanted {
            name: revisions[i].name().to_owned(),
            there,
            number: if number > newest { number } else { newest + 1 },
            collisions,
        };
    }
    let stem = stem(owner);
    let mut collisions = collisions;
    loop {
        let name = format!("{stem}-{}", template_hash(template, collisions));
        if !revisions.iter().any(|r| r.name() == name) && !taken.contains(&name) {
            return Wanted {
                name,
                there,
                number: newest + 1,
                collisions,
            };
        }
        collisions += 1;
    }
}

/// The ControllerRevision of a template that has none yet, or has another number now.
pub fn made(
    namespace: &str,
    owner: OwnerReference,
    template: &PodTemplateSpec,
    wanted: &Wanted,
) -> ControllerRevision {
    let mut labels = template.metadata.labels.clone();
    labels.insert(REVISION_LABEL.into(), wanted.name.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: wanted.name.clone(),
            namespace: namespace.to_owned(),
            labels,
            owner_references: vec![owner],
            ..ObjectMeta::default()
        },
        data: serde_json::json!({ "spec": { "template": template } }),
        revision: wanted.number,
        ..ControllerRevision::default()
    }
}

/// Revisions that are put under the object, as far as they are as they were seen: what [`writes()`] takes.
pub(crate) fn adopted<'a>(
    view: &'a View<'_>,
    manager: &'a Manager<'_>,
    seen: &'a [Seen],
) -> impl Iterator<Item = (ControllerRevision, Option<i64>)> + 'a {
    seen.iter().filter_map(|seen| {
        let found = view.desired::<ControllerRevision>().get(&seen.key);
        let found = found.filter(|r| r.mod_revision == seen.mod_revision)?;
        let mut revision = found.value.clone();
        let references = &mut revision.metadata.owner_references;
        references.push(manager.reference());
        Some((revision, Some(seen.mod_revision)))
    })
}

/// What the namespace says to a revision and the copies that it reads.
pub(crate) enum Entry<'a> {
    /// They count until this is dropped.
    LetIn(Together<'a>),
    /// Why not: reason and sentence.
    Refused((String, String)),
    /// Others may only seem to have taken the room: it is asked for again.
    Contested,
}

/// Asks the namespace for the parts of a revision, which are of use together alone: the copies of a plan, and the
/// revision itself when it is to be made.
///
/// # Errors
/// When the store does not say what it has.
pub(crate) async fn enter<'a>(
    manager: &Manager<'a>,
    tally: &mut writes::Tally,
    copies: &CopyPlan,
    is_made: bool,
) -> Result<Entry<'a>, StoreError> {
    let revision = (Asked::object::<ControllerRevision>(), usize::from(is_made));
    let [config_maps, secrets] = copies.asked();
    let together = manager
        .enter_together(&[config_maps, secrets, revision])
        .await?;
    let Some(door) = together.refused() else {
        return Ok(Entry::LetIn(together));
    };
    Ok(match manager.turned_away(tally, door) {
        Some((_, why)) => Entry::Refused((REVISION_REFUSED.to_owned(), why)),
        None => Entry::Contested,
    })
}

/// What becomes of the revisions of an object: those that are made or made anew, each with its revision as it was seen
/// when it is there; and those that go. `door` must hold for those that are made.
pub(crate) fn writes(
    manager: &Manager<'_>,
    put: Vec<(ControllerRevision, Option<i64>)>,
    gone: &[Seen],
    door: &[Compare],
) -> Vec<Write> {
    let put = put.into_iter().map(|(revision, seen)| {
        let key = manager.desired::<ControllerRevision>(&revision.metadata.key());
        let as_seen = match seen {
            Some(revision) => vec![Compare::ModRevision(key.clone(), revision)],
            None => [Compare::absent(key.clone()), manager.namespace()]
                .into_iter()
                .chain(door.iter().cloned())
                .collect(),
        };
        Write {
            guards: as_seen.into_iter().chain([manager.guard()]).collect(),
            context: format!(
                "write revision {} as {}",
                revision.metadata.name, revision.revision
            ),
            ops: vec![writes::put(key, document::encode(&revision))],
        }
    });
    let gone = gone.iter().map(|seen| {
        let key = manager.desired::<ControllerRevision>(&seen.key);
        let as_seen = Compare::ModRevision(key.clone(), seen.mod_revision);
        Write {
            guards: vec![as_seen, manager.guard()],
            ops: vec![TxnOp::Delete(key)],
            context: format!("delete revision {}", seen.key),
        }
    });
    put.chain(gone).collect()
}

/// The revisions beyond the history: those that are not in use, the oldest first. `former` is one of the history that may
/// still be gone back to, so it is kept whatever the limit.
pub fn excess(
    revisions: &[Revision],
    in_use: &BTreeSet<&str>,
    former: Option<&str>,
    keep: i32,
) -> Vec<Seen> {
    let idle = revisions
        .iter()
        .filter(|r| !r.frozen && !in_use.contains(r.name()));
    let idle: Vec<&Revision> = idle.collect();
    let keep = usize::try_from(keep).unwrap_or(0);
    let excess = idle.len().saturating_sub(keep);
    let gone = idle.iter().filter(|r| former != Some(r.name()));
    gone.take(excess).map(|r| r.seen.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        let text = format!(
            "metadata: {{labels: {{app: web}}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    fn find(image: &str, revisions: &[Revision]) -> Wanted {
        wanted("web", &template(image), revisions, 0, &BTreeSet::new())
    }

    fn made(image: &str, revisions: &[Revision]) -> Revision {
        let wanted = find(image, revisions);
        let owner = crate::documents::controller_reference::<ControllerRevision>("web", "u");
        let document = super::made("default", owner, &template(image), &wanted);
        Revision {
            seen: Seen {
                key: document.metadata.key(),
                mod_revision: 7,
            },
            number: document.revision,
            template: super::template(&document),
            frozen: false,
        }
    }

    #[test]
    fn a_template_has_one_revision_and_coming_back_to_it_makes_it_the_newest() {
        let a = made("a", &[]);
        assert_eq!((a.number, a.template.as_ref()), (1, Some(&template("a"))));
        let b = made("b", std::slice::from_ref(&a));
        assert_eq!(b.number, 2);
        let all = [a, b];
        assert!(find("b", &all).is_settled(&all));
        let back = find("a", &all);
        assert_eq!(
            (back.there, back.number, &*back.name),
            (Some(0), 3, all[0].name())
        );
        assert!(!back.is_settled(&all));
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let first = find("a", &[]);
        let taken = [first.name.clone()].into();
        let other = wanted("web", &template("a"), &[], 0, &taken);
        assert_eq!(other.collisions, 1);
        assert_ne!(other.name, first.name);
    }

    #[test]
    fn a_name_says_whose_revision_it_is() {
        let owner = format!("{}-{}", "a".repeat(51), "b".repeat(10));
        for owner in ["web", &owner] {
            let name = wanted(owner, &template("a"), &[], 0, &BTreeSet::new()).name;
            assert!(is_named(owner, &name), "{name}");
        }
        for other in [
            "web-api-6b474476c4",
            "webapi-6b474476c4",
            "db-6b474476c4",
            "web-",
            "web",
        ] {
            assert!(!is_named("web", other), "{other}");
        }
    }

    #[test]
    fn the_name_of_a_revision_can_be_the_value_of_a_label() {
        let owner = format!("{}-{}", "a".repeat(51), "b".repeat(10));
        let name = wanted(&owner, &template("a"), &[], 0, &BTreeSet::new()).name;
        assert!(name.len() <= 63 && !name.contains("--"), "{name}");
    }

    #[test]
    fn history_goes_oldest_first_and_never_what_is_in_use() {
        let mut all: Vec<Revision> = Vec::new();
        for image in ["a", "b", "c", "d"] {
            let next = made(image, &all);
            all.push(next);
        }
        let in_use = [all[0].name(), all[3].name()].into();
        let gone = excess(&all, &in_use, None, 1);
        assert_eq!(gone, [all[1].seen.clone()]);
        assert!(excess(&all, &in_use, None, 2).is_empty());
    }
}
