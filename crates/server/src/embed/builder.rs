//! From a configuration and a handler to a running node.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use tautline_hub::application::ApplicationOptions;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::desk::Handlers;
use super::{Handler, NodeHandle};
use crate::config::{Config, ConfigFile};
use crate::drain::{self, Stage};
use crate::events::settings::Settings as EventSettings;
use crate::events::{EventHandler, EventsError, InCode};
use crate::log_queue::LogQueue;
use crate::node::{self, Listening, NodeError, Signals, Source};
use crate::proxy::Proxies;
use crate::reload::Applied;

/// A node that is to be started.
#[must_use = "nothing runs before it is started"]
pub struct NodeBuilder {
    config: Config,
    handlers: Option<Handlers>,
    options: ApplicationOptions,
    runtime: Option<Handle>,
    listening: Listening,
    file: Option<ConfigFile>,
    applied: Option<Applied>,
    log: Option<LogQueue>,
    event_handler: Option<InCode>,
}

impl NodeBuilder {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            handlers: None,
            options: ApplicationOptions::default(),
            runtime: None,
            listening: Listening::Configured,
            file: None,
            applied: None,
            log: None,
            event_handler: None,
        }
    }

    /// Who decides what options and tokens leave open. Without one, nobody does.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handlers = Some(Handlers {
            handler: Arc::new(handler),
            options: self.options,
            runtime: None,
            emulated: Arc::default(),
            proxies: None,
        });
        self
    }

    /// Who is told of events in the place of `events.endpoint`. `[events]` has to be enabled, with a directory.
    pub fn event_handler(mut self, handler: impl EventHandler) -> Self {
        self.event_handler = Some(InCode(Arc::new(handler)));
        self
    }

    /// How long handlers may take, and how many may be at work. The limit on those at work is for the whole
    /// node here; each worker has its share.
    pub fn limits(mut self, options: ApplicationOptions) -> Self {
        self.options = options;
        self
    }

    /// Has all handlers run on this runtime, instead of on the workers: for handlers that need much time
    /// of a processor, or whose libraries want to stay on the runtime that they were made on. Costs a task and
    /// a change of threads for each.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Where the configuration came from: it is read again by [`NodeHandle::reload`], and by the `reload` of the
    /// HTTP API.
    pub fn reload_from(mut self, file: ConfigFile) -> Self {
        self.file = Some(file);
        self
    }

    /// What is to be done with a configuration that was reloaded, beside what the node does.
    pub(crate) fn when_applied(mut self, applied: Applied) -> Self {
        self.applied = Some(applied);
        self
    }

    /// Where the process's log lines wait: what is lost of them is in the metrics.
    pub(crate) fn logging_to(mut self, log: LogQueue) -> Self {
        self.log = Some(log);
        self
    }

    /// Whether there is a file to reload from.
    pub(crate) fn reloads(&self) -> bool {
        self.file.is_some()
    }

    /// Opens no port: clients come by [`NodeHandle::websocket`] alone.
    pub fn without_listener(mut self) -> Self {
        self.listening = Listening::No;
        self
    }

    /// Accepts connections from this socket, whatever the configuration says of addresses: one that a service manager
    /// has handed over, or that was opened before the process gave up its privileges.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listening = Listening::On(listener);
        self
    }

    /// Starts the node: its workers are threads of their own. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`NodeError`]: the address can't be listened on, the system lacks something, or there is a handler
    /// and the configuration has proxies as well.
    pub fn start(self) -> Result<Node, NodeError> {
        let Self {
            mut config,
            handlers,
            options,
            runtime,
            listening,
            file,
            applied,
            log,
            event_handler,
        } = self;
        let workers = config.node.worker_count();
        let handlers = match (config.proxies.take(), handlers) {
            (None, handlers) => handlers,
            (Some(_), Some(_)) => return Err(NodeError::HandlerAndProxies),
            (Some(settings), None) => {
                let proxies = Proxies::start(settings, Arc::clone(&config.hub));
                let proxies = proxies.map_err(|source| NodeError::System {
                    what: "thread for the application's backend",
                    source,
                })?;
                Some(Handlers::of_backend(proxies, options))
            }
        };
        let handlers = handlers.map(|handlers| Handlers {
            options: ApplicationOptions {
                max_in_flight: options.max_in_flight.div_ceil(workers),
                ..options
            },
            runtime,
            ..handlers
        });
        let events = told(config.events.take(), event_handler)?;
        let running = node::start(
            config,
            handlers,
            events,
            listening,
            Source { file, applied, log },
        )?;
        Ok(Node {
            handle: running.handle,
            address: running.address,
            internal_address: running.internal_address,
            stage: running.stage,
            ended: running.ended,
        })
    }
}

