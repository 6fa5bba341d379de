//! What a drain tells people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use setpoint_apis::core::Pod;
use setpoint_apis::records::Binding;
use setpoint_apis::view::UNSCHEDULABLE_TAINT;
use setpoint_apis::{Key, Kind, ObjectKey, document};

use super::super::budgets::{Budgets, health};
use super::decide::{self, Resident, Verdict, Wait};
use super::look::Seen;
use super::{Drain, Round, Waited};
use crate::term::{self, Out};

/// The pods that are in the way, with the reasons, one reason a line; empty when there are none.
pub(super) fn in_the_way(round: &Round) -> String {
    let by_reason = decide::in_the_way(round.iter().map(|(resident, verdict)| (resident, verdict)));
    let lines = by_reason.iter().map(|(refusal, pods)| {
        let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
        format!("  {}: {}", refusal.words(), pods.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is good to know before anything is evicted.
pub(super) fn warn_at_first(round: &Round, seen: &[Seen], nodes: &[String]) {
    let stay = round.iter().filter(|(_, v)| *v == Verdict::Stays);
    let stay: Vec<_> = stay.map(|(r, _)| r.key.to_string()).collect();
    if !stay.is_empty() {
        term::warn(format_args!(
            "pods of DaemonSets are left where they are: {}",
            stay.join(", ")
        ));
    }
    let back = round.iter().filter(|(resident, verdict)| {
        let pod = resident.pod.get();
        *verdict == Verdict::Ask && pod.is_some_and(|pod| decide::tolerates_cordon(&pod.value))
    });
    let back: Vec<_> = back.map(|(r, _)| r.key.to_string()).collect();
    if !back.is_empty() {
        term::warn(format_args!(
            "pods that tolerate {UNSCHEDULABLE_TAINT} may come back: {}",
            back.join(", ")
        ));
    }
    for (node, seen) in nodes.iter().zip(seen) {
        let waits = round.iter().any(|(resident, verdict)| {
            resident.node == *node && matches!(verdict, Verdict::Ask | Verdict::Wait(_))
        });
        if waits && !seen.answers {
            term::warn(format_args!(
                "node/{node} does not answer: nothing stops its pods; they are placed again when it is given up"
            ));
        }
    }
}

/// What stands of drains of these nodes, and what to do about it.
pub(super) fn what_stands(nodes: &[String], pods: &[String]) -> String {
    let all = nodes.join(" ");
    let mut text = match pods {
        [] => format!("cordoned, with no request standing: {all}\n"),
        pods => format!(
            "cordoned: {all}\nthese requests to evict stand, and are carried out when the budgets allow it: {}\n",
            pods.join(", ")
        ),
    };
    if !pods.is_empty() {
        let _ = writeln!(text, "`setpoint drain {all}` waits for them");
        let _ = writeln!(text, "`setpoint drain --cancel {all}` withdraws them");
    }
    let _ = write!(
        text,
        "`setpoint uncordon {all}` {}lets pods onto the nodes again",
        if pods.is_empty() {
            ""
        } else {
            "withdraws them, and "
        }
    );
    text
}

/// Why a pod is waited for.
struct Reason {
    /// Said again when this changes.
    about: String,
    message: String,
}

impl Drain {
    /// Says which pods have left since the last look.
    pub(super) async fn departed(&mut self, round: &Round, out: &mut Out) -> Result<()> {
        let there: BTreeSet<&ObjectKey> = round
            .iter()
            .filter(|(_, verdict)| *verdict != Verdict::Ended)
            .map(|(resident, _)| &resident.key)
            .collect();
        let gone: Vec<(ObjectKey, Waited)> = self
            .waited
            .extract_if(.., |key, _| !there.contains(key))
            .collect();
        let keys: Vec<_> = gone
            .iter()
            .flat_map(|(key, _)| {
                [
                    Key::Desired(Pod::PLURAL, key.clone()),
                    Key::Binding(key.clone()),
                ]
            })
            .collect();
        let mut read = self.client.get_many(&keys).await?.into_iter();
        for (pod, Waited { node, .. }) in &gone {
            let (document, binding) = (read.next().flatten(), read.next().flatten());
            let binding = binding.and_then(|kv| document::decode_value::<Binding>(&kv.value).ok());
            let how = match (self.asked.contains_key(pod), document, binding) {
                (_, None, _) => format!("is deleted, and has stopped on {node}"),
                (_, _, Some(binding)) if binding.node == *node => format!("has ended on {node}"),
                (true, _, Some(binding)) => {
                    format!("evicted from {node}; it is on {} now", binding.node)
                }
                (true, _, None) => format!("evicted from {node}; it waits for a node"),
                (false, _, Some(binding)) => {
                    format!("has left {node}; it is on {} now", binding.node)
                }
                (false, _, None) => format!("has left {node}; it waits for a node"),
            };
            out.line(format_args!("pod {pod} {how}"));
        }
        Ok(())
    }

    /// Notes which pods are waited for, and says what they wait for where that is not plain.
    pub(super) async fn tell(&mut self, round: &Round, out: &mut Out) -> Result<()> {
        let reasons = self.reasons(round).await?;
        for (resident, verdict) in round {
            if let Verdict::Refused(refusals) = verdict
                && let Some(refusal) = refusals.first()
                && self.refused.insert(resident.key.clone())
            {
                let pod = &resident.key;
                out.line(format_args!(
                    "pod {pod} is not evicted: {}",
                    refusal.words()
                ));
            }
            if !matches!(verdict, Verdict::Ask | Verdict::Wait(_)) {
                self.waited.remove(&resident.key);
                continue;
            }
            let waited = self.waited.entry(resident.key.clone()).or_default();
            waited.node.clone_from(&resident.node);
            let reason = reasons.get(&resident.key);
            waited.unexplained = match verdict {
                Verdict::Wait(Wait::Request) if reason.is_none() => waited.unexplained + 1,
                _ => 0,
            };
            if let Some(reason) = reason
                && waited.told.as_ref() != Some(&reason.about)
                && *verdict != Verdict::Wait(Wait::Stopping)
            {
                out.line(format_args!(
                    "pod {} waits: {}",
                    resident.key, reason.message
                ));
                waited.told = Some(reason.about.clone());
            }
        }
        Ok(())
    }

    /// Says which nodes are drained.
    pub(super) fn note_drained(&mut self, round: &Round, out: &mut Out) {
        for node in &self.nodes {
            let left = round
                .iter()
                .any(|(resident, verdict)| resident.node == *node && !verdict.is_done());
            if !left && self.drained.insert(node.clone()) {
                out.line(format_args!("node/{node} drained"));
            }
        }
    }

    /// What to say when nobody waits any longer.
    pub(super) async fn given_up(&self, round: &Round) -> Result<String> {
        let reasons = self.reasons(round).await?;
        let mut text = format!("not drained within {} s:", self.limit.as_secs());
        let mut standing = Vec::new();
        for (resident, verdict) in round {
            if !matches!(verdict, Verdict::Ask | Verdict::Wait(_)) {
                continue;
            }
            let why = reasons.get(&resident.key).map(|r| r.message.as_str());
            let why = why.unwrap_or(match verdict {
                Verdict::Ask => "nobody has asked for its eviction yet",
                _ => "the scheduler has not acted on the request",
            });
            let _ = write!(text, "\n  pod {} on {}: {why}", resident.key, resident.node);
            if *verdict == Verdict::Wait(Wait::Request) {
                standing.push(resident.key.to_string());
            }
        }
        let in_the_way = in_the_way(round);
        if !in_the_way.is_empty() {
            let _ = write!(text, "\n{in_the_way}");
        }
        let _ = write!(text, "\n{}", what_stands(&self.nodes, &standing));
        Ok(text)
    }

    /// Why pods are waited for, as far as that is known.
    async fn reasons(&self, round: &Round) -> Result<BTreeMap<ObjectKey, Reason>> {
        let mut budgets: BTreeMap<String, Budgets> = BTreeMap::new();
        let mut reasons = BTreeMap::new();
        for (resident, verdict) in round {
            let reason = match verdict {
                Verdict::Wait(Wait::Request) => {
                    let namespace = resident.key.namespace.to_string();
                    if !budgets.contains_key(&namespace) {
                        let read = Budgets::read(&self.client, &namespace).await?;
                        budgets.insert(namespace.clone(), read);
                    }
                    let held = budgets.get(&namespace).and_then(|b| held_back(b, resident));
                    held.filter(|_| !self.allows.ignore_budgets)
                }
                Verdict::Wait(Wait::MovingTo(to)) => {
                    Some(Reason::of(format!("it is moving to {to}")))
                }
                Verdict::Wait(Wait::ComingFrom(from)) => {
                    Some(Reason::of(format!("it is moving here from {from}")))
                }
                Verdict::Wait(Wait::Stopping) => Some(Reason::of("it is being stopped".into())),
                _ => None,
            };
            if let Some(reason) = reason {
                reasons.insert(resident.key.clone(), reason);
            }
        }
        Ok(reasons)
    }
}

impl Reason {
    fn of(message: String) -> Self {
        Self {
            about: message.clone(),
            message,
        }
    }
}

fn held_back(budgets: &Budgets, resident: &Resident) -> Option<Reason> {
    let (pod, binding) = (resident.pod.get()?, resident.binding.get()?);
    let health = health(binding, resident.report.get());
    let held = budgets.hold_back(&pod.value.metadata.labels, health)?;
    Some(Reason {
        about: held.budget,
        message: held.message,
    })
}
