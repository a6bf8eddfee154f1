//! Replays what the fuzzer has found worth keeping.

#[path = "fuzzed/command.rs"]
mod command;
#[path = "fuzzed/command_protobuf.rs"]
mod command_protobuf;
#[path = "fuzzed/delta.rs"]
mod delta;

use std::fs;
use std::path::Path;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is part of the repository") {
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
