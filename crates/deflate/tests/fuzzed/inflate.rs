//! What must hold for the inflater, whatever bytes come: it takes what zlib takes, to the byte. The
//! fuzz target `inflate` calls this with what it invents, and ordinary tests with the corpus and
//! with what they make up themselves.

use tautline_deflate::{Codec, History, InflateError, InflateLimits};
use zlib_rs::{Inflate, InflateFlush, Status};

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// More than any case inflates to, so that only the limits' own tests meet them.
const LIMITS: InflateLimits = InflateLimits {
    max_size: 1 << 20,
    max_ratio: usize::MAX,
};

/// The first byte chooses the window, the second how much of the rest is history; what is left of it are two messages.
pub(crate) fn check(data: &[u8]) {
    let [window, split, rest @ ..] = data else {
        return;
    };
    let bits = 8 + window % 8;
    let (remembered, messages) = rest.split_at(rest.len() * usize::from(*split) / 512);
    let cut = messages.len() * usize::from(window / 8) / 32;
    for message in [messages, &messages[..cut], &messages[cut..]] {
        check_message(bits, remembered, message);
    }
}

/// One message, behind what was remembered, by both.
pub(crate) fn check_message(bits: u8, remembered: &[u8], message: &[u8]) {
    let mut codec = Codec::new(1);
    let mut history = remember(bits, remembered);
    let kept = history.as_bytes().to_vec();
    let mut out = b"kept".to_vec();
    let result = codec.inflate(bits, Some(&mut history), message, LIMITS, &mut out);
    let expected = reference(&kept, message, LIMITS.max_size);
    match result {
        Ok(()) => {
            assert_eq!(&out[..4], b"kept");
            let Reference::Took(bytes, _) = expected else {
                panic!("what zlib refuses was taken");
            };
            assert!(out[4..] == bytes, "other bytes than zlib's");
            let all = [&kept[..], &bytes].concat();
            assert!(history.as_bytes() == &all[all.len().saturating_sub(1 << bits)..]);
        }
        Err(error) => {
            assert_eq!(out, b"kept");
            assert_eq!(history.as_bytes(), kept);
            match (error, expected) {
                (InflateError::Corrupt, Reference::Refused)
                | (InflateError::TooLarge { .. }, Reference::TooLarge) => {}
                // Whether there is more to come or something wrong is a matter of who looks first: zlib notices a
                // code without codes only behind the lengths that it would have read with it.
                (InflateError::CutOff, Reference::Refused)
                | (InflateError::CutOff | InflateError::Corrupt, Reference::Took(_, false)) => {}
                // zlib refuses references beyond a window only where it would have to keep more.
                (InflateError::Corrupt, Reference::Took(..) | Reference::TooLarge) if bits < 15 => {
                    let wide = Codec::new(1).inflate(
                        15,
                        Some(&mut remember_all(&kept)),
                        message,
                        LIMITS,
                        &mut Vec::new(),
                    );
                    assert_ne!(
                        wide,
                        Err(InflateError::Corrupt),
                        "what zlib takes was refused"
                    );
                }
                (error, expected) => panic!("{error}, where zlib {expected:?}"),
            }
        }
    }
    // The limits hold to the byte.
    if let Ok(()) = result {
        let size = out.len() - 4;
        for (max_size, fits) in [(size, true), (size.saturating_sub(1), size == 0)] {
            let limits = InflateLimits { max_size, ..LIMITS };
            let mut again = Vec::new();
            let result = codec.inflate(
                bits,
                Some(&mut remember_all(&kept)),
                message,
                limits,
                &mut again,
            );
            assert_eq!(
                result.is_ok(),
                fits,
                "{size} bytes, {max_size} allowed: {result:?}"
            );
            assert!(again.capacity() <= 2 * size + 4 * message.len() + 1024);
        }
    }
}

