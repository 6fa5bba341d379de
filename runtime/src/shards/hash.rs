//! Rendezvous hashing, also called highest random weight: D. Thaler and C. V. Ravishankar, "Using Name-Based Mappings
//! to Increase Hit Rates", IEEE/ACM Transactions on Networking 6(1), 1998.
//!
//! Each shard prefers the members in an order of its own, and belongs to the first that is there. When a member goes,
//! only its shards move; when one comes, it takes only those that prefer it to all others.

use setpoint_apis::fnv::Fnv64;

use super::Shard;

/// The member that a shard prefers; `None` when there is none.
pub(super) fn owner<'a>(
    shard: Shard,
    members: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Of two members with one weight, which is as good as impossible, the greater name wins: for everybody alike.
    members
        .into_iter()
        .max_by_key(|member| (of(&[member.as_bytes(), &shard.0.to_be_bytes()]), *member))
}

/// A hash that is the same in every version of the program, because processes of two versions share one map: FNV-1a of
/// 64 bits (Fowler, Noll, Vo), and the finalizer of MurmurHash3 (Appleby), without which the last bytes hardly reach the
/// high bits. The parts are told apart by a byte that is in no name.
pub(super) fn of(parts: &[&[u8]]) -> u64 {
    let mut hash = Fnv64::default();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hash.write(&[0xff]);
        }
        hash.write(part);
    }
    let mut hash = hash.value();
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
