//! What dead letters do to the order of the others, and theirs when they come again.

use serde_json::Value;

use super::process::wait_until;
use super::told::Told;

/// What was taken of a key: what it is, and where.
fn of_key(events: &[Value], key: &str) -> Vec<String> {
    let events = events.iter().filter(|event| event["key"] == key);
    let text = |event: &Value| {
        let channel = event["channel"].as_str().unwrap_or_default();
        format!("{} {channel}", event["type"].as_str().unwrap())
    };
    events.map(text).collect()
}

#[test]
fn a_dead_letter_holds_up_no_event_of_its_key_and_changes_their_order_not() {
    let told = Told::start(51, "dead-order", "");
    *told.receiver.refused.lock().unwrap() = "room:bad".into();
    let mut ann = told.client(
        "ann",
        &["room:1", "room:bad", "room:2", "room:bad", "room:1"],
    );
    ann.toggle("room:bad").unwrap();
    ann.toggle("room:3").unwrap();
    drop(ann);
    wait_until("she is told gone", || {
        (told.count("disconnected") == 1).then_some(())
    });
    let refused = {
        let book = told.receiver.book.lock().unwrap();
        let taken = of_key(&book.events, "user:ann");
        // What is ended by her going is in any order.
        assert_eq!(
            taken[..5],
            [
                "connected ",
                "subscribed room:1",
                "subscribed room:2",
                "unsubscribed room:1",
                "subscribed room:3"
            ]
        );
        assert_eq!(taken.last().unwrap(), "disconnected ");
        let is_one = |event: &Value| event.to_string().contains("room:bad");
        assert!(!book.events.iter().any(is_one));
        let refused = book.seen.iter().filter(|event| is_one(event));
        refused.cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        of_key(&refused, "user:ann"),
        [
            "subscribed room:bad",
            "unsubscribed room:bad",
            "subscribed room:bad",
            "unsubscribed room:bad"
        ]
    );
    wait_until("so is the channel's emptiness", || {
        let book = told.receiver.book.lock().unwrap();
        (book.truth() == super::Truth::default()).then_some(())
    });
    let refused = told.receiver.book.lock().unwrap().dead.clone();
    told.receiver.refused.lock().unwrap().clear();
    let handle = told.node.handle();
    let dead = wait_until("all are dead letters", || {
        let dead = told.runtime.block_on(handle.dead_events(100)).unwrap();
        (dead.len() == refused.len()).then_some(dead)
    });
    // The oldest first, here and when they come again.
    let seqs = |all: Vec<u64>| assert!(all.is_sorted(), "{all:?}");
    seqs(dead.iter().map(|letter| letter.event.seq).collect());
    let count = told
        .runtime
        .block_on(handle.redeliver_events(tautline::DeadEvents::All));
    assert_eq!(count.unwrap(), refused.len());
    wait_until("they come again", || {
        let book = told.receiver.book.lock().unwrap();
        book.dead.is_empty().then_some(())
    });
    let book = told.receiver.book.lock().unwrap();
    let again = &book.events[book.events.len() - refused.len()..];
    assert!(again.iter().all(|event| event["redelivered"] == true));
    seqs(
        again
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect(),
    );
}

/// A backend that is away for longer than events are tried costs those that are as old, and not those that have only
/// just happened.
#[test]
fn each_event_is_tried_for_as_long_as_the_options_say() {
    let told = Told::start(
        52,
        "retry-for",
        "kinds = [\"connected\"]\nretry_for = \"1s\"\n",
    );
    let secret = std::mem::take(&mut *told.receiver.secret.lock().unwrap());
    let dead = |count: usize| {
        wait_until("so many are dead letters", || {
            let dead = told.node.handle().dead_events(10);
            let dead = told.runtime.block_on(dead).unwrap();
            (dead.len() == count).then_some(dead)
        })
    };
    let mut clients = vec![told.client("ann", &[])];
    dead(1);
    clients.push(told.client("bob", &[]));
    let letters = dead(2);
    for (letter, user) in letters.iter().zip(["ann", "bob"]) {
        assert_eq!(letter.event.user.as_deref(), Some(user));
        assert!(letter.failed >= letter.event.time + 1000, "{letter:?}");
    }
    // Nothing of that is left for those who come when it is back.
    *told.receiver.secret.lock().unwrap() = secret;
    clients.push(told.client("cid", &[]));
    wait_until("the last is told", || {
        (told.count("connected") == 1).then_some(())
    });
    assert_eq!(dead(2), letters);
}
