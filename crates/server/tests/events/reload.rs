//! Other options while events are told: nothing is lost, nothing is told twice, and what is known stays true.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tautline::{Config, ReloadError};

use super::process::wait_until;
use super::receiver::{Receiver, SECRET};
use super::told::Told;
use super::{Client, Directory, Truth, config, serve, tables};

/// Users come, subscribe and go, one after the other, until they are to stop. How many that were.
fn come_and_go(address: SocketAddr, stop: &AtomicBool, name: &str) -> usize {
    for number in 0..20_000 {
        if stop.load(Ordering::SeqCst) {
            return number;
        }
        let stream = TcpStream::connect(address).unwrap();
        let mut client = Client::connect(stream, &format!("{name}-{number}")).unwrap();
        client.toggle(name).unwrap();
    }
    panic!("nobody stops it");
}

#[test]
fn a_key_is_changed_and_the_endpoint_moved_under_load_and_nothing_is_lost() {
    let (old, directory) = (Receiver::start(31), Directory::new("moved"));
    let new = Receiver::with_book(32, Arc::clone(&old.book));
    let keys = [
        "the second of all secrets that are used here",
        "the third of all secrets that are used here",
    ];
    let with = |receiver: &Receiver, key: &str, more: &str| {
        let text = config(receiver, &directory, &format!("debounce = \"0s\"\n{more}"));
        let line = |key: &str| format!("\nhmac_secret_key = \"{key}\"");
        tables(&text).replace(&line(SECRET), &line(key))
    };
    let mut server = serve("moved", &old, &directory, "debounce = \"0s\"\n");
    let (address, stop) = (server.address, AtomicBool::new(false));
    let more_is_told = || {
        let known = || old.book.lock().unwrap().count("disconnected");
        let before = known();
        wait_until("more is told", || (known() >= before + 20).then_some(()));
    };
    let mut reload = |text: &str| {
        let said = server.reload(text);
        assert!(!said[0].contains("not reloaded"), "{said:?}");
        assert!(
            said.iter().all(|line| !line.contains("needs a restart")),
            "{said:?}"
        );
    };
    let came: Vec<usize> = thread::scope(|scope| {
        let users: Vec<_> = ["a", "b"]
            .map(|name| scope.spawn(|| come_and_go(address, &stop, name)))
            .into();
        more_is_told();
        // As it should be done: with both, then with the new one alone.
        reload(&with(
            &old,
            keys[0],
            &format!("hmac_previous_secret_key = \"{SECRET}\"\n"),
        ));
        more_is_told();
        *old.secret.lock().unwrap() = keys[0].into();
        more_is_told();
        reload(&with(&old, keys[0], ""));
        more_is_told();
        assert_eq!(old.mistrusted.load(Ordering::SeqCst), 0);
        // As it happens: what was refused is signed anew.
        *old.secret.lock().unwrap() = keys[1].into();
        wait_until("it is refused", || {
            (old.mistrusted.load(Ordering::SeqCst) > 0).then_some(())
        });
        reload(&with(&old, keys[1], ""));
        more_is_told();
        // The old place is out of order, half of the time in the middle of a batch.
        *new.secret.lock().unwrap() = keys[1].into();
        old.trouble.store(100, Ordering::SeqCst);
        reload(&with(&new, keys[1], ""));
        more_is_told();
        stop.store(true, Ordering::SeqCst);
        users.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(new.mistrusted.load(Ordering::SeqCst), 0);
    let came: usize = came.into_iter().sum();
    wait_until("all are told gone", || {
        (old.book.lock().unwrap().count("disconnected") >= came).then_some(())
    });
    let book = old.book.lock().unwrap();
    assert_eq!(book.truth(), Truth::default());
    for kind in ["connected", "subscribed", "unsubscribed", "disconnected"] {
        assert_eq!(book.count(kind), came, "{kind}");
    }
}

#[test]
fn who_is_there_is_told_when_events_are_switched_on_and_again_what_has_changed_meanwhile() {
    let told = Told::start(33, "switched", "# off");
    told.set("# off");
    let mut ann = told.client("ann", &["a"]);
    let mut bob = told.client("bob", &["a", "b"]);
    let changes = told.set("");
    assert!(
        changes.iter().all(|change| !change.needs_restart),
        "{changes:?}"
    );
    told.knows(
        "who was there",
        &[("ann", &["a"]), ("bob", &["a", "b"])],
        &["a", "b"],
    );
    // Each is counted once: the channel is in use for as long as one of them is in it.
    ann.toggle("a").unwrap();
    told.knows(
        "one has left it",
        &[("ann", &[]), ("bob", &["a", "b"])],
        &["a", "b"],
    );
    bob.toggle("a").unwrap();
    told.knows("so has the other", &[("ann", &[]), ("bob", &["b"])], &["b"]);
    assert_eq!(
        (told.count("channel_occupied"), told.count("connected")),
        (2, 2)
    );
    told.set("# off");
    drop(ann);
    let _cid = told.client("cid", &["c"]);
    told.wait_for_clients(2);
    told.has_told(2, 0);
    told.set("");
    told.knows(
        "what has changed",
        &[("bob", &["b"]), ("cid", &["c"])],
        &["b", "c"],
    );
}

#[test]
fn kinds_and_namespaces_are_those_of_the_options() {
    let told = Told::start(34, "kinds", "kinds = [\"connected\", \"disconnected\"]");
    let mut ann = told.client("ann", &["a", "room:x"]);
    let mut bob = told.client("bob", &["a"]);
    let both = |what: &str, ann: &[&str], bob: &[&str], occupied: &[&str]| {
        told.knows(what, &[("ann", ann), ("bob", bob)], occupied);
    };
    both("who is there", &[], &[], &[]);
    told.set("");
    both("and where", &["a", "room:x"], &["a"], &["a", "room:x"]);
    // Twice the same is nothing.
    told.set("");
    ann.toggle("a").unwrap();
    both("one less", &["room:x"], &["a"], &["a", "room:x"]);
    ann.toggle("a").unwrap();
    both("and back", &["a", "room:x"], &["a"], &["a", "room:x"]);
    told.set("namespaces = [\"room\"]");
    both("rooms alone", &["room:x"], &[], &["room:x"]);
    ann.toggle("a").unwrap();
    bob.toggle("room:x").unwrap();
    both("in rooms", &["room:x"], &["room:x"], &["room:x"]);
    // Who was counted before is counted out, and once.
    ann.toggle("room:x").unwrap();
    bob.toggle("room:x").unwrap();
    both("nobody in rooms", &[], &[], &[]);
    ann.toggle("room:x").unwrap();
    bob.toggle("room:x").unwrap();
    both("in rooms", &["room:x"], &["room:x"], &["room:x"]);
    told.set("kinds = [\"connected\", \"disconnected\", \"subscribed\", \"unsubscribed\"]");
    both("all channels", &["room:x"], &["a", "room:x"], &["room:x"]);
    ann.toggle("room:x").unwrap();
    bob.toggle("room:x").unwrap();
    both("nobody in rooms", &[], &["a"], &["room:x"]);
    told.set("");
    both("what is in use", &[], &["a"], &["a", "room:x"]);
    // That nobody is left there was of no interest when it happened; the next who comes is the first again.
    told.receiver.book.lock().unwrap().forget_channel("room:x");
    bob.toggle("room:x").unwrap();
    both("somebody is there", &[], &["a", "room:x"], &["a", "room:x"]);
    bob.toggle("room:x").unwrap();
    both("and nobody", &[], &["a"], &["a"]);
    told.has_told(2, 0);
}

#[test]
fn debounce_and_the_names_of_the_node_are_those_of_the_options() {
    let told = Told::start(35, "debounce", "");
    // Nobody is waited for: who comes back has been away.
    for times in 1..=2 {
        drop(told.client("ann", &[]));
        told.wait_for_clients(0);
        wait_until("she is told, and told gone", || {
            (told.count("connected") == times).then_some(())
        });
    }
    wait_until("she is told gone", || {
        (told.count("disconnected") == 2).then_some(())
    });
    // Somebody who is waited for all day isn't told gone, and comes back as one who was never away.
    let text = Told::config(&told.receiver, &told.directory, "").replace("\"0s\"", "\"10m\"");
    let config = Config::from_toml(&format!("node.name = \"other\"\n{text}")).unwrap();
    told.runtime
        .block_on(told.node.handle().reconfigure(config))
        .unwrap();
    assert_eq!(
        told.runtime.block_on(told.node.handle().info()).name,
        "other"
    );
    for _ in 0..2 {
        drop(told.client("bob", &[]));
        told.wait_for_clients(0);
    }
    let _cid = told.client("cid", &[]);
    wait_until("the last is told", || {
        (told.count("connected") == 4).then_some(())
    });
    assert_eq!(told.count("disconnected"), 2);
    let nodes = told.receiver.nodes.lock().unwrap().clone();
    assert!(nodes.len() == 2 && nodes.contains("other"), "{nodes:?}");
}

#[test]
fn what_cannot_be_told_is_refused_and_all_goes_on() {
    let told = Told::start(36, "refused-reload", "");
    let _ann = told.client("ann", &[]);
    told.knows("her", &[("ann", &[])], &[]);
    let text = Told::config(&told.receiver, &told.directory, "");
    let without = text.replace(&format!("endpoint = \"{}\"", told.receiver.url), "");
    let reconfigure = |text: &str| {
        let config = Config::from_toml(text).unwrap();
        told.runtime
            .block_on(told.node.handle().reconfigure(config))
    };
    let error = reconfigure(&without).expect_err("nobody to tell");
    assert!(matches!(error, ReloadError::Events(_)), "{error}");
    let _bob = told.client("bob", &[]);
    told.knows("him, too", &[("ann", &[]), ("bob", &[])], &[]);
    // The directory stays, and the reload says so.
    let elsewhere = text.replace("test-refused-reload", "test-elsewhere");
    assert_ne!(text, elsewhere);
    let changes = reconfigure(&elsewhere).unwrap().changes;
    let held: Vec<_> = changes.iter().filter(|one| one.needs_restart).collect();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].option, "events.directory");
    // Off, and on in a directory that can't be one.
    told.set("# off");
    // It has ended well, where it was.
    assert!(told.directory.path().join("clean").exists());
    // As long as nothing is told there, the directory is free to be another. Another directory is another story, with
    // numbers of its own: somebody else is told it.
    let (other, stranger) = (Directory::new("elsewhere"), Receiver::start(37));
    let elsewhere = elsewhere.replace(&told.receiver.url, &stranger.url);
    let changes = reconfigure(&elsewhere).unwrap().changes;
    assert!(
        changes.iter().all(|change| !change.needs_restart),
        "{changes:?}"
    );
    assert!(other.path().join("lock").exists());
    told.set("# off");
    let file = told.directory.path().join("lock");
    let in_file = text.replace(
        &format!("directory = \"{}\"", told.directory.path().display()),
        &format!("directory = \"{}\"", file.display()),
    );
    let error = reconfigure(&in_file).expect_err("it is a file");
    assert!(error.to_string().contains("events.directory"), "{error}");
    told.set("");
    told.knows("both", &[("ann", &[]), ("bob", &[])], &[]);
}

