//! What users ask the scheduler for.

use setpoint_apis::core::Pod;
use setpoint_apis::records::Intent;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_store::Txn;
use setpoint_store::list::{List, list_all};

use super::Run;

impl Run<'_> {
    /// Asks for one of the pods that are bound to be moved, as `setpoint move` does.
    pub(super) async fn ask_to_move(&mut self) -> Result<(), String> {
        let bound = self.bound().await?;
        let Some(pod) = self.rng.choice(bound) else {
            return Ok(());
        };
        let nodes: u32 = self.scenario.spec.nodes.iter().map(|n| n.count).sum();
        let named = self.rng.bool().then(|| {
            let group = self.rng.choice(&self.scenario.spec.nodes)?;
            Some(format!("{}-{}", group.name, self.rng.u32(0..nodes.max(1))))
        });
        let intent = Intent {
            to: named.flatten(),
            timeout_seconds: Some(self.rng.i64(1..=30)),
            min_ready_seconds: Some(self.rng.i64(0..=3)).filter(|s| *s > 0),
            ..Intent::default()
        };
        let to = intent.to.as_deref().unwrap_or("any node");
        self.note(format!("pod {pod} is to be moved to {to}"));
        self.ask("move", pod, &intent).await
    }

    /// Asks for so many of the pods that are bound to be evicted, as `setpoint evict` does.
    pub(super) async fn ask_to_evict(&mut self, count: u32) -> Result<(), String> {
        let mut bound = self.bound().await?;
        self.rng.shuffle(&mut bound);
        bound.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        for pod in bound {
            let key = Key::Desired(Pod::PLURAL, pod.clone());
            let (stored, _) = self.read(&self.world.keyspace.build(&key)).await?;
            let uid = stored.map(|kv| {
                let read = document::decode_keyed::<Pod>(&pod, &kv.value).ok();
                let metadata = read.map(|pod| pod.metadata).unwrap_or_default();
                metadata.uid_since(kv.create_revision, Pod::PLURAL, &pod)
            });
            let intent = Intent {
                uid,
                ignore_budgets: self.rng.u32(0..8) == 0,
                grace_seconds: Some(self.rng.i64(0..=3)).filter(|s| *s > 0),
                ..Intent::default()
            };
            let how = if intent.ignore_budgets {
                ", whatever budgets say"
            } else {
                ""
            };
            self.note(format!("pod {pod} is to be evicted{how}"));
            self.ask("evict", pod, &intent).await?;
        }
        Ok(())
    }

    /// The pods that have a binding.
    async fn bound(&self) -> Result<Vec<ObjectKey>, String> {
        let keyspace = &self.world.keyspace;
        let range = keyspace.binding_range(None);
        let (bound, _) = list_all(&self.world.store, List::new(range.start, range.end))
            .await
            .map_err(|e| e.to_string())?;
        let pods = bound.iter().filter_map(|kv| match keyspace.split(&kv.key) {
            Ok(Key::Binding(pod)) => Some(pod),
            _ => None,
        });
        Ok(pods.collect())
    }

    async fn ask(&self, verb: &str, pod: ObjectKey, intent: &Intent) -> Result<(), String> {
        let by = "user";
        let key = self.world.keyspace.build(&Key::Intent { verb, pod, by });
        self.write(Txn::new().put(key, document::encode(intent)))
            .await
    }
}
