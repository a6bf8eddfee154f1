//! The list of what clients trip over names tests that exist.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

#[test]
fn every_trap_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let list = std::fs::read_to_string(root.join("docs/traps.md")).unwrap();
    let rows = list.lines().filter(|line| line.starts_with("| "));
    let mut named = 0;
    for row in rows.skip(1) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let quoted: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let mut source = String::new();
        for name in &quoted {
            if let Some((_, "rs")) = name.rsplit_once('.') {
                let path = root.join("crates").join(name);
                source = std::fs::read_to_string(&path).unwrap_or_else(|error| {
                    panic!("{}: {error}", path.display());
                });
            } else {
                let is_there = ["fn ", "const "]
                    .iter()
                    .any(|kind| source.contains(&format!("{kind}{name}")));
                assert!(is_there, "{name} is nowhere: {row}");
                named += 1;
            }
        }
        assert!(quoted.len() >= 2, "no test: {row}");
    }
    assert!(named > 30, "{named} tests");
}
