//! What to do for a DaemonSet: a pure function of what is, and of the time.

use std::collections::BTreeSet;
use std::time::Duration;

use setpoint_apis::Timestamp;

use super::fit::Fit;
use super::ground::{Ground, Row};
use super::plan::{DaemonPod, NewPod, Plan, Removal, Snapshot, Why};
use super::revision::{self, Target};
use super::status;
use crate::config::CopyPlan;
use crate::good;
use crate::hash::PodNames;
use crate::replicaset::decide::{MOST_CREATED, sooner};
use crate::revisions::excess;

/// How long a pod stays that ends when another one had ended on its node before: Kubernetes' backoff. Twice as long each
/// time, and forgotten when nothing has ended for twice the longest.
pub const FIRST_DELAY: Duration = Duration::from_secs(1);
/// See [`FIRST_DELAY`].
pub const LONGEST_DELAY: Duration = Duration::from_secs(15 * 60);

/// Names that are tried for each pod to be created.
const TRIES: usize = 8;

/// Decides.
///
/// # Guarantees
/// - Nothing is created or deleted while the document, or that of one of its revisions, does not parse, while the DaemonSet is being deleted, before the
///   revision of its template is there, or in the same pass in which pods are adopted or released.
/// - Without maxSurge a node never has two pods of the DaemonSet: the next one is created when the last one has stopped.
/// - A rolling update takes available pods away only as long as pods are missing or not available on fewer nodes than
///   maxUnavailable says, and puts second pods beside available ones on no more nodes than maxSurge says.
/// - What is bound to a node that is lost is left alone while the node may have it, and no second pod is made for it.
pub fn decide(s: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if let Some(unusable) = &s.invalid {
        plan.notes.push(unusable.note().into());
        return status::frozen(plan, s, unusable, now);
    }
    let target = revision::target(s);
    let ground = Ground::new(s, &target, now);
    if s.terminating {
        plan.notes
            .push("it is being deleted, dependents first".into());
        return status::settle(plan, s, &target, &ground, now);
    }
    if !(s.adoptable.is_empty() && s.releasable.is_empty() && s.adoptable_revisions.is_empty()) {
        plan.adopt.clone_from(&s.adoptable);
        plan.release.clone_from(&s.releasable);
        plan.adopt_revisions.clone_from(&s.adoptable_revisions);
        return plan;
    }
    if let Some(missing) = &s.missing {
        plan.notes
            .push(format!("there is no new revision while {missing}"));
    }
    if !s.namespace_exists {
        plan.notes.push("the namespace does not exist".into());
    }
    if let Some(wanted) = &target.write {
        // Pods name their revision, so it is there before them.
        plan.revision = s.namespace_exists.then(|| wanted.clone());
    }
    if let Some(name) = target.name.as_ref().filter(|_| target.is_there()) {
        plan.run = Some(name.clone());
        Pass::new(s, &ground, now, &mut plan).run();
        forget_history(&mut plan, s, &target, now);
    }
    plan.copies = copies(s, &plan);
    status::settle(plan, s, &target, &ground, now)
}

/// Copies that the present template reads are made before its revision; those that no revision reads any more go.
fn copies(s: &Snapshot, plan: &Plan) -> CopyPlan {
    let kept = s
        .revisions
        .iter()
        .filter(|r| !plan.forget.contains(&r.seen));
    let mut copies = CopyPlan::new(
        &s.reads,
        &s.copies,
        kept.filter_map(|r| r.template.as_ref()),
    );
    // While something is missing nobody knows what the present template will read; while a revision cannot be read
    // nobody knows what that one does.
    if s.missing.is_some() || s.revisions.iter().any(|r| r.template.is_none()) {
        copies.delete.clear();
    }
    if !s.namespace_exists {
        copies.create.clear();
    }
    copies
}

