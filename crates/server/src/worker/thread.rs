//! A worker's thread: its runtime, its listener, and its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tautline_hub::Hub;
use tautline_hub::engine::WorkerId;
use tautline_hub::engine::memory::MemoryEngine;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_local;

use super::Worker;
use super::clock::Clock;
use super::connection_log::Failed;
use super::guests::Guests;
use super::listener;
use super::live::Live;
use super::mailbox::WorkerMailbox;
use super::queues::{NodeQueues, QueueShare};
use super::relays::until_cut;
use crate::client_address::canonical;
use crate::door::admission::{AddressPermit, Admission, Permit};
use crate::door::arrival::{Arrival, TurnedAway};
use crate::door::http2::Http2Door;
use crate::door::tunnel::socket::Joined;
use crate::door::{self, Came, Opened};
use crate::drain::{Stage, reached};
use crate::embed::NodeHandle;
use crate::embed::desk::Desk;
use crate::entropy::OsEntropy;
use crate::events::{Events, InCode};
use crate::http::admin::Sessions;
use crate::http::counters::Dropped;
use crate::http::line::HttpLine;
use crate::http::rewind::Rewind;
use crate::http::{self, Service, Side};
use crate::io::Io;
use crate::keys::KeySource;
use crate::log_queue::LogQueue;
use crate::node_api::{NodeIdentity, Recent, WorkerNode, publishing};
use crate::reload::Reloads;
use crate::revocations::RevocationDesk;
use crate::tls::{NotAccepted, Tls};
use crate::trace::TraceDesk;

/// How long accepting pauses when the system has no more descriptors or memory for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections of the internal listener, on each worker, and fewer where there are few descriptors.
const MAX_INTERNAL: usize = 1024;

/// What all workers of a node have in common.
pub(crate) struct Shared {
    /// Zero of the monotonic clock.
    pub(crate) start: Instant,
    pub(crate) engine: Arc<MemoryEngine>,
    /// What they go by. Each worker has its own view, and takes over another in a turn of its own; whoever
    /// is on a worker asks that ([`Worker::live`]).
    pub(crate) live: watch::Sender<Arc<Live>>,
    /// What was reloaded so far.
    pub(crate) reloads: Reloads,
    pub(crate) identity: NodeIdentity,
    /// By worker.
    pub(crate) mailboxes: Vec<Arc<WorkerMailbox>>,
    /// By worker: where connections come in that another server has accepted.
    pub(crate) visits: Vec<mpsc::UnboundedSender<Visit>>,
    /// Counts them, so that each worker has its turn.
    pub(crate) next_visit: AtomicUsize,
    /// Who may come in.
    pub(crate) admission: Arc<Admission>,
    /// What waits to be written to all clients.
    pub(crate) queues: Arc<NodeQueues>,
    /// Who is logged in to the admin page.
    pub(crate) admins: Arc<Sessions>,
    /// What was counted in the last minute.
    pub(crate) recent: Recent,
    /// Those who follow somebody.
    pub(crate) traces: Arc<TraceDesk>,
    /// Tokens that count no more.
    pub(crate) revocations: RevocationDesk,
    /// What the application's backend is told of who comes and goes, if it is.
    pub(crate) events: Mutex<Option<Events>>,
    /// The code that takes events in the place of a backend.
    pub(crate) event_handler: Option<InCode>,
    /// Where the process's log lines wait, if the log is the node's business.
    pub(crate) log: Option<LogQueue>,
    /// How far the node is on its way out.
    pub(crate) stage: watch::Receiver<Stage>,
}

impl Shared {
    /// What the application's backend is told of who comes and goes, if it is at the moment.
    pub(crate) fn events(&self) -> Option<Events> {
        let events = self.events.lock();
        events.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has events be told by these, and returns who told them until now.
    pub(crate) fn replace_events(&self, events: Option<Events>) -> Option<Events> {
        let running = self.events.lock();
        let mut running = running.unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *running, events)
    }
}

/// Something that somebody else wants done on a worker, in no turn.
pub(crate) type Visit = Box<dyn FnOnce(&WorkerNode) + Send>;

