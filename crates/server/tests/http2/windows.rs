//! Windows that never open: what is said to such a client waits, and has a limit.

use h2::client::Builder;
use serde_json::json;

use crate::client::Client;
use crate::process::Server;
use crate::{CONFIG, in_time};

/// A client that takes not a byte of any body.
async fn without_a_window(server: &Server) -> Client {
    Client::connect_with(server, Builder::new().initial_window_size(0)).await
}

#[tokio::test]
async fn answers_that_nobody_takes() {
    in_time(async {
        let server = Server::serve("http2-no-window", CONFIG);
        let well = Client::connect(&server).await;
        let data = "x".repeat(60_000);
        for _ in 0..8 {
            let body = json!({"channel": "c", "data": data}).to_string();
            assert_eq!(well.post("/api/publish", &body).await.status, 200);
        }
        let client = without_a_window(&server).await;
        let mut answers = Vec::new();
        for _ in 0..100 {
            answers.push(client.get("/history?channel=c&limit=8").await);
        }
        let status = |status| {
            answers
                .iter()
                .filter(|answer| answer.status == status)
                .count()
        };
        let (whole, refused) = (status(200), status(503));
        assert_eq!(whole + refused, 100);
        // Each has nearly half a MiB, and there is room for 16.
        assert!((20..=80).contains(&whole), "{whole}");
        // Another connection doesn't notice, and neither does this one when there is room again.
        assert_eq!(well.get("/history?channel=c&limit=8").await.status, 200);
        answers.clear();
        while client.get("/history?channel=c&limit=8").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The stream is given up after a while, and what waited for it is gone; the connection goes on.
#[tokio::test]
async fn answers_of_which_nothing_is_taken_are_given_up() {
    in_time(async {
        let config = format!("write_timeout = \"1s\"\n{CONFIG}");
        let server = Server::serve("http2-stalled", &config);
        let client = without_a_window(&server).await;
        let mut answer = client.get("/health").await;
        assert_eq!(answer.status, 200);
        assert!(answer.end().await.is_err());
        let well = Client::connect(&server).await;
        let dropped = r#"connections_dropped_total{reason="answer"}"#;
        well.number_becomes(dropped, 1).await;
        // Who listens to what has nothing to say is left alone, for longer than others are waited for.
        let quiet = client.get("/lines?channel=live:quiet").await;
        let mut answer = client.get("/health").await;
        assert!(answer.end().await.is_err());
        well.number_becomes(dropped, 2).await;
        well.number_becomes("node_num_clients", 1).await;
        drop(quiet);
    })
    .await;
}

/// A session whose client gives no room is a slow reader, as behind a socket.
#[tokio::test]
async fn sessions_that_nobody_reads() {
    in_time(async {
        let server = Server::serve("http2-slow", CONFIG);
        let well = Client::connect(&server).await;
        let client = without_a_window(&server).await;
        let mut stream = client.get("/lines?channel=live:a").await;
        assert_eq!(stream.status, 200);
        let before = well
            .number(r#"client_num_server_disconnects{code="3008"}"#)
            .await;
        well.number_becomes("node_num_clients", 1).await;
        let data = "x".repeat(60_000);
        for _ in 0..40 {
            let body = json!({"channel": "live:a", "data": data}).to_string();
            assert_eq!(well.post("/api/publish", &body).await.status, 200);
        }
        well.number_becomes("node_num_clients", 0).await;
        let after = well
            .number(r#"client_num_server_disconnects{code="3008"}"#)
            .await;
        assert_eq!(after, before + 1);
        // The stream is given up, not the connection.
        assert!(stream.end().await.is_err());
        assert_eq!(client.get("/health").await.status, 200);
    })
    .await;
}
