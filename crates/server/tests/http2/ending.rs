//! How connections end when the server does.

use serde_json::json;
use tautline_websocket::conn::ConnectOptions;
use tautline_websocket::conn::http2::{Http2Client, Http2Options};

use crate::client::Client;
use crate::process::Server;
use crate::{CONFIG, in_time};

/// Sessions are told one after the other, and each by its own connection: those whose turn has not come go on.
#[tokio::test]
async fn a_drain_says_goodbye_to_a_connection_with_its_session() {
    let config = format!("{CONFIG}\n[shutdown]\nreconnect_rate = 1\n");
    let server = Server::serve("http2-drain", &config);
    in_time(async {
        let well = Client::connect(&server).await;
        let url = format!("ws://{}/connection/websocket", server.address);
        let (options, http2) = (ConnectOptions::default(), Http2Options::default());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..5 {
            let client = Http2Client::connect(&url, &options, &http2).await.unwrap();
            let mut socket = client.open(&url, &options).await.unwrap().websocket;
            socket.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
            assert!(socket.recv().await.unwrap().is_some());
            let tell = tell.clone();
            tokio::spawn(async move {
                while socket.recv().await.unwrap().is_some() {}
                assert_eq!(socket.closed().unwrap().code.get(), 3001);
                // No more of it.
                while client.is_open().await {
                    tokio::task::yield_now().await;
                }
                tell.send(number).unwrap();
            });
        }
        server.signal("-TERM");
        let first = told.recv().await.unwrap();
        // Others are still there, and so is a connection without any session.
        assert!(well.number("node_num_clients").await > 0);
        let mut all = vec![first];
        while all.len() < 5 {
            all.push(told.recv().await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    })
    .await;
}

#[tokio::test]
async fn a_stop_ends_sessions_and_then_connections() {
    let mut server = Server::serve("http2-stop", CONFIG);
    in_time(async {
        let url = format!("ws://{}/connection/websocket", server.address);
        let options = ConnectOptions::default();
        let sockets = Http2Client::connect(&url, &options, &Http2Options::default())
            .await
            .unwrap();
        let mut socket = sockets.open(&url, &options).await.unwrap().websocket;
        socket.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
        assert!(socket.recv().await.unwrap().is_some());
        let client = Client::connect(&server).await;
        let mut lines = client.get("/lines?channel=c").await;
        assert_eq!(lines.message().await["event"], "subscribed");
        server.signal("-TERM");
        assert_eq!(
            lines.message().await,
            json!({"event": "end", "code": 3001, "reason": "shutdown"})
        );
        assert_eq!(lines.end().await, Ok(()));
        while socket.recv().await.unwrap().is_some() {}
        assert_eq!(socket.closed().unwrap().code.get(), 3001);
        drop(socket);
        // In order, with a GOAWAY.
        client.connection.await.unwrap().unwrap();
        while sockets.is_open().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(server.wait().success());
}
