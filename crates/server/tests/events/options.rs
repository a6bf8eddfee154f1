//! Options of events, and what is different when they are set.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tautline::{Config, Node};

use super::process::wait_until;
use super::receiver::Receiver;
use super::told::Told;
use super::{Client, Directory, serve, truth, wait_for};

fn wait_for_count(told: &Told, count: usize) {
    wait_until("so many are told", || {
        (told.count("connected") == count).then_some(())
    });
}

#[test]
fn batches_are_as_large_as_the_options_say_and_wait_as_long() {
    // Nothing but a full batch leaves in the time of a test.
    let options = "kinds = [\"connected\"]\nbatch_size = 2\n";
    let told = Told::start(41, "batches", options);
    let told = told.waiting("1m", &format!("{options}sync_interval = \"500ms\"\n"));
    let sizes = || {
        let batches = told.receiver.batches.lock().unwrap();
        batches
            .iter()
            .map(|(_, count, _)| *count)
            .collect::<Vec<_>>()
    };
    let mut clients = Vec::new();
    for number in 0..5 {
        clients.push(told.client(&format!("user-{number}"), &[]));
    }
    wait_for_count(&told, 4);
    // It waits for longer than what it was written with does, which is longer than it would without the option.
    let syncs = told.metric("tautline_events_syncs_total");
    wait_until("the last is synced", || {
        (told.metric("tautline_events_syncs_total") > syncs).then_some(())
    });
    assert_eq!(sizes(), [2, 2], "and one that waits");
    clients.push(told.client("last", &[]));
    wait_for_count(&told, 6);
    assert_eq!(sizes(), [2, 2, 2]);
}

#[test]
fn batches_have_a_length_in_bytes() {
    let told = Told::start(
        42,
        "bytes",
        "kinds = [\"connected\"]\nbatch_max_size = 1024\n",
    );
    // All of them wait for somebody who believes the signature.
    let secret = std::mem::take(&mut *told.receiver.secret.lock().unwrap());
    let _clients: Vec<_> = (0..20)
        .map(|number| told.client(&format!("user-{number}"), &[]))
        .collect();
    *told.receiver.secret.lock().unwrap() = secret;
    wait_for_count(&told, 20);
    let batches = told.receiver.batches.lock().unwrap();
    assert!(batches.len() >= 4, "{batches:?}");
    // With what is around the events.
    assert!(
        batches.iter().all(|(_, _, bytes)| *bytes < 1024 + 100),
        "{batches:?}"
    );
}

#[test]
fn what_is_given_up_is_kept_in_part() {
    let options =
        "kinds = [\"connected\"]\nretry_for = \"0s\"\ndead_max_events = 2\nbatch_size = 1\n";
    let told = Told::start(43, "given-up", options);
    told.receiver.secret.lock().unwrap().clear();
    let users: Vec<_> = (0..5).map(|number| format!("user-{number}")).collect();
    let _clients: Vec<_> = users.iter().map(|user| told.client(user, &[])).collect();
    let dead = wait_until("the last two are dead letters", || {
        let dead = told
            .runtime
            .block_on(told.node.handle().dead_events(10))
            .unwrap();
        let is_last = dead
            .last()
            .is_some_and(|one| one.event.user.as_ref() == users.last());
        is_last.then_some(dead)
    });
    let of: Vec<_> = dead
        .iter()
        .map(|one| one.event.user.clone().unwrap())
        .collect();
    assert_eq!(of, users[3..]);
}

#[test]
fn header_fields_go_with_each_batch() {
    let told = Told::start(
        44,
        "fields",
        "http.static_headers = {\"X-Tenant\" = \"seven\"}\n",
    );
    let _client = told.client("ann", &[]);
    wait_for_count(&told, 1);
    let batches = told.receiver.batches.lock().unwrap();
    assert!(batches[0].0.contains("x-tenant: seven"), "{batches:?}");
}

#[test]
fn what_was_written_is_synced_as_soon_as_the_options_say() {
    // Not in the time of a test.
    let told = Told::start(45, "synced", "sync_interval = \"1m\"\n");
    let syncs = || told.metric("tautline_events_syncs_total");
    let mut clients = Vec::new();
    for number in 1..=3 {
        clients.push(told.client(&format!("late-{number}"), &[]));
        wait_for_count(&told, number);
    }
    assert_eq!(syncs(), 0);
    // With a word of it, also what was written before is safe; and from then on, what anybody is told is.
    told.set("sync_interval = \"0s\"\n");
    wait_until("it is synced", || (syncs() > 0).then_some(()));
    for number in 4..=6 {
        let before = syncs();
        clients.push(told.client(&format!("safe-{number}"), &[]));
        wait_for_count(&told, number);
        assert!(syncs() > before, "{number} was told before it was safe");
    }
}

/// An endpoint that never answers. How many connections came to it: each attempt has its own.
fn mute_endpoint() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&attempts);
    std::thread::spawn(move || {
        let mut streams = Vec::new();
        for stream in listener.incoming() {
            streams.push(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (url, attempts)
}

/// Two of them, told one after the other: the one with little time is given up and asked again, and the other isn't yet.
#[test]
fn a_backend_has_the_time_of_the_options_to_answer() {
    let told = |name: &str, time: &str| {
        let ((url, attempts), directory) = (mute_endpoint(), Directory::new(name));
        let receiver = Receiver {
            url,
            ..Receiver::start(46)
        };
        let text = Told::config(&receiver, &directory, "");
        let text = text.replace("timeout = \"300ms\"", &format!("timeout = \"{time}\""));
        let node = Node::builder(Config::from_toml(&text).unwrap())
            .start()
            .unwrap();
        let stream = std::net::TcpStream::connect(node.address().unwrap()).unwrap();
        let client = Client::connect(stream, "ann").unwrap();
        (attempts, (node, client, directory))
    };
    let wait_for_attempts = |attempts: &AtomicUsize, count| {
        wait_until("it is told", || {
            (attempts.load(Ordering::SeqCst) >= count).then_some(())
        });
    };
    let (attempts, _kept) = told("patient", "30s");
    wait_for_attempts(&attempts, 1);
    let (others, _kept) = told("hasty", "10ms");
    wait_for_attempts(&others, 3);
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}

#[test]
fn a_queue_takes_as_much_as_the_options_say_and_what_is_different_then_is_told_later() {
    let (receiver, directory) = (Receiver::start(47), Directory::new("long-queue"));
    // Nobody believes the signature: all of it waits.
    let secret = std::mem::take(&mut *receiver.secret.lock().unwrap());
    let more = "debounce = \"0s\"\nqueue_max_size = 4194304\n";
    let mut server = serve("long-queue", &receiver, &directory, more);
    let mut clients = BTreeMap::new();
    for number in 0..60 {
        let user = format!("{}-{number}", "u".repeat(200));
        let mut client = Client::connect(server.connect(), &user).unwrap();
        for channel in 0..100 {
            client
                .toggle(&format!("{}-{channel}", "c".repeat(40)))
                .unwrap();
        }
        clients.insert(number, client);
    }
    server.wait_for_output("(events.queue_max_size)");
    // Meanwhile some go, and somebody comes.
    clients.split_off(&50);
    let mut client = Client::connect(server.connect(), "late").unwrap();
    client.toggle("late").unwrap();
    clients.insert(100, client);
    *receiver.secret.lock().unwrap() = secret;
    wait_for(&receiver, "the backend knows the truth", &truth(&clients));
}
