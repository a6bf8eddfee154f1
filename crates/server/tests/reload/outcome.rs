//! What comes of a reload as a whole: what is told, what is counted, and what stays as it was.

use std::process::Command;

use crate::client::{Client, Frame};
use crate::process::Server;

const OPEN: &str = "[client]\nallow_anonymous_connect_without_token = true\n\
    [channel.without_namespace]\nallow_subscribe_for_client = true\n\
    allow_subscribe_for_anonymous = true\n";
const API: &str = "[http_api]\nkey = \"dev\"\n";
const METRICS: &str = "[prometheus]\nenabled = true\n";

/// The lines, without what stands before the texts.
fn texts(lines: &[String]) -> Vec<&str> {
    let texts = lines.iter();
    texts
        .filter_map(|line| Some(line.split_once(": ")?.1.trim()))
        .collect()
}

fn metric(server: &Server, name: &str) -> u64 {
    use std::io::{Read as _, Write as _};
    let mut stream = server.connect();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .expect("it takes a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.rsplit_once(' '));
    let number = number.unwrap_or_else(|| panic!("no {name} in {text}"));
    number.1.parse().expect("a number")
}

#[test]
fn a_hangup_applies_what_has_changed_and_tells_it() {
    let mut server = Server::serve("reload", &format!("{OPEN}{API}"));
    let mut client = Client::subscribed(&server, "news");
    let said = server.reload(&format!(
        "{OPEN}channel_regex = \"^news$\"\npresence = true\n{API}{METRICS}"
    ));
    assert_eq!(
        texts(&said)[1..],
        [
            "channel.without_namespace.channel_regex: none -> \"^news$\"",
            "channel.without_namespace.presence: false -> true",
            "prometheus.enabled: false -> true",
        ]
    );
    // The connection from before is there, and it is told the same by each worker.
    server.api("publish", r#"{"channel":"news","data":1}"#);
    assert!(client.text().contains(r#""pub":{"data":1}"#));
    client.send(r#"{"id":3,"subscribe":{"channel":"other"}}"#);
    assert!(client.text().contains(r#""code":107"#));
    let stats = server.api("presence_stats", r#"{"channel":"news"}"#);
    assert!(stats.contains(r#""num_clients":1"#), "{stats}");
    assert_eq!(
        metric(
            &server,
            r#"tautline_config_reloads_total{result="applied"}"#
        ),
        1
    );
    let said = server.reload(&format!(
        "{OPEN}channel_regex = \"^news$\"\npresence = true\n{API}{METRICS}"
    ));
    assert!(said[0].contains("changes=0"), "{said:?}");
    server.signal("-TERM");
    assert_eq!(client.frame(), Frame::Close(3001, "shutdown".into()));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_bad_file_is_refused_as_by_a_check_and_the_old_one_goes_on() {
    let good = format!("{OPEN}{API}{METRICS}");
    let mut server = Server::serve("refused", &good);
    let mut client = Client::subscribed(&server, "news");
    let started = metric(
        &server,
        "tautline_config_last_reload_success_timestamp_seconds",
    );
    for bad in [
        format!("{good}[client]\nping_intervall = \"20s\"\n"),
        good.replace("[client]", "[client]\nping_intervall = \"20s\""),
        format!("{good}[websocket]\nmessage_size_limit = 1\n"),
        format!("{good}[client.token]\nrsa_public_key = \"/nowhere\"\n"),
    ] {
        let said = server.reload(&bad);
        assert!(said[0].contains("was not reloaded"), "{said:?}");
        let check = Command::new(env!("CARGO_BIN_EXE_tautline"))
            .args(["config", "check"])
            .arg(server.config_path())
            .output()
            .expect("the binary runs");
        let complaint = String::from_utf8(check.stderr).expect("a text");
        let complaint = complaint.strip_prefix("error: ").expect("a complaint");
        assert!(
            complaint.contains(".toml:") && said[0].ends_with(complaint),
            "{said:?}"
        );
    }
    server.api("publish", r#"{"channel":"news","data":1}"#);
    assert!(client.text().contains(r#""pub":{"data":1}"#));
    assert_eq!(
        metric(
            &server,
            r#"tautline_config_reloads_total{result="refused"}"#
        ),
        4
    );
    assert_eq!(
        metric(
            &server,
            "tautline_config_last_reload_success_timestamp_seconds"
        ),
        started
    );
}

#[test]
fn a_file_that_is_just_being_written_is_not_taken_over() {
    let good = format!("{OPEN}{API}");
    let mut server = Server::serve("emptied", &good);
    let mut client = Client::subscribed(&server, "news");
    for emptied in ["", "\n", "# of the operators\n[http_api]\n"] {
        server.write_config(emptied);
        let said = server.hang_up();
        let problem = "there is no option in it any more";
        assert!(
            said[0].contains("was not reloaded") && said[0].contains(problem),
            "{said:?}"
        );
    }
    server.api("publish", r#"{"channel":"news","data":1}"#);
    assert!(client.text().contains(r#""pub":{"data":1}"#));
    let said = server.reload(&format!("{good}max_batch_commands = 5\n"));
    assert!(said[0].contains("changes=1"), "{said:?}");
}

/// A pipe has no end as long as somebody may write into it, and a reload would wait for that, with all that come after it.
#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let good = format!("{OPEN}{API}");
    let mut server = Server::serve("pipe", &good);
    let path = server.config_path().to_owned();
    std::fs::remove_file(&path).expect("the file is there");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo runs").success());
    let said = server.hang_up();
    assert!(said[0].contains("this is a pipe"), "{said:?}");
    std::fs::remove_file(&path).expect("the pipe is there");
    let said = server.reload(&good);
    assert!(said[0].contains("changes=0"), "{said:?}");
}

#[test]
fn what_needs_a_restart_is_told_and_the_rest_is_applied() {
    let mut server = Server::serve("restart", &format!("{OPEN}{API}"));
    let name = |server: &Server| server.api("info", "{}").contains(r#""name":"another""#);
    let more = "[node]\nname = \"another\"\nworkers = 3\n";
    let changed = format!("{OPEN}{API}max_batch_commands = 5\n{more}");
    for expected in [
        &[
            "http_api.max_batch_commands: 1000 -> 5",
            "node.name: \"\" -> \"another\"",
            "node.workers: 0 -> 3 (needs a restart)",
        ][..],
        // As long as there was none.
        &["node.workers: 0 -> 3 (needs a restart)"],
    ] {
        let said = server.reload(&changed);
        assert_eq!(&texts(&said)[1..], expected);
        assert!(name(&server));
    }
    let said = server.reload(&format!("{OPEN}{API}max_batch_commands = 5\n"));
    assert!(said[0].contains("changes=1"), "{said:?}");
    assert!(!name(&server));
}

#[test]
fn secrets_are_not_told() {
    let with = |key: &str| format!("{OPEN}{API}[client.token]\nhmac_secret_key = \"{key}\"\n");
    let mut server = Server::serve("secret", &with("the first of two secrets that are long"));
    let said = server.reload(&with("the other of two secrets that are long"));
    assert_eq!(
        texts(&said)[1..],
        ["client.token.hmac_secret_key: (secret) -> (secret)"]
    );
}
