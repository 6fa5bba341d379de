//! The hash over keys and their history by which etcd's members compare themselves.

use prost::Message;

use super::kv::{Change, Kv};

/// etcd's name of the bucket that holds the keys; the hash begins with it.
const BUCKET: &[u8] = b"key";

/// The same number as etcd's `HashKV` for the same history up to a revision.
pub(super) fn hash_kv(kv: &Kv, revision: i64) -> u32 {
    // Of what is older than the compaction only that counts which is current at the revision; unless nothing is.
    let empty = kv.scan(b"\0", b"\0", revision).next().is_none();
    let mut changes: Vec<&Change> = kv
        .versions()
        .map(|change| &**change)
        .filter(|change| change.main <= revision)
        // Whether a deletion at the compacted revision is still there depends on the version of etcd.
        .filter(|change| !(change.deleted && change.main == kv.compacted))
        .filter(|change| {
            empty
                || change.main > kv.compacted
                || kv
                    .at(&change.kv.key, revision)
                    .is_some_and(|current| std::ptr::eq(&**current, *change))
        })
        .collect();
    changes.sort_unstable_by_key(|change| (change.main, change.sub));
    let mut crc = Crc32c::default();
    crc.write(BUCKET);
    let mut buffer = Vec::new();
    for change in changes {
        crc.write(&change.main.to_be_bytes());
        crc.write(b"_");
        crc.write(&change.sub.to_be_bytes());
        let value = if change.deleted {
            crc.write(b"t");
            super::api::KeyValue {
                key: change.kv.key.clone(),
                ..Default::default()
            }
        } else {
            change.kv.clone()
        };
        buffer.clear();
        // A vector grows, so this cannot fail.
        let _ = value.encode(&mut buffer);
        crc.write(&buffer);
    }
    crc.finish()
}

/// CRC-32C (Castagnoli), bit by bit through a table of a byte.
pub(crate) struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(!0)
    }
}

impl Crc32c {
    const TABLE: [u32; 256] = table();

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let index = (self.0 ^ u32::from(*byte)) & 0xff;
            self.0 = Self::TABLE[index as usize] ^ (self.0 >> 8);
        }
    }

    pub(crate) fn finish(self) -> u32 {
        !self.0
    }
}

const fn table() -> [u32; 256] {
    /// The polynomial, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        let mut crc = Crc32c::default();
        crc.write(b"123456789");
        assert_eq!(crc.finish(), 0xe306_9283);
    }
}
