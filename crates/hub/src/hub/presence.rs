//! Who is in a channel: for a client, and for the operator.
//!
//! However many are there, an answer is bounded, and so is the memory of making it. A client gets
//! all of them or an error that says what to do instead; the operator's backend may also read page
//! by page, or have a sample.

use std::borrow::Cow;
use std::sync::Arc;

use tautline_protocol::message::{Error, PresenceRequest, PresenceResult, PresenceStatsResult};
use tautline_protocol::{ErrorCode, Response};

use super::api::answer;
use super::channel_name::explained;
use super::dispatch::{Progress, Refusal};
use super::operation::{Bound, Operation};
use super::queries::answer_bytes;
use super::waiting::{Pending, Waiting};
use super::{Hub, SessionId};
use crate::Now;
use crate::engine::{EngineError, Members, PresencePage, PresenceRead, Started};
use crate::entropy;

/// Which of those in a channel the operator wants to have listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiPresence {
    /// The channel.
    pub channel: String,
    /// How many at the most, up to 10,000; `None` for all of them, which is an error if there are
    /// more than that.
    pub limit: Option<usize>,
    /// Start behind this connection id, the [`next`](PresenceList::next) of the page before.
    pub cursor: Option<String>,
    /// Start anywhere. As connection ids are random, everybody is as likely to be listed as anybody
    /// else.
    pub sample: bool,
}

/// Those in a channel, or some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceList {
    /// By connection id.
    pub presence: Members,
    /// How many there are in all.
    pub stats: PresenceStatsResult,
    /// The cursor of the page behind this one, if there is one.
    pub next: Option<Arc<str>>,
}

impl Hub {
    pub(super) fn presence(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &PresenceRequest<'_>,
    ) -> Result<Progress, Refusal> {
        let channel = self.presence_channel(id, &request.channel)?;
        self.charge_in(now, id, Operation::Presence, &channel)?;
        let read = PresenceRead {
            channel,
            after: None,
            wrap: false,
            limit: self.config.client.presence_max_clients,
            max_bytes: answer_bytes(&self.config),
        };
        let ticket = self.ticket();
        match self.engine.presence(now, ticket, read) {
            Started::Done(result) => self.finish_presence(result),
            Started::Later => {
                self.wait(id, ticket, Waiting::Presence { command: number });
                Ok(Progress::Wait)
            }
        }
    }

    /// All, or nothing: a part of them would pass for the whole.
    pub(super) fn finish_presence(
        &self,
        result: Result<PresencePage, EngineError>,
    ) -> Result<Progress, Refusal> {
        let PresencePage {
            members,
            stats,
            next,
        } = result?;
        if next.is_some() {
            self.met(Bound::Presence);
            let most = self.config.client.presence_max_clients;
            let count = stats.num_clients;
            return Err(Refusal::Error(Error {
                message: Cow::Owned(format!(
                    "limit exceeded: {count} clients are more than a presence call may list ({most}, and what fits into half of the queue); ask for presence stats"
                )),
                ..ErrorCode::LimitExceeded.into()
            }));
        }
        Ok(Progress::Answer(Response::Presence(PresenceResult {
            presence: members,
        })))
    }

    /// Who is in a channel, or some of them.
    ///
    /// # Errors
    ///
    /// To `done`: 102, 107 as for publishing; 107 also for a limit of 0, and for a cursor with
    /// `sample`; 106 if all are wanted and there are too many; 108 where the namespace has no
    /// presence; 100, 111.
    pub fn api_presence(
        &mut self,
        now: Now,
        request: ApiPresence,
        done: impl FnOnce(Result<PresenceList, Error>) + 'static,
    ) {
        let ApiPresence {
            channel,
            limit,
            cursor,
            sample,
        } = request;
        let checked = self.check_presence(&channel);
        let contradiction = match (limit, sample && cursor.is_some()) {
            (Some(0), _) => Some("`limit` has to be at least 1"),
            (_, true) => Some("a sample begins anywhere: `cursor` makes no sense with it"),
            _ => None,
        };
        let checked = checked.and(match contradiction {
            Some(why) => Err(explained(ErrorCode::BadRequest, why)),
            None => Ok(()),
        });
        if let Err(error) = checked {
            return done(Err(error));
        }
        let after = match cursor {
            Some(cursor) => Some(cursor.into()),
            None => sample.then(|| entropy::connection_id(&mut *self.entropy)),
        };
        let wants_all = limit.is_none() && after.is_none();
        let read = PresenceRead {
            channel: self.shared_name(&channel),
            after,
            wrap: sample,
            limit: limit.unwrap_or(MAX_PAGE).min(MAX_PAGE),
            max_bytes: MAX_PAGE_BYTES,
        };
        let finish =
            move |result: Result<PresencePage, Error>| done(list(result, wants_all, sample));
        let ticket = self.ticket();
        match self.engine.presence(now, ticket, read) {
            Started::Done(result) => finish(answer(result, |page| page)),
            Started::Later => self.wait_for_api(ticket, Pending::ApiPresence(Box::new(finish))),
        }
    }
}

fn list(
    result: Result<PresencePage, Error>,
    wants_all: bool,
    sample: bool,
) -> Result<PresenceList, Error> {
    let PresencePage {
        members,
        stats,
        next,
    } = result?;
    if wants_all && next.is_some() {
        let count = stats.num_clients;
        return Err(Error {
            message: Cow::Owned(format!(
                "limit exceeded: {count} clients are too many for one answer ({MAX_PAGE}, or {MAX_PAGE_BYTES} bytes); read them page by page with limit and cursor, or take a sample"
            )),
            ..ErrorCode::LimitExceeded.into()
        });
    }
    Ok(PresenceList {
        presence: members,
        stats,
        next: next.filter(|_| !sample),
    })
}

/// The most that an answer to the operator lists.
const MAX_PAGE: usize = 10_000;
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;
