//! What a namespace asks of what is created in it: its LimitRanges, and the object counts of its ResourceQuotas.
//!
//! # Promise
//! - Pods are made of a template with what LimitRanges give to containers that do not say it ([`Doors::furnished`]). That is
//!   in the document of the pod, so a change of a LimitRange concerns pods that are created after it and no others.
//! - What a LimitRange or a quota does not let in is not written; its owner waits, and is looked at again when a
//!   LimitRange or quota of its namespace changes, or something that is counted there goes.
//! - Counts are exact among all controllers of a leadership and the commands of users: what is being created here is
//!   counted until the view has it ([`Admission`]), and each create holds only while no command has created anything
//!   counted since the view that was counted on. Such a command leaves a mark
//!   ([`setpoint_apis::keyspace::admissions`]), which the creates guard on.
//!
//! Parts of a revision (it, and the copies of what it reads) are let in together or not at all ([`Doors::enter_together`]).
//!
//! A namespace without LimitRanges and quotas costs two lookups per pass that creates. One with quotas costs one read of the
//! mark and one count of what is there, however many pods are created in one go.
//!
//! What requests and limits of pods add up to is the scheduler's. What is written with `etcdctl` goes through no door.

mod count;
mod waiters;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use setpoint_apis::core::{
    LimitRange, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSpec, PodTemplateSpec,
    ResourceQuota, ResourceQuotaSpec,
};
use setpoint_apis::quantity::ResourceList;
use setpoint_apis::records::PodStage;
use setpoint_apis::resolve::limits::{self, Given};
use setpoint_apis::resolve::{self, claim_usage, counts_objects, object_usage, quota_covers};
use setpoint_apis::{Key, Kind, ObjectKey, keyspace};
use setpoint_runtime::{Leader, StateKey, View};
use setpoint_store::{Compare, StoreError};

use count::{Count, Counts};
use waiters::Waiters;

/// What is to be created: so many objects alike.
#[derive(Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// Pods, and what LimitRanges gave to their containers.
    Pods(&'a Arc<PodSpec>, &'a [Given]),
    /// A claim of a volume.
    Claim(&'a PersistentVolumeClaimSpec),
    /// Something that counts by being there: how much, and how many there are.
    Object {
        plural: &'static str,
        usage: fn() -> ResourceList,
        count: fn(&View<'_>, &str) -> usize,
    },
}

impl Asked<'static> {
    /// An object of a kind of which only the number counts.
    pub(crate) fn object<K: Kind>() -> Self {
        Self::Object {
            plural: K::PLURAL,
            usage: object_usage::<K>,
            count: |view, namespace| view.desired::<K>().namespace(namespace).count(),
        }
    }
}

impl Asked<'_> {
    fn plural(&self) -> &'static str {
        match self {
            Self::Pods(..) => Pod::PLURAL,
            Self::Claim(_) => PersistentVolumeClaim::PLURAL,
            Self::Object { plural, .. } => plural,
        }
    }

    fn usage(&self) -> ResourceList {
        match self {
            Self::Pods(..) => resolve::pod_object_usage(false),
            Self::Claim(spec) => claim_usage(spec),
            Self::Object { usage, .. } => usage(),
        }
    }

    fn pod(&self) -> Option<&Arc<PodSpec>> {
        match self {
            Self::Pods(spec, _) => Some(spec),
            _ => None,
        }
    }
}

/// Whether a quota is about what counts so: a pod with its spec, anything else without.
fn covers(quota: &ResourceQuotaSpec, pod: Option<&Arc<PodSpec>>) -> bool {
    match pod {
        Some(spec) => quota_covers(quota, spec),
        None => counts_objects(quota),
    }
}

/// A template as pods are made of it in a namespace.
pub(crate) struct Furnished<'a> {
    /// The template with what LimitRanges give.
    pub(crate) template: Cow<'a, PodTemplateSpec>,
    given: Vec<Given>,
}

impl Furnished<'_> {
    /// That pods of it are asked for.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked::Pods(&self.template.spec, &self.given)
    }
}

