//! How what was published, by a call of the server API or by a client, is followed to where it is written.

use std::sync::Arc;

use tautline_hub::Now;
use tautline_hub::watch::{PublishWatch, TraceParent, WatchedPublish};
use tautline_protocol::message::ClientInfo;

use crate::telemetry::{Delivery, Publication, Sampler, Telemetry};
use crate::worker::thread::Shared;

/// Finds out, for each worker that has subscribers of the channel, when a publication that was made just now is written.
pub(super) fn probe(shared: &Arc<Shared>, delivery: &Delivery, offset: Option<u64>) {
    for (index, mailbox) in shared.mailboxes.iter().enumerate() {
        let delivery = delivery.clone();
        mailbox.call(Box::new(move |_, state| {
            // It was handed to them, and is written in the next round.
            let recipients = state.hub.channel_size(delivery.channel());
            if recipients > 0 {
                state.when_written(Box::new(move |_, _| {
                    delivery.written(index, offset, recipients);
                }));
            }
        }));
    }
}

/// Follows what clients of a worker publish, as far as traces go.
struct Watch {
    sampler: Sampler,
    shared: Arc<Shared>,
}

/// One publication of a client that is followed.
struct Watched {
    publication: Publication,
    shared: Arc<Shared>,
}

/// What a worker's hub has for that; `None` where there are no traces, or none that begin here.
pub(crate) fn watch(
    telemetry: Option<&Arc<Telemetry>>,
    shared: &Arc<Shared>,
) -> Option<Box<dyn PublishWatch>> {
    let sampler = telemetry.and_then(Sampler::new)?;
    let shared = Arc::clone(shared);
    Some(Box::new(Watch { sampler, shared }))
}

impl PublishWatch for Watch {
    fn begin(
        &mut self,
        now: Now,
        client: &ClientInfo,
        channel: &Arc<str>,
    ) -> Option<Box<dyn WatchedPublish>> {
        let began = self.sampler.begin(now.monotonic, &client.client, channel);
        let (publication, shared) = (began?, Arc::clone(&self.shared));
        Some(Box::new(Watched {
            publication,
            shared,
        }))
    }
}

impl WatchedPublish for Watched {
    fn trace(&self) -> Option<TraceParent> {
        self.publication.trace()
    }

    fn published(&mut self, offset: Option<u64>) {
        let delivery = self.publication.accepted(offset);
        probe(&self.shared, &delivery, offset);
    }

    fn refused(&mut self, code: u32) {
        self.publication.refused(code);
    }
}
