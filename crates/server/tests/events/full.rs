//! A disk that is full: what was accepted is kept, the server goes on, and all is told when there is room again.
//!
//! The disk's part is played by a limit on the length of files, which the kernel enforces as it does the end of a
//! disk: what fits is written, and then nothing is.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Command;
use std::sync::atomic::Ordering;

use super::process::{Server, wait_until};
use super::receiver::Receiver;
use super::{Client, Directory, Truth, config, tables, truth, wait_for};

const ROOM: &str = "24576";

fn serve(name: &str, receiver: &Receiver, directory: &Directory) -> Server {
    let more = "debounce = \"0s\"\n[prometheus]\nenabled = true\n";
    let config = tables(&config(receiver, directory, more));
    let limit = format!("--fsize={ROOM}:");
    // Without that the limit would be a signal instead of an error.
    let ignore = "trap '' XFSZ; exec \"$@\"";
    let starter = ["prlimit", &limit, "sh", "-c", ignore, "sh"];
    Server::serve_by(&starter, &format!("events-{name}"), &config)
}

fn metric(server: &Server, name: &str) -> u64 {
    use std::io::Write as _;
    let mut stream = server.connect();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.expect(name).trim().parse().unwrap()
}

/// Clients come and go until nothing can be written any more. Those who stay.
fn fill(server: &mut Server) -> BTreeMap<u32, Client> {
    let mut clients = BTreeMap::new();
    let mut next = 0;
    while metric(server, "tautline_events_write_failures_total") == 0 {
        assert!(next < 5000, "it is never full");
        for _ in 0..20 {
            next += 1;
            let mut client = Client::connect(server.connect(), &format!("user-{next}")).unwrap();
            client.toggle("a").unwrap();
            if next % 10 == 0 {
                clients.insert(next, client);
            }
        }
    }
    server.wait_for_output("events can't be written down");
    assert_eq!(metric(server, "tautline_events_blocked"), 1);
    // It serves as ever.
    for name in ["dan", ""] {
        next += 1;
        let mut client = Client::connect(server.connect(), name).unwrap();
        client.toggle("b").unwrap();
        clients.insert(next, client);
    }
    clients
}

#[test]
fn a_full_disk_loses_nothing_and_is_told_of() {
    let (receiver, directory) = (Receiver::start(21), Directory::new("full"));
    let mut server = serve("full", &receiver, &directory);
    let clients = fill(&mut server);
    let pid = server.process.id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:"])
        .status();
    assert!(raised.unwrap().success());
    server.wait_for_output("events can be written down again");
    wait_for(&receiver, "the backend knows the truth", &truth(&clients));
    wait_until("it is over", || {
        (metric(&server, "tautline_events_blocked") == 0).then_some(())
    });
    drop(clients);
    wait_for(
        &receiver,
        "the backend knows that all are gone",
        &Truth::default(),
    );
}

#[test]
fn a_server_that_is_killed_with_its_disk_full_tells_the_truth_after_it() {
    let (receiver, directory) = (Receiver::start(22), Directory::new("full-killed"));
    // Some of it is told, some waits.
    receiver.trouble.store(50, Ordering::SeqCst);
    let mut server = serve("full-killed", &receiver, &directory);
    let clients = fill(&mut server);
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    drop(clients);
    receiver.trouble.store(0, Ordering::SeqCst);
    let more = "debounce = \"0s\"\nrestart_debounce = \"100ms\"\n";
    let server = super::serve("full-killed", &receiver, &directory, more);
    let mut clients = BTreeMap::new();
    let mut client = Client::connect(server.connect(), "eve").unwrap();
    client.toggle("c").unwrap();
    clients.insert(1, client);
    wait_for(&receiver, "the backend knows the truth", &truth(&clients));
}
