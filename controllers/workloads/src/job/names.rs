//! The names of the pods of Jobs: `<job>-<5 letters>`, of Indexed ones `<job>-<index>-<5 letters>`.

use crate::hash::{PodNames, SUFFIX, has_stem, stem};

/// The most bytes of what comes before the letters, the hyphen included: the whole fits a DNS label.
const STEM: usize = 63 - SUFFIX;

/// The most digits of an index.
const DIGITS: usize = 10;

/// What the names of all pods of a Job begin with.
pub(super) fn prefix(job: &str) -> &str {
    cut(job, STEM - DIGITS - 2)
}

/// Names of pods of one Job, and of one index of it.
pub(super) fn generate(job: &str, uid: &str, index: Option<i32>, salt: u64) -> PodNames {
    match index {
        None => PodNames::new(job, uid, salt),
        Some(index) => {
            let owner = with_index(job, &index.to_string());
            PodNames::new(&owner, uid, salt)
        }
    }
}

/// Whether a pod of this name may be of the Job, and if so, its index.
pub(super) fn index_of(name: &str, job: &str, indexed: bool) -> Option<Option<i32>> {
    if !indexed {
        return has_stem(name, &stem(job)).then_some(None);
    }
    let (head, _) = name.rsplit_once('-')?;
    let (_, digits) = head.rsplit_once('-')?;
    let index: i32 = digits.parse().ok()?;
    let canonical = index >= 0 && digits == index.to_string();
    (canonical && has_stem(name, &stem(&with_index(job, digits)))).then_some(Some(index))
}

fn with_index(job: &str, digits: &str) -> String {
    let room = STEM.saturating_sub(digits.len() + 2);
    format!("{}-{digits}", cut(job, room))
}

/// Names are ASCII (validated); `get` keeps a foreign one from panicking here.
fn cut(name: &str, most: usize) -> &str {
    name.get(..name.len().min(most)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_index_and_fits_a_label() {
        let long = "j".repeat(63);
        for job in ["sum", "sum-1", &long] {
            for index in [None, Some(0), Some(7), Some(i32::MAX)] {
                let name = generate(job, "u", index, 3).next().unwrap();
                assert!(name.len() <= 63 && name.starts_with(prefix(job)), "{name}");
                assert_eq!(index_of(&name, job, index.is_some()), Some(index), "{name}");
            }
        }
        let plain = generate("sum", "u", None, 1).next().unwrap();
        assert_eq!(index_of(&plain, "sum", true), None);
        let other = generate("sum-of", "u", Some(3), 1).next().unwrap();
        assert_eq!(index_of(&other, "sum", true), None);
        assert_eq!(index_of("sum-03-bcdfg", "sum", true), None);
    }
}
