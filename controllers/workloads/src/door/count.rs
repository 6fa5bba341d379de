//! How much of a quota is used, and for how many more objects there is room.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::apps::{ControllerRevision, ReplicaSet};
use setpoint_apis::batch::Job;
use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, Pod, ResourceQuotaSpec, Secret};
use setpoint_apis::quantity::{Quantity, ResourceList};
use setpoint_apis::resolve::{self, Excess, claim_usage, object_usage};
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::View;
use setpoint_store::Revision;

use super::{Asked, covers};
use crate::pod::PodFacts;

/// One resource of a quota.
struct Line {
    name: String,
    hard: Quantity,
    /// What one more object takes.
    one: Quantity,
    /// What is being created already.
    under_way: Quantity,
    used: Quantity,
}

/// Of which quota (its namespace and name), of objects of which kind, and whether pods that have ended are told apart.
type Of = (Arc<str>, Arc<str>, &'static str, bool);

/// What is used of quotas at one revision of the view: all who ask at that are told the same, and it takes a walk over all
/// that is counted to find out.
#[derive(Default)]
pub(super) struct Counts {
    revision: Revision,
    known: FxHashMap<Of, Arc<ResourceList>>,
}

impl Counts {
    fn get(
        &mut self,
        revision: Revision,
        of: Of,
        find: impl FnOnce() -> ResourceList,
    ) -> Arc<ResourceList> {
        if self.revision != revision {
            self.revision = revision;
            self.known.clear();
        }
        let known = self.known.entry(of);
        known.or_insert_with(|| Arc::new(find())).clone()
    }
}

/// What a quota says to something that is asked for.
pub(super) struct Count<'a> {
    quota: &'a ResourceQuotaSpec,
    asked: &'a Asked<'a>,
    lines: Vec<Line>,
}

impl<'a> Count<'a> {
    pub(super) fn new(quota: &'a ResourceQuotaSpec, asked: &'a Asked<'a>) -> Self {
        let usage = asked.usage();
        let lines = quota.hard.iter().filter_map(|(name, hard)| {
            let one = *usage.get(name).filter(|one| !one.is_zero())?;
            Some(Line {
                name: name.clone(),
                hard: *hard,
                one,
                under_way: Quantity::ZERO,
                used: Quantity::ZERO,
            })
        });
        Self {
            quota,
            asked,
            lines: lines.collect(),
        }
    }

    /// So many objects that take this each are being created. Whether that takes any of what one more would.
    pub(super) fn add(&mut self, usage: &ResourceList, count: usize) -> bool {
        let mut matters = false;
        for line in &mut self.lines {
            if let Some(each) = usage.get(&line.name).filter(|each| !each.is_zero()) {
                line.under_way += times(*each, count);
                matters = true;
            }
        }
        matters
    }

    /// For how many there is room, up to `most`. `quota` is its namespace and name.
    pub(super) fn room(
        &mut self,
        view: &View<'_>,
        quota: (&Arc<str>, &Arc<str>),
        most: usize,
        counts: &mut Counts,
    ) -> usize {
        if self.lines.is_empty() {
            return most;
        }
        // Which pods have ended is looked up only when it matters.
        for exact in [false, true] {
            let of = (quota.0.clone(), quota.1.clone(), self.asked.plural(), exact);
            let used = counts.get(view.revision(), of, || self.used(view, quota.0, exact));
            for line in &mut self.lines {
                line.used = used.get(&line.name).copied().unwrap_or(Quantity::ZERO);
            }
            let room = self.lines.iter().map(Line::room).min().unwrap_or(most);
            if room >= most || exact || !matches!(self.asked, Asked::Pods(..)) {
                return room.min(most);
            }
        }
        0
    }

    /// Of what there is too little for one more when so many have been let in.
    pub(super) fn excess(&self, let_in: usize) -> Vec<Excess> {
        let over = self.lines.iter().filter(|l| l.room() <= let_in);
        over.map(|l| Excess {
            resource: l.name.clone(),
            requested: l.one,
            used: l.used + l.under_way + times(l.one, let_in),
            hard: l.hard,
        })
        .collect()
    }

    fn used(&self, view: &View<'_>, namespace: &str, exact: bool) -> ResourceList {
        match self.asked {
            Asked::Pods(..) => {
                let (mut there, mut ended) = (0, 0);
                for (key, entry) in view.desired::<Pod>().namespace(namespace) {
                    // Of one that cannot be read nothing says that it is not meant.
                    let good = entry.last_good();
                    if good.is_some_and(|p| !covers(self.quota, Some(&p.value.spec))) {
                        continue;
                    }
                    there += 1;
                    if exact && good.is_some_and(|p| has_ended(view, key, p)) {
                        ended += 1;
                    }
                }
                let mut used = scaled(&resolve::pod_object_usage(false), there - ended);
                for (name, amount) in scaled(&resolve::pod_object_usage(true), ended) {
                    *used.entry(name).or_default() += amount;
                }
                used
            }
            Asked::Claim(_) => {
                let mut used = ResourceList::new();
                for (_, entry) in view.desired::<PersistentVolumeClaim>().namespace(namespace) {
                    let usage = match entry.last_good() {
                        Some(good) => claim_usage(&good.value.spec),
                        None => object_usage::<PersistentVolumeClaim>(),
                    };
                    for (name, amount) in usage {
                        *used.entry(name).or_default() += amount;
                    }
                }
                used
            }
            Asked::Object { usage, count, .. } => scaled(&usage(), count(view, namespace)),
        }
    }
}

impl Line {
    fn room(&self) -> usize {
        let milli = |q: Quantity| i128::from(q.milli_value());
        let left = milli(self.hard) - milli(self.used) - milli(self.under_way);
        let one = milli(self.one).max(1);
        usize::try_from(left.max(0) / one).unwrap_or(usize::MAX)
    }
}

