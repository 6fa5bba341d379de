//! The arithmetic of rollouts: how far above and below the wanted number, and how a change of it is shared out.

use setpoint_apis::IntOrString;
use setpoint_apis::apps::{DeploymentStrategy, DeploymentStrategyType};

/// How many pods there may be too many, and how many may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Too many, at most.
    pub surge: i32,
    /// Missing, at most.
    pub unavailable: i32,
}

/// Kubernetes' rounding: surge up, unavailable down; when both come to nothing one may be missing, or nothing could
/// ever move. Recreate has no room: it empties first.
pub fn room(strategy: &DeploymentStrategy, wanted: i32) -> Room {
    if strategy.type_ == Some(DeploymentStrategyType::Recreate) {
        return Room {
            surge: 0,
            unavailable: 0,
        };
    }
    let quarter = IntOrString::from("25%");
    let rolling = strategy.rolling_update.as_ref();
    // Validation lets no other text through than percentages.
    let scaled = |value: Option<&IntOrString>, up| {
        value
            .unwrap_or(&quarter)
            .scaled(wanted, up)
            .unwrap_or(0)
            .max(0)
    };
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), true);
    let mut unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Room {
        surge,
        unavailable: unavailable.min(wanted.max(0)),
    }
}

/// A ReplicaSet that takes part in a change of size in the middle of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its size.
    pub replicas: i32,
    /// What all ReplicaSets together might have been when its size was last set.
    pub out_of: i32,
}

/// Shares `total` pods out in proportion to the present sizes. What rounding leaves over goes to the first.
///
/// `shares` come in order of precedence: the biggest first, and the newest first of equals when there are more pods to
/// give, the oldest first when there are fewer.
pub fn proportional(shares: &[Share], wanted: i32, total: i32) -> Vec<i32> {
    let present = shares
        .iter()
        .map(|s| s.replicas)
        .fold(0, i32::saturating_add);
    let to_add = total.saturating_sub(present);
    let mut added = 0_i32;
    let mut sizes: Vec<i32> = shares
        .iter()
        .map(|s| {
            let part = if s.replicas == 0 || to_add == added {
                0
            } else {
                fraction(*s, wanted, total)
            };
            let left = to_add - added;
            let part = if to_add > 0 {
                part.clamp(0, left)
            } else {
                part.clamp(left, 0)
            };
            added = added.saturating_add(part);
            s.replicas.saturating_add(part)
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = first.saturating_add(to_add.saturating_sub(added)).max(0);
    }
    sizes
}

/// How many pods of a ReplicaSet stay available, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// At least.
    pub least: i32,
    /// At most.
    pub most: i32,
}

/// Of pods that are to go, takes those first that are not available, as long as fewer than `least` available ones
/// would stay otherwise. The total stays what it is.
///
/// `sizes` and how many pods `stay` available of each come in the order in which their unavailable pods are taken: first
/// those that are not available for certain. What is spared for that is given to the last ones first.
pub fn spare_available(sizes: &mut [i32], stay: &[Stay], least: i32) {
    let sum = |numbers: &mut dyn Iterator<Item = i32>| numbers.fold(0, i32::saturating_add);
    let pairs = || sizes.iter().zip(stay);
    let stays = sum(&mut pairs().map(|(size, stay)| *size.min(&stay.least)));
    let going = sum(&mut pairs().map(|(size, stay)| (stay.least - size).max(0)));
    let idle = sum(&mut pairs().map(|(size, stay)| (size - stay.least).max(0)));
    let swapped = least.saturating_sub(stays).min(going).min(idle).max(0);
    let mut left = swapped;
    for (size, stay) in sizes.iter_mut().zip(stay).rev() {
        let back = (stay.least - *size).clamp(0, left);
        *size += back;
        left -= back;
    }
    let mut left = swapped;
    for keep in [|stay: &Stay| stay.most, |stay: &Stay| stay.least] {
        for (size, stay) in sizes.iter_mut().zip(stay) {
            let taken = (*size - keep(stay)).clamp(0, left);
            *size -= taken;
            left -= taken;
        }
    }
}

