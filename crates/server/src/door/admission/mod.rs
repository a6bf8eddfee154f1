//! Who may come in: how many clients the node has room for, how much may come from an address, and for how much there is
//! memory.
//!
//! All workers share one [`Admission`], and a door asks it in as many steps as it learns whom it has before it:
//!
//! | when | what is asked | limits |
//! |---|---|---|
//! | a connection is accepted, before anything was read or any TLS spoken | [`Admission::socket`], [`Admission::connection`] | descriptors; memory; those of its address |
//! | a request comes to one of the doors of plain HTTP | [`Admission::request`] | the rate of its address |
//! | somebody wants to be a client | [`Admission::client`] | those of the node |
//! | a client shares its connection with others: behind a proxy that is trusted, over HTTP/2, by the doors of plain HTTP | [`Admission::session`] | memory; those of its address |
//! | its messages are to leave in the bodies of responses | [`Admission::http_session`] | that of the node |
//! | a key or a token is to be looked at ([`authentication`]) | [`Admission::key_attempt`], [`AddressPermit::may_authenticate`] | failures of its address and user |
//!
//! Who may come in gets a permit, and is counted until that is dropped. Who may not gets an [`OverLimit`], which knows how
//! to say so in each of the doors' languages.

mod authentication;
mod client;
pub(crate) mod memory;
mod permit;
mod refusal;
mod rules;
mod sockets;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tautline_hub::rate::SharedBucket;

use self::client::UnknownProxies;
use self::memory::MemoryGauge;
use self::permit::Count;
pub(crate) use self::permit::{AddressPermit, Permit, Permits};
use self::refusal::{Limit, Refusals};
pub(crate) use self::refusal::{NodeRefusals, OverLimit};
pub(crate) use self::rules::{AddressRules, MemoryRules, Rules};
use self::sockets::Sockets;
use self::table::{Entry, Key, Table};
pub(crate) use self::watch::TurnedAway;
use super::mistaken::Told;

/// What all workers of a node count together, and what they hold it against.
#[derive(Debug)]
pub(crate) struct Admission {
    start: Instant,
    rules: RwLock<Arc<Rules>>,
    /// Connections that are open.
    sockets: Sockets,
    /// Clients, by whatever door they came.
    clients: Arc<Count>,
    new_clients: SharedBucket,
    /// Sessions whose messages leave in the bodies of HTTP responses.
    http_sessions: Arc<Count>,
    addresses: Table,
    /// Connections and sessions that count for their addresses.
    present: Arc<Count>,
    memory: MemoryGauge,
    refusals: Refusals,
    unknown_proxies: UnknownProxies,
    /// That clients speak TLS where there is none.
    pub(super) tls_told: Told,
    /// Connections that are being told that they may not stay.
    goodbyes: Arc<Count>,
}

