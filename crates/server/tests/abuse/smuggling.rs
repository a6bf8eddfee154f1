//! Requests of which a proxy and a server could disagree where they end. What is hidden behind or in them is a
//! publication, which must never happen.

use std::io::Write as _;

use serde_json::json;

use crate::stand::Stand;
use crate::wire::read_to_end;

const HIDDEN: &str =
    "POST /publish?channel=hidden HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1";
const GET: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

/// A request whose head has these fields.
fn publish(fields: &str, body: &str) -> String {
    format!("POST /publish?channel=seen HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn upgrade(version: &str, fields: &str) -> String {
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// Forms, and the statuses that answer them. All but the first are refused, and the connection ends.
fn forms() -> Vec<(&'static str, String, &'static [u16])> {
    let mut forms: Vec<(&'static str, String, &'static [u16])> = Vec::new();
    let chunked = "0\r\n\r\n";
    // Both lengths: the coding counts, and nothing behind it (RFC 9112, section 6.1). No body is no JSON.
    for (name, fields) in [
        (
            "CL.TE",
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "TE.CL",
            "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        ),
        (
            "CL.TE.CL",
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n",
        ),
        (
            "bare LF",
            "X: a\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        ),
    ] {
        forms.push((name, publish(fields, chunked), &[400]));
    }
    for (name, fields) in [
        ("two lengths", "Content-Length: 1\r\nContent-Length: 2\r\n"),
        ("a list of lengths", "Content-Length: 1, 2\r\n"),
        ("the same length in a list", "Content-Length: 1, 1\r\n"),
        ("a signed length", "Content-Length: +1\r\n"),
        ("a negative length", "Content-Length: -1\r\n"),
        ("a hexadecimal length", "Content-Length: 0x1\r\n"),
        ("a length with a space", "Content-Length: 1 1\r\n"),
        ("an empty length", "Content-Length: \r\n"),
        (
            "a length beyond 64 bits",
            "Content-Length: 18446744073709551617\r\n",
        ),
        ("another coding", "Transfer-Encoding: identity\r\n"),
        (
            "chunks not last",
            "Transfer-Encoding: chunked, identity\r\n",
        ),
        (
            "chunks not last, in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        ),
        ("no coding at all", "Transfer-Encoding: xchunked\r\n"),
        ("a quoted coding", "Transfer-Encoding: \"chunked\"\r\n"),
        (
            "a coding with a parameter",
            "Transfer-Encoding: chunked;q=1\r\n",
        ),
        (
            "a coding behind a tabulator of the other kind",
            "Transfer-Encoding: \x0bchunked\r\n",
        ),
        (
            "a space before the colon",
            "Transfer-Encoding : chunked\r\n",
        ),
        (
            "a space before the colon of the length",
            "Content-Length : 1\r\n",
        ),
        ("a folded line", "X: a\r\n Content-Length: 1\r\n"),
        ("a folded coding", "Transfer-Encoding:\r\n chunked\r\n"),
        ("a bare CR", "X: a\rContent-Length: 1\r\n"),
        ("a null", "X: a\0b\r\n"),
        ("no colon", "Content-Length 1\r\n"),
        ("no name", ": 1\r\n"),
    ] {
        forms.push((name, publish(fields, "1"), &[400]));
    }
    for (name, fields) in [
        (
            "a coding beside chunks",
            "Transfer-Encoding: gzip, chunked\r\n",
        ),
        ("chunks twice", "Transfer-Encoding: chunked, chunked\r\n"),
        (
            "chunks in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
    ] {
        forms.push((name, publish(fields, chunked), &[400, 501]));
    }
    for (name, chunks) in [
        ("a signed chunk", "+1\r\n1\r\n0\r\n\r\n"),
        ("a negative chunk", "-1\r\n1\r\n0\r\n\r\n"),
        ("a chunk in C's hexadecimal", "0x1\r\n1\r\n0\r\n\r\n"),
        (
            "a chunk beyond 64 bits",
            "10000000000000001\r\n1\r\n0\r\n\r\n",
        ),
        ("a chunk behind a bare LF", "1\n1\r\n0\r\n\r\n"),
        (
            "a chunk behind an extension with a LF",
            "1;a\nb\r\n1\r\n0\r\n\r\n",
        ),
        (
            "a chunk that is longer than it says",
            "1\r\n11\r\n0\r\n\r\n",
        ),
        ("a chunk without a length", "\r\n1\r\n0\r\n\r\n"),
        ("chunks that are none", "zz\r\n1\r\n0\r\n\r\n"),
    ] {
        let form = publish("Transfer-Encoding: chunked\r\n", chunks);
        forms.push((name, form, &[400]));
    }
    let long = format!("1;{}\r\n1\r\n0\r\n\r\n", "x".repeat(20_000));
    forms.push((
        "an extension of 20 KB",
        publish("Transfer-Encoding: chunked\r\n", &long),
        &[400],
    ));
    let length = HIDDEN.len();
    for (name, form, statuses) in [
        (
            "chunks in HTTP/1.0",
            format!("POST /publish?channel=seen HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
            &[400][..],
        ),
        ("no host", "POST /publish?channel=seen HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1".to_owned(), &[400]),
        (
            "two hosts",
            publish("Host: b\r\nContent-Length: 1\r\nConnection: close\r\n", "1"),
            &[400],
        ),
        ("a body of a GET", format!("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"), &[200]),
        ("an upgrade with a body", upgrade("13", &format!("Content-Length: {length}\r\n")), &[400]),
        ("an upgrade with chunks", upgrade("13", "Transfer-Encoding: chunked\r\n"), &[400]),
        ("an upgrade that is refused", upgrade("14", ""), &[426]),
        ("spaces in the first line", "POST  /publish?channel=seen HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1".to_owned(), &[400]),
        ("a tabulator in the first line", "POST\t/publish?channel=seen HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1".to_owned(), &[400]),
        ("another version", "POST /publish?channel=seen HTTP/1.2\r\nHost: a\r\nContent-Length: 1\r\n\r\n1".to_owned(), &[400, 505]),
        ("no version", "POST /publish?channel=seen\r\nHost: a\r\nContent-Length: 1\r\n\r\n1".to_owned(), &[400]),
        ("a space before the first line", " POST /publish?channel=seen HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1".to_owned(), &[400]),
    ] {
        forms.push((name, form, statuses));
    }
    forms
}

#[test]
fn hidden_requests() {
    let stand = Stand::new("smuggling", "connect = \"off\"\nrequests = \"off\"", "");
    let forms = forms();
    let what = format!(
        "{} forms of request smuggling: 400, 426 or 501, and the connection ends",
        forms.len()
    );
    let count = stand.endures(&what, 0, |users| {
        let mut count = 0;
        while count == 0 || users.want_more() {
            for (name, form, statuses) in &forms {
                // As the first request, which our own parser sees, and behind another, which the library's does.
                for before in ["", GET] {
                    let mut stream = stand.connect();
                    let sent = [before, form, HIDDEN, HIDDEN].concat();
                    let _ = stream.write_all(sent.as_bytes());
                    let said = read_to_end(&mut stream);
                    let said = String::from_utf8_lossy(&said);
                    let mut answers = said.split("HTTP/1.1 ").skip(1);
                    if !before.is_empty() {
                        let first = answers.next().unwrap_or_default();
                        assert!(first.starts_with("200 "), "{name}: {said}");
                    }
                    // Some say in their body what HTTP/1.1 is.
                    let status = answers.filter_map(|answer| answer.get(..3)?.parse().ok());
                    let status: Vec<u16> = status.collect();
                    assert!(
                        status.len() == 1 && statuses.contains(&status[0]),
                        "{name} behind {before:?}: {said}"
                    );
                    count += usize::from(status[0] >= 400);
                }
            }
        }
        count
    });
    let hidden = stand.api("history", &json!({"channel": "hidden", "limit": 1}));
    assert_eq!(hidden["result"]["publications"], json!([]), "{hidden}");
    let all: u64 = [400, 426, 501, 505]
        .iter()
        .map(|status| stand.number(&format!("http_errors_total{{status=\"{status}\"}}")))
        .sum();
    assert_eq!(all, count as u64);
}

/// The same publication, not hidden: so it would have been seen above.
#[test]
fn a_request_behind_another_is_one() {
    let stand = Stand::new("pipelined", "", "");
    for form in [
        publish("Content-Length: 1\r\n", "1"),
        publish("Content-Length: 1\r\nContent-Length: 1\r\n", "1"),
        publish("Transfer-Encoding: Chunked\r\n", "1;a=b\r\n1\r\n0\r\n\r\n"),
        publish(
            "Transfer-Encoding: \t chunked\r\n",
            "1\r\n1\r\n0\r\nTrailer: x\r\n\r\n",
        ),
    ] {
        let mut stream = stand.connect();
        let last = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let sent = [&form, HIDDEN, &last].concat();
        stream.write_all(sent.as_bytes()).unwrap();
        let said = read_to_end(&mut stream);
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.matches("HTTP/1.1 200 ").count(), 3, "{form}: {said}");
    }
    let hidden = stand.api("history", &json!({"channel": "hidden", "limit": 10}));
    let all = hidden["result"]["publications"].as_array().unwrap().len();
    assert_eq!(all, 4, "{hidden}");
    // A protocol that isn't spoken is no upgrade (h2c smuggling).
    let mut stream = stand.connect();
    let form = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
                HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    stream.write_all(form.as_bytes()).unwrap();
    let said = read_to_end(&mut stream);
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
}
