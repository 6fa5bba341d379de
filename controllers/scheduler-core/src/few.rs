//! Lists of numbers that are mostly short: the first few are kept in place, so that a node with few pods needs no
//! memory of its own for them, and reading them is no jump elsewhere.

/// How many are kept in place: what fits into a line of the processor's cache with the rest of the list.
const FEW: usize = 14;

/// See the module. In no particular order once something was taken out.
#[derive(Clone, Debug)]
pub(crate) enum Few {
    /// So many of these.
    Here(u32, [u32; FEW]),
    There(Vec<u32>),
}

impl Default for Few {
    fn default() -> Self {
        Self::Here(0, [0; FEW])
    }
}

impl Few {
    /// Adds one at the end.
    pub(crate) fn push(&mut self, value: u32) {
        match self {
            Self::Here(len, values) => match values.get_mut(*len as usize) {
                Some(place) => {
                    *place = value;
                    *len += 1;
                }
                None => {
                    let mut all = Vec::with_capacity(2 * FEW);
                    all.extend_from_slice(values);
                    all.push(value);
                    *self = Self::There(all);
                }
            },
            Self::There(all) => all.push(value),
        }
    }

    /// Takes one out; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, at: usize) {
        match self {
            Self::Here(len, values) => {
                let last = (*len as usize).saturating_sub(1);
                if at <= last {
                    values[at] = values[last];
                    *len = last as u32;
                }
            }
            Self::There(all) => {
                all.swap_remove(at);
                // With a gap between the two bounds, so that one that comes and goes costs nothing.
                if all.len() <= FEW / 2 {
                    let mut values = [0; FEW];
                    values[..all.len()].copy_from_slice(all);
                    *self = Self::Here(all.len() as u32, values);
                }
            }
        }
    }
}

impl std::ops::Deref for Few {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Self::Here(len, values) => &values[..*len as usize],
            Self::There(all) => all,
        }
    }
}

impl<'a> IntoIterator for &'a Few {
    type Item = &'a u32;
    type IntoIter = std::slice::Iter<'a, u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_of_few_is_a_list(steps in proptest::collection::vec(proptest::option::weighted(0.6, 0..99_u32), 0..120)) {
            let (mut few, mut list) = (Few::default(), Vec::new());
            for step in steps {
                match step {
                    Some(value) => {
                        few.push(value);
                        list.push(value);
                    }
                    None if list.is_empty() => {}
                    None => {
                        let at = list.len() / 3;
                        few.swap_remove(at);
                        list.swap_remove(at);
                    }
                }
                prop_assert_eq!(&*few, list.as_slice());
            }
        }
    }
}
