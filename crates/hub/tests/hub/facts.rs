//! What a witness is told.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;
use tautline_hub::Now;
use tautline_hub::config::{ChannelOptions, NamespaceOptions, RecoveryMode};
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::witness::{Fact, Witness};

use crate::support::{Setup, World, channel_options};

#[derive(Clone, Default)]
struct Book(Rc<RefCell<Vec<String>>>);

impl Witness for Book {
    fn note(&mut self, _: Now, fact: Fact<'_>) {
        let text = match fact {
            Fact::Connected {
                client, transport, ..
            } => {
                format!("{} connected by {}", client.user, transport.name)
            }
            Fact::Disconnected { client, disconnect } => {
                format!("{} disconnected {}", client.user, disconnect.code)
            }
            Fact::Subscribed { client, channel } => format!("{} in {channel}", client.user),
            Fact::Unsubscribed {
                client,
                channel,
                code,
            } => format!("{} out of {channel} {code}", client.user),
            Fact::CacheMissed { client, channel } => format!("{} missed {channel}", client.user),
            _ => "something new".into(),
        };
        self.0.borrow_mut().push(text);
    }
}

impl Book {
    fn take(&self) -> Vec<String> {
        self.0.borrow_mut().drain(..).collect()
    }
}

fn world(setup: Setup) -> (World, Book) {
    let (mut world, book) = (World::with(setup), Book::default());
    for worker in &mut world.workers {
        worker.hub.set_witness(Box::new(book.clone()));
    }
    (world, book)
}

#[test]
fn who_comes_and_goes_is_told_in_order() {
    for delays in [None, Some(DelayOptions::default())] {
        let (mut world, book) = world(Setup {
            delays,
            ..Setup::default()
        });
        let client = world.connect_as(0, "ann");
        assert_eq!(book.take(), ["ann connected by test"]);
        for (id, channel) in [(2, "room:a"), (3, "b"), (4, "vault:x")] {
            world.tell(client, json!({"id": id, "subscribe": {"channel": channel}}));
        }
        assert_eq!(book.take(), ["ann in room:a", "ann in b"]);
        world.tell(client, json!({"id": 5, "unsubscribe": {"channel": "b"}}));
        world.tell(client, json!({"id": 6, "unsubscribe": {"channel": "b"}}));
        assert_eq!(book.take(), ["ann out of b 0"]);
        world.drop_connection(client);
        assert_eq!(
            book.take(),
            ["ann out of room:a 1", "ann disconnected 3000"]
        );
    }
}

#[test]
fn who_never_came_in_is_not_told_of() {
    let (mut world, book) = world(Setup {
        delays: Some(DelayOptions::default()),
        ..Setup::default()
    });
    // One goes before it is answered, one is refused, one never says anything.
    let claims = json!({"sub": "ann", "subs": {"room:a": {}}});
    let token = crate::support::sign_claims(&claims);
    let hasty = world.open(0);
    world.tell_only(hasty, json!({"id": 1, "connect": {"token": token}}));
    world.drop_connection(hasty);
    let refused = world.open(0);
    world.tell(refused, json!({"id": 1, "connect": {"token": "wrong"}}));
    world.drop_connection(refused);
    let silent = world.open(0);
    world.drop_connection(silent);
    // A subscription whose client goes before it has begun.
    let client = world.connect_as(0, "bob");
    assert_eq!(book.take(), ["bob connected by test"]);
    world.tell_only(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    world.drop_connection(client);
    world.settle();
    assert_eq!(book.take(), ["bob disconnected 3000"]);
}

#[test]
fn a_cache_that_has_nothing_is_told_of() {
    let cached = NamespaceOptions {
        name: "cached".into(),
        history_size: 1,
        history_ttl: std::time::Duration::from_secs(60),
        force_recovery: true,
        force_recovery_mode: RecoveryMode::Cache,
        ..channel_options().without_namespace
    };
    let (mut world, book) = world(Setup {
        channel: ChannelOptions {
            namespaces: vec![cached],
            ..channel_options()
        },
        ..Setup::default()
    });
    let subscribe = json!({"id": 2, "subscribe": {"channel": "cached:a", "recover": true}});
    let client = world.connect_as(0, "ann");
    world.tell(client, subscribe.clone());
    assert_eq!(
        book.take(),
        [
            "ann connected by test",
            "ann missed cached:a",
            "ann in cached:a"
        ]
    );
    world.tell(
        client,
        json!({"id": 3, "publish": {"channel": "cached:a", "data": 1}}),
    );
    let other = world.connect_as(1, "bob");
    world.tell(other, subscribe);
    assert_eq!(book.take(), ["bob connected by test", "bob in cached:a"]);
}

#[test]
fn a_witness_that_begins_late_is_told_of_all_who_are_there() {
    for delays in [None, Some(DelayOptions::default())] {
        let (mut world, book) = world(Setup {
            delays,
            ..Setup::default()
        });
        let ann = world.connect_as(0, "ann");
        for (id, channel) in [(2, "room:a"), (3, "b"), (4, "vault:x")] {
            world.tell(ann, json!({"id": id, "subscribe": {"channel": channel}}));
        }
        world.tell(ann, json!({"id": 5, "unsubscribe": {"channel": "b"}}));
        let gone = world.connect_as(0, "bob");
        world.drop_connection(gone);
        let silent = world.open(0);
        book.take();
        let mut late = Book::default();
        world.workers[0].hub.recount(Now::default(), &mut late);
        assert_eq!(late.take(), ["ann connected by test", "ann in room:a"]);
        assert!(book.take().is_empty(), "the other hears nothing of it");
        world.drop_connection(silent);
    }
}

#[test]
fn what_has_not_begun_yet_is_not_counted() {
    let (mut world, _) = world(Setup {
        delays: Some(DelayOptions::default()),
        ..Setup::default()
    });
    let client = world.connect_as(0, "ann");
    world.tell_only(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    let claims = json!({"sub": "bob", "subs": {"room:a": {}}});
    let token = crate::support::sign_claims(&claims);
    let coming = world.open(0);
    world.tell_only(coming, json!({"id": 1, "connect": {"token": token}}));
    let mut late = Book::default();
    world.workers[0].hub.recount(Now::default(), &mut late);
    assert_eq!(late.take(), ["ann connected by test"]);
    world.settle();
    world.workers[0].hub.recount(Now::default(), &mut late);
    let mut told = late.take();
    told.sort();
    assert_eq!(
        told,
        [
            "ann connected by test",
            "ann in room:a",
            "bob connected by test",
            "bob in room:a"
        ]
    );
}
