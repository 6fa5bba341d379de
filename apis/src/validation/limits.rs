//! The LimitRange.

use std::collections::BTreeSet;

use super::{Findings, container, key_path};
use crate::core::{LimitRange, LimitRangeItem, LimitType};
use crate::kind::FieldError;
use crate::names;
use crate::quantity::{Quantity, ResourceList};

/// What is wrong with a LimitRange.
pub fn limit_range(l: &LimitRange) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &l.metadata, true, names::dns_subdomain);
    let mut seen = BTreeSet::new();
    for (i, item) in l.spec.limits.iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        if !seen.insert(item.type_) {
            f.add(
                format!("{path}.type"),
                format!("there are limits of the type {} already", item.type_),
            );
        }
        limits(&mut f, &path, item);
    }
    f.0
}

fn limits(f: &mut Findings, path: &str, item: &LimitRangeItem) {
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let of_claims = item.type_ == LimitType::PersistentVolumeClaim;
    for (field, list) in lists {
        let path = format!("{path}.{field}");
        if of_claims {
            claim_amounts(f, &path, list);
        } else {
            container::amounts(f, &path, list);
        }
        let given = matches!(field, "default" | "defaultRequest");
        if given && item.type_ == LimitType::Pod && !list.is_empty() {
            f.add(path, "is for containers; a pod as a whole gets nothing");
        }
    }
    if of_claims && !item.max.contains_key("storage") && !item.min.contains_key("storage") {
        f.add(path, "needs the least (min) or the most (max) storage");
    }
    let names: BTreeSet<&String> = lists.iter().flat_map(|(_, l)| l.keys()).collect();
    for name in names {
        order(f, path, name, item);
    }
}

fn claim_amounts(f: &mut Findings, path: &str, list: &ResourceList) {
    for (name, amount) in list {
        let path = key_path(path, name);
        if name != "storage" {
            f.add(
                path.as_str(),
                format!("{name:?} is not what claims ask for: storage is"),
            );
        }
        container::amount(f, &path, amount);
    }
}

/// min <= defaultRequest <= default <= max, and no ratio that min and max make impossible.
fn order(f: &mut Findings, path: &str, name: &str, item: &LimitRangeItem) {
    let rising = [
        ("min", item.min.get(name)),
        ("defaultRequest", item.default_request.get(name)),
        ("default", item.default.get(name)),
        ("max", item.max.get(name)),
    ];
    for (i, (lower, low)) in rising.iter().enumerate() {
        for (upper, high) in &rising[i + 1..] {
            if let (Some(low), Some(high)) = (low, high)
                && low > high
            {
                f.add(
                    key_path(&format!("{path}.{lower}"), name),
                    format!("{low} is more than {upper}, {high}"),
                );
            }
        }
    }
    let Some(ratio) = item.max_limit_request_ratio.get(name) else {
        return;
    };
    let path = key_path(&format!("{path}.maxLimitRequestRatio"), name);
    if *ratio < Quantity::from_whole(1) {
        f.add(
            path.as_str(),
            format!("{ratio} is less than 1: a limit is never less than its request"),
        );
    }
    if let (Some(min), Some(max)) = (item.min.get(name), item.max.get(name))
        && !min.is_zero()
        && ratio.as_f64() > max.as_f64() / min.as_f64()
    {
        f.add(
            path,
            format!("{ratio} is more than max / min, {max} / {min}, can ever be"),
        );
    }
}
