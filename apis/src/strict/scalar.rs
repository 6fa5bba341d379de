//! What an unquoted word means, exactly as the reader that Kubernetes' tools use takes it: YAML 1.1's booleans
//! (`yes`, `off`, `n`), octal (`0644`), binary, underscores in numbers, but no base-60 numbers, and dates stay texts.

/// What a scalar means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    /// A whole number between `i64::MIN` and `u64::MAX`.
    Int(i128),
    /// A number with a fraction or an exponent; never infinite.
    Float(f64),
    /// Infinity or not a number, which no field takes.
    NotFinite,
    Text,
}

pub(crate) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return Scalar::NotFinite,
        _ => {}
    }
    match text.as_bytes()[0] {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' => {
            let plain = if text.contains('_') {
                text.replace('_', "")
            } else {
                text.to_owned()
            };
            int(&plain).map_or_else(|| float(&plain), Scalar::Int)
        }
        _ => Scalar::Text,
    }
}

fn int(plain: &str) -> Option<i128> {
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| (b as char).is_digit(base)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, base).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    (i128::from(i64::MIN)..=i128::from(u64::MAX))
        .contains(&value)
        .then_some(value)
}

/// `[-+]? ( .digits | digits [.digits] ) [exponent]`; anything else, and what is too big, is a text.
fn float(plain: &str) -> Scalar {
    let body = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(i) => (&body[..i], Some(&body[i + 1..])),
        None => (body, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fine = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_fine = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    match plain.parse::<f64>() {
        Ok(value) if mantissa_fine && exponent_fine && value.is_finite() => Scalar::Float(value),
        _ => Scalar::Text,
    }
}

/// The number as JSON has it: whole when it is whole, as Go writes it.
pub(crate) fn number(value: f64) -> serde_json::Number {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        serde_json::Number::from(value as i64)
    } else {
        serde_json::Number::from_f64(value).unwrap_or_else(|| serde_json::Number::from(0))
    }
}

/// Whether the text is a number as JSON writes numbers, which every reader takes alike.
pub(crate) fn is_json_number(text: &str) -> bool {
    text.bytes()
        .next()
        .is_some_and(|b| b == b'-' || b.is_ascii_digit())
        && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_as_yaml_1_1_takes_them() {
        for yes in [
            "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE",
        ] {
            assert_eq!(resolve(yes), Scalar::Bool(true), "{yes}");
        }
        for no in [
            "n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE",
        ] {
            assert_eq!(resolve(no), Scalar::Bool(false), "{no}");
        }
        for null in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(null), Scalar::Null, "{null}");
        }
        for text in ["nO", "yEs", "oN", "nil", "none", "tRue", "NO ", "<<"] {
            assert_eq!(resolve(text), Scalar::Text, "{text}");
        }
    }

    #[test]
    fn numbers_are_taken_as_go_takes_them() {
        for (text, value) in [
            ("0", 0),
            ("0644", 420),
            ("0o644", 420),
            ("0x1F", 31),
            ("0b101", 5),
            ("-0b101", -5),
            ("+12", 12),
            ("-012", -10),
            ("1_000", 1000),
            ("18446744073709551615", 18_446_744_073_709_551_615),
        ] {
            assert_eq!(resolve(text), Scalar::Int(value), "{text}");
        }
        for (text, value) in [
            ("1e3", 1000.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("-.5", -0.5),
            ("08", 8.0),
            ("1.5e-3", 0.0015),
            ("+1E2", 100.0),
        ] {
            assert_eq!(resolve(text), Scalar::Float(value), "{text}");
        }
        assert_eq!(resolve("99999999999999999999"), Scalar::Float(1e20));
        assert_eq!(resolve(".inf"), Scalar::NotFinite);
    }

    #[test]
    fn times_dates_and_versions_stay_texts() {
        for text in [
            "1:30",
            "12:30:45",
            "2001-01-01",
            "1.2.3",
            "1e",
            "1e400",
            "0x",
            "-",
            "+",
            ".",
            "..",
            "0xfg",
            "1 2",
            "1k",
            "٣",
        ] {
            assert_eq!(resolve(text), Scalar::Text, "{text}");
        }
    }

    #[test]
    fn numbers_become_json_as_go_writes_them() {
        assert_eq!(number(1000.0).to_string(), "1000");
        assert_eq!(number(0.5).to_string(), "0.5");
        assert!(is_json_number("1e3") && is_json_number("-0.5"));
        assert!(
            !is_json_number("01")
                && !is_json_number(".5")
                && !is_json_number("1_0")
                && !is_json_number(" 1")
        );
    }
}
