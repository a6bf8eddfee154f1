//! What was negotiated beyond RFC 6455 itself.

#[cfg(feature = "deflate")]
use super::deflate::Agreement;
use super::deflate::Direction;

/// RSV1 in the form of [`FrameHeader::reserved`](super::FrameHeader::reserved): the message is
/// compressed (RFC 7692 §6).
pub(super) const RSV1: u8 = 0b100;

/// The extensions in use on a connection (RFC 6455 §9): what the handshake agreed on, and what the
/// engine therefore lets pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    #[cfg(feature = "deflate")]
    deflate: Option<Agreement>,
    #[cfg(not(feature = "deflate"))]
    _none: (),
}

impl Extensions {
    /// No extensions.
    pub const NONE: Self = Self {
        #[cfg(feature = "deflate")]
        deflate: None,
        #[cfg(not(feature = "deflate"))]
        _none: (),
    };

    /// permessage-deflate, as agreed.
    ///
    /// # Panics
    ///
    /// When a window of the agreement doesn't have 8 to 15 bits. In one that was negotiated they
    /// all have, as long as the configuration had.
    #[cfg(feature = "deflate")]
    pub const fn deflate(agreement: Agreement) -> Self {
        assert!(
            matches!(agreement.server_max_window_bits, 8..=15)
                && matches!(agreement.client_max_window_bits, 8..=15),
            "window bits are 8 to 15"
        );
        Self {
            deflate: Some(agreement),
        }
    }

    /// What was agreed on permessage-deflate, `None` when it isn't in use.
    #[cfg(feature = "deflate")]
    #[inline]
    pub const fn deflate_agreement(self) -> Option<Agreement> {
        self.deflate
    }

    /// The reserved bits to which the extensions give a meaning, in the form of
    /// [`FrameHeader::reserved`](super::FrameHeader::reserved).
    //= rfc6455 5.2-1
    pub const fn reserved_bits(self) -> u8 {
        #[cfg(feature = "deflate")]
        if self.deflate.is_some() {
            return RSV1;
        }
        0
    }

    /// How the messages of the server, or of the client, may be compressed.
    //= rfc7692 5-6
    #[inline]
    pub(super) fn messages_of(self, server: bool) -> Option<Direction> {
        #[cfg(feature = "deflate")]
        return self
            .deflate
            .map(|agreement| Direction::of(agreement, server));
        #[cfg(not(feature = "deflate"))]
        {
            let _ = server;
            None
        }
    }
}
