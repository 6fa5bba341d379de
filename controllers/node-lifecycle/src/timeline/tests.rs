use super::*;

fn seen(revision: i64) -> Sample {
    (Revision(revision), Timestamp::from_unix_seconds(revision))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn nothing_is_due_before_a_document_changes_and_after_it_was_noted() {
    let (mut keeper, start) = (Keeper::new(), Instant::now());
    keeper.begins(seen(5));
    assert_eq!(keeper.due(), None);
    keeper.saw(seen(6), start);
    assert_eq!(keeper.due(), Some(start + QUIET));
    keeper.wrote(start + QUIET);
    assert_eq!(keeper.due(), None);
}

#[test]
fn changes_without_a_pause_are_noted_once_a_minute() {
    let (mut keeper, start) = (Keeper::new(), Instant::now());
    let mut writes = Vec::new();
    for second in 0..3_600 {
        let now = start + secs(second);
        keeper.saw(seen(second.cast_signed() + 1), now);
        if keeper.due().is_some_and(|due| due <= now) {
            writes.push(second);
            keeper.wrote(now);
        }
    }
    assert!((58..=61).contains(&writes.len()), "{writes:?}");
    assert!(writes.windows(2).all(|w| w[1] - w[0] <= 62), "{writes:?}");
}

#[test]
fn changes_with_pauses_are_noted_at_once_until_they_are_too_many() {
    let (mut keeper, start) = (Keeper::new(), Instant::now());
    let mut now = start;
    let mut waited = Vec::new();
    for i in 0..10 {
        keeper.saw(seen(i), now);
        let due = keeper.due().unwrap();
        waited.push((due - now).as_secs());
        keeper.wrote(due);
        now = due + secs(5);
    }
    assert_eq!(waited[..4], [2; 4], "{waited:?}");
    assert!(
        waited[5..].iter().all(|w| (50..=60).contains(w)),
        "{waited:?}"
    );
    // After a rest it is as at the beginning.
    now += INTERVAL * BURST;
    keeper.saw(seen(99), now);
    assert_eq!(keeper.due(), Some(now + QUIET));
}

#[test]
fn the_record_gets_both_ends_of_what_was_seen() {
    let (mut keeper, start) = (Keeper::new(), Instant::now());
    keeper.begins(seen(50));
    for revision in 60..70 {
        keeper.saw(seen(revision), start);
    }
    let mut timeline = Timeline::default();
    assert!(keeper.add_to(&mut timeline, Revision(40)));
    let mut expected = Timeline::default();
    for (revision, time) in [seen(50), seen(60), seen(69)] {
        expected.insert(revision.0, time);
    }
    assert_eq!(timeline, expected);
}

#[test]
fn what_somebody_noted_later_is_not_noted_again() {
    let mut keeper = Keeper::new();
    keeper.saw(seen(7), Instant::now());
    let mut timeline = Timeline::default();
    assert!(!keeper.add_to(&mut timeline, Revision(7)));
    assert_eq!(timeline, Timeline::default());
}

#[test]
fn a_write_that_failed_is_not_repeated_at_once() {
    let (mut keeper, start) = (Keeper::new(), Instant::now());
    keeper.saw(seen(7), start);
    keeper.pause_until = Some(start + INTERVAL);
    assert_eq!(keeper.due(), Some(start + INTERVAL));
}
