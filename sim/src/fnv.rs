//! Digests and seeds that are the same in every run and every version.

use setpoint_apis::fnv::Fnv64;

/// A digest in the making.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fnv(Fnv64);

impl Fnv {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub(crate) fn value(self) -> u64 {
        self.0.value()
    }

    /// A seed for a part of a simulation, so that parts have luck of their own.
    pub(crate) fn seed(seed: u64, part: &str) -> u64 {
        let mut digest = Self::default();
        digest.write(&seed.to_le_bytes());
        digest.write(part.as_bytes());
        digest.value()
    }
}
