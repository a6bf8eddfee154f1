//! What an operator's backend asks for: publish, presence, history.
//!
//! There are no permissions here, but the rules of names and namespaces are the same. Results are
//! handed to a callback: at once with the memory engine, from a later
//! [`deliver`](Hub::deliver) with an engine that has to ask first.

use std::collections::BTreeMap;
use std::time::Duration;

use tautline_protocol::ErrorCode;
use tautline_protocol::message::{
    Error, HistoryResult, Payload, PresenceStatsResult, StreamPosition,
};

use super::Hub;
use super::channel_name::{ChannelName, explained};
use super::dispatch::engine_failed;
use super::operation::Bound;
use super::publish::check_data;
use super::queries::{history_result, read_since};
use super::waiting::Pending;
use crate::Now;
use crate::config::NamespaceOptions;
use crate::engine::{
    EngineError, HistoryRead, Idempotency, Outcome, Publish, Published, Started, Ticket, Version,
};

/// A publication by the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiPublish {
    /// Where.
    pub channel: String,
    /// The payload: one JSON value.
    pub data: Payload,
    /// Labels, delivered with the publication.
    pub tags: BTreeMap<String, String>,
    /// A publish with a key that the channel has seen in the last five minutes does nothing and
    /// has the result of the first. At most 255 bytes.
    pub idempotency_key: Option<String>,
    /// Not to be kept in the channel's history: the publication has no offset.
    pub skip_history: bool,
    /// Subscribers who take patches get a patch, also where the namespace has no `delta_publish`.
    /// Needs history, without which it has no meaning.
    pub delta: bool,
    /// If the channel's version is this or a greater one, nothing is published. 0 for none. Needs
    /// history, without which it has no meaning.
    pub version: u64,
    /// What the version counts in; versions of different scopes are not compared. Empty for whatever
    /// the channel's has. At most 255 bytes.
    pub version_epoch: String,
    /// The only connection that is not to get it, by its id; empty for none. At most 255 bytes.
    pub exclude_client: String,
}

/// A publication was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOutcome {
    /// Where it stands in the channel's stream; `None` if it is not part of it. The stream's top if it
    /// was `stale`.
    pub position: Option<StreamPosition>,
    /// The idempotency key was known: nothing happened this time.
    pub duplicate: bool,
    /// The channel's version was as new: nothing happened.
    pub stale: bool,
}

/// Which publications the operator wants to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiHistory {
    /// The channel.
    pub channel: String,
    /// How many at the most; 0 for the position alone, `None` for all.
    pub limit: Option<usize>,
    /// Where to start, exclusive; `None` for the oldest kept (or the newest, in reverse).
    pub since: Option<StreamPosition>,
    /// Newest first.
    pub reverse: bool,
}

impl Hub {
    /// Publishes into a channel.
    ///
    /// # Errors
    ///
    /// To `done`: 102 for an unknown namespace; 107 for a bad channel name, a payload that is not
    /// what the namespace wants, or an idempotency key or version epoch that is too long; 100 for an engine in
    /// trouble, 111 if too many requests wait for one.
    pub fn api_publish(
        &mut self,
        now: Now,
        request: ApiPublish,
        done: impl FnOnce(Result<PublishOutcome, Error>) + 'static,
    ) {
        let publish = match self.check_publish(request) {
            Ok(publish) => publish,
            Err(error) => return done(Err(error)),
        };
        let ticket = self.ticket();
        match self.engine.publish(now, ticket, publish) {
            Started::Done(result) => {
                self.tally.published(&result);
                done(publish_outcome(result));
            }
            Started::Later => self.wait_for_api(ticket, Pending::ApiPublish(Box::new(done))),
        }
    }

    /// How many are in a channel.
    ///
    /// # Errors
    ///
    /// To `done`: 102, 107 as for publishing; 108 where the namespace has no presence; 100, 111.
    pub fn api_presence_stats(
        &mut self,
        now: Now,
        channel: &str,
        done: impl FnOnce(Result<PresenceStatsResult, Error>) + 'static,
    ) {
        if let Err(error) = self.check_presence(channel) {
            return done(Err(error));
        }
        let (ticket, channel) = (self.ticket(), self.shared_name(channel));
        match self.engine.presence_stats(now, ticket, &channel) {
            Started::Done(result) => done(answer(result, |stats| stats)),
            Started::Later => self.wait_for_api(ticket, Pending::ApiPresenceStats(Box::new(done))),
        }
    }

