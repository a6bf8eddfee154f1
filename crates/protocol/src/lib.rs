//! The messages of the Centrifugal client protocol, and their encodings.
//!
//! Every connection carries [`Command`]s from client to server and [`Reply`]s from server to
//! client. A reply answers a command (same `id`), or carries a [`Push`], or is empty, which means
//! *ping*. The official client SDKs for JavaScript, Python, Go, Dart, Swift, Java and C# all speak
//! this protocol; this crate is what a server needs to speak it back.
//!
//! The crate is pure: no I/O, no clock, no randomness, no global state. It knows what the messages
//! are and how they are written, and nothing of what they mean: that is `tautline-hub`'s part.
//!
//! - [`message`]: the types. Requests borrow from the frame they came in; what a server sends
//!   shares its payloads.
//! - [`code`]: error, disconnect and unsubscribe codes, with what a client does about each.
//! - [`json`]: the JSON encoding, one object a line.
//! - [`protobuf`]: the Protobuf encoding, messages behind their lengths.
//! - [`delta`]: publications as patches against the ones before them.
//! - [`filter`]: filters by which a subscriber chooses among publications.
//!
//! Payloads are *raw*: the bytes that a publisher sent are the bytes that a subscriber gets. They
//! are never parsed into a value and written again.

pub mod code;
pub mod delta;
pub mod filter;
pub mod json;
pub mod message;
pub mod protobuf;

pub use code::{Disconnect, ErrorCode, UnsubscribeCode};
pub use message::{Command, Publication, Push, Reply, Request, Response};

/// How a connection writes its messages. Fixed for the life of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// One JSON object a line; see [`json`].
    #[default]
    Json,
    /// Messages behind their lengths; see [`protobuf`].
    Protobuf,
}

impl Encoding {
    /// How many encodings there are: the length of a table with an entry for each.
    pub const COUNT: usize = 2;

    /// The encoding's place in such a table.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Appends `reply` to `out` as this encoding writes it, without any framing of the transport: a
    /// JSON object without a line break, or a Protobuf message with its length before it.
    pub fn encode_reply(self, reply: &Reply, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode_reply(reply, out),
            Self::Protobuf => protobuf::encode_reply(reply, out),
        }
    }

    /// Appends `reply` to a message that may hold others already: a client reads them one after the
    /// other, as if each had come by itself.
    pub fn append_reply(self, reply: &Reply, message: &mut Vec<u8>) {
        if self == Self::Json && !message.is_empty() {
            message.push(b'\n');
        }
        self.encode_reply(reply, message);
    }

    /// The `data` of a publication in a subscription with [`delta`], be it a patch or not: in JSON a
    /// string that holds `data`, in Protobuf `data` itself.
    ///
    /// `None` if it can't be written: data that isn't UTF-8 can't be a JSON string.
    pub fn delta_data(self, data: &message::Payload) -> Option<message::Payload> {
        match self {
            Self::Json => json::quote(data),
            Self::Protobuf => Some(data.clone()),
        }
    }
}
