//! Following somebody live: what the hubs tell, as lines of JSON that show nothing which an operator shouldn't see.
//!
//! Tokens and the secrets of sessions are never shown, and payloads only where the configuration allows it and the
//! caller asks for it; otherwise their size is.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::{Map, Value, json};
use tautline_hub::trace::{Follow, Step, TraceEvent};
use tautline_protocol::message::{ConnectRequest, Publication, SubscribeRequest, SubscribeResult};
use tautline_protocol::{Push, Reply, Request, Response};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::door::admission::{Admission, TurnedAway};
use crate::drain::{Stage, reached};
use crate::worker::State;
use crate::worker::mailbox::WorkerMailbox;

/// Whom to follow, and how.
#[derive(Clone, Debug)]
pub struct TraceRequest {
    /// Whom.
    pub follow: Follow,
    /// Payloads are shown.
    pub payloads: bool,
    /// When it ends by itself.
    pub time: Duration,
}

/// The traces of a node that are under way.
#[derive(Debug, Default)]
pub(crate) struct TraceDesk {
    count: AtomicUsize,
    serial: AtomicU64,
    /// Traces for which there was no room.
    refused: AtomicU64,
    /// Events that were left out of traces whose reader was too slow.
    left_out: Arc<AtomicU64>,
}

impl TraceDesk {
    /// Traces that were refused, and events that were left out of others, so far.
    pub(crate) fn refusals(&self) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.refused), count(&self.left_out))
    }

    /// Begins a trace, and resolves when all workers follow: what happens from then on is told. It is the body of a response,
    /// which ends it when it is dropped, and ends with the node whose `stage` it is told. Who follows refusals hears of those
    /// of `admission`, too. `None` where there are as many as may be.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        request: &TraceRequest,
        mailboxes: &[Arc<WorkerMailbox>],
        admission: &Arc<Admission>,
        mut stage: watch::Receiver<Stage>,
    ) -> Option<TraceBody> {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = mpsc::channel(MAX_WAITING);
        let time = sleep_until(Instant::now() + request.time);
        let end = async move {
            tokio::select! {
                () = time => {}
                _ending = reached(&mut stage, |stage| *stage == Stage::Ending) => {}
            }
        };
        let waiting = Arc::new(AtomicUsize::new(0));
        let body = TraceBody {
            told,
            waiting: Arc::clone(&waiting),
            end: Some(Box::pin(end)),
            desk: Arc::clone(self),
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            mailboxes: mailboxes.to_vec(),
            admission: Arc::clone(admission),
        };
        // Dropping the body puts the count right again.
        if before >= MAX_TRACES {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if request.follow == Follow::Refusals {
            let teller = Teller::new(tell.clone(), &waiting, &self.left_out, None);
            admission.watch(body.serial, move |event| teller.tell(turned_away(event)));
        }
        // Nothing is ever sent: it is over when each worker has dropped its end, one that stops too.
        let (follows, mut all_follow) = mpsc::channel::<Infallible>(1);
        for (worker, mailbox) in mailboxes.iter().enumerate() {
            let follows = follows.clone();
            let (serial, payloads) = (body.serial, request.payloads);
            let (follow, tell) = (request.follow.clone(), tell.clone());
            let waiting = Arc::clone(&waiting);
            let left_out = Arc::clone(&self.left_out);
            mailbox.call(Box::new(move |_, state: &mut State| {
                let teller = Teller::new(tell, &waiting, &left_out, Some(worker));
                let id = state.hub.trace(follow, move |event| {
                    teller.tell(describe(event, payloads));
                });
                state.traces.insert(serial, id);
                drop(follows);
            }));
        }
        drop(follows);
        all_follow.recv().await;
        Some(body)
    }
}

/// One end of a trace: a worker's, or that of what all of them share.
struct Teller {
    lines: mpsc::Sender<Bytes>,
    /// How many bytes wait in them, those of others too.
    waiting: Arc<AtomicUsize>,
    worker: Option<usize>,
    left_out: Cell<u64>,
    /// The same of all of the node.
    all_left_out: Arc<AtomicU64>,
}

