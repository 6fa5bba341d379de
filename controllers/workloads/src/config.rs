//! What a revision of a workload reads: ConfigMaps and Secrets, pinned to what was in them when the revision was made.
//!
//! A revision's pods read copies of the objects that the template names, each named after its content. So a change of a
//! ConfigMap makes another template, which is rolled out and rolled back like any other, and a pod of an old revision
//! reads what it always read. The annotation [`CONFIG_ROLLOUT`]` = "false"` on the workload keeps the template as it is:
//! then running pods see changes as they come, as in Kubernetes.
//!
//! A copy belongs to one workload (its controller), which removes it together with the last revision that reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use setpoint_apis::apps::{CONFIG_ROLLOUT, WorkloadCondition};
use setpoint_apis::core::{ConfigMap, PodTemplateSpec, Secret};
use setpoint_apis::fnv::Fnv64;
use setpoint_apis::{Key, Kind, ObjectKey, ObjectMeta, OwnerReference, Timestamp, document};
use setpoint_runtime::{Leader, Stored, View, Write};
use setpoint_store::{Compare, TxnOp};

use crate::conditions::{self, Finding};
use crate::content::CopySeen;
use crate::door::Asked;
use crate::hash::safe_encode;
use crate::writes;

/// The condition of a workload whose template reads what does not exist.
const CONFIG_MISSING: &str = "ConfigMissing";
/// The annotation of a copy: the name of what it is a copy of.
pub const COPY_OF: &str = "setpoint.dev/copy-of";

/// The most bytes of a copied object's name that its copy's name begins with, so that the whole fits a DNS subdomain.
const STEM: usize = 253 - 1 - HASH;
/// The most letters of a hash of 64 bits.
const HASH: usize = 20;

/// Whether the revisions of a workload with these annotations are pinned.
pub fn pins(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(CONFIG_ROLLOUT).is_none_or(|v| v != "false")
}

/// What a template reads, as it is now.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By name; `None`: there is no such object that can be used.
    pub config_maps: BTreeMap<String, Source<ConfigMap>>,
    /// By name.
    pub secrets: BTreeMap<String, Source<Secret>>,
}

/// One object that a template reads.
#[derive(Debug)]
pub struct Source<K> {
    /// It, when it is there. While its document does not parse, as it last was.
    pub object: Option<Arc<Stored<K>>>,
    /// Whether the pod can do without.
    pub optional: bool,
}

impl<K> Clone for Source<K> {
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            optional: self.optional,
        }
    }
}

impl Sources {
    /// Looks up what `template` reads.
    pub fn look_up(view: &View<'_>, namespace: &str, template: &PodTemplateSpec) -> Self {
        Self {
            config_maps: look_up(view, namespace, template.spec.config_maps()),
            secrets: look_up(view, namespace, template.spec.secrets()),
        }
    }
}

fn look_up<K: Kind>(
    view: &View<'_>,
    namespace: &str,
    names: BTreeMap<&str, bool>,
) -> BTreeMap<String, Source<K>> {
    let table = view.desired::<K>();
    let find = |(name, optional): (&str, bool)| {
        let entry = table.entry(&ObjectKey::namespaced(namespace, name));
        let object = entry.and_then(|e| e.last_good()).cloned();
        (name.to_owned(), Source { object, optional })
    };
    names.into_iter().map(find).collect()
}

/// Objects that a template cannot do without and that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing(pub Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.0.len() == 1 { "does" } else { "do" };
        write!(f, "{} {verb} not exist", self.0.join(", "))
    }
}

/// Sets or removes the condition `ConfigMissing`: there is no new revision while the template reads what does not exist.
pub fn set_missing(
    conditions: &mut Vec<WorkloadCondition>,
    missing: Option<&Missing>,
    now: Timestamp,
) {
    let finding = missing.map(|missing| {
        let message = format!("There is no new revision while {missing}.");
        Finding::new(CONFIG_MISSING, true, "ConfigMissing", message)
    });
    conditions::set_or_remove(conditions, CONFIG_MISSING, finding, now);
}

/// A copy that a pinned template reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContentCopy {
    /// Whether it is a copy of a Secret; otherwise of a ConfigMap.
    pub secret: bool,
    /// What it is a copy of.
    pub of: String,
    /// Its name.
    pub name: String,
}

