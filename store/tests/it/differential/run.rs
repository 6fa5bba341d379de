//! Sequences of requests, in step on both sides.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use setpoint_store::model::api::{self, Event};
use setpoint_store::model::{
    Config, KeyRange, Model, Request, Response, WatchCompacted, WatcherId,
};
use tonic::Status;

use super::client::{Client, Watch};
use super::generate::{Generator, KEYS};

/// Requests of a sequence.
const LENGTH: usize = 60;

/// Watches of a sequence, at most.
const WATCHES: usize = 4;

/// Generous: events come within a few hundred milliseconds.
const LONG: Duration = Duration::from_secs(30);

/// Carries out a sequence for each seed, one after the other, on one server and one model.
pub(super) async fn compare(endpoint: String, seeds: Vec<u64>) {
    let client = Client::connect(endpoint);
    let Ok(Response::Status(status)) = client.call(Request::Status).await else {
        panic!("etcd does not tell its status");
    };
    let mut both = Both {
        client,
        model: Model::new(Config::default()),
        server: status.version,
        seed: 0,
        steps: Vec::new(),
        watches: Vec::new(),
        twice_written: Vec::new(),
    };
    for seed in seeds {
        both.sequence(seed).await;
    }
}

struct Both {
    client: Client,
    model: Model,
    /// Its version, for messages.
    server: String,
    seed: u64,
    steps: Vec<String>,
    watches: Vec<Watched>,
    /// Revisions in which a key was deleted and written again: etcd must not be compacted there.
    twice_written: Vec<i64>,
}

/// A watch on both sides.
struct Watched {
    request: api::WatchCreateRequest,
    id: WatcherId,
    etcd: Watch,
    /// Whether etcd has shown that it is up to date: until then a compaction can end it.
    confirmed: bool,
    expected: Vec<Event>,
    seen: Vec<Event>,
}

impl Both {
    async fn sequence(&mut self, seed: u64) {
        self.seed = seed;
        self.steps.clear();
        self.watches.clear();
        self.begin().await;
        let mut generator = Generator {
            rng: Rng::with_seed(seed),
            base: self.model.revision(),
            checks_sorting: !self.is_old(),
        };
        for _ in 0..LENGTH {
            if self.watches.len() < WATCHES && generator.one_in(12) {
                let request = generator.watch(&self.model);
                self.watch(request).await;
                continue;
            }
            let request = generator.request(&self.model);
            if let Request::Compact(request) = &request {
                if !self.may_compact(request.revision) {
                    continue;
                }
                // What etcd has not sent yet could lose its previous value.
                self.settle().await;
            }
            let compacted = self.model.compacted();
            self.step(request).await;
            if self.model.compacted() > compacted && self.watches.len() < WATCHES {
                // What is left at the edge of the history shows only from there.
                let request = api::WatchCreateRequest {
                    start_revision: self.model.compacted(),
                    ..generator.watch(&self.model)
                };
                self.watch(request).await;
            }
        }
        // Every watch sees something of this, so when it has been seen nothing else is on its way.
        for key in KEYS {
            self.put(key).await;
        }
        self.clear().await;
        self.settle().await;
        self.step(Request::HashKv(api::HashKvRequest { revision: 0 }))
            .await;
    }

    fn is_old(&self) -> bool {
        self.server.starts_with("3.4.")
    }

    /// Nothing but the revisions is left of the sequence before.
    async fn begin(&mut self) {
        self.clear().await;
        for id in [1, 2, 3, -7] {
            self.step(Request::LeaseRevoke(api::LeaseRevokeRequest { id }))
                .await;
        }
        self.put(b"a").await;
        let request = api::CompactionRequest {
            revision: self.model.revision(),
            physical: true,
        };
        self.step(Request::Compact(request)).await;
        self.twice_written.clear();
    }

    async fn put(&mut self, key: &'static [u8]) {
        let request = api::PutRequest {
            key: Bytes::from_static(key),
            ..api::PutRequest::default()
        };
        self.step(Request::Put(request)).await;
    }