impl Teller {
    fn new(
        lines: mpsc::Sender<Bytes>,
        waiting: &Arc<AtomicUsize>,
        all_left_out: &Arc<AtomicU64>,
        worker: Option<usize>,
    ) -> Self {
        Self {
            all_left_out: Arc::clone(all_left_out),
            lines,
            waiting: Arc::clone(waiting),
            worker,
            left_out: Cell::new(0),
        }
    }

    /// Who can't keep up is told how much there was, and keeps nobody waiting.
    fn tell(&self, mut line: Map<String, Value>) {
        if let Some(worker) = self.worker {
            line.insert("worker".to_owned(), json!(worker));
        }
        if self.left_out.get() > 0 {
            line.insert("left_out".to_owned(), json!(self.left_out.get()));
        }
        let line = format!("{}\n", Value::Object(line));
        let length = line.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        // One of any length has room, or who follows would never hear of it.
        let has_room = before == 0 || before + length <= MAX_WAITING_BYTES;
        if has_room && self.lines.try_send(Bytes::from(line)).is_ok() {
            self.left_out.set(0);
        } else {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            self.left_out.set(self.left_out.get() + 1);
            self.all_left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a trace tells, a line an event.
pub struct TraceBody {
    told: mpsc::Receiver<Bytes>,
    /// How many bytes wait there.
    waiting: Arc<AtomicUsize>,
    /// Resolves when it is over; `None` when it is.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    desk: Arc<TraceDesk>,
    serial: u64,
    mailboxes: Vec<Arc<WorkerMailbox>>,
    admission: Arc<Admission>,
}

impl Body for TraceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // Before the lines, of which there may be some at any time.
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            self.end = None;
            // What was told is still read.
            self.told.close();
        }
        let line = ready!(self.told.poll_recv(cx));
        if let Some(line) = &line {
            self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        }
        Poll::Ready(line.map(|line| Ok(Frame::data(line))))
    }
}

impl Drop for TraceBody {
    fn drop(&mut self) {
        self.desk.count.fetch_sub(1, Ordering::Relaxed);
        self.admission.unwatch(self.serial);
        for mailbox in &self.mailboxes {
            let serial = self.serial;
            mailbox.call(Box::new(move |_, state: &mut State| {
                if let Some(id) = state.traces.remove(&serial) {
                    state.hub.end_trace(id);
                }
            }));
        }
    }
}

/// In milliseconds, since 1970.
fn time() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0))
}

/// A refusal before there is a session.
fn turned_away(event: &TurnedAway) -> Map<String, Value> {
    let TurnedAway {
        address,
        limit,
        dry_run,
    } = event;
    let mut line = Map::new();
    line.insert("time".to_owned(), json!(time()));
    if let Some(address) = address {
        line.insert("address".to_owned(), json!(address));
    }
    let kind = if *dry_run {
        "over_limit"
    } else {
        "turned_away"
    };
    line.insert("event".to_owned(), json!(kind));
    line.insert("why".to_owned(), json!(limit));
    line
}

/// An event as people and programs read it.
fn describe(event: &TraceEvent<'_>, payloads: bool) -> Map<String, Value> {
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| drop(line.insert(name.to_owned(), value));
    put("time", json!(time()));
    for (name, value) in [("user", event.user), ("client", event.client)] {
        if !value.is_empty() {
            put(name, json!(value));
        }
    }
    if let Some(transport) = event.transport {
        put("transport", json!(transport));
    }
    if let Some(channel) = event.channel {
        put("channel", json!(channel));
    }
    if let Some(queued) = event.queued {
        put("queued", json!(queued));
    }
    let (kind, details) = match &event.step {
        Step::Command { number, request } => ("command", command(*number, *request, payloads)),
        Step::Unreadable(why) => ("unreadable", json!({"why": why})),
        Step::Refused { number, told, why } => {
            ("refused", json!({"id": number, "told": told, "why": why}))
        }
        Step::OverLimit { why } => ("over_limit", json!({"why": why})),
        Step::Reply(reply) => self::reply(reply, payloads),
        Step::Publications {
            publications,
            receivers,
        } => {
            let all = publications.iter();
            let all = all.map(|publication| self::publication(publication, payloads));
            let all: Vec<Value> = all.collect();
            (
                "publications",
                json!({"publications": all, "receivers": receivers}),
            )
        }
        Step::Parked { offset } => ("parked", json!({"offset": offset})),
        Step::CaughtUp => ("caught_up", json!({})),
        Step::Ended(end) => ("ended", json!({"code": end.code, "reason": end.reason})),
        // The hub may know more than is shown here.
        _ => ("other", json!({})),
    };
    put("event", json!(kind));
    if let Value::Object(details) = details {
        line.extend(details);
    }
    line
}

