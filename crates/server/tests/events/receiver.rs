//! The application's backend, which is not always at its best.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use aws_lc_rs::hmac;
use serde_json::Value;

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";

/// Random numbers that are the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What it made of the events so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// All that it took, in the order in which it came for the first time.
    pub(crate) events: Vec<Value>,
    /// The same, with what it would not have where that came.
    pub(crate) seen: Vec<Value>,
    /// What it would not have, and did not get again, by id.
    pub(crate) dead: BTreeMap<String, Value>,
    pub(crate) repeated: usize,
    known: HashSet<String>,
    /// The last number by key.
    last: HashMap<String, u64>,
    /// By visit: the user, and the channels.
    visits: BTreeMap<String, (String, BTreeSet<String>)>,
    occupied: BTreeSet<String>,
    /// When visits, their subscriptions, and channels began.
    began: HashMap<(String, String), u64>,
    /// Told of each event that is new.
    pub(crate) changed: Arc<Condvar>,
}

impl Book {
    /// Takes an event.
    pub(crate) fn enter(&mut self, event: &Value) {
        let id = event["id"].as_str().unwrap();
        if event["redelivered"] == true {
            if let Some(mut letter) = self.dead.remove(id) {
                letter["redelivered"] = true.into();
                assert_eq!(*event, letter, "what comes again is what was refused");
                self.events.push(letter);
                return;
            }
        } else if self.dead.remove(id).is_some() {
            // It was refused, and the server killed before it had made a dead letter of it.
            self.events.push(event.clone());
            return;
        }
        if self.learn(event) {
            self.events.push(event.clone());
        }
    }

    /// Refuses one, of which it has heard by that: it comes where it belongs, as all others do.
    pub(crate) fn refuse(&mut self, event: &Value) {
        if self.learn(event) {
            let id = event["id"].as_str().unwrap().to_owned();
            self.dead.insert(id, event.clone());
        }
    }

    /// Whether it is new.
    fn learn(&mut self, event: &Value) -> bool {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        if !self.known.insert(text("id")) {
            self.repeated += 1;
            return false;
        }
        let seq = event["seq"].as_u64().unwrap();
        let before = self.last.insert(text("key"), seq);
        assert!(
            before.is_none_or(|before| before < seq),
            "out of order: {event}"
        );
        self.check_duration(event);
        let (visit, channel) = (text("visit"), text("channel"));
        match &*text("type") {
            "connected" => {
                let entry = (text("user"), BTreeSet::new());
                assert!(self.visits.insert(visit, entry).is_none(), "twice: {event}");
            }
            "disconnected" => {
                let (_, channels) = self.visits.remove(&visit).expect("it was connected");
                assert!(channels.is_empty(), "{event}");
            }
            "subscribed" => {
                let (_, channels) = self.visits.get_mut(&visit).expect("it is connected");
                assert!(channels.insert(channel), "twice: {event}");
            }
            "unsubscribed" => {
                let (_, channels) = self.visits.get_mut(&visit).expect("it is connected");
                assert!(channels.remove(&channel), "twice: {event}");
            }
            "channel_occupied" => assert!(self.occupied.insert(channel), "twice: {event}"),
            "channel_vacated" => assert!(self.occupied.remove(&channel), "twice: {event}"),
            "cache_miss" => {}
            other => panic!("{other}"),
        }
        self.seen.push(event.clone());
        self.changed.notify_all();
        true
    }

    /// What ends has lasted since it was told to have begun, to the millisecond.
    fn check_duration(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let time = event["time"].as_u64().unwrap();
        let is_end = match &*text("type") {
            "connected" | "subscribed" | "channel_occupied" => false,
            "disconnected" | "unsubscribed" | "channel_vacated" => true,
            _ => return assert_eq!(event["duration"], Value::Null),
        };
        let subject = (text("visit"), text("channel"));
        if !is_end {
            assert_eq!(event["duration"], Value::Null);
            self.began.insert(subject, time);
        } else if let Some(began) = self.began.remove(&subject) {
            assert_eq!(event["duration"], time.saturating_sub(began), "{event}");
        }
    }

    /// Who is connected and in which channels, by user; and which channels are in use.
    pub(crate) fn truth(&self) -> (Vec<(String, BTreeSet<String>)>, BTreeSet<String>) {
        let mut visits: Vec<_> = self.visits.values().cloned().collect();
        visits.sort();
        (visits, self.occupied.clone())
    }

    /// Believes of a channel that nobody is there.
    pub(crate) fn forget_channel(&mut self, channel: &str) {
        self.occupied.remove(channel);
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        let events = self.events.iter();
        events.filter(|event| event["type"] == kind).count()
    }
}

