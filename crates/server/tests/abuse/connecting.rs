//! Those who connect, and say too much or too little.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::wait_until;
use crate::stand::Stand;
use crate::wire::{Http, read_to_end};

const GET: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Whether something has come, or the end has.
fn is_ready(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    !matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn a_flood_of_connections() {
    const LIMIT: usize = 500;
    const ALL: usize = 3_000;
    let stand = Stand::new(
        "connections",
        &format!("connections = {LIMIT}\nconnect = \"off\"\nhandshakes = 0"),
        "",
    );
    stand.endures(
        "3,000 connections from one address: 500 stay, others get 429",
        LIMIT as u64 * 32 * 1024,
        |_| {
            let mut held = Vec::new();
            for _ in 0..ALL {
                let mut http = stand.http();
                let _ = http.wire.write_all(GET);
                let answer = http.answer().expect("an answer");
                match answer.status {
                    200 => held.push(http),
                    429 => assert!(answer.head.contains("Retry-After"), "{}", answer.head),
                    other => panic!("{other}"),
                }
            }
            assert_eq!(held.len(), LIMIT);
        },
    );
    let name = r#"limits_refused_total{limit="connections",mode="enforced"}"#;
    assert_eq!(stand.number(name), (ALL - LIMIT) as u64);
}

#[test]
fn connections_that_come_and_go() {
    const BURST: usize = 400;
    const ALL: usize = 4_000;
    let stand = Stand::new("churn", &format!("connect = \"{BURST}/1h\""), "");
    stand.endures(
        "4,000 connections one after the other: beyond the rate they get 429",
        0,
        |_| {
            let mut statuses = [0; 2];
            for _ in 0..ALL {
                let mut http = stand.http();
                let _ = http.wire.write_all(GET);
                let status = http.answer().expect("an answer").status;
                statuses[usize::from(status == 429)] += 1;
            }
            // Some tokens come back meanwhile.
            assert!((BURST..BURST + 10).contains(&statuses[0]), "{statuses:?}");
        },
    );
    stand.counts(
        r#"limits_refused_total{limit="connect",mode="enforced"}"#,
        ALL - BURST - 10,
    );
}

/// Slowloris: a head that comes byte by byte, and never ends.
#[test]
fn heads_that_never_end() {
    const LIMIT: usize = 200;
    const ALL: usize = 500;
    let stand = Stand::new(
        "slow-heads",
        &format!("handshakes = {LIMIT}\nconnect = \"off\""),
        "",
    );
    stand.endures(
        "500 heads, byte by byte: 200 may wait and are dropped after 10 s, others get 429",
        LIMIT as u64 * 32 * 1024,
        |_| {
            let mut all: Vec<_> = (0..ALL).map(|_| stand.connect()).collect();
            stand.counts(
                r#"limits_refused_total{limit="handshakes",mode="enforced"}"#,
                ALL - LIMIT,
            );
            let mut refused = 0;
            let mut text = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_vec();
            text.extend(vec![b'x'; 4096]);
            for byte in &text {
                all.retain_mut(|stream| {
                    let _ = stream.write_all(&[*byte]);
                    if !is_ready(stream) {
                        return true;
                    }
                    let said = read_to_end(stream);
                    if !said.is_empty() {
                        assert!(said.starts_with(b"HTTP/1.1 429 "));
                        refused += 1;
                    }
                    false
                });
                if all.is_empty() {
                    break;
                }
                // It is to be slow.
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(all.is_empty(), "{} are still there", all.len());
            assert_eq!(refused, ALL - LIMIT);
        },
    );
    stand.counts(r#"connections_dropped_total{reason="head"}"#, LIMIT);
}

#[test]
fn tls_that_is_left_half_open() {
    const LIMIT: usize = 150;
    const ALL: usize = 300;
    let stand = Stand::with_tls(
        "half-open-tls",
        &format!("handshakes = {LIMIT}\nconnect = \"off\""),
    );
    stand.endures(
        "300 TLS handshakes that are begun and left: 150 are dropped after 10 s, others at once",
        LIMIT as u64 * 64 * 1024,
        |_| {
            let all: Vec<_> = (0..ALL)
                .map(|number| {
                    let mut stream = stand.connect();
                    // Nothing; the head of a record; a record that a ClientHello begins in.
                    let hello = [22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3, 0, 0, 0, 0, 0];
                    let part = [0, 5, hello.len()][number % 3];
                    let _ = stream.write_all(&hello[..part]);
                    stream
                })
                .collect();
            stand.counts(
                r#"limits_refused_total{limit="handshakes",mode="enforced"}"#,
                ALL - LIMIT,
            );
            for mut stream in all {
                // Who can't be told in TLS is told nothing.
                assert!(read_to_end(&mut stream).is_empty());
            }
            let mut plain = Http::new(stand.connect());
            plain.wire.write_all(GET).unwrap();
            assert_eq!(plain.answer().expect("an answer").status, 400);
        },
    );
    stand.counts(r#"connections_dropped_total{reason="tls"}"#, LIMIT);
}

#[test]
fn heads_that_are_too_large() {
    let stand = Stand::new("large-heads", "connect = \"off\"", "");
    let many: String = (0..65).map(|n| format!("X-{n}: x\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "x".repeat(17 * 1024));
    let target = "a".repeat(17 * 1024);
    let mut heads = Vec::new();
    for path in ["/health", "/connection/websocket", "/connection/poll"] {
        for fields in [&many, &long] {
            heads.push(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        }
        heads.push(format!("GET {path}?{target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    let count = stand.endures("heads of 65 lines, or of 17 KiB: 431", 0, |users| {
        let mut count = 0;
        while count == 0 || users.want_more() {
            for head in &heads {
                for is_first in [true, false] {
                    let mut stream = stand.connect();
                    if !is_first {
                        stream.write_all(GET).unwrap();
                    }
                    let _ = stream.write_all(head.as_bytes());
                    let said = read_to_end(&mut stream);
                    let said = String::from_utf8_lossy(&said);
                    let said = said.strip_prefix("HTTP/1.1 200 OK").unwrap_or(&said);
                    let at = said.find("HTTP/1.1 ").unwrap_or_default();
                    let said = &said[at..];
                    assert!(
                        said.starts_with("HTTP/1.1 431 ") || said.starts_with("HTTP/1.1 414 "),
                        "{is_first} {said} {}",
                        &head[..60]
                    );
                    count += 1;
                }
            }
        }
        count
    });
    let name = |status| stand.number(&format!("http_errors_total{{status=\"{status}\"}}"));
    assert_eq!(name(431) + name(414), count);
}

/// What waits for the rest of a request takes memory, and when there is none left, the new are refused and the old
/// go on.
#[test]
fn memory_has_a_ceiling() {
    let stand = Stand::new("warm-up", "", "");
    let ceiling = stand.memory("VmRSS:") + 24 * 1024 * 1024;
    let stand = Stand::new(
        "ceiling",
        "connect = \"off\"",
        &format!("[limits.memory]\nmax_bytes = {ceiling}\ncheck_interval = \"10ms\"\n"),
    );
    stand.endures(
        "half requests of 60 KB until there is no memory left: 503 for new connections",
        40 * 1024 * 1024,
        |_| {
            let name = r#"limits_refused_total{limit="memory",mode="enforced"}"#;
            let mut halves = Vec::new();
            while stand.number(name) == 0 {
                assert!(halves.len() < 2_000, "they would be let in for ever");
                for _ in 0..10 {
                    let mut half = stand.connect();
                    let head = "POST /publish?channel=a HTTP/1.1\r\nHost: a\r\nContent-Length: 65000\r\n\r\n";
                    let _ = half.write_all(head.as_bytes());
                    let _ = half.write_all(&[b' '; 60_000]);
                    halves.push(half);
                }
            }
            let answer = stand.http().answer().expect("an answer");
            assert_eq!(answer.status, 503);
            assert!(answer.head.contains("Retry-After"), "{}", answer.head);
            drop(halves);
        },
    );
}

/// Nothing is set but a small ceiling: what an operator has who sets nothing, on a small machine. A stranger takes all that
/// the limits by address let him have.
#[test]
fn the_defaults_hold_a_small_machine() {
    const CEILING: u64 = 64 * 1024 * 1024;
    // Memory is measured twice a second, and meanwhile as many come as may.
    const MEANWHILE: u64 = 500 / 2 * 160 * 1024;
    let memory = format!("[limits.memory]\nmax_bytes = {CEILING}\n");
    let stand = Stand::new("defaults", "", &memory);
    let refused = |limit: &str| {
        let name = format!("limits_refused_total{{limit=\"{limit}\",mode=\"enforced\"}}");
        stand.number(&name)
    };
    stand.endures(
        "the default limits and a ceiling of 64 MiB; 500 connections a second that hold 60 KB each: 429, then 503",
        (CEILING + MEANWHILE).saturating_sub(stand.memory("VmRSS:")),
        |users| {
            // All at once that an address may have.
            while refused("connect") == 0 {
                for _ in 0..100 {
                    drop(stand.connect());
                }
            }
            let mut halves = Vec::new();
            while refused("memory") < 100 || users.want_more() {
                for _ in 0..10 {
                    let mut half = stand.connect();
                    let head = "POST /publish?channel=a HTTP/1.1\r\nHost: a\r\nContent-Length: 65000\r\n\r\n";
                    let is_in = half.write_all(head.as_bytes()).is_ok()
                        && half.write_all(&[b' '; 60_000]).is_ok();
                    if is_in && halves.len() < 8_000 {
                        halves.push(half);
                    }
                }
                // The pace of the flood.
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(halves);
        },
    );
    // Who comes then is let in, although the system counts all that to the server still.
    wait_until("it serves again", || {
        let answer = stand.http().ask("GET /health HTTP/1.1", b"");
        (answer.status == 200).then_some(())
    });
}

/// A body that never comes whole holds what came, and no more.
#[test]
fn bodies_that_never_end() {
    const ALL: usize = 300;
    let stand = Stand::new("half-bodies", "connect = \"off\"", "");
    stand.endures(
        "300 bodies, of which all but the end comes",
        ALL as u64 * 160 * 1024,
        |users| {
            let paths = ["/connection/poll", "/emulation", "/publish?channel=a"];
            let mut halves: Vec<_> = (0..ALL)
                .map(|number| {
                    let mut stream = stand.connect();
                    let path = paths[number % 3];
                    write!(
                        stream,
                        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 65000\r\n\r\n"
                    )
                    .unwrap();
                    stream.write_all(&[b' '; 64_000]).unwrap();
                    stream
                })
                .collect();
            while users.want_more() {
                std::thread::sleep(Duration::from_millis(1));
            }
            for half in &mut halves {
                half.set_nonblocking(true).unwrap();
                assert!(half.read(&mut [0]).is_err(), "it is answered too early");
            }
        },
    );
    // Too long a body is not even read.
    let mut http = stand.http();
    let answer = http.ask("POST /emulation HTTP/1.1", &[b' '; 70_000]);
    assert_eq!(answer.status, 413);
    stand.counts(r#"http_errors_total{status="413"}"#, 1);
}