/// A worker that is to be started.
pub(crate) struct Start {
    pub(crate) index: u16,
    /// `None` where the worker has no port of its own.
    pub(crate) listener: Option<TcpListener>,
    /// For what isn't for clients, where that is apart.
    pub(crate) internal: Option<TcpListener>,
    pub(crate) visitors: mpsc::UnboundedReceiver<Visit>,
    pub(crate) entropy: OsEntropy,
    pub(crate) shared: Arc<Shared>,
    /// Dropped when the worker has ended.
    pub(crate) ending: Ending,
}

/// What a connection that was let in is.
enum Admitted {
    WebSocket(Opened),
    /// Something else, to be served by this.
    Other(Work),
}

/// Serves a connection to its end.
type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Tells that a worker has ended, however it did.
pub(crate) struct Ending(mpsc::UnboundedSender<()>);

impl Ending {
    pub(crate) fn new(ended: mpsc::UnboundedSender<()>) -> Self {
        Self(ended)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Start {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no event loop.
    pub(crate) fn spawn(self) -> io::Result<()> {
        let name = format!("worker-{}", self.index);
        thread::Builder::new().name(name).spawn(move || {
            match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => runtime.block_on(self.run()),
                Err(error) => tracing::error!(%error, "the system gives no event loop"),
            }
        })?;
        Ok(())
    }

    async fn run(self) {
        let Self {
            index,
            listener,
            internal,
            visitors,
            entropy,
            shared,
            ending: its_end,
        } = self;
        let Ok(listener) = registered(listener, "listening socket") else {
            return;
        };
        let Ok(internal) = registered(internal, "internal listening socket") else {
            return;
        };
        let mailbox = Arc::clone(&shared.mailboxes[usize::from(index)]);
        // Another may be taken over before the first turn, but not before there is a hub to take it.
        let live = Arc::clone(&shared.live.borrow());
        let worker = worker(index, entropy, &shared, &live);
        let reception = Rc::new(Reception::new(index, worker, shared, &live, &internal));
        let Reception {
            worker,
            shared,
            guests,
            ..
        } = &*reception;
        tokio::select! {
            never = worker.run() => match never {},
            () = reception.accept(listener.as_ref(), listener::silence(&live.config)) => {}
            () = reception.receive(visitors) => {}
            () = reception.serve_internal(internal.as_ref()) => {}
            () = care(index, shared) => {}
            () = watch_memory(index, &shared.admission) => {}
            () = watch_queues(worker, &shared.admission) => {}
            () = watch_revocations(index, &shared.revocations) => {}
            () = count_minutes(index, reception.node()) => {}
            () = drain(worker, shared.stage.clone()) => {}
            () = ending(shared.stage.clone()) => {}
        }
        drop(listener);
        say_goodbye(worker, guests).await;
        mailbox.close();
        drop(its_end);
    }
}

/// A listening socket as the worker's event loop has it. `name` is what the log calls it.
fn registered(
    listener: Option<TcpListener>,
    name: &str,
) -> io::Result<Option<tokio::net::TcpListener>> {
    let listener = listener.map(tokio::net::TcpListener::from_std).transpose();
    listener.inspect_err(|error| tracing::error!(%error, "the {name} can't be used"))
}

/// The worker, with its hub and the code that decides for that, after its first turn.
fn worker(index: u16, entropy: OsEntropy, shared: &Arc<Shared>, live: &Arc<Live>) -> Rc<Worker> {
    let mailbox = &shared.mailboxes[usize::from(index)];
    let mut hub = Hub::new(
        Arc::clone(&live.config.hub),
        Arc::clone(&shared.engine) as _,
        WorkerId(index),
        Arc::clone(mailbox) as _,
        Box::new(entropy),
    );
    let files = live.handlers.clone().map(|handlers| {
        let (files, options) = (Rc::default(), handlers.options);
        let node = NodeHandle::new(Arc::clone(shared));
        let desk = Desk::new(handlers, Rc::clone(&files), Arc::clone(mailbox), node);
        hub.set_application(Box::new(desk), options);
        files
    });
    hub.set_publish_watch(publishing::watch(live.config.telemetry.as_ref(), shared));
    let worker = Worker::new(
        hub,
        Arc::clone(mailbox),
        Clock::new(shared.start),
        files,
        Arc::clone(live),
        QueueShare::new(Arc::clone(&shared.queues), usize::from(index)),
    );
    let share = live.config.log.connections;
    worker.turn(|now, state| {
        state.connections.log().borrow_mut().set_share(share);
        state.set_witnesses(now, shared.events().as_ref().map(Events::tap));
    });
    worker
}

/// Where a worker's connections come in, and what they lead to.
struct Reception {
    index: u16,
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    guests: Rc<Guests>,
    /// What is asked over HTTP on the clients' port.
    service: Rc<Service<WorkerNode>>,
    /// What is on the internal one, if there is one.
    internal: Option<Rc<Service<WorkerNode>>>,
    http2: Rc<Http2Door>,
}

impl Reception {
    fn new(
        index: u16,
        worker: Rc<Worker>,
        shared: Arc<Shared>,
        live: &Live,
        internal: &Option<tokio::net::TcpListener>,
    ) -> Self {
        let guests = Rc::new(Guests::default());
        let service = |side| {
            let node = WorkerNode::new(
                index,
                Rc::clone(&worker),
                Arc::clone(&shared),
                Rc::clone(&guests),
            );
            Rc::new(Service::new(Arc::clone(&live.config.http), node).on_side(side))
        };
        let (side, internal) = match internal {
            None => (Side::Both, None),
            Some(_) => (Side::Clients, Some(service(Side::Internal))),
        };
        let service = service(side);
        let http2 = Rc::new(Http2Door {
            worker: Rc::clone(&worker),
            shared: Arc::clone(&shared),
            guests: Rc::clone(&guests),
            service: Rc::clone(&service),
        });
        Self {
            index,
            worker,
            shared,
            guests,
            service,
            internal,
            http2,
        }
    }