/// How many of the objects that were asked for may be created. They count here until this is dropped, which is when the
/// view has them, or they are not written.
pub(crate) struct Admission<'a> {
    /// So many.
    pub(crate) allowed: usize,
    /// Must hold for each of them.
    pub(crate) guard: Option<Compare>,
    /// Why not all.
    pub(crate) refusal: Option<String>,
    /// Whether that is news: nobody was told of it yet.
    pub(crate) is_news: bool,
    /// Whether there might be room when others have written what they are creating, or have not: who creates much counts
    /// all of it until the end, what the view has of it twice. Nobody is told then, and nobody waits: ask again a moment
    /// later.
    pub(crate) is_contested: bool,
    ticket: Option<(&'a Doors, u64)>,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if let Some((doors, number)) = self.ticket {
            doors.under_way.lock().remove(&number);
        }
    }
}

/// What is let in of several sorts of objects that are of use together alone: all of it, or nothing.
#[derive(Default)]
pub(crate) struct Together<'a>(Vec<Admission<'a>>);

impl<'a> Together<'a> {
    /// That of which not all is let in.
    pub(crate) fn refused(&self) -> Option<&Admission<'a>> {
        self.0.iter().find(|door| door.refusal.is_some())
    }

    /// Must hold for each of the objects.
    pub(crate) fn guards(&self) -> Vec<Compare> {
        self.0.iter().filter_map(|d| d.guard.clone()).collect()
    }
}

/// What the quotas of a namespace say; see [`Admission`].
struct Room {
    allowed: usize,
    refusal: Option<String>,
    is_contested: bool,
}

/// What is being created.
struct UnderWay {
    by: (&'static str, ObjectKey),
    namespace: Arc<str>,
    pod: Option<Arc<PodSpec>>,
    usage: ResourceList,
    count: usize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Doors {
    /// Locked under the view.
    under_way: Mutex<FxHashMap<u64, UnderWay>>,
    /// Locked under the view, after `under_way` where both are.
    counts: Mutex<Counts>,
    /// Locked under the view, after the others.
    waiters: Waiters,
    next: AtomicU64,
}

impl Doors {
    /// Whether a change is of something that the doors go by.
    pub(crate) fn concerns(key: &StateKey) -> bool {
        matches!(key, StateKey::Desired(plural, _)
            if [LimitRange::PLURAL, ResourceQuota::PLURAL].contains(plural))
    }

    /// A template with what the LimitRanges of a namespace give to its containers.
    pub(crate) fn furnished<'t>(
        view: &View<'_>,
        namespace: &str,
        template: &'t PodTemplateSpec,
    ) -> Furnished<'t> {
        let all = view.desired::<LimitRange>().namespace(namespace);
        let ranges: Vec<&LimitRange> = all
            .filter_map(|(_, entry)| Some(&entry.last_good()?.value))
            .collect();
        let mut furnished = Furnished {
            template: Cow::Borrowed(template),
            given: Vec::new(),
        };
        if !ranges.is_empty() {
            let mut filled = template.clone();
            furnished.given = limits::apply(&ranges, Arc::make_mut(&mut filled.spec));
            if let Some(said) = limits::annotation(&furnished.given) {
                let annotations = &mut filled.metadata.annotations;
                annotations.insert(limits::ANNOTATION.into(), said);
                furnished.template = Cow::Owned(filled);
            }
        }
        furnished
    }

