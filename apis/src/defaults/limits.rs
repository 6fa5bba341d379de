//! The LimitRange.

use crate::core::{LimitRangeSpec, LimitType};
use crate::quantity::ResourceList;

/// Fills in what a LimitRange gives to containers that say nothing: the greatest limit, and the limit as the request, or
/// else the least request.
pub fn limit_range(spec: &mut LimitRangeSpec) {
    let fill = |list: &mut ResourceList, from: &ResourceList| {
        for (name, amount) in from {
            list.entry(name.clone()).or_insert(*amount);
        }
    };
    for item in &mut spec.limits {
        if item.type_ == LimitType::Container {
            fill(&mut item.default, &item.max);
            fill(&mut item.default_request, &item.default);
            fill(&mut item.default_request, &item.min);
        }
    }
}
