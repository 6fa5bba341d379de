//! One field of a schedule: which numbers it takes.

use std::fmt;

use super::BadSchedule;

/// What a field can say.
pub(super) struct Kind {
    name: &'static str,
    least: i8,
    most: i8,
    /// Words for the numbers from `least` on.
    words: &'static [&'static str],
    /// What to say of a number that is too large.
    hint: &'static str,
}

pub(super) const MINUTE: Kind = Kind {
    name: "minute",
    least: 0,
    most: 59,
    words: &[],
    hint: "",
};
pub(super) const HOUR: Kind = Kind {
    name: "hour",
    least: 0,
    most: 23,
    words: &[],
    hint: "",
};
pub(super) const DAY_OF_MONTH: Kind = Kind {
    name: "day of the month",
    least: 1,
    most: 31,
    words: &[],
    hint: "",
};
pub(super) const MONTH: Kind = Kind {
    name: "month",
    least: 1,
    most: 12,
    words: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
    hint: "",
};
pub(super) const DAY_OF_WEEK: Kind = Kind {
    name: "day of the week",
    least: 0,
    most: 6,
    words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    hint: "; Sunday is 0",
};

/// The numbers that a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// One bit per number.
    bits: u64,
    /// Whether it restricts nothing: `*` or `?`, without a step.
    pub(super) any: bool,
    /// Whether it begins with a star, with or without a step.
    pub(super) starred: bool,
}

impl Field {
    pub(super) fn has(&self, number: i8) -> bool {
        (0..64).contains(&number) && self.bits & (1 << number) != 0
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any {
            return f.write_str("*");
        }
        let mut numbers = (0..64).filter(|n| self.has(*n));
        if let Some(first) = numbers.next() {
            write!(f, "{first}")?;
        }
        numbers.try_for_each(|n| write!(f, ",{n}"))
    }
}

impl Kind {
    pub(super) fn parse(&self, text: &str) -> Result<Field, BadSchedule> {
        let bad = |problem: String| BadSchedule::Field {
            field: self.name,
            text: text.into(),
            problem,
        };
        let mut field = Field {
            bits: 0,
            any: false,
            starred: text.starts_with(['*', '?']),
        };
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => (range, Some(self.step(step).map_err(bad)?)),
            };
            let star = matches!(range, "*" | "?");
            let (first, last) = if star {
                (self.least, self.most)
            } else if let Some((first, last)) = range.split_once('-') {
                (
                    self.number(first).map_err(bad)?,
                    self.number(last).map_err(bad)?,
                )
            } else {
                let only = self.number(range).map_err(bad)?;
                (only, if step.is_some() { self.most } else { only })
            };
            if first > last {
                return Err(bad(format!(
                    "has the range {range:?}, which ends before it begins"
                )));
            }
            let step = step.unwrap_or(1);
            field.any |= star && step == 1;
            (first..=last)
                .step_by(step)
                .for_each(|n| field.bits |= 1 << n);
        }
        Ok(field)
    }

    fn number(&self, text: &str) -> Result<i8, String> {
        let (least, most) = (self.least, self.most);
        let lower = text.to_lowercase();
        if let Some(at) = self.words.iter().position(|w| *w == lower) {
            return Ok((least..=most).nth(at).unwrap_or(most));
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(match (text, self.words) {
                ("", _) => "has an empty place where a number belongs".into(),
                (_, [first, .., last]) => {
                    format!("has {text:?}, which is not {least} to {most} or {first} to {last}")
                }
                _ => format!("has {text:?}, which is not {least} to {most}"),
            });
        }
        text.parse()
            .ok()
            .filter(|n| (least..=most).contains(n))
            .ok_or_else(|| format!("has {text}, which is not {least} to {most}{}", self.hint))
    }

    fn step(&self, text: &str) -> Result<usize, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<usize>() {
            Ok(0) => Err("has a step of 0".into()),
            Ok(step) if digits => Ok(step),
            _ => Err(format!("has the step {text:?}, which is not a number")),
        }
    }
}
