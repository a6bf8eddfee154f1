//! `GET /history?channel=…`: a page of a channel's stream, at once or as soon as there is one.
//!
//! Polling and long-polling: each answer says where the next begins, so a cursor that is asked for again
//! and again misses nothing, whatever caches are in between. A whole page never changes and may be
//! kept; one that is not whole may be kept for a second, so that a cache asks once for all who poll.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tautline_hub::{Frame, Transport};
use tautline_protocol::{Disconnect, Encoding};
use tokio::time::Instant;

use super::super::entry::{Commands, Entry, Refused, Response, Seat, bad_request};
use super::super::gate;
use super::refusal::Refusal;
use super::voice::Reply;
use super::wanted::{
    Position, channel, check_names, connect_command, number, subscribe_command, token,
};
use crate::http::RequestBody;
use crate::http::query::Query;
use crate::http::respond::{self, ReplyBody};
use crate::worker::stream::Stream;
use crate::worker::voice::Framing;

const PARAMETERS: [&str; 5] = ["channel", "since", "limit", "wait", "token"];

/// Publications in a page, unless the client says how many.
const LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

/// Longest that an answer may be waited for, in seconds: most proxies wait for a minute.
const MAX_WAIT: u32 = 55;

/// How long a page may be kept that isn't whole.
const KEEP_BRIEFLY: &str = "max-age=1";

/// `GET /history`.
pub(crate) async fn history(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<respond::Reply, Refused> {
    // To a HEAD, the same is answered without its body.
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(gate::other_method(request.method(), "GET, HEAD, OPTIONS"));
    }
    let reading = Reading::parse(entry, &request).map_err(|error| bad_request(&error))?;
    let seat = reading.open(entry)?;
    if reading.wait.is_none() {
        let page = reading.read(&seat).await?;
        let known = request.headers().get_all(header::IF_NONE_MATCH);
        let known = known.iter().filter_map(|value| value.to_str().ok());
        return Ok(respond::Reply::Now(reading.answer(&page, known)?));
    }
    // The connection isn't too old while somebody waits.
    let guard = entry.line.begin_stream();
    Ok(respond::Reply::Later(Box::pin(async move {
        let _guard = guard;
        let read = reading.read(&seat).await;
        let answer = read.and_then(|page| reading.answer(&page, std::iter::empty()));
        answer.unwrap_or_else(|refusal| (*refusal).map(ReplyBody::Whole))
    })))
}

/// What is asked for.
struct Reading {
    channel: String,
    since: Option<Position>,
    limit: u32,
    wait: Option<Duration>,
    token: Option<String>,
    /// Everybody may read what is answered.
    is_public: bool,
    /// How long caches may keep a whole page.
    max_age: Duration,
}

/// What there is.
struct Page {
    publications: Vec<Box<RawValue>>,
    /// Where the next page begins.
    next: Position,
    /// There are publications behind those.
    more: bool,
    /// What is in it never changes: all places are taken, or there are more behind it.
    is_whole: bool,
}

impl Reading {
    fn parse(entry: &Entry<'_>, request: &Request<RequestBody>) -> Result<Self, String> {
        let query = Query::parse(request.uri().query())?;
        check_names(&query, &PARAMETERS, &[])?;
        let channel = channel(&query)?;
        let cookies_count = gate::cookies_count(&entry.doors.origins, request.headers());
        // What is asked for without its body is there now.
        let waits = request.method() != Method::HEAD;
        let wait = number(&query, "wait", 0..=MAX_WAIT)?.filter(|&wait| wait > 0 && waits);
        let limit = number(&query, "limit", 1..=MAX_LIMIT)?.unwrap_or(LIMIT);
        let token = token(&query, request.headers(), cookies_count);
        // Whoever sends no token may be known otherwise: by a header of a proxy's, or by whatever the application
        // looks at. And what is answered to credentials of any kind is nobody else's (RFC 9111, section 3.5).
        let is_public = token.is_none()
            && entry.user.is_none()
            && entry.request.is_none()
            && !request.headers().contains_key(header::AUTHORIZATION);
        Ok(Self {
            channel: channel.to_owned(),
            since: query.first("since").map(Position::parse).transpose()?,
            limit,
            wait: wait.map(|wait| Duration::from_secs(wait.into())),
            token,
            is_public,
            max_age: entry.doors.options.history_max_age,
        })
    }

