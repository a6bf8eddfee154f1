//! What is published: objects that differ in little, so that patches are worth it; and bytes that are no text.

use serde_json::{Value, json};

/// The payload with this number.
pub(crate) fn payload(number: u64) -> Value {
    let state = ["runs", "rests", "\u{6c34}"][number as usize % 3];
    json!({
        "n": number,
        "of": "pump \u{fc}ber 7",
        "state": state,
        "unchanged": "from one to the next, as such things are",
    })
}

/// Bytes that are neither JSON nor text.
pub(crate) fn bytes(number: u64) -> Vec<u8> {
    let mut bytes = vec![0xff, b'\n', 0, b'"'];
    bytes.extend(number.to_be_bytes());
    bytes
}

/// The same as a text that stands for them, where messages are thought of as JSON.
pub(crate) fn as_text(bytes: &[u8]) -> String {
    let characters = bytes.iter().copied().map(char::from);
    std::iter::once(MARK).chain(characters).collect()
}

/// The bytes for which a text stands, if it does.
pub(crate) fn from_text(text: &str) -> Option<Vec<u8>> {
    let characters = text.strip_prefix(MARK)?.chars();
    Some(
        characters
            .map(|one| u8::try_from(one).expect("a byte"))
            .collect(),
    )
}

/// The number of a payload, which must be whole.
pub(crate) fn number(text: &str) -> u64 {
    if let Some(found) = from_text(text) {
        let number = found.last_chunk().expect("a number");
        let number = u64::from_be_bytes(*number);
        assert_eq!(found, bytes(number), "altered");
        return number;
    }
    let value: Value = serde_json::from_str(text).expect("a payload is JSON");
    let number = value["n"].as_u64().expect("a number");
    assert_eq!(value, payload(number), "altered");
    number
}

/// The text of a payload's bytes.
pub(crate) fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap_or_else(|_| as_text(payload))
}

/// What no text of a payload begins with.
const MARK: char = '\u{1}';

/// The tag by which subscribers filter.
pub(crate) const TAG: &str = "kind";
pub(crate) const KINDS: [&str; 3] = ["x", "y", "z"];
/// What subscribers of [`HIDDEN`](crate::HIDDEN) and [`KNOWN_CACHE`](crate::KNOWN_CACHE) may know of.
pub(crate) const KNOWN: [&str; 2] = ["x", "y"];
