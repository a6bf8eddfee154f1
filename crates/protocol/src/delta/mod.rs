//! Delta compression: a publication as a patch against the one before it.
//!
//! The format is that of the Fossil version control system, which all official SDKs apply:
//!
//! ```text
//! delta   = int(target length) "\n" { segment } int(checksum) ";"
//! segment = int(n) "@" int(offset) ","     copy n bytes of the base, from offset on
//!         | int(n) ":" n bytes             these bytes
//! ```
//!
//! Numbers are in base 64, the most significant digit first; the checksum is the sum of the target's
//! 32-bit big-endian words, the last one filled up with zeros.
//!
//! ```
//! use tautline_protocol::delta::{self, Encoder};
//!
//! let base = br#"{"device":"pump-7","status":"running","rpm":1200}"#;
//! let target = br#"{"device":"pump-7","status":"running","rpm":1250}"#;
//! let mut encoder = Encoder::default();
//! let patch = encoder.encode(base, target).expect("shorter than the target");
//! assert_eq!(patch, b"m\nj@0,3:50}1vu6Vd;");
//! assert_eq!(delta::apply(base, patch, 1024)?, target);
//! # Ok::<(), delta::DeltaError>(())
//! ```
//!
//! A patch of valid UTF-8 is valid UTF-8: none of its pieces begins or ends within a character. So
//! one patch serves JSON connections, where it has to be a string, and Protobuf connections alike;
//! [`Encoding::delta_data`](crate::Encoding::delta_data) gives it the form that each wants.

mod apply;
mod encode;

pub use apply::{DeltaError, apply};
pub use encode::Encoder;

/// The alphabet of numbers, in the order of the digits' values.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// The sum of the 32-bit big-endian words of `bytes`, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(4);
    let sum = words.by_ref().fold(0_u32, |sum, word| {
        sum.wrapping_add(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    });
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    sum.wrapping_add(u32::from_be_bytes(last))
}
