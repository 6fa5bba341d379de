//! One pod: why it is where it is, or why it waits.

use serde::Serialize;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{
    ConstraintKind, Hope, MoveResult, Moving, NodeScore, PlacementDecision, PodScheduling,
    WaitReason,
};
use setpoint_apis::strict::nearest;
use setpoint_apis::time::Timestamp;
use setpoint_apis::{ObjectKey, placement};
use setpoint_scheduler_core::claims::Claim;
use setpoint_scheduler_core::{PodRequest, record};

use crate::model::{Model, group_of, leaving, min_member};
use crate::plan::hope;
use crate::text::{self, Nearest};
use crate::world::{KnownPod, World};

/// How many of the best nodes are told of.
const BEST: usize = 5;

/// Where a pod is in its life, as far as placing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum State {
    /// It has no node.
    #[default]
    Waiting,
    /// It has a node.
    Placed,
    /// Its node is taken from it: it stops there.
    Leaving,
    /// It has run to its end.
    Finished,
    /// Where it is cannot be told, since its document or its binding cannot be read: nothing is decided about it.
    Frozen,
}

/// What there is to say of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// `namespace/name`.
    pub pod: String,
    /// The revision that all of it is about.
    pub revision: i64,
    /// Where it is in its life.
    pub state: State,
    /// Whether a scheduler leads.
    pub scheduler: bool,
    /// The decision behind its binding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decided>,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A stored decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// The node.
    pub node: String,
    /// How many times the pod has been placed, this time included.
    pub placement: u32,
    /// When.
    pub bound_at: Timestamp,
    /// The decision, as it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<PlacementDecision>,
    /// Why the best of the other nodes was not chosen, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up_lost: Option<String>,
    /// Why the node is taken from the pod, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<(String, Timestamp)>,
    /// The move in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
    /// The node on which it still stops after a move, or after one that was undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// What became of the last request to move it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_move: Option<MoveResult>,
}

/// Why a pod waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// Its priority.
    pub priority: i32,
    /// Its scheduler profile, when that is not the built-in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How many nodes there are.
    pub nodes: u32,
    /// The best nodes that could run it now: it waits only for the scheduler to look at it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<NodeScore>,
    /// Whether waiting can help.
    pub hope: Hope,
    /// Why, by constraint: first what is not about nodes, then most nodes first.
    pub reasons: Vec<WaitReason>,
    /// What would have to change for it to fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<Nearest>,
    /// The node that is being cleared for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nominated: Option<Nominated>,
    /// Whom it could displace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub could_displace: Option<Victims>,
    /// Its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
    /// What the scheduler wrote about it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<PodScheduling>,
    /// Whether that says otherwise: it is of an earlier time.
    pub record_differs: bool,
}

/// A node that is being cleared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nominated {
    /// The node.
    pub node: String,
    /// The pods that are still stopping there.
    pub waits_for: Vec<String>,
}

/// Pods that would give way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Victims {
    /// The node that they are on.
    pub node: String,
    /// They, the most important first.
    pub pods: Vec<String>,
    /// How many of them a disruption budget protects.
    pub violated_budgets: u32,
}

/// The group of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// Its name.
    pub group: String,
    /// How many pods it has.
    pub members: usize,
    /// How many of them have a node.
    pub bound: usize,
    /// How many must run together.
    pub min_member: usize,
}

