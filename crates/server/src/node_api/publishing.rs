//! How what was published by a call of the server API is followed to where it is written.

use std::sync::Arc;

use crate::telemetry::Delivery;
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
