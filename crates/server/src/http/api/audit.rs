//! What an operator may want to know afterwards: who was refused, and who changed something.
//!
//! Log lines of the target `tautline::audit`. Refusals can be caused by anybody, so there are only so
//! many lines a second; how many were left out is told with the next.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use tautline_hub::Target;
use tautline_hub::trace::Follow;

use super::command::Command;
use super::method::Method;
use crate::revocations::Revoke;

/// Writes the log lines of one worker.
#[derive(Default)]
pub(crate) struct Audit {
    /// When the current second began, how many refusals were written in it, and how many left out
    /// since one was.
    window: Cell<Option<(Instant, u32)>>,
    left_out: Cell<u64>,
}

impl Audit {
    /// A call, or a part of one, was refused. `key` is the name of the key, if one was right.
    pub(super) fn refused(
        &self,
        key: Option<&str>,
        method: &str,
        channel: Option<&str>,
        reason: &dyn Display,
    ) {
        if !self.may_write(Instant::now()) {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        let left_out = self.left_out.take();
        tracing::warn!(
            target: TARGET,
            key, method, channel, left_out, reason = &*reason.to_string(), "refused an API call"
        );
    }

    /// A command is executed that changes what others have.
    pub(super) fn executed(&self, key: &str, command: &Command) {
        let method = command.method();
        if let Command::Revoke(what) = command {
            let (token, user, client) = match what {
                Revoke::Token { uid, .. } => (Some(uid), None, None),
                Revoke::User { user, .. } => (None, Some(user), None),
                Revoke::Client { client, .. } => (None, None, Some(client)),
            };
            let method = method.name();
            tracing::info!(target: TARGET, key, method, token, user, client, "API call");
        }
        let is_administrative = command.target().is_some()
            || matches!(
                method,
                Method::HistoryRemove
                    | Method::DeadEventsDrop
                    | Method::DeadEventsRetry
                    | Method::Reload
            );
        if !is_administrative {
            return;
        }
        let nobody = Target::default();
        let Target {
            user,
            client,
            session: _,
        } = command.target().unwrap_or(&nobody);
        let (user, client, channel) = (user.as_deref(), client.as_deref(), command.channel());
        tracing::info!(
            target: TARGET,
            key, method = method.name(), user, client, channel, "API call"
        );
    }

    /// Somebody is followed.
    pub(super) fn traces(&self, key: &str, follow: &Follow, payloads: bool) {
        let (user, client, channel) = match follow {
            Follow::User(user) => (Some(&**user), None, None),
            Follow::Client(client) => (None, Some(&**client), None),
            Follow::Channel(channel) => (None, None, Some(&**channel)),
            _ => (None, None, None),
        };
        let method = Method::Trace.name();
        tracing::info!(target: TARGET, key, method, user, client, channel, payloads, "API call");
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

const TARGET: &str = "tautline::audit";

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
}
