//! The loop of the book: the real `curl` and the shell around it, killed at random.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::emulation::WORKERS;
use crate::http::get;
use crate::process::{Server, wait_until};

/// Publications in all.
const COUNT: u64 = 400;
/// How many may be on their way: less than the channel keeps, more than come between two kills.
const AHEAD: u64 = 40;

#[test]
fn the_loop_of_the_book_loses_nothing_whatever_is_killed() {
    // The loop has the only place there is, until somebody else takes it.
    let config = WORKERS.replace("[http_api]", "connection_limit = 1\n[http_api]");
    let server = Server::serve("curl-loop", &config);
    let folder = Folder::new();
    folder.write_curl();
    let script = script(&server.address.to_string());
    let mut shell = Shell::start(&script, &folder.0);
    wait_until("it is subscribed", || {
        let text = std::fs::read_to_string(folder.0.join("news.jsonl")).ok()?;
        text.contains(r#""event":"subscribed""#).then_some(())
    });
    let publish = |n: u64, pad: usize| {
        let pad = "x".repeat(pad);
        let body = format!(r#"{{"channel":"news","data":{{"n":{n},"pad":"{pad}"}}}}"#);
        server.api("publish", &body);
    };
    // All that is known of the position is that it is subscribed.
    shell.kill();
    folder.forget_curl();
    publish(1, 0);
    publish(2, 0);
    shell = Shell::start(&script, &folder.0);
    wait_until("both are there", || (folder.last() == 2).then_some(()));

    // Refused for a while, it writes nothing of what it is told then.
    wait_until("a curl was killed", || folder.kill_curl().then_some(()));
    let squatter = wait_until("the place is free", || {
        let lines = get(&server, "/lines?channel=other");
        (lines.status == 200).then_some(lines)
    });
    let started = folder.starts();
    publish(3, 0);
    wait_until("it is refused again and again", || {
        (folder.starts() > started + 10).then_some(())
    });
    assert_eq!(folder.last(), 2);
    drop(squatter);
    wait_until("it comes in again", || (folder.last() == 3).then_some(()));

    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let (mut curls, mut loops) = (0, 0);
    for n in 4..=COUNT {
        // Long enough for a line to be cut in the middle.
        publish(n, usize::try_from(below(3000)).expect("a short one"));
        match below(60) {
            0..4 => {
                wait_until("a curl was killed", || folder.kill_curl().then_some(()));
                curls += 1;
            }
            4 => {
                shell.kill();
                folder.forget_curl();
                loops += 1;
                shell = Shell::start(&script, &folder.0);
            }
            _ => {}
        }
        if n > AHEAD {
            wait_until("it follows", || (folder.last() >= n - AHEAD).then_some(()));
        }
    }
    wait_until("all are there", || (folder.last() == COUNT).then_some(()));
    assert!(curls >= 10 && loops >= 3, "{curls} and {loops} were killed");
    assert_eq!(folder.numbers(), (1..=COUNT).collect::<Vec<_>>());
}

/// The loop as the book has it, with another address.
fn script(address: &str) -> String {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/transports.md");
    let book = std::fs::read_to_string(book).expect("the page is there");
    let mut blocks = book.split("```bash\n").skip(1);
    let block = blocks.next().expect("the page has a loop");
    assert_eq!(blocks.count(), 0);
    let block = block.split("```").next().expect("a block ends");
    assert!(block.contains("localhost:8000"));
    block.replace("localhost:8000", address)
}

/// Where the loop runs, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tautline-curl-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// A `curl` that tells its process before it is the real one.
    fn write_curl(&self) {
        let path = self.0.join("curl");
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(b"#!/bin/sh\necho >> curl.starts\necho $$ > curl.new\nmv curl.new curl.pid\nPATH=$OLD_PATH exec curl \"$@\"\n")
            .expect("a script");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("a mode");
    }

    /// It went with its shell.
    fn forget_curl(&self) {
        let _ = std::fs::remove_file(self.0.join("curl.pid"));
    }

    /// How often it was started.
    fn starts(&self) -> usize {
        let starts = std::fs::read_to_string(self.0.join("curl.starts"));
        starts.map_or(0, |starts| starts.lines().count())
    }

    /// Whether there was one.
    fn kill_curl(&self) -> bool {
        let Ok(pid) = std::fs::read_to_string(self.0.join("curl.pid")) else {
            return false;
        };
        // Never twice: the number may be somebody else's by then.
        self.forget_curl();
        let mut kill = Command::new("kill");
        kill.args(["-9", pid.trim()]).stderr(Stdio::null());
        !pid.trim().is_empty() && kill.status().is_ok_and(|status| status.success())
    }

    /// The numbers of what was written, in order. None is told of a gap.
    fn numbers(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.0.join("news.jsonl")).expect("the file");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        lines
            .filter_map(|line: Value| {
                assert_ne!(line["event"], "gap", "{line}");
                line["data"]["n"].as_u64()
            })
            .collect()
    }

    fn last(&self) -> u64 {
        self.numbers().last().copied().unwrap_or(0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A shell with all that it has started.
struct Shell(Child);

impl Shell {
    fn start(script: &str, folder: &Path) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("bash")
            .args(["-c", script])
            .current_dir(folder)
            .env("OLD_PATH", &path)
            .env("PATH", format!("{}:{path}", folder.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        Self(child)
    }

    fn kill(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.0.wait();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.kill();
    }
}
