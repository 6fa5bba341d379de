//! What passes through a proxy, read as etcd's gRPC API: every transaction with its sender, and its answer where there
//! was one.
//!
//! etcd does not say who wrote a key. The bytes between a process and etcd do: each process has proxies of its own. Only
//! HTTP/2's DATA frames are looked at; their content is not compressed. Which stream carries a transaction is told from
//! its first message: none of the other requests that Setpoint makes (ranges, leases, watches, status) decodes as a
//! transaction that does anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::{
    PbCompare, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp,
    PbTxnResponse,
};
use parking_lot::Mutex;
use prost::Message;

/// Who is at the other end of a proxy: a name, and which process of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// `controllers-a`, `n1`, `user`.
    pub name: Arc<str>,
    /// Counts the processes that had this name, from 1.
    pub life: u32,
}

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.name, self.life)
    }
}

/// A transaction that somebody sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Who.
    pub sender: Sender,
    /// Its parts, each with an outcome of its own.
    pub items: Vec<Item>,
    /// The revision in the answer; `None` when no answer came through.
    pub answered: Option<i64>,
}

/// A part of a transaction: guards, and what is done when they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What must hold.
    pub guards: Vec<Guard>,
    /// What is done.
    pub effects: Vec<Effect>,
    /// Whether it was done; `None` when no answer came through.
    pub done: Option<bool>,
}

/// A condition on a revision of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key.
    pub key: String,
    /// The mod revision that it must have, when that is what is compared.
    pub mod_revision: Option<i64>,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The key, or the first of a range.
    pub key: String,
    /// The first key past the range; empty for one key.
    pub end: String,
    /// The value; `None` for a deletion.
    pub value: Option<Bytes>,
}

impl Effect {
    /// Whether a change can be this write's.
    pub fn explains(&self, key: &str, value: Option<&[u8]>) -> bool {
        let hit =
            self.key == key || self.key.as_str() <= key && !self.end.is_empty() && key < &*self.end;
        hit && self.value.as_deref() == value
    }
}

impl Transaction {
    /// The part that can have made a change: one that was done, or, without an answer, may have been.
    pub fn explains(&self, key: &str, value: Option<&[u8]>) -> Option<&Item> {
        let mut items = self.items.iter().filter(|i| i.done != Some(false));
        items.find(|i| i.effects.iter().any(|e| e.explains(key, value)))
    }
}

/// Everything that was sent through the proxies of one test.
#[derive(Debug, Default)]
pub struct Wire {
    transactions: Mutex<Vec<Transaction>>,
}

impl Wire {
    /// All transactions so far, in the order in which they came.
    pub fn transactions(&self) -> Vec<Transaction> {
        self.transactions.lock().clone()
    }

    /// How many there were so far.
    pub fn count(&self) -> usize {
        self.transactions.lock().len()
    }

    /// The first that matches, of those behind so many.
    pub fn find(
        &self,
        since: usize,
        matches: impl Fn(&Transaction) -> bool,
    ) -> Option<Transaction> {
        let all = self.transactions.lock();
        let mut later = all.iter().skip(since);
        later.find(|t| matches(t)).cloned()
    }

    fn sent(&self, sender: Sender, request: &PbTxnRequest) -> usize {
        let mut items = Vec::new();
        flatten(request, &[], &mut items);
        let mut all = self.transactions.lock();
        all.push(Transaction {
            sender,
            items,
            answered: None,
        });
        all.len() - 1
    }

    fn answered(&self, number: usize, request: &PbTxnRequest, response: &PbTxnResponse) {
        let mut outcomes = Vec::new();
        judge(request, Some(response), &mut outcomes);
        let mut all = self.transactions.lock();
        let transaction = &mut all[number];
        transaction.answered = Some(response.header.as_ref().map_or(0, |h| h.revision));
        for (item, done) in transaction.items.iter_mut().zip(outcomes) {
            item.done = Some(done);
        }
    }
}

/// One connection, read from both sides.
pub(super) struct Tap {
    wire: Arc<Wire>,
    sender: Sender,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requests: Frames,
    answers: Frames,
    /// The beginnings of first messages.
    begun: HashMap<u32, Vec<u8>>,
    /// Streams of something else.
    others: HashSet<u32>,
    /// Transactions that are under way: their numbers, the request, the beginning of the answer.
    open: HashMap<u32, (usize, PbTxnRequest, Vec<u8>)>,
}

const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
/// What a client says before its first frame.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

impl Tap {
    pub(super) fn new(wire: Arc<Wire>, sender: Sender) -> Self {
        let requests = Frames {
            skip: PREFACE,
            ..Frames::default()
        };
        Self {
            wire,
            sender,
            state: Mutex::new(State {
                requests,
                ..State::default()
            }),
        }
    }

