//! What may be decided in code.

use std::future::{Future, ready};

use tautline_hub::application::{
    ConnectEvent, ConnectReply, DisconnectEvent, Interests, MessageEvent, PublishEvent,
    PublishReply, RefreshEvent, RefreshReply, Refusal, RpcEvent, RpcReply, SubRefreshEvent,
    SubscribeEvent, SubscribeReply, UnsubscribeEvent,
};
use tautline_protocol::message::Error;
use tautline_protocol::{Disconnect, ErrorCode};

use super::{ApiRpcEvent, Client, NodeHandle};

/// The application's side of a server: who comes in, and who may do what.
///
/// Every method has a default, which is what the server does by itself: what token and options allow is
/// allowed, nothing else is, and there are no methods to call. So an application writes what is different.
/// `permitted` of an event says what the default would do.
///
/// ```
/// use tautline::{Client, Handler, Refusal, RpcEvent, RpcReply};
/// use tautline::protocol::ErrorCode;
///
/// struct Clock;
///
/// impl Handler for Clock {
///     async fn on_rpc(&self, client: &Client, call: RpcEvent) -> Result<RpcReply, Refusal> {
///         match &*call.method {
///             "whoami" => Ok(format!("{:?}", client.user()).into()),
///             _ => Err(ErrorCode::MethodNotFound.into()),
///         }
///     }
/// }
/// ```
///
/// # Order
///
/// The commands of one connection are handled one after the other: the next is read once the handler of the
/// one before has returned. Calls (RPC) are the exception: up to
/// [`client.rpc_limit`](tautline_hub::config::ClientOptions::rpc_limit) of a connection run side by side, and may be answered in any order. Handlers of different connections run side by side,
/// on all workers.
///
/// # Where handlers run
///
/// On the worker that has the connection, on whose thread thousands of others live: a handler must not
/// block. One that is done without waiting for anything costs a call and no task. With
/// [`NodeBuilder::runtime`](super::NodeBuilder::runtime) all handlers run on a runtime of the
/// application's.
///
/// # Cancellation and patience
///
/// When the client goes, or when
/// [`timeout`](tautline_hub::application::ApplicationOptions::timeout) is over (the client then gets error
/// 100, which is temporary), the future of a handler is dropped at the point where it waits. What must not be
/// cut off there belongs into a task of its own. [`on_unsubscribe`](Self::on_unsubscribe) and
/// [`on_disconnect`](Self::on_disconnect) have nobody who could go, but the same time.
///
/// A handler that panics has the client get error 100; the server lives on.
pub trait Handler: Send + Sync + 'static {
    /// Which of the methods below are called; each costs something. Those which are left out are as if
    /// the default were called. Read once.
    fn interests(&self) -> Interests {
        Interests::ALL
    }

    /// A client wants to come in. The default leaves it to token and options.
    ///
    /// [`Client::user`] is the token's user here, or empty.
    fn on_connecting(
        &self,
        client: &Client,
        event: ConnectEvent,
    ) -> impl Future<Output = Result<ConnectReply, Refusal>> + Send {
        let _ = (client, event);
        ready(Ok(ConnectReply::default()))
    }

    /// A client has come in, and knows of it. Its next command waits until this returns.
    fn on_connect(&self, client: &Client) -> impl Future<Output = ()> + Send {
        let _ = client;
        ready(())
    }

    /// A client wants to subscribe to a channel whose namespace exists, with a token that is good if it has
    /// one.
    fn on_subscribe(
        &self,
        client: &Client,
        event: SubscribeEvent,
    ) -> impl Future<Output = Result<SubscribeReply, Refusal>> + Send {
        let _ = client;
        ready(if event.permitted {
            Ok(SubscribeReply::default())
        } else {
            Err(ErrorCode::PermissionDenied.into())
        })
    }

    /// A client wants to publish.
    fn on_publish(
        &self,
        client: &Client,
        event: PublishEvent,
    ) -> impl Future<Output = Result<PublishReply, Refusal>> + Send {
        let _ = client;
        ready(if event.permitted {
            Ok(PublishReply::AsSent)
        } else {
            Err(ErrorCode::PermissionDenied.into())
        })
    }

    /// A client calls a method. The default knows none: error 104.
    fn on_rpc(
        &self,
        client: &Client,
        call: RpcEvent,
    ) -> impl Future<Output = Result<RpcReply, Refusal>> + Send {
        let _ = (client, call);
        ready(Err(ErrorCode::MethodNotFound.into()))
    }

    /// The application's backend calls a method, by `POST /api/rpc` of the HTTP API, which is to say with an
    /// API key that allows it. `node` is what to publish with, and all the rest. The default knows no method:
    /// error 104.
    ///
    /// There is no client here: [`interests`](Self::interests) has no say, and the calls of one backend run
    /// side by side. When the backend hangs up, the future is dropped.
    fn on_api_rpc(
        &self,
        node: &NodeHandle,
        call: ApiRpcEvent,
    ) -> impl Future<Output = Result<RpcReply, Error>> + Send {
        let _ = (node, call);
        ready(Err(ErrorCode::MethodNotFound.into()))
    }

    /// A client has sent a message that expects no reply. The default ends the connection, with 3508.
    fn on_message(
        &self,
        client: &Client,
        message: MessageEvent,
    ) -> impl Future<Output = Result<(), Disconnect>> + Send {
        let _ = (client, message);
        ready(Err(Disconnect::NOT_AVAILABLE))
    }

    /// A connection has expired which the server is to prolong
    /// ([`RefreshBy::Server`](tautline_hub::application::RefreshBy)), or a client has come with a token where
    /// no keys are configured. The default has it end, with 3005.
    ///
    /// After a temporary error, and when there is no answer in time, the connection lives on for a minute;
    /// then this is called again.
    fn on_refresh(
        &self,
        client: &Client,
        event: RefreshEvent,
    ) -> impl Future<Output = Result<RefreshReply, Refusal>> + Send {
        let _ = (client, event);
        ready(Err(Disconnect::EXPIRED.into()))
    }

    /// The same for a subscription. The default has it end, with 2501.
    fn on_sub_refresh(
        &self,
        client: &Client,
        event: SubRefreshEvent,
    ) -> impl Future<Output = Result<RefreshReply, Refusal>> + Send {
        let _ = (client, event);
        ready(Err(ErrorCode::Expired.into()))
    }

    /// A subscription that had begun has ended, for whatever reason.
    fn on_unsubscribe(
        &self,
        client: &Client,
        event: UnsubscribeEvent,
    ) -> impl Future<Output = ()> + Send {
        let _ = (client, event);
        ready(())
    }

    /// A client that had come in has gone, for whatever reason.
    fn on_disconnect(
        &self,
        client: &Client,
        event: DisconnectEvent,
    ) -> impl Future<Output = ()> + Send {
        let _ = (client, event);
        ready(())
    }
}
