//! Tags filters: each comparison, each limit, each complaint; and any filter against a naive
//! evaluator, in both encodings.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "fuzzed/dynamic.rs"]
mod dynamic;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tautline_protocol::filter::{Filter, FilterError, FilterLimits, RawFilter};

type Tags = BTreeMap<String, String>;

fn tags(entries: &[(&str, &str)]) -> Tags {
    let entries = entries.iter();
    entries
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Parses a filter in both encodings, which must come to the same.
fn parse_with(value: &Value, limits: &FilterLimits) -> Result<Filter, FilterError> {
    let text = value.to_string();
    let bytes = dynamic::encode("FilterNode", value);
    let json = RawFilter::Json(&text).parse(limits);
    let protobuf = RawFilter::Protobuf(bytes.into()).parse(limits);
    match (&json, &protobuf) {
        (Ok(json), Ok(protobuf)) => assert_eq!(json, protobuf),
        // They are not of the same size.
        (Err(FilterError::TooLarge { .. }), _) => {}
        (Err(json), Err(protobuf)) => assert_eq!(json.to_string(), protobuf.to_string()),
        _ => panic!("{value}: {json:?}, but {protobuf:?}"),
    }
    json
}

fn parse(value: &Value) -> Result<Filter, FilterError> {
    parse_with(value, &FilterLimits::default())
}

fn complaint(value: &Value) -> String {
    parse(value).unwrap_err().to_string()
}

fn leaf(cmp: &str, val: &str) -> Value {
    json!({"key": "k", "cmp": cmp, "val": val})
}

#[test]
fn comparisons() {
    let absent = tags(&[("other", "x")]);
    for (filter, matching, failing, when_absent) in [
        (leaf("eq", "a"), &["a"][..], &["", "b", "aa"][..], false),
        (leaf("neq", "a"), &["", "b", "aa"], &["a"], true),
        (
            json!({"key": "k", "cmp": "in", "vals": ["b", "a", "b"]}),
            &["a", "b"],
            &["", "c"],
            false,
        ),
        (
            json!({"key": "k", "cmp": "in", "vals": ["a", ""]}),
            &["a", ""],
            &["c"],
            true,
        ),
        (
            json!({"key": "k", "cmp": "nin", "vals": ["b", "a"]}),
            &["", "c"],
            &["a", "b"],
            true,
        ),
        (
            json!({"key": "k", "cmp": "nin", "vals": [""]}),
            &["c"],
            &[""],
            false,
        ),
        (json!({"key": "k", "cmp": "ex"}), &["", "a"], &[], false),
        (json!({"key": "k", "cmp": "nex"}), &[], &["", "a"], true),
        (leaf("sw", "ab"), &["ab", "abc"], &["", "a", "cab"], false),
        (leaf("ew", "ab"), &["ab", "cab"], &["", "b", "abc"], false),
        (leaf("ct", "ab"), &["ab", "cabd"], &["", "ba"], false),
        (
            leaf("gt", "10"),
            &["10.01", "11", "+100"],
            &["10", "10.0", "9", "-11", "", "x", "1e9"],
            false,
        ),
        (
            leaf("gte", "10"),
            &["10", "10.00", "11"],
            &["9.999", "-10", "", "11 "],
            false,
        ),
        (
            leaf("lt", "10"),
            &["9.99", "-11", "0"],
            &["10", "010", "11", "", "x"],
            false,
        ),
        (
            leaf("lte", "-1.50"),
            &["-1.5", "-2"],
            &["-1.49", "0", "1.5", "", "x"],
            false,
        ),
        (leaf("lt", "ten"), &[], &["1", "10", "ten"], false),
    ] {
        let parsed = parse(&filter).unwrap();
        for value in matching {
            assert!(
                parsed.matches(&tags(&[("k", value)])),
                "{filter} and {value:?}"
            );
        }
        for value in failing {
            assert!(
                !parsed.matches(&tags(&[("k", value)])),
                "{filter} and {value:?}"
            );
        }
        assert_eq!(
            parsed.matches(&absent),
            when_absent,
            "{filter} without the tag"
        );
    }
}

#[test]
fn branches() {
    let (a, b) = (
        json!({"key": "a", "cmp": "ex"}),
        json!({"key": "b", "cmp": "ex"}),
    );
    let filter = |value| parse(&value).unwrap();
    let and = filter(json!({"op": "and", "nodes": [a, b]}));
    let or = filter(json!({"op": "or", "nodes": [a, b]}));
    let not = filter(json!({"op": "not", "nodes": [{"op": "or", "nodes": [a, b]}]}));
    let one = filter(json!({"op": "and", "nodes": [a]}));
    for (entries, expected) in [
        (&[][..], [false, false, true, false]),
        (&[("a", "")][..], [false, true, false, true]),
        (&[("b", "")][..], [false, true, false, false]),
        (&[("a", ""), ("b", "")][..], [true, true, false, true]),
    ] {
        let tags = tags(entries);
        assert_eq!(
            [&and, &or, &not, &one].map(|filter| filter.matches(&tags)),
            expected
        );
    }
    // What has no meaning where it stands is ignored.
    let odd = json!({"op": "and", "cmp": "?", "val": "x", "nodes": [{"key": "a", "cmp": "ex", "nodes": [b]}]});
    assert_eq!(filter(odd), one);
}

#[test]
fn complaints_say_what_was_expected() {
    let long = "x".repeat(100);
    for (filter, text) in [
        (
            json!({}),
            "a comparison without cmp; branches have an op, comparisons a cmp",
        ),
        (
            json!({"key": "k", "cmp": "is", "val": "x"}),
            "unknown cmp \"is\"; expected eq, neq, in,",
        ),
        (
            json!({"key": "k", "cmp": long, "val": "x"}),
            "unknown cmp \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
        ),
        (
            json!({"op": "xor", "nodes": []}),
            "unknown op \"xor\"; expected \"and\"",
        ),
        (
            json!({"op": "and", "nodes": []}),
            "\"and\" without nodes; it takes at least one",
        ),
        (
            json!({"op": "or"}),
            "\"or\" without nodes; it takes at least one",
        ),
        (
            json!({"op": "not"}),
            "\"not\" with 0 nodes; it takes exactly one",
        ),
        (
            json!({"op": "not", "nodes": [{"cmp": "ex"}, {"cmp": "ex"}]}),
            "\"not\" with 2 nodes; it takes exactly one",
        ),
        (
            json!({"cmp": "eq", "val": "x"}),
            "\"eq\" without a key: name the tag that is compared",
        ),
        (json!({"cmp": "in", "vals": ["x"]}), "\"in\" without a key"),
        (json!({"cmp": "gt", "val": "1"}), "\"gt\" without a key"),
        (json!({"cmp": "gt", "val": "one"}), "\"gt\" without a key"),
        (
            leaf("eq", ""),
            "\"eq\" takes a val that is not empty, and no vals",
        ),
        (
            json!({"key": "k", "cmp": "sw", "val": "x", "vals": ["y"]}),
            "\"sw\" takes a val that is not empty, and no vals",
        ),
        (
            json!({"key": "k", "cmp": "in"}),
            "\"in\" takes vals with at least one entry, and no val",
        ),
        (
            json!({"key": "k", "cmp": "nin", "val": "x", "vals": ["y"]}),
            "\"nin\" takes vals with at least one entry, and no val",
        ),
        (leaf("ex", "x"), "\"ex\" takes neither val nor vals"),
        (
            json!({"key": "k", "cmp": "nex", "vals": ["y"]}),
            "\"nex\" takes neither val nor vals",
        ),
        (
            json!({"op": "and", "nodes": [{"cmp": "ex"}, leaf("eq", "")]}),
            "\"eq\" takes a val",
        ),
    ] {
        let complaint = complaint(&filter);
        assert!(complaint.starts_with(text), "{filter}: {complaint}");
    }
}

#[test]
fn the_other_comparisons_need_their_operands_too() {
    for cmp in ["eq", "neq", "sw", "ew", "ct", "gt", "gte", "lt", "lte"] {
        assert!(parse(&json!({"key": "k", "cmp": cmp, "val": "1"})).is_ok());
        for bad in [
            json!({"key": "k", "cmp": cmp}),
            json!({"cmp": cmp, "val": "1"}),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
    // The one thing that may be asked without a name.
    let filter = parse(&json!({"cmp": "nex"})).unwrap();
    assert!(filter.matches(&tags(&[("k", "")])) && !filter.matches(&tags(&[("", "")])));
}

#[test]
fn what_is_no_filter_at_all() {
    let limits = FilterLimits::default();
    for text in [
        "",
        "1",
        "[]",
        "\"x\"",
        "true",
        "{\"op\":1}",
        "{\"nodes\":{}}",
        "{\"nodes\":[1]}",
        "{\"vals\":\"x\"}",
        "{\"vals\":[1]}",
        "{\"cmp\":\"ex\"} {}",
        "{\"cmp\":\"ex\"",
        "{\"nodes\":[[]]}",
    ] {
        let error = RawFilter::Json(text).parse(&limits).unwrap_err();
        assert!(matches!(error, FilterError::Syntax(_)), "{text}: {error}");
        assert!(error.to_string().starts_with("not a filter: "), "{error}");
    }
    // It is told to whoever sent the filter, who doesn't choose how long it is.
    let long = json!({"vals": "\u{200b}".repeat(1300)}).to_string();
    let error = RawFilter::Json(&long).parse(&limits).unwrap_err();
    let error = error.to_string();
    assert!(error.len() < 400, "{} bytes", error.len());
    assert!(error.contains("expected a list of strings"), "{error}");
    for bytes in [
        &b"\x08\x01"[..],
        b"\x0a\x01",
        b"\x1a\x01\xff",
        b"\x32\x02\x08\x01",
        b"\x2a\x01\xff",
        b"\x30\x01",
    ] {
        let error = RawFilter::Protobuf(bytes.into())
            .parse(&limits)
            .unwrap_err();
        assert!(matches!(error, FilterError::Wire(_)), "{bytes:x?}: {error}");
    }
}

#[test]
fn null_is_as_good_as_absent_and_unknown_keys_are_skipped() {
    let text = r#"{"op":null,"key":"k","cmp":"eq","val":"x","vals":null,"nodes":null,"new":[{}]}"#;
    let filter = RawFilter::Json(text)
        .parse(&FilterLimits::default())
        .unwrap();
    assert_eq!(filter, parse(&leaf("eq", "x")).unwrap());
    // key, cmp, val, and field 9 with four bytes.
    let bytes = b"\x12\x01k\x1a\x02eq\x22\x01x\x4d1234";
    let filter = RawFilter::Protobuf(bytes.into());
    assert_eq!(
        filter.parse(&FilterLimits::default()).unwrap(),
        parse(&leaf("eq", "x")).unwrap()
    );
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(
        json!({"cmp": "ex"}),
        |inner, _| json!({"op": "not", "nodes": [inner]}),
    )
}

#[test]
fn limits() {
    let limits = FilterLimits::default();
    assert!(parse(&nested(limits.max_depth)).is_ok());
    assert!(complaint(&nested(limits.max_depth + 1)).contains("more than 8 levels"));

    let wide = |nodes| json!({"op": "or", "nodes": vec![json!({"cmp": "ex"}); nodes]});
    assert!(parse(&wide(limits.max_nodes - 1)).is_ok());
    assert!(complaint(&wide(limits.max_nodes)).contains("more than 64 nodes"));

    // The values of all lists count together.
    let list = |values| json!({"key": "k", "cmp": "in", "vals": vec!["x"; values]});
    assert!(parse(&list(limits.max_values)).is_ok());
    assert!(complaint(&list(limits.max_values + 1)).contains("more than 256 values"));
    let two = json!({"op": "or", "nodes": [list(limits.max_values), list(1)]});
    assert!(complaint(&two).contains("more than 256 values"));

    let long = leaf("eq", &"x".repeat(limits.max_size));
    assert!(matches!(
        parse(&long),
        Err(FilterError::TooLarge { found, limit: 4096 }) if found > 4096
    ));
    let bytes = vec![0x0a; limits.max_size + 1];
    assert!(matches!(
        RawFilter::Protobuf(bytes.into()).parse(&limits),
        Err(FilterError::TooLarge { .. })
    ));
}

#[test]
fn depth_is_heeded_before_it_is_a_danger() {
    let mut limits = FilterLimits::default();
    limits.max_size = usize::MAX;
    let text = "{\"op\":\"not\",\"nodes\":[".repeat(1_000_000);
    assert!(matches!(
        RawFilter::Json(&text).parse(&limits),
        Err(FilterError::TooDeep { .. })
    ));
    let text = format!("{{\"unknown\":{}", "[".repeat(1_000_000));
    assert!(RawFilter::Json(&text).parse(&limits).is_err());
}

#[test]
fn configurations_hold_filters() {
    let value = json!({"key": "k", "cmp": "in", "vals": ["a"]});
    let filter: Filter = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(filter, parse(&value).unwrap());
    let error = serde_json::from_value::<Filter>(json!({"op": "nor"})).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown op \"nor\""),
        "{error}"
    );
}

#[test]
fn a_filter_may_be_narrowed_and_never_widened() {
    let imposed = parse(&leaf("eq", "mine")).unwrap();
    let all = parse(&json!({"op": "or", "nodes": [{"cmp": "ex"}, {"cmp": "nex"}]})).unwrap();
    let none = parse(&json!({"op": "and", "nodes": [{"cmp": "ex"}, {"cmp": "nex"}]})).unwrap();
    let (mine, yours) = (tags(&[("k", "mine")]), tags(&[("k", "yours")]));
    assert!(all.matches(&mine) && all.matches(&yours) && !none.matches(&mine));
    assert!(imposed.and(&all).matches(&mine) && !imposed.and(&all).matches(&yours));
    assert!(!imposed.and(&none).matches(&mine));
    assert_eq!(imposed.and(&imposed), imposed);
}

#[test]
fn matching_does_not_allocate() {
    let filter = json!({"op": "and", "nodes": [
        {"key": "sym", "cmp": "in", "vals": ["A", "B", "C"]},
        {"op": "not", "nodes": [{"op": "or", "nodes": [leaf("sw", "x"), leaf("ct", "yz")]}]},
        {"key": "px", "cmp": "gte", "val": "10.5"},
        {"key": "px", "cmp": "lt", "val": "99999999999999999999.5"},
    ]});
    let filter = parse(&filter).unwrap();
    let filter = filter.and(&parse(&leaf("neq", "z")).unwrap());
    let tags = tags(&[("sym", "B"), ("px", "00010.50"), ("k", "abc")]);
    let mut matches = false;
    let allocations = allocation_counter::measure(|| matches = filter.matches(&tags));
    assert!(matches);
    assert_eq!(allocations.count_total, 0);
}

/// The semantics once more, as plainly as can be: of a filter that is valid.
fn naive(filter: &Value, tags: &Tags) -> bool {
    let text = |key: &str| filter[key].as_str().unwrap_or("");
    let nodes = || filter["nodes"].as_array().unwrap().iter();
    match text("op") {
        "and" => return nodes().all(|node| naive(node, tags)),
        "or" => return nodes().any(|node| naive(node, tags)),
        "not" => return !naive(nodes().next().unwrap(), tags),
        _ => {}
    }
    let tag = tags.get(text("key"));
    let val = text("val");
    let listed = || {
        let vals = filter["vals"].as_array().unwrap();
        vals.iter()
            .any(|listed| listed == tag.map_or("", String::as_str))
    };
    // Numbers of the tests are hundredths, at most.
    let number = |text: &str| {
        let plain = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, part) = plain.split_once('.').unwrap_or((plain, "0"));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        (is_number(whole) && is_number(part))
            .then(|| (text.parse::<f64>().unwrap() * 100.0).round() as i64)
    };
    let compared = || Some(number(tag?)?.cmp(&number(val)?));
    match text("cmp") {
        "eq" => tag.is_some_and(|tag| tag == val),
        "neq" => tag.is_none_or(|tag| tag != val),
        "in" => listed(),
        "nin" => !listed(),
        "ex" => tag.is_some(),
        "nex" => tag.is_none(),
        "sw" => tag.is_some_and(|tag| tag.starts_with(val)),
        "ew" => tag.is_some_and(|tag| tag.ends_with(val)),
        "ct" => tag.is_some_and(|tag| tag.contains(val)),
        "gt" => compared().is_some_and(Ordering::is_gt),
        "gte" => compared().is_some_and(Ordering::is_ge),
        "lt" => compared().is_some_and(Ordering::is_lt),
        "lte" => compared().is_some_and(Ordering::is_le),
        other => panic!("{other}"),
    }
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{0,3}",
        "[+-]?[0-9]{1,2}(\\.[0-9]{1,2})?",
        "[0-9.+-]{1,3}",
    ]
}

