//! Hashes and names: stable across processes and versions, in letters that spell no words.

use std::fmt::Write as _;

use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::fnv::fnv32;

/// Kubernetes' safe alphabet: no vowels, so no words; no 0, 1 and 3, so no look-alikes of them.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many random letters a generated name ends in.
pub const SUFFIX: usize = 5;

/// The most bytes of a generated name before its random letters, so that the whole fits a DNS label.
const STEM: usize = 63 - SUFFIX;

/// The value of the label `pod-template-hash`, and the end of a ReplicaSet's name.
///
/// Equal templates have equal hashes. It names and never identifies: whether a ReplicaSet is of a template is found by
/// comparing templates, so a version that hashes differently starts no rollout. `collisions` makes another hash of the
/// same template, for when the name is taken.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // A struct's fields come in one order and maps are sorted, so this encoding is canonical.
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if collisions > 0 {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    safe_encode(&fnv32(&bytes).to_string())
}

/// Spells a text in the safe alphabet, letter by letter, as Kubernetes does.
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes()
        .map(|b| char::from(SAFE[usize::from(b) % SAFE.len()]))
        .collect()
}

/// What names generated for `owner` begin with: `<owner>-`, shortened so that the whole fits a DNS label.
pub fn stem(owner: &str) -> String {
    // Names are ASCII (validated); `get` keeps a foreign one from panicking here.
    let cut = owner.get(..owner.len().min(STEM - 1)).unwrap_or(owner);
    format!("{cut}-")
}

/// The stem of a generated name that may be that of a longer name: then the name does not say whose it is.
pub fn cut_stem(name: &str) -> Option<&str> {
    let stem = name.get(..STEM)?;
    has_stem(name, stem).then_some(stem)
}

/// Whether `name` is one that [`PodNames`] would make with `stem`.
pub fn has_stem(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem)
        .is_some_and(|s| s.len() == SUFFIX && s.bytes().all(|b| SAFE.contains(&b)))
}

/// An endless row of names `<owner>-<5 letters>`, the same for the same owner and salt.
pub struct PodNames {
    stem: String,
    rng: fastrand::Rng,
}

impl PodNames {
    /// Names of the pods of `owner`. Another salt gives other names, so that a successor does not have the name of a
    /// pod that is still being stopped.
    pub fn new(owner: &str, uid: &str, salt: u64) -> Self {
        let seed =
            u64::from(fnv32(uid.as_bytes())) << 32 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            stem: stem(owner),
            rng: fastrand::Rng::with_seed(seed),
        }
    }
}

impl Iterator for PodNames {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut name = String::with_capacity(self.stem.len() + SUFFIX);
        name.push_str(&self.stem);
        for _ in 0..SUFFIX {
            let _ = name.write_char(char::from(SAFE[self.rng.usize(..SAFE.len())]));
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        let text = format!(
            "metadata: {{labels: {{app: web}}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    #[test]
    fn safe_encoding_is_kubernetes() {
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
        assert!(safe_encode("4294967295").bytes().all(|b| SAFE.contains(&b)));
    }

    #[test]
    fn a_template_has_one_hash_and_another_after_a_collision() {
        let a = template_hash(&template("a"), 0);
        assert_eq!(a, template_hash(&template("a"), 0));
        assert_ne!(a, template_hash(&template("b"), 0));
        assert_ne!(a, template_hash(&template("a"), 1));
        assert!(a.len() <= 10 && !a.is_empty());
    }

    #[test]
    fn names_repeat_for_a_salt_and_differ_between_salts_and_owners() {
        let take = |uid: &str, salt| {
            PodNames::new("web-1", uid, salt)
                .take(100)
                .collect::<Vec<_>>()
        };
        assert_eq!(take("u", 1), take("u", 1));
        assert_ne!(take("u", 1), take("u", 2));
        assert_ne!(take("u", 1), take("v", 1));
        assert!(take("u", 1).iter().all(|n| has_stem(n, "web-1-")));
        assert!(!has_stem("web-1-aeiou", "web-1-") && !has_stem("web-1-bcdfgh", "web-1-"));
    }

    #[test]
    fn a_name_says_whose_it_is_unless_that_was_shortened() {
        for (length, cut) in [(56, false), (57, true), (58, true), (100, true)] {
            let owner = "a".repeat(length);
            let name = PodNames::new(&owner, "u", 0).next().unwrap();
            assert_eq!(cut_stem(&name), cut.then_some(&*stem(&owner)), "{length}");
        }
        assert_eq!(cut_stem("web-1-bcdfg"), None);
    }

    #[test]
    fn names_fit_a_dns_label() {
        let long = "a".repeat(100);
        assert!(
            PodNames::new(&long, "u", 0)
                .take(3)
                .all(|n| n.len() <= 63 && has_stem(&n, &stem(&long)))
        );
    }
}
