//! What the server counts: read from one that runs, and the chapter about it, which is made from the
//! code. To take over a change, after having read it:
//! `UPDATE_REFERENCE=1 cargo test -p tautline --test metrics`.

#[path = "support/process.rs"]
mod process;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

use tautline::http::metrics::{METRICS, METRICS_PREFIX, Metric};

use self::process::Server;

fn get(server: &Server, path: &str) -> String {
    let mut stream = server.connect();
    let address = server.address;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .expect("the server takes a request");
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .expect("the server answers");
    response
}

/// The number behind a name and its labels, or 0.
fn number(page: &str, name: &str) -> f64 {
    let name = format!("{METRICS_PREFIX}{name} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&name));
    found.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn what_happens_is_counted() {
    let server = Server::dev();
    let before = get(&server, "/metrics");
    assert!(before.starts_with("HTTP/1.1 200 "), "{before}");
    assert!(before.contains("text/plain; version=0.0.4"), "{before}");
    for metric in METRICS {
        let (name, kind) = (metric.full_name(), metric.kind);
        assert!(
            before.contains(&format!("# TYPE {name} {kind}\n")),
            "{name}"
        );
    }
    #[cfg(target_os = "linux")]
    assert!(before.contains("\nprocess_open_fds "), "{before}");
    for _ in 0..3 {
        server.api("publish", r#"{"channel":"lobby","data":1}"#);
    }
    server.api("publish", r#"{"channel":"nobody:1","data":1}"#);
    server.api("batch", r#"{"commands":[{"info":{}},{"info":{}}]}"#);
    assert!(get(&server, "/api/info").starts_with("HTTP/1.1 401 "));
    let page = get(&server, "/metrics");
    let count = "api_command_duration_seconds_histogram_count";
    for (name, expected) in [
        (
            format!("{count}{{protocol=\"http\",method=\"publish\"}}"),
            4.0,
        ),
        (format!("{count}{{protocol=\"http\",method=\"info\"}}"), 2.0),
        (
            "api_command_errors_total{protocol=\"http\",method=\"publish\",error=\"102\"}"
                .to_owned(),
            1.0,
        ),
        ("api_refused_total{status=\"401\"}".to_owned(), 1.0),
    ] {
        assert!(
            (number(&page, &name) - expected).abs() < f64::EPSILON,
            "{name}\n{page}"
        );
    }
}

#[test]
fn strangers_see_nothing_unless_they_may() {
    let config = "[http_api]\nkey = \"k\"\n[client]\ninsecure = true\n";
    let server = Server::serve("metrics-off", config);
    assert!(get(&server, "/metrics").starts_with("HTTP/1.1 404 "));
    let server = Server::serve(
        "metrics-on",
        &format!("{config}[prometheus]\nenabled = true\n"),
    );
    assert!(get(&server, "/metrics").starts_with("HTTP/1.1 200 "));
}

fn chapter() -> String {
    let mut text = format!(
        "# Metrics\n\n\
         <!-- Made from the code: change `METRICS` in crates/server/src/http/metrics/table.rs, then run\n\
         UPDATE_REFERENCE=1 cargo test -p tautline --test metrics -->\n\n\
         With `prometheus.enabled = true` (and in `tautline dev`) the server answers `GET /metrics` in the text format of \
         Prometheus. Workers count for themselves, and are asked when somebody reads; nothing but what tunnels carry is counted with atomics. The \
         numbers are told to everybody who reaches the server, so keep strangers from that path in your proxy.\n\n\
         All names but those of the process begin with `{METRICS_PREFIX}`; what is behind that is what Centrifugo calls it, where it has the same. \
         Histograms have the bounds 0.1 ms to 10 s.\n\n\
         | name | type | labels | |\n|---|---|---|---|\n"
    );
    for Metric {
        name,
        kind,
        labels,
        help,
        ..
    } in METRICS
    {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            text,
            "| `{name}` | {kind} | {} | {help} |",
            labels.join(", ")
        );
    }
    text
}

#[test]
fn the_book_explains_each_reason_to_refuse_a_token() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tokens.md");
    let book = std::fs::read_to_string(path).expect("the chapter is there");
    let reasons = book
        .split_once("## When one is refused")
        .expect("the section")
        .1;
    for refusal in tautline_hub::TokenRefusal::ALL {
        let name = refusal.name();
        let rows = reasons.lines().filter(|line| line.starts_with("| `"));
        let explained = rows.filter(|row| row.contains(&format!("`{name}`")));
        assert_eq!(explained.count(), 1, "{name}");
    }
}

#[test]
fn the_book_has_the_metrics_that_the_code_has() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let expected = chapter();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &expected).expect("the chapter can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "docs/metrics.md is not what the code says; to take it over: \
         UPDATE_REFERENCE=1 cargo test -p tautline --test metrics"
    );
}
