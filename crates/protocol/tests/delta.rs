//! Patches: made, applied, and held against other implementations.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "fuzzed/delta.rs"]
mod fuzzed;

use proptest::prelude::*;
use tautline_protocol::Encoding;
use tautline_protocol::delta::{self, DeltaError, Encoder};
use tautline_protocol::message::Payload;

use fuzzed::{check, check_apply, check_encode};

const BASE: &[u8] = br#"{"device":"pump-7","status":"running","rpm":1200}"#;
const TARGET: &[u8] = br#"{"device":"pump-7","status":"running","rpm":1250}"#;

/// A publication of some 500 bytes, as devices send them.
fn reading(tick: u32) -> String {
    let sensors: Vec<String> = (0..8)
        .map(|sensor| {
            format!(
                r#"{{"sensor":"s-{sensor}","unit":"celsius","value":{}.{}}}"#,
                20 + sensor,
                (tick * 7 + sensor) % 10
            )
        })
        .collect();
    format!(
        r#"{{"device":"pump-7","site":"north","sequence":{tick},"status":"running","sensors":[{}]}}"#,
        sensors.join(",")
    )
}

#[test]
fn what_another_encoder_made_of_it_is_applied() {
    assert_eq!(
        delta::apply(BASE, b"m\nj@0,1:52@k,1vu6Vd;", 49).unwrap(),
        TARGET
    );
    // All of it as it stands.
    assert_eq!(
        delta::apply(b"", b"3\n3:abc1XXAn~;", 3),
        delta::apply(b"x", b"3\n3:abc1XXAn~;", 3)
    );
}

#[test]
fn small_changes_make_small_patches() {
    let (base, target) = (reading(41), reading(42));
    let patch = check_encode(base.as_bytes(), target.as_bytes()).unwrap();
    assert!(target.len() > 450);
    assert!(
        patch.len() < target.len() / 3,
        "{}",
        String::from_utf8_lossy(&patch)
    );
    let patch = check_encode(BASE, TARGET).unwrap();
    assert!(patch.len() <= 20);
    // Nothing changed.
    assert!(check_encode(TARGET, TARGET).unwrap().len() <= 14);
}

#[test]
fn pieces_are_found_wherever_they_went() {
    let words: Vec<String> = (0..200)
        .map(|n| format!("word-{:08x} ", 2_654_435_761_u32.wrapping_mul(n)))
        .collect();
    let base = words.concat();
    let moved = [
        &words[150..],
        &words[..50],
        &["something new ".to_owned()],
        &words[50..150],
    ]
    .concat()
    .concat();
    let patch = check_encode(base.as_bytes(), moved.as_bytes()).unwrap();
    assert!(patch.len() < 80, "{} bytes", patch.len());
}

#[test]
fn where_a_patch_is_of_no_use_there_is_none() {
    for (base, target) in [
        (&b""[..], &b""[..]),
        (b"", b"x"),
        (b"{}", b"{}"),
        (b"1234567", b"1234567"),
        (BASE, b"{}"),
        (b"", TARGET),
        (b"nothing of that is in there anywhere", TARGET),
    ] {
        assert_eq!(check_encode(base, target), None);
    }
    // A patch that would be exactly as long.
    let target = b"0123456789ab";
    assert!(check_encode(target, target).is_none_or(|patch| patch.len() < target.len()));
}

#[test]
fn long_and_monotonous_publications_come_to_an_end() {
    let zeros = vec![b'0'; 1 << 20];
    let mut other = zeros.clone();
    other[500_000] = b'1';
    other.truncate((1 << 20) - 77);
    check_encode(&zeros, &other).unwrap();
    check_encode(&other, &zeros).unwrap();
    let pattern = b"0,".repeat(1 << 18);
    assert!(check_encode(&zeros, &pattern).is_none());
}

