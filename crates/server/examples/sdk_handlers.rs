//! The server for the tests of SDKs that need code behind it: `cargo xtask test sdk` starts it. By hand:
//!
//! ```text
//! cargo run --release -p tautline --example sdk_handlers -- 127.0.0.1:8002
//! ```

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tautline::{
    Client, Config, ConnectEvent, ConnectReply, Disconnect, ErrorCode, Handler, MessageEvent, Node,
    PublishEvent, PublishInstead, PublishReply, RefreshBy, RefreshEvent, RefreshReply, Refusal,
    RpcEvent, RpcReply, SubscribeEvent, SubscribeReply,
};

const CONFIG: &str = r#"
    [client]
    allow_anonymous_connect_without_token = true

    [channel.without_namespace]
    presence = true
    allow_subscribe_for_client = true
    allow_subscribe_for_anonymous = true
    allow_publish_for_client = true
    allow_publish_for_anonymous = true
"#;

/// What a client says in the data of its connect command.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Introduction {
    user: String,
    /// Refuse it with an error of this code.
    error: Option<u32>,
    /// Refuse it with a disconnect of this code.
    disconnect: Option<u32>,
    /// The connection expires so soon, and the server prolongs it once.
    seconds: Option<u64>,
}

struct ForTests;

impl Handler for ForTests {
    async fn on_connecting(
        &self,
        _: &Client,
        event: ConnectEvent,
    ) -> Result<ConnectReply, Refusal> {
        let data = event.data.unwrap_or_default();
        let who: Introduction = serde_json::from_slice(&data).unwrap_or_default();
        // As long as a look into a database takes.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if let Some(code) = who.error {
            return Err(Refusal::error(code, "not today"));
        }
        if let Some(code) = who.disconnect {
            return Err(Refusal::disconnect(code, "go away"));
        }
        Ok(ConnectReply {
            data: Some(r#"{"welcome":true}"#.into()),
            info: Some(r#"{"by":"handler"}"#.into()),
            expire_at: who.seconds.map(in_seconds),
            refresh: RefreshBy::Server,
            meta: Some("0".into()),
            ..ConnectReply::user(who.user)
        })
    }

    async fn on_subscribe(
        &self,
        _: &Client,
        event: SubscribeEvent,
    ) -> Result<SubscribeReply, Refusal> {
        if event.channel.starts_with("members") {
            return Err(Refusal::error(403, "members only"));
        }
        Ok(SubscribeReply {
            data: event.data,
            ..SubscribeReply::default()
        })
    }

    async fn on_publish(&self, _: &Client, event: PublishEvent) -> Result<PublishReply, Refusal> {
        match &*event.data {
            br#""forbidden""# => Err(ErrorCode::PermissionDenied.into()),
            br#""nothing""# => Ok(PublishReply::Done),
            br#""change""# => Ok(PublishReply::Instead(PublishInstead {
                data: Some(r#""changed""#.into()),
                ..PublishInstead::default()
            })),
            _ => Ok(PublishReply::AsSent),
        }
    }

    async fn on_rpc(&self, client: &Client, call: RpcEvent) -> Result<RpcReply, Refusal> {
        match &*call.method {
            "echo" => Ok(RpcReply { data: call.data }),
            "whoami" => Ok(serde_json::json!(client.user()).to_string().into()),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(r#""slow""#.into())
            }
            "error" => Err(Refusal::error(1000, "no such thing")),
            "temporary" => Err(Refusal::temporary(1001, "later")),
            "kick" => Err(Refusal::disconnect(4501, "enough")),
            _ => Err(ErrorCode::MethodNotFound.into()),
        }
    }

    async fn on_message(&self, client: &Client, message: MessageEvent) -> Result<(), Disconnect> {
        client.send(message.data);
        Ok(())
    }

    /// Prolongs a connection by a second, and then lets it go.
    async fn on_refresh(&self, client: &Client, _: RefreshEvent) -> Result<RefreshReply, Refusal> {
        if client.meta().is_some_and(|meta| *meta == "1") {
            return Err(Disconnect::EXPIRED.into());
        }
        Ok(RefreshReply {
            expire_at: Some(in_seconds(1)),
            meta: Some("1".into()),
            ..RefreshReply::default()
        })
    }
}

/// Never less than asked for: Unix time has whole seconds.
fn in_seconds(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs() + 1 + seconds
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .ok_or("usage: sdk_handlers ADDRESS:PORT")?;
    let mut config = Config::from_toml(CONFIG)?;
    config.listen = address.parse::<SocketAddr>()?;
    Node::builder(config)
        .handler(ForTests)
        .start()?
        .run()
        .await?;
    Ok(())
}
