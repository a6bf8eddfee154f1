//! The WebSocket door: one task a connection, from behind the upgrade to the last byte of the
//! goodbye.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tautline_hub::{Frame, Pings, SessionId, Transport};
use tautline_protocol::{Disconnect, Encoding};
use tautline_websocket::conn::scratch;
use tautline_websocket::proto::{CloseCode, Connection, Event, MAX_REASON, Role};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Opened;
use super::address::Place;
use super::admission::Permit;
use super::plain::Publisher;
use super::uni::connect_command;
use crate::http::counters::Dropped;
use crate::worker::Worker;
use crate::worker::link::{Ending, Link};
use crate::worker::voice::Voice;

/// How many times a connection may fill the read buffer before others have their turn.
const READS_PER_POLL: usize = 8;

/// How long the peer has to read what is queued, the Close behind it included, and to end its side.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);

/// Why reading ended.
enum End {
    /// The peer closed, or broke the rules; what answers that is queued.
    Closed,
    /// The hub ended the session.
    Disconnected(Ending),
    /// The connection is gone.
    Gone,
}

/// How a client is met.
pub(crate) struct Manner {
    pub(crate) transport: Transport,
    /// Puts what the hub says into its words, if they are not the protocol's.
    pub(crate) voice: Option<Box<dyn Voice>>,
    /// Commands that come with the request, in JSON.
    pub(crate) opening: Option<String>,
    /// `None` for one that speaks the protocol.
    pub(crate) ear: Option<Box<Ear>>,
    /// Among the node's clients.
    pub(crate) permit: Option<Permit>,
}

impl Manner {
    /// For SDKs, and for whoever tries the protocol with a tool that knows WebSockets only, and answers
    /// their own `pings`.
    pub(crate) fn protocol(encoding: Encoding, pings: Pings) -> Self {
        Self {
            transport: Transport::new("websocket", encoding).with_pings(pings),
            voice: None,
            opening: None,
            ear: None,
            permit: None,
        }
    }
}

/// What the messages of a client mean that doesn't speak the protocol.
pub(crate) enum Ear {
    /// The first is a request to connect.
    Connect,
    /// Nothing.
    Deaf,
    /// They are to be published.
    Publish(Publisher),
}

impl Ear {
    /// The commands that come of a message.
    fn hear(&mut self, message: &[u8]) -> Option<Result<String, Disconnect>> {
        match self {
            Self::Deaf => None,
            Self::Connect => {
                *self = Self::Deaf;
                let text = std::str::from_utf8(message).ok();
                let command = text.and_then(|text| connect_command(text).ok());
                Some(command.ok_or(Disconnect::BAD_REQUEST))
            }
            Self::Publish(publisher) => Some(publisher.command(message)),
        }
    }
}

/// Begins the session of a connection, and serves it until it is closed.
pub(crate) fn serve(worker: &Worker, opened: Opened) -> impl Future<Output = ()> {
    let mut session = Session::begin(worker, opened);
    async move {
        let end = poll_fn(|cx| session.poll(cx)).await;
        // In a box: idle connections, of which there are many, have no room reserved for their end.
        Box::pin(async move {
            let (worker, id) = (session.worker, session.id);
            session.finish(end).await;
            worker.forget_request(id);
        })
        .await;
    }
}

/// A session as its connection's task sees it.
struct Session<'a> {
    worker: &'a Worker,
    link: Rc<RefCell<Link>>,
    id: SessionId,
    ear: Option<Box<Ear>>,
    _permit: Option<Permit>,
    engine: Connection,
}

