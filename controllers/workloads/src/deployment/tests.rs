//! Decisions about Deployments: values in, plans out; and whole rollouts on a model.

use std::time::Duration;

use setpoint_apis::apps::{DeploymentStrategy, DeploymentStrategyType, RollingUpdateDeployment};
use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::meta::SET_BY_COMMAND;
use setpoint_apis::{IntOrString, ObjectKey, Timestamp};

mod rollback;
mod says;
mod sizes;

use super::decide::decide;
use super::plan::{
    DESIRED_REPLICAS, HASH_LABEL, Plan, REVISION, REVISION_HISTORY, Seen, SetFacts, Snapshot,
};
use crate::good::PROBATION;
use crate::standing::Unusable;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn template(image: &str) -> PodTemplateSpec {
    let text = format!(
        "metadata: {{labels: {{app: web}}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn deployment(wanted: i32, image: &str) -> Snapshot {
    Snapshot {
        key: ObjectKey::namespaced("default", "web"),
        uid: "u".into(),
        generation: 1,
        invalid: None,
        fixed: None,
        overlap: None,
        config_seen: None,
        decided: None,
        broken_scaler: None,
        broken_sets: vec![],
        terminating: false,
        namespace_exists: true,
        wanted,
        paused: false,
        strategy: DeploymentStrategy::default(),
        template: template(image),
        reads: vec![],
        missing: None,
        copies: vec![],
        rolls_back: true,
        annotations: [].into(),
        min_ready_seconds: 0,
        progress_deadline: Some(Duration::from_secs(600)),
        up_since: Timestamp::EPOCH,
        history_limit: 10,
        sets: vec![],
        adoptable: vec![],
        releasable: vec![],
        taken: [].into(),
        failure: None,
        status: None,
    }
}

fn rolling(surge: &str, unavailable: &str) -> DeploymentStrategy {
    let number = |s: &str| {
        s.parse::<i32>()
            .map_or_else(|_| IntOrString::from(s), IntOrString::from)
    };
    DeploymentStrategy {
        type_: Some(DeploymentStrategyType::RollingUpdate),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(number(surge)),
            max_unavailable: Some(number(unavailable)),
        }),
    }
}

fn recreate() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some(DeploymentStrategyType::Recreate),
        rolling_update: None,
    }
}

/// The store, the ReplicaSet controller and the agents, as a model.
struct World {
    s: Snapshot,
    revision: i64,
    now: i64,
}

impl World {
    fn new(s: Snapshot) -> Self {
        Self {
            s,
            revision: 100,
            now: 1_000,
        }
    }

    fn plan(&self) -> Plan {
        decide(&self.s, at(self.now))
    }

    fn apply(&mut self, plan: &Plan) {
        self.revision += 1;
        let revision = self.revision;
        if let Some(new) = &plan.create {
            let mut template = self.s.template.clone();
            template
                .metadata
                .labels
                .insert(HASH_LABEL.into(), new.hash.clone());
            self.s.sets.push(SetFacts {
                seen: Seen {
                    key: ObjectKey::namespaced("default", new.name.as_str()),
                    mod_revision: revision,
                },
                create_revision: revision,
                replicas: new.replicas,
                min_ready_seconds: self.s.min_ready_seconds,
                template,
                annotations: new.annotations.clone(),
                crash: None,
                pods: 0,
                frozen: 0,
                frozen_ready_since: vec![],
                ready_since: vec![],
                stopping: 0,
                failure: None,
            });
        }
        for change in &plan.change {
            let set = self.set(&change.set.key.name.clone());
            set.seen.mod_revision = revision;
            set.replicas = change.replicas;
            set.min_ready_seconds = change.min_ready_seconds;
            set.annotations = change.annotations.clone();
        }
        self.s.sets.retain(|r| !plan.delete.contains(&r.seen));
        if let Some(status) = &plan.status {
            self.s.status = Some(status.clone());
        }
    }

    fn set(&mut self, name: &str) -> &mut SetFacts {
        self.s
            .sets
            .iter_mut()
            .find(|r| *r.seen.key.name == *name)
            .unwrap()
    }

    /// Plans and applies until nothing is planned. Shows that one more pass plans nothing.
    fn settle(&mut self) -> Vec<Plan> {
        self.settle_with(|_, _| {})
    }

    /// The same, with something to look at or to do after each step.
    fn settle_with(&mut self, mut after: impl FnMut(&mut Self, &Plan)) -> Vec<Plan> {
        let mut plans = Vec::new();
        loop {
            let plan = self.plan();
            if plan.is_empty() {
                return plans;
            }
            self.apply(&plan);
            after(self, &plan);
            plans.push(plan);
            assert!(plans.len() < 20, "it does not settle: {plans:?}");
        }
    }

