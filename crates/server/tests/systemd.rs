//! What systemd and the server tell each other, with the test in systemd's place.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/directory.rs"]
mod directory;
#[path = "support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use self::directory::Directory;

/// A directory with the server's configuration in it.
fn configured(name: &str) -> Directory {
    let directory = Directory::new(name);
    directory.file(
        "tautline.toml",
        "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[node]\nworkers = 3\n",
    );
    directory
}

/// The server, ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(server: &Server, name: &str) {
    let id = server.0.id().to_string();
    let status = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(status.success());
}

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let count = socket.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn command(config: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" serve --config \"$1\"",
        ])
        .arg(env!("CARGO_BIN_EXE_tautline"))
        .arg(config)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// `sd_notify(3)`: the state of a service of `Type=notify` with `WatchdogSec`.
#[test]
fn it_tells_that_it_is_up_alive_and_on_its_way_out() {
    let directory = configured("notify");
    let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let child = command(&directory.join("tautline.toml"))
        .env("NOTIFY_SOCKET", directory.join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .spawn();
    let mut server = Server(child.unwrap());
    assert_eq!(heard(&socket), "READY=1\n");
    for _ in 0..3 {
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
    }
    // A server that is stopped says nothing: systemd would start it anew.
    signal(&server, "-STOP");
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut bytes = [0; 64];
    while socket.recv(&mut bytes).is_ok() {}
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    signal(&server, "-CONT");
    assert_eq!(heard(&socket), "WATCHDOG=1\n");
    signal(&server, "-TERM");
    while heard(&socket) != "STOPPING=1\n" {}
    assert!(server.0.wait().unwrap().success());
}

/// `Type=notify-reload`, and what `systemctl status` shows: a reload begins and ends, and what came of it is told.
#[test]
fn it_tells_what_came_of_a_reload() {
    let directory = configured("reload");
    let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let file = directory.join("tautline.toml");
    let child = command(&file)
        .env("NOTIFY_SOCKET", directory.join("notify"))
        .spawn();
    let server = Server(child.unwrap());
    assert_eq!(heard(&socket), "READY=1\n");
    let good = std::fs::read_to_string(&file).unwrap();
    for (text, status) in [
        (
            format!("{good}[log]\nlevel = \"warn\"\n"),
            "the configuration was read again",
        ),
        (
            format!("{good}[log]\nlevle = \"warn\"\n"),
            "the old configuration stays: ",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        signal(&server, "-HUP");
        let begun = heard(&socket);
        let time = begun.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(
            time.is_some_and(|time| time.trim_end().parse::<u64>().is_ok()),
            "{begun}"
        );
        let ended = heard(&socket);
        let told = ended.strip_prefix("READY=1\nSTATUS=").expect(&ended);
        assert!(told.starts_with(status), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

/// The address of the configuration counts for nothing then, and what is said of it neither.
#[test]
fn a_socket_that_more_can_reach_than_the_configuration_says_is_told_of() {
    for (address, is_told) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
        let directory = configured("reachable");
        let notify = UnixDatagram::bind(directory.join("notify")).unwrap();
        notify
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let child = command(&directory.join("tautline.toml"))
            .env("LISTEN_FDS", "1")
            .env("NOTIFY_SOCKET", directory.join("notify"))
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::piped())
            .spawn();
        let mut server = Server(child.unwrap());
        assert_eq!(heard(&notify), "READY=1\n");
        signal(&server, "-TERM");
        let mut told = String::new();
        let mut errors = server.0.stderr.take().unwrap();
        errors.read_to_string(&mut told).unwrap();
        let is_there = told.contains("reachable from outside, whatever http_server.address says")
            && told.contains("http_server.tls is off");
        assert_eq!(is_there, is_told, "{told}");
    }
}

/// What a server says that doesn't start.
fn given_up(child: Child) -> String {
    let mut server = Server(child);
    let status = process::wait_until("the server gives up", || server.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    let mut told = String::new();
    let mut errors = server.0.stderr.take().unwrap();
    errors.read_to_string(&mut told).unwrap();
    told
}

/// Nobody would take who connects to the second.
#[test]
fn several_sockets_are_refused() {
    let directory = configured("several");
    let [first, second] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut command = Command::new("sh");
    let child = command
        .args([
            "-c",
            "exec 3<&0 4<&1 </dev/null >&2; LISTEN_PID=$$ exec \"$0\" serve --config \"$1\"",
        ])
        .arg(env!("CARGO_BIN_EXE_tautline"))
        .arg(directory.join("tautline.toml"))
        .env("LISTEN_FDS", "2")
        .stdin(Stdio::from(OwnedFd::from(first)))
        .stdout(Stdio::from(OwnedFd::from(second)))
        .stderr(Stdio::piped())
        .spawn();
    let told = given_up(child.unwrap());
    assert!(
        told.contains("hands over 2 sockets") && told.contains("ListenStream"),
        "{told}"
    );
}

/// `systemd.socket(5)`: the socket is there before the server and after it.
#[test]
fn it_listens_on_the_socket_that_it_was_handed() {
    let directory = configured("socket");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for _ in 0..2 {
        let handed = OwnedFd::from(listener.try_clone().unwrap());
        // Connects while nobody accepts: it waits, and is answered.
        let early = TcpStream::connect(&address).unwrap();
        let child = command(&directory.join("tautline.toml"))
            .env("LISTEN_FDS", "1")
            .stdin(Stdio::from(handed))
            .spawn();
        let mut server = Server(child.unwrap());
        for _ in 0..10 {
            assert!(get(&address).starts_with("HTTP/1.1 200 "));
        }
        drop(early);
        signal(&server, "-TERM");
        assert!(server.0.wait().unwrap().success());
    }
}

/// What was handed over is no socket that listens.
#[test]
fn something_else_in_its_place_is_refused() {
    let directory = configured("wrong");
    let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let child = command(&directory.join("tautline.toml"))
        .env("LISTEN_FDS", "1")
        .stdin(Stdio::from(OwnedFd::from(end)))
        .stderr(Stdio::piped())
        .spawn();
    let told = given_up(child.unwrap());
    assert!(told.contains("socket that the unit promises"), "{told}");
}
