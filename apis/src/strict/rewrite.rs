//! The text that is stored: the writer's own, with as little changed as possible.

use serde_json::Value as Json;

use super::check::Edit;

/// The writer's text with the edits made, or `None` when it cannot be kept.
///
/// The result is read again and compared with what it must mean, so an edit that went wrong cannot be stored.
pub(super) fn edited(text: &str, edits: &[Edit], meaning: &Json) -> Option<String> {
    let mut changes = Vec::new();
    for edit in edits {
        match edit {
            Edit::Replace(range, new) => changes.push((range.clone(), new.as_str())),
            Edit::Canonical(range, new, fine) => {
                let written = text.get(range.clone())?.trim_end();
                if !fine(written, new) {
                    changes.push((range.start..range.start + written.len(), new.as_str()));
                }
            }
            Edit::Remove(range) => changes.push((lines(text, range.start, range.end)?, "")),
        }
    }
    changes.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, new) in changes {
        if range.start < at {
            // Inside of something that was removed.
            if range.end <= at {
                continue;
            }
            return None;
        }
        out.push_str(text.get(at..range.start)?);
        out.push_str(new);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    let out = tidy(&out);
    means(&out, meaning).then_some(out)
}

/// The document written afresh.
pub(super) fn rendered(meaning: &Json) -> String {
    crate::document::encode(meaning)
}

/// Whole lines from the one where `start` is, when only blanks precede it, to the one where `end` is.
fn lines(text: &str, start: usize, end: usize) -> Option<std::ops::Range<usize>> {
    let begin = text.get(..start)?.rfind('\n').map_or(0, |i| i + 1);
    if !text.get(begin..start)?.bytes().all(|b| b == b' ') {
        return None;
    }
    // The value of a block collection may end at the beginning of a later line.
    let body = text.get(start..end)?.trim_end().len() + start;
    let finish = text
        .get(body..)?
        .find('\n')
        .map_or(text.len(), |i| body + i + 1);
    Some(begin..finish)
}

/// Without a line that begins the document, without blank lines at both ends, with a line break at the end.
fn tidy(text: &str) -> String {
    let text = match text.strip_prefix("---") {
        Some(rest) => {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let remark = line.trim();
            if remark.is_empty() || remark.starts_with('#') {
                after
            } else {
                text
            }
        }
        None => text,
    };
    let mut text = text;
    while let Some((line, after)) = text.split_once('\n')
        && line.trim().is_empty()
    {
        text = after;
    }
    let mut out = text.trim_end().to_owned();
    out.push('\n');
    out
}

/// Whether readers of stored documents take the text as this value.
fn means(text: &str, meaning: &Json) -> bool {
    let read = if text.trim_start().starts_with('{') {
        serde_json::from_str::<Json>(text).ok()
    } else {
        None
    };
    let read = read.or_else(|| serde_yaml::from_str::<Json>(text).ok());
    let Some(mut read) = read else { return false };
    let mut meaning = meaning.clone();
    crate::document::drop_nulls(&mut read);
    crate::document::drop_nulls(&mut meaning);
    equal(&read, &meaning)
}

/// Equality by value: 1 and 1.0 are one number.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Json::Array(x), Json::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y))
        }
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}
