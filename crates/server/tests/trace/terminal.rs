//! `tautline trace` as an operator sees it, at a terminal, and as a program does.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::ways::{config, token};
use crate::client::Client;
use crate::process::{Output, Server, Wait};

/// `tautline trace`, which is ended when dropped.
struct Trace {
    process: Child,
    output: Output,
}

impl Trace {
    /// At a terminal, which `script` of util-linux makes.
    fn at_a_terminal(server: &Server, arguments: &str, environment: &[(&str, &str)]) -> Self {
        let command = format!("{} trace {arguments}", env!("CARGO_BIN_EXE_tautline"));
        let mut script = Command::new("script");
        script.args(["-qfec", &command, "/dev/null"]);
        Self::begin(server, script, environment)
    }

    fn begin(server: &Server, mut command: Command, environment: &[(&str, &str)]) -> Self {
        let mut process = command
            .env("TAUTLINE_URL", format!("http://{}", server.address))
            .env("TAUTLINE_API_KEY", "dev")
            .env("TERM", "xterm")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let output = Output::of(process.stdout.take().expect("it is piped"));
        Self { process, output }
    }

    /// The next line that has `mark`.
    fn line(&mut self, mark: &str) -> String {
        let wait = Wait::new(mark);
        loop {
            let line = self.output.line(&wait);
            if line.contains(mark) {
                return line.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Somebody who comes, is refused something, subscribes, comes back, and is put out, while he is followed.
fn live(server: &Server, trace: &mut Trace, marks: &[&str]) -> Vec<String> {
    let connect = json!({"id": 1, "connect": {"token": token("ann")}}).to_string();
    let open = || {
        let mut client = Client::open(server);
        client.send(&connect);
        client.text();
        client
    };
    // Once he is followed, it is told that somebody comes.
    let is_told = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_told.load(Ordering::Relaxed) {
                open();
            }
        });
        trace.line("connect");
        is_told.store(true, Ordering::Relaxed);
    });
    let mut client = open();
    let mut ask = |command: Value| -> Value {
        client.send(&command.to_string());
        serde_json::from_str(&client.text()).expect("JSON")
    };
    ask(json!({"id": 2, "subscribe": {"channel": "shut:1"}}));
    let from = json!({"channel": "room", "recover": true, "offset": 0, "epoch": "another"});
    ask(json!({"id": 3, "subscribe": from}));
    server.api("publish", r#"{"channel":"room","data":{"n":"a payload"}}"#);
    let end = json!({"user": "ann", "disconnect": {"code": 4321, "reason": "go"}});
    server.api("disconnect", &end.to_string());
    marks.iter().map(|mark| trace.line(mark)).collect()
}

/// What of that is looked at, as a person sees it.
const SHOWN: [&str; 6] = [
    "refused",
    "error",
    "subscribe #3",
    "subscribe #3",
    "publications",
    "4321",
];

/// What stands behind the time and who it is.
fn behind_the_time(line: &str) -> &str {
    let (time, rest) = line.split_at("12:01:02.123".len());
    assert!(
        time.chars().all(|c| c.is_ascii_digit() || ":.".contains(c)),
        "{line}"
    );
    // A user and eight characters.
    rest.trim_start().split_at("ann 8a3f0c1d".len()).1
}

#[test]
fn a_person_sees_columns_with_arrows_and_what_matters_in_words() {
    let server = Server::serve("trace-person", &config(""));
    let mut trace = Trace::at_a_terminal(&server, "--user ann", &[("NO_COLOR", "1")]);
    assert!(
        trace
            .line("Following")
            .starts_with("Following user ann: → from the client")
    );
    let lines = live(&server, &mut trace, &SHOWN);
    let shown: Vec<_> = lines.iter().map(|line| behind_the_time(line)).collect();
    assert!(
        shown[0].starts_with("  ✕ refused #2      shut:1  error 103: permission denied  because "),
        "{lines:?}"
    );
    assert!(
        shown[1].starts_with("  ← error #2        shut:1  103 permission denied"),
        "{lines:?}"
    );
    assert_eq!(
        shown[2],
        "  → subscribe #3    room    go on behind #0  epoch=another"
    );
    assert!(
        shown[3].starts_with("  ← subscribe #3    room    at #0  not recovered"),
        "{lines:?}"
    );
    assert!(
        shown[4].starts_with("  ← publications    room    #1  17 B"),
        "{lines:?}"
    );
    assert!(
        shown[5].starts_with("  · ended                   4321 go"),
        "{lines:?}"
    );
    assert!(
        lines.iter().all(|line| !line.contains('\u{1b}')),
        "{lines:?}"
    );
    server_ends(server, &mut trace);
}

/// Who follows somebody is told that it is over.
fn server_ends(server: Server, trace: &mut Trace) {
    server.signal("-TERM");
    trace.line("The server has ended it");
    drop(server);
}

#[test]
fn colours_are_for_terminals_that_have_them() {
    let server = Server::serve("trace-colours", &config(""));
    let mut trace = Trace::at_a_terminal(&server, "--user ann", &[]);
    let lines = live(&server, &mut trace, &SHOWN);
    assert!(lines[0].contains("\u{1b}[31m✕\u{1b}[0m"), "{lines:?}");
    assert!(lines[3].contains("\u{1b}[33m"), "{lines:?}");
    let mut trace = Trace::at_a_terminal(
        &server,
        "--user ann",
        &[("TERM", "dumb"), ("LC_ALL", "C"), ("LANG", "")],
    );
    let lines = live(&server, &mut trace, &SHOWN);
    assert!(lines.iter().all(|line| line.is_ascii()), "{lines:?}");
    assert!(
        lines.iter().all(|line| !line.contains('\u{1b}')),
        "{lines:?}"
    );
}

#[test]
fn a_program_is_told_json() {
    let server = Server::serve("trace-program", &config(""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
    command.args(["trace", "--user", "ann"]);
    let mut trace = Trace::begin(&server, command, &[]);
    let marks = ["\"refused\"", "\"publications\"", "4321"];
    for line in live(&server, &mut trace, &marks) {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(event["user"], "ann", "{event}");
        assert!(!line.contains("a payload"), "{line}");
    }
}
