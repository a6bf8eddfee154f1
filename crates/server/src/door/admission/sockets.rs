//! How many connections are open, so that the process never runs out of descriptors for whoever it needs them for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::permit::{Count, Permit};
use super::refusal::{Limit, OverLimit};
use super::{Admission, Rules};
use crate::descriptors::{self, Shares};

/// Connections at the port for clients, and those that are made for them to servers behind.
#[derive(Debug)]
pub(super) struct Sockets {
    open: Arc<Count>,
    shares: Shares,
    /// How many there may be.
    most: AtomicUsize,
}

impl Sockets {
    pub(super) fn new(rules: &Rules) -> Self {
        let sockets = Self {
            open: Arc::default(),
            shares: Shares::of(descriptors::most()),
            most: AtomicUsize::new(0),
        };
        sockets.reconfigure(rules);
        sockets
    }

    pub(super) fn reconfigure(&self, rules: &Rules) {
        let most = match rules.sockets {
            0 => self.shares.clients,
            most => most,
        };
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many may be told at the same time that they may not stay.
    pub(super) fn goodbyes(&self) -> usize {
        self.shares.goodbyes.min(MAX_GOODBYES)
    }
}

impl Admission {
    /// Room for a connection that was accepted from an address, before anything else is asked of it. Whoever
    /// is exempt from the limits by address, and is no proxy, has some more.
    ///
    /// # Errors
    ///
    /// When as many are open as may be.
    pub(crate) fn socket(&self, from: IpAddr) -> Result<Permit, OverLimit> {
        let rules = self.rules();
        let is_exempt = rules.address.is_exempt(from) && !rules.trust.proxies.contains(from);
        let more = if is_exempt {
            self.sockets.shares.exempt
        } else {
            0
        };
        self.take_socket(more, rules.dry_run)
    }

    /// For a connection that was let in, and goes on as something else than what it was let in for.
    pub(crate) fn socket_goes_on(&self) -> Permit {
        self.sockets.open.add()
    }

    /// Room for one that is opened for a client, to a server behind.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn far_socket(&self) -> Result<Permit, OverLimit> {
        self.take_socket(0, self.rules().dry_run)
    }

    fn take_socket(&self, more: usize, dry_run: bool) -> Result<Permit, OverLimit> {
        let (open, most) = self.sockets_open();
        let taken = self.room(
            &self.sockets.open,
            most.saturating_add(more),
            Limit::Sockets,
            dry_run,
        );
        if (taken.is_err() || open >= most.saturating_add(more))
            && let Some(left_out) = self.refusals.is_to_be_told(self.now())
        {
            tracing::warn!(
                target: "tautline::limits",
                limit = "limits.max_sockets", most, dry_run, left_out,
                "as many connections are open as may be; where that is for want of descriptors, LimitNOFILE of a unit of \
                 systemd and `ulimit -n` say how many the process gets"
            );
        }
        taken
    }

    /// Connections that are open, and how many there may be.
    pub(crate) fn sockets_open(&self) -> (usize, usize) {
        let most = self.sockets.most.load(Ordering::Relaxed);
        (self.sockets.open.get(), most)
    }

    /// How many connections the internal listener may have.
    pub(crate) fn internal_sockets(&self) -> usize {
        self.sockets.shares.internal
    }
}

/// Who comes while so many are being told is closed without a word.
const MAX_GOODBYES: usize = 1000;
