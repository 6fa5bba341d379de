use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn timeline(samples: &[(i64, i64)]) -> Timeline {
    let mut timeline = Timeline::default();
    for (revision, seconds) in samples {
        timeline.insert(*revision, at(*seconds));
    }
    timeline
}

fn seconds(timeline: &Timeline, revision: i64) -> Option<i64> {
    let estimate = timeline.curve().at(revision)?;
    Some(estimate.time.as_unix_seconds())
}

/// Writes as the writers do: each reads what is stored, and stores it with its own time.
struct Key {
    value: String,
    revision: i64,
}

impl Key {
    fn write(&mut self, revision: i64, now: Timestamp) {
        self.value = Timeline::parse(self.value.as_bytes(), self.revision).encode(now);
        self.revision = revision;
    }

    fn timeline(&self) -> Timeline {
        Timeline::parse(self.value.as_bytes(), self.revision)
    }
}

fn key() -> Key {
    Key {
        value: String::new(),
        revision: 0,
    }
}

#[test]
fn without_samples_nothing_is_known() {
    assert_eq!(Timeline::default().curve().at(5), None);
}

#[test]
fn estimates_lie_on_the_line_between_samples_and_not_beyond_them() {
    let t = timeline(&[(10, 100), (20, 200), (40, 220)]);
    for (revision, expected) in [
        (1, 100),
        (10, 100),
        (13, 130),
        (20, 200),
        (30, 210),
        (40, 220),
        (99, 220),
    ] {
        assert_eq!(seconds(&t, revision), Some(expected), "{revision}");
    }
    let bounds = |revision| {
        let e = t.curve().at(revision).unwrap();
        let seconds = |t: Option<Timestamp>| t.map(Timestamp::as_unix_seconds);
        (seconds(e.earliest), seconds(e.latest))
    };
    assert_eq!(bounds(1), (None, Some(100)));
    assert_eq!(bounds(13), (Some(100), Some(200)));
    assert_eq!(bounds(20), (Some(200), Some(200)));
    assert_eq!(bounds(99), (Some(220), None));
}

#[test]
fn the_newest_sample_is_the_time_of_writing_at_the_revision_of_the_key() {
    let mut key = key();
    key.write(7, at(1_000));
    key.write(9, at(2_000));
    assert_eq!(key.timeline(), timeline(&[(7, 1_000), (9, 2_000)]));
    assert!(
        key.value
            .ends_with("time: 1970-01-01T00:33:20Z\nsamples:\n  7: 1970-01-01T00:16:40Z\n"),
        "{}",
        key.value
    );
    assert!(crate::document::decode_value::<serde_json::Value>(key.value.as_bytes()).is_ok());
}

#[test]
fn the_record_of_the_first_version_is_a_sample() {
    let t = Timeline::parse(b"time: 1970-01-01T00:16:40.250Z\n", 7);
    assert_eq!(seconds(&t, 7), Some(1_000));
}

#[test]
fn what_does_not_read_is_left_out_and_the_rest_is_kept() {
    let text = "time: yesterday\nsamples:\n  7: 1970-01-01T00:16:40Z\n  8: soon\n  x: 1970-01-01T00:16:41Z\n {[\n \
                '9': \"1970-01-01T00:16:42Z\" # by hand\n  -3: 1970-01-01T00:00:00Z\n  99: 1970-01-01T00:16:50Z\n";
    let t = Timeline::parse(text.as_bytes(), 20);
    assert_eq!(t, timeline(&[(7, 1_000), (9, 1_002)]));
    assert_eq!(Timeline::parse(b"\xff\xfe: [", 20), Timeline::default());
}

#[test]
fn one_wrong_clock_moves_nothing_but_its_own_sample() {
    let right = [(10, 100), (20, 200), (40, 400), (50, 500), (60, 600)];
    for wrong in [-1_000_000, 1_000_000] {
        let mut samples = right.to_vec();
        samples.push((30, wrong));
        let t = timeline(&samples);
        for (revision, expected) in right {
            let off = (seconds(&t, revision).unwrap() - expected).abs();
            // The sample beside it may take part in its group.
            assert!(off <= 200, "{wrong}: {revision} is off by {off} s");
        }
        let near = seconds(&t, 30).unwrap();
        assert!((100..=500).contains(&near), "{wrong}: {near}");
    }
}