    /// Pods are made and removed as the sizes say: those that are not ready go first.
    fn replica_sets_act(&mut self) {
        for r in &mut self.s.sets {
            // Those that do not parse stay.
            let kept = r.replicas.max(r.frozen);
            if r.pods > kept {
                r.ready_since.truncate(usize::try_from(kept).unwrap());
            }
            r.pods = kept;
        }
    }

    /// At most `count` pods of each set become ready.
    fn agents_act(&mut self, count: usize) {
        let now = at(self.now);
        for r in &mut self.s.sets {
            let target = usize::try_from(r.pods)
                .unwrap()
                .min(r.ready_since.len() + count);
            r.ready_since.resize(target.max(r.ready_since.len()), now);
        }
    }

    fn pods(&self) -> i32 {
        self.s.sets.iter().map(|r| r.pods).sum()
    }

    fn ready(&self) -> i32 {
        self.s
            .sets
            .iter()
            .map(|r| i32::try_from(r.ready_since.len()).unwrap())
            .sum()
    }

    fn sizes(&self) -> Vec<i32> {
        self.s.sets.iter().map(|r| r.replicas).collect()
    }

    fn run(&mut self) {
        for _ in 0..100 {
            self.settle();
            self.replica_sets_act();
            self.agents_act(usize::MAX / 2);
        }
        self.settle();
    }

    fn reason(&self, type_: &str) -> String {
        let conditions = &self.s.status.as_ref().unwrap().conditions;
        let c = conditions.iter().find(|c| c.type_ == type_).unwrap();
        format!("{}/{}", c.status, c.reason.as_deref().unwrap())
    }
}

fn running(wanted: i32, image: &str) -> World {
    let mut world = World::new(deployment(wanted, image));
    world.run();
    assert_eq!(world.sizes(), [wanted]);
    world
}

#[test]
fn a_deployment_is_rolled_out_and_says_how_far_it_is() {
    let mut w = World::new(deployment(3, "a"));
    let plans = w.settle();
    assert_eq!(
        plans[0].to_string(),
        "create replicaset web-86b45659d5 replicas=3 revision=1\n"
    );
    assert_eq!(
        plans[1].to_string(),
        "status replicas=0 updated=0 ready=0 available=0 unavailable=3 generation=1 \
         Available=False/MinimumReplicasUnavailable Progressing=True/NewReplicaSetCreated\nlook again in 600000 ms\n"
    );
    w.replica_sets_act();
    w.agents_act(1);
    let plans = w.settle();
    assert_eq!(
        plans[0].to_string(),
        "status replicas=3 updated=3 ready=1 available=1 unavailable=2 generation=1 \
         Available=False/MinimumReplicasUnavailable Progressing=True/ReplicaSetUpdated\nlook again in 600000 ms\n"
    );
    w.agents_act(2);
    let plans = w.settle();
    assert_eq!(
        plans[0].to_string(),
        "status replicas=3 updated=3 ready=3 available=3 unavailable=0 generation=1 \
         Available=True/MinimumReplicasAvailable Progressing=True/NewReplicaSetAvailable\n"
    );
}

#[test]
fn rolling_updates_keep_within_surge_and_unavailability_at_every_step() {
    for (wanted, surge, unavailable) in [
        (10, "25%", "25%"),
        (3, "1", "0"),
        (3, "0", "1"),
        (4, "100%", "0"),
        (7, "0%", "0%"),
        (1, "25%", "25%"),
        (10, "0", "50%"),
    ] {
        let mut w = World::new(deployment(wanted, "a"));
        w.s.strategy = rolling(surge, unavailable);
        w.run();
        let room = super::numbers::room(&w.s.strategy, wanted);
        w.s.template = template("b");
        w.s.generation = 2;
        let context = format!("{wanted} {surge} {unavailable}");
        let check = |w: &World| {
            assert!(
                w.pods() <= wanted + room.surge,
                "{context}: {} pods",
                w.pods()
            );
            assert!(
                w.ready() >= wanted - room.unavailable,
                "{context}: {} ready",
                w.ready()
            );
        };
        for step in 0..200 {
            let plan = w.plan();
            w.apply(&plan);
            // ReplicaSets lag behind: only every second round.
            if step % 2 == 1 {
                w.replica_sets_act();
            }
            check(&w);
            w.agents_act(1);
            check(&w);
        }
        assert_eq!(w.sizes(), [0, wanted], "{context}");
        assert_eq!(
            w.reason("Progressing"),
            "True/NewReplicaSetAvailable",
            "{context}"
        );
        assert!(w.plan().is_empty());
    }
}

