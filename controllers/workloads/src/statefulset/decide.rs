//! What to do for a StatefulSet: a pure function of what is, and of the time.

use std::collections::BTreeSet;

use setpoint_apis::Timestamp;

use super::plan::{ClaimSeen, Member, NewClaim, NewPod, NewRevision, Plan, Removal, Snapshot, Why};
use super::revision::{self, Target};
use super::status;
use crate::config::CopyPlan;
use crate::good;
use crate::replicaset::decide::{MOST_CREATED, held_back, sooner};
use crate::revisions::excess;
use crate::rollback::crashing;
use crate::standing::Unusable;

/// Decides.
///
/// # Guarantees
/// - Nothing is created or deleted while the document, or that of one of its revisions, does not parse.
/// - A pod is created only when no pod of its name is there, and the former one has stopped.
/// - OrderedReady: a pod is created when all pods of lower numbers are available. Scaled down is from the highest number,
///   when all pods of lower numbers are available, each when the one above has stopped.
/// - A rollout makes no available pod unavailable while `max_unavailable` pods are. It goes from the highest number down,
///   and leaves what is below the partition.
/// - A pod that is not available and of a revision that it is not to be of, and that was never good, is replaced at
///   once: so neither a rollback nor another template waits for a pod that cannot become ready.
pub fn decide(s: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if s.invalid.is_some() || !s.broken_revisions.is_empty() {
        let note = s.invalid.as_ref().map(Unusable::note);
        plan.notes
            .push(note.unwrap_or("a document does not parse: frozen").into());
        return status::frozen(plan, s, now);
    }
    if !s.terminating && s.adopts() {
        plan.adopt.clone_from(&s.adoptable);
        plan.release.clone_from(&s.releasable);
        plan.adopt_revisions.clone_from(&s.adoptable_revisions);
        return plan;
    }
    let asked = revision::asked(s);
    let target = asked.as_ref().map(|a| revision::target(s, &a.name));
    if s.terminating {
        plan.notes
            .push("it is being deleted, dependents first".into());
        return status::settle(plan, s, target.as_ref(), now);
    }
    if let Some(missing) = &s.missing {
        plan.notes
            .push(format!("there is no new revision while {missing}"));
    }
    if !s.namespace_exists {
        plan.notes.push("the namespace does not exist".into());
        return status::settle(plan, s, target.as_ref(), now);
    }
    if let Some(new) = revision::wanted(s).filter(|w| !w.is_settled(&s.revisions)) {
        plan.revision = Some(NewRevision {
            there: new.there.map(|i| s.revisions[i].seen.clone()),
            name: new.name,
            number: new.number,
        });
        if !revision::is_held(s) {
            // What is written here is a change, which brings the pass that goes on.
            plan.copies = copies(s, &plan);
            plan.copies.delete.clear();
            return plan;
        }
        plan.notes
            .push("the revision of the template was refused".into());
    }
    if let Some(target) = &target {
        let mut pass = Pass::new(s, target, now, &mut plan);
        pass.act();
        forget_history(&mut plan, s, target, now);
    }
    plan.copies = copies(s, &plan);
    status::settle(plan, s, target.as_ref(), now)
}

impl Snapshot {
    fn adopts(&self) -> bool {
        !(self.adoptable.is_empty()
            && self.releasable.is_empty()
            && self.adoptable_revisions.is_empty())
    }
}

/// Copies that the present template reads are made before its pods; those that no revision reads any more go.
fn copies(s: &Snapshot, plan: &Plan) -> CopyPlan {
    let kept = s.revisions.iter();
    let kept = kept.filter(|r| !plan.delete_revisions.contains(&r.seen));
    let templates = kept.filter_map(|r| r.template.as_ref());
    let mut copies = CopyPlan::new(&s.reads, &s.copies, templates);
    // While something is missing nobody knows what the present template will read.
    if s.missing.is_some() {
        copies.delete.clear();
    }
    copies
}

/// Revisions beyond the history go, except those that pods have or may get.
fn forget_history(plan: &mut Plan, s: &Snapshot, target: &Target, now: Timestamp) {
    let mut in_use: BTreeSet<&str> = [&*target.asked, &target.runs, &target.base].into();
    in_use.extend(revision::last_available(s));
    in_use.extend(s.members.iter().filter_map(|m| m.revision.as_deref()));
    let former = good::in_force(revision::former_available(s), now);
    plan.delete_revisions = excess(&s.revisions, &in_use, former, s.history_limit);
}

/// A pass in the making.
struct Pass<'a> {
    s: &'a Snapshot,
    target: &'a Target,
    now: Timestamp,
    plan: &'a mut Plan,
    /// Numbers whose pods this pass deletes.
    going: BTreeSet<i32>,
    /// Whether the order forbids all that comes after.
    waits: bool,
}

