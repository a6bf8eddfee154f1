//! Filters that are imposed on a subscriber: by the namespace, by a token, by the application.
//!
//! A client may narrow what it gets with a filter of its own. It never gets what an imposed one doesn't
//! let through: not live, not recovered, not in a page of history.

use std::sync::Arc;

use tautline_protocol::filter::{Filter, FilterLimits, RawFilter};
use tautline_protocol::message::{Error, HistoryResult, Publication};
use tautline_protocol::{ErrorCode, Response};

use super::channel_name::ChannelName;
use super::cursor::PAGE_PUBLICATIONS;
use super::dispatch::{Flow, Progress, Refusal};
use super::operation::Bound;
use super::queries::{Expected, answer_bytes, history_result};
use super::waiting::Waiting;
use super::{Hub, Looked, SessionId};
use crate::Now;
use crate::engine::{EngineError, HistoryPage, HistoryRead, Started, weight};
use crate::outbox::Outbox;

/// What is imposed on a subscriber, and what it asked for itself.
#[derive(Clone, Debug)]
pub(crate) struct Filters {
    pub(crate) imposed: Filter,
    /// The part of it that doesn't come from the namespace.
    pub(crate) granted: Option<Filter>,
    pub(crate) own: Option<Filter>,
}

impl Filters {
    /// What passes both.
    pub(crate) fn both(&self) -> Filter {
        match &self.own {
            Some(own) => self.imposed.and(own),
            None => self.imposed.clone(),
        }
    }
}

impl Hub {
    /// What is imposed on a subscriber beside its `own` filter, by the namespace and by who has `granted` the
    /// subscription, and the filter that comes of all of it.
    ///
    /// # Errors
    ///
    /// 103 where the namespace's filter asks for a user and there is none, 106 where the channel has no room for another.
    pub(super) fn filters_for(
        &self,
        name: &ChannelName<'_, '_>,
        user: &str,
        granted: Option<Filter>,
        own: Option<Filter>,
    ) -> Result<(Option<Filters>, Option<Filter>), Error> {
        let imposed = all(name.imposed_filter(user)?, granted.clone());
        let filters = imposed.map(|imposed| Filters {
            imposed,
            granted,
            own: own.clone(),
        });
        let filter = filters.as_ref().map(Filters::both).or(own);
        if let Some(filter) = &filter {
            self.check_room_for(filter, name.full)?;
        }
        Ok((filters, filter))
    }
}

impl ChannelName<'_, '_> {
    /// The filter that the namespace imposes on a user.
    ///
    /// # Errors
    ///
    /// Error 103 where it asks for a user and there is none.
    pub(super) fn imposed_filter(&self, user: &str) -> Result<Option<Filter>, ErrorCode> {
        let Some(template) = &self.options.server_tags_filter else {
            return Ok(None);
        };
        let filter = template.filter(|name| match name {
            "user" => Some(user),
            name => self.variable(name),
        });
        filter.map(Some).ok_or(ErrorCode::PermissionDenied)
    }
}

/// The filter that a token or the application imposes on `client`.
///
/// # Errors
///
/// Error 103 for one that can't be read: then nobody knows what the subscriber may see.
pub(super) fn granted_filter(
    client: &str,
    text: Option<&str>,
) -> Result<Option<Filter>, ErrorCode> {
    let Some(text) = text else {
        return Ok(None);
    };
    let filter = RawFilter::Json(text).parse(&FilterLimits::default());
    filter.map(Some).map_err(|error| {
        tracing::debug!(client, %error, "refusing a subscription whose filter can't be read");
        ErrorCode::PermissionDenied
    })
}

/// What passes all of them.
pub(super) fn all(one: Option<Filter>, other: Option<Filter>) -> Option<Filter> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(&other)),
        (one, other) => one.or(other),
    }
}

/// A page of history of which a session may know only a part: read on until there is enough of that.
pub(crate) struct FilteredRead {
    filter: Filter,
    read: HistoryRead,
    expected: Expected,
    /// How many publications the client gets at the most.
    wanted: usize,
    found: Vec<Arc<Publication>>,
    bytes: usize,
    /// It goes on when what waits for its client is written, and others have had their turn.
    rests: bool,
    /// There is more, for which the answer has no room.
    is_full: bool,
}

impl FilteredRead {
    pub(super) fn new(filter: Filter, read: HistoryRead, expected: Expected) -> Self {
        Self {
            filter,
            expected,
            wanted: read.limit.unwrap_or(usize::MAX),
            read: HistoryRead {
                limit: Some(PAGE_PUBLICATIONS),
                ..read
            },
            found: Vec::new(),
            bytes: 0,
            rests: false,
            is_full: false,
        }
    }

