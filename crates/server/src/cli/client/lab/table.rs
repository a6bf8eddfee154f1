//! The figures as a table for people, and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::tally::Figures;
use super::ways::Way;

/// What was asked for, and what has come of it so far.
pub(super) struct Report {
    pub(super) rate: u64,
    pub(super) clients: usize,
    pub(super) poll: Duration,
    /// Published so far.
    pub(super) published: u64,
    /// How long that took.
    pub(super) elapsed: Duration,
    /// In the order of [`Way::ALL`].
    pub(super) ways: Vec<Figures>,
}

impl Report {
    /// Lines of at most 100 characters; always as many.
    pub(super) fn table(&self) -> String {
        let Self { rate, clients, .. } = *self;
        let (published, seconds) = (thousands(self.published), self.elapsed.as_secs_f64());
        let each = if clients == 1 {
            "1 client each way".to_owned()
        } else {
            format!("{clients} clients each way")
        };
        let mut text = format!(
            "{published} messages in {seconds:.1} s, {rate} a second, to {each}, polling every {}\n\n",
            time(self.poll)
        );
        let _ = writeln!(
            text,
            "{:<13}{:>9}{:>9}{:>10}{:>11}{:>11}{:>12}{:>12}{:>12}",
            "",
            "p50",
            "p99",
            "requests",
            "sent",
            "received",
            "B/message",
            "server CPU",
            "client CPU"
        );
        for (way, figures) in Way::ALL.iter().zip(&self.ways) {
            let or_none = |time: Option<String>| time.unwrap_or_else(|| "–".to_owned());
            let whole = figures.sent + figures.received;
            let each = whole.checked_div(figures.heard).map(thousands);
            let _ = writeln!(
                text,
                "{:<13}{:>9}{:>9}{:>10}{:>11}{:>11}{:>12}{:>12}{:>12}",
                way.title(),
                or_none(figures.p50.map(time)),
                or_none(figures.p99.map(time)),
                thousands(figures.requests),
                size(figures.sent),
                size(figures.received),
                or_none(each),
                or_none(figures.server_cpu.map(time)),
                or_none(figures.client_cpu.map(time)),
            );
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
        let ways = Way::ALL.iter().zip(&self.ways).map(|(way, figures)| {
            json!({
                "way": way.name(),
                "messages": figures.heard,
                "missing": self.expected().saturating_sub(figures.heard),
                "latency_ms": {"p50": millis(figures.p50), "p99": millis(figures.p99)},
                "requests": figures.requests,
                "bytes": {"sent": figures.sent, "received": figures.received},
                "cpu_ms": {
                    "server": millis(figures.server_cpu),
                    "client": millis(figures.client_cpu),
                },
            })
        });
        json!({
            "published": self.published,
            "seconds": self.elapsed.as_secs_f64(),
            "rate": self.rate,
            "clients": self.clients,
            "poll_seconds": self.poll.as_secs_f64(),
            "ways": ways.collect::<Vec<_>>(),
        })
    }

    /// Ways whose clients didn't get everything.
    pub(super) fn incomplete(&self) -> Vec<Way> {
        let ways = Way::ALL.iter().zip(&self.ways);
        ways.filter(|(_, figures)| figures.heard < self.expected())
            .map(|(way, _)| *way)
            .collect()
    }

    /// What all clients of a way together should get.
    fn expected(&self) -> u64 {
        self.published * self.clients as u64
    }
}

/// Three digits or so.
fn time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.2} ms"),
        10.0..100.0 => format!("{millis:.1} ms"),
        100.0..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1e3),
    }
}

fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    if bytes < 1024 {
        format!("{bytes} B")
    } else if kib < 1000.0 {
        format!("{kib:.1} KiB")
    } else {
        format!("{:.1} MiB", kib / 1024.0)
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_well_and_fits_a_terminal() {
        let way = Figures {
            heard: 1000,
            requests: 110,
            sent: 12_345,
            received: 1_234_567,
            p50: Some(Duration::from_micros(240)),
            p99: Some(Duration::from_millis(1020)),
            server_cpu: Some(Duration::from_micros(41_300)),
            client_cpu: None,
        };
        let report = Report {
            rate: 10,
            clients: 10,
            poll: Duration::from_secs(1),
            published: 100,
            elapsed: Duration::from_secs(10),
            ways: vec![way, Figures::default()],
        };
        let expected = "\
100 messages in 10.0 s, 10 a second, to 10 clients each way, polling every 1.00 s

                   p50      p99  requests       sent   received   B/message  server CPU  client CPU
polling        0.24 ms   1.02 s       110   12.1 KiB    1.2 MiB       1,246     41.3 ms           –
long-polling         –        –         0        0 B        0 B           –           –           –
";
        assert_eq!(report.table(), expected);
        for line in expected.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert_eq!(report.incomplete(), [Way::LongPolling]);
    }
}