impl<'a> Session<'a> {
    fn begin(worker: &'a Worker, opened: Opened) -> Self {
        let Opened {
            link,
            mut leftover,
            limits,
            request,
            user,
            manner,
            address_permit,
            address,
        } = opened;
        let Manner {
            transport,
            voice,
            opening,
            ear,
            permit,
        } = manner;
        {
            let mut link = link.borrow_mut();
            (link.voice, link.address_permit) = (voice, address_permit);
        }
        let id = worker.turn(|now, state| {
            let id = state.open(now, transport, request, user, address);
            let transport = transport.name;
            if let Some(voice) = &mut link.borrow_mut().voice {
                let worker = state.hub.worker().0;
                let names = &state.live.doors.addresses;
                voice.take_address(&mut || names.name(Place { worker, id }));
            }
            state.connections.insert(id, Rc::clone(&link), transport);
            state.connections.mark_dirty(id);
            if let Some(commands) = &opening {
                let frame = Frame::Json(commands);
                state.hub.receive(now, id, frame, &mut state.connections);
            }
            id
        });
        let mut session = Self {
            worker,
            link,
            id,
            ear,
            _permit: permit,
            engine: Connection::new(Role::Server, limits),
        };
        if !leftover.is_empty() {
            session.receive(&mut leftover);
        }
        session
    }

