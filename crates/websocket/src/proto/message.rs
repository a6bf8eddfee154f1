//! Whole messages, lent and owned.

use bytes::Bytes;
use bytestring::ByteString;

#[cfg(feature = "tokio")]
use super::frame::OpCode;

/// A message that is lent: what a handler gets, and what the sending methods take.
///
/// Complete: these are the two kinds of RFC 6455 (§5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRef<'a> {
    /// Text, which is UTF-8 by its type.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
}

#[cfg(feature = "tokio")]
impl<'a> MessageRef<'a> {
    /// The op code of its frame, and its payload. Two registers' worth each: what is passed on in this form
    /// isn't put together in memory, and taken apart again, for each message.
    #[inline]
    pub(crate) const fn parts(self) -> (OpCode, &'a [u8]) {
        match self {
            Self::Text(text) => (OpCode::Text, text.as_bytes()),
            Self::Binary(bytes) => (OpCode::Binary, bytes),
        }
    }
}

impl MessageRef<'_> {
    /// A copy of its own, in memory of its own: it keeps nothing else alive.
    pub fn to_owned(self) -> Message {
        match self {
            Self::Text(text) => Message::Text(text.into()),
            Self::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(bytes)),
        }
    }

    /// Bytes of payload.
    pub const fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is no payload. Such messages are legal.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message of its own: what `conn::WebSocket::recv` gives. Clones share the payload.
///
/// Text is a [`ByteString`], which can be used as a `&str`, and is UTF-8 by its type. Both kinds
/// are made from what Rust has for them, and turn into [`Bytes`] without a copy:
///
/// ```
/// use tautline_websocket::proto::Message;
///
/// let text = Message::from("Hello");
/// assert_eq!(text, Message::Text(String::from("Hello").into()));
/// assert_eq!(text.clone().into_bytes(), "Hello");
/// assert_eq!(Message::from(vec![1, 2, 3]), Message::Binary(vec![1, 2, 3].into()));
/// ```
///
/// Complete: these are the two kinds of RFC 6455 (§5.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(ByteString),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// The same message, lent.
    pub fn as_ref(&self) -> MessageRef<'_> {
        match self {
            Self::Text(text) => MessageRef::Text(text),
            Self::Binary(bytes) => MessageRef::Binary(bytes),
        }
    }

    /// The payload.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether there is no payload. Such messages are legal.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<MessageRef<'_>> for Message {
    fn from(message: MessageRef<'_>) -> Self {
        message.to_owned()
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<ByteString> for Message {
    fn from(text: ByteString) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a> From<&'a Message> for MessageRef<'a> {
    fn from(message: &'a Message) -> Self {
        message.as_ref()
    }
}

impl<'a> From<&'a str> for MessageRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for MessageRef<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a ByteString> for MessageRef<'a> {
    fn from(text: &'a ByteString) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for MessageRef<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for MessageRef<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a> From<&'a Bytes> for MessageRef<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        Self::Binary(bytes)
    }
}
