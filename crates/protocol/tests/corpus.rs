//! Replays what the fuzzer has found worth keeping.

#[path = "fuzzed/command.rs"]
mod command;
#[path = "fuzzed/command_protobuf.rs"]
mod command_protobuf;
#[path = "fuzzed/delta.rs"]
mod delta;
#[path = "../../../fuzz/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn the_corpus_of_commands() {
    replay("command", command::check);
}

#[test]
fn the_corpus_of_protobuf_commands() {
    replay("command_protobuf", command_protobuf::check);
}

#[test]
fn the_corpus_of_patches() {
    replay("delta", delta::check);
}
