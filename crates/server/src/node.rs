//! A node: the process's workers, from listening to the last goodbye.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tautline_hub::engine::memory::MemoryEngine;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::config::{Config, ConfigFile};
use crate::descriptors;
use crate::door::address::AddressKey;
use crate::drain::Stage;
use crate::embed::desk::Handlers;
use crate::embed::{NodeBuilder, NodeHandle};
use crate::entropy::OsEntropy;
use crate::events::settings::Settings as EventSettings;
use crate::events::{Events, EventsError};
use crate::http::admin::Sessions;
use crate::log_queue::LogQueue;
use crate::node_api::{NodeIdentity, Recent};
use crate::reload::{Applied, Reloads};
use crate::revocations::{RevocationDesk, RevocationsError};
use crate::systemd;
use crate::worker::listener;
use crate::worker::live::Live;
use crate::worker::queues::NodeQueues;
use crate::worker::thread::{Ending, Shared, Start};

/// Why a node doesn't run, or doesn't run any more.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system doesn't give what every server needs.
    #[error("the system gives no {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Two were to decide the same.
    #[error(
        "there is a handler in code, and the configuration has proxies to a backend, which decide the same: \
         leave one of them out"
    )]
    HandlerAndProxies,
    /// There can be no events to the backend.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// Revocations can't be kept.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// A worker ended although nobody asked it to.
    #[error(
        "a worker ended unexpectedly; this is a bug in Tautline, please report it with the log"
    )]
    WorkerEnded,
}

