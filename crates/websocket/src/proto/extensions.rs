//! What was negotiated beyond RFC 6455 itself.

/// The extensions in use on a connection (RFC 6455 §9): what the handshake agreed on, and what the
/// engine therefore lets pass. None are implemented yet, so the only value is the empty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    _none: (),
}

impl Extensions {
    /// No extensions.
    pub const NONE: Self = Self { _none: () };

    /// The reserved bits to which the extensions give a meaning, in the form of
    /// [`FrameHeader::reserved`](super::FrameHeader::reserved).
    pub const fn reserved_bits(self) -> u8 {
        0
    }
}