    /// Reads a channel's history.
    ///
    /// # Errors
    ///
    /// To `done`: 102, 107 as for publishing, 107 also for reading back from offset 0; 108 where
    /// the namespace keeps no history; 112 for a position of another epoch; 100, 111.
    pub fn api_history(
        &mut self,
        now: Now,
        request: ApiHistory,
        done: impl FnOnce(Result<HistoryResult, Error>) + 'static,
    ) {
        let ApiHistory {
            channel,
            limit,
            since,
            reverse,
        } = request;
        let read = self.check_api(&channel).and_then(|options| {
            let options = self
                .config
                .channel
                .history(options)
                .ok_or(ErrorCode::NotAvailable)?;
            let since = read_since(since.as_ref(), reverse)?;
            Ok(HistoryRead {
                channel: self.shared_name(&channel),
                options,
                since,
                limit,
                max_bytes: None,
                reverse,
            })
        });
        let read = match read {
            Ok(read) => read,
            Err(error) => return done(Err(error)),
        };
        let epoch = since.map(|since| since.epoch).unwrap_or_default();
        let ticket = self.ticket();
        match self.engine.history(now, ticket, read) {
            Started::Done(result) => done(history_answer(&epoch, result)),
            Started::Later => self.wait_for_api(ticket, Pending::ApiHistory(Box::new(done), epoch)),
        }
    }

    /// Drops the publications that a channel keeps. Its position stays: who is subscribed goes on as
    /// before, and who would have to read what was dropped is told that it can't be recovered.
    ///
    /// # Errors
    ///
    /// To `done`: 102, 107 as for publishing; 108 where the namespace keeps no history; 100, 111.
    pub fn api_history_remove(
        &mut self,
        now: Now,
        channel: &str,
        done: impl FnOnce(Result<(), Error>) + 'static,
    ) {
        let has_history = self.check_api(channel).map(NamespaceOptions::has_history);
        match has_history {
            Err(error) => return done(Err(error)),
            Ok(false) => return done(Err(ErrorCode::NotAvailable.into())),
            Ok(true) => {}
        }
        let (ticket, channel) = (self.ticket(), self.shared_name(channel));
        match self.engine.remove_history(now, ticket, &channel) {
            Started::Done(result) => done(answer(result, |()| ())),
            Started::Later => self.wait_for_api(ticket, Pending::ApiHistoryRemove(Box::new(done))),
        }
    }

    pub(super) fn on_api_outcome(&mut self, pending: Pending, outcome: Outcome) {
        self.pending_api = self.pending_api.saturating_sub(1);
        match (pending, outcome) {
            (Pending::ApiPublish(done), Outcome::Published(result)) => {
                self.tally.published(&result);
                done(publish_outcome(result));
            }
            (Pending::ApiHistoryRemove(done), Outcome::Changed(result)) => {
                done(answer(result, |()| ()));
            }
            (Pending::ApiPresence(done), Outcome::Presence(result)) => {
                done(answer(result, |page| page));
            }
            (Pending::ApiPresenceStats(done), Outcome::PresenceStats(result)) => {
                done(answer(result, |stats| stats));
            }
            (Pending::ApiHistory(done, epoch), Outcome::History(result)) => {
                done(history_answer(&epoch, result));
            }
            // An engine that answers another question than it was asked is broken.
            (pending, _) => pending.fail(&engine_failed(EngineError::Unavailable)),
        }
    }

    pub(super) fn wait_for_api(&mut self, ticket: Ticket, pending: Pending) {
        if self.pending_api >= MAX_PENDING_API {
            return pending.fail(&self.too_many_calls());
        }
        self.pending_api += 1;
        self.pending.insert(ticket.serial, pending);
    }

    /// What a call is told for which there is no room among those that wait.
    pub(super) fn too_many_calls(&self) -> Error {
        self.met(Bound::ApiCalls);
        let why = format_args!(
            "{MAX_PENDING_API} calls wait for the engine on this worker, which is all that there may be; make fewer at a \
             time, or try again later"
        );
        explained(ErrorCode::TooManyRequests, why)
    }

    fn check_api(&self, channel: &str) -> Result<&NamespaceOptions, Error> {
        Ok(ChannelName::parse(&self.config, channel)?.options)
    }

