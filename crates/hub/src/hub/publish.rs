//! The publish command.

use std::collections::BTreeMap;

use bytes::Bytes;
use tautline_auth::Allowed;
use tautline_protocol::message::{Error, PublishRequest};
use tautline_protocol::{Disconnect, Encoding, ErrorCode, Response, json};

use super::channel_name::{ChannelName, explained};
use super::dispatch::{Progress, Refusal};
use super::operation::Operation;
use super::permission::Permissions;
use super::waiting::{Pending, Waiting};
use super::{Hub, SessionId};
use crate::Now;
use crate::application::Interests;
use crate::config::DataFormat;
use crate::engine::{EngineError, Publish, Published, Started};
use crate::outbox::Outbox;
use crate::watch::WatchedPublish;

impl Hub {
    pub(super) fn publish<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &PublishRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        if request.channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if request.kind == 1 {
            // An entry of a map, of which there are none.
            let why = "it is for a map, of which there are none";
            return Err(self.because(why, ErrorCode::NotAvailable.into()));
        }
        let name = ChannelName::parse_asked(&self.config, &request.channel)?;
        let format = name.options.publication_data_format;
        let data = match request.data {
            None if format == DataFormat::Binary => &[],
            data => data.ok_or_else(|| explained(ErrorCode::BadRequest, "there is no data"))?,
        };
        let Some(session) = self.sessions.get(id) else {
            return Ok(Progress::Done);
        };
        match session.transport.encoding {
            // The decoder has seen to it that a payload is JSON and not too deep.
            Encoding::Json => check_format(format, data)?,
            // What is published is for everybody, whatever they read.
            _ => check_data(format, data)?,
        }
        let Some(connected) = session.connected() else {
            return Ok(Progress::Done);
        };
        let channel = self.channels.find(name.full);
        let subscription = channel.filter(|channel| connected.subscription(*channel).is_some());
        let user = &connected.info.user;
        let permissions =
            Permissions::new(&self.config, name.options, user, subscription.is_some())
                .with(connected.allowed(name.full, subscription));
        let permitted = permissions.may_publish();
        let is_asked = self.asks(Interests::PUBLISH);
        if !permitted && !is_asked {
            let why = permissions.why_not(Allowed::PUBLISH);
            return Err(self.because(why, ErrorCode::PermissionDenied.into()));
        }
        let history = self.config.channel.history(name.options);
        let publish = Publish {
            channel: self.shared_name(name.full),
            data: Bytes::copy_from_slice(data),
            info: Some(connected.info_in(subscription).clone()),
            tags: BTreeMap::new(),
            except: (name.options.exclude_publisher).then(|| connected.info.client.clone()),
            patch: name.options.delta_publish && history.is_some(),
            history,
            idempotency: None,
            version: None,
        };
        let toll = self.config.limits.toll(Operation::Publish, name.options);
        self.pay(now, id, Operation::Publish, &toll, &publish.channel)?;
        let watched = self.begin_watched(now, id, &publish);
        if is_asked {
            let publish = (publish, permitted, subscription.is_some());
            return self.ask_publish(now, id, number, publish, watched, out);
        }
        self.start_publish(now, id, number, publish, watched)
    }

    /// Whoever watches publications chooses, or doesn't.
    fn begin_watched(&mut self, now: Now, id: SessionId, publish: &Publish) -> Watched {
        let watch = self.publish_watch.as_mut()?;
        let connected = self.sessions.connected(id)?;
        watch.begin(now, &connected.info, &publish.channel)
    }

    /// Publishes what may be published.
    pub(super) fn start_publish(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        publish: Publish,
        watched: Watched,
    ) -> Result<Progress, Refusal> {
        let ticket = self.ticket();
        match self.engine.publish(now, ticket, publish) {
            Started::Done(result) => self.finish_publish(result, watched),
            Started::Later => {
                let command = number;
                self.wait(id, ticket, Waiting::Publish { command, watched });
                Ok(Progress::Wait)
            }
        }
    }

    pub(super) fn finish_publish(
        &mut self,
        result: Result<Published, EngineError>,
        watched: Watched,
    ) -> Result<Progress, Refusal> {
        self.tally.published(&result);
        let Some(mut watched) = watched else {
            result?;
            return Ok(Progress::Answer(Response::Publish));
        };
        let result = result.map_err(Refusal::from);
        match &result {
            Ok(published) => {
                let offset = published.position.offset;
                watched.published(Some(offset).filter(|offset| *offset > 0));
            }
            Err(refusal) => watched.refused(refusal.code()),
        }
        result.map(|_| Progress::Answer(Response::Publish))
    }

    /// The channel's name as others here share it, if anybody does.
    pub(super) fn shared_name(&self, name: &str) -> crate::engine::Channel {
        let known = self
            .channels
            .find(name)
            .and_then(|index| self.channels.get(index));
        known.map_or_else(|| name.into(), |channel| channel.name.clone())
    }

    /// Has a session wait for the outcome of `ticket`.
    pub(super) fn wait(&mut self, id: SessionId, ticket: crate::engine::Ticket, waiting: Waiting) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.waiting = Some(Box::new(waiting));
            self.pending.insert(ticket.serial, Pending::Session(id));
        }
    }
}

/// A publication that somebody has chosen to watch, if it is one.
pub(super) type Watched = Option<Box<dyn WatchedPublish>>;

/// Whether a JSON value is what the namespace wants.
pub(super) fn check_format(format: DataFormat, data: &[u8]) -> Result<(), Error> {
    match format {
        DataFormat::Inherited | DataFormat::Json | DataFormat::Binary => Ok(()),
        DataFormat::JsonObject if data.trim_ascii_start().first() == Some(&b'{') => Ok(()),
        DataFormat::JsonObject => Err(explained(
            ErrorCode::BadRequest,
            "the namespace wants data that is a JSON object (publication_data_format)",
        )),
    }
}

/// Whether bytes of unknown origin may be published.
pub(super) fn check_data(format: DataFormat, data: &[u8]) -> Result<(), Error> {
    if format != DataFormat::Binary {
        json::check_payload(data).map_err(|error| {
            let wanted = "the namespace wants data that is JSON (publication_data_format)";
            match error {
                // It is JSON, and the text alone would say that it isn't.
                json::DecodeError::TooDeep => {
                    explained(ErrorCode::BadRequest, format_args!("{wanted}: {error}"))
                }
                _ => explained(ErrorCode::BadRequest, wanted),
            }
        })?;
    }
    check_format(format, data)
}
