//! The PROXY protocol's parser: what the fuzzer has found worth keeping, and headers that were changed at random.

#[path = "fuzzed/proxy_protocol.rs"]
mod fuzzed;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tautline::proxy_protocol;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/proxy_protocol");
    let entries =
        fs::read_dir(&folder).expect("fuzz/corpus/proxy_protocol is part of the repository");
    let files = entries.map(|entry| fs::read(entry.expect("an entry").path()).expect("a file"));
    let all: Vec<_> = files.collect();
    assert!(all.len() >= 20, "{} is not whole", folder.display());
    all
}

#[test]
fn the_corpus_of_headers() {
    for data in corpus() {
        fuzzed::check(&data);
    }
}

/// Seeds are right headers and wrong ones: changed in one place they are neither, or something else.
#[test]
fn headers_that_were_changed_by_a_byte() {
    for data in corpus() {
        for at in 0..data.len().min(130) {
            for byte in [
                0,
                b' ',
                b'0',
                b'9',
                b'\r',
                b'\n',
                0xff,
                data[at] ^ 1,
                data[at] ^ 0x80,
            ] {
                let mut changed = data.clone();
                changed[at] = byte;
                fuzzed::check(&changed);
                changed.truncate(at);
                fuzzed::check(&changed);
            }
        }
    }
}

proptest! {
    #[test]
    fn bytes_behind_a_beginning(start in 0_usize..4, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
        let starts: [&[u8]; 4] = [
            b"",
            b"PROXY TCP4 ",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0",
        ];
        fuzzed::check(&[starts[start], &rest].concat());
    }
}
