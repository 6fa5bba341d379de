//! Which occurrences become which events, as a value: no clock, no store.
//!
//! - The same (object, type, reason, message) is one series, hence one document, until an hour has passed without it.
//! - Messages that differ only in detail do not multiply documents: from the eleventh different message of one
//!   (object, type, reason) within ten minutes on, further ones share one series, marked as combined.
//! - One object may say 25 things at once and one more every five minutes; the rest is suppressed. These are
//!   Kubernetes' numbers, so what people know of its events holds. Warnings are counted on their own: what an object does
//!   all day must not keep it from saying that something is wrong.
//! - Memory is bounded: what was written and seen longest ago is forgotten first, and a forgotten series that comes
//!   again begins a new document.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rustc_hash::FxHashMap;
use setpoint_apis::core::{Event, EventSource, ObjectReference};
use setpoint_apis::document;
use setpoint_apis::meta::ObjectMeta;
use setpoint_apis::time::Timestamp;

use super::{EventRef, EventType};

/// Things one object may say at once.
const BURST: f64 = 25.0;
/// How long it takes until it may say one more.
const REFILL: Duration = Duration::from_secs(300);
/// Different messages of one reason before they are combined, and the time in which they are counted.
const SIMILAR: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// After so long without an occurrence, the document of a series may have expired: a new one begins.
const SERIES_AGE: Duration = Duration::from_secs(3600);
/// Series and objects that are remembered.
const MAX_SERIES: usize = 2048;
const MAX_OBJECTS: usize = 4096;
/// Kubernetes' limits, in bytes.
const MAX_MESSAGE: usize = 1024;
const MAX_REASON: usize = 128;
/// Leaves room for a dot and the hash within the 253 characters of a name.
const MAX_NAME: usize = 236;

/// Who writes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) component: String,
    pub(super) node: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) object: EventRef,
    pub(super) event_type: EventType,
    pub(super) reason: Cow<'static, str>,
    pub(super) message: String,
    pub(super) at: Timestamp,
}

/// What became of an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is, or belongs to, an event that will be written.
    Taken,
    /// Too much of it.
    Suppressed,
}

/// A document to be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) series: u64,
    pub(super) namespace: String,
    pub(super) id: String,
    pub(super) document: String,
}

pub(super) struct Correlator {
    writer: Writer,
    series: FxHashMap<u64, Series>,
    objects: FxHashMap<u64, Object>,
    /// Series to be written, in the order in which they became so.
    dirty: VecDeque<u64>,
}

struct Series {
    object: EventRef,
    event_type: EventType,
    reason: Cow<'static, str>,
    message: String,
    id: String,
    first: Timestamp,
    last: Timestamp,
    count: i32,
    dirty: bool,
}

/// What one object has said lately.
struct Object {
    ordinary: Bucket,
    warnings: Bucket,
    /// Few, mostly one or two.
    reasons: Vec<Reason>,
}

/// What may still be said.
struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

/// The different messages of one (type, reason), as hashes, and since when they are counted.
struct Reason {
    id: u64,
    since: Timestamp,
    messages: Vec<u64>,
}

impl Correlator {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            writer,
            series: FxHashMap::default(),
            objects: FxHashMap::default(),
            dirty: VecDeque::new(),
        }
    }

    /// Differs from writer to writer.
    pub(super) fn seed(&self) -> u64 {
        hash((&self.writer.component, &self.writer.node))
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn observe(&mut self, mut o: Occurrence) -> Verdict {
        truncate(&mut o.message, MAX_MESSAGE);
        if o.reason.len() > MAX_REASON {
            let mut reason = o.reason.into_owned();
            truncate(&mut reason, MAX_REASON);
            o.reason = reason.into();
        }
        let object_id = hash(&o.object);
        self.make_room_for_object(object_id);
        let object = self
            .objects
            .entry(object_id)
            .or_insert_with(|| Object::new(o.at));
        if !object.bucket(o.event_type).take_token(o.at) {
            return Verdict::Suppressed;
        }
        let reason_id = hash((o.event_type, &o.reason));
        let key = if object.combines(reason_id, hash(&o.message), o.at) {
            o.message.insert_str(0, "(combined from similar events): ");
            truncate(&mut o.message, MAX_MESSAGE);
            hash((object_id, reason_id))
        } else {
            hash((object_id, reason_id, &o.message))
        };
        match self.series.get_mut(&key) {
            Some(series) if o.at.duration_since(series.last) < SERIES_AGE => {
                series.count = series.count.saturating_add(1);
                series.last = series.last.max(o.at);
                series.message = o.message;
            }
            _ => {
                if !self.make_room_for_series() {
                    return Verdict::Suppressed;
                }
                let series = self.begin(key, o);
                if let Some(old) = self.series.insert(key, series)
                    && old.dirty
                {
                    self.dirty.retain(|k| *k != key);
                }
            }
        }
        self.mark_dirty(key);
        Verdict::Taken
    }

    /// The documents to be written, at most `limit`; they count as written until [`Correlator::mark_dirty`].
    pub(super) fn take_dirty(&mut self, limit: usize) -> Vec<Outgoing> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(key) = self.dirty.pop_front()
        {
            let Some(series) = self.series.get_mut(&key) else {
                continue;
            };
            series.dirty = false;
            let event = describe(&self.writer, series);
            taken.push(Outgoing {
                series: key,
                document: document::encode(&event),
                namespace: event.metadata.namespace,
                id: event.metadata.name,
            });
        }
        taken
    }

    pub(super) fn mark_dirty(&mut self, key: u64) {
        if let Some(series) = self.series.get_mut(&key)
            && !series.dirty
        {
            series.dirty = true;
            self.dirty.push_back(key);
        }
    }

    fn begin(&self, key: u64, o: Occurrence) -> Series {
        // The first time is part of the id: another process, or this one after it forgot, begins another document
        // instead of setting back the count of this one.
        let unique = hash((key, self.seed(), o.at.as_unix_millis()));
        let mut name = o.object.name.to_string();
        truncate(&mut name, MAX_NAME);
        let name = name.trim_end_matches(['.', '-']);
        Series {
            id: format!("{name}.{unique:016x}"),
            object: o.object,
            event_type: o.event_type,
            reason: o.reason,
            message: o.message,
            first: o.at,
            last: o.at,
            count: 1,
            dirty: false,
        }
    }

    fn make_room_for_object(&mut self, id: u64) {
        if self.objects.len() >= MAX_OBJECTS && !self.objects.contains_key(&id) {
            let oldest = quartile(self.objects.values().map(Object::last));
            self.objects.retain(|_, o| o.last() > oldest);
        }
    }

    /// Whether there is room for one more.
    fn make_room_for_series(&mut self) -> bool {
        if self.series.len() >= MAX_SERIES {
            let oldest = quartile(self.series.values().filter(|s| !s.dirty).map(|s| s.last));
            self.series.retain(|_, s| s.dirty || s.last > oldest);
        }
        self.series.len() < MAX_SERIES
    }
}

