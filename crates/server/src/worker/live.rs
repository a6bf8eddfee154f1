//! What a worker goes by that isn't fixed when it starts: made of a configuration, and replaced as a whole by
//! a reload, between two turns.

use std::rc::Rc;
use std::sync::{Arc, mpsc};

use tautline_hub::Now;
use tautline_hub::application::ApplicationOptions;
use tautline_hub::config::HubConfig;
use tautline_websocket::proto::Limits;

use super::State;
use super::thread::Shared;
use crate::config::Config;
use crate::door::address::AddressKey;
use crate::door::admission::Admission;
use crate::door::entry::Doors;
use crate::door::{UserHeader, WebSocketPolicy};
use crate::embed::desk::{Desk, Handlers};
use crate::embed::{ApiCalls, NodeHandle, told};
use crate::entropy::OsEntropy;
use crate::events::settings::Settings as EventSettings;
use crate::events::{Events, EventsError};
use crate::node_api::publishing;
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

    /// What comes after this by another configuration, on a node of that name: what is counted goes on, and so does what is
    /// the same. With it, what events are to go by.
    ///
    /// # Errors
    ///
    /// [`ReloadError`] where the configuration asks for what a running node can't do.
    pub(crate) fn succeed(
        &self,
        mut config: Config,
        shared: &Shared,
        name: &str,
    ) -> Result<(Self, NextEvents), ReloadError> {
        let workers = shared.mailboxes.len();
        if let Some(hub) = Arc::get_mut(&mut config.hub) {
            hub.inherit(&self.config.hub);
        }
        for source in &config.keys {
            for before in &self.config.keys {
                source.inherit(before);
            }
        }
        let telemetry = config.succeed_telemetry(&self.config, name);
        telemetry.map_err(ReloadError::System)?;
        // Where events are switched off, whoever would take them has nothing to do.
        let handler = shared.event_handler.clone();
        let settings = match config.events.take() {
            None => None,
            settings => told(settings, handler)?,
        };
        config.tunnels.inherit(&self.config.tunnels);
        let events = shared.succeeding_events(settings, &config.hub, name)?;
        let (handlers, api_calls) = match self.succeeding_handlers(&mut config, workers) {
            Ok(handlers) => handlers,
            Err(error) => {
                events.give_up();
                return Err(error);
            }
        };
        let (origins, uni) = (config.http.origins.clone(), Arc::clone(&config.uni));
        let doors = self.doors.succeed(config.doors.clone(), origins, uni);
        let live = Self {
            websocket: websocket_policy(&config, &doors.admission),
            doors: Arc::new(doors),
            tls: self.succeeding_tls(&config),
            api_calls,
            handlers,
            config: Arc::new(config),
        };
        Ok((live, events))
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

/// What becomes of events by a reload.
pub(crate) enum NextEvents {
    /// There are none.
    Nobody,
    /// They begin.
    New(Events),
    /// They go on by these options.
    Running(Box<EventSettings>),
}

impl NextEvents {
    /// They don't begin.
    fn give_up(self) {
        if let Self::New(events) = self {
            events.close();
        }
    }
}

impl Shared {
    /// Has events that begin by a reload be ready, on a node of that name.
    ///
    /// # Errors
    ///
    /// [`EventsError`], mostly as the directory can't be used.
    fn succeeding_events(
        &self,
        settings: Option<EventSettings>,
        hub: &Arc<HubConfig>,
        name: &str,
    ) -> Result<NextEvents, EventsError> {
        Ok(match (settings, self.events()) {
            (None, _) => NextEvents::Nobody,
            (Some(settings), Some(_)) => NextEvents::Running(Box::new(settings)),
            (Some(settings), None) => {
                let entropy = OsEntropy::new();
                let entropy = entropy.map_err(|error| EventsError::System(error.into()))?;
                let (hub, entropy) = (Arc::clone(hub), Box::new(entropy));
                NextEvents::New(Events::start(settings, hub, name.to_owned(), entropy)?)
            }
        })
    }

    /// Has each worker go by something else, from a turn of its own on, and waits until all of them do.
    pub(crate) fn take_over(self: &Arc<Self>, live: Live, events: NextEvents) {
        let live = Arc::new(live);
        self.identity.rename(&live.config.node.name);
        self.engine.reconfigure(&live.config.engine);
        self.revocations
            .set_limit(live.config.revocation.max_entries);
        self.admission
            .reconfigure(Arc::clone(&live.config.admission));
        self.queues.reconfigure(live.config.queues);
        let mut over = None;
        match events {
            NextEvents::Nobody => over = self.replace_events(None),
            NextEvents::New(events) => over = self.replace_events(Some(events)),
            NextEvents::Running(settings) => {
                if let Some(events) = self.events() {
                    let hub = Arc::clone(&live.config.hub);
                    events.reconfigure(*settings, hub, self.identity.name());
                }
            }
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
        // Nobody enters anything there any more.
        if let Some(events) = over {
            events.close();
        }
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
        self.set_witnesses(now, shared.events().as_ref().map(Events::tap));
        let watch = publishing::watch(live.config.telemetry.as_ref(), shared);
        self.hub.set_publish_watch(watch);
        let config = Arc::clone(&live.config.hub);
        self.live = live;
        self.hub.reconfigure(now, config, &mut self.connections);
    }
}
