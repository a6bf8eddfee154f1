//! Messages of the kinds that go through WebSockets, the same in every run of a commit: prose and pages are those of the
//! repository, so their rows are to be compared within a run, and not with one of another day.

/// A kind of messages.
pub(crate) struct Corpus {
    pub(crate) name: &'static str,
    pub(crate) messages: Vec<Vec<u8>>,
}

pub(crate) fn all() -> Vec<Corpus> {
    let mut random = Random(7);
    let corpus = |name, messages| Corpus { name, messages };
    vec![
        corpus(
            "JSON, 512 B",
            (0..200).map(|n| orders(n, &mut random)).collect(),
        ),
        corpus(
            "JSON with text, 512 B",
            (0..256).map(|n| message(n, &mut random)).collect(),
        ),
        corpus(
            "JSON ticks, 140 B",
            (0..200).map(|n| tick(n, &mut random)).collect(),
        ),
        corpus("chat, 200 B", chat(&mut random)),
        corpus("prose, 1 KiB", pieces(PROSE, 1024)),
        corpus("prose, 16 KiB", pieces(PROSE, 16 * 1024)),
        corpus("HTML and script, 4 KiB", pieces(PAGE, 4096)),
        corpus(
            "tiny JSON, 40 B",
            (0..200).map(|n| tiny(n, &mut random)).collect(),
        ),
        corpus(
            "noise, 512 B",
            (0..200).map(|_| random.bytes(512)).collect(),
        ),
    ]
}

const PROSE: &str = concat!(
    include_str!("../../../ARCHITECTURE.md"),
    include_str!("../../../docs/decisions.md"),
    include_str!("../../README.md"),
    include_str!("../../../docs/limits.md"),
);
const PAGE: &str = concat!(
    include_str!("../../../crates/server/assets/chat/index.html"),
    include_str!("../../../packages/chat/src/view/app.tsx"),
    include_str!("../../../packages/chat/src/view/messages.tsx"),
    include_str!("../../../packages/chat/src/style/page.css"),
    include_str!("../../../packages/chat/src/style/messages.css"),
    include_str!("../../../packages/chat/src/view/composer.tsx"),
);

/// A list of orders, cut or filled up to 512 bytes by one more field.
fn orders(n: usize, random: &mut Random) -> Vec<u8> {
    let mut text = format!(r#"{{"type":"orders","seq":{},"items":["#, 100_000 + n);
    loop {
        let item = format!(
            r#"{{"id":{},"symbol":"{}","side":"{}","price":{}.{:02},"quantity":{},"open":{}}},"#,
            random.below(1_000_000),
            SYMBOLS[random.below(SYMBOLS.len())],
            ["buy", "sell"][random.below(2)],
            random.below(900) + 50,
            random.below(100),
            random.below(40) * 25,
            ["true", "false"][random.below(2)],
        );
        if text.len() + item.len() > 490 {
            break;
        }
        text.push_str(&item);
    }
    text.pop();
    text.push_str(r#"],"note":""#);
    while text.len() < 510 {
        text.push(char::from(b'a' + random.below(26) as u8));
    }
    text.push_str("\"}");
    text.into_bytes()
}

/// What `benches/compare` sends in its compressed loads: an object with fields, and words.
fn message(n: usize, random: &mut Random) -> Vec<u8> {
    let mut word = |words: &[&'static str]| words[random.below(words.len())];
    let (from, tags) = (word(&NAMES), [word(&WORDS), word(&WORDS)]);
    let mut text = format!(
        r#"{{"type":"message","id":{n},"from":"{from}","at":{},"session":"{:08x}{:08x}","price":{{"bid":{}.{:02},"ask":{}.{:02}}},"tags":{tags:?},"read":{},"text":""#,
        1_795_000_000_000u64 + n as u64 * 137 + random.below(100) as u64,
        random.next(),
        random.next(),
        random.below(1000),
        random.below(100),
        random.below(1000),
        random.below(100),
        random.below(2) == 0,
    );
    while text.len() < 510 {
        text.push_str(WORDS[random.below(WORDS.len())]);
        text.push(' ');
    }
    text.truncate(510);
    text.push_str("\"}");
    text.into_bytes()
}

fn tick(n: usize, random: &mut Random) -> Vec<u8> {
    format!(
        r#"{{"push":{{"channel":"ticks:{}","pub":{{"data":{{"bid":{}.{:04},"ask":{}.{:04},"volume":{}}},"offset":{}}}}}}}"#,
        SYMBOLS[random.below(4)],
        random.below(3) + 100,
        random.below(10_000),
        random.below(3) + 100,
        random.below(10_000),
        random.below(100_000),
        5000 + n,
    )
    .into_bytes()
}

fn chat(random: &mut Random) -> Vec<Vec<u8>> {
    let mut words = PROSE
        .split_ascii_whitespace()
        .filter(|word| word.is_ascii() && !word.contains(['"', '\\']));
    let mut message = |n: usize| {
        let length = 4 + random.below(20);
        let text: Vec<&str> = words.by_ref().take(length).collect();
        let user = NAMES[random.below(NAMES.len())];
        format!(
            r#"{{"user":"{user}","room":"general","at":17640{:08},"text":"{}"}}"#,
            n * 1731,
            text.join(" "),
        )
        .into_bytes()
    };
    (0..100).map(&mut message).collect()
}

fn tiny(n: usize, random: &mut Random) -> Vec<u8> {
    format!(
        r#"{{"id":{n},"x":{},"y":{}}}"#,
        random.below(2000),
        random.below(1200)
    )
    .into_bytes()
}

fn pieces(text: &str, length: usize) -> Vec<Vec<u8>> {
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks_exact(length)
        .map(<[u8]>::to_vec)
        .collect();
    assert!(
        !pieces.is_empty(),
        "a text of {} bytes has no piece of {length}",
        text.len()
    );
    pieces.into_iter().take(40).collect()
}

const WORDS: [&str; 24] = [
    "the", "line", "holds", "under", "load", "when", "every", "knot", "slides", "to", "where",
    "it", "is", "wanted", "and", "nobody", "has", "to", "look", "after", "price", "order", "left",
    "sent",
];
const SYMBOLS: [&str; 8] = [
    "AAPL", "MSFT", "NVDA", "AMZN", "TSLA", "GOOG", "META", "BRK.B",
];
const NAMES: [&str; 6] = ["anna", "bo", "christopher", "dilara", "ed", "fatima"];

/// A linear congruential generator: noise that is the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
