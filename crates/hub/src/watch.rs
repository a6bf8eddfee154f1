//! Who wants to know what becomes of some of the publications of clients, such as a tracer.
//!
//! Unlike a [`Witness`](crate::witness::Witness), who is told of everything that is over, a [`PublishWatch`] chooses when something
//! begins, and is then told how that one went. A hub without one pays a branch for a publication, and so does one for
//! each publication that isn't chosen.

use std::fmt;
use std::sync::Arc;

use tautline_protocol::message::ClientInfo;

use crate::Now;

/// Chooses among the publications that clients of one hub make.
pub trait PublishWatch {
    /// A client publishes into a channel, and may: before the application is asked, if it is, and before the engine has it.
    /// `None` for those of which nothing more is of interest. Must return at once.
    fn begin(
        &mut self,
        now: Now,
        client: &ClientInfo,
        channel: &Arc<str>,
    ) -> Option<Box<dyn WatchedPublish>>;
}

/// A publication that was chosen. Dropped when it is over, whatever became of it; with no word before that if the application has
/// dealt with it by itself, or the client has gone meanwhile.
pub trait WatchedPublish {
    /// The trace that it is in, and its place there: for an application that is asked whether it may be
    /// ([`PublishEvent::trace`](crate::application::PublishEvent::trace)).
    fn trace(&self) -> Option<TraceParent> {
        None
    }

    /// The engine has it, at this offset if the channel has a history. Mailboxes of workers that have subscribers
    /// had it just before.
    fn published(&mut self, offset: Option<u64>);

    /// It was refused; the client is told this code.
    fn refused(&mut self, code: u32);
}

/// What goes from one to the next of a trace (W3C Trace Context, section 3.2). Written out, it is the field `traceparent`
/// of a request that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span whose children begin here.
    pub parent_id: [u8; 8],
    /// Whether it is kept.
    pub is_sampled: bool,
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.parent_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(if self.is_sampled { "-01" } else { "-00" })
    }
}
