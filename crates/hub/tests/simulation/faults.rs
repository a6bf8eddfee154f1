//! Faults on purpose, to see that they are found.

use std::sync::Arc;

use tautline_hub::Now;
use tautline_hub::engine::{
    Channel, Engine, EngineError, HistoryPage, HistoryRead, JoinLevel, Mailbox, PresencePage,
    PresenceRead, Publish, Published, Started, Ticket, WorkerId,
};
use tautline_protocol::message::{ClientInfo, PresenceStatsResult, Publication};

use crate::payload::{KINDS, TAG};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A page lacks a publication.
    DropFromPage,
    /// A page has two publications in the wrong order.
    SwapTwo,
    /// Nobody is told that somebody left.
    ForgetLeave,
    /// Who left is still listed.
    ForgetPresence,
    /// A recovery claims that nothing was missed.
    SkipRecovery,
    /// What was trimmed is said to be there.
    DenyTrimming,
    /// A parked reader is never told that it has room again.
    ParkForEver,
    /// A publish is acknowledged and nothing else.
    LosePublish,
    /// A patch is passed off as a whole publication.
    DenyPatch,
    /// A page has tags of its own, which let through what isn't wanted.
    LeakThroughFilter,
    /// A page has no tags, so that what is wanted isn't let through.
    LoseTags,
    /// A version is no matter.
    ForgetVersion,
    /// What is removed is still there.
    KeepRemoved,
    /// The newest that a cache has is the one before it.
    StaleCache,
    /// Whoever is gone seems to read.
    SeemToRead,
    /// Code isn't told that a subscription has ended.
    ForgetUnsubscribed,
    /// Code isn't told that a client has gone.
    ForgetDisconnected,
    /// A user may publish once more than is allowed.
    LooseRate,
    /// A user may publish half as often.
    TightRate,
    /// Errors are not counted.
    BearErrors,
    /// A user may have one connection too many.
    ExtraSeat,
    /// A worker isn't told that a connection was superseded.
    KeepSuperseded,
    /// A connection that has expired lives on for too long.
    LateCut,
    /// A connection is ended at the moment in which it expires.
    EarlyCut,
    /// A subscription that has expired lives on for too long.
    LateSubscriptionCut,
    /// A subscription is ended at the moment in which it expires.
    EarlySubscriptionCut,
    /// Bytes that are no JSON are read as something that is.
    SoftenBytes,
    /// Others are told of each connection where they should be told of users.
    TellOfConnections,
    /// Whoever is not to get a publication gets it.
    ForgetExcept,
    /// A cache says of what is hidden that it isn't.
    LeakFromCache,
    /// A queue always seems to have room for one more page.
    PumpFull,
    /// A connection may do things once more than its namespace allows.
    LooseNamespaceRate,
    /// All together may do things once more than the channel's namespace allows.
    LooseChannelRate,
    /// A node that ends takes half its time.
    HasteDrain,
    /// Operators' calls don't come to one of the workers.
    ForgetWorker,
    /// Nobody looks whether pings of the transport's own are answered: whoever is gone seems to answer.
    AnswerForTheDead,
    /// Answers to pings of the transport's own are lost.
    LosePongs,
    /// The end is forgotten that operators give to a subscription.
    ForgetSubscriptionEnd,
    /// The end is forgotten that operators give to a connection.
    ForgetConnectionEnd,
}

impl Fault {
    pub(crate) const ALL: [Self; 39] = [
        Self::DropFromPage,
        Self::SwapTwo,
        Self::ForgetLeave,
        Self::ForgetPresence,
        Self::SkipRecovery,
        Self::DenyTrimming,
        Self::ParkForEver,
        Self::LosePublish,
        Self::DenyPatch,
        Self::LeakThroughFilter,
        Self::LoseTags,
        Self::ForgetVersion,
        Self::KeepRemoved,
        Self::StaleCache,
        Self::SeemToRead,
        Self::ForgetUnsubscribed,
        Self::ForgetDisconnected,
        Self::LooseRate,
        Self::TightRate,
        Self::BearErrors,
        Self::ExtraSeat,
        Self::KeepSuperseded,
        Self::LateCut,
        Self::EarlyCut,
        Self::LateSubscriptionCut,
        Self::EarlySubscriptionCut,
        Self::SoftenBytes,
        Self::TellOfConnections,
        Self::ForgetExcept,
        Self::LeakFromCache,
        Self::PumpFull,
        Self::LooseNamespaceRate,
        Self::LooseChannelRate,
        Self::HasteDrain,
        Self::ForgetWorker,
        Self::AnswerForTheDead,
        Self::LosePongs,
        Self::ForgetSubscriptionEnd,
        Self::ForgetConnectionEnd,
    ];
}

/// An engine with a fault. It shows only with an engine that does things at once.
pub(crate) struct FaultyEngine {
    inner: Arc<dyn Engine>,
    fault: Fault,
}