    /// Begins the session that reads.
    fn open(&self, entry: &Entry<'_>) -> Result<Seat, Refused> {
        let stream = Stream::new(Encoding::Json, Framing::Apart);
        let transport = Transport::one_way("history", Encoding::Json).with_gapless_history();
        let connect = connect_command(self.token.as_deref());
        entry.open(transport, stream, Commands::None, Frame::Json(&connect))
    }

    async fn read(&self, seat: &Seat) -> Result<Page, Refused> {
        answer(&next(seat).await?, 1).map_err(|refusal| refusal.to_response())?;
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let mut is_subscribed = false;
        loop {
            let page = match self.page(seat).await? {
                // Who may read only as a subscriber becomes one.
                Err(refusal) if refusal.code == DENIED && !is_subscribed => {
                    self.subscribe(seat).await?;
                    is_subscribed = true;
                    continue;
                }
                Err(refusal) => return Err(refusal.to_response()),
                Ok(page) => page,
            };
            let Some(deadline) = deadline.filter(|_| page.publications.is_empty()) else {
                return Ok(page);
            };
            if !is_subscribed {
                // What is published from now on is noticed; what was before that, the next read finds.
                self.subscribe(seat).await?;
                is_subscribed = true;
                continue;
            }
            let published = tokio::time::timeout_at(deadline, wait_for_publication(seat)).await;
            match published {
                Ok(result) => result?,
                Err(_elapsed) => return Ok(page),
            }
        }
    }

    /// The page, or that the client has it: `known` is what it says of those it has.
    ///
    /// # Errors
    ///
    /// 500 where the page can't be written.
    fn answer<'k>(
        &self,
        page: &Page,
        mut known: impl Iterator<Item = &'k str>,
    ) -> Result<Response, Refused> {
        let told = Told {
            publications: &page.publications,
            next: page.next.to_string(),
            more: page.more,
        };
        let mut body = serde_json::to_string(&told).map_err(|_| internal())?;
        body.push('\n');
        let tag = entity_tag(&body);
        let is_known =
            known.any(|value| value == "*" || value.split(',').any(|other| is_tag(other, &tag)));
        let mut response = if is_known {
            let mut response = Response::new(ReplyBody::Whole(Full::default()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            respond::json(StatusCode::OK, body).map(ReplyBody::Whole)
        };
        let is_lasting = page.is_whole && self.since.is_some() && !self.max_age.is_zero();
        let keep = format!("max-age={}, immutable", self.max_age.as_secs());
        let caching = match (self.wait.is_some(), self.is_public, is_lasting) {
            // What was waited for was meant for one.
            (true, _, _) => "no-store".to_owned(),
            (false, true, true) => format!("public, {keep}"),
            (false, true, false) => format!("public, {KEEP_BRIEFLY}"),
            (false, false, true) => format!("private, {keep}"),
            (false, false, false) => "private, no-cache".to_owned(),
        };
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, caching),
            (header::ETAG, tag),
            (header::VARY, "authorization, cookie".to_owned()),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(name, value);
            }
        }
        Ok(response)
    }

    async fn subscribe(&self, seat: &Seat) -> Result<(), Refused> {
        seat.command(&subscribe_command(READ, &self.channel, None));
        loop {
            let message = next(seat).await?;
            let reply = answer(&message, READ).map_err(|refusal| refusal.to_response())?;
            if reply.is_subscribed() {
                return Ok(());
            }
        }
    }

    /// One read. Pushes that come in between don't matter: what they tell is in the page.
    async fn page(&self, seat: &Seat) -> Result<Result<Page, Refusal>, Refused> {
        let mut history = json!({"channel": self.channel, "limit": self.limit});
        if let Some(Position { offset, epoch }) = &self.since {
            history["since"] = json!({"offset": offset, "epoch": epoch});
        }
        seat.command(&json!({"id": READ, "history": history}).to_string());
        loop {
            let message = next(seat).await?;
            let reply = match answer(&message, READ) {
                Ok(reply) => reply,
                Err(refusal) if refusal.code == UNRECOVERABLE => {
                    return Err(self.gap().to_response());
                }
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let Some(history) = reply.history {
                return self.to_page(history).map(Ok);
            }
        }
    }

    fn to_page(&self, history: &RawValue) -> Result<Page, Refused> {
        let History {
            publications,
            offset,
            epoch,
        } = serde_json::from_str(history.get()).map_err(|_| internal())?;
        let last = match publications.last() {
            Some(last) => offset_of(last)?,
            None => offset,
        };
        // Fewer than were asked for may come, as the server has limits of its own.
        let more = last < offset;
        let is_whole = more || publications.len() >= self.limit as usize;
        Ok(Page {
            publications,
            next: Position {
                offset: last,
                epoch,
            },
            more,
            is_whole,
        })
    }

    fn gap(&self) -> Refusal {
        let since = self.since.as_ref().map(ToString::to_string);
        let since = since.unwrap_or_default();
        let message = format!(
            "what came behind {since} is not kept any more, or was another stream: begin anew, without `since`"
        );
        Refusal::new(UNRECOVERABLE, message)
    }
}

