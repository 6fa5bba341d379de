//! The cases of random tests. They come from a fixed seed, so that a rare one does not turn up in a change that has
//! nothing to do with it. `PROPTEST_RNG_SEED=n` takes others.

use proptest::test_runner::{Config, RngSeed};

/// What proptest does by itself, from that seed. Other crates include this file.
pub(crate) fn seeded() -> Config {
    let config = Config::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        given @ RngSeed::Fixed(_) => given,
    };
    Config { rng_seed, ..config }
}
