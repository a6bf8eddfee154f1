//! What the rules are checked with: an engine with two workers, and a clock.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tautline_protocol::message::ClientInfo;

use super::Subject;
use crate::Now;
use crate::engine::{
    Channel, Delivery, EngineError, HistoryOptions, HistoryPage, HistoryRead, JoinLevel, Mailbox,
    Members, Outcome, PresencePage, PresenceRead, Publish, Published, Started, Ticket, WorkerId,
};

pub(super) const CLIENT: JoinLevel = JoinLevel::Client;

#[derive(Default)]
pub(super) struct Inbox(Mutex<Vec<Delivery>>);

impl Mailbox for Inbox {
    fn push(&self, delivery: Delivery) {
        self.0
            .lock()
            .expect("no test panics while pushing")
            .push(delivery);
    }
}

/// An engine with two workers, and a clock.
pub(super) struct Bench<'a> {
    subject: &'a dyn Subject,
    inboxes: [Arc<Inbox>; 2],
    now: Cell<Duration>,
    pub(super) serial: Cell<u64>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(subject: &'a dyn Subject) -> Self {
        let inboxes: [Arc<Inbox>; 2] = Default::default();
        for (index, inbox) in inboxes.iter().enumerate() {
            subject
                .engine()
                .register(WorkerId(index as u16), inbox.clone());
        }
        Self {
            subject,
            inboxes,
            now: Cell::default(),
            serial: Cell::new(0),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            monotonic: self.now.get(),
            unix: self.now.get(),
        }
    }

    pub(super) fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    pub(super) fn ticket(&self, worker: u16) -> Ticket {
        self.serial.set(self.serial.get() + 1);
        Ticket {
            worker: WorkerId(worker),
            serial: self.serial.get(),
        }
    }

    /// The result of what was started with `ticket`, however long it takes.
    pub(super) fn result<T>(
        &self,
        ticket: Ticket,
        started: Started<Result<T, EngineError>>,
        read: impl Fn(Outcome) -> Option<Result<T, EngineError>>,
    ) -> T {
        let result = match started {
            Started::Done(result) => result,
            Started::Later => {
                let is_it = |delivery: &Delivery| matches!(delivery, Delivery::Outcome { ticket: other, .. } if *other == ticket);
                match self.wait_for(ticket.worker.0, is_it) {
                    Delivery::Outcome { outcome, .. } => {
                        read(outcome).expect("the outcome is of the kind that was asked for")
                    }
                    _ => unreachable!("only outcomes were waited for"),
                }
            }
        };
        result.expect("the engine works")
    }

    pub(super) fn wait_for(&self, worker: u16, is_it: impl Fn(&Delivery) -> bool) -> Delivery {
        for _ in 0..PATIENCE {
            let mut inbox = self.inboxes[usize::from(worker)]
                .0
                .lock()
                .expect("not poisoned");
            if let Some(place) = inbox.iter().position(&is_it) {
                return inbox.remove(place);
            }
            drop(inbox);
            self.subject.pump(self.now());
        }
        panic!("worker {worker} waits in vain for a delivery");
    }

    /// What was fed to a worker so far, as text. Outcomes stay.
    pub(super) fn fed(&self, worker: u16) -> Vec<String> {
        for _ in 0..PATIENCE {
            self.subject.pump(self.now());
        }
        let mut inbox = self.inboxes[usize::from(worker)]
            .0
            .lock()
            .expect("not poisoned");
        let (outcomes, fed) = std::mem::take(&mut *inbox)
            .into_iter()
            .partition(|delivery| matches!(delivery, Delivery::Outcome { .. }));
        *inbox = outcomes;
        fed.into_iter().map(describe).collect()
    }

    pub(super) fn attach(&self, worker: u16, channel: &str) {
        let ticket = self.ticket(worker);
        let started = self
            .subject
            .engine()
            .attach(self.now(), ticket, &channel.into());
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Changed(result) => Some(result),
            _ => None,
        });
    }

    pub(super) fn publish_with(&self, worker: u16, request: Publish) -> Published {
        let ticket = self.ticket(worker);
        let started = self.subject.engine().publish(self.now(), ticket, request);
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Published(result) => Some(result),
            _ => None,
        })
    }

    pub(super) fn publish(&self, channel: &str, data: &'static str) -> Published {
        self.publish_with(0, publish(channel, data))
    }

    pub(super) fn read(&self, request: HistoryRead) -> HistoryPage {
        let ticket = self.ticket(0);
        let started = self.subject.engine().history(self.now(), ticket, request);
        self.result(ticket, started, |outcome| match outcome {
            Outcome::History(result) => Some(result),
            _ => None,
        })
    }

    pub(super) fn offsets(&self, request: HistoryRead) -> Vec<u64> {
        let page = self.read(request);
        page.publications
            .iter()
            .map(|publication| publication.offset)
            .collect()
    }

    pub(super) fn change_presence(
        &self,
        worker: u16,
        channel: &str,
        info: &Arc<ClientInfo>,
        add: bool,
    ) {
        let (ticket, channel) = (self.ticket(worker), Channel::from(channel));
        let engine = self.subject.engine();
        let started = if add {
            engine.presence_add(self.now(), ticket, &channel, info)
        } else {
            engine.presence_remove(self.now(), ticket, &channel, info)
        };
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Changed(result) => Some(result),
            _ => None,
        });
    }

    pub(super) fn remove_history(&self, channel: &str) {
        let ticket = self.ticket(0);
        let engine = self.subject.engine();
        let started = engine.remove_history(self.now(), ticket, &channel.into());
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Changed(result) => Some(result),
            _ => None,
        });
    }

    pub(super) fn presence(&self, request: PresenceRead) -> PresencePage {
        let ticket = self.ticket(0);
        let started = self.subject.engine().presence(self.now(), ticket, request);
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Presence(result) => Some(result),
            _ => None,
        })
    }

    pub(super) fn members(&self, channel: &str) -> (Members, u32, u32) {
        let name = Channel::from(channel);
        let page = self.presence(list(channel));
        assert_eq!(page.next, None);
        let ticket = self.ticket(0);
        let started = self
            .subject
            .engine()
            .presence_stats(self.now(), ticket, &name);
        let stats = self.result(ticket, started, |outcome| match outcome {
            Outcome::PresenceStats(result) => Some(result),
            _ => None,
        });
        assert_eq!(page.stats, stats);
        (page.members, stats.num_clients, stats.num_users)
    }
}