fn times(each: Quantity, count: usize) -> Quantity {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let milli = each.milli_value().saturating_mul(count);
    let product = if milli % 1000 == 0 {
        Quantity::from_whole(milli / 1000)
    } else {
        Quantity::from_milli(milli)
    };
    product.with_format(each.format())
}

fn scaled(usage: &ResourceList, count: usize) -> ResourceList {
    let each = usage.iter();
    each.map(|(name, one)| (name.clone(), times(*one, count)))
        .collect()
}

/// Whether a pod has ended for good.
fn has_ended(view: &View<'_>, key: &ObjectKey, pod: &setpoint_runtime::Stored<Pod>) -> bool {
    let binding = view.bindings().entry(key).and_then(|e| e.last_good());
    let actual = binding
        .and_then(|b| view.pod_on(&b.value.node, key))
        .and_then(|e| e.last_good());
    let revisions = (pod.create_revision, pod.mod_revision);
    let (binding, actual) = (binding.map(|b| &b.value), actual.map(|a| &a.value));
    let facts = PodFacts::new(key, &pod.uid(), revisions, &pod.value, binding, actual);
    binding.is_some_and(|binding| facts.state.is_final(binding))
}

/// Whether something is not there any more that counts and that controllers create.
pub(super) fn is_gone(view: &View<'_>, plural: &str, key: &ObjectKey) -> bool {
    let there = match plural {
        Pod::PLURAL => view.desired::<Pod>().contains(key),
        PersistentVolumeClaim::PLURAL => view.desired::<PersistentVolumeClaim>().contains(key),
        ReplicaSet::PLURAL => view.desired::<ReplicaSet>().contains(key),
        Job::PLURAL => view.desired::<Job>().contains(key),
        ControllerRevision::PLURAL => view.desired::<ControllerRevision>().contains(key),
        ConfigMap::PLURAL => view.desired::<ConfigMap>().contains(key),
        Secret::PLURAL => view.desired::<Secret>().contains(key),
        _ => true,
    };
    !there
}

#[cfg(test)]
mod tests {
    use setpoint_apis::records::{Binding, PodActual, PodStage, Withdrawal};
    use setpoint_apis::{Key, Timestamp, document};

    use super::*;
    use crate::led::Led;

    #[test]
    fn what_is_used_is_counted_once_per_revision_and_sort() {
        let mut counts = Counts::default();
        let looked = std::cell::Cell::new(0);
        let mut get = |revision: i64, quota: &str, plural: &'static str, exact: bool| {
            let of = ("x".into(), quota.into(), plural, exact);
            let found = counts.get(Revision(revision), of, || {
                looked.set(looked.get() + 1);
                [("pods".to_owned(), Quantity::from_whole(looked.get()))].into()
            });
            (found["pods"], looked.get())
        };
        let times = Quantity::from_whole;
        assert_eq!(get(7, "a", "pods", false), (times(1), 1));
        assert_eq!(get(7, "a", "pods", false), (times(1), 1));
        for (n, (quota, plural, exact)) in [
            ("a", "pods", true),
            ("b", "pods", false),
            ("a", "jobs", false),
        ]
        .into_iter()
        .enumerate()
        {
            let n = i64::try_from(n).unwrap() + 2;
            assert_eq!(get(7, quota, plural, exact), (times(n), n));
        }
        assert_eq!(get(7, "a", "pods", true), (times(2), 4));
        assert_eq!(get(8, "a", "pods", false), (times(5), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_fails_while_it_is_taken_back_is_counted_for_it_runs_again() {
        let led = Led::start().await;
        let key = ObjectKey::namespaced("default", "a");
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: host}]}\n";
        led.put_desired::<Pod>(&key, text).await;
        for (stage, taken_back, ended) in [
            (PodStage::Running, false, false),
            (PodStage::Failed, false, true),
            (PodStage::Failed, true, false),
            (PodStage::Succeeded, true, true),
        ] {
            let withdrawn = taken_back.then(|| Withdrawal {
                reason: "evicted".into(),
                at: Timestamp::EPOCH,
                grace_seconds: None,
            });
            let binding = Binding {
                node: "n1".into(),
                placement: 1,
                withdrawn,
                ..Binding::default()
            };
            let report = PodActual {
                placement: 1,
                stage,
                ..PodActual::default()
            };
            let keyspace = led.leader.keyspace();
            let (at, on) = (Key::Binding(key.clone()), Key::NodePod("n1", key.clone()));
            led.put(keyspace.build(&at), &document::encode(&binding))
                .await;
            let written = led
                .put(keyspace.build(&on), &document::encode(&report))
                .await;
            led.leader.cache().wait_for(written).await;
            let view = led.leader.cache().view();
            let pod = view.desired::<Pod>().get(&key).unwrap();
            assert_eq!(has_ended(&view, &key, pod), ended, "{stage:?} {taken_back}");
        }
    }

    #[test]
    fn what_is_being_created_matters_only_where_it_takes_of_the_same() {
        let list = |text: &str| serde_yaml::from_str::<ResourceList>(text).unwrap();
        let quota: ResourceQuotaSpec =
            serde_yaml::from_str("hard: {count/jobs.batch: 3, pods: 1}").unwrap();
        let asked = Asked::object::<Job>();
        let mut count = Count::new(&quota, &asked);
        assert!(!count.add(&list("{pods: 1}"), 5));
        assert!(!count.add(&list("{count/jobs.batch: 0}"), 5));
        assert!(count.excess(2).is_empty());
        assert!(count.add(&list("{count/jobs.batch: 1}"), 2));
        let over = count.excess(1);
        assert_eq!((over.len(), over[0].used), (1, Quantity::from_whole(3)));
    }
}