    /// Asks for `count` objects on behalf of `by`: kind and name. Who is refused waits from then on, until
    /// [`Doors::forget`].
    ///
    /// # Errors
    /// When the store does not say what users' commands have created.
    pub(crate) async fn enter(
        &self,
        leader: &Leader,
        by: (&'static str, &ObjectKey),
        asked: &Asked<'_>,
        count: usize,
    ) -> Result<Admission<'_>, StoreError> {
        let namespace = &by.1.namespace;
        {
            let view = leader.cache().view();
            if !is_limited(&view, namespace, asked) {
                return Ok(free(count));
            }
            if let Some(refusal) = outside(&view, namespace, asked) {
                return Ok(self.refused(by, refusal));
            }
            if !is_counted(&view, namespace, asked) {
                return Ok(free(count));
            }
            // Where there is no room at all nothing will be created, so nothing depends on the mark. Thousands may ask
            // when one object has gone.
            let room = self.room(&view, by, asked, count, &self.under_way.lock());
            if let Some(refusal) = room.refusal
                && room.allowed == 0
                && !room.is_contested
            {
                return Ok(self.refused(by, refusal));
            }
        }
        let mark = keyspace::admissions(namespace);
        let mark = leader.keyspace().build(&Key::Meta(&mark));
        let (found, _) = leader.store().get(&mark).await?;
        let revision = found.map_or(0, |kv| kv.mod_revision);
        tokio::select! {
            biased;
            // Its writes fail.
            () = leader.lost().cancelled() => return Ok(free(count)),
            // The mark was written together with what was created.
            () = leader.cache().wait_for(setpoint_store::Revision(revision)) => {}
        }
        let view = leader.cache().view();
        Ok(self.admit(
            &view,
            by,
            asked,
            count,
            Compare::ModRevision(mark, revision),
        ))
    }

    /// As [`Doors::enter`], for so many of each sort, or nothing of it.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn enter_together(
        &self,
        leader: &Leader,
        by: (&'static str, &ObjectKey),
        asked: &[(Asked<'_>, usize)],
    ) -> Result<Together<'_>, StoreError> {
        let mut together = Together::default();
        for (asked, count) in asked.iter().filter(|(_, count)| *count > 0) {
            let door = self.enter(leader, by, asked, *count).await?;
            if door.refusal.is_some() {
                // What was let in before is not written.
                return Ok(Together(vec![door]));
            }
            together.0.push(door);
        }
        Ok(together)
    }

    fn admit(
        &self,
        view: &View<'_>,
        by: (&'static str, &ObjectKey),
        asked: &Asked<'_>,
        count: usize,
        guard: Compare,
    ) -> Admission<'_> {
        let namespace = &by.1.namespace;
        let mut under_way = self.under_way.lock();
        let room = self.room(view, by, asked, count, &under_way);
        let Room {
            allowed,
            refusal,
            is_contested,
        } = room;
        let ticket = (allowed > 0).then(|| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let this = UnderWay {
                by: (by.0, by.1.clone()),
                namespace: namespace.clone(),
                pod: asked.pod().cloned(),
                usage: asked.usage(),
                count: allowed,
            };
            under_way.insert(number, this);
            (self, number)
        });
        drop(under_way);
        let waits = refusal.as_ref().filter(|_| !is_contested);
        let is_news = waits.is_some_and(|r| self.wait(by, r));
        Admission {
            allowed,
            guard: Some(guard),
            refusal,
            is_news,
            is_contested,
            ticket,
        }
    }