fn command(number: u32, request: Option<&Request<'_>>, payloads: bool) -> Value {
    let shown = |data: Option<&[u8]>| data.map(|data| payload(data, payloads));
    let (name, mut details) = match request {
        None => ("pong", json!({})),
        Some(Request::Connect(request)) => {
            let ConnectRequest {
                token,
                data,
                subs,
                name,
                version,
                headers,
            } = request;
            let details = json!({
                "has_token": !token.is_empty(), "name": name, "version": version, "data": shown(*data),
                "subs": subs.iter().map(|(channel, sub)| (channel.to_string(), position(sub))).collect::<Map<_, _>>(),
                // What is in them may be secret.
                "headers": headers.keys().collect::<Vec<_>>(),
            });
            ("connect", details)
        }
        Some(Request::Subscribe(request)) => {
            let mut details = position(request);
            details["has_token"] = json!(!request.token.is_empty());
            details["has_filter"] = json!(request.tags_filter.is_some());
            details["delta"] = json!(request.delta);
            details["data"] = json!(shown(request.data));
            ("subscribe", details)
        }
        Some(Request::Unsubscribe(_)) => ("unsubscribe", json!({})),
        Some(Request::Publish(request)) => ("publish", json!({"data": shown(request.data)})),
        Some(Request::Presence(_)) => ("presence", json!({})),
        Some(Request::PresenceStats(_)) => ("presence_stats", json!({})),
        Some(Request::History(request)) => {
            let since = request.since.as_ref();
            let since = since.map(|since| json!({"offset": since.offset, "epoch": *since.epoch}));
            let details =
                json!({"limit": request.limit, "reverse": request.reverse, "since": since});
            ("history", details)
        }
        Some(Request::Rpc(request)) => (
            "rpc",
            json!({"call": request.method, "data": shown(request.data)}),
        ),
        Some(Request::Send(request)) => ("send", json!({"data": shown(request.data)})),
        Some(Request::Refresh(_)) => ("refresh", json!({})),
        Some(Request::SubRefresh(_)) => ("sub_refresh", json!({})),
        Some(_) => ("other", json!({})),
    };
    details["method"] = json!(name);
    if number > 0 {
        details["id"] = json!(number);
    }
    without_nulls(details)
}

fn reply(reply: &Reply, payloads: bool) -> (&'static str, Value) {
    match reply {
        Reply::Ping => ("ping", json!({})),
        Reply::Answer(number, Err(error)) => {
            let error =
                json!({"code": error.code, "message": error.message, "temporary": error.temporary});
            ("reply", json!({"id": number, "error": error}))
        }
        Reply::Answer(number, Ok(response)) => {
            let mut details = without_nulls(self::response(response, payloads));
            details["id"] = json!(number);
            ("reply", details)
        }
        Reply::Push(push) => ("push", without_nulls(self::push(push, payloads))),
    }
}

