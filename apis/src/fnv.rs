//! FNV-1a (Fowler, Noll, Vo): small hashes that are the same in every version of the program, on every machine and in
//! every run. What is stored, named or repeated by a hash uses these, since the standard library's may change. They are
//! no defence against anybody who looks for collisions.

/// A hash of 64 bits in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv64(u64);

impl Default for Fnv64 {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv64 {
    /// Adds bytes. In how many pieces they come makes no difference.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of what was added so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The hash of 64 bits of some bytes.
pub fn fnv64(bytes: &[u8]) -> u64 {
    let mut hash = Fnv64::default();
    hash.write(bytes);
    hash.value()
}

/// The hash of 32 bits of some bytes.
pub fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_are_the_published_functions() {
        assert_eq!(fnv64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv64(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(fnv32(b""), 0x811c_9dc5);
        assert_eq!(fnv32(b"a"), 0xe40c_292c);
        assert_eq!(fnv32(b"foobar"), 0xbf9c_f968);
        let mut pieces = Fnv64::default();
        pieces.write(b"foo");
        pieces.write(b"bar");
        assert_eq!(pieces.value(), fnv64(b"foobar"));
    }
}
