//! Log lines about single connections, or about some of them: who has come and who has gone, from where, by which door,
//! why, and how long it lasted.
//!
//! Lines of the target `tautline::connections`. A connection that is chosen has both of its lines, the id by
//! which the API and traces know it, and the name of its session, which lines have that were written before it had that id. What clients send isn't logged, nor what they could be impersonated with. Those
//! who never came in, with a session or without, can be caused by anybody, so there are only so many lines about them in a
//! second.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tautline_hub::witness::{Fact, Witness};
use tautline_hub::{Now, SessionId, SessionName, Transport};
use tautline_protocol::Disconnect;
use tautline_protocol::message::ClientInfo;

use crate::config::Share;
use crate::events::Tap;

/// What one worker logs of its connections.
#[derive(Default)]
pub(crate) struct ConnectionLog {
    share: Share,
    /// What is left over of the share; a connection is chosen when it is a whole one.
    due: u64,
    open: HashMap<SessionId, Logged>,
    strangers: Strangers,
}

/// What there is no session for.
#[derive(Clone, Copy)]
pub(crate) enum Failed<'a> {
    /// The TLS handshake failed.
    Tls(&'a io::Error),
    /// The head of a request did not come in time.
    Head,
    /// It was refused, with a status and a text of which the first line counts.
    Refused(u16, &'a str),
}

/// A connection that was chosen.
struct Logged {
    session: SessionName,
    address: Option<IpAddr>,
    transport: Transport,
    began: Instant,
    /// `None` until it has come in.
    client: Option<Arc<ClientInfo>>,
}

/// How many of those who never came in were told of.
#[derive(Default)]
struct Strangers {
    began: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl ConnectionLog {
    /// Chooses that many from now on. Those who were chosen before stay.
    pub(crate) fn set_share(&mut self, share: Share) {
        self.share = share;
    }

    /// A session has begun.
    pub(crate) fn begin(
        &mut self,
        session: SessionName,
        transport: Transport,
        address: Option<IpAddr>,
    ) {
        // By its session, whatever other lines tell of a connection can be found.
        tracing::debug!(
            %session,
            address = address.map(tracing::field::display),
            transport = transport.name,
            "a session begins"
        );
        if !self.chooses() {
            return;
        }
        let logged = Logged {
            session,
            address,
            transport,
            began: Instant::now(),
            client: None,
        };
        self.open.insert(session.id, logged);
    }

    /// Whether the next that comes is chosen.
    fn chooses(&mut self) -> bool {
        self.due += self.share.millionths();
        if self.due < Share::WHOLE {
            return false;
        }
        self.due -= Share::WHOLE;
        true
    }

    /// Somebody came to nothing before there was a session.
    pub(crate) fn strange(&mut self, address: IpAddr, failed: Failed<'_>) {
        if !self.chooses() {
            return;
        }
        let Some(left_out) = self.strangers.may_be_told(Instant::now()) else {
            return;
        };
        let (stage, status, reason) = match failed {
            Failed::Tls(error) => ("tls", None, error.to_string()),
            Failed::Head => ("request", None, "no request came in time".to_owned()),
            Failed::Refused(status, text) => {
                let line = text.lines().next().unwrap_or_default();
                (
                    "request",
                    Some(status),
                    line.chars().take(MAX_REASON).collect(),
                )
            }
        };
        tracing::info!(
            target: TARGET,
            address = tracing::field::display(address),
            stage, status, reason, left_out,
            "did not come in"
        );
    }

    /// A session's client has come in.
    fn connected(&mut self, id: SessionId, client: &Arc<ClientInfo>) {
        let Some(logged) = self.open.get_mut(&id) else {
            return;
        };
        logged.client = Some(Arc::clone(client));
        let Logged {
            session,
            address,
            transport,
            ..
        } = logged;
        tracing::info!(
            target: TARGET,
            %session,
            client = &*client.client,
            user = &*client.user,
            address = address.map(tracing::field::display),
            transport = transport.name,
            "connected"
        );
    }

    /// A session is over. More than once does no harm.
    pub(crate) fn end(&mut self, id: SessionId, disconnect: &Disconnect) {
        if self.open.is_empty() {
            return;
        }
        let Some(logged) = self.open.remove(&id) else {
            return;
        };
        let Logged {
            session,
            address,
            transport,
            began,
            client,
        } = logged;
        let address = address.map(tracing::field::display);
        let (code, reason) = (disconnect.code, &*disconnect.reason);
        let seconds = began.elapsed().as_millis() as f64 / 1000.0;
        let Some(client) = client else {
            let Some(left_out) = self.strangers.may_be_told(Instant::now()) else {
                return;
            };
            tracing::info!(
                target: TARGET,
                %session, address, transport = transport.name, code, reason, seconds, left_out,
                "did not come in"
            );
            return;
        };
        tracing::info!(
            target: TARGET,
            %session,
            client = &*client.client,
            user = &*client.user,
            address,
            transport = transport.name,
            code,
            reason,
            seconds,
            "disconnected"
        );
    }
}

impl Strangers {
    /// Whether there may be a line now, and how many were left out since the last.
    fn may_be_told(&mut self, now: Instant) -> Option<u64> {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= SECOND;
        if self.began.is_none_or(is_over) {
            (self.began, self.told) = (Some(now), 0);
        }
        if self.told >= LINES_A_SECOND {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Tells the log who has come in, and everything to whoever else wants to know.
pub(crate) struct Witnesses {
    pub(crate) log: Rc<RefCell<ConnectionLog>>,
    pub(crate) other: Option<Tap>,
}

impl Witness for Witnesses {
    fn note(&mut self, now: Now, fact: Fact<'_>) {
        if let Fact::Connected {
            session, client, ..
        } = fact
        {
            self.log.borrow_mut().connected(session, client);
        }
        if let Some(other) = &mut self.other {
            other.note(now, fact);
        }
    }
}

const TARGET: &str = "tautline::connections";
const SECOND: Duration = Duration::from_secs(1);
/// How many lines there are in a second about those who never came in, on each worker.
const LINES_A_SECOND: u32 = 10;
/// Characters of a reason.
const MAX_REASON: usize = 200;

#[cfg(test)]
mod tests {
    use tautline_hub::engine::WorkerId;
    use tautline_protocol::Encoding;

    use super::*;

    fn name(index: u32) -> SessionName {
        SessionName {
            worker: WorkerId(0),
            id: SessionId {
                index,
                generation: 0,
            },
        }
    }

    #[test]
    fn as_many_are_chosen_as_was_said() {
        for (share, of_a_thousand) in [("off", 0), ("0.1%", 1), ("25%", 250), ("all", 1000)] {
            let mut log = ConnectionLog::default();
            log.set_share(share.parse().expect("a share"));
            for index in 0..1000 {
                log.begin(
                    name(index),
                    Transport::new("websocket", Encoding::Json),
                    None,
                );
            }
            assert_eq!(log.open.len(), of_a_thousand, "{share}");
            log.set_share("off".parse().expect("a share"));
            for index in 0..1000 {
                log.end(name(index).id, &Disconnect::CONNECTION_CLOSED);
            }
            assert!(log.open.is_empty());
        }
    }

    #[test]
    fn those_who_never_come_in_cannot_fill_the_log() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let mut told = |from: u64| {
            let at = |millis| start + Duration::from_millis(from + millis);
            let told = (0..100).map(|millis| strangers.may_be_told(at(millis)));
            let told: Vec<_> = told.flatten().collect();
            (told.len(), told.first().copied())
        };
        assert_eq!(told(0), (10, Some(0)));
        assert_eq!(told(100), (0, None));
        assert_eq!(told(1000), (10, Some(190)));
    }
}
