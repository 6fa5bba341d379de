//! Controllers that end between any two writes, pods that end, move and are deleted meanwhile: the counts are exact.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::job::plan::Removal;

/// Pods by number: whether they ended with success, and their index.
type Ended = BTreeMap<i32, (bool, Option<i32>)>;

/// What is, whatever controllers know of it.
struct World {
    s: Snapshot,
    rng: fastrand::Rng,
    time: i64,
    /// Pods that have ended while they were there, by number: whether with success, and their index.
    ended: Ended,
    /// What had ended when the controller looked that found that the Job has failed.
    when_it_failed: Option<Ended>,
    /// Numbers of pods that were taken away though they had not ended.
    taken: BTreeSet<i32>,
}

/// One write, as the store carries them out: each alone.
enum Write {
    Delete(Removal),
    Create(NewPod),
    Status(JobStatus),
}

impl World {
    fn new(spec: &str, seed: u64) -> Self {
        Self {
            s: job(spec),
            rng: fastrand::Rng::with_seed(seed),
            time: NOW,
            ended: BTreeMap::new(),
            when_it_failed: None,
            taken: BTreeSet::new(),
        }
    }

    fn finished(&self) -> bool {
        self.s.status.as_ref().is_some_and(JobStatus::is_finished)
    }

    /// Something happens to pods.
    fn happens(&mut self) {
        self.time += self.rng.i64(0..40);
        let live: Vec<usize> = (0..self.s.pods.len())
            .filter(|i| self.s.pods[*i].outcome == Outcome::None)
            .collect();
        if let Some(i) = self.rng.choice(live) {
            let pod = &mut self.s.pods[i];
            let number = pod.number.unwrap();
            // One that is counted runs again: what it comes to makes no difference any more.
            let success = self.rng.u8(0..10) < 7;
            match self.rng.u8(0..10) {
                0..6 => {
                    *pod = match success {
                        true => pod.clone().succeeded(self.time),
                        false => pod.clone().failed(self.time, 1),
                    };
                    pod.record = Record::At("n1".into(), self.rng.i64(100..i64::MAX));
                    self.ended.entry(number).or_insert((success, pod.index));
                }
                // It moves to another node: the same pod, running.
                6 => pod.record = Record::At("n2".into(), self.rng.i64(100..i64::MAX)),
                _ => {}
            }
        }
        if self.rng.u8(0..4) == 0 {
            self.s.stopping.clear();
        }
        if self.rng.u8(0..8) == 0 {
            // The node of a pod that is counted is removed, and the pod's record with it.
            let counted = self.s.stored.pods.clone();
            let gone = self
                .s
                .pods
                .iter_mut()
                .find(|p| p.outcome != Outcome::None && counted.contains(p.number.unwrap()));
            if let Some(p) = gone {
                (p.outcome, p.facts.state) = (Outcome::None, PodState::Pending);
                p.record = Record::Unbound;
            }
        }
        if self.rng.u8(0..12) == 0 {
            // Somebody deletes a pod that has ended and is counted.
            let counted = self.s.stored.pods.clone();
            let gone =
                self.s.pods.iter().position(|p| {
                    p.outcome != Outcome::None && counted.contains(p.number.unwrap())
                });
            if let Some(i) = gone {
                self.s.pods.remove(i);
            }
        }
    }