fn response(response: &Response, payloads: bool) -> Value {
    let shown = |data: Option<&Bytes>| data.map(|data| payload(data, payloads));
    match response {
        Response::Connect(result) => {
            let subs = result.subs.iter();
            let subs = subs.map(|(channel, sub)| (channel.to_string(), subscribed(sub)));
            json!({
                "method": "connect", "client": *result.client, "ttl": result.ttl,
                "subs": subs.collect::<Map<_, _>>(), "data": shown(result.data.as_ref()),
            })
        }
        Response::Subscribe(result) => {
            let mut details = subscribed(result);
            details["method"] = json!("subscribe");
            details["data"] = json!(shown(result.data.as_ref()));
            details
        }
        Response::Unsubscribe => json!({"method": "unsubscribe"}),
        Response::Publish => json!({"method": "publish"}),
        Response::Presence(result) => {
            json!({"method": "presence", "clients": result.presence.len()})
        }
        Response::PresenceStats(result) => json!({
            "method": "presence_stats", "clients": result.num_clients, "users": result.num_users,
        }),
        Response::History(result) => json!({
            "method": "history", "publications": result.publications.len(),
            "offset": result.position.offset, "epoch": *result.position.epoch,
        }),
        Response::Rpc(result) => json!({"method": "rpc", "data": shown(result.data.as_ref())}),
        Response::Refresh(result) => {
            json!({"method": "refresh", "ttl": result.ttl})
        }
        Response::SubRefresh(result) => {
            json!({"method": "sub_refresh", "ttl": result.ttl})
        }
        _ => json!({"method": "other"}),
    }
}

fn push(push: &Push, payloads: bool) -> Value {
    match push {
        Push::Publication(_, publication) => {
            let publications = [self::publication(publication, payloads)];
            json!({"push": "publication", "publications": publications})
        }
        Push::Join(_, info) => json!({"push": "join", "who": *info.user, "whose": *info.client}),
        Push::Leave(_, info) => json!({"push": "leave", "who": *info.user, "whose": *info.client}),
        Push::Unsubscribe(_, end) => {
            json!({"push": "unsubscribe", "code": end.code, "reason": end.reason})
        }
        Push::Subscribe(_, begin) => json!({
            "push": "subscribe", "recoverable": begin.recoverable, "positioned": begin.positioned,
            "offset": begin.position.offset,
        }),
        Push::Message(data) => json!({"push": "message", "data": payload(data, payloads)}),
        Push::Connect(result) => json!({"push": "connect", "client": *result.client}),
        Push::Refresh(result) => json!({"push": "refresh", "ttl": result.ttl}),
        Push::Disconnect(end) => {
            json!({"push": "disconnect", "code": end.code, "reason": end.reason})
        }
        _ => json!({"push": "other"}),
    }
}

/// What a subscribe command says of the place to go on from.
fn position(request: &SubscribeRequest<'_>) -> Value {
    if request.recover {
        json!({"recover": true, "offset": request.offset, "epoch": request.epoch})
    } else {
        json!({})
    }
}

fn subscribed(result: &SubscribeResult) -> Value {
    json!({
        "recoverable": result.recoverable, "positioned": result.positioned,
        "was_recovering": result.was_recovering, "recovered": result.recovered,
        "publications": result.publications.len(), "offset": result.offset, "epoch": *result.epoch,
        "ttl": result.ttl,
    })
}

fn publication(publication: &Publication, payloads: bool) -> Value {
    let publisher = publication.info.as_ref().map(|info| &*info.user);
    let mut details = json!({
        "offset": publication.offset, "user": publisher, "data": payload(&publication.data, payloads),
    });
    if !publication.tags.is_empty() {
        details["tags"] = json!(publication.tags);
    }
    without_nulls(details)
}

/// A payload where it may be seen, or its size.
fn payload(data: &[u8], is_shown: bool) -> Value {
    if is_shown && let Ok(data) = serde_json::from_slice(data) {
        return data;
    }
    json!({"bytes": data.len()})
}

fn without_nulls(mut details: Value) -> Value {
    if let Value::Object(fields) = &mut details {
        fields.retain(|_, value| !value.is_null());
    }
    details
}

/// At most so many at a time.
pub(crate) const MAX_TRACES: usize = 16;

/// How many lines may wait for a reader.
const MAX_WAITING: usize = 4096;

