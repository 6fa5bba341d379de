//! Which release intents of our own are out, and what people have been told.

use std::collections::BTreeMap;

use setpoint_apis::records::Intent;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_runtime::Leader;
use setpoint_store::{RangeRequest, StoreError};
use tracing::warn;

use crate::decide::{Held, Plan, Request};

/// The verb of the intents.
pub(crate) const VERB: &str = "release";
/// Who asks.
pub(crate) const BY: &str = "failover";
/// Keys per page. Intents are small.
const PAGE: i64 = 2_000;

/// Own requests as far as is known. The scheduler removes those that it carries out; failover notes that when it sees
/// the binding gone.
#[derive(Debug, Default)]
pub(crate) struct Account {
    requests: BTreeMap<ObjectKey, Request>,
}

impl Account {
    /// Reads what is there.
    pub(crate) async fn list(leader: &Leader) -> Result<Self, StoreError> {
        let range = leader.keyspace().intent_range(Some(VERB));
        let mut account = Self::default();
        let mut request = RangeRequest {
            start: range.start,
            end: range.end,
            limit: PAGE,
            ..RangeRequest::default()
        };
        loop {
            let page = leader.store().range(request.clone()).await?;
            for kv in &page.kvs {
                let Ok(Key::Intent { pod, by: BY, .. }) = leader.keyspace().split(&kv.key) else {
                    continue;
                };
                let intent = document::decode_value::<Intent>(&kv.value).unwrap_or_else(|error| {
                    warn!(
                        key = kv.key,
                        error = &error as &dyn std::error::Error,
                        "an own intent cannot be read"
                    );
                    Intent::default()
                });
                // One that names nothing fits no binding, and is taken back.
                let node = intent.node.unwrap_or_default().into();
                account.requests.insert(
                    pod,
                    Request {
                        node,
                        session: intent.session.unwrap_or(0),
                        // It was guarded on the health record, which is older therefore.
                        health_revision: kv.mod_revision,
                        read: true,
                    },
                );
            }
            match page.kvs.last() {
                Some(last) if page.more => request.start = format!("{}\0", last.key),
                _ => return Ok(account),
            }
        }
    }

    pub(crate) fn requests(&self) -> &BTreeMap<ObjectKey, Request> {
        &self.requests
    }

    pub(crate) fn note(&mut self, pod: ObjectKey, request: Request) {
        self.requests.insert(pod, request);
    }

    pub(crate) fn forget(&mut self, pod: &ObjectKey) {
        self.requests.remove(pod);
    }
}

/// Pods of lost nodes that stay where they are for their policy, as far as people have been told. A pod that is no
/// longer kept, because its node is back for example, is forgotten, and told of when it happens again. The way out is
/// another one once the document is gone: whether it is there is part of what was told.
#[derive(Debug, Default)]
pub(crate) struct Told(BTreeMap<ObjectKey, News>);

/// What people are told of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// Why it stays.
    pub(crate) held: Held,
    /// Whether it has a document that can be annotated. Always, where the way out does not depend on it.
    pub(crate) wanted: bool,
}

impl Told {
    /// Those that people are yet to be told of. They count as told from now on. `wanted`: whether a pod has a document.
    pub(crate) fn news(
        &mut self,
        plan: &Plan,
        wanted: impl Fn(&ObjectKey) -> bool,
    ) -> Vec<(ObjectKey, News)> {
        let kept = plan.held.iter().filter_map(|(pod, held)| {
            let wanted = match held {
                Held::Kept | Held::Unfenceable => wanted(pod),
                // It is released by itself.
                Held::Fenced => true,
                _ => return None,
            };
            let held = *held;
            Some((pod.clone(), News { held, wanted }))
        });
        let before = std::mem::replace(&mut self.0, kept.collect());
        let new = self
            .0
            .iter()
            .filter(|(pod, news)| before.get(*pod) != Some(news));
        new.map(|(pod, news)| (pod.clone(), *news)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_once_of_a_pod_that_is_kept_and_anew_when_it_is_kept_again() {
        let pod = |name: &str| ObjectKey::namespaced("default", name);
        let plan = |held: &[(&str, Held)]| Plan {
            held: held.iter().map(|(name, h)| (pod(name), *h)).collect(),
            ..Plan::default()
        };
        let both = plan(&[
            ("kept", Held::Kept),
            ("other", Held::Frozen),
            ("stop", Held::Unfenceable),
        ]);
        let news = |name: &str, held, wanted| (pod(name), News { held, wanted });
        let mut told = Told::default();
        let first = [
            news("kept", Held::Kept, true),
            news("stop", Held::Unfenceable, true),
        ];
        assert_eq!(told.news(&both, |_| true), first);
        assert_eq!(told.news(&both, |_| true), []);
        // Another policy is another reason.
        let changed = plan(&[("kept", Held::Kept), ("stop", Held::Kept)]);
        let stop = [news("stop", Held::Kept, true)];
        assert_eq!(told.news(&changed, |_| true), stop);
        assert_eq!(told.news(&plan(&[]), |_| true), []);
        assert_eq!(told.news(&both, |_| true), first);
    }

    #[test]
    fn a_pod_whose_document_is_deleted_is_told_of_anew_when_that_changes_the_way_out() {
        let pod = |name: &str| ObjectKey::namespaced("default", name);
        let plan = Plan {
            held: vec![
                (pod("fenced"), Held::Fenced),
                (pod("stop"), Held::Unfenceable),
            ],
            ..Plan::default()
        };
        let mut told = Told::default();
        assert_eq!(told.news(&plan, |_| true).len(), 2);
        let gone = News {
            held: Held::Unfenceable,
            wanted: false,
        };
        assert_eq!(told.news(&plan, |_| false), [(pod("stop"), gone)]);
        assert_eq!(told.news(&plan, |_| false), []);
        assert_eq!(told.news(&plan, |_| true).len(), 1);
    }
}
