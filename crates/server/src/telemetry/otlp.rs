//! Spans as collectors read them: `ExportTraceServiceRequest` of OTLP 1, in JSON.

use serde_json::{Value, json};

use super::context::write_hex;
use super::{Attribute, Finished, Kind};

/// Whose spans they are.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) service: String,
    pub(super) node: String,
}

/// The body of a request.
pub(super) fn request(resource: &Resource, spans: &[Finished]) -> Vec<u8> {
    let spans: Vec<_> = spans.iter().map(span).collect();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [
            text("service.name", &resource.service),
            text("service.version", crate::VERSION),
            text("service.instance.id", &resource.node),
        ]},
        "scopeSpans": [{
            "scope": {"name": "tautline", "version": crate::VERSION},
            "spans": spans,
        }],
    }]});
    body.to_string().into_bytes()
}

fn span(span: &Finished) -> Value {
    let attributes = span.attributes.iter();
    let attributes: Vec<_> = attributes
        .map(|Attribute(key, value)| text(key, value))
        .chain(span.numbers.iter().map(|(key, value)| number(key, *value)))
        .collect();
    let mut value = json!({
        "traceId": id(&span.context.trace()),
        "spanId": id(&span.context.span()),
        "name": span.name,
        // Of `SpanKind`.
        "kind": match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
        // As texts: numbers of 64 bits are, in the JSON of Protobuf.
        "startTimeUnixNano": span.start.as_nanos().to_string(),
        "endTimeUnixNano": (span.start + span.took).as_nanos().to_string(),
        "attributes": attributes,
    });
    if let Some(parent) = &span.parent {
        value["parentSpanId"] = id(parent).into();
    }
    if let Some(error) = &span.error {
        // `STATUS_CODE_ERROR`.
        value["status"] = json!({"code": 2, "message": error});
    }
    value
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// A number, of 64 bits and so a text.
fn number(key: &str, value: u64) -> Value {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

/// In hexadecimal, other than bytes elsewhere in the JSON of Protobuf.
fn id(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    let _ = write_hex(&mut text, bytes);
    text
}
