//! The way of a publication, from where it was accepted to where it was written: a span for each worker that has somebody to
//! tell of it.
//!
//! Nothing of this is on that way. Behind the publication a *probe* is put into each worker's mailbox, which comes up when it has
//! been handed to the subscribers, and asks there for word when all that was queued before it is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::{Attribute, Finished, Kind, Telemetry, unix_time};

/// A call whose publications are followed, so many of them at the most.
#[derive(Clone)]
pub(crate) struct Followed {
    telemetry: Arc<Telemetry>,
    parent: Context,
}

/// One publication that is followed.
#[derive(Clone)]
pub struct Delivery {
    followed: Followed,
    channel: Arc<str>,
    start: Duration,
    begun: Instant,
}

impl Followed {
    pub(super) fn new(telemetry: Arc<Telemetry>, parent: Context) -> Self {
        Self { telemetry, parent }
    }

    /// A publication begins.
    pub(crate) fn publish(&self, channel: &str) -> Delivery {
        Delivery {
            followed: self.clone(),
            channel: channel.into(),
            start: unix_time(),
            begun: Instant::now(),
        }
    }
}

impl Delivery {
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// A worker has written it to so many subscribers, as far as their connections had room.
    pub(crate) fn written(&self, worker: usize, offset: Option<u64>, recipients: usize) {
        let Followed { telemetry, parent } = &self.followed;
        let Some(context) = telemetry.child(parent) else {
            return;
        };
        let mut numbers = vec![
            ("tautline.worker", worker as u64),
            ("tautline.recipients", recipients as u64),
        ];
        numbers.extend(offset.map(|offset| ("tautline.offset", offset)));
        telemetry.finish(Finished {
            context,
            parent: Some(parent.span()),
            name: "deliver".to_owned(),
            kind: Kind::Internal,
            start: self.start,
            took: self.begun.elapsed(),
            attributes: vec![Attribute("tautline.channel", self.channel.to_string())],
            numbers,
            error: None,
        });
    }
}

/// How many publications of one call are followed.
pub(crate) const MOST_FOLLOWED: usize = 16;