/// Runs a node until SIGTERM or SIGINT (Ctrl-C) ends it: clients are told to come back elsewhere, in
/// `shutdown.timeout` at the most; a second signal ends it at once. SIGHUP reloads the configuration, where
/// it comes from a file.
///
/// `started` is called once connections are accepted, with the address that is listened on.
///
/// # Errors
///
/// [`NodeError`], at the start, or when a worker fails.
pub fn run(mut builder: NodeBuilder, started: impl FnOnce(SocketAddr)) -> Result<(), NodeError> {
    if let Some(descriptors) = descriptors::raise() {
        tracing::debug!(
            descriptors,
            "the most files and connections that can be open"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("event loop"))?;
    let reloads = builder.reloads();
    if let Some(listener) = systemd::inherited().map_err(system("socket that the unit promises"))? {
        builder = builder.listener(listener);
    }
    // Before anybody is served or told: whoever hears of the node may signal at once.
    let (signals, hangups) = {
        let _in = runtime.enter();
        (Signals::new()?, reloads.then(Hangups::new).transpose()?)
    };
    let node = builder.start()?;
    runtime.block_on(async {
        if let Some(address) = node.address() {
            started(address);
        }
        systemd::ready();
        let handle = node.handle().clone();
        let result = tokio::select! {
            result = node.run_until(signals) => result,
            () = reload_on(hangups, &handle) => Ok(()),
            () = systemd::attend(&handle) => Ok(()),
        };
        // With nobody there, the end may be over before that it begins was told.
        systemd::stopping();
        result
    })
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Listening {
    /// Only from a server of the application's.
    No,
    /// From the address of the configuration.
    Configured,
    /// From a socket that somebody else has opened.
    On(TcpListener),
}

/// Where the configuration came from.
pub(crate) struct Source {
    /// Where it is read again.
    pub(crate) file: Option<ConfigFile>,
    /// What is to be done with one that was reloaded.
    pub(crate) applied: Option<Applied>,
    /// Where log lines wait, if this process's do.
    pub(crate) log: Option<LogQueue>,
}

/// A node that was started.
pub(crate) struct Running {
    pub(crate) handle: NodeHandle,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) internal_address: Option<SocketAddr>,
    /// How far the node is on its way out.
    pub(crate) stage: watch::Sender<Stage>,
    /// Hears of each worker that has ended, and ends with the last.
    pub(crate) ended: mpsc::UnboundedReceiver<()>,
}

/// Starts the workers.
pub(crate) fn start(
    config: Config,
    handlers: Option<Handlers>,
    events: Option<EventSettings>,
    listening: Listening,
    source: Source,
) -> Result<Running, NodeError> {
    let workers = config.node.worker_count();
    let silence = listener::silence(&config);
    if let Listening::On(given) = &listening {
        doubt_handed_over(given, &config);
    }
    let listeners = match listening {
        Listening::No => Ok(Vec::new()),
        Listening::Configured => listener::listen(config.listen, workers, silence),
        Listening::On(given) => listener::share(given, workers, silence),
    };
    let listeners = listeners.map_err(|source| NodeError::Listen {
        address: config.listen,
        source,
    })?;
    let address = listeners.first().map(TcpListener::local_addr);
    let address = address
        .transpose()
        .map_err(system("address to listen on"))?;
    let internal = config.internal.map(|address| {
        let listeners = listener::listen(address, workers, silence);
        listeners.map_err(|source| NodeError::Listen { address, source })
    });
    let internal = internal.transpose()?.unwrap_or_default();
    let internal_address = internal.first().map(TcpListener::local_addr);
    let internal_address = internal_address
        .transpose()
        .map_err(system("address to listen on"))?;
    if let Some(address) = internal_address {
        tracing::info!(%address, "server API, metrics and admin page have a listener of their own");
    }
    let entropy = || OsEntropy::new().map_err(|error| system("randomness")(error.into()));
    let identity = NodeIdentity::new(&config.node.name, address, &mut entropy()?);
    let name = identity.name();
    let event_handler = events
        .as_ref()
        .and_then(|settings| settings.handler.clone());
    let events = match events {
        None => None,
        Some(settings) => {
            let (hub, entropy) = (Arc::clone(&config.hub), Box::new(entropy()?));
            Some(Events::start(settings, hub, name.clone(), entropy)?)
        }
    };
    if let Some(telemetry) = &config.telemetry {
        telemetry
            .start(&name, None)
            .map_err(system("thread for traces"))?;
    }
    let known = config.hub.revocations();
    known.set_limit(config.revocation.max_entries);
    let revocations = RevocationDesk::start(&config.revocation.directory, known)?;
    let addresses = AddressKey::new(identity.uid(), &mut entropy()?);
    let (visits, visitors): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
    let (stage, at) = watch::channel(Stage::Serving);
    let queues = NodeQueues::new(workers, config.queues);
    let engine = MemoryEngine::new(config.engine.clone(), Box::new(entropy()?));
    let reloads = Reloads::new(source.file, config.values.clone(), source.applied);
    let live = Live::new(config, handlers, addresses, workers);
    let shared = Arc::new(Shared {
        start: Instant::now(),
        engine: Arc::new(engine),
        reloads,
        admission: Arc::clone(&live.doors.admission),
        live: watch::Sender::new(Arc::new(live)),
        identity,
        mailboxes: (0..workers).map(|_| Arc::default()).collect(),
        visits,
        next_visit: AtomicUsize::new(0),
        queues,
        admins: Arc::new(Sessions::new(Box::new(entropy()?))),
        traces: Arc::default(),
        recent: Recent::default(),
        revocations,
        events: Mutex::new(events),
        event_handler,
        log: source.log,
        stage: at,
    });
    let (ending, ended) = mpsc::unbounded_channel();
    let (mut listeners, mut internal) = (listeners.into_iter(), internal.into_iter());
    for (index, visitors) in (0..).zip(visitors) {
        let start = Start {
            index,
            listener: listeners.next(),
            internal: internal.next(),
            visitors,
            entropy: entropy()?,
            shared: Arc::clone(&shared),
            ending: Ending::new(ending.clone()),
        };
        start.spawn().map_err(system("worker thread"))?;
    }
    Ok(Running {
        handle: NodeHandle::new(shared),
        address,
        internal_address,
        stage,
        ended,
    })
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> NodeError {
    move |source| NodeError::System { what, source }
}

/// Reloads the configuration with each hangup, one after the other. Never ends.
/// Of the address, a configuration is checked as it is written; a socket that was handed over may have another.
fn doubt_handed_over(given: &TcpListener, config: &Config) {
    let Ok(address) = given.local_addr() else {
        return;
    };
    if config.listen.ip().is_loopback() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "the socket that was handed over (systemd: ListenStream) is reachable from outside, whatever \
             http_server.address says{}",
            match config.tls {
                Some(_) => "",
                None => ", and http_server.tls is off: without a proxy that does the encryption, everybody on the way can \
                         read and change what is sent",
            }
        );
    }
}

async fn reload_on(hangups: Option<Hangups>, handle: &NodeHandle) {
    let Some(mut hangups) = hangups else {
        return std::future::pending().await;
    };
    loop {
        hangups.next().await;
        systemd::reloading();
        // It is logged, whatever came of it.
        match handle.reload().await {
            Ok(_) => systemd::reloaded("the configuration was read again"),
            Err(error) => systemd::reloaded(&format!("the old configuration stays: {error}")),
        }
    }
}

/// SIGHUP, where there are signals.
struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Hangups {
    #[cfg(unix)]
    fn new() -> Result<Self, NodeError> {
        use tokio::signal::unix::{SignalKind, signal};
        let hangup = signal(SignalKind::hangup()).map_err(system("signals"))?;
        Ok(Self { hangup })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        if self.hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, NodeError> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// The signals that end a process politely.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on they are waited for, and don't end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn new() -> Result<Self, NodeError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(system("signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> Result<Self, NodeError> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
