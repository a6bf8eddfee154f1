//! Reading commands: one frame in, borrowed commands out.
//!
//! Nothing here allocates but for the maps of a connect command, the epoch of a history command,
//! and a filter that comes in parts. Nothing recurses: a filter, the one message that contains
//! itself, is kept as it is.

use std::borrow::Cow;
use std::sync::Arc;

use super::wire::{DecodeError, Field, Reader};
use crate::filter::RawFilter;
use crate::message::{
    Command, ConnectRequest, EmulationRequest, HistoryRequest, MAX_HEADERS, MAX_SUBS,
    PresenceRequest, PresenceStatsRequest, PublishRequest, RefreshRequest, Request, RpcRequest,
    SendRequest, StreamPosition, SubRefreshRequest, SubscribeRequest, Text, UnsubscribeRequest,
};

/// Iterates over the commands of one frame.
///
/// Ends after the first error: nothing behind a command that can't be read is looked at. The
/// commands before it are valid, and are the caller's to execute.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    /// What is still to be read; `None` at the end and after an error.
    rest: Option<&'a [u8]>,
}

impl<'a> Commands<'a> {
    /// Starts reading `frame`, one or more messages, each behind its length.
    pub fn new(frame: &'a [u8]) -> Self {
        Self { rest: Some(frame) }
    }

    /// The commands not yet read, as bytes for another [`Commands`]; `None` when there are none.
    pub fn rest(&self) -> Option<&'a [u8]> {
        self.rest
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.rest.take()?);
        if reader.rest().is_empty() {
            return Some(Err(DecodeError::Empty));
        }
        let command = reader.delimited().and_then(decode);
        if command.is_ok() {
            self.rest = Some(reader.rest()).filter(|rest| !rest.is_empty());
        }
        Some(command)
    }
}

/// Reads a request that brings commands of a client whose connection carries messages in one
/// direction only.
///
/// # Errors
///
/// [`DecodeError`] if it can't be read.
pub fn decode_emulation(bytes: &[u8]) -> Result<EmulationRequest<'_>, DecodeError> {
    let mut request = EmulationRequest::default();
    read(&mut request, bytes)?;
    Ok(request)
}

impl<'a> Message<'a> for EmulationRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.node = field.text()?,
            2 => self.session = field.text()?,
            3 => self.data = field.bytes()?,
            _ => {}
        }
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Result<Command<'_>, DecodeError> {
    let mut command = Command {
        id: 0,
        request: None,
    };
    read(&mut command, bytes)?;
    Ok(command)
}

/// A message that is put together from its fields. A field may come several times: of a scalar the
/// last counts, the parts of a message are merged.
trait Message<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError>;
}

fn read<'a>(message: &mut impl Message<'a>, bytes: &'a [u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        message.take(field)?;
    }
    Ok(())
}

impl<'a> Message<'a> for Command<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        /// Merges the field into a request of its kind, and keeps what counts.
        macro_rules! request {
            ($variant:ident) => {{
                let mut request = match self.request.take() {
                    Some(Request::$variant(known)) => known,
                    other => {
                        self.request = other;
                        Default::default()
                    }
                };
                read(&mut request, field.bytes()?)?;
                self.keep(Request::$variant(request));
            }};
        }
        match field.number {
            1 => self.id = field.lower()?,
            4 => request!(Connect),
            5 => request!(Subscribe),
            6 => request!(Unsubscribe),
            7 => request!(Publish),
            8 => request!(Presence),
            9 => request!(PresenceStats),
            10 => request!(History),
            11 => {
                read(&mut Empty, field.bytes()?)?;
                self.keep(Request::Ping);
            }
            12 => request!(Send),
            13 => request!(Rpc),
            14 => request!(Refresh),
            15 => request!(SubRefresh),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Command<'a> {
    /// Where a command asks for several things, the first of the protocol's order counts.
    fn keep(&mut self, request: Request<'a>) {
        fn place(request: &Request<'_>) -> u8 {
            match request {
                Request::Connect(_) => 0,
                Request::Subscribe(_) => 1,
                Request::Unsubscribe(_) => 2,
                Request::Publish(_) => 3,
                Request::Presence(_) => 4,
                Request::PresenceStats(_) => 5,
                Request::History(_) => 6,
                Request::Rpc(_) => 7,
                Request::Send(_) => 8,
                Request::Refresh(_) => 9,
                Request::SubRefresh(_) => 10,
                Request::Ping => 11,
            }
        }
        if self
            .request
            .as_ref()
            .is_none_or(|known| place(&request) < place(known))
        {
            self.request = Some(request);
        }
    }
}

