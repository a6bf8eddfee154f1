//! What must hold of how a tunnel's messages are set apart, whatever a client sends. The fuzz target `tunnel_framing` calls
//! this with what it invents, ordinary tests with the corpus.

use bytes::Bytes;
use tautline_websocket::proto::{CloseCode, Message};

use super::framing::{Reader, framed};

/// The messages, and how it ends: with a piece of so many bytes, or broken off.
type Outcome = (Vec<Message>, Result<usize, CloseCode>);

/// The first byte says how long a message may be and how the rest is cut. However that comes, the same comes of it,
/// which is what a reader says who has it all at once; and what is said again is the same.
pub(super) fn check(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let max = [0, 16, 300, 1 << 20][usize::from(first & 3)];
    let expected = reference(data, max);
    assert_eq!(in_pieces(data, data.len().max(1), max), expected, "at once");
    assert_eq!(in_pieces(data, 1, max), expected, "byte by byte");
    let size = usize::from(first >> 2) + 2;
    assert_eq!(in_pieces(data, size, max), expected, "in pieces of {size}");
    let again: Vec<u8> = expected.0.iter().flat_map(framed).collect();
    assert_eq!(in_pieces(&again, size, max), (expected.0, Ok(0)), "again");
}

fn in_pieces(data: &[u8], size: usize, max: usize) -> Outcome {
    let (mut reader, mut messages) = (Reader::new(max), Vec::new());
    for piece in data.chunks(size) {
        reader.take(Bytes::copy_from_slice(piece));
        loop {
            match reader.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(broken) => return (messages, Err(broken.code)),
            }
        }
        assert!(reader.held() < max + 7, "{} bytes are held", reader.held());
    }
    (messages, Ok(reader.held()))
}

/// The same, without a state.
fn reference(data: &[u8], max: usize) -> Outcome {
    let (mut messages, mut rest) = (Vec::new(), data);
    loop {
        match one(rest, max) {
            Err(code) => return (messages, Err(code)),
            Ok(None) => return (messages, Ok(rest.len())),
            Ok(Some((message, behind))) => {
                messages.push(message);
                rest = behind;
            }
        }
    }
}

fn one(data: &[u8], max: usize) -> Result<Option<(Message, &[u8])>, CloseCode> {
    let Some((&kind, data)) = data.split_first() else {
        return Ok(None);
    };
    if !matches!(kind, 1 | 2) {
        return Err(CloseCode::PROTOCOL_ERROR);
    }
    let digits = &data[..data.len().min(5)];
    let end = digits.iter().position(|byte| byte & 0x80 == 0);
    let said = &digits[..end.map_or(digits.len(), |end| end + 1)];
    let len = said
        .iter()
        .rev()
        .fold(0_u64, |len, byte| len << 7 | u64::from(byte & 0x7f));
    // As soon as the digits that are there say more than may be.
    if len > max as u64 {
        return Err(CloseCode::MESSAGE_TOO_BIG);
    }
    let Some(end) = end else {
        return if said.len() == 5 {
            Err(CloseCode::PROTOCOL_ERROR)
        } else {
            Ok(None)
        };
    };
    let Some((payload, behind)) = data[end + 1..].split_at_checked(len as usize) else {
        return Ok(None);
    };
    let message = match kind {
        1 => match std::str::from_utf8(payload) {
            Ok(text) => Message::from(text),
            Err(_) => return Err(CloseCode::INVALID_PAYLOAD),
        },
        _ => Message::from(payload.to_vec()),
    };
    Ok(Some((message, behind)))
}