    /// A controller decides, and carries out some of what it planned; then another one takes over. Things happen between
    /// its look and each of its writes, which hold only while what they were decided on is as it was.
    fn controller(&mut self) {
        self.s.salt += 1;
        let plan = decide(&self.s, at(self.time));
        let before = self.s.status.clone();
        let ended = self.ended.clone();
        let mut writes: Vec<Write> = plan.delete.into_iter().map(Write::Delete).collect();
        writes.extend(plan.create.into_iter().map(Write::Create));
        writes.extend(plan.status.map(Write::Status));
        let until = self.rng.usize(0..=writes.len());
        for write in writes.into_iter().take(until) {
            if self.rng.u8(0..5) == 0 {
                self.happens();
            }
            match write {
                Write::Delete(removal) => self.delete(&removal),
                Write::Create(new) => {
                    assert!(
                        !self.ended.contains_key(&new.number) || self.taken.contains(&new.number),
                        "number {} comes again",
                        new.number
                    );
                    self.s.pods.push(created(&new));
                }
                Write::Status(status) => {
                    assert_eq!(self.s.status, before, "nobody else writes it");
                    if status.is("FailureTarget") {
                        self.when_it_failed.get_or_insert_with(|| ended.clone());
                    }
                    self.s.store(status);
                }
            }
        }
        self.s.pods.sort_by(|a, b| a.facts.key.cmp(&b.facts.key));
    }

    fn delete(&mut self, removal: &Removal) {
        let found = self
            .s
            .pods
            .iter()
            .position(|p| p.facts.key == removal.pod.key);
        let Some(i) = found.filter(|i| self.s.pods[*i].record == removal.record) else {
            return;
        };
        let pod = self.s.pods.remove(i);
        assert_eq!(pod.outcome, Outcome::None, "what has ended stays");
        self.taken.extend(pod.number);
        self.s
            .stopping
            .push((pod.facts.key.name.clone(), pod.index));
    }

    /// What the status must say in the end.
    fn check(&self, what: &str) {
        let status = self.s.status.clone().unwrap();
        let (succeeded, failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        let truly = |success: bool| self.ended.values().filter(|e| e.0 == success).count();
        let counted = &self.s.stored.pods;
        let all = self.ended.keys().all(|n| counted.contains(*n));
        assert!(all, "one is not counted: {what}, {:?}", self.ended);
        if let Some(ended) = &self.when_it_failed {
            // What ran when it failed counts as failed; what had ended counts as it had ended.
            let had = |success: bool| ended.values().filter(|e| e.0 == success).count();
            assert!(failed as usize >= had(false), "{what}");
            if !self.s.spec.is_indexed() {
                assert!(succeeded as usize >= had(true), "{what}");
                assert_eq!(succeeded + failed, counted.count(), "{what}");
            }
            return;
        }
        if self.s.spec.is_indexed() {
            let done = self.ended.values().filter(|e| e.0).filter_map(|e| e.1);
            let done: BTreeSet<i32> = done.collect();
            assert_eq!(succeeded as usize, done.len(), "{what}");
        } else {
            assert_eq!(succeeded as usize, truly(true), "{what}");
        }
        assert_eq!(failed as usize, truly(false), "{what}");
    }
}

#[test]
fn counts_are_exact_though_controllers_end_between_any_two_writes() {
    let mut ends = BTreeMap::new();
    for spec in [
        "completions: 6\nparallelism: 3\nbackoffLimit: 1000",
        "parallelism: 3\nbackoffLimit: 1000",
        "completions: 6\nparallelism: 4\nbackoffLimit: 3",
        "completionMode: Indexed\ncompletions: 6\nparallelism: 3\nbackoffLimit: 1000",
        "completionMode: Indexed\ncompletions: 6\nparallelism: 4\nbackoffLimit: 2",
    ] {
        for seed in 0..400 {
            let mut world = World::new(spec, seed);
            for _ in 0..3_000 {
                if world.finished() {
                    break;
                }
                world.happens();
                world.controller();
            }
            let what = format!("{spec:?}, seed {seed}, {}", status(&world.s));
            assert!(world.finished(), "{what}");
            let complete = world.s.status.as_ref().unwrap().is("Complete");
            *ends.entry(complete).or_insert(0) += 1;
            world.check(&what);
            // And it stays so.
            let done = world.s.status.clone();
            for _ in 0..20 {
                world.happens();
                world.controller();
            }
            assert_eq!(world.s.status, done, "{what}");
        }
    }
    assert!(
        ends.len() == 2 && ends.values().all(|n| *n > 100),
        "{ends:?}"
    );
}
