//! The commands that ask for something and change nothing: presence stats, history.

use tautline_auth::Allowed;
use tautline_protocol::filter::Filter;
use tautline_protocol::message::{
    HistoryRequest, HistoryResult, PresenceStatsRequest, PresenceStatsResult, StreamPosition,
};
use tautline_protocol::{Disconnect, Encoding, ErrorCode, Response};

use super::channel_name::ChannelName;
use super::dispatch::{Progress, Refusal};
use super::enforce::FilteredRead;
use super::operation::Operation;
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
        let most = self.config.client.history_max_publication_limit;
        let limit = usize::try_from(request.limit).map_or(most, |limit| limit.min(most));
        let since = read_since(request.since.as_ref(), request.reverse)?;
        let epoch = request.since.map(|since| since.epoch).unwrap_or_default();
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
            let read = FilteredRead::new(filter, read, epoch, json_only);
            return self.read_filtered(now, id, number, Box::new(read), out);
        }
        let ticket = self.ticket();
        match self.engine.history(now, ticket, read) {
            Started::Done(result) => Self::finish_history(&epoch, json_only, result),
            Started::Later => {
                self.wait(
                    id,
                    ticket,
                    Waiting::History {
                        command: number,
                        epoch,
                        json_only,
                    },
                );
                Ok(Progress::Wait)
            }
        }
    }

    /// Where the answer is for JSON only, what isn't closes the connection.
    pub(super) fn finish_history(
        epoch: &str,
        json_only: bool,
        result: Result<HistoryPage, EngineError>,
    ) -> Result<Progress, Refusal> {
        let result = history_result(epoch, result?)?;
        if json_only && !fit(Encoding::Json, &result.publications) {
            return Err(Disconnect::INAPPROPRIATE_PROTOCOL.into());
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
        let name = ChannelName::parse(&self.config, channel)?;
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

/// How many bytes an answer may have: what is queued for a session has a limit, and other things wait
/// there, too.
pub(super) fn answer_bytes(config: &HubConfig) -> usize {
    config.client.queue_max_size / 2
}

/// Where a read starts. Going back from offset 0 makes no sense.
pub(super) fn read_since(
    since: Option<&StreamPosition>,
    reverse: bool,
) -> Result<Option<u64>, ErrorCode> {
    match since {
        Some(since) if reverse && since.offset == 0 => Err(ErrorCode::BadRequest),
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