/// It listens until the process ends.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) book: Arc<Mutex<Book>>,
    /// In how many of a hundred cases something goes wrong.
    pub(crate) trouble: Arc<AtomicU64>,
    /// Whom it believes; others are answered with 401, and counted.
    pub(crate) secret: Arc<Mutex<String>>,
    pub(crate) mistrusted: Arc<AtomicU64>,
    /// What came, whatever became of it: the head, and how many events and bytes.
    pub(crate) batches: Arc<Mutex<Vec<(String, usize, usize)>>>,
    /// The names of those who told it anything.
    pub(crate) nodes: Arc<Mutex<BTreeSet<String>>>,
    /// An event with this in it is refused, if it isn't empty.
    pub(crate) refused: Arc<Mutex<String>>,
    /// One of so many events is refused whenever it comes; none where this is 0.
    pub(crate) refuses: Arc<AtomicU64>,
}

impl Receiver {
    pub(crate) fn start(seed: u64) -> Self {
        Self::with_book(seed, Arc::default())
    }

    /// One that writes into the book of another, as two servers of one application do.
    pub(crate) fn with_book(seed: u64, book: Arc<Mutex<Book>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            url: format!("http://{}/events", listener.local_addr().unwrap()),
            book,
            trouble: Arc::default(),
            secret: Arc::new(Mutex::new(SECRET.into())),
            mistrusted: Arc::default(),
            nodes: Arc::default(),
            batches: Arc::default(),
            refused: Arc::default(),
            refuses: Arc::default(),
        };
        let its = receiver.clone();
        thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming()) {
                let Ok(stream) = stream else { continue };
                let (its, random) = (its.clone(), Random(seed ^ number << 32));
                thread::spawn(move || serve(stream, &its, random));
            }
        });
        receiver
    }

    /// Whether it would never have this event.
    fn refuses(&self, event: &Value) -> bool {
        let refused = self.refused.lock().unwrap();
        let of_so_many = self.refuses.load(Ordering::SeqCst);
        let id = event["id"].as_str().unwrap().bytes();
        let sum = id.fold(0, |sum: u64, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        !refused.is_empty() && event.to_string().contains(&*refused)
            || of_so_many > 0 && Random(sum).below(of_so_many) == 0
    }
}

fn serve(mut stream: TcpStream, receiver: &Receiver, mut random: Random) {
    let Receiver { book, trouble, .. } = receiver;
    while let Some((head, body)) = read(&mut stream) {
        let secret = receiver.secret.lock().unwrap().clone();
        if !is_signed(&head, &body, &secret) {
            receiver.mistrusted.fetch_add(1, Ordering::SeqCst);
            if answer(&mut stream, "401 Unauthorized").is_none() {
                return;
            }
            continue;
        }
        let body_len = body.len();
        let body: Value = serde_json::from_slice(&body).expect("a batch is JSON");
        let count = body["events"].as_array().expect("a list of events").len();
        let batch = (head.clone(), count, body_len);
        receiver.batches.lock().unwrap().push(batch);
        let node = body["node"].as_str().expect("a name").to_owned();
        receiver.nodes.lock().unwrap().insert(node);
        let goes_wrong = random.below(100) < trouble.load(Ordering::SeqCst);
        let kind = if goes_wrong { random.below(5) } else { 5 };
        let events = body["events"].as_array().expect("a list of events");
        if kind >= 2 && events.iter().any(|event| receiver.refuses(event)) {
            if let [event] = &events[..] {
                book.lock().unwrap().refuse(event);
            }
            if answer(&mut stream, "422 Unprocessable Content").is_none() {
                return;
            }
            continue;
        }
        // Before, and after it has taken note: then the same comes again.
        if kind >= 2 {
            let mut book = book.lock().unwrap();
            for event in body["events"].as_array().expect("a list of events") {
                book.enter(event);
            }
        }
        match kind {
            0 | 2 => {
                if answer(&mut stream, "500 Internal Server Error").is_none() {
                    return;
                }
            }
            // The connection breaks.
            1 | 3 => return,
            // No answer, until the server has had enough.
            4 => {
                let _ = stream.read(&mut [0]);
                return;
            }
            _ => {
                if answer(&mut stream, "200 OK").is_none() {
                    return;
                }
            }
        }
    }
}

fn answer(stream: &mut TcpStream, status: &str) -> Option<()> {
    // In one piece: the rest of several would wait until the first is acknowledged.
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()
}

/// A request; `None` when there is none any more, or half of one.
fn read(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec())
        .unwrap()
        .to_lowercase();
    let length: usize = field(&head, "content-length")?.parse().unwrap();
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => body.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
    Some((head, body))
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// As `docs/events.md` has it.
fn is_signed(head: &str, body: &[u8], secret: &str) -> bool {
    assert_eq!(field(head, "tautline-event"), Some("events"));
    let signature = field(head, "tautline-signature").expect("it is signed");
    let (time, codes) = signature.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let mut signed = format!("{time}.events.").into_bytes();
    signed.extend_from_slice(body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let expected = hmac::sign(&key, &signed);
    let expected: String = expected
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    codes.split(",v1=").any(|code| code == expected)
}
