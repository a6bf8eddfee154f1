//! Replays what the fuzzers have found worth keeping.

#[path = "fuzzed/engine.rs"]
mod engine;
#[path = "fuzzed/frames.rs"]
mod frames;
#[path = "fuzzed/handshake.rs"]
mod handshake;
#[cfg(feature = "http2")]
#[path = "fuzzed/http2_opening.rs"]
mod http2_opening;
#[path = "fuzzed/pair.rs"]
mod pair;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_the_engine() {
    replay("engine", engine::check);
}

#[test]
fn the_corpus_of_frames() {
    replay("frames", frames::check);
}

#[test]
fn the_corpus_of_the_pair() {
    replay("pair", pair::check);
}

#[test]
fn the_corpus_of_the_handshake() {
    replay("handshake", handshake::check);
}

#[cfg(feature = "http2")]
#[test]
fn the_corpus_of_the_opening_over_http2() {
    replay("http2_opening", http2_opening::check);
}

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("the corpora are part of the repository") {
        let path = entry.expect("a readable directory").path();
        let data = fs::read(&path).expect("a readable file");
        // Shown only when the check panics: which file it was.
        eprintln!("{}", path.display());
        check(&data);
        replayed += 1;
    }
    assert!(
        replayed >= 20,
        "only {replayed} files in {}",
        corpus.display()
    );
}
