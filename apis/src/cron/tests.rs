use super::*;

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// The next times after `after`, as the clock of the zone shows them.
fn next(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (schedule(text), time_zone(Some(zone)).unwrap());
    let mut at: Timestamp = after.parse().unwrap();
    let mut times = Vec::new();
    for _ in 0..count {
        at = schedule.next_after(at, &zone).unwrap();
        let shown = jiff::Timestamp::from(at).to_zoned_datetime(zone.clone());
        times.push(shown.strftime("%m-%d %H:%M %z").to_string());
    }
    times
}

/// The same in UTC, with years.
fn utc(text: &str, after: &str) -> String {
    let at = schedule(text).next_after(after.parse().unwrap(), &TimeZone::UTC);
    at.unwrap().to_string()
}

#[test]
fn fields_mean_what_they_mean_in_cron() {
    // 2026-11-26 is a Thursday.
    let after = "2026-11-26T10:20:30Z";
    for (text, wanted) in [
        ("* * * * *", "2026-11-26T10:21:00Z"),
        ("*/15 * * * *", "2026-11-26T10:30:00Z"),
        ("5/20 * * * *", "2026-11-26T10:25:00Z"),
        ("0 8-18/4 * * *", "2026-11-26T12:00:00Z"),
        ("0 0 1,15 * *", "2026-12-01T00:00:00Z"),
        ("30 6 * * mon-FRI", "2026-11-27T06:30:00Z"),
        ("0 0 * Feb *", "2027-02-01T00:00:00Z"),
        ("0 0 ? * 0", "2026-11-29T00:00:00Z"),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ("@hourly", "2026-11-26T11:00:00Z"),
        ("@daily", "2026-11-27T00:00:00Z"),
        ("@weekly", "2026-11-29T00:00:00Z"),
        ("@monthly", "2026-12-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("59 23 31 12 *", "2026-12-31T23:59:00Z"),
    ] {
        assert_eq!(utc(text, after), wanted, "{text}");
        let again = schedule(text).to_string();
        assert_eq!(utc(&again, after), wanted, "{text} as {again}");
    }
}

#[test]
fn the_time_itself_is_not_after_it() {
    assert_eq!(
        utc("0 10 * * *", "2026-11-26T10:00:00Z"),
        "2026-11-27T10:00:00Z"
    );
    assert_eq!(
        utc("0 10 * * *", "2026-11-26T09:59:59.999Z"),
        "2026-11-26T10:00:00Z"
    );
    assert_eq!(
        utc("0 0 29 2 *", "2096-03-01T00:00:00Z"),
        "2104-02-29T00:00:00Z"
    );
}

#[test]
fn of_two_restricted_days_one_is_enough() {
    let after = "2026-11-26T00:00:00Z";
    // The 13th, and every Friday.
    assert_eq!(utc("0 0 13 * 5", after), "2026-11-27T00:00:00Z");
    assert_eq!(
        utc("0 0 13 * 5", "2026-12-12T00:00:00Z"),
        "2026-12-13T00:00:00Z"
    );
    // A star restricts nothing, so the other one decides alone; with a step it restricts.
    assert_eq!(utc("0 0 13 * *", after), "2026-12-13T00:00:00Z");
    assert_eq!(utc("0 0 */2 * 5", after), "2026-11-27T00:00:00Z");
    assert_eq!(
        utc("0 0 */2 * 5", "2026-12-04T00:00:00Z"),
        "2026-12-05T00:00:00Z"
    );
}

#[test]
fn what_is_wrong_is_said_of_its_field() {
    for (text, words) in [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("0 * * * * *", "has 6 fields"),
        (
            "60 * * * *",
            "the minute, \"60\", has 60, which is not 0 to 59",
        ),
        ("* 24 * * *", "the hour"),
        ("* * 0 * *", "the day of the month"),
        ("* * * 13 *", "the month"),
        ("* * * foo *", "\"foo\", which is not 1 to 12 or jan to dec"),
        (
            "* * * * 7",
            "the day of the week, \"7\", has 7, which is not 0 to 6; Sunday is 0",
        ),
        ("*/0 * * * *", "a step of 0"),
        ("*/x * * * *", "the step \"x\""),
        ("5-1 * * * *", "ends before it begins"),
        ("1,,2 * * * *", "an empty place"),
        ("-1 * * * *", "an empty place"),
        ("+1 * * * *", "\"+1\""),
        ("999999999999 * * * *", "which is not 0 to 59"),
        ("* * L * *", "the day of the month"),
        ("@every 5m", "is not one of @yearly"),
        ("TZ=Europe/Berlin 0 0 * * *", "timeZone"),
        ("CRON_TZ=UTC 0 0 * * *", "timeZone"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
    ] {
        let error = Schedule::parse(text).map(|s| s.to_string()).unwrap_err();
        assert!(error.to_string().contains(words), "{text}: {error}");
    }
    // A day of the week that fits is enough.
    assert!(Schedule::parse("0 0 31 2 1").is_ok());
}

#[test]
fn a_time_that_the_clock_skips_runs_when_the_gap_ends() {
    // In Berlin 02:00 to 03:00 of 2027-03-28 does not exist.
    let day = "2027-03-27T12:00:00Z";
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", day, 2),
        ["03-28 03:00 +0200", "03-29 02:30 +0200"]
    );
    // Together with what is due then anyway.
    assert_eq!(
        next("0 1-3 * * *", "Europe/Berlin", day, 3),
        [
            "03-28 01:00 +0100",
            "03-28 03:00 +0200",
            "03-29 01:00 +0200"
        ]
    );
    assert_eq!(
        next("*/20 2 * * *", "Europe/Berlin", day, 2),
        ["03-28 03:00 +0200", "03-29 02:00 +0200"]
    );
    // The hour before is not moved.
    assert_eq!(
        next("0 1 * * *", "Europe/Berlin", day, 2),
        ["03-28 01:00 +0100", "03-29 01:00 +0200"]
    );
    // A whole day that does not exist: Samoa had no 2011-12-30.
    assert_eq!(
        next("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00:00Z", 2),
        ["12-31 00:00 +1400", "12-31 12:00 +1400"]
    );
}

#[test]
fn a_time_that_comes_twice_runs_once() {
    // In Berlin 02:00 to 03:00 of 2026-10-25 comes twice.
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["10-25 02:30 +0200", "10-26 02:30 +0100"]
    );
    // Also for who comes back between the two.
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", 1),
        ["10-26 02:30 +0100"]
    );
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1),
        ["10-26 02:30 +0100"]
    );
}