    /// Reads, and has what was read worked on, until there is nothing to read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.link.borrow_mut().register(cx);
        for _ in 0..READS_PER_POLL {
            if let Some(end) = self.ended() {
                return Poll::Ready(end);
            }
            // A queue that was blocked moves on here: the task was woken because the socket takes
            // more.
            match self.poll_flush() {
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Ready(Ok(())) => self.tell_drained(),
                Poll::Pending => {}
            }
            if !self.worker.wants_input(self.id) {
                return Poll::Pending;
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => return Poll::Ready(End::Gone),
                Err(error) => {
                    if let Some(dropped) = Dropped::by_reading(&error) {
                        self.drop_as(dropped);
                    }
                    return Poll::Ready(End::Gone);
                }
                Ok(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is queued, and the pong that had to wait for that.
    fn poll_flush(&mut self) -> Poll<io::Result<()>> {
        let mut link = self.link.borrow_mut();
        loop {
            ready!(link.poll_flush())?;
            if !self.engine.flush_pong(&mut link.queue) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Lets the hub go on with a session for which it has more than there was room for.
    fn tell_drained(&self) {
        if self.link.borrow_mut().take_drained() {
            self.worker.turn(|now, state| {
                state.hub.drained(now, self.id, &mut state.connections);
            });
        }
    }

    /// One read, worked on before the thread's buffer is given back.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        scratch::with(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.link.borrow_mut().io).poll_read(cx, &mut read))?;
            let input = read.filled_mut();
            if !input.is_empty() {
                self.receive(input);
            }
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Feeds what was read to the engine, and what comes out of it to the hub.
    fn receive(&mut self, input: &mut [u8]) {
        let Self {
            worker,
            link,
            id,
            ear,
            engine,
            ..
        } = self;
        let encoding = link.borrow().encoding;
        tell_time(engine);
        worker.turn(|now, state| {
            let (hub, connections) = (&mut state.hub, &mut state.connections);
            if !hub.charge_input(now, *id, input.len(), connections) {
                return;
            }
            let mut events = engine.receive(input);
            loop {
                let event = events.next(&mut link.borrow_mut().queue);
                let (bytes, text) = match event {
                    Some(Event::Text(text)) => (text.as_bytes(), Some(text)),
                    Some(Event::Binary(bytes)) => (bytes, None),
                    // The engine has answered.
                    Some(Event::Ping(_)) => continue,
                    Some(Event::Pong(_)) => {
                        state.hub.pong_came(now, *id, &state.connections);
                        continue;
                    }
                    Some(Event::Failed(fault)) => {
                        state.http.failed(fault.close_code().get());
                        break;
                    }
                    Some(Event::Close(_)) | None => break,
                };
                // JSON belongs into text frames and Protobuf into binary ones; but what counts is what
                // is in them, and the protocol's other servers don't look at the frame either.
                let heard;
                let frame = match (ear.as_deref_mut(), encoding) {
                    (None, Encoding::Json) => text
                        .or_else(|| std::str::from_utf8(bytes).ok())
                        .map(Frame::Json)
                        .ok_or(Disconnect::BAD_REQUEST),
                    (None, _) => Ok(Frame::Protobuf(bytes)),
                    (Some(ear), _) => {
                        let Some(commands) = ear.hear(bytes) else {
                            continue;
                        };
                        heard = commands;
                        heard.as_deref().map(Frame::Json).map_err(Clone::clone)
                    }
                };
                let connections = &mut state.connections;
                match frame {
                    Ok(frame) => state.hub.receive(now, *id, frame, connections),
                    Err(disconnect) => state.hub.disconnect(now, *id, disconnect, connections),
                }
                if link.borrow().ending.is_some() {
                    break;
                }
            }
            drop(events);
            if engine.can_send() {
                state.connections.mark_dirty(*id);
            } else {
                // A Close is queued, and nothing may follow it (RFC 6455, section 5.5.1): what this
                // very turn has in store for the session must not find the connection any more.
                state.leave(now, *id);
            }
        });
        tell_time(engine);
    }

    /// Whether the session is over, from whichever side.
    fn ended(&mut self) -> Option<End> {
        let mut link = self.link.borrow_mut();
        if link.broken.is_some() {
            return Some(End::Gone);
        }
        if let Some(ending) = link.ending.take() {
            return Some(End::Disconnected(ending));
        }
        (!self.engine.is_open()).then_some(End::Closed)
    }

    /// Tells the hub, or the peer, whoever doesn't know yet, and lets go of the connection.
    async fn finish(mut self, end: End) {
        match end {
            // Closed connections have left already; doing so twice is harmless.
            End::Closed | End::Gone => self.worker.turn(|now, state| state.leave(now, self.id)),
            End::Disconnected(Ending { ref disconnect, .. }) => self.queue_close(disconnect),
        }
        if !matches!(end, End::Gone) {
            // Whatever the peer does, the goodbye takes no longer than this.
            let said = tokio::time::timeout(GOODBYE, self.say_goodbye()).await;
            if said.is_err() {
                self.drop_as(Dropped::Goodbye);
            }
        }
    }

    fn drop_as(&self, dropped: Dropped) {
        self.worker.count_http(|counters| counters.dropped(dropped));
    }

    fn queue_close(&mut self, disconnect: &Disconnect) {
        let code = CloseCode::from(u16::try_from(disconnect.code).unwrap_or_default());
        let code = if code.may_be_sent() {
            code
        } else {
            CloseCode::INTERNAL_ERROR
        };
        let reason = &disconnect.reason[..disconnect.reason.floor_char_boundary(MAX_REASON)];
        // Fails only when a Close was sent already, and then there is nothing to add.
        let _ = self
            .engine
            .close(code, reason, &mut self.link.borrow_mut().queue);
    }

    /// Writes what is queued, ends our side, and reads on until the peer has ended its own: closing
    /// a socket with unread input resets the connection, which can take the Close from the peer.
    async fn say_goodbye(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            self.link.borrow_mut().register(cx);
            self.poll_flush()
        })
        .await?;
        let link = &self.link;
        poll_fn(|cx| Pin::new(&mut link.borrow_mut().io).poll_shutdown(cx)).await?;
        poll_fn(|cx| {
            scratch::with(|buffer| {
                loop {
                    let mut read = ReadBuf::new(buffer);
                    ready!(Pin::new(&mut link.borrow_mut().io).poll_read(cx, &mut read))?;
                    if read.filled().is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
            })
        })
        .await
    }
}

/// Tells the engine the time, if it has control frames to count.
fn tell_time(engine: &mut Connection) {
    if engine.wants_time() {
        engine.set_time(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::pin::pin;
    use std::task::Waker;

    use tautline_websocket::conn::scratch;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;
    use crate::worker::testing::{self, Peer};

    const OPEN: &str = "client.allow_anonymous_connect_without_token = true\n\
        client.rate_limit.client_command.total = \"1000000/s\"\n";

    /// More of them than may be read before others have their turn.
    const COMMANDS: usize = 1_100;

    /// A long one, which is little work.
    fn long_command() -> String {
        let channel = "x".repeat(10_000);
        format!(r#"{{"id":2,"unsubscribe":{{"channel":"{channel}"}}}}"#)
    }

    /// A client that has sent a lot, and how long each of its frames is.
    async fn busy() -> (Peer, Opened, usize) {
        let (mut peer, opened) = Peer::new();
        peer.send(r#"{"id":1,"connect":{}}"#).await;
        let command = long_command();
        for _ in 0..COMMANDS {
            peer.send(&command).await;
        }
        let frame = testing::masked(&command).len();
        assert!(COMMANDS * frame > 4 * READS_PER_POLL * scratch::SIZE);
        (peer, opened, frame)
    }

    /// Goes on once each other task that is ready had its turn; Tokio's own way waits for its drivers, too.
    async fn others_turn() {
        let mut is_over = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut is_over, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn commands(worker: &Worker) -> usize {
        worker.turn(|_, state| state.hub.counters().commands) as usize
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_endless_input_is_read_for_so_long_and_no_longer() {
        let worker = testing::worker(OPEN);
        let (_peer, opened, frame) = busy().await;
        let mut serving = pin!(serve(&worker, opened));
        let polled = serving
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let read = commands(&worker).saturating_sub(1) * frame;
        assert!(read > 0 && read <= READS_PER_POLL * scratch::SIZE, "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_answered_beside_a_connection_with_endless_input() {
        let test = async {
            let worker = testing::worker(OPEN);
            let (_busy, one, _) = busy().await;
            let (mut other, another) = Peer::new();
            for opened in [one, another] {
                let worker = Rc::clone(&worker);
                spawn_local(async move { serve(&worker, opened).await });
            }
            let asked = Rc::clone(&worker);
            let before = spawn_local(async move {
                other.send(r#"{"id":1,"connect":{}}"#).await;
                while other.heard().await.is_empty() {
                    others_turn().await;
                }
                commands(&asked)
            });
            let before = before.await.expect("it does nothing wrong");
            assert!(before <= COMMANDS / 2, "it waited for {before} commands");
            // And the busy one goes on by itself.
            while commands(&worker) < COMMANDS {
                yield_now().await;
            }
        };
        LocalSet::new().run_until(test).await;
    }

    /// Who never ends his side of a connection is cut off, and counted.
    #[tokio::test(start_paused = true)]
    async fn a_goodbye_has_an_end() {
        for answers in [true, false] {
            let worker = testing::worker(OPEN);
            let (mut peer, opened) = Peer::new();
            // Not JSON, which ends the session.
            peer.send("{").await;
            if answers {
                let served = async {
                    serve(&worker, opened).await;
                };
                let left = async {
                    testing::settle().await;
                    drop(peer);
                };
                tokio::join!(served, left);
            } else {
                serve(&worker, opened).await;
                drop(peer);
            }
            let mut dropped = BTreeMap::new();
            worker.turn(|_, state| dropped.extend(state.http.all_dropped()));
            assert_eq!(dropped["goodbye"], u64::from(!answers), "{answers}");
        }
    }

    /// Idle connections are what a server has most of. Whoever makes their tasks or links larger should know it.
    #[test]
    fn an_idle_connection_is_small() {
        fn size_of_result<A, B, R>(_: impl FnOnce(A, B) -> R) -> usize {
            size_of::<R>()
        }
        let engine = size_of::<Connection>();
        assert!(
            size_of_result(serve) <= engine + 56,
            "{} with an engine of {engine}",
            size_of_result(serve)
        );
        // Tokio's stream is larger where another crate of the build asks for its other runtime.
        assert!(
            size_of::<RefCell<Link>>() <= size_of::<tokio::net::TcpStream>() + 224,
            "{}",
            size_of::<RefCell<Link>>()
        );
    }
}
