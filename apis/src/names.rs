//! The syntax of names: objects, labels, ports, variables. Kubernetes' rules, in one place.
//!
//! Each function gives back what is wrong, as the end of a sentence that begins with the name.

/// What is wrong with a name, to be read after the name itself.
pub type Problem = String;

fn alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// A DNS label: at most 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends.
///
/// # Errors
/// What is wrong.
pub fn dns_label(name: &str) -> Result<(), Problem> {
    length(name, 63)?;
    let b = name.as_bytes();
    if b.iter().all(|&c| alphanumeric(c) || c == b'-') && ends(b, alphanumeric) {
        Ok(())
    } else {
        Err("must be lower-case letters, digits and '-', and begin and end with a letter or digit (DNS-1123 label)".into())
    }
}

/// A DNS label that begins with a letter, as names of services are.
///
/// # Errors
/// What is wrong.
pub fn dns_1035_label(name: &str) -> Result<(), Problem> {
    dns_label(name)?;
    if name.as_bytes()[0].is_ascii_lowercase() {
        Ok(())
    } else {
        Err("must begin with a letter (DNS-1035 label)".into())
    }
}

/// A DNS name: DNS labels joined by `.`, at most 253 characters.
///
/// # Errors
/// What is wrong.
pub fn dns_subdomain(name: &str) -> Result<(), Problem> {
    length(name, 253)?;
    let part = |p: &str| {
        let b = p.as_bytes();
        b.iter().all(|&c| alphanumeric(c) || c == b'-') && ends(b, alphanumeric)
    };
    if name.split('.').all(part) {
        Ok(())
    } else {
        Err("must be lower-case letters, digits, '-' and '.', and begin and end with a letter or digit \
             (DNS-1123 subdomain)"
            .into())
    }
}

/// The key of a label or annotation: an optional DNS name and `/`, then at most 63 letters, digits, `-`, `_`, `.`.
///
/// # Errors
/// What is wrong.
pub fn label_key(key: &str) -> Result<(), Problem> {
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|p| format!("has a prefix that {p}"))?;
            name
        }
    };
    length(name, 63)?;
    qualified(name)
}

/// The value of a label: empty, or at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
///
/// # Errors
/// What is wrong.
pub fn label_value(value: &str) -> Result<(), Problem> {
    if value.is_empty() {
        return Ok(());
    }
    length(value, 63)?;
    qualified(value)
}

/// The name of a port: at most 15 of `a-z`, `0-9` and single `-`, with at least one letter.
///
/// # Errors
/// What is wrong.
pub fn port_name(name: &str) -> Result<(), Problem> {
    length(name, 15)?;
    let b = name.as_bytes();
    let fine = b.iter().all(|&c| alphanumeric(c) || c == b'-')
        && ends(b, alphanumeric)
        && b.iter().any(u8::is_ascii_lowercase)
        && !name.contains("--");
    if fine {
        Ok(())
    } else {
        Err("must be lower-case letters, digits and single '-', with at least one letter".into())
    }
}

/// The name of an environment variable: printable ASCII without `=`.
///
/// # Errors
/// What is wrong.
pub fn env_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Err("must not be empty".into());
    }
    if name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        Ok(())
    } else {
        Err("must be printable ASCII without '='".into())
    }
}

/// The key of a ConfigMap or Secret: at most 253 letters, digits, `-`, `_`, `.`; not `.`, and not beginning with `..`.
///
/// # Errors
/// What is wrong.
pub fn data_key(key: &str) -> Result<(), Problem> {
    length(key, 253)?;
    if key == "." || key.starts_with("..") {
        return Err("must not be '.' or begin with '..'".into());
    }
    if key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        Ok(())
    } else {
        Err("must be letters, digits, '-', '_' and '.'".into())
    }
}

fn length(name: &str, max: usize) -> Result<(), Problem> {
    if name.is_empty() {
        Err("must not be empty".into())
    } else if name.len() > max {
        Err(format!("must not be longer than {max} characters"))
    } else {
        Ok(())
    }
}

fn ends(b: &[u8], ok: impl Fn(u8) -> bool) -> bool {
    b.first().is_some_and(|&c| ok(c)) && b.last().is_some_and(|&c| ok(c))
}

fn qualified(name: &str) -> Result<(), Problem> {
    let b = name.as_bytes();
    if b.iter()
        .all(|&c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        && ends(b, |c| c.is_ascii_alphanumeric())
    {
        Ok(())
    } else {
        Err(
            "must be letters, digits, '-', '_' and '.', and begin and end with a letter or digit"
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_keys_are_refused() {
        for bad in [
            "",
            "a/b",
            "..",
            ".",
            "a..b",
            "-a",
            "a-",
            "A",
            "a_b",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(254),
        ] {
            assert!(dns_subdomain(bad).is_err(), "{bad:?}");
            assert!(dns_label(bad).is_err(), "{bad:?}");
        }
        assert!(dns_subdomain("a.b-1").is_ok());
        assert!(dns_label("a.b").is_err());
        assert!(dns_1035_label("1a").is_err());
    }

    #[test]
    fn label_syntax_is_kubernetes() {
        for good in ["a", "A_b.c-1", "example.com/x", "app.kubernetes.io/name"] {
            assert!(label_key(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a/b/c", "Ex/a", "-a", "a b"] {
            assert!(label_key(bad).is_err(), "{bad}");
        }
        assert!(label_value("").is_ok() && label_value("1.2.3").is_ok());
        assert!(label_value("a b").is_err() && label_value("-").is_err());
    }

    #[test]
    fn port_and_data_names() {
        assert!(port_name("http-2").is_ok());
        for bad in ["80", "HTTP", "a--b", "-a", "abcdefghijklmnop"] {
            assert!(port_name(bad).is_err(), "{bad}");
        }
        assert!(data_key("a.B_c-1").is_ok() && data_key(".env").is_ok());
        for bad in ["", ".", "..", "..a", "a/b"] {
            assert!(data_key(bad).is_err(), "{bad}");
        }
    }
}