    /// Bytes from the client.
    pub(super) fn request(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.requests.feed(bytes, |stream, ends, data| {
            if !state.others.contains(&stream) && !state.open.contains_key(&stream) {
                let begun = state.begun.entry(stream).or_default();
                begun.extend_from_slice(data);
                if let Some(message) = message(begun) {
                    match transaction(message) {
                        Some(request) => {
                            let number = self.wire.sent(self.sender.clone(), &request);
                            state.open.insert(stream, (number, request, Vec::new()));
                        }
                        None => drop(state.others.insert(stream)),
                    }
                    state.begun.remove(&stream);
                }
            }
            if ends {
                state.others.remove(&stream);
            }
        });
    }

    /// Bytes from the server.
    pub(super) fn answer(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.answers.feed(bytes, |stream, _, data| {
            let Some((_, _, begun)) = state.open.get_mut(&stream) else {
                return;
            };
            begun.extend_from_slice(data);
            if message(begun).is_some()
                && let Some((number, request, whole)) = state.open.remove(&stream)
                && let Some(response) = message(&whole)
                && let Ok(response) = PbTxnResponse::decode(response)
            {
                self.wire.answered(number, &request, &response);
            }
        });
    }
}

/// Cuts a stream of bytes into HTTP/2's frames.
#[derive(Debug, Default)]
struct Frames {
    skip: usize,
    held: Vec<u8>,
}

impl Frames {
    /// Calls back for every whole DATA frame: the stream, whether it ends with it, the data.
    fn feed(&mut self, bytes: &[u8], mut data: impl FnMut(u32, bool, &[u8])) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.held.extend_from_slice(&bytes[skipped..]);
        let mut at = 0;
        while let Some(header) = self.held.get(at..at + 9) {
            let length =
                usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let (kind, flags) = (header[3], header[4]);
            let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
            let Some(mut payload) = self.held.get(at + 9..at + 9 + length) else {
                break;
            };
            if kind == DATA {
                if flags & PADDED != 0 && !payload.is_empty() {
                    let end = payload.len().saturating_sub(usize::from(payload[0]));
                    payload = payload.get(1..end).unwrap_or_default();
                }
                data(stream, flags & END_STREAM != 0, payload);
            }
            at += 9 + length;
        }
        self.held.drain(..at);
    }
}

/// The first gRPC message, when all of it is there.
fn message(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?);
    bytes.get(5..5 + usize::try_from(length).ok()?)
}

fn transaction(message: &[u8]) -> Option<PbTxnRequest> {
    let request = PbTxnRequest::decode(message).ok()?;
    let does = request.success.iter().chain(&request.failure);
    // Any bytes that decode at all decode to operations; a real one says which.
    let real = does.clone().all(|op| op.request.is_some()) && does.count() > 0;
    real.then_some(request)
}

fn guard(compare: &PbCompare) -> Guard {
    const EQUAL: i32 = 0;
    let mod_revision = match compare.target_union {
        Some(PbTargetUnion::ModRevision(revision)) if compare.result == EQUAL => Some(revision),
        _ => None,
    };
    Guard {
        key: text(&compare.key),
        mod_revision,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The parts of a transaction, in one order for requests and answers: per transaction what it does itself when its
/// guards hold, then the same for nested ones, then for when they do not hold.
fn flatten(request: &PbTxnRequest, outer: &[Guard], items: &mut Vec<Item>) {
    let mut guards = outer.to_vec();
    guards.extend(request.compare.iter().map(guard));
    for (branch, guards) in [
        (&request.success, guards.as_slice()),
        (&request.failure, outer),
    ] {
        items.push(Item {
            guards: guards.to_vec(),
            effects: branch.iter().filter_map(effect).collect(),
            done: None,
        });
        for op in branch {
            if let Some(PbTxnOpRequest::RequestTxn(nested)) = &op.request {
                flatten(nested, guards, items);
            }
        }
    }
}

/// Per part of [`flatten`], whether it was done. `None`: the branch that holds it was not taken.
fn judge(request: &PbTxnRequest, response: Option<&PbTxnResponse>, done: &mut Vec<bool>) {
    for (branch, when) in [(&request.success, true), (&request.failure, false)] {
        let taken = response.filter(|r| r.succeeded == when);
        done.push(taken.is_some());
        for (i, op) in branch.iter().enumerate() {
            if let Some(PbTxnOpRequest::RequestTxn(nested)) = &op.request {
                let answer = taken.and_then(|r| r.responses.get(i)?.response.as_ref());
                let answer = match answer {
                    Some(PbTxnOpResponse::ResponseTxn(answer)) => Some(answer),
                    _ => None,
                };
                judge(nested, answer, done);
            }
        }
    }
}

fn effect(op: &PbTxnRequestOp) -> Option<Effect> {
    match op.request.as_ref()? {
        PbTxnOpRequest::RequestPut(put) => Some(Effect {
            key: text(&put.key),
            end: String::new(),
            value: Some(Bytes::copy_from_slice(&put.value)),
        }),
        PbTxnOpRequest::RequestDeleteRange(delete) => Some(Effect {
            key: text(&delete.key),
            end: text(&delete.range_end),
            value: None,
        }),
        PbTxnOpRequest::RequestRange(_) | PbTxnOpRequest::RequestTxn(_) => None,
    }
}

#[cfg(test)]
mod tests;