/// What there is to say of a pod; `None` when nothing is known of it.
///
/// For a pod that waits, the reasons are worked out afresh from the world, so that they are right whether or not a
/// scheduler has looked at it; what it wrote last is there for comparison.
pub fn why(world: &World, key: &ObjectKey) -> Option<Why> {
    let known = world.pods.get(key)?;
    let mut why = Why {
        pod: key.to_string(),
        revision: world.revision,
        state: state(known),
        scheduler: world.scheduler,
        decided: decided(known),
        ..Why::default()
    };
    match (&known.pod, &known.binding) {
        (_, None) if known.is_frozen() => {}
        (Some(pod), None) => why.waits = Some(waits(world, key, known, pod, &mut why.notes)),
        (None, Some(_)) => why
            .notes
            .push("its document is gone or cannot be read; what is known is its binding".into()),
        _ => {}
    }
    if known.binding.is_none()
        && let Some(times) = known
            .scheduling
            .as_ref()
            .map(|s| s.placements)
            .filter(|n| *n > 0)
    {
        let times = match times {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        why.notes.push(format!(
            "it was placed {times} before, and gave its node up"
        ));
    }
    why.notes.extend(unreadable(world, key, known));
    if why.waits.is_some() && !world.scheduler {
        why.notes
            .push("no scheduler is running: nothing places it (`setpoint controllers`)".into());
    }
    Some(why)
}

/// What of a pod cannot be read, and what follows from that.
fn unreadable(world: &World, key: &ObjectKey, known: &KnownPod) -> Vec<String> {
    let name = format!("/{key}");
    let mut notes = Vec::new();
    for (stored, error) in &world.unreadable {
        let Some(before) = stored.strip_suffix(&name) else {
            continue;
        };
        let mut tree = before.rsplit('/');
        let what = match (tree.next(), tree.next()) {
            (Some("pods"), Some("desired")) => "document",
            (Some("bindings"), _) => "binding",
            _ => continue,
        };
        notes.push(format!("its {what} cannot be read ({stored}): {error}"));
    }
    if known.is_frozen() {
        notes.push(
            "until that is mended, the scheduler neither places nor withdraws nor displaces it"
                .into(),
        );
    }
    notes
}

fn state(known: &KnownPod) -> State {
    match &known.binding {
        None if known.is_frozen() => State::Frozen,
        None => State::Waiting,
        Some(_) if known.is_finished() => State::Finished,
        Some((binding, _)) if binding.withdrawn.is_some() => State::Leaving,
        Some(_) => State::Placed,
    }
}

fn decided(known: &KnownPod) -> Option<Decided> {
    let (binding, _) = known.binding.as_ref()?;
    let decision = binding.decision.clone();
    let lost = decision
        .as_ref()
        .and_then(PlacementDecision::runner_up_lost)
        .map(|lost| lost.to_string());
    Some(Decided {
        node: binding.node.clone(),
        placement: binding.placement,
        bound_at: binding.bound_at,
        runner_up_lost: lost,
        decision,
        withdrawn: binding.withdrawn.as_ref().map(|w| (w.reason.clone(), w.at)),
        moving: binding.moving.as_deref().cloned(),
        leaving: binding.leaving.clone(),
        last_move: binding.last_move.as_deref().cloned(),
    })
}

fn waits(
    world: &World,
    key: &ObjectKey,
    known: &KnownPod,
    pod: &Pod,
    notes: &mut Vec<String>,
) -> Waits {
    let mut model = Model::new(world);
    for (reservation, shares, _) in model.place_reserved(0) {
        notes.push(format!(
            "reservation {reservation} has no node yet for {shares} of its shares"
        ));
    }
    let mut waits = Waits {
        profile: placement::profile_of(&pod.spec).map(Into::into),
        nodes: model.cluster.node_count(),
        nominated: nominated(world, known),
        gang: gang(&model, pod),
        recorded: known.scheduling.clone(),
        ..Waits::default()
    };
    let first = [
        Model::gates(pod),
        model.quota(pod),
        group_of(pod).and_then(|group| model.group(&group)),
    ];
    waits.reasons.extend(first.into_iter().flatten());
    let class = match model.class(pod) {
        Ok(class) => class,
        Err(reason) => {
            notes.extend(meant(world, pod, &reason));
            waits.reasons.insert(0, reason);
            waits.hope = hope(&waits.reasons);
            waits.record_differs = differs(&waits);
            return waits;
        }
    };
    waits.priority = class.priority();
    // Its own nomination must not stand in its way.
    model.cluster.forget(key);
    let best = model.cluster.breakdown(&class, BEST);
    waits.fits = best.iter().map(Into::into).collect();
    if waits.fits.is_empty() {
        let verdict = model.cluster.explain(&class);
        waits.reasons.extend(verdict.wait_reasons(&pod.spec));
        waits.nearest = text::nearest(&verdict, &pod.spec);
        let request = PodRequest {
            pod: key.clone(),
            class,
        };
        waits.could_displace = could_displace(&mut model, world, &request, pod);
    } else if let Some(group) = group_of(pod)
        && waits.reasons.is_empty()
        && let Some(reason) = together(&mut model, world, &group)
    {
        waits.reasons.extend(reason);
        waits.fits.clear();
        let request = PodRequest {
            pod: key.clone(),
            class,
        };
        waits.could_displace = could_displace(&mut model, world, &request, pod);
    }
    waits.hope = hope(&waits.reasons);
    waits.record_differs = differs(&waits);
    waits
}

/// What may have been meant instead of a name that nothing has.
fn meant(world: &World, pod: &Pod, reason: &WaitReason) -> Option<String> {
    let (name, near) = match reason.constraint {
        ConstraintKind::SchedulerProfile => {
            let name = placement::profile_of(&pod.spec)?;
            let known = world.profiles.keys().map(String::as_str);
            (
                name,
                nearest(name, known.chain([placement::DEFAULT_SCHEDULER]))?,
            )
        }
        ConstraintKind::VolumeClaim => {
            let namespace = pod.metadata.namespace.as_str();
            let here = |name: &str| ObjectKey::namespaced(namespace, name);
            let missing = |name: &&str| world.claim(&here(name)) == Claim::Missing;
            let name = pod.spec.claim_names().into_iter().find(missing)?;
            let known = world.claims.keys();
            let known = known.filter(|key| *key.namespace == *namespace);
            (name, nearest(name, known.map(|key| &*key.name))?)
        }
        _ => {
            let name = pod.spec.priority_class_name.as_deref()?;
            (
                name,
                nearest(name, world.classes.keys().map(String::as_str))?,
            )
        }
    };
    Some(format!("instead of {name:?}, did it mean {near:?}?"))
}

/// Whom a pod could displace: for a member of a group that is not placed, when all of the group fits then.
fn could_displace(
    model: &mut Model<'_>,
    world: &World,
    request: &PodRequest,
    pod: &Pod,
) -> Option<Victims> {
    let group = group_of(pod).filter(|group| model.still_needed(group, 1) > 0);
    let found = match group {
        None => model.preempt(request)?,
        Some(group) => {
            let (requests, _) = waiting(model, world, &group);
            let needed = model.still_needed(&group, requests.len());
            let places = model.preempt_gang(&group, &requests, needed)?;
            let mut own = requests
                .iter()
                .zip(places)
                .filter(|(r, _)| r.pod == request.pod);
            own.find_map(|(_, place)| place)?
        }
    };
    (!found.victims.is_empty()).then(|| Victims {
        node: found.node.to_string(),
        pods: found.victims.iter().map(ToString::to_string).collect(),
        violated_budgets: found.violations,
    })
}

/// The pods of a group that want a node, and one of them.
fn waiting<'w>(
    model: &mut Model<'_>,
    world: &'w World,
    group: &ObjectKey,
) -> (Vec<PodRequest>, Option<&'w Pod>) {
    let mut requests = Vec::new();
    let mut some = None;
    for (key, known) in &world.pods {
        let (Some(pod), None) = (&known.pod, &known.binding) else {
            continue;
        };
        if group_of(pod).as_ref() == Some(group)
            && Model::gates(pod).is_none()
            && let Ok(class) = model.class(pod)
        {
            some = Some(&**pod);
            requests.push(PodRequest {
                pod: key.clone(),
                class,
            });
        }
    }
    (requests, some)
}

