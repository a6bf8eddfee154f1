//! Replays what the fuzzer has found worth keeping.

#[path = "fuzzed/engine.rs"]
mod engine;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_of_the_engine() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/engine");
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("fuzz/corpus/engine is part of the repository") {
        let path = entry.expect("a readable directory").path();
        let data = fs::read(&path).expect("a readable file");
        // Shown only when the check panics: which file it was.
        eprintln!("{}", path.display());
        engine::check(&data);
        replayed += 1;
    }
    assert!(
        replayed >= 20,
        "only {replayed} files in {}",
        corpus.display()
    );
}
