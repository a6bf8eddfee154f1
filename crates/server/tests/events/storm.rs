//! Random clients, random trouble, random kills; and what the backend was told beside what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::client::{Client, Frame, upgrade_request};
use crate::known::{Known, Span};
use crate::process::{Server, wait_until};
use crate::receiver::{Random, Receiver};
use crate::{Directory, Truth, serve};

/// Somebody who is there.
struct Peer {
    id: String,
    user: String,
    channels: BTreeSet<String>,
    socket: Client,
    command: u64,
}

impl Peer {
    fn connect(server: &Server, user: &str, known: &mut Known) -> Self {
        let (came, (socket, reply)) = Span::of(|| {
            let mut stream = server.connect();
            let of_user = match user {
                "" => String::new(),
                user => format!("X-User-Id: {user}\r\n"),
            };
            write!(stream, "{}", upgrade_request("127.0.0.1", &of_user)).unwrap();
            let mut socket = Client::over(stream);
            assert!(socket.read_head().starts_with("HTTP/1.1 101 "));
            socket.send(r#"{"id":1,"connect":{}}"#);
            let reply: Value = serde_json::from_str(&socket.text()).unwrap();
            (socket, reply)
        });
        let id = reply["connect"]["client"].as_str().unwrap().to_owned();
        known.came(&id, user, came);
        Self {
            id,
            user: user.into(),
            channels: BTreeSet::new(),
            socket,
            command: 1,
        }
    }

    /// The first message that has something at that place.
    fn hear(&mut self, pointer: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message: Value = serde_json::from_str(&self.socket.text()).unwrap();
            if message.pointer(pointer).is_some_and(&is_it) {
                return message;
            }
        }
    }

    fn ask(&mut self, method: &str, request: &Value) -> Value {
        self.command += 1;
        let id = self.command;
        self.socket
            .send(&json!({"id": id, method: request}).to_string());
        let reply = self.hear("/id", |other| *other == id);
        assert!(reply[method].is_object(), "{reply}");
        reply
    }

    fn toggle(&mut self, channel: &str, known: &mut Known) {
        let request = json!({"channel": channel});
        if self.channels.remove(channel) {
            let (at, _) = Span::of(|| self.ask("unsubscribe", &request));
            known.unsubscribed(&self.id, channel, 0, at);
        } else {
            let (at, _) = Span::of(|| self.ask("subscribe", &request));
            self.channels.insert(channel.into());
            known.subscribed(&self.id, channel, at);
        }
    }

    /// Wants the newest publication of a channel, of which there may be none.
    fn look(&mut self, channel: &str, has_one: bool, known: &mut Known) {
        if self.channels.contains(channel) {
            return self.toggle(channel, known);
        }
        let request = json!({"channel": channel, "recover": true});
        let (at, reply) = Span::of(|| self.ask("subscribe", &request));
        assert_eq!(reply["subscribe"]["recovered"] == true, has_one, "{reply}");
        self.channels.insert(channel.into());
        known.subscribed(&self.id, channel, at);
        if !has_one {
            known.missed(&self.id, channel, at);
        }
    }

    /// An operator ends one of its subscriptions.
    fn take_out(&mut self, server: &Server, channel: &str, known: &mut Known) {
        if !self.channels.remove(channel) {
            return;
        }
        let request = json!({"user": self.user, "client": self.id, "channel": channel});
        let (at, _) = Span::of(|| {
            server.api("unsubscribe", &request.to_string());
            self.hear("/push/unsubscribe", |_| true)
        });
        known.unsubscribed(&self.id, channel, 2000, at);
    }