fn fraction(share: Share, wanted: i32, total: i32) -> i32 {
    if wanted == 0 {
        return -share.replicas;
    }
    let (replicas, total, out_of) = (
        i64::from(share.replicas),
        i64::from(total),
        i64::from(share.out_of.max(1)),
    );
    // Rounded half up; all are positive.
    let size = replicas
        .saturating_mul(total)
        .saturating_mul(2)
        .saturating_add(out_of)
        / (2 * out_of);
    i32::try_from(size.saturating_sub(replicas)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use setpoint_apis::apps::RollingUpdateDeployment;

    use super::*;

    fn rolling(
        surge: impl Into<IntOrString>,
        unavailable: impl Into<IntOrString>,
    ) -> DeploymentStrategy {
        DeploymentStrategy {
            type_: None,
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(surge.into()),
                max_unavailable: Some(unavailable.into()),
            }),
        }
    }

    #[test]
    fn surge_is_rounded_up_and_unavailable_down() {
        let check = |strategy: &DeploymentStrategy, wanted, surge, unavailable| {
            assert_eq!(
                room(strategy, wanted),
                Room { surge, unavailable },
                "{strategy:?} of {wanted}"
            );
        };
        check(&DeploymentStrategy::default(), 10, 3, 2);
        check(&DeploymentStrategy::default(), 1, 1, 0);
        check(&rolling("0%", "0%"), 10, 0, 1);
        check(&rolling(0, "5%"), 10, 0, 1);
        check(&rolling(0, 3), 2, 0, 2);
        check(&rolling("100%", 0), 4, 4, 0);
        check(&rolling(2, 1), 0, 2, 0);
        let recreate = DeploymentStrategy {
            type_: Some(DeploymentStrategyType::Recreate),
            rolling_update: None,
        };
        check(&recreate, 10, 0, 0);
    }

    #[test]
    fn a_change_of_size_is_shared_in_proportion() {
        let check = |present: &[i32], out_of, wanted, total, expected: &[i32]| {
            let shares: Vec<_> = present
                .iter()
                .map(|r| Share {
                    replicas: *r,
                    out_of,
                })
                .collect();
            assert_eq!(
                proportional(&shares, wanted, total),
                expected,
                "{present:?} to {total}"
            );
        };
        // Kubernetes' own example: 10 wanted, surge 3; 8 old and 5 new; 15 wanted.
        check(&[8, 5], 13, 15, 18, &[11, 7]);
        check(&[5, 5], 10, 20, 20, &[10, 10]);
        check(&[5, 5], 10, 5, 5, &[2, 3]);
        check(&[8, 5], 13, 0, 0, &[0, 0]);
        check(&[1, 1, 1], 3, 4, 4, &[2, 1, 1]);
        check(&[], 3, 4, 4, &[]);
    }

    #[test]
    fn available_pods_are_spared_while_others_can_go() {
        let check = |sizes: &[i32], available: &[(i32, i32)], least, expected: &[i32]| {
            let stay = available.iter().map(|&(least, most)| Stay { least, most });
            let stay: Vec<Stay> = stay.collect();
            let mut spared = sizes.to_vec();
            spare_available(&mut spared, &stay, least);
            assert_eq!(spared, expected, "{sizes:?} with {available:?} available");
        };
        let known = |available: i32| (available, available);
        // Enough stay: the shares are what they are.
        check(&[2, 2], &[4, 1].map(known), 3, &[2, 2]);
        // The new ones are not available yet.
        check(&[2, 2], &[4, 0].map(known), 3, &[3, 1]);
        check(&[2, 2], &[4, 0].map(known), 4, &[4, 0]);
        // More cannot be spared than there are others, nor than there were.
        check(&[1, 1], &[4, 0].map(known), 4, &[2, 0]);
        check(&[1, 3], &[2, 0].map(known), 4, &[2, 2]);
        // Broken ones of the first go before those of the last; the last gets back first.
        check(&[3, 1, 3], &[0, 3, 1].map(known), 3, &[2, 2, 3]);
        check(&[2, 1, 1], &[0, 3, 3].map(known), 4, &[0, 1, 3]);
        check(&[], &[], 3, &[]);
        // Those of the first may be available: those of the last, which are not, go before.
        check(&[2, 1, 2], &[(0, 2), (3, 3), (0, 0)], 3, &[2, 3, 0]);
        check(&[2, 1, 1], &[(0, 2), (3, 3), (0, 0)], 3, &[1, 3, 0]);
    }
}
