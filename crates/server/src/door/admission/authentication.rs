//! Who may try to prove who they are: not those whose keys or tokens were wrong too often, be it from an address or as one
//! user.

use std::net::IpAddr;
use std::time::Duration;

use super::table::{Entry, Key};
use super::{Admission, Limit, OverLimit};

impl Admission {
    /// Whether an API key that comes from an address may be looked at. Where a right one came from not long ago is the
    /// application's backend, which one of its parts with a wrong key must not shut out.
    ///
    /// # Errors
    ///
    /// When too many were wrong.
    pub(crate) fn key_attempt(&self, from: IpAddr) -> Result<(), OverLimit> {
        self.key_attempt_at(self.now(), from)
    }

    /// An API key was looked at that came from an address.
    pub(crate) fn key_tried(&self, from: IpAddr, is_right: bool) {
        self.key_tried_at(self.now(), from, is_right);
    }

    pub(super) fn key_attempt_at(&self, now: Duration, from: IpAddr) -> Result<(), OverLimit> {
        if self.rules().address.is_exempt(from) {
            return Ok(());
        }
        let key = Key::from(from);
        let is_backend = |address: &mut Entry| address.backend_until > now;
        if self.addresses.with_known(key, is_backend) == Some(true) {
            return Ok(());
        }
        // A good one is what is guessed at.
        self.attempt(now, key, None, &|| false)
    }

    pub(super) fn key_tried_at(&self, now: Duration, from: IpAddr, is_right: bool) {
        let rules = self.rules();
        let rules = &rules.address;
        if rules.failures.is_none() || rules.is_exempt(from) {
            return;
        }
        let key = Key::from(from);
        if is_right {
            self.addresses
                .with(key, now, rules.max_addresses, |address| {
                    address.backend_until = now + BACKEND_TIME;
                });
        } else {
            self.failure(now, key, None);
        }
    }

    /// Whether somebody may try (again) to prove who they are. It takes nothing: only what fails counts. What
    /// `is_good` all the same may, and counts for nothing; that is asked only of those who may not.
    pub(super) fn attempt(
        &self,
        now: Duration,
        key: Key,
        user: Option<&str>,
        is_good: &dyn Fn() -> bool,
    ) -> Result<(), OverLimit> {
        let rules = self.rules();
        let Some(rate) = rules.address.failures else {
            return Ok(());
        };
        for key in self.keys(key, user) {
            let look = |entry: &mut Entry| entry.failures.peek(now, &rate);
            if let Some(Err(wait)) = self.addresses.with_known(key, look) {
                if is_good() {
                    return Ok(());
                }
                let over = OverLimit::after(Limit::Authentication, wait);
                let dry_run = rules.address.dry_run;
                self.refusals
                    .refuse_address(now, key.address(), over, dry_run)?;
            }
        }
        Ok(())
    }

    /// Somebody has tried in vain.
    pub(super) fn failure(&self, now: Duration, key: Key, user: Option<&str>) {
        let rules = self.rules();
        let Some(rate) = rules.address.failures else {
            return;
        };
        for key in self.keys(key, user) {
            self.addresses
                .with(key, now, rules.address.max_addresses, |entry| {
                    // One that is empty already stays so.
                    let _ = entry.failures.take(now, &rate);
                });
        }
    }

    /// What somebody is known by.
    fn keys(&self, key: Key, user: Option<&str>) -> impl Iterator<Item = Key> {
        let user = user.map(|user| self.addresses.user(user));
        [Some(key), user].into_iter().flatten()
    }
}

/// For how long an address is the backend's after a call with a right key.
pub(super) const BACKEND_TIME: Duration = Duration::from_secs(600);