impl FaultyEngine {
    pub(crate) fn new(inner: Arc<dyn Engine>, fault: Fault) -> Self {
        Self { inner, fault }
    }

    fn level(&self, level: JoinLevel) -> JoinLevel {
        match self.fault {
            Fault::TellOfConnections => JoinLevel::Client,
            _ => level,
        }
    }
}

impl Engine for FaultyEngine {
    fn register(&self, worker: WorkerId, mailbox: Arc<dyn Mailbox>) {
        self.inner.register(worker, mailbox);
    }

    fn attach(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>> {
        self.inner.attach(now, ticket, channel)
    }

    fn detach(&self, now: Now, worker: WorkerId, channel: &Channel) {
        self.inner.detach(now, worker, channel);
    }

    fn publish(
        &self,
        now: Now,
        ticket: Ticket,
        mut request: Publish,
    ) -> Started<Result<Published, EngineError>> {
        if self.fault == Fault::LosePublish && ticket.serial.is_multiple_of(7) {
            return Started::Done(Ok(Published::default()));
        }
        if self.fault == Fault::ForgetVersion {
            request.version = None;
        }
        if self.fault == Fault::ForgetExcept {
            request.except = None;
        }
        self.inner.publish(now, ticket, request)
    }

    fn join(
        &self,
        now: Now,
        worker: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    ) {
        let level = self.level(level);
        self.inner.join(now, worker, channel, info, level);
    }

    fn leave(
        &self,
        now: Now,
        worker: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    ) {
        let level = self.level(level);
        if self.fault != Fault::ForgetLeave {
            self.inner.leave(now, worker, channel, info, level);
        }
    }

    fn history(
        &self,
        now: Now,
        ticket: Ticket,
        request: HistoryRead,
    ) -> Started<Result<HistoryPage, EngineError>> {
        let (since, reverse) = (request.since, request.reverse);
        let request = HistoryRead {
            limit: request
                .limit
                .map(|limit| limit + usize::from(reverse && self.fault == Fault::StaleCache)),
            ..request
        };
        let mut page = match self.inner.history(now, ticket, request) {
            Started::Done(Ok(page)) => page,
            other => return other,
        };
        let publications = &mut page.publications;
        if reverse && self.fault == Fault::StaleCache && publications.len() > 1 {
            let newest = publications.remove(0);
            publications[0] = Arc::new(Publication {
                offset: newest.offset,
                ..(*publications[0]).clone()
            });
        }
        if reverse && self.fault == Fault::LeakFromCache {
            relabel(publications, Some(KINDS[0]));
        }
        let Some(since) = since else {
            return Started::Done(Ok(page));
        };
        match self.fault {
            Fault::DropFromPage if publications.len() > 2 => {
                publications.remove(1);
            }
            Fault::SwapTwo if publications.len() > 2 => publications.swap(0, 1),
            Fault::SkipRecovery if publications.len() > 2 => {
                publications.clear();
                page.top.offset = since;
            }
            Fault::DenyTrimming => page.follows = true,
            Fault::LeakThroughFilter => relabel(publications, Some(KINDS[0])),
            Fault::LoseTags => relabel(publications, None),
            Fault::SoftenBytes => {
                for publication in publications {
                    if std::str::from_utf8(&publication.data).is_err() {
                        *publication = Arc::new(Publication {
                            data: "\"bytes\"".into(),
                            ..(**publication).clone()
                        });
                    }
                }
            }
            _ => {}
        }
        Started::Done(Ok(page))
    }

    fn remove_history(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>> {
        if self.fault == Fault::KeepRemoved {
            return Started::Done(Ok(()));
        }
        self.inner.remove_history(now, ticket, channel)
    }

    fn presence_add(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>> {
        self.inner.presence_add(now, ticket, channel, info)
    }

    fn presence_remove(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>> {
        if self.fault == Fault::ForgetPresence && ticket.serial.is_multiple_of(5) {
            return Started::Done(Ok(()));
        }
        self.inner.presence_remove(now, ticket, channel, info)
    }

    fn presence(
        &self,
        now: Now,
        ticket: Ticket,
        request: PresenceRead,
    ) -> Started<Result<PresencePage, EngineError>> {
        self.inner.presence(now, ticket, request)
    }

    fn presence_stats(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<PresenceStatsResult, EngineError>> {
        self.inner.presence_stats(now, ticket, channel)
    }

    fn maintain(&self, now: Now) {
        self.inner.maintain(now);
    }
}

/// Gives publications this kind, or none.
fn relabel(publications: &mut [Arc<Publication>], kind: Option<&str>) {
    for publication in publications {
        let tag = kind.map(|kind| (TAG.to_owned(), kind.to_owned()));
        *publication = Arc::new(Publication {
            tags: tag.into_iter().collect(),
            ..(**publication).clone()
        });
    }
}