/// A page as it is told.
#[derive(Serialize)]
struct Told<'p> {
    /// As they were published, to the byte.
    publications: &'p [Box<RawValue>],
    next: String,
    more: bool,
}

#[derive(Deserialize)]
struct History {
    publications: Vec<Box<RawValue>>,
    offset: u64,
    epoch: String,
}

fn offset_of(publication: &RawValue) -> Result<u64, Refused> {
    #[derive(Deserialize)]
    struct Offset {
        offset: u64,
    }
    let offset: Offset = serde_json::from_str(publication.get()).map_err(|_| internal())?;
    Ok(offset.offset)
}

async fn wait_for_publication(seat: &Seat) -> Result<(), Refused> {
    loop {
        let message = next(seat).await?;
        let reply = answer(&message, 0).map_err(|refusal| refusal.to_response())?;
        if reply.is_publication() {
            return Ok(());
        }
    }
}

/// The next message of a session that nobody else listens to.
///
/// # Errors
///
/// 503 when the session is over and has said so already.
pub(super) async fn next(seat: &Seat) -> Result<Bytes, Refused> {
    let message = poll_fn(|cx| {
        let mut stream = seat.stream.borrow_mut();
        stream.register(cx);
        match stream.pop() {
            Some(message) => Poll::Ready(Some(message)),
            None if stream.is_ended() => Poll::Ready(None),
            None => Poll::Pending,
        }
    })
    .await;
    seat.tell_drained();
    message.ok_or_else(|| Refusal::from(&Disconnect::CONNECTION_CLOSED).to_response())
}

/// Reads a reply, and takes an error in answer to command `id`, or the end of the session, for what it
/// is.
pub(super) fn answer(message: &[u8], id: u32) -> Result<Reply<'_>, Refusal> {
    // Publications may come together, a line each. What is in the first says enough.
    let first = message.split(|byte| *byte == b'\n').next();
    let reply: Reply<'_> = serde_json::from_slice(first.unwrap_or_default())
        .map_err(|_| Refusal::from(&Disconnect::INTERNAL))?;
    if let Some(disconnect) = reply.disconnect() {
        return Err(Refusal::from(&disconnect));
    }
    match &reply.error {
        Some(failure) if reply.id == id => Err(Refusal::new(failure.code, &*failure.message)),
        _ => Ok(reply),
    }
}

fn internal() -> Refused {
    Refusal::from(&Disconnect::INTERNAL).to_response()
}

/// The number of commands that read; one is answered before the next is sent.
const READ: u32 = 2;

/// Errors of the protocol.
const DENIED: u32 = 103;
const UNRECOVERABLE: u32 = 112;

/// A tag that changes whenever the body does (RFC 9110, section 8.8.3).
fn entity_tag(body: &str) -> String {
    use std::fmt::Write as _;
    let digest = digest::digest(&digest::SHA256, body.as_bytes());
    let mut tag = String::with_capacity(34);
    tag.push('"');
    for byte in &digest.as_ref()[..16] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

/// Whether a client or a cache names this tag; proxies that compress mark it as weak.
fn is_tag(named: &str, tag: &str) -> bool {
    let named = named.trim();
    named.strip_prefix("W/").unwrap_or(named) == tag
}