/// What is told to whom, if anybody is told anything.
pub(crate) fn told(
    settings: Option<EventSettings>,
    handler: Option<InCode>,
) -> Result<Option<EventSettings>, EventsError> {
    match (settings, handler) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(EventsError::NotEnabled),
        (Some(settings), Some(_)) if settings.endpoint.is_some() => {
            Err(EventsError::HandlerAndEndpoint)
        }
        (Some(settings), None) if settings.endpoint.is_none() => Err(EventsError::NobodyToTell),
        (Some(settings), handler) => Ok(Some(EventSettings {
            handler,
            ..settings
        })),
    }
}

/// A running node. It ends when this is dropped, and politely by [`shutdown`](Self::shutdown).
pub struct Node {
    handle: NodeHandle,
    address: Option<SocketAddr>,
    internal_address: Option<SocketAddr>,
    stage: watch::Sender<Stage>,
    ended: mpsc::UnboundedReceiver<()>,
}

impl Node {
    /// A node of this configuration.
    pub fn builder(config: Config) -> NodeBuilder {
        NodeBuilder::new(config)
    }

    /// What to publish with, and all the rest. Clones of it may outlive the node; they then get errors.
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// The address that is listened on; `None` without a listener.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address of the listener for server API, metrics and admin page; `None` where they have none of their own
    /// (`http_server.internal_listen`).
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal_address
    }

    /// Runs until SIGTERM or SIGINT (Ctrl-C), and then shuts down.
    ///
    /// # Errors
    ///
    /// [`NodeError`]: signals can't be waited for, or a worker has failed.
    pub async fn run(self) -> Result<(), NodeError> {
        self.run_until(Signals::new()?).await
    }

    /// The same with signals that are waited for already.
    pub(crate) async fn run_until(mut self, mut signals: Signals) -> Result<(), NodeError> {
        tokio::select! {
            () = signals.next() => {}
            _ = self.ended.recv() => return Err(NodeError::WorkerEnded),
        }
        tracing::info!("shutting down; a second signal ends the process at once");
        tokio::select! {
            () = self.drain() => {}
            () = signals.next() => tracing::warn!("ended at once by a second signal"),
        }
        Ok(())
    }

    /// Ends the node as SIGTERM does: clients are told to come back elsewhere, no more in a second than
    /// `shutdown.reconnect_rate`, and have what is left of `shutdown.timeout` to read what they were sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the node at once.
    pub async fn shutdown(mut self) {
        self.drain().await;
    }

    async fn drain(&mut self) {
        let config = self.handle.config();
        let deadline = Instant::now() + config.shutdown.timeout;
        let events = self.handle.shared.events();
        if let Some(events) = &events {
            events.stopping();
        }
        drain::run(&self.handle, &self.stage, &mut self.ended, &config.shutdown).await;
        if let Some(events) = &events {
            events.flush(deadline).await;
        }
        // What those can't send in half of the time goes where spans go now.
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        for former in &config.former_telemetry {
            former.clone().end(half).await;
        }
        if let Some(telemetry) = &config.telemetry {
            telemetry.flush(deadline).await;
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