#[test]
fn no_piece_cuts_a_character() {
    // These have bytes in common: é is c3 a9, ê is c3 aa, ☃ is e2 98 83, ☄ is e2 98 84.
    let base = "{\"name\":\"caf\u{e9} \u{2603} \u{1f600}\",\"rest\":\"the same all the time\"}";
    for (from, to) in [
        ("\u{e9}", "\u{ea}"),
        ("\u{2603}", "\u{2604}"),
        ("\u{1f600}", "\u{1f601}"),
        ("caf", "\u{a9}"),
    ] {
        let target = base.replace(from, to);
        let patch = check_encode(base.as_bytes(), target.as_bytes()).unwrap();
        assert!(patch.len() < 40);
    }
}

#[test]
fn data_of_delta_subscriptions() {
    let full = Payload::from_static("{\"text\":\"caf\u{e9}\\n\"}\n".as_bytes());
    let json = Encoding::Json.delta_data(&full).unwrap();
    assert_eq!(
        json,
        "\"{\\\"text\\\":\\\"caf\u{e9}\\\\n\\\"}\\n\"".as_bytes()
    );
    // What the client reads out of it is what was published, byte for byte.
    assert_eq!(
        serde_json::from_slice::<String>(&json).unwrap().as_bytes(),
        full
    );
    assert_eq!(Encoding::Protobuf.delta_data(&full).unwrap(), full);
    let binary = Payload::from_static(b"\xff\x00");
    assert_eq!(Encoding::Json.delta_data(&binary), None);
    assert_eq!(Encoding::Protobuf.delta_data(&binary).unwrap(), binary);
}

#[test]
fn what_is_not_a_patch_is_refused() {
    use DeltaError::{Base, Checksum, Length, Syntax, TooLarge};
    let number = "a number of one to six digits";
    let mark = "\"@\", \":\" or \";\" behind a number";
    let bytes = "as many bytes as the number before them says";
    let syntax = |expected, at| Syntax { expected, at };
    for (patch, error) in [
        (&b""[..], syntax(number, 0)),
        (b"!", syntax(number, 0)),
        (b"0000001\n", syntax(number, 0)),
        (b"1", syntax("a line break behind the length", 1)),
        (b"1;", syntax("a line break behind the length", 1)),
        (b"1\n", syntax(number, 2)),
        (b"1\n1", syntax(mark, 3)),
        (b"1\n1!", syntax(mark, 3)),
        (b"1\n1:", syntax(bytes, 4)),
        (b"1\n~~~~~~:x", syntax(bytes, 9)),
        (b"1\n1@0", syntax("a comma behind the offset", 5)),
        (b"1\n1@,", syntax(number, 4)),
        (
            b"~\n",
            TooLarge {
                announced: 63,
                limit: 49,
            },
        ),
        (
            b"~~~~~~\n",
            TooLarge {
                announced: (1 << 36) - 1,
                limit: 49,
            },
        ),
        (
            b"3\n2:ab0;",
            Length {
                announced: 3,
                made: 2,
            },
        ),
        (
            b"3\n4:abcd0;",
            Length {
                announced: 3,
                made: 4,
            },
        ),
        (
            b"3\n3@l,0;",
            Base {
                end: 51,
                length: 49,
            },
        ),
        (
            b"3\n~~~~~~@~~~~~~,0;",
            Base {
                end: (1 << 37) - 2,
                length: 49,
            },
        ),
        (
            b"0\n1;",
            Checksum {
                expected: 1,
                found: 0,
            },
        ),
        (b"0\n0; ", syntax("the end of the patch", 4)),
    ] {
        check_apply(BASE, patch);
        assert_eq!(
            delta::apply(BASE, patch, 49),
            Err(error),
            "{}",
            patch.escape_ascii()
        );
    }
    let patch = Encoder::default().encode(BASE, TARGET).unwrap().to_vec();
    let other = String::from_utf8_lossy(BASE).replace("pump-7", "pump-8");
    let error = delta::apply(other.as_bytes(), &patch, 49).unwrap_err();
    assert!(
        error.to_string().starts_with("a patch for another base"),
        "{error}"
    );
    let error = delta::apply(&BASE[..30], &patch, 49).unwrap_err();
    assert!(
        error.to_string().starts_with("a patch for a longer base"),
        "{error}"
    );
}