    /// Whether [`Hub::drained`] lets it go on.
    pub(super) fn rests(&self) -> bool {
        self.rests
    }

    /// Takes from a page what passes. Whether there may be more to come.
    fn take(&mut self, page: &HistoryPage, most_bytes: usize) -> bool {
        let Some(last) = page.publications.last() else {
            return false;
        };
        self.read.since = Some(last.offset);
        for publication in &page.publications {
            if !self.filter.matches(&publication.tags) {
                continue;
            }
            let bytes = weight(publication);
            if self.found.len() >= self.wanted
                || !self.found.is_empty() && self.bytes + bytes > most_bytes
            {
                self.is_full = true;
                return false;
            }
            self.bytes += bytes;
            self.found.push(publication.clone());
        }
        let is_end = if self.read.reverse {
            last.offset <= 1
        } else {
            last.offset >= page.top.offset
        };
        self.is_full = !is_end && self.found.len() >= self.wanted;
        !is_end && !self.is_full
    }
}

impl Hub {
    /// Reads history for a session that may not know all of it, to the end of the stream if need be: a
    /// page with less than was asked for would say that there is no more. However much there is to look
    /// through, others have their turn meanwhile: what is looked through in a moment is bounded, for all
    /// sessions together.
    pub(super) fn read_filtered<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        mut read: Box<FilteredRead>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let command = number;
        if self.looked.at != now.monotonic {
            self.looked = Looked {
                at: now.monotonic,
                publications: 0,
            };
        }
        while self.looked.publications < MOST_AT_ONCE {
            let ticket = self.ticket();
            match self.engine.history(now, ticket, read.read.clone()) {
                Started::Done(result) => {
                    if let Some(progress) = self.take_filtered(&mut read, result)? {
                        return Ok(progress);
                    }
                }
                Started::Later => {
                    self.wait(id, ticket, Waiting::FilteredHistory { command, read });
                    return Ok(Progress::Wait);
                }
            }
        }
        read.rests = true;
        if let Some(session) = self.sessions.get_mut(id) {
            session.waiting = Some(Box::new(Waiting::FilteredHistory { command, read }));
            out.when_drained(id);
        }
        Ok(Progress::Wait)
    }

    /// Goes on with a read that rests, if the session waits for one.
    pub(super) fn resume_filtered<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let waiting = session.waiting.take_if(
            |waiting| matches!(&**waiting, Waiting::FilteredHistory { read, .. } if read.rests()),
        );
        let Some(Waiting::FilteredHistory { command, mut read }) = waiting.map(|waiting| *waiting)
        else {
            return;
        };
        read.rests = false;
        let result = self.read_filtered(now, id, command, read, out);
        if self.finish(now, id, command, result, out) == Flow::Next {
            self.run_backlog(now, id, out);
        }
    }

    /// One page of it has come.
    pub(super) fn on_filtered<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        mut read: Box<FilteredRead>,
        result: Result<HistoryPage, EngineError>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        match self.take_filtered(&mut read, result)? {
            Some(progress) => Ok(progress),
            None => self.read_filtered(now, id, number, read, out),
        }
    }

    /// The answer, if that was enough.
    fn take_filtered(
        &mut self,
        read: &mut FilteredRead,
        result: Result<HistoryPage, EngineError>,
    ) -> Result<Option<Progress>, Refusal> {
        let mut page = result?;
        read.expected.check(&page)?;
        // That there is none took a look, too.
        self.looked.publications += page.publications.len().max(1);
        let more = read.take(&page, answer_bytes(&self.config));
        page.publications = Vec::new();
        let HistoryResult { position, .. } = history_result(&read.expected.epoch, page)?;
        // From here on it has to be this stream.
        read.expected.epoch.clone_from(&position.epoch);
        if more {
            return Ok(None);
        }
        let publications = std::mem::take(&mut read.found);
        read.expected.check_fit(&publications)?;
        if read.is_full && publications.len() < read.expected.asked {
            self.met(Bound::History);
        }
        let result = HistoryResult {
            publications,
            position,
        };
        Ok(Some(Progress::Answer(Response::History(result))))
    }
}

/// How many publications are looked through before others have their turn: as little as is worth the
/// interruption.
const MOST_AT_ONCE: usize = 4 * PAGE_PUBLICATIONS;
