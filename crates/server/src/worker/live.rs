//! What a worker goes by that isn't fixed when it starts: made of a configuration, and replaced as a whole by
//! a reload, between two turns.

use std::rc::Rc;
use std::sync::{Arc, mpsc};

use tautline_hub::Now;
use tautline_hub::application::ApplicationOptions;
use tautline_websocket::proto::Limits;

use super::State;
use super::thread::Shared;
use crate::config::Config;
use crate::door::address::AddressKey;
use crate::door::admission::Admission;
use crate::door::entry::Doors;
use crate::door::{UserHeader, WebSocketPolicy};
use crate::embed::desk::{Desk, Handlers};
use crate::embed::{ApiCalls, NodeHandle};
use crate::proxy::Proxies;
use crate::reload::ReloadError;
use crate::tls::Tls;

/// All of it. An option that is looked up where it is needed needs no field here: it is in `config`.
pub(crate) struct Live {
    /// What the operator wrote, hub and HTTP side included. Those of its options that need a restart are not
    /// what the node runs by.
    pub(crate) config: Arc<Config>,
    pub(crate) websocket: WebSocketPolicy,
    pub(crate) doors: Arc<Doors>,
    /// What connections are encrypted with, if they are.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Who decides what the options leave open.
    pub(crate) handlers: Option<Handlers>,
    /// Who answers calls of the application's backend.
    pub(crate) api_calls: Option<Arc<ApiCalls>>,
}

impl Live {
    /// What a node begins with.
    pub(crate) fn new(
        config: Config,
        handlers: Option<Handlers>,
        addresses: AddressKey,
        workers: usize,
    ) -> Self {
        let (origins, uni) = (config.http.origins.clone(), Arc::clone(&config.uni));
        let admission = Admission::new(Arc::clone(&config.admission));
        let policy = websocket_policy(&config, &admission);
        let doors = Doors::new(config.doors.clone(), origins, addresses, uni, admission);
        Self {
            websocket: policy,
            doors: Arc::new(doors),
            tls: config.tls.clone(),
            api_calls: api_calls(handlers.as_ref(), workers),
            handlers,
            config: Arc::new(config),
        }
    }

    /// What comes after this by another configuration: what is counted goes on, and so does what is the same.
    ///
    /// # Errors
    ///
    /// [`ReloadError`] where the configuration asks for what a running node can't do.
    pub(crate) fn succeed(&self, mut config: Config, workers: usize) -> Result<Self, ReloadError> {
        if let Some(hub) = Arc::get_mut(&mut config.hub) {
            hub.inherit(&self.config.hub);
        }
        for source in &config.keys {
            for before in &self.config.keys {
                source.inherit(before);
            }
        }
        config.keep_telemetry(&self.config);
        config.tunnels.inherit(&self.config.tunnels);
        let (handlers, api_calls) = self.succeeding_handlers(&mut config, workers)?;
        let (origins, uni) = (config.http.origins.clone(), Arc::clone(&config.uni));
        let doors = self.doors.succeed(config.doors.clone(), origins, uni);
        Ok(Self {
            websocket: websocket_policy(&config, &doors.admission),
            doors: Arc::new(doors),
            tls: self.succeeding_tls(&config),
            api_calls,
            handlers,
            config: Arc::new(config),
        })
    }

    fn succeeding_handlers(
        &self,
        config: &mut Config,
        workers: usize,
    ) -> Result<(Option<Handlers>, Option<Arc<ApiCalls>>), ReloadError> {
        let hub = Arc::clone(&config.hub);
        let (before, settings) = (self.handlers.as_ref(), config.proxies.take());
        let proxies = before.and_then(|before| before.proxies.as_ref());
        let handlers = match (before, proxies, settings) {
            (Some(_), None, Some(_)) => return Err(ReloadError::HandlerAndProxies),
            // Code decides, whatever the options are.
            (Some(before), None, None) => {
                return Ok((Some(before.clone()), self.api_calls.clone()));
            }
            (Some(before), Some(proxies), settings) => {
                // Where nobody is asked any more, answers that are under way are waited for still.
                let proxies = proxies.succeed(settings.unwrap_or_default(), hub);
                Handlers::of_backend(proxies, before.options)
            }
            (None, _, Some(settings)) => {
                let options = ApplicationOptions::default();
                let options = ApplicationOptions {
                    max_in_flight: options.max_in_flight.div_ceil(workers),
                    ..options
                };
                let proxies = Proxies::start(settings, hub).map_err(ReloadError::System)?;
                Handlers::of_backend(proxies, options)
            }
            (None, _, None) => return Ok((None, None)),
        };
        let api_calls = api_calls(Some(&handlers), workers);
        Ok((Some(handlers), api_calls))
    }

    /// Whether there is TLS needs a restart, and with what doesn't.
    fn succeeding_tls(&self, config: &Config) -> Option<Arc<Tls>> {
        let before = self.tls.as_ref()?;
        match &config.tls {
            Some(tls) if !tls.is_like(before) => Some(Arc::clone(tls)),
            _ => Some(Arc::clone(before)),
        }
    }
}

fn api_calls(handlers: Option<&Handlers>, workers: usize) -> Option<Arc<ApiCalls>> {
    handlers.map(|handlers| Arc::new(ApiCalls::new(handlers.clone(), workers)))
}

fn websocket_policy(config: &Config, admission: &Arc<Admission>) -> WebSocketPolicy {
    WebSocketPolicy {
        origins: config.http.origins.clone(),
        loopback_only: config.http.dev.is_some(),
        limits: Limits::for_messages(config.websocket.message_size_limit),
        unidirectional: config.doors.unidirectional,
        plain: config.doors.plain,
        user_header: UserHeader(config.user_header.clone()),
        uni: Arc::clone(&config.uni),
        admission: Arc::clone(admission),
    }
}

impl Shared {
    /// Has each worker go by something else, from a turn of its own on, and waits until all of them do.
    pub(crate) fn take_over(self: &Arc<Self>, live: Live) {
        let live = Arc::new(live);
        self.engine.reconfigure(&live.config.engine);
        self.revocations
            .set_limit(live.config.revocation.max_entries);
        self.admission
            .reconfigure(Arc::clone(&live.config.admission));
        self.queues.reconfigure(live.config.queues);
        if let Some(events) = &self.events {
            events.reconfigure(Arc::clone(&live.config.hub));
        }
        self.live.send_replace(Arc::clone(&live));
        let (taken, all) = mpsc::channel::<()>();
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let (live, shared, taken) = (Arc::clone(&live), Arc::clone(self), taken.clone());
            mailbox.call(Box::new(move |now, state| {
                state.take_over(now, live, &shared, index);
                drop(taken);
            }));
        }
        drop(taken);
        // Ends when the last of them was dropped: by its worker, or because that has ended.
        while all.recv().is_ok() {}
    }
}

impl State {
    fn take_over(&mut self, now: Now, live: Arc<Live>, shared: &Arc<Shared>, index: usize) {
        if let Some(handlers) = &live.handlers {
            let files = self.files.get_or_insert_default();
            let (handlers, options) = (handlers.clone(), handlers.options);
            let mailbox = Arc::clone(&shared.mailboxes[index]);
            let node = NodeHandle::new(Arc::clone(shared));
            let desk = Desk::new(handlers, Rc::clone(files), mailbox, node);
            self.hub.set_application(Box::new(desk), options);
        }
        let share = live.config.log.connections;
        self.connections.log().borrow_mut().set_share(share);
        let config = Arc::clone(&live.config.hub);
        self.live = live;
        self.hub.reconfigure(now, config, &mut self.connections);
    }
}
