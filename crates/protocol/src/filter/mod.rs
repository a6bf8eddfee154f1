//! Tags filters: which of a channel's publications a subscriber wants.
//!
//! A filter is a tree. Its leaves compare one tag, its branches are `and`, `or` and `not`:
//!
//! ```
//! use std::collections::BTreeMap;
//! use tautline_protocol::filter::{FilterLimits, RawFilter};
//!
//! let raw = RawFilter::Json(
//!     r#"{"op":"and","nodes":[
//!         {"key":"sym","cmp":"in","vals":["A","B"]},
//!         {"key":"px","cmp":"gte","val":"10.5"}]}"#,
//! );
//! let filter = raw.parse(&FilterLimits::default())?;
//! let tags = |px: &str| BTreeMap::from([("sym".into(), "A".into()), ("px".into(), px.into())]);
//! assert!(filter.matches(&tags("10.50")));
//! assert!(!filter.matches(&tags("9.99")));
//! # Ok::<(), tautline_protocol::filter::FilterError>(())
//! ```
//!
//! | `cmp` | true when the tag |
//! |---|---|
//! | `eq`, `neq` | is there and equals `val`; isn't there, or is something else |
//! | `in`, `nin` | is one of `vals`; isn't. A tag that isn't there counts as the empty string |
//! | `ex`, `nex` | is there; isn't |
//! | `sw`, `ew`, `ct` | is there, and starts with, ends with, contains `val` |
//! | `gt`, `gte`, `lt`, `lte` | is there and is a decimal number, as `val` is, and compares so |
//!
//! Numbers are an optional sign, digits, and optionally a point with digits behind it: of any length,
//! compared exactly.
//!
//! Parsing does the work: what is parsed is within its limits, and matching neither fails nor
//! allocates.

mod error;
mod number;
mod parse;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::FilterError;
use number::Decimal;

/// A filter as it came in a subscribe request, not looked into yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawFilter<'a> {
    /// The text of a JSON value.
    Json(&'a str),
    /// A Protobuf message.
    Protobuf(Cow<'a, [u8]>),
}

/// How large a filter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterLimits {
    /// Bytes of the filter as it was sent. What is kept of it takes about as many, and a little for
    /// each node and value.
    pub max_size: usize,
    /// Levels of nodes; a single comparison is one.
    pub max_depth: usize,
    /// Comparisons and branches.
    pub max_nodes: usize,
    /// Entries of the lists of all `in` and `nin` comparisons together.
    pub max_values: usize,
}

impl Default for FilterLimits {
    /// 4096 bytes, 8 levels, 64 nodes and 256 values.
    fn default() -> Self {
        Self {
            max_size: 4096,
            max_depth: 8,
            max_nodes: 64,
            max_values: 256,
        }
    }
}

/// A filter that is ready to be asked. Clones share it.
///
/// Two filters are equal if they were written in the same way (but for the order and repetition of
/// `vals`), so that one can be kept for all who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter(Arc<Node>);

impl Filter {
    /// Whether a publication with these tags passes.
    pub fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        self.0.matches(tags)
    }

    /// What passes both filters: how a filter that is imposed by the server is narrowed by one that
    /// the client asked for. Whatever the other is, nothing passes that `self` doesn't let through.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        if self == other {
            return self.clone();
        }
        Self(Arc::new(Node::Both(self.clone(), other.clone())))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Node {
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Not(Box<Node>),
    /// Two filters of their own.
    Both(Filter, Filter),
    Leaf(Box<str>, Comparison),
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Comparison {
    Equal(Box<str>),
    NotEqual(Box<str>),
    /// Sorted.
    In(Box<[Box<str>]>),
    /// Sorted.
    NotIn(Box<[Box<str>]>),
    Exists,
    NotExists,
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Number(Relation, Decimal),
    /// With what is no number, nothing compares.
    Never,
}

/// A relation of a tag to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Relation {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Node {
    /// Recurses as deep as a filter may be.
    fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(tags)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(tags)),
            Self::Not(node) => !node.matches(tags),
            Self::Both(first, second) => first.matches(tags) && second.matches(tags),
            Self::Leaf(key, comparison) => comparison.matches(tags.get(&**key).map(String::as_str)),
        }
    }
}

impl Comparison {
    fn matches(&self, tag: Option<&str>) -> bool {
        match self {
            Self::Equal(value) => tag == Some(value),
            Self::NotEqual(value) => tag != Some(value),
            Self::In(values) => contains(values, tag.unwrap_or_default()),
            Self::NotIn(values) => !contains(values, tag.unwrap_or_default()),
            Self::Exists => tag.is_some(),
            Self::NotExists => tag.is_none(),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(&**value)),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(&**value)),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(&**value)),
            Self::Number(relation, value) => tag
                .and_then(|tag| value.compared_to(tag))
                .is_some_and(|ordering| relation.includes(ordering.reverse())),
            Self::Never => false,
        }
    }
}

impl Relation {
    fn includes(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

fn contains(sorted: &[Box<str>], value: &str) -> bool {
    sorted
        .binary_search_by(|entry| (**entry).cmp(value))
        .is_ok()
}