impl Admission {
    /// One that goes by `rules`, and has let nobody in yet.
    pub(crate) fn new(rules: Arc<Rules>) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            sockets: Sockets::new(&rules),
            rules: RwLock::new(rules),
            clients: Arc::default(),
            new_clients: SharedBucket::default(),
            http_sessions: Arc::default(),
            addresses: Table::new(),
            present: Arc::default(),
            memory: MemoryGauge::default(),
            refusals: Refusals::default(),
            unknown_proxies: UnknownProxies::default(),
            tls_told: Told::default(),
            goodbyes: Arc::default(),
        })
    }

    /// What holds at the moment.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes by other rules from now on. Who is here stays, and counts as before.
    pub(crate) fn reconfigure(&self, rules: Arc<Rules>) {
        self.sockets.reconfigure(&rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// A permit for a connection that was accepted from an address; `None` for one that doesn't count.
    ///
    /// # Errors
    ///
    /// Whatever there is too much of.
    pub(crate) fn connection(
        self: &Arc<Self>,
        from: IpAddr,
    ) -> Result<Option<AddressPermit>, OverLimit> {
        self.enter(self.now(), from, true)
    }

    /// A permit for a client that is not the only one of its connection; `None` for one that doesn't count, as nobody does
    /// of whom the address isn't known.
    ///
    /// # Errors
    ///
    /// As for a connection.
    pub(crate) fn session(
        self: &Arc<Self>,
        from: Option<IpAddr>,
    ) -> Result<Option<AddressPermit>, OverLimit> {
        from.map_or(Ok(None), |from| self.enter(self.now(), from, false))
    }

    /// A permit for one more client, to be asked for last. They are counted where there is no limit, too: there may be one
    /// later.
    ///
    /// # Errors
    ///
    /// When the node has as many as it takes, or as many new ones.
    pub(crate) fn client(&self) -> Result<Permit, OverLimit> {
        let rules = self.rules();
        let limit = match rules.clients {
            0 => usize::MAX,
            limit => limit,
        };
        let permit = self.room(&self.clients, limit, Limit::Clients, rules.dry_run)?;
        if let Some(rate) = &rules.new_clients {
            let taken = self.new_clients.take(self.now(), rate);
            taken.or_else(|_| self.refusals.refuse(Limit::NewClients, rules.dry_run))?;
        }
        Ok(permit)
    }

    /// One more of `count`, of which there may be `most`.
    fn room(
        &self,
        count: &Arc<Count>,
        most: usize,
        limit: Limit,
        dry_run: bool,
    ) -> Result<Permit, OverLimit> {
        if let Some(permit) = count.enter(most) {
            return Ok(permit);
        }
        self.refusals.refuse(limit, dry_run)?;
        count.enter(usize::MAX).ok_or_else(|| limit.into())
    }

    /// Both: for that from its address, and for a client. In this order: who is refused for an address is to take nothing of
    /// what the node has for all, and a place among so many new clients a second can't be given back.
    ///
    /// # Errors
    ///
    /// Those of either.
    pub(crate) fn client_from(
        self: &Arc<Self>,
        from: Option<IpAddr>,
    ) -> Result<Permits, OverLimit> {
        let address = self.session(from)?;
        let client = self.client()?;
        Ok(Permits { client, address })
    }

    /// A permit for a session whose messages leave in the bodies of HTTP responses.
    ///
    /// # Errors
    ///
    /// When the node has as many as it takes.
    pub(crate) fn http_session(&self) -> Result<Permit, OverLimit> {
        let rules = self.rules();
        let limit = Limit::HttpSessions;
        self.room(
            &self.http_sessions,
            rules.http_sessions,
            limit,
            rules.dry_run,
        )
    }

    /// Whether a request for one of the doors may be answered.
    ///
    /// # Errors
    ///
    /// When they come too fast.
    pub(crate) fn request(&self, from: IpAddr) -> Result<(), OverLimit> {
        self.request_at(self.now(), from)
    }

    /// Leave to tell somebody of a refusal; `None` where so many are being told that others are just dropped.
    pub(crate) fn goodbye(&self) -> Option<Permit> {
        self.goodbyes.enter(self.sockets.goodbyes())
    }

    /// Those that were refused: limit, mode, and how many.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.refusals.all()
    }

    /// Those for whom the node had no room.
    pub(crate) fn node_refusals(&self) -> NodeRefusals {
        self.refusals.of_node()
    }

    /// Sessions whose messages leave in the bodies of HTTP responses: how many there are, and how many there may be.
    pub(crate) fn http_sessions(&self) -> (usize, usize) {
        (self.http_sessions.get(), self.rules().http_sessions)
    }

    /// Clients, by whatever door they came, and how many there may be; 0 for any number.
    pub(crate) fn clients(&self) -> (usize, usize) {
        (self.clients.get(), self.rules().clients)
    }

    /// How many addresses are known.
    pub(crate) fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// From how much on there is no memory for new clients, in bytes; 0 where that is not looked at.
    pub(crate) fn memory_ceiling(&self) -> u64 {
        self.memory.ceiling()
    }

    /// How many bytes of memory the process has too much until somebody new may come in; 0 while they may.
    pub(crate) fn memory_over(&self) -> usize {
        let ceiling = self.memory.ceiling();
        if ceiling == 0 || !self.memory.is_over() {
            return 0;
        }
        let enough = ceiling - ceiling / 20;
        let over = memory::resident().map_or(0, |used| used.saturating_sub(enough));
        usize::try_from(over).unwrap_or(usize::MAX)
    }

    /// Measures memory, again and again. Never ends.
    pub(crate) async fn watch_memory(&self) {
        loop {
            let rules = self.rules();
            if let Some(used) = memory::resident() {
                let ceiling = rules.memory.ceiling.unwrap_or(0);
                let load = memory::Load {
                    used,
                    present: self.present.get(),
                };
                let is_changed = self.memory.observe(load, ceiling);
                if is_changed && rules.memory.ceiling.is_some() {
                    if self.memory.is_over() {
                        tracing::warn!(used, ceiling, "there is no memory left for new clients");
                    } else {
                        tracing::info!(used, ceiling, "there is memory for new clients again");
                    }
                }
            }
            tokio::time::sleep(rules.memory.check_interval).await;
        }
    }

    /// The time, as all else here has it.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn enter(
        self: &Arc<Self>,
        now: Duration,
        from: IpAddr,
        is_handshake: bool,
    ) -> Result<Option<AddressPermit>, OverLimit> {
        let rules = self.rules();
        if rules.address.exempt.contains(from) {
            return Ok(None);
        }
        let is_exempt = rules.address.is_exempt(from);
        // A connection of this machine's own may be the backend's, or that of whoever looks after the server; a session is a
        // client's, who may have come through a proxy here.
        let is_clients = !is_exempt || !is_handshake;
        if is_clients && rules.memory.ceiling.is_some() && self.memory.is_over() {
            let over = OverLimit::from(Limit::Memory);
            self.refusals
                .refuse_address(now, Some(from), over, rules.memory.dry_run)?;
        }
        if is_exempt {
            return Ok(None);
        }
        let (key, rules) = (Key::from(from), &rules.address);
        let verdict = self
            .addresses
            .with(key, now, rules.max_addresses, |address| {
                let verdict = check(address, rules, now, is_handshake);
                if verdict.is_ok() || rules.dry_run {
                    address.connections += 1;
                    address.handshakes += usize::from(is_handshake);
                }
                verdict
            });
        if let Err(over) = verdict {
            self.refusals
                .refuse_address(now, Some(from), over, rules.dry_run)?;
        }
        Ok(Some(AddressPermit::new(self, key, is_handshake)))
    }

    fn request_at(&self, now: Duration, from: IpAddr) -> Result<(), OverLimit> {
        let rules = self.rules();
        let rules = &rules.address;
        let Some(rate) = rules.requests.filter(|_| !rules.is_exempt(from)) else {
            return Ok(());
        };
        let take = |address: &mut Entry| address.requests.take(now, &rate);
        let key = Key::from(from);
        let taken = self.addresses.with(key, now, rules.max_addresses, take);
        taken.or_else(|wait| {
            let over = OverLimit::after(Limit::AddressRequests, wait);
            self.refusals
                .refuse_address(now, Some(from), over, rules.dry_run)
        })
    }
}

fn check(
    address: &mut Entry,
    rules: &AddressRules,
    now: Duration,
    is_handshake: bool,
) -> Result<(), OverLimit> {
    let is_reached = |limit: usize, count: usize| limit > 0 && count >= limit;
    if is_reached(rules.connections, address.connections) {
        return Err(Limit::AddressConnections.into());
    }
    if is_handshake && is_reached(rules.handshakes, address.handshakes) {
        return Err(Limit::AddressHandshakes.into());
    }
    if let Some(rate) = &rules.connects {
        let taken = address.connects.take(now, rate);
        taken.map_err(|wait| OverLimit::after(Limit::AddressConnects, wait))?;
    }
    Ok(())
}
