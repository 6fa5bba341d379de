//! Reading quantities.

use super::{Format, NANO, Quantity};

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity such as 250m, 0.5, 1Gi or 1e3")]
pub struct BadQuantity(pub String);

pub(super) fn parse(text: &str) -> Result<Quantity, BadQuantity> {
    parts(text).ok_or_else(|| BadQuantity(text.into()))
}

/// What a number is multiplied by.
enum Factor {
    Ten(i32),
    Two(u32),
}

fn parts(text: &str) -> Option<Quantity> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end = rest
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(rest.len());
    let (whole, rest) = rest.split_at(digits_end);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => rest.split_at(
            rest.bytes()
                .position(|b| !b.is_ascii_digit())
                .unwrap_or(rest.len()),
        ),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (factor, format) = suffix_of(suffix)?;
    let (whole, nano) = magnitude(whole, fraction, &factor);
    // A binary suffix on less than one would show as a rounded number; Kubernetes writes it in decimal from then on.
    let format = if format == Format::BinarySi && whole == 0 {
        Format::DecimalSi
    } else {
        format
    };
    Some(if negative && nano > 0 {
        Quantity::cap(-whole - 1, NANO - nano, format)
    } else if negative {
        Quantity::cap(-whole, 0, format)
    } else {
        Quantity::cap(whole, nano, format)
    })
}

fn suffix_of(suffix: &str) -> Option<(Factor, Format)> {
    let decimal = |exponent| Some((Factor::Ten(exponent), Format::DecimalSi));
    let binary = |bits| Some((Factor::Two(bits), Format::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Some((Factor::Ten(exponent.parse().ok()?), Format::DecimalExponent))
        }
    }
}

/// The value without its sign as whole and billionths: rounded up to a billionth, capped at `i64::MAX`.
fn magnitude(whole: &str, fraction: &str, factor: &Factor) -> (i64, u32) {
    let fraction = fraction.trim_end_matches('0');
    match factor {
        Factor::Two(bits) => {
            let Some(number) = whole.trim_start_matches('0').parse_or_zero() else {
                return (i64::MAX, 0);
            };
            let mut nanos = match number
                .checked_mul(u128::from(NANO))
                .and_then(|n| n.checked_mul(1 << bits))
            {
                Some(n) => n,
                None => return (i64::MAX, 0),
            };
            // 18 digits after the point are enough for 2^60: what follows can only round up the last billionth.
            let mut scale = 1u128;
            let mut digits = 0u128;
            for b in fraction.bytes().take(18) {
                digits = digits * 10 + u128::from(b - b'0');
                scale *= 10;
            }
            // digits < 10^18 and 2^60 * 10^9 < 10^28 do not fit one multiplication, so the power of two goes in two steps.
            let shifted = digits << bits;
            let (quotient, rest) = (shifted / scale, shifted % scale);
            nanos += quotient * u128::from(NANO) + (rest * u128::from(NANO)).div_ceil(scale);
            nanos += u128::from(fraction.len() > 18);
            split(nanos)
        }
        Factor::Ten(exponent) => {
            let digits: Vec<u8> = whole
                .bytes()
                .chain(fraction.bytes())
                .map(|b| b - b'0')
                .collect();
            // The value is 0.d1d2d3... times ten to the `point`.
            let point = i64::try_from(whole.len())
                .unwrap_or(i64::MAX)
                .saturating_add(i64::from(*exponent));
            let Some(first) = digits.iter().position(|&d| d != 0) else {
                return (0, 0);
            };
            let lead = point.saturating_sub(i64::try_from(first).unwrap_or(i64::MAX));
            if lead > 19 {
                return (i64::MAX, 0);
            }
            let mut nanos = 0u128;
            let mut inexact = false;
            // Digit i is worth ten to the (point - 1 - i); a billionth is ten to the -9.
            for (i, &d) in digits.iter().enumerate().skip(first) {
                let power = point
                    .saturating_sub(1)
                    .saturating_sub(i64::try_from(i).unwrap_or(i64::MAX))
                    .saturating_add(9);
                match u32::try_from(power) {
                    Ok(power) => nanos += u128::from(d) * 10u128.pow(power),
                    Err(_) => {
                        inexact = inexact || d != 0;
                    }
                }
            }
            split(nanos + u128::from(inexact))
        }
    }
}

fn split(nanos: u128) -> (i64, u32) {
    match i64::try_from(nanos / u128::from(NANO)) {
        Ok(whole) => (whole, (nanos % u128::from(NANO)) as u32),
        Err(_) => (i64::MAX, 0),
    }
}

trait ParseOrZero {
    fn parse_or_zero(&self) -> Option<u128>;
}

impl ParseOrZero for str {
    fn parse_or_zero(&self) -> Option<u128> {
        if self.is_empty() {
            Some(0)
        } else {
            self.parse().ok()
        }
    }
}
