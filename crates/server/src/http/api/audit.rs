//! What an operator may want to know afterwards: who called what, from where, and what came of it; and who was
//! refused.
//!
//! Log lines of the target `tautline::audit`, each thing in a field of its own. Refusals can be caused by anybody, so there are
//! only so many lines a second; how many were left out is told with the next.

use std::cell::Cell;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tautline_hub::trace::Follow;
use tracing::field::display;

use super::command::Command;
use super::execute::Who;
use super::method::Method;
use crate::revocations::Revoke;

/// Which calls are logged. Refusals are in any case, but for `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuditLog {
    /// None, and no refusals either.
    None,
    /// Those that change what others have, or follow somebody: all but publishing and reading.
    #[default]
    Changes,
    /// Each.
    All,
}

/// What is logged of a call once it is known what came of it.
pub(super) struct Entry {
    method: Method,
    about: About,
}

/// Whom and what a call is about.
#[derive(Debug, Default)]
pub(super) struct About {
    user: Option<String>,
    client: Option<String>,
    channel: Option<String>,
    token: Option<String>,
}

impl About {
    pub(super) fn command(command: &Command) -> Self {
        let target = command.target();
        let mut about = Self {
            user: target.and_then(|target| target.user.clone()),
            client: target.and_then(|target| target.client.clone()),
            channel: command.channel().map(str::to_owned),
            token: None,
        };
        if let Command::Revoke(what) = command {
            match what {
                Revoke::Token { uid, .. } => about.token = Some(uid.clone()),
                Revoke::User { user, .. } => about.user = Some(user.clone()),
                Revoke::UserChannel { user, channel, .. } => {
                    about.user = Some(user.clone());
                    about.channel = Some(channel.clone());
                }
                Revoke::Client { client, .. } => about.client = Some(client.clone()),
            }
        }
        about
    }

    pub(super) fn channel(channel: &str) -> Self {
        Self {
            channel: Some(channel.to_owned()),
            ..Self::default()
        }
    }

    /// Whoever is to be followed.
    pub(super) fn follow(follow: &Follow) -> Self {
        let mut about = Self::default();
        let (place, name) = match follow {
            Follow::User(user) => (&mut about.user, user),
            Follow::Client(client) => (&mut about.client, client),
            Follow::Channel(channel) => (&mut about.channel, channel),
            _ => return about,
        };
        *place = Some(name.to_string());
        about
    }
}

impl AuditLog {
    /// What is to be logged of a command, if anything is.
    pub(super) fn entry(self, command: &Command) -> Option<Entry> {
        let method = command.method();
        let is_logged = match self {
            Self::None => false,
            Self::Changes => changes(method),
            Self::All => true,
        };
        if !is_logged {
            return None;
        }
        let about = About::command(command);
        Some(Entry { method, about })
    }

    /// Somebody is followed.
    pub(super) fn traces(self, who: Who<'_>, follow: &Follow, payloads: bool) {
        if self == Self::None {
            return;
        }
        let About {
            user,
            client,
            channel,
            ..
        } = About::follow(follow);
        let (key, address) = (who.key.name(), who.address.map(display));
        let method = Method::Trace.name();
        tracing::info!(
            target: TARGET,
            key, address, method, user, client, channel, payloads, "API call"
        );
    }
}

impl Entry {
    /// Writes the line. `code` is that of the error, 0 if it was done; `None` if that isn't known yet.
    pub(super) fn write(self, who: Who<'_>, code: Option<u32>) {
        let Self { method, about } = self;
        let About {
            user,
            client,
            channel,
            token,
        } = about;
        let (key, address) = (who.key.name(), who.address.map(display));
        tracing::info!(
            target: TARGET,
            key, address, method = method.name(), user, client, channel, token, code, "API call"
        );
    }
}

/// Whether a method changes what others have.
fn changes(method: Method) -> bool {
    match method {
        Method::DeadEventsDrop
        | Method::DeadEventsRetry
        | Method::Disconnect
        | Method::HistoryRemove
        | Method::InvalidateUserTokens
        | Method::Refresh
        | Method::Reload
        | Method::RevokeClient
        | Method::RevokeToken
        | Method::Subscribe
        | Method::Trace
        | Method::Unsubscribe => true,
        // What is called may do anything, and may be called as often as things are published.
        Method::Rpc
        | Method::Batch
        | Method::Broadcast
        | Method::Channels
        | Method::DeadEvents
        | Method::Debug
        | Method::History
        | Method::Info
        | Method::Presence
        | Method::PresenceStats
        | Method::Publish => false,
    }
}

/// Counts the log lines of one worker.
#[derive(Default)]
pub(crate) struct Audit {
    /// When the current second began, how many refusals were written in it, and how many left out
    /// since one was.
    window: Cell<Option<(Instant, u32)>>,
    left_out: Cell<u64>,
}

impl Audit {
    /// A call, or a part of one, was refused. `key` is the name of the key, if one was right. What the call is about is
    /// asked for only if it is written.
    pub(super) fn refused(
        &self,
        address: Option<IpAddr>,
        key: Option<&str>,
        method: &str,
        about: impl FnOnce() -> About,
        reason: &dyn Display,
    ) {
        if !self.may_write(Instant::now()) {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        let (left_out, address) = (self.left_out.take(), address.map(display));
        let About {
            user,
            client,
            channel,
            token,
        } = about();
        tracing::warn!(
            target: TARGET,
            key, address, method, user, client, channel, token, left_out, reason = &*reason.to_string(),
            "refused an API call"
        );
    }

    fn may_write(&self, now: Instant) -> bool {
        let (began, written) = match self.window.get() {
            Some((began, written)) if now - began < Duration::from_secs(1) => (began, written),
            _ => (now, 0),
        };
        if written >= LINES_A_SECOND {
            return false;
        }
        self.window.set(Some((began, written + 1)));
        true
    }
}

const TARGET: &str = crate::log_queue::AUDIT_TARGET;

/// How many refusals are written in a second, on each worker.
const LINES_A_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_cannot_fill_the_log() {
        let audit = Audit::default();
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let written = |from: u64| {
            (0..100)
                .filter(|step| audit.may_write(at(from + step)))
                .count()
        };
        assert_eq!(written(0), 10);
        assert_eq!(written(100), 0);
        assert_eq!(written(1000), 10);
    }

    #[test]
    fn what_changes_nothing_is_logged_only_where_all_is() {
        let limits = super::super::ApiLimits::default();
        let command = |method: Method, body: &str| {
            Command::parse(method, body.as_bytes(), &limits).expect("it is right")
        };
        let publish = command(Method::Publish, r#"{"channel":"c","data":1}"#);
        let revoke = command(Method::RevokeToken, r#"{"uid":"a"}"#);
        assert!(AuditLog::Changes.entry(&publish).is_none());
        assert!(AuditLog::None.entry(&revoke).is_none());
        let entry = AuditLog::All.entry(&publish).expect("each");
        assert_eq!(entry.about.channel.as_deref(), Some("c"));
        let entry = AuditLog::Changes
            .entry(&revoke)
            .expect("it changes something");
        assert_eq!(entry.about.token.as_deref(), Some("a"));
    }
}
