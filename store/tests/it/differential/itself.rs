//! The model held against itself: made again from its records or a snapshot, and with watchers that lag.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use prost::Message;
use setpoint_store::model::api::{Event, PutRequest, WatchCreateRequest};
use setpoint_store::model::{Config, Model, Record, Request, Snapshot, WatchCompacted};

use super::generate::Generator;

const SEQUENCES: u64 = 300;
const LENGTH: usize = 80;

fn generator(seed: u64) -> Generator {
    Generator {
        rng: Rng::with_seed(seed),
        base: 1,
        checks_sorting: true,
    }
}

/// A journal, and so little room that the alarm is raised now and then.
fn journaling() -> Config {
    Config {
        journal: true,
        quota_bytes: 26_000,
        ..Config::default()
    }
}

/// Random requests, with time passing so that leases expire.
fn requests(seed: u64, model: &mut Model, mut each: impl FnMut(&mut Model, Duration, Request)) {
    let mut generator = generator(seed);
    let mut now = Duration::ZERO;
    for _ in 0..LENGTH {
        now += Duration::from_secs(generator.rng.u64(0..20_000));
        let request = match generator.rng.u32(0..30) {
            0 => Request::Defragment,
            _ => generator.request(model),
        };
        each(model, now, request);
    }
    // Something that is always recorded, so that the time of the last record is now.
    let grant = setpoint_store::model::api::LeaseGrantRequest { ttl: 60, id: 99 };
    each(model, now, Request::Defragment);
    each(model, now, Request::LeaseGrant(grant));
}

#[test]
fn records_make_the_same_state_again() {
    for seed in 0..SEQUENCES {
        let mut model = Model::new(journaling());
        let mut log = Vec::new();
        requests(seed, &mut model, |model, now, request| {
            let _ = model.step(now, request);
            for record in model.take_records() {
                log.push(Bytes::from(record.encode_to_vec()));
            }
        });
        let records = log
            .into_iter()
            .map(|bytes| Record::decode(bytes).expect("a record"));
        let again = Model::replay(journaling(), records).unwrap_or_else(|error| {
            panic!("seed {seed}: {error}");
        });
        assert_eq!(again.snapshot(), model.snapshot(), "seed {seed}");
    }
}

#[test]
fn a_restored_snapshot_goes_on_as_the_model_would_have() {
    for seed in 0..SEQUENCES {
        let mut model = Model::new(journaling());
        requests(seed, &mut model, |model, now, request| {
            let _ = model.step(now, request);
        });
        let snapshot = model.snapshot().encode_to_vec();
        let snapshot = Snapshot::decode(Bytes::from(snapshot)).expect("a snapshot");
        let mut again = Model::restore(journaling(), snapshot);
        let watch = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: model.compacted().max(1),
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let (one, other) = (model.watch(&watch), again.watch(&watch));
        let start = Duration::from_secs(20_000 * (LENGTH as u64 + 1));
        requests(seed + 1, &mut model, |model, now, request| {
            assert_eq!(
                model.step(start + now, request.clone()),
                again.step(start + now, request.clone()),
                "seed {seed}: {request:?}"
            );
        });
        assert_eq!(
            model.pull(one, usize::MAX),
            again.pull(other, usize::MAX),
            "seed {seed}"
        );
        assert_eq!(model.snapshot(), again.snapshot(), "seed {seed}");
    }
}

#[test]
fn a_watcher_that_lags_gets_the_same_in_whole_revisions() {
    for seed in 0..SEQUENCES {
        let mut ample = Model::new(Config::default());
        let mut tight = Model::new(Config {
            watch_queue: 2,
            ..Config::default()
        });
        let mut generator = generator(seed);
        let watch = WatchCreateRequest {
            start_revision: 0,
            prev_kv: false,
            ..generator.watch(&ample)
        };
        let (one, other) = (ample.watch(&watch), tight.watch(&watch));
        let mut seen = Vec::new();
        let mut last = 0;
        for _ in 0..LENGTH {
            let request = generator.request(&ample);
            if !matches!(request, Request::Compact(_)) {
                let _ = ample.step(Duration::ZERO, request.clone());
                let _ = tight.step(Duration::ZERO, request);
            }
            if generator.one_in(20) {
                take(&mut tight, other, &mut last, &mut seen);
            }
        }
        while take(&mut tight, other, &mut last, &mut seen) {}
        let expected = ample.pull(one, usize::MAX).expect("nothing is compacted");
        assert_eq!(
            seen,
            expected.map(|events| events.events).unwrap_or_default(),
            "seed {seed}"
        );
        assert_eq!(tight.progress(other), Some(tight.revision()), "seed {seed}");
    }
}

fn take(
    model: &mut Model,
    id: setpoint_store::model::WatcherId,
    last: &mut i64,
    seen: &mut Vec<Event>,
) -> bool {
    let Some(events) = model.pull(id, 1).expect("nothing is compacted") else {
        return false;
    };
    let revisions = || {
        events
            .events
            .iter()
            .map(|event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision))
    };
    assert!(revisions().all(|revision| revision > *last && revision <= events.revision));
    *last = events.revision;
    seen.extend(events.events);
    true
}

#[test]
fn a_watcher_that_lags_behind_a_compaction_is_told_so() {
    let mut model = Model::new(Config {
        watch_queue: 1,
        ..Config::default()
    });
    let put = |model: &mut Model| {
        let request = PutRequest {
            key: Bytes::from_static(b"a"),
            ..PutRequest::default()
        };
        model
            .step(Duration::ZERO, Request::Put(request))
            .expect("a put");
        model.revision()
    };
    let watch = WatchCreateRequest {
        key: Bytes::from_static(b"a"),
        ..WatchCreateRequest::default()
    };
    let (slow, quick) = (model.watch(&watch), model.watch(&watch));
    let mut compacted = 0;
    for _ in 0..5 {
        compacted = put(&mut model);
        assert!(matches!(model.pull(quick, 10), Ok(Some(_))));
    }
    let request = setpoint_store::model::api::CompactionRequest {
        revision: compacted,
        physical: false,
    };
    model
        .step(Duration::ZERO, Request::Compact(request))
        .expect("a compaction");
    put(&mut model);
    assert!(matches!(model.pull(quick, 10), Ok(Some(events)) if events.events.len() == 1));
    // What was queued is given out; what was left to the history is gone.
    assert!(matches!(model.pull(slow, 10), Ok(Some(events)) if events.events.len() == 1));
    assert_eq!(model.pull(slow, 10), Err(WatchCompacted(compacted)));
}
