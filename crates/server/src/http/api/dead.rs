//! Events that the application's backend would not have: `dead_events`, `dead_events_retry` and `dead_events_drop`.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tautline_protocol::ErrorCode;
use tautline_protocol::message::Error;

use super::command::Command;
use super::error::{Failure, explained};
use super::params::parse;
use crate::events::{DeadEvents, DeadPage};

/// `dead_events`.
pub(super) fn list(body: &[u8]) -> Result<Command, Failure> {
    let DeadEventsParams { ids, limit, cursor } = parse(body)?;
    let limit = limit.filter(|limit| *limit > 0).unwrap_or(USUAL_PAGE);
    if limit > MAX_PAGE {
        let text = format!("`limit` is {limit}, at most {MAX_PAGE} are listed at a time");
        return Err(explained(ErrorCode::LimitExceeded, text).into());
    }
    let cursor = cursor.filter(|cursor| !cursor.is_empty());
    let from = cursor.map_or(Ok(0), |cursor| cursor.parse());
    Ok(Command::DeadEvents {
        which: match ids.unwrap_or_default() {
            // To look at all does no harm.
            ids if ids.is_empty() => DeadEvents::All,
            ids => DeadEvents::these(ids),
        },
        from: from.map_err(|_| {
            let text = "`cursor` is none that a page before has told as `next`";
            explained(ErrorCode::BadRequest, text)
        })?,
        limit: limit as usize,
    })
}

/// `dead_events_retry`, and `dead_events_drop`.
pub(super) fn settle(body: &[u8], again: bool) -> Result<Command, Failure> {
    let SettleParams { ids, all } = parse(body)?;
    let (ids, all) = (ids.unwrap_or_default(), all.unwrap_or_default());
    // A list that happens to be empty doesn't mean everything.
    if ids.is_empty() != all {
        let text = "expected either `ids` with some in it, or `all` that is true";
        return Err(explained(ErrorCode::BadRequest, text).into());
    }
    Ok(Command::SettleDeadEvents {
        which: match all {
            true => DeadEvents::All,
            false => DeadEvents::these(ids),
        },
        again,
    })
}

/// A page of them.
pub(super) fn page(page: &DeadPage) -> Result<Vec<u8>, Error> {
    let events = page.events.iter().map(|letter| {
        Ok(DeadView {
            failed: letter.failed,
            error: &letter.error,
            event: RawValue::from_string(letter.to_json())?,
        })
    });
    let events: Result<_, serde_json::Error> = events.collect();
    let json = events.and_then(|events| {
        serde_json::to_vec(&PageView {
            events,
            total: page.total,
            next: page.next.map(|next| next.to_string()),
        })
    });
    json.map_err(|_| ErrorCode::Internal.into())
}

/// Why it did not come to be.
pub(crate) fn failed(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => {
            let text = "the queue of events has no room for them (events.queue_max_size): name fewer `ids`, or wait \
                        until the application's backend has taken others";
            explained(ErrorCode::LimitExceeded, text)
        }
        _ => explained(
            ErrorCode::Internal,
            format!("it can't be written down: {error}"),
        ),
    }
}

/// There are no events.
pub(crate) fn not_available() -> Error {
    let text = "the application's backend is told no events (events.enabled)";
    explained(ErrorCode::NotAvailable, text)
}

/// Which events that the backend would not have, or did not take in time. The oldest come first.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct DeadEventsParams {
    /// Only those with these ids. All if it is absent or empty.
    ids: Option<Vec<String>>,
    /// How many at the most; up to 1,000. 100 if it is absent or 0.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Which of them.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SettleParams {
    /// Those with these ids. Those which there are not are left out.
    ids: Option<Vec<String>>,
    /// All there are, instead of `ids`.
    all: Option<bool>,
}

#[derive(Serialize)]
struct PageView<'a> {
    events: Vec<DeadView<'a>>,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct DeadView<'a> {
    failed: u64,
    error: &'a str,
    event: Box<RawValue>,
}

const USUAL_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

#[cfg(test)]
pub(super) fn schema(method: super::method::Method) -> schemars::Schema {
    if method == super::method::Method::DeadEvents {
        schemars::schema_for!(DeadEventsParams)
    } else {
        schemars::schema_for!(SettleParams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(read: Result<Command, Failure>) -> u32 {
        match read {
            Ok(_) => 0,
            Err(Failure::Malformed(_)) => 400,
            Err(Failure::Error(error)) => error.code,
        }
    }

    #[test]
    fn everything_is_meant_only_where_it_is_said() {
        for (body, expected) in [
            ("{}", 107),
            (r#"{"ids":[]}"#, 107),
            (r#"{"all":false}"#, 107),
            (r#"{"ids":["a"],"all":true}"#, 107),
            (r#"{"ids":"a"}"#, 400),
            (r#"{"ids":["a"]}"#, 0),
            (r#"{"all":true}"#, 0),
        ] {
            for again in [true, false] {
                assert_eq!(code(settle(body.as_bytes(), again)), expected, "{body}");
            }
        }
    }

    #[test]
    fn pages_are_bounded_and_begin_where_one_ended() {
        for (body, expected) in [
            ("{}", 0),
            (r#"{"limit":1000,"cursor":"17"}"#, 0),
            (r#"{"limit":1001}"#, 106),
            (r#"{"cursor":"x"}"#, 107),
            (r#"{"limit":-1}"#, 400),
        ] {
            assert_eq!(code(list(body.as_bytes())), expected, "{body}");
        }
        let Ok(Command::DeadEvents { from, limit, .. }) = list(br#"{"cursor":"17"}"#) else {
            panic!("it is right");
        };
        assert_eq!((from, limit), (17, 100));
    }
}