/// Deletes revisions beyond the history that no pod is of and nothing may go back to.
fn forget_history(plan: &mut Plan, s: &Snapshot, target: &Target<'_>, now: Timestamp) {
    let keep = usize::try_from(s.history_limit).unwrap_or(0);
    if s.revisions.len() <= keep || s.missing.is_some() {
        return;
    }
    let mut in_use: BTreeSet<&str> = [target.name.as_deref(), target.asked.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    in_use.extend(revision::last_available(s));
    let hashes: BTreeSet<&str> = s.pods.iter().filter_map(|p| p.hash.as_deref()).collect();
    let of_pods = s.revisions.iter().map(|r| r.name());
    in_use.extend(of_pods.filter(|name| hashes.contains(s.hash_of(name))));
    let former = good::in_force(revision::former_available(s), now);
    plan.forget = excess(&s.revisions, &in_use, former, s.history_limit);
}

/// A plan in the making.
struct Pass<'a> {
    s: &'a Snapshot,
    ground: &'a Ground<'a>,
    now: Timestamp,
    plan: &'a mut Plan,
    surges: bool,
    /// Nodes that are to get a pod.
    create: Vec<&'a Row<'a>>,
    /// Nodes on which no pod is available though one is to be.
    unavailable: usize,
    /// Nodes on which a new pod is beside an old one that is available.
    surging: usize,
    /// Available pods of old revisions: some of them are replaced now.
    outdated: Vec<(&'a Row<'a>, &'a DaemonPod)>,
    /// Pods that do not parse and would go otherwise.
    frozen: usize,
}

impl<'a> Pass<'a> {
    fn new(s: &'a Snapshot, ground: &'a Ground<'a>, now: Timestamp, plan: &'a mut Plan) -> Self {
        Self {
            s,
            ground,
            now,
            plan,
            surges: s.surges(),
            create: Vec::new(),
            unavailable: 0,
            surging: 0,
            outdated: Vec::new(),
            frozen: 0,
        }
    }

    fn run(mut self) {
        let ground = self.ground;
        for row in &ground.rows {
            match row.fit {
                Fit::Unknown => {}
                Fit::Leaves => row.pods.iter().for_each(|p| self.remove(p, Why::NotWanted)),
                // Nothing is bound to it any more, so these never will be.
                _ if row.removed && row.pods.iter().all(|p| p.facts.node.is_none()) => {
                    row.pods.iter().for_each(|p| self.remove(p, Why::NotWanted));
                }
                Fit::Runs | Fit::Stays => self.node(row),
            }
        }
        for pod in &ground.strays {
            self.remove(pod, Why::NotWanted);
        }
        self.roll();
        self.create();
        let unknown = ground.rows.iter().filter(|r| r.fit == Fit::Unknown);
        for (count, what) in [
            (self.frozen, "pods do not parse and are left alone"),
            (
                unknown.count(),
                "nodes do not parse: their pods are left alone",
            ),
            (ground.homeless, "pods are for no node and are left alone"),
        ] {
            if count > 0 {
                self.plan.notes.push(format!("{count} {what}"));
            }
        }
    }

    fn remove(&mut self, pod: &DaemonPod, why: Why) {
        if pod.facts.frozen {
            self.frozen += 1;
            return;
        }
        self.plan.delete.push(Removal {
            pod: pod.facts.seen(),
            node: pod.node.clone(),
            why,
        });
    }

    /// One node that may have a pod.
    fn node(&mut self, row: &'a Row<'a>) {
        let mut ended = false;
        for pod in row.pods.iter().filter(|p| !p.is_active()) {
            ended = true;
            self.ended(row, pod);
        }
        let room = !ended && row.fit == Fit::Runs;
        if self.surges {
            self.surge(row, room);
        } else {
            self.one(row, room && !row.stopping);
        }
    }

    /// A pod has ended for good. It goes, and so makes room for the next one, but not again and again without a pause.
    fn ended(&mut self, row: &Row<'_>, pod: &DaemonPod) {
        let setback = self.s.setbacks.get(row.name);
        let due = setback
            .filter(|b| b.generation == self.s.generation)
            .map(|b| b.at.saturating_add(b.delay));
        match due.filter(|due| *due > self.now) {
            None => self.remove(pod, Why::Ended),
            Some(due) => sooner(&mut self.plan.look_again, due.duration_since(self.now)),
        }
    }

    /// A node that has one pod at a time.
    fn one(&mut self, row: &'a Row<'a>, room: bool) {
        let mut active = row.pods.iter().filter(|p| p.is_active());
        let Some(pod) = active.next() else {
            if room {
                self.create.push(row);
            }
            let wants = row.fit == Fit::Runs || row.stopping;
            self.unavailable += usize::from(wants && !row.lost);
            return;
        };
        let before = self.plan.delete.len();
        active.for_each(|p| self.remove(p, Why::Extra));
        let (new, available) = (self.ground.is_new(pod), self.ground.is_available(row, pod));
        if row.lost {
            // Nothing of it runs anywhere; what is bound there may well run.
            if !new && self.s.rolls() && pod.facts.node.is_none() {
                self.remove(pod, Why::Outdated);
            }
        } else if self.plan.delete.len() > before || (new && !available) {
            self.unavailable += 1;
        } else if !new && self.s.rolls() {
            match available {
                // It takes no other one's turn.
                true if pod.facts.frozen => self.frozen += 1,
                true => self.outdated.push((row, pod)),
                // It is missing already, whoever replaces it: so no other one may be for that.
                false => {
                    self.remove(pod, Why::Outdated);
                    self.unavailable += 1;
                }
            }
        }
    }

    /// A node on which a new pod may be beside an old one.
    fn surge(&mut self, row: &'a Row<'a>, room: bool) {
        let before = self.plan.delete.len();
        let (mut new, mut old) = (None, None);
        for pod in row.pods.iter().filter(|p| p.is_active()) {
            let place = if self.ground.is_new(pod) {
                &mut new
            } else {
                &mut old
            };
            match place {
                None => *place = Some(pod),
                Some(_) => self.remove(pod, Why::Extra),
            }
        }
        // A template that changes in mid-rollout leaves two that are old: there are never three.
        let room = room && self.plan.delete.len() == before;
        match (new, old) {
            (None, None) if room => self.create.push(row),
            (Some(new), Some(old)) if !row.lost => {
                let old_serves = self.ground.is_ready(row, old);
                if !old_serves || self.ground.is_available(row, new) {
                    self.remove(old, Why::Outdated);
                } else {
                    self.surging += 1;
                }
            }
            (None, Some(old)) if old.facts.frozen => self.frozen += 1,
            (None, Some(old)) if room && !row.lost => match self.ground.is_available(row, old) {
                true => self.outdated.push((row, old)),
                false => self.create.push(row),
            },
            _ => {}
        }
    }

    /// The next step of a rolling update.
    fn roll(&mut self) {
        let desired = self.ground.desired();
        let (used, most) = match self.surges {
            true => (self.surging, self.s.surge(desired)),
            false => (self.unavailable, self.s.unavailable(desired)),
        };
        let outdated = std::mem::take(&mut self.outdated);
        for (row, pod) in outdated.into_iter().take(most.saturating_sub(used)) {
            match self.surges {
                true => self.create.push(row),
                false => self.remove(pod, Why::Outdated),
            }
        }
    }

    fn create(&mut self) {
        let s = self.s;
        let missing = self.create.len();
        if missing == 0 || !s.namespace_exists {
            return;
        }
        if s.unreadable > 0 {
            self.plan.notes.push(format!(
                "{missing} pods are missing, but {} do not parse, and nobody knows for which nodes they are",
                s.unreadable
            ));
            return;
        }
        // What failed for one fails for all most of the time: one is enough to find out whether it still does.
        let count = if s.failure.is_some() {
            1
        } else {
            missing.min(MOST_CREATED)
        };
        let there: BTreeSet<&str> = s.pods.iter().map(|p| &*p.facts.key.name).collect();
        let mut names = BTreeSet::new();
        let tries = count.saturating_mul(TRIES).saturating_add(100);
        for name in PodNames::new(&s.key.name, &s.uid, s.salt).take(tries) {
            if names.len() == count {
                break;
            }
            if !s.taken.contains(name.as_str()) && !there.contains(name.as_str()) {
                names.insert(name);
            }
        }
        let pods = self.create.iter().zip(names);
        self.plan.create = pods
            .map(|(row, name)| NewPod {
                name,
                node: row.name.clone(),
            })
            .collect();
        self.plan.create.sort_by(|a, b| a.node.cmp(&b.node));
    }
}
