//! What can be wrong with a filter.

use crate::json::brief;
use crate::protobuf;

/// Why a filter is refused. All of these answer a subscribe command with
/// [`ErrorCode::BadRequest`](crate::ErrorCode::BadRequest).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// More bytes than [`max_size`](super::FilterLimits::max_size).
    #[error("a filter of {found} bytes; at most {limit} are taken")]
    TooLarge {
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Deeper than [`max_depth`](super::FilterLimits::max_depth).
    #[error("a filter of more than {limit} levels of nodes")]
    TooDeep {
        /// How many there may be.
        limit: usize,
    },
    /// More than [`max_nodes`](super::FilterLimits::max_nodes).
    #[error("a filter of more than {limit} nodes; `in` compares with many values at once")]
    TooManyNodes {
        /// How many there may be.
        limit: usize,
    },
    /// More than [`max_values`](super::FilterLimits::max_values).
    #[error("a filter with more than {limit} values in its lists")]
    TooManyValues {
        /// How many there may be.
        limit: usize,
    },
    /// Not JSON, or a field of another type than the protocol says.
    #[error("not a filter: {}", brief(.0))]
    Syntax(#[source] serde_json::Error),
    /// Not a Protobuf message, or a field of another type than the protocol says.
    #[error("not a filter: {0}")]
    Wire(#[source] protobuf::DecodeError),
    /// An `op` that nobody knows.
    #[error("unknown op \"{0}\"; expected \"and\", \"or\", \"not\", or none for a comparison")]
    UnknownOp(String),
    /// An `and` or `or` over nothing.
    #[error("\"{op}\" without nodes; it takes at least one")]
    NoNodes {
        /// `and` or `or`.
        op: &'static str,
    },
    /// A `not` that doesn't stand before exactly one node.
    #[error("\"not\" with {found} nodes; it takes exactly one")]
    NotOne {
        /// How many there are.
        found: usize,
    },
    /// A leaf without a `cmp`.
    #[error("a comparison without cmp; branches have an op, comparisons a cmp")]
    NoComparison,
    /// A `cmp` that nobody knows.
    #[error(
        "unknown cmp \"{0}\"; expected eq, neq, in, nin, ex, nex, sw, ew, ct, gt, gte, lt or lte"
    )]
    UnknownComparison(String),
    /// A comparison that doesn't say of which tag.
    #[error("\"{cmp}\" without a key: name the tag that is compared")]
    NoKey {
        /// The comparison.
        cmp: &'static str,
    },
    /// A comparison with the wrong operands.
    #[error("\"{cmp}\" takes {expected}")]
    Operands {
        /// The comparison.
        cmp: &'static str,
        /// What it takes.
        expected: &'static str,
    },
}

impl FilterError {
    /// Whether the filter is larger than the [limits](super::FilterLimits) allow, and may be right otherwise.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::TooDeep { .. }
                | Self::TooManyNodes { .. }
                | Self::TooManyValues { .. }
        )
    }
}