fn any_filter() -> impl Strategy<Value = Value> {
    let key = || prop::sample::select(vec!["a", "b", "c"]);
    let one = prop::sample::select(vec![
        "eq", "neq", "sw", "ew", "ct", "gt", "gte", "lt", "lte",
    ]);
    let value = any_value().prop_filter("the operand of a comparison", |value| !value.is_empty());
    let leaf = prop_oneof![
        6 => (key(), one, value).prop_map(|(key, cmp, val)| json!({"key": key, "cmp": cmp, "val": val})),
        2 => (key(), prop::sample::select(vec!["in", "nin"]), prop::collection::vec(any_value(), 1..4))
            .prop_map(|(key, cmp, vals)| json!({"key": key, "cmp": cmp, "vals": vals})),
        1 => (key(), prop::sample::select(vec!["ex", "nex"]))
            .prop_map(|(key, cmp)| json!({"key": key, "cmp": cmp})),
    ];
    leaf.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|node| json!({"op": "not", "nodes": [node]})),
            (
                prop::sample::select(vec!["and", "or"]),
                prop::collection::vec(inner, 1..4)
            )
                .prop_map(|(op, nodes)| json!({"op": op, "nodes": nodes})),
        ]
    })
}

fn any_tags() -> impl Strategy<Value = Tags> {
    prop::collection::btree_map("[abc]", any_value(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn filters_decide_as_a_naive_evaluator_does(filter in any_filter(), all in prop::collection::vec(any_tags(), 1..5)) {
        let parsed = parse(&filter).unwrap();
        for tags in &all {
            prop_assert_eq!(parsed.matches(tags), naive(&filter, tags), "{} on {:?}", filter, tags);
        }
    }

    #[test]
    fn a_conjunction_is_both(one in any_filter(), other in any_filter(), tags in any_tags()) {
        let both = parse(&one).unwrap().and(&parse(&other).unwrap());
        prop_assert_eq!(both.matches(&tags), naive(&one, &tags) && naive(&other, &tags));
    }

    /// Whatever comes is a filter or is refused, in both encodings.
    #[test]
    fn anything_is_read_or_refused(
        text in "[\\[\\]{}\",: a-z0-9]{0,40}",
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let limits = FilterLimits::default();
        let _ = RawFilter::Json(&text).parse(&limits);
        let known = dynamic::decode("FilterNode", &bytes);
        let ours = RawFilter::Protobuf(bytes.into()).parse(&limits);
        prop_assert!(ours.is_err() || known.is_ok());
    }
}
