//! Decisions about StatefulSets: values in, plans out; and whole rollouts on a model.

use std::collections::BTreeSet;
use std::time::Duration;

use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::{ObjectKey, Timestamp};

mod claims;
mod order;
mod rollback;
mod rollout;

use super::decide::decide;
use super::documents::ordinal;
use super::plan::{Member, Plan, Seen, Setbacks, Snapshot};
use crate::pod::{PodFacts, PodState, Trouble};
use crate::revisions::Revision;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

/// Pods of an image that begins with `broken` never become ready.
fn template(image: &str) -> PodTemplateSpec {
    let text = format!(
        "metadata: {{labels: {{app: db}}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn set(wanted: i32, image: &str) -> Snapshot {
    Snapshot {
        key: ObjectKey::namespaced("default", "db"),
        uid: "u".into(),
        generation: 1,
        invalid: None,
        fixed: None,
        overlap: None,
        config_seen: None,
        decided: None,
        broken_scaler: None,
        broken_revisions: vec![],
        terminating: false,
        namespace_exists: true,
        wanted,
        first: 0,
        ordered: true,
        rolling: true,
        partition: 0,
        max_unavailable: 1,
        min_ready: Duration::ZERO,
        template: template(image),
        reads: vec![],
        missing: None,
        copies: vec![],
        rolls_back: true,
        progress_deadline: Some(Duration::from_secs(600)),
        up_since: Timestamp::EPOCH,
        history_limit: 10,
        revisions: vec![],
        adoptable_revisions: vec![],
        taken: [].into(),
        members: vec![],
        stopping: [].into(),
        foreign: [].into(),
        adoptable: vec![],
        releasable: vec![],
        absent_claims: [].into(),
        claims: vec![],
        claims_go_with_pods: false,
        claims_go_with_set: false,
        setbacks: Setbacks::default(),
        status: None,
    }
}

/// The store, the scheduler and the agents, as a model.
struct World {
    s: Snapshot,
    revision: i64,
    now: i64,
    /// Pods that have been created and deleted, in order: `+0`, `-0`.
    history: Vec<String>,
}

impl World {
    fn new(s: Snapshot) -> Self {
        Self {
            s,
            revision: 100,
            now: 1_000,
            history: Vec::new(),
        }
    }

    fn plan(&self) -> Plan {
        decide(&self.s, at(self.now))
    }

    fn apply(&mut self, plan: &Plan) {
        self.revision += 1;
        let mod_revision = self.revision;
        if let Some(new) = &plan.revision {
            self.s.revisions.retain(|r| r.name() != new.name);
            self.s.revisions.push(Revision {
                seen: Seen {
                    key: ObjectKey::namespaced("default", new.name.as_str()),
                    mod_revision,
                },
                number: new.number,
                template: Some(self.s.template.clone()),
                frozen: false,
            });
        }
        let gone = &plan.delete_revisions;
        self.s.revisions.retain(|r| !gone.contains(&r.seen));
        for removal in &plan.delete {
            let ordinal = ordinal("db", &removal.pod.key.name).unwrap();
            self.s.members.retain(|m| m.ordinal != ordinal);
            self.s.stopping.insert(ordinal);
            self.s.claims.retain(|c| !removal.claims.contains(&c.seen));
            self.history.push(format!("-{ordinal}"));
        }
        for new in &plan.claims {
            let ordinal = ordinal("db", &new.pod).unwrap();
            self.s.absent_claims.remove(&(ordinal, new.template));
        }
        for new in &plan.create {
            let there = self.s.members.iter().any(|m| m.ordinal == new.ordinal);
            assert!(
                !there && !self.s.stopping.contains(&new.ordinal),
                "{} is created while it is there",
                new.name
            );
            self.s.members.push(Member {
                ordinal: new.ordinal,
                revision: Some(new.revision.clone()),
                facts: PodFacts {
                    key: ObjectKey::namespaced("default", new.name.as_str()),
                    mod_revision,
                    create_revision: mod_revision,
                    frozen: false,
                    node: None,
                    reported: false,
                    state: PodState::Unbound,
                    ready_since: None,
                    deletion_cost: 0,
                    restarts: 0,
                    trouble: None,
                },
            });
            self.history.push(format!("+{}", new.ordinal));
        }
        self.s.members.sort_by_key(|m| m.ordinal);
        if let Some(status) = &plan.status {
            self.s.status = Some(status.clone());
        }
    }

    /// Plans and applies until nothing is planned. Shows that one more pass plans nothing.
    fn settle(&mut self) -> Vec<Plan> {
        let mut plans = Vec::new();
        loop {
            let plan = self.plan();
            if plan.is_empty() {
                return plans;
            }
            self.apply(&plan);
            plans.push(plan);
            assert!(plans.len() < 30, "it does not settle: {plans:?}");
        }
    }

    fn image(&self, m: &Member) -> String {
        let name = m.revision.as_deref();
        let revision = self.s.revisions.iter().find(|r| Some(r.name()) == name);
        let template = revision.and_then(|r| r.template.as_ref()).unwrap();
        template.spec.containers[0].image.clone()
    }

    /// Pods start, and become ready when they can.
    fn start_pods(&mut self) {
        let images: Vec<String> = self.s.members.iter().map(|m| self.image(m)).collect();
        for (m, image) in self.s.members.iter_mut().zip(images) {
            if m.facts.state < PodState::Running {
                m.facts.state = PodState::Running;
                m.facts.node = Some("n1".into());
                let good = !image.starts_with("broken");
                m.facts.ready_since = good.then(|| at(self.now));
            }
        }
    }

    /// Pods that are not wanted stop.
    fn stop_pods(&mut self) {
        self.s.stopping.clear();
    }

    /// Everybody acts until nothing happens any more. `check` looks at every state.
    fn run_with(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..200 {
            let mut still = self.settle().is_empty();
            check(self);
            let before = self.s.clone();
            self.start_pods();
            check(self);
            still &= !self.settle().is_empty() || before == self.s;
            check(self);
            self.stop_pods();
            if still && before == self.s {
                return;
            }
        }
        panic!("it does not come to rest: {}", self.plan());
    }

    fn run(&mut self) {
        self.run_with(|_| ());
    }

    fn images(&self) -> String {
        let images = self.s.members.iter();
        let images = images.map(|m| format!("{}{}", self.image(m), m.ordinal));
        images.collect::<Vec<_>>().join(" ")
    }

    fn available(&self) -> usize {
        let (min_ready, now) = (self.s.min_ready, at(self.now));
        let all = self.s.members.iter();
        all.filter(|m| m.is_available(min_ready, now)).count()
    }

    fn crash(&mut self, ordinal: i32) {
        let facts = self.facts(ordinal);
        facts.ready_since = None;
        facts.trouble = Some(Trouble {
            container: "c".into(),
            reason: "CrashLoopBackOff".into(),
            restarts: Trouble::MANY,
        });
    }

    fn facts(&mut self, ordinal: i32) -> &mut PodFacts {
        let mut members = self.s.members.iter_mut();
        &mut members.find(|m| m.ordinal == ordinal).unwrap().facts
    }

    fn roll_to(&mut self, image: &str) {
        self.s.template = template(image);
        self.s.generation += 1;
        self.history.clear();
    }

    fn condition(&self, type_: &str) -> Option<String> {
        let conditions = &self.s.status.as_ref()?.conditions;
        let c = conditions.iter().find(|c| c.type_ == type_)?;
        Some(format!("{}/{}", c.status, c.reason.as_deref()?))
    }

    /// `current*n updated*n` by image.
    fn status(&self) -> String {
        let status = self.s.status.as_ref().unwrap();
        let image = |name: &Option<String>| {
            let mut all = self.s.revisions.iter();
            let found = all.find(|r| Some(r.name()) == name.as_deref()).unwrap();
            let template = found.template.as_ref().unwrap();
            template.spec.containers[0].image.clone()
        };
        format!(
            "{}*{} {}*{}",
            image(&status.current_revision),
            status.current_replicas.unwrap_or(0),
            image(&status.update_revision),
            status.updated_replicas.unwrap_or(0)
        )
    }

    fn stopping(&self) -> &BTreeSet<i32> {
        &self.s.stopping
    }
}

fn running(s: Snapshot) -> World {
    let mut w = World::new(s);
    w.run();
    assert_eq!(w.available(), usize::try_from(w.s.wanted).unwrap());
    w.history.clear();
    w
}

fn parallel(s: Snapshot) -> Snapshot {
    Snapshot {
        ordered: false,
        ..s
    }
}
