//! What is published by calls of the server API, and how that is followed to where it is written.

use std::sync::Arc;

use tautline_hub::{ApiPublish, Now};

use crate::http::node::Publish;
use crate::telemetry::Delivery;
use crate::worker::State;
use crate::worker::thread::Shared;

/// As the hub has it.
pub(super) fn api_publish(request: Publish) -> ApiPublish {
    let Publish {
        channel,
        data,
        tags,
        idempotency_key,
        skip_history,
        delta,
        version,
        version_epoch,
        exclude_client,
    } = request;
    let idempotency_key = Some(idempotency_key).filter(|key| !key.is_empty());
    ApiPublish {
        channel,
        data,
        tags,
        idempotency_key,
        skip_history,
        delta,
        version,
        version_epoch,
        exclude_client,
    }
}

/// Finds out, for each worker that has subscribers of the channel, when a publication that was made just now is written.
pub(super) fn probe(shared: &Arc<Shared>, delivery: &Delivery, offset: Option<u64>) {
    for (index, mailbox) in shared.mailboxes.iter().enumerate() {
        let (again, delivery) = (Arc::clone(mailbox), delivery.clone());
        mailbox.call(Box::new(move |_, state| {
            // It was handed to them, and is written at the end of this round.
            let recipients = state.hub.channel_size(delivery.channel());
            if recipients > 0 {
                let written = move |_: Now, _: &mut State| {
                    delivery.written(index, offset, recipients);
                };
                again.call(Box::new(written));
            }
        }));
    }
}
