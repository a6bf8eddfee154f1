//! The real-time side: a shared list, changed by calls, seen by all.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::json;
use tautline::{
    Client, ConnectEvent, ConnectReply, ErrorCode, Handler, Interests, Publish, Refusal, RpcEvent,
    RpcReply,
};

use crate::app::User;

/// Where the list is published when it has changed.
pub(crate) const CHANNEL: &str = "list:shopping";

/// Longest list.
const MOST: usize = 100;

#[derive(Default)]
pub(crate) struct Live {
    items: Mutex<Vec<String>>,
}

impl Handler for Live {
    /// Nothing else: what clients subscribe to is what `on_connecting` gives them, and they don't publish.
    fn interests(&self) -> Interests {
        Interests::CONNECTING | Interests::RPC
    }

    async fn on_connecting(
        &self,
        client: &Client,
        _: ConnectEvent,
    ) -> Result<ConnectReply, Refusal> {
        // What the application's layer has found out.
        let Some(User(name)) = client.request().extensions.get() else {
            return Err(Refusal::error(401, "log in first"));
        };
        Ok(ConnectReply {
            info: Some(json!({"name": name}).to_string().into()),
            // What the page shows first. What changes from now on comes by the channel.
            data: Some(json!(*self.items()).to_string().into()),
            ..ConnectReply::user(name).subscribe(CHANNEL)
        })
    }

    async fn on_rpc(&self, client: &Client, call: RpcEvent) -> Result<RpcReply, Refusal> {
        match &*call.method {
            "add" => {
                let data = call.data.as_deref().unwrap_or_default();
                let Item { text } = serde_json::from_slice(data)
                    .map_err(|_| Refusal::error(400, r#"expected {"text":"…"}"#))?;
                self.change(client, |items| {
                    if items.len() >= MOST {
                        return Err(Refusal::error(409, "the list is full"));
                    }
                    items.push(text);
                    Ok(())
                })
                .await
            }
            "clear" => {
                self.change(client, |items| {
                    items.clear();
                    Ok(())
                })
                .await
            }
            _ => Err(ErrorCode::MethodNotFound.into()),
        }
    }
}

#[derive(Deserialize)]
struct Item {
    text: String,
}

impl Live {
    /// Changes the list, shows it to everybody, and returns how long it is.
    async fn change(
        &self,
        client: &Client,
        change: impl FnOnce(&mut Vec<String>) -> Result<(), Refusal>,
    ) -> Result<RpcReply, Refusal> {
        let (count, published) = {
            let mut items = self.items();
            change(&mut items)?;
            let publish = Publish {
                channel: CHANNEL.into(),
                data: json!({"items": *items, "by": client.user()})
                    .to_string()
                    .into(),
                ..Publish::default()
            };
            // Begun under the lock, so that lists are published in the order in which they came to be; what
            // is waited for, without the lock, is only how it went.
            (items.len(), client.node().publish(publish))
        };
        // An error of the node's is the caller's too: temporary, so it may try again.
        published.await?;
        Ok(json!({"count": count}).to_string().into())
    }

    fn items(&self) -> MutexGuard<'_, Vec<String>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
