//! Publishing the same into many channels.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::{write_error, write_publish_result};
use crate::http::node::{Node, Publish};

/// How many publications are under way at a time. Between two lots, other work of the thread has
/// its turn.
const AT_ONCE: usize = 1024;

/// Publishes everything, and writes one response each, in the same order. Failures stay with
/// their channel: the call as a whole succeeds.
pub(super) async fn publish_all<N: Node>(
    node: &N,
    publishes: impl Iterator<Item = Publish>,
) -> Vec<u8> {
    let mut publishes = publishes.peekable();
    let mut out = br#"{"result":{"responses":["#.to_vec();
    let mut first = true;
    while publishes.peek().is_some() {
        let lot = publishes
            .by_ref()
            .take(AT_ONCE)
            .map(|publish| node.publish(publish));
        for outcome in join_all(lot).await {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            match outcome {
                Ok(position) => write_publish_result(position.as_ref(), &mut out),
                Err(error) => write_error(&error, &mut out),
            }
        }
        tokio::task::yield_now().await;
    }
    out.extend_from_slice(b"]}}");
    out
}

/// Runs all futures at once; their outputs, in their order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    enum Slot<F: Future> {
        Waiting(Pin<Box<F>>),
        Done(F::Output),
    }
    let mut slots: Vec<_> = futures
        .map(|future| Slot::Waiting(Box::pin(future)))
        .collect();
    poll_fn(|context| {
        let mut waiting = false;
        for slot in &mut slots {
            if let Slot::Waiting(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Done(output),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    let outputs = slots.into_iter().filter_map(|slot| match slot {
        Slot::Done(output) => Some(output),
        Slot::Waiting(_) => None,
    });
    outputs.collect()
}
