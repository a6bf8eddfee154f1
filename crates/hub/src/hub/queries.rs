//! The commands that ask for something and change nothing: presence stats, history.

use std::sync::Arc;

use tautline_auth::Allowed;
use tautline_protocol::filter::Filter;
use tautline_protocol::message::{
    Error, HistoryRequest, HistoryResult, PresenceStatsRequest, PresenceStatsResult, Publication,
    StreamPosition,
};
use tautline_protocol::{Disconnect, Encoding, ErrorCode, Response};

use super::channel_name::{ChannelName, explained};
use super::dispatch::{Progress, Refusal};
use super::enforce::FilteredRead;
use super::operation::{Bound, Operation};
use super::permission::Permissions;
use super::unfit::fit;
use super::waiting::Waiting;
use super::{Hub, SessionId};
use crate::Now;
use crate::config::{DataFormat, HubConfig};
use crate::engine::{Channel, EngineError, HistoryPage, HistoryRead, Started};
use crate::outbox::Outbox;

impl Hub {
    pub(super) fn presence_stats(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &PresenceStatsRequest<'_>,
    ) -> Result<Progress, Refusal> {
        let channel = self.presence_channel(id, &request.channel)?;
        self.charge_in(now, id, Operation::PresenceStats, &channel)?;
        let ticket = self.ticket();
        match self.engine.presence_stats(now, ticket, &channel) {
            Started::Done(result) => Self::finish_presence_stats(result),
            Started::Later => {
                self.wait(id, ticket, Waiting::PresenceStats { command: number });
                Ok(Progress::Wait)
            }
        }
    }

    pub(super) fn finish_presence_stats(
        result: Result<PresenceStatsResult, EngineError>,
    ) -> Result<Progress, Refusal> {
        Ok(Progress::Answer(Response::PresenceStats(result?)))
    }

    pub(super) fn history<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: HistoryRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let (name, permissions) = self.known_channel(id, &request.channel)?;
        let options = self.config.channel.history(name.options).ok_or_else(|| {
            self.because("the namespace keeps no history", ErrorCode::NotAvailable)
        })?;
        if !permissions.may_read_history() {
            let why = permissions.why_not(Allowed::HISTORY);
            return Err(self.because(why, ErrorCode::PermissionDenied.into()));
        }
        let json_only = name.options.publication_data_format == DataFormat::Binary
            && self.encoding(id) == Some(Encoding::Json);
        let transport = self.sessions.get(id).map(|session| session.transport);
        let gapless = transport.is_some_and(|transport| transport.gapless_history);
        let most = self.config.client.history_max_publication_limit;
        let limit = usize::try_from(request.limit).map_or(most, |limit| limit.min(most));
        let since = read_since(request.since.as_ref(), request.reverse)?;
        let gapless = gapless && since.is_some() && !request.reverse;
        let epoch = request.since.map(|since| since.epoch).unwrap_or_default();
        let expected = Expected {
            epoch,
            gapless,
            json_only,
            asked: usize::try_from(request.limit).unwrap_or(usize::MAX),
            reverse: request.reverse.then_some(limit),
        };
        let read = HistoryRead {
            channel: self.shared_name(name.full),
            options,
            since,
            limit: Some(limit),
            max_bytes: Some(answer_bytes(&self.config)),
            reverse: request.reverse,
        };
        let filter = self.imposed_on(id, &name)?.filter(|_| limit > 0);
        self.charge_in(now, id, Operation::History, &read.channel)?;
        if let Some(filter) = filter {
            let read = FilteredRead::new(filter, read, expected);
            return self.read_filtered(now, id, number, Box::new(read), out);
        }
        let ticket = self.ticket();
        match self.engine.history(now, ticket, read) {
            Started::Done(result) => self.finish_history(&expected, result),
            Started::Later => {
                self.wait(
                    id,
                    ticket,
                    Waiting::History {
                        command: number,
                        expected,
                    },
                );
                Ok(Progress::Wait)
            }
        }
    }

    /// Where the answer is for JSON only, what isn't closes the connection.
    pub(super) fn finish_history(
        &self,
        expected: &Expected,
        result: Result<HistoryPage, EngineError>,
    ) -> Result<Progress, Refusal> {
        let page = result?;
        expected.check(&page)?;
        let result = history_result(&expected.epoch, page)?;
        expected.check_fit(&result.publications)?;
        if expected.is_cut(&result) {
            self.met(Bound::History);
        }
        Ok(Progress::Answer(Response::History(result)))
    }

    /// The channel of a presence command, if the session may see who is there.
    pub(super) fn presence_channel(
        &self,
        id: SessionId,
        channel: &str,
    ) -> Result<Channel, Refusal> {
        let (name, permissions) = self.known_channel(id, channel)?;
        if !name.options.presence {
            let why = "the namespace's option presence is off";
            return Err(self.because(why, ErrorCode::NotAvailable.into()));
        }
        if !permissions.may_read_presence() {
            let why = permissions.why_not(Allowed::PRESENCE);
            return Err(self.because(why, ErrorCode::PermissionDenied.into()));
        }
        Ok(self.shared_name(name.full))
    }

    /// The filter that is imposed on a session in a channel. Without a subscription it is that of the
    /// namespace.
    fn imposed_on(
        &self,
        id: SessionId,
        name: &ChannelName<'_, '_>,
    ) -> Result<Option<Filter>, ErrorCode> {
        let connected = self.sessions.connected(id);
        let connected = connected.ok_or(ErrorCode::PermissionDenied)?;
        let index = self.channels.find(name.full);
        let subscription = index.and_then(|index| connected.subscription(index));
        let extra = subscription.and_then(|subscription| subscription.extra.as_deref());
        match extra.and_then(|extra| extra.filters.as_ref()) {
            Some(filters) => Ok(Some(filters.imposed.clone())),
            None => name.imposed_filter(&connected.info.user),
        }
    }

    /// The channel of a command, and what the session may do there.
    fn known_channel<'n>(
        &self,
        id: SessionId,
        channel: &'n str,
    ) -> Result<(ChannelName<'n, '_>, Permissions<'_>), Refusal> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let name = ChannelName::parse_asked(&self.config, channel)?;
        let connected = self.sessions.connected(id).ok_or(Disconnect::BAD_REQUEST)?;
        let index = self.channels.find(channel);
        let is_subscribed = index.is_some_and(|index| connected.subscription(index).is_some());
        let user = &connected.info.user;
        Ok((
            name,
            Permissions::new(&self.config, name.options, user, is_subscribed)
                .with(connected.allowed(channel, index)),
        ))
    }
}

