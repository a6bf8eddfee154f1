//! What must hold for everything that reads the opening handshake, whatever comes. The fuzz target
//! `handshake` calls this with what it invents, and an ordinary test with the corpus.

use tautline_websocket::proto::deflate::{Agreement, ClientConfig, ServerConfig};
use tautline_websocket::proto::handshake::{
    AcceptKey, ClientRequest, HeadLimits, RequestHead, ResponseHead, Url,
};

/// The first byte chooses what reads the rest.
pub(crate) fn check(data: &[u8]) {
    let [what, rest @ ..] = data else {
        return;
    };
    match what % 5 {
        0 => request(rest),
        1 => response(rest),
        2 => url(&String::from_utf8_lossy(rest)),
        3 => offer(*what, &String::from_utf8_lossy(rest)),
        _ => answer(*what, &String::from_utf8_lossy(rest)),
    }
}

/// Small, so that the fuzzer gets there.
const LIMITS: HeadLimits = HeadLimits {
    max_bytes: 600,
    max_headers: 12,
};

fn request(bytes: &[u8]) {
    let Ok(Some(head)) = RequestHead::parse(bytes, &LIMITS) else {
        return;
    };
    assert!(head.len() <= bytes.len() && head.len() <= LIMITS.max_bytes);
    assert!(head.headers().count() <= LIMITS.max_headers);
    // Whatever its beginning was, it could still become this.
    for len in 0..head.len() {
        let part = RequestHead::parse(&bytes[..len], &LIMITS);
        assert!(matches!(part, Ok(None)), "at {len}: {part:?}");
    }
    let mut answer = Vec::new();
    match head.opening() {
        Err(error) => {
            error.refusal().write_http1(&mut answer);
            let status = response_status(&answer);
            assert!((400..600).contains(&status), "{status}");
        }
        Ok(opening) => {
            let agreement = opening.select_deflate(&ServerConfig::default());
            let subprotocol = opening.subprotocols().first().copied();
            let acceptance = opening.accept(subprotocol).with_deflate(agreement);
            acceptance.write_http1(&mut answer);
            assert_eq!(response_status(&answer), 101);
        }
    }
}

fn response_status(bytes: &[u8]) -> u16 {
    let head = ResponseHead::parse(bytes, &HeadLimits::default());
    head.expect("good").expect("whole").status()
}

fn response(bytes: &[u8]) {
    let Ok(Some(head)) = ResponseHead::parse(bytes, &LIMITS) else {
        return;
    };
    assert!(head.len() <= bytes.len() && head.len() <= LIMITS.max_bytes);
    for len in 0..head.len() {
        let part = ResponseHead::parse(&bytes[..len], &LIMITS);
        assert!(matches!(part, Ok(None)), "at {len}: {part:?}");
    }
    let url = "ws://example.com/".parse().expect("a URL");
    let request = ClientRequest::new(&url, *b"the sample nonce")
        .with_subprotocol("chat")
        .and_then(|request| request.with_extension("permessage-deflate"))
        .expect("a request");
    if let Ok(agreed) = request.check(&head) {
        let accept = head.header("Sec-WebSocket-Accept").expect("checked");
        assert_eq!(
            accept.trim_ascii(),
            AcceptKey::answer(request.key()).as_str().as_bytes()
        );
        assert!(agreed.subprotocol.is_none_or(|name| name == "chat"));
        assert!(
            agreed
                .extensions
                .iter()
                .all(|e| e.starts_with("permessage-deflate"))
        );
        let _ = ClientConfig::default().check(agreed.extensions.iter().copied());
    }
}

/// What was understood is understood again when it is written down.
fn url(text: &str) {
    let Ok(url) = text.parse::<Url>() else {
        return;
    };
    let scheme = if url.is_secure() { "wss" } else { "ws" };
    let again = format!("{scheme}://{}{}", url.authority(), url.target());
    assert_eq!(again.parse::<Url>().as_ref(), Ok(&url), "{text:?}");
    let mut request = Vec::new();
    ClientRequest::new(&url, [0; 16]).write_http1(&mut request);
    let head = RequestHead::parse(&request, &HeadLimits::default());
    let head = head.expect("good").expect("whole");
    assert_eq!(head.target(), url.target());
    let opening = head.opening().expect("an opening request");
    assert_eq!(opening.host(), url.authority());
}

/// What a server agrees to is within what it wants and what was offered, and a client with that
/// offer understands the answer.
fn offer(what: u8, header: &str) {
    let wanted = ServerConfig {
        server_no_context_takeover: what & 8 != 0,
        client_no_context_takeover: what & 16 != 0,
        server_max_window_bits: if what & 32 == 0 { 15 } else { 10 },
        client_max_window_bits: if what & 64 == 0 { 15 } else { 9 },
    };
    let Some(agreed) = wanted.accept([header]) else {
        return;
    };
    within(&agreed);
    assert!(agreed.server_max_window_bits <= wanted.server_max_window_bits);
    assert!(agreed.server_no_context_takeover >= wanted.server_no_context_takeover);
    assert!(agreed.client_no_context_takeover >= wanted.client_no_context_takeover);
    assert!(
        agreed.client_max_window_bits <= wanted.client_max_window_bits
            || agreed.client_no_context_takeover,
        "a window that the server didn't want to keep: {agreed:?}"
    );
    let answer = agreed.to_string();
    let client = ClientConfig::default();
    assert_eq!(
        client.check([answer.as_str()]),
        Ok(Some(agreed)),
        "{answer}"
    );
}

fn answer(what: u8, header: &str) {
    let offered = ClientConfig {
        server_no_context_takeover: what & 8 != 0,
        client_no_context_takeover: what & 16 != 0,
        server_max_window_bits: (what & 32 != 0).then_some(10),
        offer_client_max_window_bits: what & 64 != 0,
    };
    if let Ok(Some(agreed)) = offered.check([header]) {
        within(&agreed);
        assert!(agreed.server_no_context_takeover >= offered.server_no_context_takeover);
        assert!(agreed.client_no_context_takeover >= offered.client_no_context_takeover);
        assert!(agreed.server_max_window_bits <= offered.server_max_window_bits.unwrap_or(15));
        assert!(offered.offer_client_max_window_bits || agreed.client_max_window_bits == 15);
    }
}

fn within(agreed: &Agreement) {
    assert!(
        (8..=15).contains(&agreed.server_max_window_bits),
        "{agreed:?}"
    );
    assert!(
        (8..=15).contains(&agreed.client_max_window_bits),
        "{agreed:?}"
    );
}
