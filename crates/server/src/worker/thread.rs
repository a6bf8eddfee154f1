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
use crate::door::admission::Admission;
use crate::door::arrival::{Arrival, TurnedAway};
use crate::door::http2::Http2Door;
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
    Other(Pin<Box<dyn Future<Output = ()>>>),
}

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
            mut visitors,
            entropy,
            shared,
            ending: its_end,
        } = self;
        let listener = match listener.map(tokio::net::TcpListener::from_std).transpose() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the listening socket can't be used");
                return;
            }
        };
        let internal = match internal.map(tokio::net::TcpListener::from_std).transpose() {
            Ok(internal) => internal,
            Err(error) => {
                tracing::error!(%error, "the internal listening socket can't be used");
                return;
            }
        };
        let mailbox = Arc::clone(&shared.mailboxes[usize::from(index)]);
        // Another may be taken over before the first turn, but not before there is a hub to take it.
        let live = Arc::clone(&shared.live.borrow());
        let mut hub = Hub::new(
            Arc::clone(&live.config.hub),
            Arc::clone(&shared.engine) as _,
            WorkerId(index),
            Arc::clone(&mailbox) as _,
            Box::new(entropy),
        );
        let files = live.handlers.clone().map(|handlers| {
            let (files, options) = (Rc::default(), handlers.options);
            let node = NodeHandle::new(Arc::clone(&shared));
            let desk = Desk::new(handlers, Rc::clone(&files), Arc::clone(&mailbox), node);
            hub.set_application(Box::new(desk), options);
            files
        });
        let watch = publishing::watch(live.config.telemetry.as_ref(), &shared);
        hub.set_publish_watch(watch);
        let clock = Clock::new(shared.start);
        let settings = Arc::clone(&live.config.http);
        let share = live.config.log.connections;
        let silence = listener::silence(&live.config);
        let queues = QueueShare::new(Arc::clone(&shared.queues), usize::from(index));
        let worker = Worker::new(hub, Arc::clone(&mailbox), clock, files, live, queues);
        worker.turn(|now, state| {
            state.connections.log().borrow_mut().set_share(share);
            state.set_witnesses(now, shared.events().as_ref().map(Events::tap));
        });
        let guests = Rc::new(Guests::default());
        let node = || {
            WorkerNode::new(
                index,
                Rc::clone(&worker),
                Arc::clone(&shared),
                Rc::clone(&guests),
            )
        };
        let (side, inner) = match &internal {
            None => (Side::Both, None),
            Some(_) => {
                let service = Service::new(Arc::clone(&settings), node());
                (
                    Side::Clients,
                    Some(Rc::new(service.on_side(Side::Internal))),
                )
            }
        };
        let service = Rc::new(Service::new(settings, node()).on_side(side));
        let http2 = Rc::new(Http2Door {
            worker: Rc::clone(&worker),
            shared: Arc::clone(&shared),
            guests: Rc::clone(&guests),
            service: Rc::clone(&service),
        });
        let receive = async {
            let node = node();
            while let Some(visit) = visitors.recv().await {
                visit(&node);
            }
        };
        let accept = async {
            let Some(listener) = &listener else {
                return std::future::pending().await;
            };
            loop {
                let Some((io, peer)) = accept(listener, silence).await else {
                    continue;
                };
                let arrived = match shared.admission.socket(peer.ip()) {
                    Ok(socket) => Arrival::new(&shared, io, peer).map(|arrival| (arrival, socket)),
                    Err(over) => Err(TurnedAway::new(&shared, io, over)),
                };
                let (arrival, socket) = match arrived {
                    Ok(arrived) => arrived,
                    Err(turned_away) => {
                        let (worker, guest) = (Rc::clone(&worker), guests.enter());
                        spawn_local(async move {
                            if let Some(untold) = turned_away.tell().await {
                                worker.count_http(|counters| counters.dropped(untold));
                            }
                            drop(guest);
                        });
                        continue;
                    }
                };
                let (worker, guest) = (Rc::clone(&worker), guests.enter());
                let (service, shared) = (Rc::clone(&service), Arc::clone(&shared));
                let http2 = Rc::clone(&http2);
                // In boxes, so that the task of a WebSocket has no room reserved for what comes before it or for HTTP,
                // and that of HTTP has none for what comes before it.
                let admitting = Rc::clone(&worker);
                let admitted = Box::pin(async move {
                    let (io, from, mut permit) = match arrival.announced(&shared).await {
                        Ok(announced) => announced,
                        Err(dropped) => {
                            if let Some(dropped) = dropped {
                                admitting.count_http(|counters| counters.dropped(dropped));
                            }
                            return None;
                        }
                    };
                    let io = match &admitting.live().tls {
                        None => Io::Plain(io),
                        Some(tls) => match tls.accept(io).await {
                            Ok(io) => io,
                            Err(NotAccepted::NoTls(io)) => {
                                door::mistaken::tell_of_tls(&admitting, io, from).await;
                                return None;
                            }
                            Err(NotAccepted::Failed(error)) => {
                                admitting.count_http(|counters| counters.dropped(Dropped::Tls));
                                admitting.log_failed(from.ip(), Failed::Tls(&error));
                                return None;
                            }
                        },
                    };
                    let limit = admitting.live().config.http.write_timeout;
                    let came = door::admit(&admitting, io, from, &mut permit);
                    let mut came = came.await?;
                    let held = came.count_unsent(|| admitting.relay());
                    let work: Pin<Box<dyn Future<Output = ()>>> = match came {
                        Came::WebSocket(opened) => return Some(Admitted::WebSocket(opened)),
                        Came::Http1(stream) => Box::pin(async move {
                            let stream = stream.patient_with_client(limit);
                            let ending = ending(shared.stage.clone());
                            let line = HttpLine::of(from, &admitting.live().config.admission.trust);
                            http::serve_rewound(stream, line, service, ending).await;
                            drop(permit);
                        }),
                        Came::Tunnel(joined) => {
                            let relayed = admitting.relay();
                            Box::pin(async move {
                                joined.serve(shared.stage.clone(), relayed).await;
                                drop(permit);
                            })
                        }
                        Came::Http2(stream) => Box::pin(async move {
                            let stream = stream.patient_with_client(limit);
                            http2.serve(stream, from).await;
                            drop(permit);
                        }),
                    };
                    Some(Admitted::Other(match held {
                        None => work,
                        Some(held) => Box::pin(until_cut(held, work)),
                    }))
                });
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
        };
        tokio::select! {
            never = worker.run() => match never {},
            () = accept => {}
            () = receive => {}
            () = serve_internal(internal.as_ref(), inner, &shared, &guests) => {}
            () = care(index, &shared) => {}
            () = watch_memory(index, &shared.admission) => {}
            () = watch_queues(&worker, &shared.admission) => {}
            () = watch_revocations(index, &shared.revocations) => {}
            () = count_minutes(index, node()) => {}
            () = drain(&worker, shared.stage.clone()) => {}
            () = ending(shared.stage.clone()) => {}
        }
        drop(listener);
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
        mailbox.close();
        drop(its_end);
    }
}

/// Accepts those who are no clients. Never ends.
async fn serve_internal(
    listener: Option<&tokio::net::TcpListener>,
    service: Option<Rc<Service<WorkerNode>>>,
    shared: &Arc<Shared>,
    guests: &Rc<Guests>,
) {
    let (Some(listener), Some(service)) = (listener, service) else {
        return std::future::pending().await;
    };
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
        let (service, guest) = (Rc::clone(&service), guests.enter());
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