    pub(super) fn check_presence(&self, channel: &str) -> Result<(), Error> {
        if self.check_api(channel)?.presence {
            Ok(())
        } else {
            Err(ErrorCode::NotAvailable.into())
        }
    }

    fn check_publish(&self, request: ApiPublish) -> Result<Publish, Error> {
        let ApiPublish {
            channel,
            data,
            tags,
            idempotency_key,
            skip_history,
            delta,
            version,
            version_epoch,
            exclude_client,
        } = request;
        let options = self.check_api(&channel)?;
        check_data(options.publication_data_format, &data)?;
        if version_epoch.len() > MAX_KEY || exclude_client.len() > MAX_KEY {
            let why =
                format_args!("`version_epoch` and `exclude_client` have at most {MAX_KEY} bytes");
            return Err(explained(ErrorCode::BadRequest, why));
        }
        let history = self.config.channel.history(options);
        let history = history.filter(|_| !skip_history);
        Ok(Publish {
            channel: self.shared_name(&channel),
            data,
            info: None,
            tags,
            except: (!exclude_client.is_empty()).then(|| exclude_client.into()),
            patch: (delta || options.delta_publish) && history.is_some(),
            history,
            version: (version > 0).then(|| Version {
                number: version,
                epoch: version_epoch.into(),
            }),
            idempotency: idempotency(idempotency_key)?,
        })
    }
}

/// What makes a publish safe to repeat; an empty key is none.
pub(super) fn idempotency(key: Option<String>) -> Result<Option<Idempotency>, Error> {
    let key = key.filter(|key| !key.is_empty());
    if key.as_ref().is_some_and(|key| key.len() > MAX_KEY) {
        let why = format_args!("`idempotency_key` has at most {MAX_KEY} bytes");
        return Err(explained(ErrorCode::BadRequest, why));
    }
    Ok(key.map(|key| Idempotency {
        key: key.into(),
        ttl: IDEMPOTENCY_TTL,
    }))
}

impl Pending {
    /// Tells the API's caller that there will be no result.
    fn fail(self, error: &Error) {
        match self {
            Self::ApiPublish(done) => done(Err(error.clone())),
            Self::ApiHistoryRemove(done) => done(Err(error.clone())),
            Self::ApiPresence(done) => done(Err(error.clone())),
            Self::ApiPresenceStats(done) => done(Err(error.clone())),
            Self::ApiHistory(done, _) => done(Err(error.clone())),
            Self::Session(_)
            | Self::Subscription(..)
            | Self::Attach(_)
            | Self::Page { .. }
            | Self::Position(_) => {}
        }
    }
}

pub(super) fn answer<T, U>(
    result: Result<T, EngineError>,
    map: impl FnOnce(T) -> U,
) -> Result<U, Error> {
    result.map(map).map_err(engine_failed)
}

fn publish_outcome(result: Result<Published, EngineError>) -> Result<PublishOutcome, Error> {
    answer(
        result,
        |Published {
             position,
             duplicate,
             stale,
         }| PublishOutcome {
            position: (position.offset > 0).then_some(position),
            duplicate,
            stale,
        },
    )
}

fn history_answer(
    epoch: &str,
    result: Result<crate::engine::HistoryPage, EngineError>,
) -> Result<HistoryResult, Error> {
    history_result(epoch, result.map_err(engine_failed)?).map_err(Error::from)
}

/// How long an idempotency key is remembered.
const IDEMPOTENCY_TTL: Duration = Duration::from_secs(300);
/// Longest idempotency key or version epoch, in bytes.
const MAX_KEY: usize = 255;
/// How many requests may wait for a slow engine, on each worker.
pub(super) const MAX_PENDING_API: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_is_told_what_there_is_no_room_for() {
        let told = |error| {
            answer(Err::<(), _>(error), |()| ())
                .err()
                .map(|error| (error.code, error.message))
        };
        let (code, text) = told(EngineError::Full { limit: 7 }).unwrap();
        assert_eq!(code, 100);
        assert!(
            text.starts_with("internal server error: ")
                && text.contains("engine.memory.max_channels"),
            "{text}"
        );
        let (_, text) = told(EngineError::OutOfMemory { limit: 7 }).unwrap();
        assert!(text.contains("engine.memory.max_bytes"), "{text}");
        let (_, text) = told(EngineError::Unavailable).unwrap();
        assert_eq!(text, "internal server error");
    }
}
