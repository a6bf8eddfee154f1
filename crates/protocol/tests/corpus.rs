//! Replays what the fuzzer has found worth keeping.

#[path = "fuzzed/command.rs"]
mod command;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_commands() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/command");
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("fuzz/corpus/command is part of the repository") {
        let path = entry.expect("a readable directory").path();
        let data = fs::read(&path).expect("a readable file");
        // Shown only when the check panics: which file it was.
        eprintln!("{}", path.display());
        command::check(&data);
        replayed += 1;
    }
    assert!(
        replayed >= 20,
        "only {replayed} files in {}",
        corpus.display()
    );
}
