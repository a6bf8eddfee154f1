//! How a connection can go wrong.

use std::io;

use crate::proto::{Misuse, PeerFault};

/// Why a connection ended other than by a closing handshake, or why something could not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream ended without a closing handshake: a crash, a network that went away, or an
    /// impolite peer. What was sent last may not have arrived.
    #[error("the connection was cut off without a closing handshake")]
    CutOff,
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The caller asked for something that can't be sent. The connection is as it was.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The peer broke the protocol or a limit; it was told, with a Close frame.
    #[error("the peer broke the protocol: {0}")]
    Peer(#[from] PeerFault),
    /// The peer did not keep up with the messages of a [`Group`](super::Group) that disconnects
    /// slow members ([`SlowMember::Disconnect`](super::SlowMember::Disconnect)).
    #[error("the peer was too slow for the messages of a group, and was disconnected")]
    TooSlow,
    /// Nothing came from the peer for too long, not even an answer to a ping: see
    /// [`WebSocket::with_keep_alive`](super::WebSocket::with_keep_alive).
    #[error("nothing came from the peer any more, not even the answer to a ping")]
    PeerSilent,
    /// A Close frame was sent, and the peer did not end the connection in time.
    #[error("the peer did not finish closing in time")]
    TimedOut,
}
