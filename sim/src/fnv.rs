//! FNV-1a, 64 bits (Fowler, Noll, Vo): a digest that is the same in every run and every version.

/// A digest in the making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// A seed for a part of a simulation, so that parts have luck of their own.
    pub(crate) fn seed(seed: u64, part: &str) -> u64 {
        let mut digest = Self::default();
        digest.write(&seed.to_le_bytes());
        digest.write(part.as_bytes());
        digest.value()
    }
}