/// What to do about the copies of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyPlan {
    /// Copies to make, before the revision that reads them.
    pub create: Vec<ContentCopy>,
    /// Copies that no revision reads any more.
    pub delete: Vec<CopySeen>,
}

impl CopyPlan {
    /// Makes what is wanted and not there, and removes what neither that nor one of the templates reads, but for what does
    /// not parse: it stays until it is mended or its workload goes.
    pub fn new<'a>(
        wanted: &[ContentCopy],
        present: &[CopySeen],
        templates: impl Iterator<Item = &'a PodTemplateSpec>,
    ) -> Self {
        let is = |there: &CopySeen, secret: bool, name: &str| {
            there.secret == secret && *there.seen.key.name == *name
        };
        let absent = |c: &&ContentCopy| !present.iter().any(|p| is(p, c.secret, &c.name));
        let mut unread: Vec<&CopySeen> = present
            .iter()
            .filter(|p| p.own && !p.frozen && !wanted.iter().any(|c| is(p, c.secret, &c.name)))
            .collect();
        for template in templates.filter(|_| !present.is_empty()) {
            if unread.is_empty() {
                break;
            }
            let (config_maps, secrets) = (template.spec.config_maps(), template.spec.secrets());
            unread.retain(|p| {
                let read = if p.secret { &secrets } else { &config_maps };
                !read.contains_key(&*p.seen.key.name)
            });
        }
        Self {
            create: wanted.iter().filter(absent).cloned().collect(),
            delete: unread.into_iter().cloned().collect(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    /// What a namespace is asked for.
    pub(crate) fn asked(&self) -> [(Asked<'static>, usize); 2] {
        let secrets = self.create.iter().filter(|c| c.secret).count();
        let config_maps = self.create.len() - secrets;
        [
            (Asked::object::<ConfigMap>(), config_maps),
            (Asked::object::<Secret>(), secrets),
        ]
    }
}

impl fmt::Display for CopyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |secret| if secret { "secret" } else { "configmap" };
        for c in &self.create {
            writeln!(f, "copy {} {} as {}", word(c.secret), c.of, c.name)?;
        }
        for c in &self.delete {
            let (name, at) = (&c.seen.key.name, c.seen.mod_revision);
            writeln!(f, "delete copy {} {name} at {at}", word(c.secret))?;
        }
        Ok(())
    }
}

/// A template that reads copies.
#[derive(Clone, Debug, PartialEq)]
pub struct Pinned {
    /// The template.
    pub template: PodTemplateSpec,
    /// The copies that it reads, sorted.
    pub copies: Vec<ContentCopy>,
}

/// The names of copies that are known already: to find one all that is in the object is hashed, up to a MiB, and passes are
/// many while nothing of it changes.
#[derive(Clone, Debug, Default)]
pub struct CopyNames {
    /// The uid of the workload.
    owner: String,
    /// By kind (whether it is a Secret) and name of what is copied: its revision, and the name of the copy.
    known: BTreeMap<(bool, String), (i64, String)>,
}

impl CopyNames {
    /// The name of the copy of an object at a revision; `find` finds one that is not known.
    fn of(
        &mut self,
        (secret, name): (bool, &str),
        revision: i64,
        find: impl FnOnce() -> String,
    ) -> String {
        let object = (secret, name.to_owned());
        if let Some((at, known)) = self.known.get(&object)
            && *at == revision
        {
            return known.clone();
        }
        let found = find();
        self.known.insert(object, (revision, found.clone()));
        found
    }

    /// Of another workload nothing is known, and what a template does not read any more is forgotten.
    fn keep(&mut self, owner: &str, sources: &Sources) {
        if self.owner != owner {
            self.known.clear();
            owner.clone_into(&mut self.owner);
        }
        self.known.retain(|(secret, name), _| match secret {
            true => sources.secrets.contains_key(name),
            false => sources.config_maps.contains_key(name),
        });
    }
}

/// Pins a template to what is in the objects that it reads, for the workload of uid `owner`. `names` are those that the
/// last call for the same workload has found.
///
/// The same content makes the same names. What is optional and not there stays as it is named, so that it can come later:
/// that makes another template.
///
/// # Errors
/// [`Missing`] when the template cannot do without something that is not there.
pub fn pin(
    owner: &str,
    template: &PodTemplateSpec,
    sources: &Sources,
    names: &mut CopyNames,
) -> Result<Pinned, Missing> {
    names.keep(owner, sources);
    let mut missing = Missing::default();
    let mut copies = Vec::new();
    for (name, source) in &sources.config_maps {
        match &source.object {
            Some(object) => copies.push(ContentCopy {
                secret: false,
                of: name.clone(),
                name: names.of((false, name), object.mod_revision, || {
                    copy_name(owner, name, "", &object.value.entries())
                }),
            }),
            None if source.optional => {}
            None => missing.0.push(format!("ConfigMap {name:?}")),
        }
    }
    for (name, source) in &sources.secrets {
        match &source.object {
            Some(object) => {
                let find = || {
                    let type_ = object.value.type_.as_deref().unwrap_or_default();
                    copy_name(owner, name, type_, &object.value.entries())
                };
                copies.push(ContentCopy {
                    secret: true,
                    of: name.clone(),
                    name: names.of((true, name), object.mod_revision, find),
                });
            }
            None if source.optional => {}
            None => missing.0.push(format!("Secret {name:?}")),
        }
    }
    if !missing.0.is_empty() {
        return Err(missing);
    }
    copies.sort();
    let mut template = template.clone();
    let named = |secret: bool, name: &str| {
        let found = copies.iter().find(|c| c.secret == secret && c.of == name);
        found.map(|c| c.name.clone())
    };
    if !copies.is_empty() {
        Arc::make_mut(&mut template.spec)
            .rename_content(&|name| named(false, name), &|name| named(true, name));
    }
    Ok(Pinned { template, copies })
}

fn copy_name(owner: &str, name: &str, type_: &str, entries: &BTreeMap<&str, &[u8]>) -> String {
    let mut hash = Fnv64::default();
    let mut part = |bytes: &[u8]| {
        hash.write(&bytes.len().to_le_bytes());
        hash.write(bytes);
    };
    part(owner.as_bytes());
    part(type_.as_bytes());
    for (key, bytes) in entries {
        part(key.as_bytes());
        part(bytes);
    }
    // Names are ASCII (validated); `get` keeps a foreign one from panicking here.
    let stem = name.get(..name.len().min(STEM)).unwrap_or(name);
    let hash = safe_encode(&hash.value().to_string());
    format!("{}-{hash}", stem.trim_end_matches(['-', '.']))
}

/// The writes of a plan, for the workload that `owner` refers to and `own` guards. Copies come first: the revision that
/// reads them is written when they are there. `door` is what must hold for those that are made; without it none is.
pub(crate) fn copy_writes(
    leader: &Leader,
    plan: &CopyPlan,
    namespace: &str,
    (owner, own): (&OwnerReference, &Compare),
    sources: &Sources,
    door: Option<&[Compare]>,
) -> Vec<Write> {
    let keyspace = leader.keyspace();
    let plural = |secret| {
        if secret {
            Secret::PLURAL
        } else {
            ConfigMap::PLURAL
        }
    };
    let creates = plan.create.iter().filter_map(|copy| {
        let door = door?;
        let name = ObjectKey::namespaced(namespace, copy.name.as_str());
        let key = keyspace.build(&Key::Desired(plural(copy.secret), name));
        let text = copy_document(copy, namespace, owner, sources)?;
        Some(Write {
            guards: [Compare::absent(key.clone()), own.clone()]
                .into_iter()
                .chain(door.iter().cloned())
                .collect(),
            ops: vec![writes::put(key, text)],
            context: format!("copy {} {}", plural(copy.secret), copy.of),
        })
    });
    let deletes = plan.delete.iter().map(|copy| {
        let key = Key::Desired(plural(copy.secret), copy.seen.key.clone());
        let key = keyspace.build(&key);
        Write {
            guards: vec![
                Compare::ModRevision(key.clone(), copy.seen.mod_revision),
                own.clone(),
            ],
            ops: vec![TxnOp::Delete(key)],
            context: format!("delete {} {}", plural(copy.secret), copy.seen.key),
        }
    });
    creates.chain(deletes).collect()
}

/// The document of a copy. `None` when what it is a copy of is not among the sources.
pub fn copy_document(
    copy: &ContentCopy,
    namespace: &str,
    owner: &OwnerReference,
    sources: &Sources,
) -> Option<String> {
    let annotations: BTreeMap<String, String> = [(COPY_OF.to_owned(), copy.of.clone())].into();
    let metadata = ObjectMeta {
        name: copy.name.clone(),
        namespace: namespace.to_owned(),
        annotations: annotations.into(),
        owner_references: vec![owner.clone()],
        ..ObjectMeta::default()
    };
    Some(if copy.secret {
        let source = sources.secrets.get(&copy.of)?.object.as_ref()?;
        document::encode(&Secret {
            metadata,
            immutable: Some(true),
            ..source.value.clone()
        })
    } else {
        let source = sources.config_maps.get(&copy.of)?.object.as_ref()?;
        document::encode(&ConfigMap {
            metadata,
            immutable: Some(true),
            ..source.value.clone()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::Seen;

    fn stored<K: Kind>(text: &str) -> Arc<Stored<K>> {
        Arc::new(Stored {
            value: document::decode(text.as_bytes()).unwrap(),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
        })
    }

    fn config(data: &str) -> Arc<Stored<ConfigMap>> {
        stored(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app, namespace: default, labels: {{a: b}}}}\ndata: {data}\n"
        ))
    }

    fn secret(data: &str) -> Arc<Stored<Secret>> {
        stored(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: app, namespace: default}}\nstringData: {data}\n"
        ))
    }

    fn pin(owner: &str, template: &PodTemplateSpec, sources: &Sources) -> Result<Pinned, Missing> {
        super::pin(owner, template, sources, &mut CopyNames::default())
    }

    fn template() -> PodTemplateSpec {
        serde_yaml::from_str(
            r#"
metadata: {labels: {app: web}}
spec:
  initContainers:
  - {name: i, image: host, envFrom: [{configMapRef: {name: app}}]}
  containers:
  - name: c
    image: host
    envFrom: [{secretRef: {name: app}}, {configMapRef: {name: more, optional: true}}]
    env:
    - {name: A, valueFrom: {configMapKeyRef: {name: app, key: a}}}
    - {name: B, valueFrom: {secretKeyRef: {name: app, key: b}}}
  volumes:
  - {name: v, configMap: {name: app}}
  - {name: w, secret: {secretName: app}}
  - {name: x, projected: {sources: [{configMap: {name: app}}, {secret: {name: app}}]}}
"#,
        )
        .unwrap()
    }

    fn sources(
        config: Option<Arc<Stored<ConfigMap>>>,
        secret: Option<Arc<Stored<Secret>>>,
    ) -> Sources {
        let more = Source {
            object: None,
            optional: true,
        };
        let app = Source {
            object: config,
            optional: false,
        };
        let secret = Source {
            object: secret,
            optional: false,
        };
        Sources {
            config_maps: [("app".to_owned(), app), ("more".to_owned(), more)].into(),
            secrets: [("app".to_owned(), secret)].into(),
        }
    }

    #[test]
    fn every_reference_is_pinned_and_what_is_optional_and_absent_stays() {
        let s = sources(Some(config("{a: x}")), Some(secret("{b: y}")));
        let pinned = pin("u", &template(), &s).unwrap();
        let (config, secret) = (&pinned.copies[0].name, &pinned.copies[1].name);
        assert!(config.starts_with("app-") && secret.starts_with("app-") && config != secret);
        let spec = &pinned.template.spec;
        let names: Vec<_> = spec.config_maps().into_keys().collect();
        assert_eq!(names, [config.as_str(), "more"]);
        let names: Vec<_> = spec.secrets().into_keys().collect();
        assert_eq!(names, [secret.as_str()]);
    }

    #[test]
    fn a_copy_is_named_after_its_content_and_its_workload_alone() {
        let name = |owner: &str, data: &str| {
            let s = sources(Some(config(data)), Some(secret("{b: y}")));
            pin(owner, &template(), &s).unwrap().copies[0].name.clone()
        };
        assert_eq!(name("u", "{a: x}"), name("u", "{a: x}"));
        assert_ne!(name("u", "{a: x}"), name("u", "{a: z}"));
        assert_ne!(name("u", "{a: x}"), name("v", "{a: x}"));
        assert_ne!(name("u", "{ab: c}"), name("u", "{a: bc}"));
    }

    #[test]
    fn content_is_looked_at_once_per_revision() {
        let at = |data: &str, revision: i64| {
            Arc::new(Stored {
                value: config(data).value.clone(),
                create_revision: 1,
                mod_revision: revision,
                version: 1,
            })
        };
        let mut names = CopyNames::default();
        let mut name = |owner: &str, config: Arc<Stored<ConfigMap>>| {
            let s = sources(Some(config), Some(secret("{b: y}")));
            let pinned = super::pin(owner, &template(), &s, &mut names).unwrap();
            pinned.copies[0].name.clone()
        };
        let first = name("u", at("{a: x}", 5));
        // The store never has two contents at one revision; here it shows that the second one is not looked at.
        assert_eq!(name("u", at("{a: z}", 5)), first);
        let second = name("u", at("{a: z}", 6));
        assert_ne!(second, first);
        assert_eq!(name("u", at("{a: x}", 7)), first);
        assert_ne!(
            name("v", at("{a: x}", 7)),
            first,
            "another workload of the name"
        );
        let nothing = Sources::default();
        super::pin("v", &template(), &nothing, &mut names).unwrap();
        assert!(names.known.is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = pin("u", &template(), &sources(None, None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ConfigMap \"app\", Secret \"app\" do not exist"
        );
    }

    #[test]
    fn copies_are_made_when_they_are_absent_and_go_when_no_revision_reads_them() {
        let s = sources(Some(config("{a: x}")), Some(secret("{b: y}")));
        let old = pin("u", &template(), &s).unwrap();
        let s = sources(Some(config("{a: z}")), Some(secret("{b: y}")));
        let new = pin("u", &template(), &s).unwrap();
        let seen = |copies: &[ContentCopy]| -> Vec<CopySeen> {
            let seen = |c: &ContentCopy| CopySeen {
                own: true,
                secret: c.secret,
                frozen: false,
                seen: Seen {
                    key: ObjectKey::namespaced("default", c.name.as_str()),
                    mod_revision: 7,
                },
            };
            copies.iter().map(seen).collect()
        };
        let plan = |pinned: &Pinned, present: &[CopySeen], templates: &[&Pinned]| {
            let templates = templates.iter().map(|p| &p.template);
            CopyPlan::new(&pinned.copies, present, templates).to_string()
        };
        let (a, b, z) = (
            &old.copies[0].name,
            &old.copies[1].name,
            &new.copies[0].name,
        );
        assert_eq!(
            plan(&old, &[], &[]),
            format!("copy configmap app as {a}\ncopy secret app as {b}\n")
        );
        let present = seen(&old.copies);
        assert_eq!(plan(&old, &present, &[&old]), "");
        assert_eq!(
            plan(&new, &present, &[&old]),
            format!("copy configmap app as {z}\n")
        );
        assert_eq!(
            plan(&new, &present, &[&new]),
            format!("copy configmap app as {z}\ndelete copy configmap {a} at 7\n")
        );
        // What somebody has broken is present, and left alone.
        let mut broken = present.clone();
        broken[0].frozen = true;
        assert_eq!(
            plan(&new, &broken, &[&new]),
            format!("copy configmap app as {z}\n")
        );
        assert_eq!(plan(&old, &broken, &[&old]), "");
    }

    #[test]
    fn a_copy_says_what_it_is_and_keeps_what_was_in_it() {
        let s = sources(Some(config("{a: x}")), Some(secret("{b: y}")));
        let pinned = pin("u", &template(), &s).unwrap();
        let owner = crate::documents::controller_reference::<ConfigMap>("o", "u");
        for copy in &pinned.copies {
            let text = copy_document(copy, "default", &owner, &s).unwrap();
            if copy.secret {
                let read: Secret = document::decode(text.as_bytes()).unwrap();
                assert_eq!(
                    (read.get("b"), read.immutable),
                    (Some(&b"y"[..]), Some(true))
                );
            } else {
                let read: ConfigMap = document::decode(text.as_bytes()).unwrap();
                assert_eq!(
                    (read.get("a"), read.immutable),
                    (Some(&b"x"[..]), Some(true))
                );
                assert_eq!(read.metadata.annotations[COPY_OF], "app");
                assert!(read.metadata.labels.is_empty());
            }
        }
    }
}
