//! Events to the application's backend: a whole server which is killed and started again, a backend that fails,
//! and what it knows in the end beside the truth.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../node/client.rs"]
#[allow(dead_code, reason = "the node's tests use all of it")]
mod client;
mod dead;
#[path = "../support/directory.rs"]
mod directory;
mod ends;
#[cfg(target_os = "linux")]
mod full;
mod handler;
mod known;
mod options;
mod order;
#[path = "../support/process.rs"]
mod process;
mod receiver;
mod reload;
mod storm;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use directory::Directory;
use process::{Server, Wait, wait_until};
use receiver::{Receiver, SECRET};
use tautline::{Config, DeadEvents, Node};

fn config(receiver: &Receiver, directory: &Directory, more: &str) -> String {
    format!(
        "node.workers = 2\n\
         client.user_id_http_header = \"X-User-Id\"\n\
         client.allow_anonymous_connect_without_token = true\n\
         channel.without_namespace.allow_subscribe_for_client = true\n\
         channel.without_namespace.allow_subscribe_for_anonymous = true\n\
         [events]\n\
         enabled = true\n\
         endpoint = \"{}\"\n\
         directory = \"{}\"\n\
         hmac_secret_key = \"{SECRET}\"\n\
         batch_time = \"10ms\"\n\
         retry_min = \"5ms\"\n\
         retry_max = \"40ms\"\n\
         timeout = \"300ms\"\n\
         {more}",
        receiver.url,
        directory.path().display(),
    )
}

/// The configuration, as [`Server::serve`] puts a table before it.
fn serve(name: &str, receiver: &Receiver, directory: &Directory, more: &str) -> Server {
    let config = config(receiver, directory, more);
    Server::serve(&format!("events-{name}"), &tables(&config))
}

/// Dotted keys before the first table belong to the table before it: they get their own.
fn tables(config: &str) -> String {
    let (dotted, rest) = config.split_once("[events]").unwrap();
    let mut text = String::new();
    for line in dotted.lines() {
        let (path, value) = line.split_once(" = ").unwrap();
        let (table, key) = path.rsplit_once('.').unwrap();
        let table = format!("[{table}]\n");
        match text.split_once(&table) {
            Some((before, after)) => text = format!("{before}{table}{key} = {value}\n{after}"),
            None => text.push_str(&format!("{table}{key} = {value}\n")),
        }
    }
    format!("{text}[events]{rest}")
}

/// A client, as plain as can be. It goes when dropped.
struct Client {
    stream: TcpStream,
    next: u32,
    user: String,
    channels: BTreeSet<String>,
}

impl Client {
    fn connect(mut stream: TcpStream, user: &str) -> Option<Self> {
        let of_user = match user {
            "" => String::new(),
            user => format!("X-User-Id: {user}\r\n"),
        };
        write!(
            stream,
            "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{of_user}\r\n"
        )
        .ok()?;
        let mut client = Self {
            stream,
            next: 0,
            user: user.to_owned(),
            channels: BTreeSet::new(),
        };
        client.read_until("\r\n\r\n")?;
        client.tell("\"connect\":{}", "\"connect\":{\"client\"")?;
        Some(client)
    }

    fn tell(&mut self, command: &str, answer: &str) -> Option<()> {
        self.next += 1;
        let text = format!("{{\"id\":{},{command}}}", self.next);
        assert!(text.len() < 126);
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.stream.write_all(&frame).ok()?;
        self.read_until(answer)
    }

    fn toggle(&mut self, channel: &str) -> Option<()> {
        let quoted = format!("{{\"channel\":\"{channel}\"}}");
        if self.channels.remove(channel) {
            self.tell(&format!("\"unsubscribe\":{quoted}"), "\"unsubscribe\":")
        } else {
            self.channels.insert(channel.to_owned());
            self.tell(&format!("\"subscribe\":{quoted}"), "\"subscribe\":")
        }
    }

    fn read_until(&mut self, mark: &str) -> Option<()> {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 1024]);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
                _ => return None,
            }
            if String::from_utf8_lossy(&bytes).contains(mark) {
                return Some(());
            }
        }
    }
}

type Truth = (Vec<(String, BTreeSet<String>)>, BTreeSet<String>);

fn truth(clients: &BTreeMap<u32, Client>) -> Truth {
    let mut visits: Vec<_> = clients
        .values()
        .map(|client| (client.user.clone(), client.channels.clone()))
        .collect();
    visits.sort();
    let channels = clients.values().flat_map(|client| client.channels.clone());
    (visits, channels.collect())
}

fn wait_for(receiver: &Receiver, what: &str, truth: &Truth) {
    let mut book = receiver.book.lock().unwrap();
    let (changed, wait) = (Arc::clone(&book.changed), Wait::new(what));
    while book.truth() != *truth {
        wait.go_on();
        (book, _) = changed.wait_timeout(book, wait.left()).unwrap();
    }
}