impl<'a> Pass<'a> {
    fn new(s: &'a Snapshot, target: &'a Target, now: Timestamp, plan: &'a mut Plan) -> Self {
        Self {
            s,
            target,
            now,
            plan,
            going: BTreeSet::new(),
            waits: false,
        }
    }

    fn act(&mut self) {
        self.replace_stuck();
        self.fill();
        self.replace_unavailable();
        self.replace_first();
        if !self.waits {
            self.scale_down();
        }
        if !self.waits {
            self.roll();
        }
        self.keep_claims();
    }

    fn is_available(&self, m: &Member) -> bool {
        m.is_available(self.s.min_ready, self.now)
    }

    /// Whether a pod that is there and may be touched is to be of another revision.
    fn is_outdated(&self, m: &Member) -> bool {
        m.facts.is_active()
            && !m.facts.frozen
            && !self.going.contains(&m.ordinal)
            && !m.is_of(self.target.of(self.s, m.ordinal))
    }

    fn delete(&mut self, m: &Member, why: Why) {
        self.going.insert(m.ordinal);
        let claims = self.s.claims.iter().filter(|c| {
            let goes = why == Why::ScaledDown && self.s.claims_go_with_pods;
            goes && c.ordinal == m.ordinal && c.made_here
        });
        self.plan.delete.push(Removal {
            pod: m.facts.seen(),
            why,
            claims: claims.map(|c| c.seen.clone()).collect(),
        });
    }

    /// Pods of a revision that never was good and is not wanted here any more do not become ready by waiting.
    fn replace_stuck(&mut self) {
        for m in self.s.wanted_members() {
            if self.is_stuck(m) {
                self.delete(m, Why::Stuck);
            }
        }
    }

    fn is_stuck(&self, m: &Member) -> bool {
        let good = revision::last_available(self.s);
        let proven = m.revision.is_some() && m.revision.as_deref() == good;
        self.s.rolling && self.is_outdated(m) && !self.is_available(m) && !proven
    }

    /// Creates what is missing from the lowest number up, and clears away what has ended.
    fn fill(&mut self) {
        let s = self.s;
        let mut members = s.wanted_members().peekable();
        let mut missing = Vec::new();
        // What failed for one fails for all most of the time: one is enough to find out whether it still does.
        let most = match (s.ordered, &s.setbacks.failure) {
            (false, None) => MOST_CREATED,
            _ => 1,
        };
        for offset in 0..s.wanted {
            let ordinal = s.first.saturating_add(offset);
            let member = members.next_if(|m| m.ordinal == ordinal);
            let comes = match member {
                Some(_) if self.going.contains(&ordinal) => true,
                Some(m) if m.counts() => !self.is_available(m),
                Some(m) => {
                    self.delete(m, Why::Ended);
                    true
                }
                None if s.stopping.contains(&ordinal) => true,
                None if s.foreign.contains(&ordinal) => {
                    let name = s.pod_name(ordinal);
                    let note = format!("pod {name} is there and not its own");
                    self.plan.notes.push(note);
                    true
                }
                None => {
                    missing.push(ordinal);
                    true
                }
            };
            if comes && s.ordered {
                self.waits = true;
                break;
            }
            if missing.len() == most {
                break;
            }
        }
        self.create(&missing);
    }

    fn create(&mut self, missing: &[i32]) {
        let s = self.s;
        let ended = self.plan.delete.iter().filter(|r| r.why == Why::Ended);
        let ended = u32::try_from(ended.count()).unwrap_or(u32::MAX);
        if missing.is_empty() && ended == 0 {
            return;
        }
        if let Some(wait) = held_back(&s.setbacks, ended, s.wanted, self.now) {
            if !missing.is_empty() {
                let note = "pods end too soon, so the next come later";
                self.plan.notes.push(note.into());
            }
            sooner(&mut self.plan.look_again, wait);
            return;
        }
        for ordinal in missing {
            self.plan.create.push(NewPod {
                ordinal: *ordinal,
                name: s.pod_name(*ordinal),
                revision: self.target.of(s, *ordinal).to_owned(),
            });
        }
    }

    /// Pods of a revision that was good, that are not available, and are to be of another one: replacing them makes
    /// nothing worse. But they may be waiting for a pod of the new revision (peers of a quorum do), so of these there
    /// are not more on their way than a rollout may have.
    fn replace_unavailable(&mut self) {
        if !self.s.rolling {
            return;
        }
        let on_their_way = self.unavailable(|pass, m| !pass.is_outdated(m));
        let mut room = i64::from(self.s.max_unavailable) - on_their_way;
        for m in self.s.wanted_members().rev() {
            if room <= 0 {
                break;
            }
            if self.is_outdated(m) && !self.is_available(m) {
                self.delete(m, Why::Stuck);
                room -= 1;
            }
        }
    }

