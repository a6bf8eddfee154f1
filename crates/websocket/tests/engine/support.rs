//! Building frames by hand, and running an engine over them.

use tautline_websocket::proto::deflate::{Agreement, MessageCodec};
use tautline_websocket::proto::{Connection, Event, Extensions, Limits, PeerFault, Role};

/// Which end the engine under test is, and whether it has agreed on permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
    DeflatingServer,
    DeflatingClient,
}

pub(crate) const SIDES: [Side; 4] = [
    Side::Server,
    Side::Client,
    Side::DeflatingServer,
    Side::DeflatingClient,
];

pub(crate) const DEFLATING: [Side; 2] = [Side::DeflatingServer, Side::DeflatingClient];

/// Everything allowed.
pub(crate) const AGREEMENT: Agreement = Agreement {
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

impl Side {
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::DeflatingServer)
    }

    pub(crate) fn deflates(self) -> bool {
        DEFLATING.contains(&self)
    }

    pub(crate) fn engine(self, limits: Limits) -> Connection {
        if self.deflates() {
            return self.engine_with(AGREEMENT, limits);
        }
        Connection::new(self.role(), limits)
    }

    pub(crate) fn engine_with(self, agreement: Agreement, limits: Limits) -> Connection {
        Connection::new(self.role(), limits).with_extensions(Extensions::deflate(agreement))
    }

    fn role(self) -> Role {
        if self.is_server() {
            Role::Server
        } else {
            Role::Client(Box::new(|| [0x5A, 0x01, 0xC3, 0x88]))
        }
    }

    /// A frame as the peer of this end sends it; `first` is its first byte.
    pub(crate) fn frame(self, first: u8, payload: &[u8]) -> Vec<u8> {
        let length = match payload.len() {
            len @ 0..126 => vec![len as u8],
            len @ 126..0x1_0000 => [&[126], &(len as u16).to_be_bytes()[..]].concat(),
            len => [&[127], &(len as u64).to_be_bytes()[..]].concat(),
        };
        self.frame_with_length(first, &length, payload)
    }

    /// The same with any bytes in place of the length; the mask bit is set as it should be.
    pub(crate) fn frame_with_length(self, first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        frame.extend_from_slice(length);
        if !self.is_server() {
            frame.extend_from_slice(payload);
            return frame;
        }
        let key = [0x11, 0xA2, 0x00, 0xFE];
        frame[1] |= 0x80;
        frame.extend_from_slice(&key);
        frame.extend(
            payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ key[at % 4]),
        );
        frame
    }

    /// A frame with the mask bit as it must not be.
    pub(crate) fn frame_masked_wrongly(self, first: u8, payload: &[u8]) -> Vec<u8> {
        if self.is_server() {
            Self::Client.frame(first, payload)
        } else {
            Self::Server.frame(first, payload)
        }
    }
}

/// An event of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(PeerFault),
}

impl From<Event<'_>> for Got {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_owned()),
            Event::Ping(payload) => Self::Ping(payload.to_owned()),
            Event::Pong(payload) => Self::Pong(payload.to_owned()),
            Event::Close(frame) => {
                Self::Close(frame.map(|frame| (frame.code.get(), frame.reason.to_owned())))
            }
            Event::Failed(fault) => Self::Failed(fault),
        }
    }
}

/// Feeds the engine `chunks`, echoes all messages as they are, and collects the events.
pub(crate) fn echo<'c>(
    engine: &mut Connection,
    chunks: impl IntoIterator<Item = &'c [u8]>,
    out: &mut Vec<u8>,
) -> Vec<Got> {
    let mut never = MessageCodec::default().with_threshold(usize::MAX);
    echo_with(&mut never, engine, chunks, out)
}

/// The same with a codec, so that the echoes may be compressed.
pub(crate) fn echo_with<'c>(
    codec: &mut MessageCodec,
    engine: &mut Connection,
    chunks: impl IntoIterator<Item = &'c [u8]>,
    out: &mut Vec<u8>,
) -> Vec<Got> {
    let mut got = Vec::new();
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut events = engine.receive_with(&mut chunk, codec);
        while let Some((event, mut sender)) = events.next_with_sender(out) {
            match event {
                Event::Text(text) => _ = sender.send_text(text, out),
                Event::Binary(bytes) => _ = sender.send_binary(bytes, out),
                _ => {}
            }
            got.push(event.into());
        }
    }
    got
}

/// Runs a fresh engine over `input` in one piece.
pub(crate) fn run(side: Side, input: &[u8]) -> (Vec<Got>, Vec<(u8, Vec<u8>)>) {
    let mut out = Vec::new();
    let got = echo(&mut side.engine(Limits::default()), [input], &mut out);
    (got, sent(&out))
}

/// The frames in an engine's output: first byte and unmasked payload. The naive way.
pub(crate) fn sent(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (len, rest) = match second & 0x7F {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => (
                u64::from_be_bytes(rest[..8].try_into().expect("eight")) as usize,
                &rest[8..],
            ),
            len => (usize::from(len), rest),
        };
        let (key, rest) = if second & 0x80 == 0 {
            ([0; 4], rest)
        } else {
            (rest[..4].try_into().expect("four"), &rest[4..])
        };
        let payload = rest[..len]
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[at % 4]);
        frames.push((*first, payload.collect()));
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty(), "output ends inside a header: {bytes:x?}");
    frames
}

/// Checks that the connection failed with `fault`, after `before`, and that the last frame sent is
/// a Close with the fault's code.
#[track_caller]
pub(crate) fn assert_fails(side: Side, input: &[u8], before: &[Got], fault: PeerFault, code: u16) {
    let (mut got, sent) = run(side, input);
    assert_eq!(got.pop(), Some(Got::Failed(fault)), "{side:?}");
    assert_eq!(got, before, "{side:?}");
    let (first, payload) = sent.last().expect("a Close frame");
    assert_eq!(*first, 0x88, "{side:?}");
    assert_eq!(payload[..2], code.to_be_bytes(), "{side:?}");
    assert!(std::str::from_utf8(&payload[2..]).is_ok_and(|reason| !reason.is_empty()));
}

pub(crate) fn text(text: &str) -> Got {
    Got::Text(text.to_owned())
}
