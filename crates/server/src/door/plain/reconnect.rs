//! What an `EventSource` is told that is to come back later.
//!
//! A browser's `EventSource` is over for good when it gets any status but 200 (the HTML standard, section 9.2.3), and its
//! page would have to notice. So what is temporary is told in a stream that ends at once, with the time after which the
//! browser comes back by itself.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::voice::say_end;
use crate::http::respond;
use crate::worker::voice::{Framing, Speech};

/// Tells those that are refused when to come back: each at a moment of its own, as those who were refused together would
/// come back together.
#[derive(Debug, Default)]
pub(crate) struct Reconnects(AtomicU32);

/// The shortest time, in milliseconds, where nothing says how long, and how much longer it may be.
const SHORTEST: u32 = 1000;
const SPREAD: u32 = 4000;

impl Reconnects {
    /// Whether a request is an `EventSource`'s: each has this header, as the standard has it.
    pub(crate) fn are_for(headers: &HeaderMap) -> bool {
        let accepts = headers.get_all(header::ACCEPT).iter();
        let mut accepts = accepts.filter_map(|accepts| accepts.to_str().ok());
        accepts.any(|accepts| accepts.contains(EVENT_STREAM))
    }

    /// The answer that leads a browser back, in place of one that is temporary; any other stays.
    pub(crate) fn answer(&self, refusal: respond::Response) -> respond::Response {
        let status = refusal.status();
        if status != StatusCode::SERVICE_UNAVAILABLE && status != StatusCode::TOO_MANY_REQUESTS {
            return refusal;
        }
        let (mut head, body) = refusal.into_parts();
        let body = body.into_inner().unwrap_or_default();
        let reason = String::from_utf8_lossy(&body);
        let reason = reason.lines().next().unwrap_or_default();
        let retry = self.delay(&head.headers).to_string();
        let mut text = Vec::new();
        let mut speech = Speech::new(Framing::Events, &mut text);
        speech.field("retry", retry.as_bytes());
        say_end(&mut speech, status.as_u16().into(), reason);
        head.status = StatusCode::OK;
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        head.headers.insert(header::CONTENT_TYPE, kind);
        let caching = HeaderValue::from_static("no-store");
        head.headers.insert(header::CACHE_CONTROL, caching);
        Response::from_parts(head, Bytes::from(text).into())
    }

    /// In milliseconds.
    fn delay(&self, headers: &HeaderMap) -> u32 {
        let seconds = headers
            .get(header::RETRY_AFTER)
            .and_then(|after| after.to_str().ok()?.parse::<u32>().ok());
        let shortest = seconds.map_or(SHORTEST, |seconds| seconds.min(3600) * 1000);
        // Steps by the golden ratio fill the time evenly, however many there are.
        let step = self.0.fetch_add(GOLDEN_RATIO, Ordering::Relaxed);
        let part = (u64::from(step) * u64::from(SPREAD)) >> 32;
        shortest + u32::try_from(part).unwrap_or(SPREAD)
    }
}

const EVENT_STREAM: &str = "text/event-stream";

/// 2^32 divided by the golden ratio, to the next odd number.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: respond::Response) -> String {
        let body = response.into_body().into_inner().unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn retry(text: &str) -> u32 {
        let line = text.lines().next().unwrap();
        line.strip_prefix("retry: ").unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_temporary_leads_back_and_what_is_final_stays() {
        let reconnects = Reconnects::default();
        for status in [400, 401, 403, 404, 410] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = reconnects.answer(respond::text(status, "No.\n"));
            assert_eq!(answer.status(), status);
        }
        for status in [429, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = respond::text(status, "Too many.\nTry again later.\n");
            let answer = reconnects.answer(refusal);
            assert_eq!(answer.status(), 200);
            let kind = &answer.headers()[header::CONTENT_TYPE];
            assert!(kind.to_str().unwrap().starts_with(EVENT_STREAM));
            let text = text(answer);
            let (_, event) = text.split_once('\n').unwrap();
            let told = format!(
                "event: end\ndata: {{\"event\":\"end\",\"code\":{},\"reason\":\"Too many.\"}}\n\n",
                status.as_u16()
            );
            assert_eq!(event, told);
        }
    }

    #[test]
    fn those_who_were_refused_together_come_back_one_after_the_other() {
        let reconnects = Reconnects::default();
        let refused = || respond::text(StatusCode::SERVICE_UNAVAILABLE, "No.\n");
        let mut times: Vec<_> = (0..100)
            .map(|_| retry(&text(reconnects.answer(refused()))))
            .collect();
        times.sort_unstable();
        assert!(times[0] >= SHORTEST && times[99] < SHORTEST + SPREAD);
        let widest = times.windows(2).map(|two| two[1] - two[0]).max().unwrap();
        assert!(widest < 3 * SPREAD / 100, "{widest}: {times:?}");
        // And not before the time that the refusal names.
        let after = HeaderValue::from_static("30");
        let refused = respond::with_header(refused(), header::RETRY_AFTER, after);
        assert!(retry(&text(reconnects.answer(refused))) >= 30_000);
    }
}
