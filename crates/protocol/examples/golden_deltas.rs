//! Writes base, target and our patch of each case of `tests/golden/deltas.tsv`. The last column is then written by
//! `tests/sdk/js/golden.mjs`.
//!
//! ```text
//! cargo run -p tautline-protocol --example golden_deltas
//! ```

use tautline_protocol::delta::Encoder;

const BASE: &[u8] = br#"{"device":"pump-7","status":"running","rpm":1200}"#;
const TARGET: &[u8] = br#"{"device":"pump-7","status":"running","rpm":1250}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = (0..60)
        .map(|n| format!("word-{:08x} ", 2_654_435_761_u32.wrapping_mul(n)))
        .collect();
    let moved = [
        &words[40..],
        &words[..10],
        &["new ".to_owned()],
        &words[10..40],
    ]
    .concat()
    .concat();
    let binary: Vec<u8> = (0..600_u32).map(|n| (n * n % 251) as u8).collect();
    let mut changed = binary.clone();
    changed.splice(100..110, *b"\xff\x00");
    changed.rotate_left(333);
    let mut cases: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (BASE.into(), TARGET.into()),
        (TARGET.into(), TARGET.into()),
        (BASE.into(), [BASE, TARGET].concat()),
        ([BASE, TARGET].concat(), TARGET.into()),
        (words.concat().into(), moved.clone().into()),
        (moved.into(), words.concat().into()),
        (binary, changed),
        (vec![b'0'; 5000], vec![b'0'; 4999]),
        (
            "{\"name\":\"caf\u{e9} \u{2603}\",\"rest\":\"the same\"}".into(),
            "{\"name\":\"caf\u{ea} \u{2604}\",\"rest\":\"the same\"}".into(),
        ),
    ];
    cases.extend((0..14).map(|tick| (reading(tick * 3).into(), reading(tick * 3 + 1).into())));
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut encoder = Encoder::default();
    let mut lines = "# Base, target, our patch, and the one of the npm package fossil-delta, in hexadecimal digits.\n".to_owned();
    for (base, target) in cases {
        let ours = encoder
            .encode(&base, &target)
            .ok_or("these have nothing in common")?
            .to_vec();
        lines += &format!("{}\t{}\t{}\t\n", hex(&base), hex(&target), hex(&ours));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/deltas.tsv");
    std::fs::write(path, lines)?;
    Ok(())
}

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