/// A history that has these bytes, as far as it remembers them.
fn remember(bits: u8, bytes: &[u8]) -> History {
    let mut history = History::new(bits);
    for part in bytes.chunks(65_535) {
        let mut stored = vec![0];
        stored.extend_from_slice(&(part.len() as u16).to_le_bytes());
        stored.extend_from_slice(&(!(part.len() as u16)).to_le_bytes());
        stored.extend_from_slice(part);
        Codec::new(1)
            .inflate(bits, Some(&mut history), &stored, LIMITS, &mut Vec::new())
            .expect("a stored block");
    }
    history
}

fn remember_all(bytes: &[u8]) -> History {
    remember(15, bytes)
}

/// What zlib makes of a message.
#[derive(Debug)]
enum Reference {
    /// These bytes; and whether what comes next would begin a block.
    Took(Vec<u8>, bool),
    Refused,
    TooLarge,
}

/// zlib with a stream for this message alone, which it goes on with behind a final block.
fn reference(remembered: &[u8], message: &[u8], most: usize) -> Reference {
    // "Hello" in a stored and in a fixed block: what is inside another block might take the bits of one of them for
    // its own end, but not of both.
    let probes: [&[u8]; 2] = [
        b"\x00\x05\x00\xfa\xffHello",
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",
    ];
    match probes.map(|probe| reference_with(probe, remembered, message, most)) {
        [Reference::Took(bytes, first), Reference::Took(_, second)] => {
            Reference::Took(bytes, first && second)
        }
        [other, _] => other,
    }
}

fn reference_with(probe: &[u8], remembered: &[u8], message: &[u8], most: usize) -> Reference {
    let mut out = Vec::new();
    let mut stream = begin(remembered);
    let mut input = message;
    loop {
        match feed(&mut stream, &mut input, &mut out, most) {
            Fed::Refused => return Reference::Refused,
            Fed::TooLarge => return Reference::TooLarge,
            Fed::Ended if input.is_empty() => return Reference::Took(out, true),
            Fed::Ended => {
                let window = [remembered, &out].concat();
                stream = begin(&window[window.len().saturating_sub(1 << 15)..]);
            }
            Fed::All => break,
        }
    }
    match feed(&mut stream, &mut &TAIL[..], &mut out, most) {
        Fed::Refused => return Reference::Refused,
        Fed::TooLarge => return Reference::TooLarge,
        Fed::Ended => return Reference::Took(out, true),
        Fed::All => {}
    }
    let mut probed = Vec::new();
    let fed = feed(&mut stream, &mut &probe[..], &mut probed, most);
    let whole = matches!(fed, Fed::All) && probed == b"Hello";
    Reference::Took(out, whole)
}

fn begin(window: &[u8]) -> Inflate {
    let mut stream = Inflate::new(false, 15);
    if !window.is_empty() {
        stream
            .set_dictionary(window)
            .expect("at the start of a stream");
    }
    stream
}

enum Fed {
    All,
    Ended,
    Refused,
    TooLarge,
}

fn feed(stream: &mut Inflate, input: &mut &[u8], out: &mut Vec<u8>, most: usize) -> Fed {
    loop {
        if out.len() > most {
            return Fed::TooLarge;
        }
        let mut room = [0; 4096];
        let (read, written) = (stream.total_in(), stream.total_out());
        let status = stream.decompress(input, &mut room, InflateFlush::SyncFlush);
        *input = &input[(stream.total_in() - read) as usize..];
        let written = (stream.total_out() - written) as usize;
        out.extend_from_slice(&room[..written]);
        match status {
            Err(_) if out.len() > most => return Fed::TooLarge,
            Err(_) => return Fed::Refused,
            Ok(Status::StreamEnd) if out.len() > most => return Fed::TooLarge,
            Ok(Status::StreamEnd) => return Fed::Ended,
            Ok(_) if written < room.len() => {
                return if out.len() > most {
                    Fed::TooLarge
                } else {
                    Fed::All
                };
            }
            Ok(_) => {}
        }
    }
}
