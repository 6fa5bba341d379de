//! How long ago something was, in as few characters as make sense: `45s`, `3m20s`, `5h`, `2d4h`.

use setpoint_apis::time::Timestamp;

/// The time since `then`; `<unknown>` when nobody recorded it.
pub(crate) fn since(then: Option<Timestamp>, now: Timestamp) -> String {
    match then {
        None => "<unknown>".into(),
        Some(then) => seconds((now.as_unix_millis() - then.as_unix_millis()).div_euclid(1000)),
    }
}

/// A duration with two units at most, the second one only while it matters.
pub(crate) fn seconds(s: i64) -> String {
    // Clocks of two machines differ a little.
    let s = s.max(0);
    let (m, h, d, y) = (s / 60, s / 3600, s / 86_400, s / (86_400 * 365));
    let two = |a: i64, unit: &str, b: i64, small: &str| {
        if b == 0 {
            format!("{a}{unit}")
        } else {
            format!("{a}{unit}{b}{small}")
        }
    };
    if s < 120 {
        format!("{s}s")
    } else if m < 10 {
        two(m, "m", s % 60, "s")
    } else if h < 3 {
        format!("{m}m")
    } else if h < 8 {
        two(h, "h", m % 60, "m")
    } else if h < 48 {
        format!("{h}h")
    } else if d < 8 {
        two(d, "d", h % 24, "h")
    } else if y < 2 {
        format!("{d}d")
    } else if y < 8 {
        two(y, "y", d % 365, "d")
    } else {
        format!("{y}y")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (s, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (315_360_000, "10y"),
        ] {
            assert_eq!(seconds(s), text, "{s}");
        }
    }

    #[test]
    fn what_nobody_recorded_is_unknown() {
        assert_eq!(since(None, Timestamp::EPOCH), "<unknown>");
        assert_eq!(
            since(Some(Timestamp::EPOCH), Timestamp::from_unix_millis(5_999)),
            "5s"
        );
    }
}
