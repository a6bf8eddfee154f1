//! What the server counts, for Prometheus: `GET /metrics`.
//!
//! Every worker counts for itself, without atomics; the counts are added up when somebody asks. Names
//! and labels are those of Centrifugo, behind a prefix of our own, so that dashboards need a search and
//! replace. [`metrics`] is what there is, and what the chapter about metrics is made from.

mod numbers;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::{HeaderValue, Method, StatusCode};

use tautline_hub::Durations;
pub(crate) use tautline_hub::{FineHistogram, Histogram};

pub(crate) use self::numbers::{AcmeNumbers, TunnelNumbers};
pub use self::numbers::{
    CallCounters, Http2Counters, ProxyNumbers, QueueNumbers, ReloadNumbers, Snapshot,
};
pub use self::table::metrics;
use super::respond::{self, Response};

/// Where they are.
pub(crate) const PATH: &str = "/metrics";

/// What a family of numbers is.
pub struct Metric {
    /// Its name, behind the prefix.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What its numbers are told apart by.
    pub labels: &'static [&'static str],
    /// What is counted.
    pub help: &'static str,
    write: fn(&Snapshot, &mut Samples<'_>),
}

impl Metric {
    /// Its name as it is told: with a prefix, but for those of the process, which are called alike everywhere.
    pub fn full_name(&self) -> String {
        let prefix = if self.name.starts_with("process_") {
            ""
        } else {
            METRICS_PREFIX
        };
        format!("{prefix}{}", self.name)
    }
}

/// What stands before every name but those of the process.
pub const METRICS_PREFIX: &str = "tautline_";

/// Where the numbers of one metric go.
struct Samples<'a> {
    metric: &'a Metric,
    out: &'a mut String,
}

impl Samples<'_> {
    fn number(&mut self, value: u64) {
        self.labelled(&[], value);
    }

    /// One that may not be known.
    fn maybe(&mut self, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.line("", &[], &[], value);
        }
    }

    fn labelled(&mut self, values: &[&str], value: u64) {
        self.line("", values, &[], value);
    }

    fn histogram<const FINE: bool>(&mut self, values: &[&str], histogram: &Durations<FINE>) {
        let mut total = 0;
        let bounds = Durations::<FINE>::BOUNDS.iter().map(ToString::to_string);
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (count, bound) in histogram.counts().iter().zip(bounds) {
            total += count;
            self.line("_bucket", values, &[("le", &bound)], total);
        }
        let (_, sum) = histogram.total();
        self.line("_sum", values, &[], sum.as_secs_f64());
        self.line("_count", values, &[], total);
    }

    fn line(
        &mut self,
        suffix: &str,
        values: &[&str],
        more: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        let labels = self.metric.labels;
        let _ = write!(self.out, "{}{suffix}", self.metric.full_name());
        let labels = labels.iter().copied().zip(values.iter().copied());
        for (index, (label, text)) in labels.chain(more.iter().copied()).enumerate() {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{open}{label}=\"{text}\"");
        }
        if !values.is_empty() || !more.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

/// The page, in the text format of Prometheus.
pub(crate) fn page(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for metric in metrics() {
        let Metric { kind, help, .. } = metric;
        let name = metric.full_name();
        let _ = writeln!(out, "# HELP {name} {help}");
        let _ = writeln!(out, "# TYPE {name} {kind}");
        let mut samples = Samples {
            metric,
            out: &mut out,
        };
        (metric.write)(snapshot, &mut samples);
    }
    out
}

/// What was counted so far, over all labels: counters by their names without the prefix, and of each histogram
/// how many there were (`_count`). Those of the process, which aren't whole numbers, are left out.
pub(crate) fn totals(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let metrics =
        metrics().filter(|metric| metric.kind != "gauge" && !metric.name.starts_with("process_"));
    let total = |metric: &Metric| {
        let mut out = String::new();
        let mut samples = Samples {
            metric,
            out: &mut out,
        };
        (metric.write)(snapshot, &mut samples);
        let suffix = if metric.kind == "histogram" {
            "_count"
        } else {
            ""
        };
        let name = format!("{}{suffix}", metric.full_name());
        let values = out.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let is_it = sample.split('{').next() == Some(&name);
            is_it.then(|| value.parse::<u64>().ok()).flatten()
        });
        (format!("{}{suffix}", metric.name), values.sum())
    };
    metrics.map(total).collect()
}

/// The answer to a request for it.
pub(crate) fn respond(method: &Method, snapshot: &Snapshot) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return respond::method_not_allowed("GET, HEAD");
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    respond::with_body(StatusCode::OK, kind, page(snapshot).into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_page_is_one_that_prometheus_reads() {
        let mut snapshot = Snapshot {
            clients: 2,
            ..Snapshot::default()
        };
        snapshot.disconnects.insert(3503, 4);
        let millis = Duration::from_millis;
        let mut other = CallCounters::default();
        other.executed("publish", 0, millis(1));
        other.executed("publish", 102, millis(3));
        other.refused(StatusCode::UNAUTHORIZED);
        snapshot
            .calls
            .executed("publish", 0, Duration::from_secs(20));
        snapshot.calls.add(&other);
        let page = page(&snapshot);
        let call = "tautline_api_command_duration_seconds_histogram";
        let labels = "protocol=\"http\",method=\"publish\"";
        for line in [
            "# TYPE tautline_node_num_clients gauge".to_owned(),
            "tautline_node_num_clients 2".to_owned(),
            "tautline_client_num_server_disconnects{code=\"3503\"} 4".to_owned(),
            format!("# TYPE {call} histogram"),
            format!("{call}_bucket{{{labels},le=\"0.0005\"}} 0"),
            format!("{call}_bucket{{{labels},le=\"0.001\"}} 1"),
            format!("{call}_bucket{{{labels},le=\"0.005\"}} 2"),
            format!("{call}_bucket{{{labels},le=\"10\"}} 2"),
            format!("{call}_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("{call}_sum{{{labels}}} 20.004"),
            format!("{call}_count{{{labels}}} 3"),
            format!("tautline_api_command_errors_total{{{labels},error=\"102\"}} 1"),
            "tautline_api_refused_total{status=\"401\"} 1".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for Metric {
            name, kind, help, ..
        } in metrics()
        {
            let is_fine = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '_');
            assert!(
                name.starts_with(|char: char| char.is_ascii_lowercase())
                    && name.chars().all(is_fine),
                "{name}"
            );
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
            assert!(["counter", "gauge", "histogram"].contains(kind), "{name}");
        }
    }
}