/// How often an engine is pumped before a test gives up.
pub(super) const PATIENCE: usize = 1000;

pub(super) const KEEP: HistoryOptions = HistoryOptions {
    size: 5,
    ttl: Duration::from_secs(60),
    meta_ttl: Duration::from_secs(7200),
};

pub(super) fn publish(channel: &str, data: &'static str) -> Publish {
    Publish {
        channel: channel.into(),
        data: Bytes::from_static(data.as_bytes()),
        info: None,
        tags: Default::default(),
        except: None,
        history: Some(KEEP),
        idempotency: None,
        version: None,
        patch: false,
    }
}

pub(super) fn read(channel: &str) -> HistoryRead {
    HistoryRead {
        channel: channel.into(),
        options: KEEP,
        since: None,
        limit: None,
        max_bytes: None,
        reverse: false,
    }
}

pub(super) fn list(channel: &str) -> PresenceRead {
    PresenceRead {
        channel: channel.into(),
        after: None,
        wrap: false,
        limit: usize::MAX,
        max_bytes: usize::MAX,
    }
}

pub(super) fn describe(delivery: Delivery) -> String {
    match delivery {
        Delivery::Publication {
            channel,
            publication,
            previous,
            ..
        } => {
            let data = String::from_utf8_lossy(&publication.data).into_owned();
            format!("{channel} {data} {previous}>{}", publication.offset)
        }
        Delivery::Join { channel, info, .. } => format!("{channel} +{}", info.client),
        Delivery::Leave { channel, info, .. } => format!("{channel} -{}", info.client),
        Delivery::Outcome { .. } => "outcome".into(),
        Delivery::Superseded { .. } => panic!("this is no engine's to tell"),
        Delivery::Doubt { .. } => "doubt".into(),
    }
}

pub(super) fn info(client: &str, user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        client: client.into(),
        user: user.into(),
        ..ClientInfo::default()
    })
}
