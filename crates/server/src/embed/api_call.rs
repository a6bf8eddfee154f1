//! Calls of the application's backend (`POST /api/rpc`) that a handler answers.

use serde::de::IgnoredAny;
use tautline_hub::application::RpcReply;
use tautline_protocol::ErrorCode;
use tautline_protocol::message::{Error, Payload};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local};

use super::NodeHandle;
use super::desk::Handlers;
use crate::http::api::explained;

/// A call of a method by the application's backend, over the HTTP API.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ApiRpcEvent {
    /// The method's name, never empty.
    pub method: String,
    /// Its parameters: one JSON value, as it was sent.
    pub params: Option<Payload>,
}

/// The handlers of a node as its HTTP API sees them.
pub(crate) struct ApiCalls {
    handlers: Handlers,
    /// How many more may be at work.
    free: Semaphore,
    most: usize,
}

impl ApiCalls {
    /// `workers` of them share the limit on handlers at work.
    pub(crate) fn new(handlers: Handlers, workers: usize) -> Self {
        let most = handlers.options.max_in_flight.saturating_mul(workers);
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            handlers,
            free: Semaphore::new(most),
            most,
        }
    }

    /// Has the handler answer. On a worker's thread.
    ///
    /// # Errors
    ///
    /// The handler's own; 111 when too many are at work; 100 when it panics, takes too long, or answers
    /// with what isn't JSON.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler's where it waits.
    pub(crate) async fn answer(
        &self,
        node: NodeHandle,
        method: String,
        params: Option<Payload>,
    ) -> Result<Option<Payload>, Error> {
        let Ok(_at_work) = self.free.try_acquire() else {
            let most = self.most;
            let why = format!(
                "{most} handlers are at work for the API, as many as there may be (max_in_flight of the handlers' \
                 options); make fewer calls at a time, or try again later"
            );
            return Err(explained(ErrorCode::TooManyRequests, why));
        };
        let call = ApiRpcEvent { method, params };
        let handler = self.handlers.handler.clone();
        let answering = handler.answer_api(node, call);
        // A task of its own, whose panic is its own.
        let mut task = Task(match &self.handlers.runtime {
            Some(runtime) => runtime.spawn(answering),
            None => spawn_local(answering),
        });
        let timeout = self.handlers.options.timeout;
        let RpcReply { data } = match tokio::time::timeout(timeout, &mut task.0).await {
            Ok(Ok(reply)) => reply?,
            // The panic hook has told of it.
            Ok(Err(_)) => return Err(ErrorCode::Internal.into()),
            Err(_) => {
                tracing::warn!(
                    ?timeout,
                    "a handler had no answer in time to a call of the API"
                );
                return Err(ErrorCode::Internal.into());
            }
        };
        if let Some(data) = &data
            && let Err(error) = serde_json::from_slice::<IgnoredAny>(data)
        {
            tracing::error!(%error, "a handler has answered a call of the API with what isn't JSON");
            return Err(ErrorCode::Internal.into());
        }
        Ok(data)
    }
}

/// A task that ends with whoever waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