    /// For how many objects the quotas of a namespace have room, beside what is `under_way`.
    fn room(
        &self,
        view: &View<'_>,
        by: (&'static str, &ObjectKey),
        asked: &Asked<'_>,
        count: usize,
        under_way: &FxHashMap<u64, UnderWay>,
    ) -> Room {
        let namespace = &by.1.namespace;
        let mut counts = self.counts.lock();
        let (mut allowed, mut refusal) = (count, None);
        let mut is_contested = false;
        for (key, entry) in view.desired::<ResourceQuota>().namespace(namespace) {
            let Some(quota) = entry.last_good().map(|q| &q.value.spec) else {
                (allowed, refusal) = (0, Some(unreadable("ResourceQuota", key)));
                break;
            };
            if !covers(quota, asked.pod()) {
                continue;
            }
            let mut count = Count::new(quota, asked);
            let mut others = false;
            for u in under_way.values().filter(|u| *u.namespace == **namespace) {
                if covers(quota, u.pod.as_ref()) {
                    let matters = count.add(&u.usage, u.count);
                    others |= matters && (u.by.0, &u.by.1) != by;
                }
            }
            let room = count.room(view, (namespace, &key.name), allowed, &mut counts);
            if room < allowed {
                is_contested |= others;
                allowed = room;
                let over = count.excess(room);
                let message = resolve::exceeded(&key.name, &over);
                refusal = Some(format!("{} are forbidden: {message}", asked.plural()));
            }
        }
        Room {
            allowed,
            refusal,
            is_contested,
        }
    }

    fn refused(&self, by: (&'static str, &ObjectKey), refusal: String) -> Admission<'_> {
        Admission {
            allowed: 0,
            guard: None,
            is_news: self.wait(by, &refusal),
            is_contested: false,
            refusal: Some(refusal),
            ticket: None,
        }
    }

    /// Somebody waits. Whether nobody knew that, or for what. It is called under the view that was decided on, so that no
    /// change that helps comes in between.
    pub(crate) fn wait(&self, (kind, key): (&'static str, &ObjectKey), why: &str) -> bool {
        self.waiters.add(kind, key, why)
    }

    /// Whoever may have waited has all that it asked for.
    pub(crate) fn forget(&self, (kind, key): (&'static str, &ObjectKey)) {
        self.waiters.remove(kind, key);
    }

    /// Those of a kind who wait for something that a change may have brought.
    pub(crate) fn roused<K: Kind>(&self, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        match change {
            StateKey::Desired(plural, key)
                if Self::concerns(change) || count::is_gone(view, plural, key) =>
            {
                self.waiters.rouse::<K>(&key.namespace, view)
            }
            StateKey::NodePod(_, pod) | StateKey::Binding(pod) if has_ended(view, pod) => {
                self.waiters.rouse::<K>(&pod.namespace, view)
            }
            _ => Vec::new(),
        }
    }
}

/// No limit is known that would matter.
fn free(count: usize) -> Admission<'static> {
    Admission {
        allowed: count,
        guard: None,
        refusal: None,
        is_news: false,
        is_contested: false,
        ticket: None,
    }
}

fn unreadable(kind: &str, key: &ObjectKey) -> String {
    format!(
        "the {kind} {:?} could forbid it, and its document cannot be read: mend or delete it",
        &*key.name
    )
}

/// Whether a namespace has anything to say to what is asked for. That is two lookups where it has not.
fn is_limited(view: &View<'_>, namespace: &str, asked: &Asked<'_>) -> bool {
    let ranges = || view.desired::<LimitRange>().namespace(namespace).next();
    (!matches!(asked, Asked::Object { .. }) && ranges().is_some())
        || is_counted(view, namespace, asked)
}

/// Whether a quota of a namespace counts what is asked for.
fn is_counted(view: &View<'_>, namespace: &str, asked: &Asked<'_>) -> bool {
    let mut quotas = view.desired::<ResourceQuota>().namespace(namespace);
    quotas.any(|(_, entry)| {
        entry.last_good().is_none_or(|q| {
            let counts = |name: &String| resolve::counted_plural(name) == Some(asked.plural());
            q.value.spec.hard.keys().any(counts) && covers(&q.value.spec, asked.pod())
        })
    })
}

/// Why LimitRanges do not let in what is asked for.
fn outside(view: &View<'_>, namespace: &str, asked: &Asked<'_>) -> Option<String> {
    let mut ranges: Vec<&LimitRange> = Vec::new();
    for (key, entry) in view.desired::<LimitRange>().namespace(namespace) {
        match entry.last_good() {
            Some(good) => ranges.push(&good.value),
            None if matches!(asked, Asked::Object { .. }) => {}
            None => return Some(unreadable("LimitRange", key)),
        }
    }
    let (what, found) = match asked {
        Asked::Pods(spec, given) => {
            let mut found = limits::contradictions(given, spec);
            found.extend(limits::check(&ranges, spec));
            ("pods", found)
        }
        Asked::Claim(spec) => (
            PersistentVolumeClaim::PLURAL,
            limits::check_claim(&ranges, spec),
        ),
        Asked::Object { .. } => return None,
    };
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| format!("{what} are forbidden: {}", all.join("; ")))
}

fn has_ended(view: &View<'_>, pod: &ObjectKey) -> bool {
    let actual = view.pod_actual(pod);
    actual.is_some_and(|a| matches!(a.value.stage, PodStage::Succeeded | PodStage::Failed))
}
