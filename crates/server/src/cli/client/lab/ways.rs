//! The five ways by which a client can follow a channel, each as a client that does it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;
use tautline_websocket::conn::{ConnectOptions, client};
use tautline_websocket::proto::Message as Frame;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{MissedTickBehavior, interval};

use super::tally::Tally;
use super::wire::{Http, dial};
use crate::cli::client::call::Server;
use crate::cli::client::show::clean;

/// How messages get from the server to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A request for what is new, again and again.
    Polling,
    /// The same, answered when there is something.
    LongPolling,
    /// A response that goes on, a line each.
    Streaming,
    /// The same in the form that browsers know.
    Sse,
    WebSocket,
}

impl Way {
    pub(super) const ALL: [Self; 5] = [
        Self::Polling,
        Self::LongPolling,
        Self::Streaming,
        Self::Sse,
        Self::WebSocket,
    ];

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::LongPolling => "long-polling",
            Self::Streaming => "streaming",
            Self::Sse => "SSE",
            Self::WebSocket => "WebSocket",
        }
    }

    /// For programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::LongPolling => "long_polling",
            Self::Streaming => "streaming",
            Self::Sse => "sse",
            Self::WebSocket => "websocket",
        }
    }
}

/// What is the same for all clients of a run.
pub(super) struct Plan {
    pub(super) channel: String,
    pub(super) token: Option<String>,
    pub(super) poll: Duration,
    /// Tells this run's messages from those of others in the channel.
    pub(super) run: u64,
    /// What messages' times are measured from.
    pub(super) start: Instant,
    /// How many messages there will be.
    pub(super) total: u64,
}

/// What a client tells.
pub(super) enum Event {
    /// What is published from now on, it gets.
    Ready,
    /// It has the last one.
    Done,
    /// It can't go on.
    Failed(Way, String),
}

/// A message of the feed.
#[derive(Deserialize)]
struct Message {
    run: u64,
    n: u64,
    /// Nanoseconds.
    t: u64,
}

/// One client of one way.
pub(super) struct Listener {
    pub(super) way: Way,
    pub(super) plan: Arc<Plan>,
    pub(super) server: Arc<Server>,
    pub(super) tally: Arc<Tally>,
    pub(super) events: UnboundedSender<Event>,
    /// Behind which it goes on.
    since: String,
    last: u64,
    is_ready: bool,
}

impl Listener {
    pub(super) fn new(
        way: Way,
        plan: Arc<Plan>,
        server: Arc<Server>,
        tally: Arc<Tally>,
        events: UnboundedSender<Event>,
    ) -> Self {
        Self {
            way,
            plan,
            server,
            tally,
            events,
            since: String::new(),
            last: 0,
            is_ready: false,
        }
    }