#[test]
fn no_more_is_made_than_was_announced() {
    let base = vec![b'x'; 1000];
    // Announces 4000 bytes, and copies 1000 of them a thousand times.
    let patch = [&b"zW\n"[..], &b"Fd@0,".repeat(1000), b"0;"].concat();
    let mut result = Ok(Vec::new());
    let allocations = allocation_counter::measure(|| result = delta::apply(&base, &patch, 1 << 20));
    assert_eq!(
        result,
        Err(DeltaError::Length {
            announced: 4000,
            made: 5000
        })
    );
    assert!(
        allocations.bytes_max <= 3 * 4000,
        "{} bytes",
        allocations.bytes_max
    );
}

/// Base, target, our patch, and the one of the npm package `fossil-delta`, in hexadecimal digits.
const GOLDEN: &str = include_str!("golden/deltas.tsv");

fn golden() -> impl Iterator<Item = [Vec<u8>; 4]> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let columns: Vec<Vec<u8>> = line.split('\t').map(unhex).collect();
        columns.try_into().unwrap()
    })
}

fn unhex(digits: &str) -> Vec<u8> {
    let bytes = (0..digits.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn patches_of_another_implementation_are_applied_and_ours_are_what_it_has_applied() {
    let mut count = 0;
    for [base, target, ours, theirs] in golden() {
        assert_eq!(
            delta::apply(&base, &theirs, target.len()).as_ref(),
            Ok(&target)
        );
        let patch = check_encode(&base, &target).unwrap_or_default();
        assert_eq!(patch, ours, "write the file anew: {}", patch.escape_ascii());
        count += 1;
    }
    assert!(count >= 20, "only {count}");
}

/// Text with much in common: a base, and what some edits make of it.
fn edited() -> impl Strategy<Value = (String, String)> {
    let piece = || {
        prop_oneof![
            3 => "[a-d\u{e9}\u{ea}\u{2603}\u{2604}\u{1f600}\u{1f601}]{0,12}",
            2 => prop::sample::select(vec!["\"temperature\":", "{\"device\":\"pump-7\"}", "0000000000000000000000"]).prop_map(str::to_owned),
        ]
    };
    let edit = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        piece(),
        0..3_u8,
    );
    (
        prop::collection::vec(piece(), 0..30),
        prop::collection::vec(edit, 0..6),
    )
        .prop_map(|(base, edits)| {
            let mut target = base.clone();
            for (one, other, piece, kind) in edits {
                let (one, other) = (one.index(target.len() + 1), other.index(target.len() + 1));
                match kind {
                    0 => target.insert(one, piece),
                    1 if one < target.len() => drop(target.remove(one)),
                    2 if one < target.len() && other < target.len() => target.swap(one, other),
                    _ => {}
                }
            }
            (base.concat(), target.concat())
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn edited_text_survives((base, target) in edited()) {
        check_encode(base.as_bytes(), target.as_bytes());
    }

    #[test]
    fn any_bytes_survive(
        base in prop::collection::vec(0..4_u8, 0..200),
        target in prop::collection::vec(0..4_u8, 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        check_encode(&base, &target);
        // With some of the base in it.
        let (front, back) = base.split_at(cut.index(base.len() + 1));
        let mixed = [back, &target, front].concat();
        check_encode(&base, &mixed);
        check_encode(&[0x80].repeat(base.len()), &[&mixed[..], &[0x80; 40]].concat());
    }

    #[test]
    fn damaged_patches_are_applied_or_refused(
        (base, target) in edited(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"0123@:,;\nzZ~".to_vec())],
    ) {
        if let Some(mut patch) = check_encode(base.as_bytes(), target.as_bytes()) {
            let at = at.index(patch.len());
            patch[at] = byte;
            check_apply(base.as_bytes(), &patch);
            patch.truncate(at);
            check_apply(base.as_bytes(), &patch);
        }
    }

    #[test]
    fn anything_goes(data in prop::collection::vec(any::<u8>(), 0..60)) {
        check(&data);
    }

    #[test]
    fn any_text_is_applied_or_refused(patch in "[0-3A~@:,;\n]{0,20}") {
        check_apply(b"abcabcabc", patch.as_bytes());
    }
}
