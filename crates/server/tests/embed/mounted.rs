//! A node inside an application of axum.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use tautline::{Client, ConnectEvent, ConnectReply, Handler, Node, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{config, run};
use crate::peer::Peer;

#[derive(Clone)]
struct User(String);

/// Takes the user from what a layer of the application found out.
struct BySession;

impl Handler for BySession {
    async fn on_connecting(
        &self,
        client: &Client,
        _: ConnectEvent,
    ) -> Result<ConnectReply, Refusal> {
        match client.request().extensions.get::<User>() {
            Some(User(name)) => Ok(ConnectReply::user(name)),
            None => Err(Refusal::error(401, "log in first")),
        }
    }
}

async fn who(mut request: Request, next: Next) -> Response {
    let name = request.headers().get("x-user");
    if let Some(name) = name.and_then(|name| name.to_str().ok()) {
        let user = User(name.to_owned());
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

/// Where the application listens.
async fn serve(node: &Node) -> String {
    let app = Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route_service("/connection/websocket", node.handle().websocket())
        .layer(middleware::from_fn(who));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address.to_string()
}

async fn request(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[test]
fn clients_come_by_the_applications_own_server() {
    run(async {
        let builder = Node::builder(config()).handler(BySession);
        let node = builder.without_listener().start().unwrap();
        assert_eq!(node.address(), None);
        let address = serve(&node).await;
        let url = format!("ws://{address}/connection/websocket");

        let mut peers = Vec::new();
        for number in 0..6 {
            let user = format!("user{number}");
            let mut peer = Peer::open(&url, &[("X-User", &user)]).await;
            let reply = peer.ask("connect", json!({})).await;
            assert!(reply["connect"].is_object(), "{reply}");
            peer.ask("subscribe", json!({"channel": "news"})).await;
            peers.push(peer);
        }
        assert_eq!(node.handle().info().await.num_users, 6);
        let publish = tautline::Publish {
            channel: "news".into(),
            data: "1".into(),
            ..tautline::Publish::default()
        };
        node.handle().publish(publish).await.unwrap();
        for peer in &mut peers {
            assert_eq!(peer.push("pub").await["data"], json!(1));
        }
        let mut stranger = Peer::open(&url, &[]).await;
        let reply = stranger.ask("connect", json!({})).await;
        assert_eq!(reply["error"]["code"], json!(401));

        node.shutdown().await;
        for peer in &mut peers {
            assert_eq!(peer.closed().await, 3001);
        }
        // The application serves on.
        assert!(
            request(&address, "GET /hello HTTP/1.1")
                .await
                .ends_with("hello")
        );
    });
}

#[test]
fn what_is_no_client_is_told_so() {
    run(async {
        let node = Node::builder(config()).without_listener().start().unwrap();
        let address = serve(&node).await;
        let plain = request(&address, "GET /connection/websocket HTTP/1.1").await;
        assert!(plain.starts_with("HTTP/1.1 426 "), "{plain}");
        let foreign = "GET /connection/websocket HTTP/1.1\r\nUpgrade: websocket\r\n\
                       Connection: upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Origin: https://evil.example";
        let foreign = request(&address, foreign).await;
        assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
    });
}