/// An endpoint that takes its time: says when a batch has come, and answers with the status that it is given then.
fn slow_endpoint() -> (String, mpsc::Receiver<()>, mpsc::Sender<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let ((tell, came), (answer, answers)) = (mpsc::channel(), mpsc::channel());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
            while !bytes.ends_with(b"]}") {
                let count = stream.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..count]);
            }
            let _ = tell.send(());
            let Ok(status) = answers.recv() else { return };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    (url, came, answer)
}

/// Nothing is tried again by itself while a test lasts, and answers may take their time.
fn told_once(told: &Told, url: &str) -> Config {
    let text = Told::config(&told.receiver, &told.directory, "");
    let text = text.replace(&told.receiver.url, url);
    let text = text.replace("retry_min = \"5ms\"", "retry_min = \"1h\"");
    let text = text.replace("retry_max = \"40ms\"", "retry_max = \"1h\"");
    Config::from_toml(&text.replace("timeout = \"300ms\"", "timeout = \"30s\"")).unwrap()
}

#[test]
fn what_the_old_place_says_after_the_move_counts_only_if_it_is_good() {
    for (status, elsewhere) in [
        ("422 Unprocessable Content", 1),
        ("500 Internal Server Error", 1),
        ("200 OK", 0),
    ] {
        let (url, came, answer) = slow_endpoint();
        let told = Told::start(37, "old-place", "");
        let set = |url: &str| {
            let reconfigured = told.node.handle().reconfigure(told_once(&told, url));
            told.runtime.block_on(reconfigured).unwrap();
        };
        set(&url);
        let _ann = told.client("ann", &[]);
        came.recv().unwrap();
        set(&told.receiver.url);
        let _bob = told.client("bob", &[]);
        answer.send(status).unwrap();
        wait_until("the new one is told", || {
            (told.count("connected") == 1 + elsewhere).then_some(())
        });
        let dead = told.runtime.block_on(told.node.handle().dead_events(1));
        assert!(dead.unwrap().is_empty());
    }
}

#[test]
fn somebody_else_is_not_made_to_wait_for_what_another_has_failed_to_do() {
    let (url, came, answer) = slow_endpoint();
    let told = Told::start(38, "fresh", "");
    let set = |url: &str| {
        let reconfigured = told.node.handle().reconfigure(told_once(&told, url));
        told.runtime.block_on(reconfigured).unwrap();
    };
    set(&url);
    let _ann = told.client("ann", &[]);
    came.recv().unwrap();
    answer.send("500 Internal Server Error").unwrap();
    // That has failed when the next attempt is half an hour away at least.
    wait_until("it has failed", || {
        (told.metric("tautline_events_failed_attempts_total") == 1).then_some(())
    });
    let _bob = told.client("bob", &[]);
    set(&told.receiver.url);
    wait_until("both are told", || {
        (told.count("connected") == 2).then_some(())
    });
}
