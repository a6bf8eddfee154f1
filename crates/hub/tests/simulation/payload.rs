//! What is published: objects that differ in little, so that patches are worth it.

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

/// The number of a payload, which must be whole.
pub(crate) fn number(text: &str) -> u64 {
    let value: Value = serde_json::from_str(text).expect("a payload is JSON");
    let number = value["n"].as_u64().expect("a number");
    assert_eq!(value, payload(number), "altered");
    number
}

/// The tag by which subscribers filter.
pub(crate) const TAG: &str = "kind";
pub(crate) const KINDS: [&str; 3] = ["x", "y", "z"];
/// What subscribers of [`HIDDEN`](crate::HIDDEN) may know of.
pub(crate) const KNOWN: [&str; 2] = ["x", "y"];
