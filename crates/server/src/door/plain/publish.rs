//! `POST /publish?channel=…`: a publication by whoever may publish.

use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::json;
use tautline_hub::{Frame, Transport};
use tautline_protocol::Encoding;
use tautline_protocol::json::check_payload;

use super::super::entry::{Commands, Entry, Refused, Response, bad_request};
use super::super::gate;
use super::super::streams::read;
use super::read::{answer, next};
use super::wanted::{channel, check_names, connect_command, token};
use crate::http::RequestBody;
use crate::http::query::Query;
use crate::http::respond::{self, ReplyBody};
use crate::worker::stream::Stream;
use crate::worker::voice::Framing;

/// Answers with `{}` when the publication is accepted.
pub(crate) async fn publish(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Response, Refused> {
    if request.method() != Method::POST {
        return Err(gate::other_method(request.method(), "POST, OPTIONS"));
    }
    let target = request.uri().clone();
    let query = Query::parse(target.query()).map_err(|error| bad_request(&error))?;
    check_names(&query, &["channel", "token"], &[]).map_err(|error| bad_request(&error))?;
    let channel = channel(&query).map_err(|error| bad_request(&error))?;
    let headers = request.headers();
    let cookies_count = gate::cookies_count(&entry.doors.origins, headers)
        && (headers.contains_key(header::ORIGIN) || is_json(headers));
    let token = token(&query, headers, cookies_count);
    let body = read(entry, request).await?;
    let command = publish_command(2, channel, &body).map_err(|error| bad_request(&error))?;

    let stream = Stream::new(Encoding::Json, Framing::Apart);
    let transport = Transport::one_way("publish", Encoding::Json);
    let commands = format!("{}\n{command}", connect_command(token.as_deref()));
    let seat = entry.open(transport, stream, Commands::None, Frame::Json(&commands))?;
    // Of connecting, and of publishing.
    for id in [1, 2] {
        let message = next(&seat).await?;
        answer(&message, id).map_err(|refusal| refusal.to_response())?;
    }
    // Who publishes faster than a worker with subscribers can take it waits, as with a connection of his own.
    seat.takes_commands().await;
    Ok(respond::json(StatusCode::OK, "{}").map(ReplyBody::Whole))
}

/// Whether a page of another site would have had to ask before it could send this.
fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// The command that publishes `data`, which must be JSON.
///
/// # Errors
///
/// A sentence that says what was expected.
pub(super) fn publish_command(number: u32, channel: &str, data: &[u8]) -> Result<String, String> {
    let value: &serde_json::value::RawValue = serde_json::from_slice(data).map_err(|error| {
        format!(r#"expected JSON, such as {{"text":"hello"}} or "hello" with its quotation marks: {error}"#)
    })?;
    // A frame of commands has one on each line, and JSON has line breaks only where they mean nothing.
    let data = value.get().replace(['\n', '\r'], " ");
    let channel = json!(channel);
    let command = format!(r#"{{"id":{number},"publish":{{"channel":{channel},"data":{data}}}}}"#);
    // The session would end, and not say why.
    check_payload(command.as_bytes())
        .map_err(|error| format!("this can't be published: {error}"))?;
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_publication_gets_into_the_command() {
        let command = publish_command(2, "a\"b", b"{\n\"x\": 1\r\n}").unwrap();
        assert_eq!(
            command,
            r#"{"id":2,"publish":{"channel":"a\"b","data":{ "x": 1  }}}"#
        );
        let deep = "[".repeat(127) + &"]".repeat(127);
        let error = publish_command(2, "a", deep.as_bytes()).unwrap_err();
        assert!(error.contains("128 levels"), "{error}");
        assert!(publish_command(2, "a", &deep.as_bytes()[1..253]).is_ok());
        for data in ["", "hello", "1}", "1}}\n{\"id\":3,\"rpc\":{}}", "\u{0}"] {
            let error = publish_command(2, "a", data.as_bytes()).expect_err(data);
            assert!(error.contains("expected JSON"), "{error}");
        }
    }
}
