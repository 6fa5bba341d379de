//! Numbers of an Indexed Job as its fields write them: `0,2-4,7`.

use std::fmt::Write;
use std::ops::RangeInclusive;

/// The numbers of a text, as ranges in rising order that do not overlap. Two that follow one another are one (`0-2`).
///
/// # Errors
/// What is wrong with the text, to be read after it.
pub fn parse(text: &str) -> Result<Vec<RangeInclusive<i32>>, String> {
    let mut ranges: Vec<RangeInclusive<i32>> = Vec::new();
    if text.is_empty() {
        return Ok(ranges);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!(
                "has the range {part:?}, which ends before it begins"
            ));
        }
        match ranges.last_mut() {
            Some(before) if first <= *before.end() => {
                return Err(format!(
                    "is not in rising order: {first} comes after {}",
                    before.end()
                ));
            }
            Some(before) if first == *before.end() + 1 => *before = *before.start()..=last,
            _ => ranges.push(first..=last),
        }
    }
    Ok(ranges)
}

fn number(text: &str) -> Result<i32, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| format!("has {text:?}, which is not a number"))
}

/// How many numbers there are.
pub fn count(ranges: &[RangeInclusive<i32>]) -> i64 {
    let sizes = ranges
        .iter()
        .map(|r| i64::from(*r.end()) - i64::from(*r.start()) + 1);
    sizes.sum()
}

/// Numbers in rising order as a text; three or more that follow one another are a range, as Kubernetes writes them.
pub fn format(numbers: impl IntoIterator<Item = i32>) -> String {
    format_ranges(numbers.into_iter().map(|n| n..=n))
}

/// As [`format()`], of ranges in rising order that do not overlap: it takes as long as there are ranges, however wide they are.
pub fn format_ranges(ranges: impl IntoIterator<Item = RangeInclusive<i32>>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*range.start()) => *last = *range.end(),
            _ => runs.push((*range.start(), *range.end())),
        }
    }
    let mut text = String::new();
    for (first, last) in runs {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String does not fail.
        let _ = match last - first {
            0 => write!(text, "{first}"),
            1 => write!(text, "{first},{last}"),
            _ => write!(text, "{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_kubernetes_writes_them_and_read_back() {
        for (numbers, text) in [
            (vec![], ""),
            (vec![0], "0"),
            (vec![0, 1], "0,1"),
            (vec![0, 1, 2, 5, 7, 8], "0-2,5,7,8"),
            (vec![3, 4, 5, 6], "3-6"),
        ] {
            assert_eq!(format(numbers.clone()), text);
            let ranges = parse(text).unwrap();
            assert_eq!(count(&ranges), numbers.len() as i64);
            assert_eq!(ranges.into_iter().flatten().collect::<Vec<_>>(), numbers);
        }
    }

    #[test]
    fn what_is_no_list_of_rising_numbers_is_refused() {
        for bad in [
            "a",
            "1,",
            ",1",
            "-1",
            "1-",
            "3-2",
            "2,1",
            "1,1",
            "1-3,3",
            "+1",
            "1 ,2",
            "99999999999",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