    /// It goes, in one way or another.
    fn go(mut self, server: &Server, random: &mut Random, known: &mut Known) {
        let who = json!({"user": self.user, "client": self.id});
        let with = |name: &str, value: Value| {
            let mut request = who.clone();
            request[name] = value;
            request.to_string()
        };
        let code = 4000 + random.below(1000) as u32;
        let reason = ["go away", "not \"you\"", "späti"][random.below(3) as usize];
        let (method, request, expected) = match random.below(6) {
            // With a close frame, or with nothing.
            0 => {
                known.goes(&self.id);
                let close = crate::client::masked(0x8, &1000_u16.to_be_bytes());
                self.socket.stream.write_all(&close).unwrap();
                return;
            }
            1 => return known.goes(&self.id),
            2 => {
                let request = with("disconnect", json!({"code": code, "reason": reason}));
                ("disconnect", request, (code, reason))
            }
            3 => ("disconnect", who.to_string(), (3503, "force disconnect")),
            4 => (
                "refresh",
                with("expired", json!(true)),
                (3005, "connection expired"),
            ),
            // What nobody understands.
            _ => ("", "{".to_owned(), (3501, "bad request")),
        };
        let (at, end) = Span::of(|| {
            if method.is_empty() {
                self.socket.send(&request);
            } else {
                server.api(method, &request);
            }
            loop {
                if let Frame::Close(code, reason) = self.socket.frame() {
                    return (u32::from(code), reason);
                }
            }
        });
        assert_eq!((end.0, &*end.1), expected);
        known.ended(&self.id, end.0, &end.1, at);
    }
}

fn truth(peers: &BTreeMap<u32, Peer>) -> Truth {
    let visits = peers.values();
    let mut visits: Vec<_> = visits
        .map(|peer| (peer.user.clone(), peer.channels.clone()))
        .collect();
    visits.sort();
    let channels = peers.values().flat_map(|peer| peer.channels.clone());
    (visits, channels.collect())
}

/// Waits until the backend knows what is, and what nobody else will find out. What it was told on the way has to be so.
fn comes_to_know(receiver: &Receiver, what: &str, truth: &Truth, known: &Known) {
    wait_until(what, || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let book = receiver.book.lock().unwrap();
        let is_known = book.truth() == *truth && known.knows_misses(&book.seen, DEBOUNCE);
        is_known.then_some(())
    });
    known.check(&receiver.book.lock().unwrap().seen);
}

/// What the server has for dead letters.
fn dead_letters(server: &Server) -> BTreeMap<String, Value> {
    let (mut letters, mut request) = (BTreeMap::new(), json!({"limit": 100}));
    loop {
        let page = server.api("dead_events", &request.to_string());
        let page: Value = serde_json::from_str(&page).unwrap();
        for letter in page["result"]["events"].as_array().unwrap() {
            let event = letter["event"].clone();
            letters.insert(event["id"].as_str().unwrap().to_owned(), event);
        }
        match &page["result"]["next"] {
            Value::Null => return letters,
            next => request["cursor"] = next.clone(),
        }
    }
}

fn storm(seed: u64) {
    let (receiver, mut random) = (Receiver::start(seed), Random(seed));
    let refused = [0, 3, 9, 2][seed as usize % 4];
    receiver.refuses.store(refused, Ordering::SeqCst);
    let directory = Directory::new(&format!("storm-{seed}"));
    let more = format!(
        "debounce = \"{DEBOUNCE}ms\"\nrestart_debounce = \"200ms\"\nbatch_size = 5\n\
         [http_api]\nkey = \"dev\"\n\
         [[channel.namespaces]]\nname = \"newest\"\nhistory_size = 1\nhistory_ttl = \"1m\"\n\
         force_recovery = true\nforce_recovery_mode = \"cache\"\n\
         allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n"
    );
    let name = format!("storm-{seed}");
    let mut server = serve(&name, &receiver, &directory, &more);
    let (mut peers, mut known) = (BTreeMap::new(), Known::default());
    let mut next = 0;
    for _ in 0..6 {
        receiver.trouble.store(random.below(100), Ordering::SeqCst);
        // What is published is gone with the process.
        let mut published = BTreeSet::new();
        for _ in 0..random.below(60) {
            let ids: Vec<u32> = peers.keys().copied().collect();
            let any = ids.get(random.below(ids.len() as u64 + 1) as usize);
            let channel = ["a", "b", "c"][random.below(3) as usize];
            let cached = ["newest:1", "newest:2", "newest:3"][random.below(3) as usize];
            match (random.below(12), any) {
                (0..=3, _) => {
                    let user = ["ann", "bob", "cid", ""][random.below(4) as usize];
                    next += 1;
                    peers.insert(next, Peer::connect(&server, user, &mut known));
                }
                (4..=5, Some(id)) => {
                    let peer: Peer = peers.remove(id).unwrap();
                    peer.go(&server, &mut random, &mut known);
                }
                (6, Some(id)) => {
                    let peer = peers.get_mut(id).unwrap();
                    peer.take_out(&server, channel, &mut known);
                }
                (7..=8, Some(id)) => {
                    let has_one = published.contains(cached);
                    let peer = peers.get_mut(id).unwrap();
                    peer.look(cached, has_one, &mut known);
                }
                (9, _) if random.below(4) == 0 => {
                    server.api(
                        "publish",
                        &json!({"channel": cached, "data": 1}).to_string(),
                    );
                    published.insert(cached);
                }
                (_, Some(id)) => peers.get_mut(id).unwrap().toggle(channel, &mut known),
                _ => {}
            }
        }
        // Sometimes when all is told, sometimes in the middle of it.
        if random.below(3) == 0 {
            receiver.trouble.store(0, Ordering::SeqCst);
            let what = format!("the backend knows (seed {seed})");
            comes_to_know(&receiver, &what, &truth(&peers), &known);
        }
        let (outage, ()) = Span::of(|| {
            server.process.kill().unwrap();
            server.process.wait().unwrap();
            peers.clear();
            server = serve(&name, &receiver, &directory, &more);
        });
        known.killed(outage);
    }
    for user in ["ann", "dan", ""] {
        let mut peer = Peer::connect(&server, user, &mut known);
        peer.toggle("b", &mut known);
        peer.look("newest:1", false, &mut known);
        next += 1;
        peers.insert(next, peer);
    }
    receiver.trouble.store(0, Ordering::SeqCst);
    let what = format!("the backend knows the truth (seed {seed})");
    comes_to_know(&receiver, &what, &truth(&peers), &known);
    for (_, peer) in std::mem::take(&mut peers) {
        peer.go(&server, &mut random, &mut known);
    }
    let what = format!("the backend knows that all are gone (seed {seed})");
    comes_to_know(&receiver, &what, &Truth::default(), &known);
    all_dead_letters_come_again(&server, &receiver, seed);
}