#[test]
fn both_go_up_and_down_in_one_pass() {
    let mut w = running(10, "a");
    w.s.template = template("b");
    w.settle();
    assert_eq!(w.sizes(), [8, 3]);
    w.replica_sets_act();
    w.agents_act(10);
    let plan = w.plan();
    let names: Vec<_> =
        w.s.sets
            .iter()
            .map(|r| r.seen.key.name.to_string())
            .collect();
    let revisions: Vec<_> = w.s.sets.iter().map(|r| r.seen.mod_revision).collect();
    assert_eq!(
        plan.to_string().lines().take(2).collect::<Vec<_>>(),
        [
            format!(
                "scale replicaset {} at {} from 8 to 5",
                names[0], revisions[0]
            ),
            format!(
                "scale replicaset {} at {} from 3 to 5",
                names[1], revisions[1]
            ),
        ]
    );
}

#[test]
fn recreate_waits_until_the_last_old_pod_has_stopped() {
    let mut w = World::new(deployment(2, "a"));
    w.s.strategy = recreate();
    w.run();
    w.s.template = template("b");
    w.settle();
    assert_eq!(w.sizes(), [0]);
    assert_eq!(
        w.plan().notes,
        ["2 pods of the old template have not stopped"]
    );
    w.replica_sets_act();
    w.s.sets[0].stopping = 1;
    w.settle();
    assert_eq!(w.sizes(), [0]);
    w.s.sets[0].stopping = 0;
    w.settle();
    assert_eq!(w.sizes(), [0, 2]);
    w.run();
    assert_eq!(w.reason("Progressing"), "True/NewReplicaSetAvailable");
}

/// The controller of ReplicaSets may be about to make them.
#[test]
fn recreate_waits_until_no_old_replica_set_asks_for_pods_that_have_not_come() {
    let mut w = World::new(deployment(2, "a"));
    w.s.strategy = recreate();
    w.settle();
    assert_eq!((w.sizes(), w.pods()), (vec![2], 0));
    w.s.template = template("b");
    let plan = w.plan();
    assert!(plan.create.is_none(), "{plan}");
    w.settle();
    assert_eq!(w.sizes(), [0, 2]);
}

#[test]
fn an_older_template_finds_its_replica_set_again() {
    let mut w = running(2, "a");
    w.s.template = template("b");
    w.run();
    w.s.template = template("a");
    w.run();
    assert_eq!(w.sizes(), [2, 0]);
    let annotations = &w.s.sets[0].annotations;
    assert_eq!(
        (
            annotations[REVISION].as_str(),
            annotations[REVISION_HISTORY].as_str()
        ),
        ("3", "1")
    );
    w.s.template = template("b");
    w.run();
    assert_eq!(w.s.sets[1].annotations[REVISION], "4");
}

#[test]
fn names_that_are_taken_lead_to_another_hash() {
    let mut w = World::new(deployment(1, "a"));
    let first = w.plan().create.unwrap();
    w.s.taken = [first.name.as_str().into()].into();
    let second = w.plan().create.unwrap();
    assert_ne!(second.hash, first.hash);
    w.run();
    assert_eq!(w.sizes(), [1]);
    assert_eq!(w.s.status.unwrap().collision_count, Some(1));
}

#[test]
fn history_is_kept_as_long_as_wanted() {
    let mut w = running(1, "v0");
    w.s.history_limit = 2;
    for i in 1..6 {
        w.s.template = template(&format!("v{i}"));
        w.run();
        w.now += PROBATION.as_secs().cast_signed();
    }
    w.run();
    let revisions: Vec<_> =
        w.s.sets
            .iter()
            .map(|r| r.annotations[REVISION].as_str())
            .collect();
    assert_eq!(revisions, ["4", "5", "6"]);
    w.s.history_limit = 0;
    w.run();
    assert_eq!(w.s.sets.len(), 1);
}

#[test]
fn replica_sets_are_adopted_and_released_before_anything_else() {
    let mut w = running(1, "a");
    w.s.template = template("b");
    w.s.adoptable = vec![Seen {
        key: ObjectKey::namespaced("default", "old"),
        mod_revision: 3,
    }];
    w.s.releasable = vec![Seen {
        key: ObjectKey::namespaced("default", "not-mine"),
        mod_revision: 4,
    }];
    assert_eq!(
        w.plan().to_string(),
        "adopt replicaset old at 3\nrelease replicaset not-mine at 4\n"
    );
}

#[test]
fn annotations_of_the_deployment_reach_its_replica_set() {
    let mut w = running(1, "a");
    w.s.annotations = [
        ("kubernetes.io/change-cause".to_owned(), "why".to_owned()),
        (REVISION.to_owned(), "9".to_owned()),
        (SET_BY_COMMAND.to_owned(), "/spec/replicas".to_owned()),
    ]
    .into();
    w.settle();
    let annotations = &w.s.sets[0].annotations;
    assert_eq!(
        (
            annotations["kubernetes.io/change-cause"].as_str(),
            annotations[REVISION].as_str()
        ),
        ("why", "1")
    );
    assert!(!annotations.contains_key(SET_BY_COMMAND));
}