    fn node(&self) -> WorkerNode {
        WorkerNode::new(
            self.index,
            Rc::clone(&self.worker),
            Arc::clone(&self.shared),
            Rc::clone(&self.guests),
        )
    }

    /// Does what others want done here. Never ends before they do.
    async fn receive(&self, mut visitors: mpsc::UnboundedReceiver<Visit>) {
        let node = self.node();
        while let Some(visit) = visitors.recv().await {
            visit(&node);
        }
    }

    /// Accepts clients. Never ends.
    async fn accept(
        self: &Rc<Self>,
        listener: Option<&tokio::net::TcpListener>,
        silence: Duration,
    ) {
        let Some(listener) = listener else {
            return std::future::pending().await;
        };
        let shared = &self.shared;
        loop {
            let Some((io, peer)) = accept(listener, silence).await else {
                continue;
            };
            let arrived = match shared.admission.socket(peer.ip()) {
                Ok(socket) => Arrival::new(shared, io, peer).map(|arrival| (arrival, socket)),
                Err(over) => Err(TurnedAway::new(shared, io, over)),
            };
            match arrived {
                Ok((arrival, socket)) => self.serve(arrival, socket),
                Err(turned_away) => self.turn_away(turned_away),
            }
        }
    }

    /// Tells whoever may not come in, in a task of its own.
    fn turn_away(&self, turned_away: TurnedAway) {
        let (worker, guest) = (Rc::clone(&self.worker), self.guests.enter());
        spawn_local(async move {
            if let Some(untold) = turned_away.tell().await {
                worker.count_http(|counters| counters.dropped(untold));
            }
            drop(guest);
        });
    }

    /// Serves a connection in a task of its own. `socket` is held until that ends.
    fn serve(self: &Rc<Self>, arrival: Arrival, socket: Permit) {
        let (worker, guest) = (Rc::clone(&self.worker), self.guests.enter());
        // In boxes, this and what it comes to, so that the task of a WebSocket has no room reserved for what comes before it
        // or for HTTP, and that of HTTP has none for what comes before it.
        let admitted = Box::pin(Rc::clone(self).admit(arrival));
        spawn_local(async move {
            match admitted.await {
                Some(Admitted::WebSocket(opened)) => {
                    door::websocket::serve(&worker, opened).await;
                }
                Some(Admitted::Other(work)) => work.await,
                None => {}
            }
            drop((guest, socket));
        });
    }