/// What a page of history has to be like for a session.
pub(crate) struct Expected {
    /// Epoch of the position that the client named; empty for any.
    pub(super) epoch: Arc<str>,
    /// Nothing may be missing between that position and the page.
    pub(super) gapless: bool,
    /// The answer may have something in it that the connection can't be sent.
    pub(super) json_only: bool,
    /// How many publications the client wants, however many it may have.
    pub(super) asked: usize,
    /// The newest first, and so many of them at the most.
    pub(super) reverse: Option<usize>,
}

impl Expected {
    /// # Errors
    ///
    /// Error 112 if something is missing that must not be.
    pub(super) fn check(&self, page: &HistoryPage) -> Result<(), ErrorCode> {
        if self.gapless && !page.follows {
            return Err(ErrorCode::UnrecoverablePosition);
        }
        Ok(())
    }

    /// Whether an answer has less than the client wants although there is more.
    fn is_cut(&self, answer: &HistoryResult) -> bool {
        let HistoryResult {
            publications,
            position,
        } = answer;
        let count = publications.len();
        count < self.asked
            && publications.last().is_some_and(|last| match self.reverse {
                None => last.offset < position.offset,
                // What is further back may have expired, so only a full page tells.
                Some(most) => count == most && last.offset > 1,
            })
    }

    /// # Errors
    ///
    /// The end of the connection if there is something among them that it can't be sent.
    pub(super) fn check_fit(&self, publications: &[Arc<Publication>]) -> Result<(), Disconnect> {
        if self.json_only && !fit(Encoding::Json, publications) {
            return Err(Disconnect::INAPPROPRIATE_PROTOCOL);
        }
        Ok(())
    }
}

/// How many bytes an answer may have: what is queued for a session has a limit, and other things wait
/// there, too.
pub(super) fn answer_bytes(config: &HubConfig) -> usize {
    config.client.queue_max_size / 2
}

/// Where a read starts. Going back from offset 0 makes no sense.
pub(super) fn read_since(
    since: Option<&StreamPosition>,
    reverse: bool,
) -> Result<Option<u64>, Error> {
    match since {
        Some(since) if reverse && since.offset == 0 => {
            let why = "nothing is before offset 0: leave `since` out to begin with the newest";
            Err(explained(ErrorCode::BadRequest, why))
        }
        since => Ok(since.map(|since| since.offset)),
    }
}

/// A page as an answer, unless the position it was asked from belongs to another stream.
pub(super) fn history_result(epoch: &str, page: HistoryPage) -> Result<HistoryResult, ErrorCode> {
    if !epoch.is_empty() && *epoch != *page.top.epoch {
        return Err(ErrorCode::UnrecoverablePosition);
    }
    Ok(HistoryResult {
        publications: page.publications,
        position: page.top,
    })
}
