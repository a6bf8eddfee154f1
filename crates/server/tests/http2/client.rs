//! A client of HTTP/2, without TLS and by prior knowledge, that reads responses as they come.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::process::Server;

/// A connection.
pub(crate) struct Client {
    pub(crate) requests: SendRequest<Bytes>,
    authority: String,
    /// Ends with the connection.
    pub(crate) connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// An answer on its way.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: RecvStream,
    /// What came of the body and wasn't taken.
    came: Vec<u8>,
    /// Kept, so that the request isn't taken back.
    _request: SendStream<Bytes>,
}

impl Client {
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::connect_with(server, &Builder::new()).await
    }

    pub(crate) async fn connect_with(server: &Server, builder: &Builder) -> Self {
        let io = TcpStream::connect(server.address).await.unwrap();
        io.set_nodelay(true).unwrap();
        let (requests, connection) = builder.handshake(io).await.unwrap();
        Self {
            requests,
            authority: server.address.to_string(),
            connection: tokio::spawn(connection),
        }
    }

    /// A request for this server, to be completed.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.authority))
    }

    /// Sends a request; the answer's head is to come.
    pub(crate) async fn send(&self, request: Request<()>, body: &[u8]) -> Answer {
        self.try_send(request, body).await.unwrap()
    }

    pub(crate) async fn try_send(
        &self,
        request: Request<()>,
        body: &[u8],
    ) -> Result<Answer, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut sending) = requests.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            sending.send_data(Bytes::copy_from_slice(body), true)?;
        }
        Ok(Answer::new(response.await?, sending))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(()).unwrap(), b"")
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = self.request("POST", path).header("x-api-key", "dev");
        self.send(request.body(()).unwrap(), body.as_bytes()).await
    }

    /// A number that the server counts, 0 if it isn't there.
    pub(crate) async fn number(&self, name: &str) -> u64 {
        let page = self.get("/metrics").await.rest().await;
        let name = format!("tautline_{name} ");
        let found = page.lines().find_map(|line| line.strip_prefix(&name));
        found.map_or(0, |number| number.parse().unwrap())
    }

    /// Asks for a number until it is this one.
    pub(crate) async fn number_becomes(&self, name: &str, expected: u64) {
        while self.number(name).await != expected {
            tokio::task::yield_now().await;
        }
    }
}

impl Answer {
    fn new(response: Response<RecvStream>, request: SendStream<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            came: Vec::new(),
            _request: request,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The next line of the body.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.came.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.came.drain(..=end).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            assert!(
                self.more().await.unwrap(),
                "it ends with {:?}",
                String::from_utf8_lossy(&self.came)
            );
        }
    }

    /// The next line that is no sign of life, as JSON.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            let line = self.line().await;
            if !["", "{}"].contains(&line.as_str()) {
                return serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            }
        }
    }

    /// All that is left of the body.
    pub(crate) async fn rest(mut self) -> String {
        while self.more().await.unwrap() {}
        String::from_utf8(self.came).unwrap()
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Result<(), Reason> {
        loop {
            match self.more().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
            }
        }
    }

    async fn more(&mut self) -> Result<bool, h2::Error> {
        let Some(bytes) = self.body.data().await else {
            return Ok(false);
        };
        let bytes = bytes?;
        self.body.flow_control().release_capacity(bytes.len())?;
        self.came.extend_from_slice(&bytes);
        Ok(true)
    }
}
