use super::*;

fn q(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn amounts_are_what_their_suffix_says() {
    for (text, milli) in [
        ("0", 0),
        ("250m", 250),
        ("0.5", 500),
        (".5", 500),
        ("5.", 5_000),
        ("+1", 1_000),
        ("-1", -1_000),
        ("1k", 1_000_000),
        ("1Ki", 1_024_000),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("1e-3", 1),
        ("1.5Ki", 1_536_000),
        ("100n", 1),
        ("1u", 1),
        ("-100n", -1),
        ("-1.5", -1_500),
        ("001", 1_000),
    ] {
        assert_eq!(q(text).milli_value(), milli, "{text}");
    }
    assert_eq!(q("1Gi").value(), 1 << 30);
    assert_eq!(q("1E").value(), 1_000_000_000_000_000_000);
    assert_eq!(q("1Ei").value(), 1 << 60);
    assert_eq!(q("0.1Ei").value(), 115_292_150_460_684_698);
}

#[test]
fn whole_values_round_away_from_zero() {
    assert_eq!(q("1m").value(), 1);
    assert_eq!(q("1.2").value(), 2);
    assert_eq!(q("-1.2").value(), -2);
    assert_eq!(q("1000m").value(), 1);
}

#[test]
fn what_is_finer_than_a_billionth_becomes_one() {
    assert_eq!(q("0.0000000001"), q("1n"));
    assert_eq!(q("0.1n"), q("1n"));
    assert_eq!(q("1e-30"), q("1n"));
    assert_eq!(q("-1e-30"), q("-1n"));
    assert_eq!(q("1.0000000001"), q("1.000000001"));
    assert_eq!(q("0.00000000000000000001Ki"), q("1n"));
}

#[test]
fn what_is_too_big_is_capped() {
    for big in [
        "9223372036854775808",
        "99999999999999999999E",
        "1e999",
        "8Ei",
        "1e99999",
        "100000000000000000000000000000000000000000Ki",
    ] {
        assert_eq!(q(big).value(), i64::MAX, "{big}");
        assert_eq!(q(&format!("-{big}")).value(), -i64::MAX, "{big}");
    }
    assert_eq!(q("9223372036854775807").value(), i64::MAX);
    assert_eq!(q("9223372036854775807").milli_value(), i64::MAX);
    assert_eq!(q("9223372036854775807") + q("1"), q("9223372036854775807"));
    assert_eq!(q("0e99999999"), Quantity::ZERO);
}

#[test]
fn texts_that_are_no_quantity_are_errors() {
    for bad in [
        "", " ", "1 ", " 1", "m", ".", "+", "-", "1.2.3", "1mm", "1K", "1ki", "1Mib", "1e", "1e+",
        "1e1.5", "0x10", "1_000", "--1", "1i", "١", "NaN", "inf",
    ] {
        assert!(bad.parse::<Quantity>().is_err(), "{bad:?}");
    }
}

#[test]
fn the_canonical_form_is_kubernetes() {
    for (text, canonical) in [
        ("0", "0"),
        ("0m", "0"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("1500m", "1500m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("100000", "100k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1.5Gi", "1536Mi"),
        ("1000Ki", "1000Ki"),
        ("0.5Gi", "512Mi"),
        ("1.1Ki", "1126400m"),
        ("1e3", "1e3"),
        ("1e4", "10e3"),
        ("1e0", "1"),
        ("1e-3", "1e-3"),
        ("100n", "100n"),
        ("1000n", "1u"),
        ("-1.5Gi", "-1536Mi"),
        ("-0.5", "-500m"),
        ("1E", "1E"),
        ("1000000E", "9223372036854775807"),
    ] {
        assert_eq!(q(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn equality_and_order_are_by_value() {
    assert_eq!(q("1Ki"), q("1024"));
    assert_eq!(q("0.1"), q("100m"));
    assert!(q("999m") < q("1") && q("-1") < q("-999m") && q("1M") < q("1Mi"));
}

#[test]
fn sums_are_exact() {
    assert_eq!(q("0.1") + q("0.2"), q("0.3"));
    assert_eq!(q("1") - q("0.001"), q("999m"));
    assert_eq!(q("0") - q("1n"), q("-1n"));
    assert_eq!((Quantity::ZERO + q("1Gi")).to_string(), "1Gi");
    assert_eq!(
        [q("100m"), q("1"), q("900m")].into_iter().sum::<Quantity>(),
        q("2")
    );
}

#[test]
fn divisors_round_up() {
    assert_eq!(q("250m").divided_by(&q("1")), 1);
    assert_eq!(q("250m").divided_by(&q("1m")), 250);
    assert_eq!(q("1Gi").divided_by(&q("1Mi")), 1024);
    assert_eq!(q("1").divided_by(&Quantity::ZERO), 1);
}

#[test]
fn documents_may_hold_numbers() {
    #[derive(serde::Deserialize)]
    struct R {
        a: ResourceList,
    }
    let r: R =
        serde_yaml::from_str("a: {x: 0.5, y: 2, z: \"1Gi\", w: 1Ki, v: 0.1, u: 1e3}").unwrap();
    let shown: Vec<String> = r.a.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(shown, ["u=1k", "v=100m", "w=1Ki", "x=500m", "y=2", "z=1Gi"]);
}

proptest::proptest! {
    #[test]
    fn every_quantity_reads_back_what_it_writes(whole in -1_000_000_000_000_000i64..1_000_000_000_000_000, nano in 0u32..1_000_000_000, f in 0..3) {
        let format = [Format::BinarySi, Format::DecimalSi, Format::DecimalExponent][f as usize];
        let a = Quantity { whole, nano, format };
        proptest::prop_assert_eq!(q(&a.to_string()), a);
        let b = Quantity { whole, nano: 0, format };
        proptest::prop_assert_eq!(q(&b.to_string()), b);
    }

    #[test]
    fn no_text_panics(text in "[-+.0-9eEKMGTPEinumk]{0,40}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn sums_undo(a in -1_000_000_000_000i64..1_000_000_000_000, b in -1_000_000_000_000i64..1_000_000_000_000) {
        let (x, y) = (Quantity::from_milli(a), Quantity::from_milli(b));
        proptest::prop_assert_eq!(x + y - y, x);
        proptest::prop_assert_eq!((x + y).milli_value(), a + b);
        proptest::prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }
}