#[test]
fn a_server_that_is_stopped_tells_all_before_it_ends() {
    let (receiver, directory) = (Receiver::start(7), Directory::new("stopped"));
    let mut server = serve("stopped", &receiver, &directory, "");
    let mut clients = Vec::new();
    for user in ["ann", "bob"] {
        let mut client = Client::connect(server.connect(), user).unwrap();
        client.toggle("a").unwrap();
        clients.push(client);
    }
    server.signal("-TERM");
    for mut client in clients {
        client.read_until("shutdown").unwrap();
    }
    assert!(server.wait().success());
    let book = receiver.book.lock().unwrap();
    assert_eq!(book.truth(), Truth::default());
    assert_eq!(book.count("disconnected"), 2);
    let gone = book
        .events
        .iter()
        .find(|event| event["type"] == "disconnected");
    assert_eq!(gone.unwrap()["code"], 3001, "{gone:?}");
    assert!(gone.unwrap()["duration"].is_u64());
}

#[test]
fn users_who_come_back_after_a_restart_were_never_away() {
    let (receiver, directory) = (Receiver::start(8), Directory::new("kept"));
    let more = "keep_on_shutdown = true\ndebounce = \"10ms\"\nrestart_debounce = \"1m\"\n";
    let mut server = serve("kept", &receiver, &directory, more);
    for killed in [false, true, false] {
        let mut client = Client::connect(server.connect(), "ann").unwrap();
        client.toggle("a").unwrap();
        let expected = (
            vec![("ann".to_owned(), ["a".to_owned()].into())],
            ["a".to_owned()].into(),
        );
        wait_for(&receiver, "the backend knows of her", &expected);
        if killed {
            server.process.kill().unwrap();
            server.process.wait().unwrap();
        } else {
            server.signal("-TERM");
            // Who goes before the server hears of its end has gone.
            client.read_until("shutdown").unwrap();
            drop(client);
            assert!(server.wait().success());
        }
        server = serve("kept", &receiver, &directory, more);
    }
    let book = receiver.book.lock().unwrap();
    assert_eq!(book.events.len(), 3, "{:?}", book.events);
}

/// Two servers that were killed and are there again, one after the other: the users of the one with little time have gone, and
/// those of the other are still waited for.
#[test]
fn users_have_the_time_of_the_options_to_come_back_after_a_restart() {
    let ann = (vec![("ann".to_owned(), BTreeSet::new())], BTreeSet::new());
    let restarted = |name: &str, seed: u64, time: &str| {
        let (receiver, directory) = (Receiver::start(seed), Directory::new(name));
        let more = format!("debounce = \"0s\"\nrestart_debounce = \"{time}\"\n");
        let mut server = serve(name, &receiver, &directory, &more);
        let client = Client::connect(server.connect(), "ann").unwrap();
        wait_for(&receiver, "the backend knows of her", &ann);
        server.process.kill().unwrap();
        server.process.wait().unwrap();
        drop(client);
        let server = serve(name, &receiver, &directory, &more);
        (server, receiver, directory)
    };
    let (_server, patient, _directory) = restarted("patient", 10, "1h");
    for (name, seed) in [("hasty", 11), ("hastier", 12)] {
        let (_server, hasty, _directory) = restarted(name, seed, "10ms");
        wait_for(&hasty, "she has gone", &Truth::default());
    }
    assert_eq!(patient.book.lock().unwrap().truth(), ann);
}

#[test]
fn what_the_backend_refuses_is_kept_and_can_be_sent_again() {
    let (receiver, directory) = (Receiver::start(9), Directory::new("refused"));
    let config = config(&receiver, &directory, "debounce = \"0s\"\n");
    let config = format!("http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\n{config}");
    let node = Node::builder(Config::from_toml(&config).unwrap())
        .start()
        .unwrap();
    *receiver.refused.lock().unwrap() = "\"bad\"".into();
    let mut clients = Vec::new();
    for user in ["ann", "bad", "bob"] {
        let stream = TcpStream::connect(node.address().unwrap()).unwrap();
        clients.push(Client::connect(stream, user).unwrap());
    }
    wait_until("the others are told", || {
        (receiver.book.lock().unwrap().count("connected") == 2).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = node.handle();
    let dead = wait_until("it is a dead letter", || {
        let dead = runtime.block_on(handle.dead_events(10)).unwrap();
        (!dead.is_empty()).then_some(dead)
    });
    assert!(dead[0].error.contains("422") && dead[0].to_json().contains("\"bad\""));
    // Where a server runs already, there can be no second one.
    let second = Node::builder(Config::from_toml(&config).unwrap()).start();
    let error = second.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    receiver.refused.lock().unwrap().clear();
    // Whoever looks for some and finds none means none.
    let none = || {
        DeadEvents::these(
            dead.iter()
                .map(tautline::DeadEvent::id)
                .filter(|id| id.is_empty()),
        )
    };
    assert_eq!(
        runtime.block_on(handle.redeliver_events(none())).unwrap(),
        0
    );
    assert_eq!(
        runtime.block_on(handle.drop_dead_events(none())).unwrap(),
        0
    );
    assert_eq!(runtime.block_on(handle.dead_events(10)).unwrap(), dead);
    let this = DeadEvents::these([dead[0].id()]);
    assert_eq!(runtime.block_on(handle.redeliver_events(this)).unwrap(), 1);
    wait_until("it is told, too", || {
        (receiver.book.lock().unwrap().count("connected") == 3).then_some(())
    });
    let book = receiver.book.lock().unwrap();
    assert_eq!(book.events.last().unwrap()["redelivered"], true);
    assert!(runtime.block_on(handle.dead_events(10)).unwrap().is_empty());
    assert_eq!(
        runtime
            .block_on(handle.drop_dead_events(DeadEvents::All))
            .unwrap(),
        0
    );
}
