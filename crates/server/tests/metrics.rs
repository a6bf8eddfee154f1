//! What the server counts: read from one that runs, and the chapter about it, which is made from the
//! code. To take over a change, after having read it:
//! `UPDATE_REFERENCE=1 cargo test -p tautline --test metrics`.

#[path = "support/process.rs"]
mod process;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

use tautline::config::Reference;
use tautline::http::metrics::{METRICS_PREFIX, Metric, metrics};

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
    for metric in metrics() {
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
         <!-- Made from the code: change `METRICS` in crates/server/src/http/metrics/table/, then run\n\
         UPDATE_REFERENCE=1 cargo test -p tautline --test metrics -->\n\n\
         With `prometheus.enabled = true` (and in `tautline dev`) the server answers `GET /metrics` in the text format of \
         Prometheus. Workers count for themselves, and are asked when somebody reads; nothing but what tunnels carry is counted with atomics. The \
         numbers are told to everybody who reaches the server, so keep strangers from that path in your proxy.\n\n\
         All names but those of the process begin with `{METRICS_PREFIX}`; what is behind that is what Centrifugo calls it, where it has the same. \
         Histograms have the bounds 0.1 ms to 10 s. What clients send makes no new time series: labels are what the code knows, and of codes (which \
         applications and operators may choose) at most 1,000 are told apart.\n\n\
         | name | type | labels | |\n|---|---|---|---|\n"
    );
    for Metric {
        name,
        kind,
        labels,
        help,
        ..
    } in metrics()
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

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A limit whose metric, option or dry run is called otherwise than the book says can't be looked after.
#[test]
fn what_the_book_says_of_limits_is_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
    let book = std::fs::read_to_string(path).expect("the chapter is there");
    let reference = Reference::built_in();
    let is_option = |path: &str| {
        let (table, name) = path.rsplit_once('.').unwrap_or_default();
        reference.tables.iter().any(|known| {
            let has_it = || known.options.iter().any(|option| option.name == name);
            known.name == path || known.name == table && has_it()
        })
    };
    let page = page();
    let mut dry_runs = 0;
    let rows = book.lines().filter(|line| line.starts_with("| "));
    for row in rows.skip(1) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [what, limit, option, per, beyond, metric, report_only] = cells[..] else {
            panic!("expected seven cells: {row}");
        };
        // A limit without a metric says by a dash that nothing is lost there.
        let is_said = [what, limit, per, beyond, metric]
            .iter()
            .all(|cell| !cell.is_empty());
        assert!(is_said, "{row}");
        for option in quoted(option).chain(quoted(report_only)) {
            assert!(
                !option.contains('.') || is_option(option),
                "{option}: {row}"
            );
        }
        assert!(
            metric == "–" || quoted(metric).next().is_some(),
            "neither a metric nor a dash: {row}"
        );
        for name in quoted(metric) {
            // Those of which every label is there from the start.
            if ["limits_refused_total{", "connections_dropped_total{"]
                .iter()
                .any(|known| name.starts_with(known))
            {
                let sample = format!("{METRICS_PREFIX}{}", name.trim_end_matches('}'));
                assert!(page.contains(&sample), "{sample}: {row}");
            }
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let metric = metrics().find(|metric| metric.name == name);
            let metric = metric.unwrap_or_else(|| panic!("{name}: {row}"));
            let label = labels.split('=').next().unwrap_or_default();
            assert!(label.is_empty() || metric.labels.contains(&label), "{row}");
        }
        dry_runs += usize::from(!report_only.is_empty());
        // What can be tried out is counted.
        assert!(report_only.is_empty() || metric != "–", "{row}");
    }
    assert!(dry_runs >= 15, "{dry_runs}");
    // All that is counted as refused by a limit is in it.
    for line in page
        .lines()
        .filter(|line| line.starts_with("tautline_limits_refused_total{"))
    {
        let limit = line.split('"').nth(1).expect("a limit");
        let is_told = book.contains(&format!("{{limit=\"{limit}\"}}")) || limit == "stalled";
        assert!(is_told, "{line}");
    }
}

fn page() -> String {
    let config = "[client]\ninsecure = true\n[prometheus]\nenabled = true\n";
    get(&Server::serve("metrics-limits", config), "/metrics")
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