    /// Finds out who a connection is from and what it is; `None` if nothing came of it.
    async fn admit(self: Rc<Self>, arrival: Arrival) -> Option<Admitted> {
        let worker = &self.worker;
        let (io, from, mut permit) = match arrival.announced(&self.shared).await {
            Ok(announced) => announced,
            Err(dropped) => {
                if let Some(dropped) = dropped {
                    worker.count_http(|counters| counters.dropped(dropped));
                }
                return None;
            }
        };
        let io = self.secured(io, from).await?;
        let mut came = door::admit(worker, io, from, &mut permit).await?;
        let held = came.count_unsent(|| worker.relay());
        let work = match came {
            Came::WebSocket(opened) => return Some(Admitted::WebSocket(opened)),
            Came::Http1(stream) => self.serve_http1(stream, from, permit),
            Came::Http2(stream) => self.serve_http2(stream, from, permit),
            Came::Tunnel(joined) => self.serve_tunnel(joined, permit),
        };
        Some(Admitted::Other(match held {
            None => work,
            Some(held) => Box::pin(until_cut(held, work)),
        }))
    }

    /// The connection's bytes, after the handshake of TLS if there is TLS; `None` if that failed.
    async fn secured(&self, io: TcpStream, from: SocketAddr) -> Option<Io> {
        let live = self.worker.live();
        let Some(tls) = &live.tls else {
            return Some(Io::Plain(io));
        };
        match tls.accept(io).await {
            Ok(io) => Some(io),
            Err(NotAccepted::NoTls(io)) => {
                door::mistaken::tell_of_tls(&self.worker, io, from).await;
                None
            }
            Err(NotAccepted::Failed(error)) => {
                let worker = &self.worker;
                worker.count_http(|counters| counters.dropped(Dropped::Tls));
                worker.log_failed(from.ip(), Failed::Tls(&error));
                None
            }
        }
    }

    fn serve_http1(
        self: Rc<Self>,
        stream: Rewind<Io>,
        from: SocketAddr,
        permit: Option<AddressPermit>,
    ) -> Work {
        Box::pin(async move {
            let stream = stream.patient_with_client(self.write_timeout());
            let line = HttpLine::of(from, &self.worker.live().config.admission.trust);
            let (service, ending) = (Rc::clone(&self.service), ending(self.shared.stage.clone()));
            http::serve_rewound(stream, line, service, ending).await;
            drop(permit);
        })
    }

    fn serve_http2(
        self: Rc<Self>,
        stream: Rewind<Io>,
        from: SocketAddr,
        permit: Option<AddressPermit>,
    ) -> Work {
        Box::pin(async move {
            let stream = stream.patient_with_client(self.write_timeout());
            self.http2.serve(stream, from).await;
            drop(permit);
        })
    }

    fn serve_tunnel(self: Rc<Self>, joined: Box<Joined>, permit: Option<AddressPermit>) -> Work {
        let relayed = self.worker.relay();
        Box::pin(async move {
            joined.serve(self.shared.stage.clone(), relayed).await;
            drop(permit);
        })
    }

    fn write_timeout(&self) -> Option<Duration> {
        self.worker.live().config.http.write_timeout
    }

    /// Accepts those who are no clients. Never ends.
    async fn serve_internal(&self, listener: Option<&tokio::net::TcpListener>) {
        let (Some(listener), Some(service)) = (listener, &self.internal) else {
            return std::future::pending().await;
        };
        let shared = &self.shared;
        let share = shared.admission.internal_sockets() / shared.mailboxes.len().max(1);
        let room = Arc::new(Semaphore::new(share.clamp(1, MAX_INTERNAL)));
        let silence = listener::silence(&shared.live.borrow().config);
        loop {
            let Some((io, peer)) = accept(listener, silence).await else {
                continue;
            };
            // Whoever is one too many is closed.
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                continue;
            };
            let (service, guest) = (Rc::clone(service), self.guests.enter());
            let ending = ending(shared.stage.clone());
            let limit = shared.live.borrow().config.http.write_timeout;
            spawn_local(async move {
                let stream = Rewind::new(Vec::new(), Io::Plain(io)).patient_with_client(limit);
                let line = HttpLine::new(Some(peer));
                http::serve_rewound(stream, line, service, ending).await;
                drop((guest, place));
            });
        }
    }
}

