//! `$(VAR)` in commands, arguments and values.

/// Replaces `$(NAME)` by what `value` says. What has no value stays as it is; `$$` is a plain `$`, so `$$(NAME)` is not
/// replaced.
pub fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_is_kubernetes_own() {
        let value = |name: &str| match name {
            "A" => Some("a"),
            "E" => Some(""),
            "S" => Some("$(A)"),
            _ => None,
        };
        for (text, want) in [
            ("$(A)", "a"),
            ("x$(A)y$(A)z", "xayaz"),
            ("$(E)", ""),
            ("$(S)", "$(A)"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$$A", "$A"),
            ("$(A", "$(A"),
            ("$(A$(A)", "$(A$(A)"),
            ("$()", "$()"),
            ("f(A) $(A))", "f(A) a)"),
            ("", ""),
        ] {
            assert_eq!(expand(text, value), want, "{text}");
        }
    }
}
