//! Messages as applications send them: JSON objects whose names repeat and whose values differ.

use crate::client::Random;

const PEOPLE: [&str; 8] = [
    "ada", "grace", "edsger", "barbara", "donald", "radia", "tony", "frances",
];
const WORDS: [&str; 24] = [
    "the", "line", "holds", "under", "load", "when", "every", "knot", "slides", "to", "where",
    "it", "is", "wanted", "and", "nobody", "has", "to", "look", "after", "price", "order", "left",
    "sent",
];

/// One message of exactly `length` bytes (64 or more), unlike any other of this `random`.
pub(crate) fn message(number: u64, length: usize, random: &mut Random) -> String {
    let person = PEOPLE[random.next() as usize % PEOPLE.len()];
    let mut text = format!(
        r#"{{"type":"message","id":{number},"from":"{person}","at":{},"#,
        1_795_000_000_000 + number * 137 + random.next() % 100
    );
    // What is left goes to fields, as long as there is room for them, and then to words.
    if length >= 256 {
        let (bid, ask) = (random.next() % 100_000, random.next() % 100_000);
        text.push_str(&format!(
            r#""session":"{:016x}","price":{{"bid":{}.{:02},"ask":{}.{:02}}},"tags":["{}","{}"],"read":{},"#,
            random.next(),
            bid / 100,
            bid % 100,
            ask / 100,
            ask % 100,
            WORDS[random.next() as usize % WORDS.len()],
            WORDS[random.next() as usize % WORDS.len()],
            random.next().is_multiple_of(2),
        ));
    }
    text.push_str(r#""text":""#);
    while text.len() + 2 < length {
        let word = WORDS[random.next() as usize % WORDS.len()];
        let room = length - 2 - text.len();
        text.push_str(&word[..word.len().min(room)]);
        if text.len() + 2 < length {
            text.push(' ');
        }
    }
    text.push_str("\"}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_json_of_the_length_that_was_asked_for() {
        let mut random = Random::new(1);
        for number in 0..200 {
            for length in [128, 512] {
                let message = message(number, length, &mut random);
                assert_eq!(message.len(), length);
                let value: serde_json::Value = serde_json::from_str(&message).unwrap();
                assert_eq!(value["id"], number);
            }
        }
    }
}
