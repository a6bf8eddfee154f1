//! The metrics: what each is called, what it counts, and where its numbers come from. A file a subject.

mod backend;
mod clients;
mod http;
mod limits;
mod node;
mod traffic;

use super::Metric;

/// All there is.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    PARTS.into_iter().flatten()
}

const PARTS: [&[Metric]; 6] = [
    node::METRICS,
    clients::METRICS,
    traffic::METRICS,
    limits::METRICS,
    http::METRICS,
    backend::METRICS,
];
