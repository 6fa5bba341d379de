//! Which release intents of our own are out.

use std::collections::BTreeMap;

use setpoint_apis::records::Intent;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_runtime::Leader;
use setpoint_store::{RangeRequest, StoreError};
use tracing::warn;

use crate::decide::Request;

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