/// Ends what the worker's clients have, and waits until they and the handlers are done.
async fn say_goodbye(worker: &Worker, guests: &Guests) {
    worker.drain(Duration::ZERO);
    tokio::select! {
        never = worker.run() => match never {},
        () = guests.gone() => {}
    }
    // Handlers that hear of the last goodbyes have their time for it.
    tokio::select! {
        never = worker.run() => match never {},
        () = worker.questions_answered() => {}
    }
}

/// Looks after the keys of tokens and the certificates that hold at the moment, on one of the workers. Never
/// ends.
async fn care(index: u16, shared: &Shared) {
    if index != 0 {
        return std::future::pending().await;
    }
    let mut lives = shared.live.subscribe();
    loop {
        let live = Arc::clone(&lives.borrow_and_update());
        // One for each kind of token at the most.
        let mut sources = live.config.keys.iter();
        let (one, other) = (sources.next(), sources.next());
        tokio::select! {
            ((), (), ()) = async { tokio::join!(fetch(one), fetch(other), watch(live.tls.as_ref())) } => {}
            changed = lives.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

/// Fetches a key set whenever that is asked for. Never ends.
async fn fetch(source: Option<&KeySource>) {
    match source {
        Some(source) => source.run().await,
        None => std::future::pending().await,
    }
}

/// Looks after certificates. Never ends.
async fn watch(tls: Option<&Arc<Tls>>) {
    match tls {
        Some(tls) => tls.watch().await,
        None => std::future::pending().await,
    }
}

/// Forgets revocations that are over, on one of the workers. Never ends.
async fn watch_revocations(index: u16, revocations: &RevocationDesk) {
    if index == 0 {
        revocations.watch().await;
    }
    std::future::pending::<()>().await;
}

/// Counts what happens in each minute, on one of the workers. Never ends.
async fn count_minutes(index: u16, node: WorkerNode) {
    if index == 0 {
        node.count_minutes().await;
    }
    std::future::pending::<()>().await;
}

/// Measures memory, on one of the workers. Never ends.
async fn watch_memory(index: u16, admission: &Admission) {
    if index == 0 {
        admission.watch_memory().await;
    }
    std::future::pending::<()>().await;
}

/// Looks at what waits for the worker's clients. Never ends.
async fn watch_queues(worker: &Worker, admission: &Admission) {
    let mut times = 0;
    let over = || {
        let over = admission.memory_over();
        times = if over > 0 { times + 1 } else { 0 };
        // Once may be a moment.
        if times < 2 { 0 } else { over }
    };
    worker.watch_queues(over).await;
}

/// Tells the worker's clients to come back elsewhere, when it is time for that. Never ends.
async fn drain(worker: &Worker, mut stage: watch::Receiver<Stage>) {
    let is_draining = |stage: &Stage| matches!(stage, Stage::Draining(_));
    if let Stage::Draining(over) = reached(&mut stage, is_draining).await {
        worker.drain(over);
    }
    std::future::pending::<()>().await;
}

/// Resolves when the worker is to end.
async fn ending(mut stage: watch::Receiver<Stage>) {
    reached(&mut stage, |stage| *stage == Stage::Ending).await;
}

/// The next connection; `None` when there was none after all.
async fn accept(
    listener: &tokio::net::TcpListener,
    silence: Duration,
) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok((io, peer)) => {
            // On Linux it comes prepared.
            #[cfg(not(target_os = "linux"))]
            let _ = listener::prepare(&io, silence);
            #[cfg(target_os = "linux")]
            let _ = silence;
            Some((io, canonical(peer)))
        }
        Err(error) if is_about_one_connection(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "connections can't be accepted for a moment");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Whether an error of accepting is the business of the connection that was to be accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