/// How many bytes these may have: clients say how long some of them are.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tautline_protocol::message::{
        ConnectResult, PublishRequest, RefreshRequest, RpcRequest, RpcResult, SendRequest,
        SubRefreshRequest,
    };

    use super::*;

    const DATA: &[u8] = br#"{"a":"payload-text"}"#;

    /// Commands with whatever may be secret in them.
    fn commands() -> Vec<Request<'static>> {
        let subscribe = SubscribeRequest {
            channel: "chat:1".into(),
            token: "secret-token".into(),
            data: Some(DATA),
            ..SubscribeRequest::default()
        };
        vec![
            Request::Connect(ConnectRequest {
                token: "secret-token".into(),
                data: Some(DATA),
                subs: BTreeMap::from([("chat:1".into(), subscribe.clone())]),
                headers: BTreeMap::from([("X-Key".into(), "secret-header".into())]),
                ..ConnectRequest::default()
            }),
            Request::Subscribe(subscribe),
            Request::Publish(PublishRequest {
                channel: "chat:1".into(),
                data: Some(DATA),
                ..PublishRequest::default()
            }),
            Request::Rpc(RpcRequest {
                method: "m".into(),
                data: Some(DATA),
            }),
            Request::Send(SendRequest { data: Some(DATA) }),
            Request::Refresh(RefreshRequest {
                token: "secret-token".into(),
            }),
            Request::SubRefresh(SubRefreshRequest {
                channel: "chat:1".into(),
                token: "secret-token".into(),
                ..SubRefreshRequest::default()
            }),
        ]
    }

    #[test]
    fn what_may_be_secret_is_never_shown_and_payloads_where_they_may_be() {
        for request in commands() {
            for payloads in [false, true] {
                let text = command(7, Some(&request), payloads).to_string();
                assert!(!text.contains("secret-"), "{text}");
                let has_data = !matches!(request, Request::Refresh(_) | Request::SubRefresh(_));
                assert_eq!(
                    text.contains("payload-text"),
                    payloads && has_data,
                    "{text}"
                );
                assert_eq!(
                    text.contains("\"bytes\":20"),
                    !payloads && has_data,
                    "{text}"
                );
                assert!(text.contains("\"id\":7"), "{text}");
            }
        }
        let connect = ConnectResult {
            session: Some("secret-session".into()),
            data: Some(DATA.into()),
            ..ConnectResult::default()
        };
        let publication = Publication {
            data: DATA.into(),
            ..Publication::default()
        };
        for payloads in [false, true] {
            let rpc = RpcResult {
                data: Some(DATA.into()),
            };
            for told in [
                response(&Response::Connect(connect.clone()), payloads),
                response(&Response::Rpc(rpc), payloads),
                push(&Push::Message(DATA.into()), payloads),
                self::publication(&publication, payloads),
            ] {
                let text = told.to_string();
                assert!(!text.contains("secret-"), "{text}");
                assert_eq!(text.contains("payload-text"), payloads, "{text}");
            }
        }
    }

    #[test]
    fn who_cannot_keep_up_is_told_how_much_there_was() {
        let (lines, mut told) = mpsc::channel(2);
        let all_left_out = Arc::default();
        let teller = Teller::new(lines, &Arc::default(), &all_left_out, Some(3));
        let line = |number: u32| Map::from_iter([("n".to_owned(), json!(number))]);
        for number in 0..7 {
            teller.tell(line(number));
        }
        let mut next = || {
            let line = told.try_recv().expect("there is one");
            assert!(line.ends_with(b"\n"));
            serde_json::from_slice::<Value>(&line).expect("JSON")
        };
        assert_eq!(next(), json!({"n": 0, "worker": 3}));
        assert_eq!(next(), json!({"n": 1, "worker": 3}));
        teller.tell(line(7));
        teller.tell(line(8));
        assert_eq!(next(), json!({"n": 7, "worker": 3, "left_out": 5}));
        assert_eq!(all_left_out.load(Ordering::Relaxed), 5);
        assert_eq!(next(), json!({"n": 8, "worker": 3}));
    }
}