#[test]
fn what_runs_every_hour_follows_the_time_that_passes() {
    assert_eq!(
        next("15 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 3),
        [
            "10-25 02:15 +0200",
            "10-25 02:15 +0100",
            "10-25 03:15 +0100"
        ]
    );
    assert_eq!(
        next("15 * * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", 3),
        [
            "03-28 01:15 +0100",
            "03-28 03:15 +0200",
            "03-28 04:15 +0200"
        ]
    );
    assert_eq!(
        next("0 */2 * * *", "Europe/Berlin", "2027-03-27T23:30:00Z", 2),
        ["03-28 04:00 +0200", "03-28 06:00 +0200"]
    );
    // Half an hour is put forward here, so that minutes and not hours are new.
    assert_eq!(
        next(
            "0 * * * *",
            "Australia/Lord_Howe",
            "2026-10-03T14:30:00Z",
            2
        ),
        ["10-04 03:00 +1100", "10-04 04:00 +1100"]
    );
}

#[test]
fn times_only_rise_and_always_fit_the_clock_of_a_zone_without_changes() {
    let zone = time_zone(Some("Asia/Tokyo")).unwrap();
    for text in [
        "* * * * *",
        "7 */3 * * 1-5",
        "0 0 1 1 *",
        "59 23 29 2 *",
        "0 9 */10 * 2",
    ] {
        let schedule = schedule(text);
        let mut at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for _ in 0..50 {
            let next = schedule.next_after(at, &zone).unwrap();
            let clock = zone.to_datetime(next.into());
            assert!(next > at, "{text}: {next}");
            assert!(
                schedule.fits(clock.date()) && schedule.time(clock.time()) == Some(clock.time()),
                "{text}: {clock}"
            );
            at = next;
        }
    }
}

#[test]
fn only_time_zones_that_mean_the_same_everywhere_are_taken() {
    for good in ["UTC", "Etc/UTC", "Europe/Berlin", "America/New_York"] {
        assert!(time_zone(Some(good)).is_ok(), "{good}");
    }
    for bad in ["", "Local", "local", "Mars/Base", "+02:00"] {
        let error = time_zone(Some(bad)).unwrap_err().to_string();
        assert!(error.contains("Europe/Berlin"), "{error}");
    }
    assert_eq!(time_zone(None), Ok(TimeZone::UTC));
}

#[test]
fn the_end_of_the_calendar_is_no_panic() {
    let zone = time_zone(Some("Europe/Berlin")).unwrap();
    for text in ["* * * * *", "0 2 * * *", "0 0 29 2 *"] {
        let schedule = schedule(text);
        for millis in [i64::MIN, i64::MAX] {
            let at = Timestamp::from_unix_millis(millis);
            if let Some(next) = schedule.next_after(at, &zone) {
                assert!(next > at, "{text}");
            }
        }
    }
}
