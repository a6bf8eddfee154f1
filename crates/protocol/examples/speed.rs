//! What a push costs in each encoding, what a patch costs, and what a filter costs:
//!
//! ```sh
//! cargo run --release -p tautline-protocol --example speed
//! ```

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tautline_protocol::delta::Encoder;
use tautline_protocol::filter::{FilterLimits, RawFilter};
use tautline_protocol::message::ClientInfo;
use tautline_protocol::{Encoding, Publication, Push, Reply, json, protobuf};

/// Nanoseconds of one call: the best of some rounds, since whatever disturbs makes it slower.
fn measure(what: &str, mut call: impl FnMut()) {
    let calls = 20_000;
    let round = || {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    let best = std::iter::repeat_with(round)
        .take(15)
        .fold(f64::MAX, f64::min);
    println!("{what:<58} {best:>8.0} ns");
}

/// A publication as devices send them, with so many sensors.
fn reading(sensors: u32, tick: u32) -> String {
    let sensors: Vec<String> = (0..sensors)
        .map(|sensor| {
            let value = (tick * 7 + sensor * 13) % 400;
            format!(
                r#"{{"sensor":"s-{sensor}","unit":"celsius","value":{}.{}}}"#,
                value / 10,
                value % 10
            )
        })
        .collect();
    format!(
        r#"{{"device":"pump-7","sequence":{tick},"sensors":[{}]}}"#,
        sensors.join(",")
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = Vec::with_capacity(1 << 16);
    for (size, info) in [(128, false), (128, true), (4096, false)] {
        let author = ClientInfo {
            user: "user-4711".into(),
            client: "8a3f6f0e-0000-4000-8000-000000000000".into(),
            ..Default::default()
        };
        let publication = Publication {
            data: format!("{{\"text\":\"{}\"}}", "x".repeat(size - 11)).into(),
            offset: 123_456,
            info: info.then(|| Arc::new(author)),
            ..Default::default()
        };
        let reply = Reply::Push(Push::Publication(
            "chat:room-1".into(),
            Arc::new(publication),
        ));
        let by = if info { ", with its author" } else { "" };
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            measure(&format!("push of {size} bytes{by}, {encoding:?}"), || {
                out.clear();
                encoding.encode_reply(black_box(&reply), &mut out);
            });
        }
    }

    let text = r#"{"id":4,"publish":{"channel":"chat:room-1","data":{"text":"hello, everybody"}}}"#;
    measure("a publish command read, Json", || {
        black_box(json::Commands::new(black_box(text)).count());
    });
    let bytes = b"\x2d\x08\x04\x3a\x29\x0a\x0bchat:room-1\x12\x1a{\"text\":\"hello, everyone\"}";
    assert!(protobuf::Commands::new(bytes).all(|command| command.is_ok()));
    measure("a publish command read, Protobuf", || {
        black_box(protobuf::Commands::new(black_box(bytes)).count());
    });

    let mut encoder = Encoder::default();
    for sensors in [2, 8, 80] {
        let (base, target) = (reading(sensors, 41), reading(sensors, 42));
        let patch = encoder
            .encode(base.as_bytes(), target.as_bytes())
            .map_or(0, <[u8]>::len);
        measure(
            &format!("a patch of {patch} bytes for {}", target.len()),
            || {
                black_box(encoder.encode(black_box(base.as_bytes()), target.as_bytes()));
            },
        );
    }
    let other = reading(8, 1).chars().rev().collect::<String>();
    let target = reading(8, 2);
    measure(
        &format!("no patch, nothing in common, for {}", target.len()),
        || {
            black_box(encoder.encode(black_box(other.as_bytes()), target.as_bytes()));
        },
    );

    let filter = RawFilter::Json(
        r#"{"op":"and","nodes":[{"key":"sym","cmp":"in","vals":["A","B","C"]},{"key":"px","cmp":"gte","val":"10.5"}]}"#,
    );
    let filter = filter.parse(&FilterLimits::default())?;
    let tags = BTreeMap::from([("sym".into(), "B".into()), ("px".into(), "11.25".into())]);
    measure("a filter of two comparisons", || {
        black_box(black_box(&filter).matches(&tags));
    });
    Ok(())
}
