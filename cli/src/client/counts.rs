//! How many objects of a namespace its quotas count.
//!
//! Nobody writes these numbers down: they change with every object, and are in the store anyway. So they are counted when
//! somebody asks, and what a quota's status says of them is put together here. What pods request and are limited to is in
//! the status that the scheduler writes.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::future::{FutureExt, LocalBoxFuture};
use serde_json::{Value, json};
use setpoint_apis::core::{
    PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, ResourceQuotaSpec, Service,
};
use setpoint_apis::quantity::{Quantity, ResourceList};
use setpoint_apis::resolve::{
    claim_usage, counted_plural, counts_objects, object_usage, pod_object_usage, quota_covers,
    service_usage, usage_of,
};
use setpoint_apis::{Kind, document};
use setpoint_store::{RangeRequest, Revision};

use super::Client;
use crate::kinds;
use crate::object::Object;

/// How well pods are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Those that have ended are taken for such that have not: there are not more than this.
    AtMost,
    /// Their reports are read.
    Exact,
}

impl Client {
    /// What the objects of one kind in a namespace count for in a quota, and the revision at which that was so.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn counted(
        &self,
        namespace: &str,
        quota: &ResourceQuotaSpec,
        plural: &str,
        how: Count,
    ) -> Result<(ResourceList, Revision)> {
        let names = quota.hard.keys();
        let names: Vec<&String> = names
            .filter(|n| counted_plural(n) == Some(plural))
            .collect();
        if plural == Pod::PLURAL {
            return self.counted_pods(namespace, quota, how).await;
        }
        let range = self.keyspace.desired_range(plural, Some(namespace));
        if !counts_objects(quota) {
            let page = self.number(namespace, plural).await?;
            return Ok((ResourceList::new(), page.1));
        }
        let mut used = ResourceList::new();
        let by_content = [Service::PLURAL, PersistentVolumeClaim::PLURAL].contains(&plural);
        if by_content {
            let (kvs, revision) = self.range(&range, None).await?;
            for kv in kvs {
                add(&mut used, content_usage(plural, &kv.value), 1);
            }
            return Ok((used, revision));
        }
        let (count, revision) = self.number(namespace, plural).await?;
        let known = kinds::all().find(|k| k.plural == plural);
        for name in names {
            let one = match &known {
                Some(kind) => usage_of(kind.api_version, plural).get(name).copied(),
                None => Some(Quantity::from_whole(1)),
            };
            add(
                &mut used,
                [(name.clone(), one.unwrap_or_default())].into(),
                count,
            );
        }
        Ok((used, revision))
    }

    async fn counted_pods(
        &self,
        namespace: &str,
        quota: &ResourceQuotaSpec,
        how: Count,
    ) -> Result<(ResourceList, Revision)> {
        let mut used = ResourceList::new();
        if how == Count::Exact {
            let pods = self
                .list(kinds::builtin(Pod::PLURAL), Some(namespace))
                .await?;
            // What only has to stop yet is not wanted any more.
            for pod in pods.objects.iter().filter(|p| p.revisions.is_some()) {
                let spec: Option<PodSpec> = serde_json::from_value(pod.value["spec"].clone()).ok();
                if spec.is_none_or(|spec| quota_covers(quota, &spec)) {
                    let phase = pod.value["status"]["phase"].as_str();
                    let ended = matches!(phase, Some("Succeeded" | "Failed"));
                    add(&mut used, pod_object_usage(ended), 1);
                }
            }
            return Ok((used, pods.revision));
        }
        if counts_objects(quota) {
            let (count, revision) = self.number(namespace, Pod::PLURAL).await?;
            add(&mut used, pod_object_usage(false), count);
            return Ok((used, revision));
        }
        let range = self.keyspace.desired_range(Pod::PLURAL, Some(namespace));
        let (kvs, revision) = self.range(&range, None).await?;
        for kv in kvs {
            let pod = document::decode::<Pod>(&kv.value);
            if pod.map_or(true, |pod| quota_covers(quota, &pod.spec)) {
                add(&mut used, pod_object_usage(false), 1);
            }
        }
        Ok((used, revision))
    }

    /// How many objects of a kind are in a namespace.
    async fn number(&self, namespace: &str, plural: &str) -> Result<(usize, Revision)> {
        let range = self.keyspace.desired_range(plural, Some(namespace));
        let request = RangeRequest {
            start: range.start,
            end: range.end,
            count_only: true,
            ..RangeRequest::default()
        };
        let page = self.store.range(request).await?;
        Ok((usize::try_from(page.count).unwrap_or(0), page.revision))
    }

    /// Puts the numbers of objects into the status of each quota among the objects.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) fn count_for_quotas<'a>(
        &'a self,
        objects: &'a mut [Object],
    ) -> LocalBoxFuture<'a, Result<()>> {
        // In a box: counting pods exactly lists them, and a listing may be one of quotas.
        let count = async move {
            let quotas = objects.iter_mut();
            for object in quotas.filter(|o| o.kind.plural == ResourceQuota::PLURAL) {
                self.count_for_quota(object).await?;
            }
            Ok(())
        };
        count.boxed_local()
    }

    async fn count_for_quota(&self, object: &mut Object) -> Result<()> {
        let spec = object.value["spec"].clone();
        let Ok(spec) = serde_json::from_value::<ResourceQuotaSpec>(spec) else {
            return Ok(());
        };
        let plurals: BTreeSet<&str> = spec.hard.keys().filter_map(|n| counted_plural(n)).collect();
        for plural in plurals {
            let counted = self.counted(&object.key.namespace, &spec, plural, Count::Exact);
            let (used, _) = counted.await?;
            for (name, hard) in &spec.hard {
                if counted_plural(name) == Some(plural) {
                    let used = used.get(name).copied().unwrap_or_default();
                    put(&mut object.value, "used", name, used)?;
                    put(&mut object.value, "hard", name, *hard)?;
                }
            }
        }
        Ok(())
    }
}

fn put(object: &mut Value, list: &str, name: &str, amount: Quantity) -> Result<()> {
    for at in ["/status", &format!("/status/{list}")] {
        let (parent, field) = at.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = object.pointer_mut(parent)
            && parent[field].is_null()
        {
            parent[field] = json!({});
        }
    }
    object["status"][list][name] = serde_json::to_value(amount)?;
    Ok(())
}

/// What a stored Service or claim counts for; by its being there alone when it cannot be read.
fn content_usage(plural: &str, bytes: &[u8]) -> ResourceList {
    if plural == Service::PLURAL {
        let service = document::decode::<Service>(bytes);
        return service.map_or_else(|_| object_usage::<Service>(), |s| service_usage(&s.spec));
    }
    let claim = document::decode::<PersistentVolumeClaim>(bytes);
    claim.map_or_else(
        |_| object_usage::<PersistentVolumeClaim>(),
        |c| claim_usage(&c.spec),
    )
}

/// Adds so many times a usage.
fn add(sum: &mut ResourceList, usage: ResourceList, times: usize) {
    let times = i64::try_from(times).unwrap_or(i64::MAX);
    for (name, amount) in usage {
        let total = match times {
            1 => amount,
            _ => Quantity::from_whole(amount.value().saturating_mul(times)),
        };
        *sum.entry(name).or_default() += total;
    }
}