#[test]
fn a_clock_far_ahead_does_not_cost_the_record() {
    let mut key = key();
    for i in 1..=1_000 {
        key.write(i, at(i * 60));
    }
    let before = key.timeline();
    key.write(1_001, at(10_000_000_000));
    key.write(1_002, at(1_002 * 60));
    let after = key.timeline();
    let lost = before
        .samples
        .keys()
        .filter(|r| !after.samples.contains_key(r))
        .count();
    assert!(lost <= 3, "{lost} samples are lost");
    assert_eq!(seconds(&after, 1_002), Some(1_002 * 60));
}

#[test]
fn the_present_bounds_what_came_after_the_newest_sample() {
    let soon = {
        let mut t = timeline(&[(10, 100)]);
        t.insert_present(30, at(120));
        t
    };
    assert_eq!(seconds(&soon, 20), Some(110));
    let long_after = {
        let mut t = timeline(&[(10, 100)]);
        t.insert_present(30, at(1_000_000));
        t
    };
    assert_eq!(
        seconds(&long_after, 30),
        Some(160),
        "somebody would have noted it"
    );
    let mut nothing = Timeline::default();
    nothing.insert_present(30, at(100));
    assert_eq!(seconds(&nothing, 30), None, "a document may be of any age");
}

#[test]
fn errors_stay_small_beside_ages_for_years_of_samples() {
    // A sample in five hours for a year, one a minute for two days, then one in a few seconds; revisions come unevenly.
    let mut random = fastrand::Rng::with_seed(7);
    let mut stored = Timeline::default();
    let mut truth = Vec::new();
    let (mut revision, mut now) = (0, 1_700_000_000_i64);
    for i in 0..4_000 {
        now += match i {
            0..1_500 => random.i64(60..40_000),
            1_500..3_000 => random.i64(60..90),
            _ => random.i64(1..8),
        };
        revision += random.i64(1..500);
        truth.push((revision, now));
        stored.insert(revision, at(now));
        stored.thin();
        if i % 1_000 != 999 {
            continue;
        }
        let size = stored.encode(at(now)).len();
        assert!(size < 7_000, "{size} bytes");
        let curve = stored.curve();
        for (revision, time) in truth.iter().step_by(7) {
            let error = (curve.at(*revision).unwrap().time.as_unix_seconds() - time).abs();
            let age = now - time;
            assert!(error <= age / 10 + 60, "{error} s of {age} s at {i}");
        }
    }
}

proptest! {
    #[test]
    fn estimates_never_fall_and_lie_within_their_bounds(
        samples in prop::collection::vec((1_i64..1_000, 0_i64..1_000_000), 0..60),
        asked in prop::collection::vec(0_i64..1_100, 1..40),
    ) {
        let curve = timeline(&samples).curve();
        let mut asked = asked;
        asked.sort_unstable();
        let estimates: Vec<Estimate> = asked.iter().filter_map(|r| curve.at(*r)).collect();
        prop_assert!(estimates.len() == asked.len() || samples.is_empty());
        for e in &estimates {
            prop_assert!(e.earliest.is_none_or(|t| t <= e.time));
            prop_assert!(e.latest.is_none_or(|t| t >= e.time));
        }
        for pair in estimates.windows(2) {
            prop_assert!(pair[0].time <= pair[1].time);
        }
    }

    #[test]
    fn clocks_that_agree_are_taken_at_their_word(
        steps in prop::collection::vec((1_i64..100, 0_i64..100_000), 1..150),
    ) {
        let (mut key, mut revision, mut now) = (key(), 0, 0);
        let mut truth = Vec::new();
        for (r, t) in steps {
            revision += r;
            now += t;
            key.write(revision, at(now));
            truth.push((revision, now));
        }
        let stored = key.timeline();
        for (revision, time) in truth {
            prop_assert_eq!(seconds(&stored, revision), Some(time));
        }
    }

    #[test]
    fn no_value_makes_it_fail_or_grow(
        text in "(time: [0-9TZ:-]{0,20}\n)?( {0,2}-?[0-9]{1,19}: ?[0-9]{4}-[01][0-9]-[0-3][0-9]T00:00:00Z\n){0,400}",
        mod_revision in any::<i64>(),
        now in any::<i64>(),
    ) {
        let now = Timestamp::from_unix_millis(now);
        let first = Timeline::parse(text.as_bytes(), mod_revision);
        let stored = first.encode(now);
        let again = Timeline::parse(stored.as_bytes(), i64::MAX);
        prop_assert!(again.samples.len() <= MAX_SAMPLES + 1);
        prop_assert!(again.curve().at(mod_revision).is_some());
    }
}
