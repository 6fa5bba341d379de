//! Answers that are too large for one message, in parts.

use prost::Message;

use crate::model::api::WatchResponse;

/// Splits an answer into parts of less than `limit` bytes, or of one event. All but the last say that more follows.
pub(super) fn split(response: WatchResponse, limit: usize) -> Vec<WatchResponse> {
    if response.events.len() < 2 || response.encoded_len() < limit {
        return vec![response];
    }
    let empty = WatchResponse {
        events: Vec::new(),
        fragment: true,
        ..response.clone()
    };
    let around = empty.encoded_len();
    let mut parts = vec![empty.clone()];
    let mut size = around;
    for event in response.events {
        let length = event.encoded_len();
        // With its tag and its length.
        let length = 1 + prost::length_delimiter_len(length) + length;
        if let Some(part) = parts.last_mut()
            && (part.events.is_empty() || size + length < limit)
        {
            size += length;
            part.events.push(event);
            continue;
        }
        size = around + length;
        parts.push(WatchResponse {
            events: vec![event],
            ..empty.clone()
        });
    }
    if let Some(last) = parts.last_mut() {
        last.fragment = false;
    }
    parts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::api::{Event, KeyValue};

    fn response(sizes: &[usize]) -> WatchResponse {
        let event = |size: &usize| Event {
            kv: Some(KeyValue {
                key: Bytes::from_static(b"k"),
                value: Bytes::from(vec![7; *size]),
                ..KeyValue::default()
            }),
            ..Event::default()
        };
        WatchResponse {
            watch_id: 5,
            events: sizes.iter().map(event).collect(),
            ..WatchResponse::default()
        }
    }

    #[test]
    fn parts_are_small_and_together_the_whole() {
        let whole = response(&[400, 400, 400, 3000, 10, 10, 980]);
        let parts = split(whole.clone(), 1000);
        let counts: Vec<_> = parts.iter().map(|part| part.events.len()).collect();
        assert_eq!(counts, [2, 1, 1, 2, 1]);
        for part in &parts {
            assert!(part.events.len() == 1 || part.encoded_len() < 1000);
            assert_eq!(part.watch_id, 5);
        }
        let more: Vec<_> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(more, [true, true, true, true, false]);
        let events: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(events, whole.events);
    }

    #[test]
    fn what_fits_is_not_split() {
        assert_eq!(split(response(&[10, 10]), 1000), [response(&[10, 10])]);
        assert_eq!(split(response(&[5000]), 1000), [response(&[5000])]);
    }
}
