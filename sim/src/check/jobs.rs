//! Jobs at every write, whatever becomes of controllers: never more pods than `parallelism`, none that comes too late, and
//! every pod that ends is counted once, by how it ended. A pod that was taken back from a node and fails there has not
//! failed.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::batch::{Job, JobStatus, indexes};
use setpoint_apis::{Key, ObjectKey, document};

use super::known::{Ever, Known};
use super::{Change, Finding};

#[derive(Debug, Default)]
pub(super) struct JobCheck {
    /// By uid.
    jobs: BTreeMap<String, Ledger>,
    uids: BTreeMap<ObjectKey, String>,
    going: BTreeSet<ObjectKey>,
}

/// A Job.
#[derive(Debug)]
struct Ledger {
    document: Job,
    status: JobStatus,
    counted: BTreeSet<i32>,
    /// The pods that were made for it, by number: how they ended, and their index.
    made: BTreeMap<i32, (Ever, Option<i32>)>,
    /// Numbers of pods that ran when it was said that the Job fails.
    cut_short: BTreeSet<i32>,
}

/// What says how a Job will end or has ended.
fn verdict(status: &JobStatus) -> bool {
    let all = ["SuccessCriteriaMet", "FailureTarget", "Complete", "Failed"];
    all.iter().any(|type_| status.is(type_))
}

fn numbers(text: Option<&str>) -> BTreeSet<i32> {
    let ranges = indexes::parse(text.unwrap_or_default()).unwrap_or_default();
    ranges.into_iter().flatten().collect()
}