    /// In order nothing comes before the lowest pod that is there is available. One that crashes for good and is to be of
    /// another revision would hold up what is missing, and wait for it, for ever.
    fn replace_first(&mut self) {
        let s = self.s;
        let stopping = s.stopping.iter().any(|n| s.in_range(*n));
        if !s.rolling || !s.ordered || stopping || !self.going.is_empty() {
            return;
        }
        let first = s.wanted_members().find(|m| !self.is_available(m));
        let crashes =
            |m: &&Member| self.is_outdated(m) && crashing([&m.facts].into_iter()).is_some();
        if let Some(m) = first.filter(crashes) {
            self.delete(m, Why::Stuck);
        }
    }

    /// How many pods are missing or not available; of the latter those that `counts` names.
    fn unavailable(&self, counts: impl Fn(&Self, &Member) -> bool) -> i64 {
        let (mut there, mut unavailable) = (0_i64, 0);
        for m in self.s.wanted_members() {
            there += 1;
            let gone = self.going.contains(&m.ordinal);
            if gone || (!self.is_available(m) && counts(self, m)) {
                unavailable += 1;
            }
        }
        i64::from(self.s.wanted) - there + unavailable
    }

    /// Removes pods whose numbers are not wanted, the highest first. In order that halts, as in Kubernetes, while one of
    /// lower number is not available either; a pod that is stuck with what nobody wants any more is not waited for,
    /// and one that is to go and has no node may never have one, as when its claim is gone.
    fn scale_down(&mut self) {
        let s = self.s;
        let stopping = s.stopping.iter().any(|n| !s.in_range(*n));
        if s.ordered && stopping {
            self.waits = true;
            return;
        }
        let has_place = |m: &&Member| s.in_range(m.ordinal) || m.facts.node.is_some();
        let mut placed = s.members.iter().filter(has_place);
        let lowest = placed.find(|m| !self.is_available(m));
        let lowest = lowest.map(|m| m.ordinal);
        for m in s.members.iter().rev().filter(|m| !s.in_range(m.ordinal)) {
            let name = &m.facts.key.name;
            let waits = s.ordered && m.counts() && has_place(&m);
            let waits = waits && !self.is_available(m) && !self.is_stuck(m);
            if m.facts.frozen {
                let note = format!("pod {name} is to go and does not parse: left alone");
                self.plan.notes.push(note);
            } else if waits && lowest != Some(m.ordinal) {
                let note = format!("pod {name} is to go, and one of lower number is not available");
                self.plan.notes.push(note);
            } else {
                self.delete(m, Why::ScaledDown);
            }
            if s.ordered {
                self.waits = true;
                break;
            }
        }
    }

    /// Replaces available pods of other revisions, the highest number first.
    fn roll(&mut self) {
        if !self.s.rolling {
            return;
        }
        let mut room = i64::from(self.s.max_unavailable) - self.unavailable(|_, _| true);
        for m in self.s.wanted_members().rev() {
            if room <= 0 || !revision::above_partition(self.s, m.ordinal) {
                break;
            }
            if self.is_outdated(m) && self.is_available(m) {
                self.delete(m, Why::Outdated);
                room -= 1;
            }
        }
    }

    /// Claims of the pods that come and of those that wait for theirs; and whose they are.
    fn keep_claims(&mut self) {
        let s = self.s;
        let mut wanted: BTreeSet<i32> = self.plan.create.iter().map(|p| p.ordinal).collect();
        let waiting = s.wanted_members().filter(|m| {
            m.counts() && m.facts.ready_since.is_none() && !self.going.contains(&m.ordinal)
        });
        wanted.extend(waiting.map(|m| m.ordinal));
        for (ordinal, template) in &s.absent_claims {
            if wanted.contains(ordinal) {
                self.plan.claims.push(NewClaim {
                    template: *template,
                    pod: s.pod_name(*ordinal),
                });
            }
        }
        let gone = |seen| self.plan.delete.iter().any(|r| r.claims.contains(seen));
        // Somebody may have taken a claim over whose reference was put there, or put back, in the midst of that: gc would
        // delete what is theirs together with the StatefulSet.
        let goes_with_set = |c: &ClaimSeen| match c.made_here {
            true => s.claims_go_with_set,
            false => c.owned && !c.taken_over,
        };
        let kept = s.claims.iter().filter(|c| !gone(&c.seen));
        let (mut own, mut disown) = (Vec::new(), Vec::new());
        for claim in kept.filter(|c| c.owned != goes_with_set(c)) {
            let list = if claim.owned { &mut disown } else { &mut own };
            list.push(claim.seen.clone());
        }
        self.plan.own_claims = own;
        self.plan.disown_claims = disown;
    }
}