/// A message without fields that anybody knows.
struct Empty;

impl<'a> Message<'a> for Empty {
    fn take(&mut self, _: Field<'a>) -> Result<(), DecodeError> {
        Ok(())
    }
}

impl<'a> Message<'a> for ConnectRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.token = field.text()?.into(),
            2 => self.data = field.payload()?,
            3 => {
                let mut entry = Entry::<SubscribeRequest<'a>>::default();
                read(&mut entry, field.bytes()?)?;
                self.subs.insert(entry.key, entry.value);
                field.at_most(self.subs.len(), MAX_SUBS)?;
            }
            4 => self.name = field.text()?.into(),
            5 => self.version = field.text()?.into(),
            6 => {
                let mut entry = Entry::<Text<'a>>::default();
                read(&mut entry, field.bytes()?)?;
                self.headers.insert(entry.key, entry.value);
                field.at_most(self.headers.len(), MAX_HEADERS)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// An entry of a map, which on the wire is a message.
#[derive(Default)]
struct Entry<'a, V> {
    key: Text<'a>,
    value: V,
}

impl<'a> Message<'a> for Entry<'a, SubscribeRequest<'a>> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.key = field.text()?.into(),
            2 => read(&mut self.value, field.bytes()?)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for Entry<'a, Text<'a>> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.key = field.text()?.into(),
            2 => self.value = field.text()?.into(),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for SubscribeRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.channel = field.text()?.into(),
            2 => self.token = field.text()?.into(),
            3 => self.recover = field.boolean()?,
            6 => self.epoch = field.text()?.into(),
            7 => self.offset = field.unsigned()?,
            8 => self.data = field.payload()?,
            9 => self.positioned = field.boolean()?,
            10 => self.recoverable = field.boolean()?,
            11 => self.join_leave = field.boolean()?,
            12 => self.delta = field.text()?.into(),
            13 => {
                let part = field.bytes()?;
                match &mut self.tags_filter {
                    // Parts behind each other are what merging them gives.
                    Some(RawFilter::Protobuf(known)) => known.to_mut().extend_from_slice(part),
                    filter => *filter = Some(RawFilter::Protobuf(Cow::Borrowed(part))),
                }
            }
            14 => self.flag = field.unsigned()? as i64,
            15 => self.kind = field.lower()? as i32,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for UnsubscribeRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        if field.number == 1 {
            self.channel = field.text()?.into();
        }
        Ok(())
    }
}

impl<'a> Message<'a> for PublishRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.channel = field.text()?.into(),
            2 => self.data = field.payload()?,
            3 => self.kind = field.lower()? as i32,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for PresenceRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        if field.number == 1 {
            self.channel = field.text()?.into();
        }
        Ok(())
    }
}

impl<'a> Message<'a> for PresenceStatsRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        if field.number == 1 {
            self.channel = field.text()?.into();
        }
        Ok(())
    }
}

impl<'a> Message<'a> for HistoryRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.channel = field.text()?.into(),
            7 => self.limit = field.lower()? as i32,
            8 => read(self.since.get_or_insert_default(), field.bytes()?)?,
            9 => self.reverse = field.boolean()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for StreamPosition {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.offset = field.unsigned()?,
            2 => self.epoch = Arc::from(field.text()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for SendRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        if field.number == 1 {
            self.data = field.payload()?;
        }
        Ok(())
    }
}

impl<'a> Message<'a> for RpcRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.data = field.payload()?,
            2 => self.method = field.text()?.into(),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Message<'a> for RefreshRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        if field.number == 1 {
            self.token = field.text()?.into();
        }
        Ok(())
    }
}

impl<'a> Message<'a> for SubRefreshRequest<'a> {
    fn take(&mut self, field: Field<'a>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.channel = field.text()?.into(),
            2 => self.token = field.text()?.into(),
            3 => self.kind = field.lower()? as i32,
            _ => {}
        }
        Ok(())
    }
}
