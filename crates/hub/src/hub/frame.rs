//! Frames of commands, in whichever encoding a connection has.

use tautline_protocol::{Command, Encoding, json, protobuf};

/// A frame of commands as a transport received it: the content of one message.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// JSON commands, separated by line breaks.
    Json(&'a str),
    /// Protobuf commands, each behind its length.
    Protobuf(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// How its commands are written.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Json(_) => Encoding::Json,
            Self::Protobuf(_) => Encoding::Protobuf,
        }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Json(text) => text.as_bytes(),
            Self::Protobuf(bytes) => bytes,
        }
    }

    pub(super) fn to_kept(self) -> KeptFrame {
        match self {
            Self::Json(text) => KeptFrame::Json(text.into()),
            Self::Protobuf(bytes) => KeptFrame::Protobuf(bytes.into()),
        }
    }
}

/// A frame that waits.
pub(crate) enum KeptFrame {
    Json(Box<str>),
    Protobuf(Box<[u8]>),
}

impl KeptFrame {
    pub(super) fn as_frame(&self) -> Frame<'_> {
        match self {
            Self::Json(text) => Frame::Json(text),
            Self::Protobuf(bytes) => Frame::Protobuf(bytes),
        }
    }
}

/// The commands of a frame, one after the other. Ends after the first that can't be read.
pub(super) enum Commands<'a> {
    Json(json::Commands<'a>),
    Protobuf(protobuf::Commands<'a>),
}

impl<'a> Commands<'a> {
    pub(super) fn new(frame: Frame<'a>) -> Self {
        match frame {
            Frame::Json(text) => Self::Json(json::Commands::new(text)),
            Frame::Protobuf(bytes) => Self::Protobuf(protobuf::Commands::new(bytes)),
        }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> Option<Frame<'a>> {
        match self {
            Self::Json(commands) => commands.rest().map(Frame::Json),
            Self::Protobuf(commands) => commands.rest().map(Frame::Protobuf),
        }
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Json(commands) => commands
                .next()
                .map(|command| command.map_err(Unreadable::Json)),
            Self::Protobuf(commands) => commands
                .next()
                .map(|command| command.map_err(Unreadable::Protobuf)),
        }
    }
}

/// Why a command can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Json(json::DecodeError),
    #[error(transparent)]
    Protobuf(protobuf::DecodeError),
}
