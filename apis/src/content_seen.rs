//! What a controller has seen of the ConfigMaps and Secrets that a template reads.
//!
//! A change of one of them is a new revision of the workload, but no new generation of its document. So the status says
//! which contents it is about, and whoever waits for a rollout compares that with what is stored.

use crate::core::PodSpec;
use crate::fnv::Fnv64;

/// An object that a template reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content<'a> {
    /// Whether it is a Secret; otherwise a ConfigMap.
    pub secret: bool,
    /// Its name.
    pub name: &'a str,
}

/// What a template reads, in order.
pub fn contents(spec: &PodSpec) -> Vec<Content<'_>> {
    let of = |secret| move |name| Content { secret, name };
    let config_maps = spec.config_maps().into_keys().map(of(false));
    let secrets = spec.secrets().into_keys().map(of(true));
    config_maps.chain(secrets).collect()
}

/// A fingerprint of what a template reads, of which `revision` gives the mod revision; `None` when it reads nothing.
pub fn fingerprint(
    spec: &PodSpec,
    mut revision: impl FnMut(&Content<'_>) -> Option<i64>,
) -> Option<String> {
    let contents = contents(spec);
    let mut hash = Fnv64::default();
    for content in &contents {
        hash.write(&[u8::from(content.secret)]);
        hash.write(content.name.as_bytes());
        hash.write(&[0]);
        hash.write(&revision(content).unwrap_or(0).to_be_bytes());
    }
    (!contents.is_empty()).then(|| format!("{:016x}", hash.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_what_is_read_is_another_fingerprint_and_nothing_else_is() {
        let spec: PodSpec = serde_yaml::from_str(
            "containers: [{name: c, image: x, envFrom: [{configMapRef: {name: a}}, {secretRef: {name: a}}]}]",
        )
        .unwrap();
        let of = |config_map, secret| {
            fingerprint(&spec, |c| match c.secret {
                true => secret,
                false => config_map,
            })
        };
        let first = of(Some(3), Some(4));
        assert!(first.is_some());
        assert_eq!(first, of(Some(3), Some(4)));
        for other in [
            of(Some(4), Some(3)),
            of(Some(5), Some(4)),
            of(None, Some(4)),
            of(Some(3), None),
        ] {
            assert_ne!(first, other);
        }
        let none: PodSpec = serde_yaml::from_str("containers: [{name: c, image: x}]").unwrap();
        assert_eq!(fingerprint(&none, |_| Some(1)), None);
    }
}
