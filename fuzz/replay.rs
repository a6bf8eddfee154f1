//! Replays what the fuzzers have found worth keeping. Ordinary tests of the crates include this file.

use std::fs;
use std::path::Path;

/// Runs a target's body on each file of its corpus.
pub(crate) fn replay(target: &str, check: impl Fn(&[u8])) {
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
