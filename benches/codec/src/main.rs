//! How long it takes to compress and to inflate a message, and to what size, beside other codecs, in
//! one thread and without a socket:
//!
//! ```text
//! cargo run --release --manifest-path benches/codec/Cargo.toml [-- CORPUS [CODEC]]
//! ```
//!
//! `CORPUS` and `CODEC` are parts of names; without them it is all of them. Each figure is the fastest of several passes over all messages of a corpus, by message. What is
//! inflated is what zlib compresses at level 6. `TIMED=0` leaves out the times: sizes are the same in every run.

mod codecs;
mod corpus;

use std::time::{Duration, Instant};

use codecs::Named;
use corpus::Corpus;

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let timed = std::env::var("TIMED").as_deref() != Ok("0");
    for corpus in corpus::all() {
        if !corpus.name.contains(&wanted) {
            continue;
        }
        let messages = &corpus.messages;
        let bytes: usize = messages.iter().map(Vec::len).sum();
        println!(
            "\n## {}: {} messages of {} bytes",
            corpus.name,
            messages.len(),
            bytes / messages.len()
        );
        table(
            "compressed, each message by itself",
            &corpus,
            messages,
            codecs::compressors_alone(),
            timed,
        );
        table(
            "compressed, in context",
            &corpus,
            messages,
            codecs::compressors_with_context(),
            timed,
        );
        let packed = pack(messages, false);
        table(
            "inflated, each message by itself",
            &corpus,
            &packed,
            codecs::decompressors_alone(),
            timed,
        );
        let packed = pack(messages, true);
        table(
            "inflated, in context",
            &corpus,
            &packed,
            codecs::decompressors_with_context(),
            timed,
        );
    }
}

/// The messages as zlib compresses them, in a window of 1 KiB where it is in context.
fn pack(messages: &[Vec<u8>], context: bool) -> Vec<Vec<u8>> {
    let mut zlib = flate2::Compress::new_with_window_bits(
        flate2::Compression::new(6),
        false,
        if context { 10 } else { 15 },
    );
    let pack = |message: &Vec<u8>| {
        if !context {
            zlib.reset();
        }
        let mut out = Vec::with_capacity(message.len() + 64);
        zlib.compress_vec(message, &mut out, flate2::FlushCompress::Sync)
            .expect("compressible");
        out.truncate(out.len() - 4);
        out
    };
    messages.iter().map(pack).collect()
}

fn table(title: &str, corpus: &Corpus, messages: &[Vec<u8>], codecs: Vec<Named>, timed: bool) {
    println!("\n{title:38} | bytes | % | ns a message\n---|--:|--:|--:");
    let plain: usize = corpus.messages.iter().map(Vec::len).sum();
    let wanted = std::env::args().nth(2).unwrap_or_default();
    for Named { name, mut work } in codecs {
        if !name.contains(&wanted) {
            continue;
        }
        let mut out = Vec::new();
        let mut size = 0;
        for message in messages {
            out.clear();
            work(message, &mut out);
            size += out.len();
        }
        let time = if timed {
            fastest(messages, &mut work)
        } else {
            Duration::ZERO
        };
        println!(
            "{name:38} | {} | {:.1} | {}",
            size / messages.len(),
            100.0 * size as f64 / plain as f64,
            time.as_nanos() / messages.len() as u128
        );
    }
}

/// The fastest of some passes over all messages, of about a quarter of a second in all.
fn fastest(messages: &[Vec<u8>], work: &mut codecs::Work) -> Duration {
    let mut out = Vec::new();
    let mut best = Duration::MAX;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(250) {
        let start = Instant::now();
        for message in messages {
            out.clear();
            work(message, &mut out);
        }
        best = best.min(start.elapsed());
    }
    best
}