/// What was refused was kept, all of it and nothing else, and comes when it is sent again.
fn all_dead_letters_come_again(server: &Server, receiver: &Receiver, seed: u64) {
    let refused = receiver.book.lock().unwrap().dead.clone();
    wait_until(&format!("what was refused is kept (seed {seed})"), || {
        (dead_letters(server) == refused).then_some(())
    });
    let events = receiver.book.lock().unwrap().seen.len();
    assert!(events > 20, "seed {seed}");
    assert_eq!(
        refused.is_empty(),
        receiver.refuses.load(Ordering::SeqCst) == 0,
        "of {events} (seed {seed})"
    );
    receiver.refuses.store(0, Ordering::SeqCst);
    let again = server.api("dead_events_retry", r#"{"all":true}"#);
    let count = json!({"result": {"count": refused.len()}});
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), count);
    wait_until(&format!("they come again (seed {seed})"), || {
        receiver.book.lock().unwrap().dead.is_empty().then_some(())
    });
    let book = receiver.book.lock().unwrap();
    assert_eq!(book.events.len(), events, "each once (seed {seed})");
    assert!(dead_letters(server).is_empty());
}

#[test]
fn the_backend_knows_the_truth_in_the_end_whatever_fails_and_whoever_is_killed() {
    for seed in 1..=8 {
        storm(seed);
    }
}

/// Once in a while, for each channel.
#[test]
fn a_channel_that_still_has_nothing_is_told_of_again() {
    let (receiver, directory) = (Receiver::start(9), Directory::new("missed"));
    let more = "debounce = \"1ms\"\n[[channel.namespaces]]\nname = \"newest\"\n\
        history_size = 1\nhistory_ttl = \"1m\"\nforce_recovery = true\n\
        force_recovery_mode = \"cache\"\nallow_subscribe_for_client = true\n";
    let server = serve("missed", &receiver, &directory, more);
    let mut known = Known::default();
    let mut peers = ["ann", "bob"].map(|user| Peer::connect(&server, user, &mut known));
    for channel in ["newest:1", "newest:2"] {
        wait_until("it is told several times", || {
            for peer in &mut peers {
                peer.look(channel, false, &mut known);
            }
            let book = receiver.book.lock().unwrap();
            let told = book
                .seen
                .iter()
                .filter(|event| event["type"] == "cache_miss" && event["channel"] == channel);
            (told.count() > 3).then_some(())
        });
    }
    known.check(&receiver.book.lock().unwrap().seen);
}

/// In milliseconds: how long who goes is waited for.
const DEBOUNCE: u64 = 50;