    /// Follows the channel until it is dropped. What breaks once it has worked is begun again from where it
    /// was.
    pub(super) async fn run(mut self) {
        loop {
            let ended = match self.way {
                Way::Polling => self.poll(None).await,
                Way::LongPolling => self.poll(Some(HOLD)).await,
                Way::Streaming | Way::Sse => self.stream().await,
                Way::WebSocket => self.socket().await,
            };
            let Err(error) = ended;
            if !self.is_ready {
                let error = clean(&error.to_string());
                let _ = self.events.send(Event::Failed(self.way, error));
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn poll(&mut self, hold: Option<u32>) -> io::Result<Never> {
        let mut http = Http::default();
        let mut ticks = interval(self.plan.poll);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            let mut path = self.path("/history");
            // To know where the head is, one waits for nothing.
            if let Some(hold) = hold.filter(|_| self.is_ready) {
                path += &format!("&wait={hold}");
            }
            let token = self.plan.token.as_deref();
            let response = http.get(&self.server, &self.tally, &path, token).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect();
            let body = body.await.map_err(io::Error::other)?.to_bytes();
            if status != StatusCode::OK {
                return Err(self.refused(status, &body));
            }
            let page: Page = serde_json::from_slice(&body)?;
            for publication in &page.publications {
                self.heard(publication.data.get());
            }
            self.since = page.next;
            if page.more {
                continue;
            }
            self.ready();
            if hold.is_none() {
                ticks.tick().await;
            }
        }
    }

    async fn stream(&mut self) -> io::Result<Never> {
        let door = if self.way == Way::Sse {
            "/events"
        } else {
            "/lines"
        };
        let (path, token) = (self.path(door), self.plan.token.clone());
        let mut http = Http::default();
        let response = http.get(&self.server, &self.tally, &path, token.as_deref());
        let response = response.await?;
        let status = response.status();
        let mut body = response.into_body();
        if status != StatusCode::OK {
            let body = Limited::new(body, MAX_BODY).collect().await;
            let body = body.map_err(io::Error::other)?.to_bytes();
            return Err(self.refused(status, &body));
        }
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(io::Error::other)?.into_data() else {
                continue;
            };
            rest.extend_from_slice(&data);
            let whole = rest.iter().rposition(|&byte| byte == b'\n');
            let Some(end) = whole else {
                if rest.len() > MAX_BODY {
                    return Err(io::Error::other("a line is too long"));
                }
                continue;
            };
            let next = rest.split_off(end + 1);
            for line in String::from_utf8_lossy(&rest).lines() {
                if self.way == Way::Sse {
                    self.event_line(line);
                } else {
                    self.envelope(line);
                }
            }
            rest = next;
        }
        Err(io::Error::other("the stream ended"))
    }

    async fn socket(&mut self) -> io::Result<Never> {
        let line = dial(&self.server, Arc::clone(&self.tally)).await?;
        let url = self
            .server
            .websocket_url_of(&(self.path("/ws") + "&envelope=1"));
        let token = self.plan.token.iter();
        let options = ConnectOptions {
            headers: token
                .map(|token| ("Authorization".to_owned(), format!("Bearer {token}")))
                .collect(),
            ..ConnectOptions::default()
        };
        self.tally.asked();
        let opened = client(line, &url, &options)
            .await
            .map_err(io::Error::other)?;
        let mut socket = opened.websocket;
        while let Some(message) = socket.recv().await.map_err(io::Error::other)? {
            if let Frame::Text(text) = message {
                self.envelope(&text);
            }
        }
        let told = socket.closed().map(|closed| closed.reason.to_string());
        Err(io::Error::other(format!(
            "the server closed the WebSocket: {}",
            told.unwrap_or_default()
        )))
    }

    /// A line of `/events`: positions, and the data of publications.
    fn event_line(&mut self, line: &str) {
        if let Some(id) = line.strip_prefix("id: ") {
            id.clone_into(&mut self.since);
            self.ready();
        } else if let Some(data) = line.strip_prefix("data: ") {
            self.heard(data);
        }
    }

    /// A line of `/lines`, and a message of `/ws` with its position.
    fn envelope(&mut self, line: &str) {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(line) else {
            return;
        };
        if let (Some(offset), Some(epoch)) = (envelope.offset, envelope.epoch) {
            self.since = format!("{offset},{epoch}");
            self.ready();
        }
        if let Some(data) = envelope.data {
            self.heard(data.get());
        }
    }

    fn heard(&mut self, data: &str) {
        let Ok(message) = serde_json::from_str::<Message>(data) else {
            return;
        };
        // Of another run, or of before a break: not counted twice.
        if message.run != self.plan.run || message.n <= self.last {
            return;
        }
        let now = self.plan.start.elapsed();
        self.last = message.n;
        self.tally
            .heard(now.saturating_sub(Duration::from_nanos(message.t)));
        if message.n == self.plan.total {
            let _ = self.events.send(Event::Done);
        }
    }

    fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            let _ = self.events.send(Event::Ready);
        }
    }

    fn path(&self, door: &str) -> String {
        let channel = percent_encoding::utf8_percent_encode(
            &self.plan.channel,
            percent_encoding::NON_ALPHANUMERIC,
        );
        if self.since.is_empty() {
            format!("{door}?channel={channel}")
        } else {
            format!("{door}?channel={channel}&since={}", self.since)
        }
    }

    fn refused(&mut self, status: StatusCode, body: &Bytes) -> io::Error {
        if status == StatusCode::GONE {
            // From the head again; what is gone is missing.
            self.since.clear();
        }
        let text = String::from_utf8_lossy(body);
        io::Error::other(format!("the server answered {status}: {}", text.trim()))
    }
}

/// What follows a channel doesn't come to an end by itself.
pub(super) enum Never {}

#[derive(Deserialize)]
struct Page {
    publications: Vec<Publication>,
    next: String,
    more: bool,
}

#[derive(Deserialize)]
struct Publication {
    data: Box<RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    offset: Option<u64>,
    epoch: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// How long a long-poll is held, in seconds: less than what networks cut after.
const HOLD: u32 = 25;
/// Before what broke is begun again.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest answer that is read, in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;
