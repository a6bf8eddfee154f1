//! A client of the protocol over a real WebSocket, in JSON.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::collections::VecDeque;

use serde_json::{Value, json};
use tautline_websocket::conn::{ClientStream, ConnectOptions, WebSocket, connect};
use tautline_websocket::proto::{CloseCode, Message};

/// A connection. Answers pings by itself.
pub(crate) struct Peer {
    socket: WebSocket<ClientStream>,
    heard: VecDeque<Value>,
    next_id: u64,
}

impl Peer {
    /// Opens a connection, with these header fields.
    pub(crate) async fn open(url: &str, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter();
        let options = ConnectOptions {
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..ConnectOptions::default()
        };
        let socket = connect(url, &options).await.unwrap().websocket;
        Self {
            socket,
            heard: VecDeque::new(),
            next_id: 0,
        }
    }

    /// The same, and connects.
    pub(crate) async fn connect(url: &str) -> Self {
        let mut peer = Self::open(url, &[]).await;
        let reply = peer.ask("connect", json!({})).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        peer
    }

    /// Sends something as it is.
    pub(crate) async fn send(&mut self, message: &Value) {
        self.socket.send(&*message.to_string()).await.unwrap();
    }

    /// The same for a text.
    pub(crate) async fn send_text(&mut self, message: &str) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends a command, and gives its id.
    pub(crate) async fn begin(&mut self, name: &str, request: Value) -> u64 {
        self.next_id += 1;
        let command = json!({"id": self.next_id, name: request});
        self.send(&command).await;
        self.next_id
    }

    /// Sends a command, and waits for the reply. What comes before it is heard later.
    pub(crate) async fn ask(&mut self, name: &str, request: Value) -> Value {
        let id = self.begin(name, request).await;
        self.find(|message| message["id"] == json!(id)).await
    }

    /// Waits for a push of this kind.
    pub(crate) async fn push(&mut self, kind: &str) -> Value {
        let push = self.find(|message| message["push"][kind].is_object());
        push.await["push"][kind].take()
    }

    /// Waits for a message.
    pub(crate) async fn find(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.heard.iter().position(&is_it) {
            return self.heard.remove(place).unwrap();
        }
        loop {
            let Some(message) = self.socket.recv().await.unwrap() else {
                panic!("the connection was closed: {:?}", self.socket.closed());
            };
            let Message::Text(text) = message else {
                continue;
            };
            for line in text.lines() {
                let message: Value = serde_json::from_str(line).unwrap();
                if message == json!({}) {
                    self.socket.send("{}").await.unwrap();
                } else {
                    self.heard.push_back(message);
                }
            }
            if let Some(place) = self.heard.iter().position(&is_it) {
                return self.heard.remove(place).unwrap();
            }
        }
    }

    /// Says goodbye, and waits until the server has, too.
    pub(crate) async fn leave(mut self) {
        self.socket.close(CloseCode::NORMAL, "").await.unwrap();
    }

    /// Waits for the end of the connection, and gives its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        while self
            .socket
            .recv()
            .await
            .is_ok_and(|message| message.is_some())
        {}
        let closed = self.socket.closed().expect("it has ended");
        closed.code.get()
    }
}
