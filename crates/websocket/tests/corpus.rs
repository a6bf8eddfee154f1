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
#[path = "../../../fuzz/replay.rs"]
mod replay;

use self::replay::replay;

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