/// Why the waiting pods of a group do not fit together, although one of them does.
fn together(model: &mut Model<'_>, world: &World, group: &ObjectKey) -> Option<Vec<WaitReason>> {
    let (requests, some) = waiting(model, world, group);
    let needed = model.still_needed(group, requests.len());
    let reason = |fit: usize| record::group_fits_in_part(&group.name, fit, needed);
    if requests.len() < needed {
        return Some(vec![reason(requests.len())]);
    }
    let why = model.cluster.schedule_gang(&requests, needed, 0).err()?;
    let mut reasons = vec![reason(why.gang.map_or(0, |(fit, _)| fit))];
    reasons.extend(some.map_or_else(Vec::new, |pod| why.wait_reasons(&pod.spec)));
    Some(reasons)
}

fn nominated(world: &World, known: &KnownPod) -> Option<Nominated> {
    let node = known.scheduling.as_ref()?.nominated_node.clone()?;
    let waits_for = leaving(world, &node);
    Some(Nominated {
        waits_for: waits_for.iter().map(ToString::to_string).collect(),
        node,
    })
}

fn gang(model: &Model<'_>, pod: &Pod) -> Option<Gang> {
    let group = group_of(pod)?;
    let members = model.members(&group);
    let stated = model.world.groups.get(&group);
    Some(Gang {
        group: group.name.to_string(),
        members: members.all,
        bound: members.bound,
        min_member: stated.map_or(0, |g| min_member(g.spec.min_member)),
    })
}

/// Whether what the scheduler wrote last gives other constraints than those that hold now. Counts of nodes and details
/// are left aside: they lag behind.
fn differs(waits: &Waits) -> bool {
    let Some(recorded) = &waits.recorded else {
        return false;
    };
    if recorded.reasons.is_empty() {
        return false;
    }
    let set = |reasons: &[WaitReason]| -> std::collections::BTreeSet<_> {
        reasons.iter().map(|r| r.constraint).collect()
    };
    set(&recorded.reasons) != set(&waits.reasons)
}
