//! Events in code, in the place of a backend over HTTP.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use tautline::{Config, Event, EventHandler, Node, NodeHandle, NotTaken};

use super::process::wait_until;
use super::receiver::Book;
use super::{Client, Directory};

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Later,
    Panic,
}

#[derive(Clone, Default)]
struct Handler {
    book: Arc<Mutex<Book>>,
    /// What goes wrong first.
    fates: Arc<Mutex<VecDeque<Fate>>>,
    /// Whose events are never taken.
    bad: &'static str,
}

impl EventHandler for Handler {
    async fn on_events(&self, events: Vec<Event>) -> Result<(), NotTaken> {
        let fate = self.fates.lock().unwrap().pop_front();
        match fate {
            Some(Fate::Later) => return Err(NotTaken::Later("busy".into())),
            Some(Fate::Panic) => panic!("as it was asked to"),
            None => {}
        }
        let is_bad = |event: &Event| event.user.as_deref() == Some(self.bad);
        if !self.bad.is_empty() && events.iter().any(is_bad) {
            return Err(NotTaken::Never(format!("nothing of {}", self.bad)));
        }
        let mut book = self.book.lock().unwrap();
        for event in events {
            book.enter(&serde_json::to_value(event).unwrap());
        }
        Ok(())
    }
}

fn config(directory: &Directory, more: &str) -> Config {
    let directory = directory.path().display();
    let text = format!(
        "http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\nnode.workers = 2\n\
         client.user_id_http_header = \"X-User-Id\"\n\
         client.allow_anonymous_connect_without_token = true\n\
         [events]\nenabled = true\ndirectory = \"{directory}\"\nbatch_time = \"1ms\"\n\
         debounce = \"1m\"\nretry_min = \"2ms\"\nretry_max = \"5ms\"\n{more}"
    );
    Config::from_toml(&text).unwrap()
}

fn connect(node: &Node, user: &str) -> Client {
    let stream = TcpStream::connect(node.address().unwrap()).unwrap();
    Client::connect(stream, user).unwrap()
}

fn dead(handle: &NodeHandle) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(handle.dead_events(10)).unwrap().len()
}

#[test]
fn events_are_told_in_code_again_and_again_until_they_are_taken() {
    let directory = Directory::new("handler");
    let handler = Handler::default();
    *handler.fates.lock().unwrap() = [Fate::Later, Fate::Panic, Fate::Later].into();
    let node = Node::builder(config(&directory, ""))
        .event_handler(handler.clone())
        .start()
        .unwrap();
    let _clients = [connect(&node, "ann"), connect(&node, "bob")];
    wait_until("both are told", || {
        (handler.book.lock().unwrap().count("connected") == 2).then_some(())
    });
    assert!(handler.fates.lock().unwrap().is_empty());
    assert_eq!(dead(node.handle()), 0);
}

#[test]
fn what_code_never_takes_becomes_a_dead_letter_and_the_rest_is_told() {
    let directory = Directory::new("handler-never");
    let handler = Handler {
        bad: "mallory",
        ..Handler::default()
    };
    let node = Node::builder(config(&directory, ""))
        .event_handler(handler.clone())
        .start()
        .unwrap();
    let _clients = ["ann", "mallory", "bob"].map(|user| connect(&node, user));
    wait_until("the others are told", || {
        (handler.book.lock().unwrap().count("connected") == 2).then_some(())
    });
    wait_until("it is a dead letter", || {
        (dead(node.handle()) == 1).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let letters = runtime.block_on(node.handle().dead_events(10)).unwrap();
    assert_eq!(letters[0].event.user.as_deref(), Some("mallory"));
    assert_eq!(letters[0].error, "nothing of mallory");
}

#[test]
fn what_was_not_taken_before_a_stop_is_told_by_the_next_start() {
    let directory = Directory::new("handler-restart");
    let handler = Handler::default();
    *handler.fates.lock().unwrap() = [Fate::Later; 100_000].into();
    let more =
        "keep_on_shutdown = true\nrestart_debounce = \"1m\"\n[shutdown]\ntimeout = \"300ms\"\n";
    let node = Node::builder(config(&directory, more))
        .event_handler(handler.clone())
        .start()
        .unwrap();
    let client = connect(&node, "ann");
    wait_until("it was tried", || {
        (handler.fates.lock().unwrap().len() < 100_000).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(node.shutdown());
    drop(client);
    assert_eq!(handler.book.lock().unwrap().count("connected"), 0);
    // The thread of the first one ends when it has heard of it.
    let next = Handler::default();
    let node = wait_until("the directory is free", || {
        Node::builder(config(&directory, more))
            .event_handler(next.clone())
            .start()
            .ok()
    });
    wait_until("she is told", || {
        (next.book.lock().unwrap().count("connected") == 1).then_some(())
    });
    drop(node);
}

#[test]
fn a_handler_and_the_options_have_to_fit() {
    let directory = Directory::new("handler-fit");
    let start = |config: Config, handler: bool| {
        let builder = Node::builder(config).without_listener();
        let builder = if handler {
            builder.event_handler(Handler::default())
        } else {
            builder
        };
        builder
            .start()
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let off = || Config::from_toml("").unwrap();
    assert!(start(off(), true).contains("events.enabled is not set"));
    assert!(
        start(config(&directory, ""), false)
            .contains("neither events.endpoint nor an event handler")
    );
    let both = || config(&directory, "endpoint = \"http://127.0.0.1:1\"\n");
    assert!(start(both(), true).contains("leave one of them out"));
    assert_eq!(start(config(&directory, ""), true), "");
}