fn size(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl JobCheck {
    /// Takes note of a change, before [`Known`] does.
    pub(super) fn enter(&mut self, change: &Change<'_>, known: &Known, found: &mut Vec<Finding>) {
        match (&change.key, change.entry.value) {
            (Key::Desired("jobs", key), Some(value)) => {
                let Ok(document) = document::decode_keyed::<Job>(key, value) else {
                    return;
                };
                let since = change.entry.create_revision;
                let uid = document.metadata.uid_since(since, "jobs", key);
                self.uids.insert(key.clone(), uid.clone());
                match self.jobs.get_mut(&uid) {
                    Some(job) => job.document = document,
                    None => {
                        let job = Ledger {
                            document,
                            status: JobStatus::default(),
                            counted: BTreeSet::new(),
                            made: BTreeMap::new(),
                            cut_short: BTreeSet::new(),
                        };
                        self.jobs.insert(uid, job);
                    }
                }
            }
            (Key::Desired("jobs", key), None) => {
                if let Some(uid) = self.uids.remove(key) {
                    self.jobs.remove(&uid);
                }
            }
            (Key::Deletion("jobs", key), value) => {
                match value {
                    Some(_) => self.going.insert(key.clone()),
                    None => self.going.remove(key),
                };
            }
            (Key::Actual("jobs", key), Some(value)) => {
                let (Some(uid), Ok(status)) = (
                    self.uids.get(key),
                    document::decode_value::<JobStatus>(value),
                ) else {
                    return;
                };
                if let Some(job) = self.jobs.get_mut(uid)
                    && status.counted.as_ref().is_some_and(|c| c.of == *uid)
                {
                    job.counts(key, status, found);
                }
            }
            (Key::Desired("pods", key), Some(_))
                if change.by_controllers() && known.pod(key).is_none() =>
            {
                self.created(change, key, known, found);
            }
            (Key::Desired("pods", key), None) if change.by_controllers() => {
                self.deleted(key, known, found);
            }
            _ => {}
        }
    }

    /// Takes note of how a pod has ended, after [`Known`] has.
    pub(super) fn note(&mut self, change: &Change<'_>, known: &Known) {
        let (Key::Desired("pods", key) | Key::Binding(key) | Key::NodePod(_, key)) = &change.key
        else {
            return;
        };
        let Some(pod) = known.pod(key) else {
            return;
        };
        let job = pod.owner.as_ref().and_then(|uid| self.jobs.get_mut(uid));
        let (Some(job), Some(number)) = (job, pod.number) else {
            return;
        };
        job.made.insert(number, (pod.ever, pod.index));
    }

    fn created(
        &mut self,
        change: &Change<'_>,
        key: &ObjectKey,
        known: &Known,
        found: &mut Vec<Finding>,
    ) {
        let Some(pod) = &change.pod else {
            return;
        };
        let Some(owner) = pod.metadata.controller().map(|o| o.uid.as_str()) else {
            return;
        };
        let Some(job) = self.jobs.get_mut(owner) else {
            return;
        };
        let of = &job.document.metadata.name;
        let new = super::known::numbers(pod);
        let mut wrong =
            |message: String| found.push(("job", format!("{key} of job {of} {message}")));
        let live = known.of(owner).filter(|(_, p)| !p.ever.ended());
        let (live, most) = (size(live.count()) + 1, job.document.spec.parallelism());
        if live > most {
            wrong(format!("is the {live}th that has not ended, of {most}"));
        }
        if verdict(&job.status) || job.document.spec.is_suspended() {
            wrong("was made though the job has ended or is suspended".to_owned());
        }
        let same = known.of(owner).filter(|(_, p)| p.number == new.0);
        if new.0.is_none_or(|n| job.counted.contains(&n)) || same.count() > 0 {
            wrong(format!(
                "has the number {:?}, which another one has had",
                new.0
            ));
        }
        if job.document.spec.is_indexed() {
            let done = numbers(job.status.completed_indexes.as_deref());
            let mut twins = known
                .of(owner)
                .filter(|(_, p)| p.index == new.1 && !p.ever.ended());
            if new.1.is_none_or(|index| done.contains(&index)) || twins.next().is_some() {
                wrong(format!(
                    "was made for the index {:?}, which is done or under way",
                    new.1
                ));
            }
        }
        if let Some(number) = new.0 {
            job.made.insert(number, (Ever::default(), new.1));
        }
    }

    /// What has ended is kept until it is counted.
    fn deleted(&self, key: &ObjectKey, known: &Known, found: &mut Vec<Finding>) {
        let Some((pod, number)) = known.pod(key).and_then(|p| Some((p, p.number?))) else {
            return;
        };
        let job = pod.owner.as_ref().and_then(|uid| self.jobs.get(uid));
        let Some(job) = job.filter(|_| pod.outcome.is_some()) else {
            return;
        };
        let of = ObjectKey::namespaced(key.namespace.clone(), job.document.metadata.name.clone());
        if !job.counted.contains(&number) && !self.going.contains(&of) {
            let message =
                format!("{key} of job {of} was deleted when it had ended and was not counted");
            found.push(("job", message));
        }
    }
}

impl Ledger {
    /// A status of it is written.
    fn counts(&mut self, key: &ObjectKey, status: JobStatus, found: &mut Vec<Finding>) {
        let mut wrong = |message: String| found.push(("job", format!("job {key} {message}")));
        let text = status.counted.as_ref().map(|c| c.pods.as_str());
        let counted = numbers(text);
        let fails = status.is("FailureTarget");
        if let Some(lost) = self.counted.difference(&counted).next() {
            wrong(format!("does not count its pod {lost} any more"));
        }
        for number in counted.difference(&self.counted) {
            match self.made.get(number) {
                // Its end may not have been seen yet when it was decided that the Job fails.
                Some((ever, _)) if fails && !ever.failed => drop(self.cut_short.insert(*number)),
                Some((ever, _)) if ever.ended() => {}
                _ => wrong(format!("counts its pod {number}, which has not ended")),
            }
        }
        let ended = |how: fn(&Ever) -> bool| {
            let made = self.made.iter().filter(move |(_, (ever, _))| how(ever));
            let counts = made.filter(|(number, _)| counted.contains(number));
            counts.map(|(number, (_, index))| (*number, *index))
        };
        let succeeded = status.succeeded.unwrap_or(0);
        let failed = status.failed.unwrap_or(0);
        let failures = size(ended(|e| e.failed).count() + self.cut_short.len());
        // One that ran again, because its node was removed, may have come to both: it counts as either.
        let surely = size(ended(|e| e.failed && !e.succeeded).count());
        if failed > failures || failed < surely {
            wrong(format!(
                "says that {failed} pods have failed, {failures} have"
            ));
        }
        if self.document.spec.is_indexed() {
            let done = numbers(status.completed_indexes.as_deref());
            let truly: BTreeSet<i32> = ended(|e| e.succeeded).filter_map(|(_, i)| i).collect();
            if let Some(index) = done.difference(&truly).next() {
                wrong(format!("says that index {index} has succeeded"));
            }
            if size(done.len()) != succeeded {
                wrong(format!(
                    "says {succeeded} successes and {} indexes",
                    done.len()
                ));
            }
        } else {
            let successes = size(ended(|e| e.succeeded).count());
            if succeeded > successes {
                wrong(format!(
                    "says that {succeeded} pods have succeeded, {successes} have"
                ));
            }
            let all = size(counted.len());
            if succeeded + failed != all {
                wrong(format!(
                    "says {succeeded} successes and {failed} failures of {all} pods"
                ));
            }
        }
        let mut ended_uncounted = self
            .made
            .iter()
            .filter(|(number, (ever, _))| ever.ended() && !counted.contains(number));
        if let Some((number, _)) = ended_uncounted.next().filter(|_| status.is_finished()) {
            wrong(format!("has ended, and its pod {number} is not counted"));
        }
        let counts = |s: &JobStatus| {
            (
                s.succeeded,
                s.failed,
                s.completed_indexes.clone(),
                s.conditions.clone(),
            )
        };
        if self.status.is_finished() && counts(&self.status) != counts(&status) {
            wrong("changed after it had ended".to_owned());
        }
        (self.status, self.counted) = (status, counted);
    }
}