    async fn clear(&mut self) {
        let request = api::DeleteRangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            prev_kv: true,
        };
        self.step(Request::DeleteRange(request)).await;
    }

    fn may_compact(&self, revision: i64) -> bool {
        !self.twice_written.contains(&revision)
            && self
                .watches
                .iter()
                .all(|watch| watch.confirmed || revision <= watch.request.start_revision)
    }

    async fn step(&mut self, request: Request) {
        self.steps.push(format!("{request:?}"));
        let before = self.model.revision();
        let expected = self
            .model
            .step(Duration::ZERO, request.clone())
            .map_err(Status::from);
        // 3.4 looks at all writes of a transaction before the reads: where several things are wrong it names another.
        let any_reason = self.is_old() && matches!(request, Request::Txn(_));
        let answer = self.client.call(request).await;
        let (expected, answer) = (comparable(expected), comparable(answer));
        let same_for_old = any_reason && expected.is_err() && answer.is_err();
        assert!(
            expected == answer || same_for_old,
            "{}\nmodel: {expected:#?}\netcd:  {answer:#?}",
            self.story()
        );
        if self.model.revision() > before {
            self.note_twice_written();
        }
    }

    fn note_twice_written(&mut self) {
        let revision = self.model.revision();
        let mut deleted = Vec::new();
        for change in self.model.changes_since(revision).expect("the newest one") {
            if change.deleted {
                deleted.push(&change.kv.key);
            } else if deleted.contains(&&change.kv.key) {
                self.twice_written.push(revision);
                return;
            }
        }
    }

    async fn watch(&mut self, mut request: api::WatchCreateRequest) {
        if self.is_old() && request.start_revision == self.model.compacted() {
            // 3.4 forgets deletions at the compacted revision (mended in 3.4.34).
            request.start_revision += 1;
        }
        self.steps.push(format!("{request:?}"));
        let (mut etcd, created) = self
            .client
            .watch(request.clone())
            .await
            .unwrap_or_else(|status| panic!("{}\n{status}", self.story()));
        assert!(created.created, "{}\n{created:?}", self.story());
        if KeyRange::new(request.key.clone(), request.range_end.clone()).is_empty() {
            assert!(created.canceled, "{}\n{created:?}", self.story());
            return;
        }
        assert!(!created.canceled, "{}\n{created:?}", self.story());
        assert_eq!(
            created.header.as_ref().map(|header| header.revision),
            Some(self.model.revision())
        );
        let id = self.model.watch(&request);
        let start = request.start_revision;
        match self.model.pull(id, usize::MAX) {
            Err(WatchCompacted(revision)) => {
                let answer = message(&mut etcd)
                    .await
                    .unwrap_or_else(|error| panic!("{}\n{error}", self.story()));
                assert!(
                    answer.canceled && answer.compact_revision == revision,
                    "{}\nmodel: compacted at {revision}\netcd: {answer:?}",
                    self.story()
                );
            }
            Ok(events) => {
                let expected = events.map(|events| events.events).unwrap_or_default();
                self.watches.push(Watched {
                    confirmed: start == 0 || start > self.model.revision() || !expected.is_empty(),
                    request,
                    id,
                    etcd,
                    expected,
                    seen: Vec::new(),
                });
                self.settle().await;
            }
        }
    }

    /// Waits until etcd has sent what the model has, for all watches.
    async fn settle(&mut self) {
        for index in 0..self.watches.len() {
            let watch = &mut self.watches[index];
            while let Ok(Some(events)) = self.model.pull(watch.id, usize::MAX) {
                watch.expected.extend(events.events);
            }
            let mut problem = None;
            while watch.seen.len() < watch.expected.len() {
                match message(&mut watch.etcd).await {
                    Ok(answer) if !answer.canceled => watch.seen.extend(answer.events),
                    Ok(answer) => {
                        problem = Some(format!("canceled: {answer:?}"));
                        break;
                    }
                    Err(error) => {
                        problem = Some(error);
                        break;
                    }
                }
            }
            let watch = &self.watches[index];
            assert!(
                problem.is_none() && watch.seen == watch.expected,
                "{}\nevents of {:?}\nmodel: {:#?}\netcd:  {:#?}\n{}",
                self.story(),
                watch.request,
                watch.expected,
                watch.seen,
                problem.unwrap_or_default()
            );
        }
    }

    fn story(&self) -> String {
        let last = self.steps.len().saturating_sub(12);
        format!(
            "etcd {} and the model differ, SETPOINT_DIFFERENTIAL_SEED={}; the last steps:\n  {}",
            self.server,
            self.seed,
            self.steps[last..].join("\n  ")
        )
    }
}

async fn message(watch: &mut Watch) -> Result<api::WatchResponse, String> {
    match tokio::time::timeout(LONG, watch.answers.message()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None)) => Err("the stream ended".to_owned()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(_) => Err(format!("nothing for {LONG:?}")),
    }
}

/// An answer without what belongs to one server, and an error as its code and text.
fn comparable(answer: Result<Response, Status>) -> Result<Response, (tonic::Code, String)> {
    let mut answer = answer.map_err(|status| (status.code(), status.message().to_owned()))?;
    let header = match &mut answer {
        Response::Range(answer) => &mut answer.header,
        Response::Put(answer) => &mut answer.header,
        Response::DeleteRange(answer) => &mut answer.header,
        Response::Txn(answer) => &mut answer.header,
        Response::Compact(answer) => &mut answer.header,
        Response::LeaseGrant(answer) => &mut answer.header,
        Response::LeaseRevoke(answer) => &mut answer.header,
        Response::LeaseKeepAlive(answer) => &mut answer.header,
        Response::LeaseTimeToLive(answer) => {
            // Time passes between the two.
            answer.ttl = answer.ttl.signum();
            answer.keys.sort();
            &mut answer.header
        }
        Response::LeaseLeases(answer) => {
            answer.leases.sort_by_key(|lease| lease.id);
            &mut answer.header
        }
        Response::Alarm(answer) => &mut answer.header,
        Response::HashKv(answer) => {
            // Since 3.6 only.
            answer.hash_revision = 0;
            &mut answer.header
        }
        Response::Status(answer) => &mut answer.header,
        Response::Defragment(answer) => &mut answer.header,
    };
    if let Some(header) = header {
        *header = api::ResponseHeader {
            revision: header.revision,
            ..api::ResponseHeader::default()
        };
    }
    Ok(answer)
}
