//! How much a message may grow when it is inflated, and what happens when it would.

use thiserror::Error;

/// How far a message may be inflated beyond its ratio: small messages compress by factors that
/// would look absurd in large ones.
const RATIO_GRACE: usize = 64 * 1024;

/// How much a message may grow when it is inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// Bytes of the inflated message.
    pub max_size: usize,
    /// Inflated bytes for each compressed byte, over the first 64 KiB. Deflate reaches 1,032.
    pub max_ratio: usize,
}

impl Default for InflateLimits {
    /// 64 MiB, and 200 to one.
    fn default() -> Self {
        Self {
            max_size: 64 << 20,
            max_ratio: 200,
        }
    }
}

impl InflateLimits {
    /// How many bytes a message of `compressed` bytes may inflate to.
    pub(crate) fn most(&self, compressed: usize) -> usize {
        let by_ratio = compressed
            .saturating_mul(self.max_ratio)
            .saturating_add(RATIO_GRACE);
        self.max_size.min(by_ratio)
    }

    /// What to say to a message that inflates to `size` bytes, more than [`most`](Self::most).
    pub(crate) fn error(&self, size: usize) -> InflateError {
        if size > self.max_size {
            InflateError::TooLarge { max: self.max_size }
        } else {
            InflateError::RatioTooHigh {
                max: self.max_ratio,
            }
        }
    }
}

/// Why a message could not be inflated. The connection has to fail: its context is lost.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InflateError {
    /// The bytes are not a deflate stream, or refer to more than the window holds.
    #[error("the message is not valid deflate data, or refers to bytes beyond the agreed window")]
    Corrupt,
    /// The message ends inside a deflate block: some of it is missing.
    #[error("the message ends inside a deflate block, so some of it is missing")]
    CutOff,
    /// The message would be larger than [`InflateLimits::max_size`].
    #[error("the message inflates to more than the limit of {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// The message grows more than [`InflateLimits::max_ratio`] allows.
    #[error("the message inflates to more than {max} times its compressed size")]
    RatioTooHigh {
        /// The limit.
        max: usize,
    },
}
