//! Amounts of resources as the scheduler counts them: whole numbers, a fixed array for what every node has.

use setpoint_apis::ResourceList;

use crate::intern::{Interner, Symbol};

/// Thousandths of a core.
pub(crate) const CPU: usize = 0;
/// Bytes.
pub(crate) const MEMORY: usize = 1;
/// How many pods.
pub(crate) const PODS: usize = 2;

/// The names of the resources in the fixed array.
pub(crate) const NAMES: [&str; 4] = ["cpu", "memory", "pods", "ephemeral-storage"];

/// The greatest amount that is told apart: a thousand of it can be added up, and no machine has it.
const MOST: i64 = 1 << 53;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Resources {
    /// In the order of [`NAMES`].
    pub(crate) fixed: [i64; 4],
    /// Everything else, sorted by symbol; zero amounts are left out.
    pub(crate) extended: Box<[(Symbol, i64)]>,
}

impl Resources {
    /// Takes over a list. What is negative counts as nothing, what is beyond all measure as [`MOST`].
    pub(crate) fn from_list(list: &ResourceList, interner: &mut Interner) -> Self {
        let mut fixed = [0; 4];
        let mut extended = Vec::new();
        for (name, quantity) in list {
            match NAMES.iter().position(|n| n == name) {
                Some(CPU) => fixed[CPU] = clamp(quantity.milli_value()),
                Some(i) => fixed[i] = clamp(quantity.value()),
                None => {
                    let amount = clamp(quantity.value());
                    if amount > 0 {
                        extended.push((interner.intern(name), amount));
                    }
                }
            }
        }
        extended.sort_unstable();
        Self {
            fixed,
            extended: extended.into(),
        }
    }
}

fn clamp(amount: i64) -> i64 {
    amount.clamp(0, MOST)
}