impl Bucket {
    fn new(at: Timestamp) -> Self {
        Self {
            tokens: BURST,
            filled: at,
        }
    }

    fn take_token(&mut self, at: Timestamp) -> bool {
        let refill = at.duration_since(self.filled).as_secs_f64() / REFILL.as_secs_f64();
        self.tokens = (self.tokens + refill).min(BURST);
        self.filled = self.filled.max(at);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

impl Object {
    fn new(at: Timestamp) -> Self {
        Self {
            ordinary: Bucket::new(at),
            warnings: Bucket::new(at),
            reasons: Vec::new(),
        }
    }

    fn bucket(&mut self, of: EventType) -> &mut Bucket {
        match of {
            EventType::Normal => &mut self.ordinary,
            EventType::Warning => &mut self.warnings,
        }
    }

    /// When it last had something to say.
    fn last(&self) -> Timestamp {
        self.ordinary.filled.max(self.warnings.filled)
    }

    /// Whether there have been too many different messages for this one to stand alone.
    fn combines(&mut self, reason: u64, message: u64, at: Timestamp) -> bool {
        let is_over = |r: &Reason| at.duration_since(r.since) > SIMILAR_WINDOW;
        let known = match self.reasons.iter().position(|r| r.id == reason) {
            Some(known) if !is_over(&self.reasons[known]) => known,
            _ => {
                self.reasons.retain(|r| !is_over(r));
                self.reasons.reserve_exact(1);
                self.reasons.push(Reason {
                    id: reason,
                    since: at,
                    messages: Vec::with_capacity(1),
                });
                self.reasons.len() - 1
            }
        };
        let messages = &mut self.reasons[known].messages;
        if messages.contains(&message) {
            return false;
        }
        if messages.len() >= SIMILAR {
            return true;
        }
        messages.push(message);
        false
    }
}

fn describe(writer: &Writer, series: &Series) -> Event {
    let object = &series.object;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Event {
        metadata: ObjectMeta {
            name: series.id.clone(),
            namespace: object.event_namespace().to_owned(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: some(&object.api_version),
            kind: some(&object.kind),
            namespace: some(&object.namespace),
            name: some(&object.name),
            uid: some(&object.uid),
            ..ObjectReference::default()
        },
        type_: Some(series.event_type.as_str().to_owned()),
        reason: some(&series.reason),
        message: some(&series.message),
        source: Some(EventSource {
            component: some(&writer.component),
            host: writer.node.clone(),
        }),
        first_timestamp: Some(series.first.whole_seconds()),
        last_timestamp: Some(series.last.whole_seconds()),
        count: Some(series.count),
        event_time: Some(series.first.into()),
        reporting_component: some(&writer.component),
        reporting_instance: writer.node.clone(),
        ..Event::default()
    }
}

/// The value below which a quarter of them lie.
fn quartile(values: impl Iterator<Item = Timestamp>) -> Timestamp {
    let mut values: Vec<Timestamp> = values.collect();
    let at = values.len() / 4;
    if at >= values.len() {
        return Timestamp::EPOCH;
    }
    *values.select_nth_unstable(at).1
}

/// The same in every process of one build, and good enough to tell a few thousand things apart.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
}

#[cfg(test)]
mod tests;
