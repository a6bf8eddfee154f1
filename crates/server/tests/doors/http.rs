//! A client of HTTP/1.1 that reads a response as it comes.

use std::io::Write;
use std::net::TcpStream;

use serde_json::Value;

use crate::process::{Server, Wait};

/// A connection has ended before what was waited for was whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// A response on its way.
pub(crate) struct Response {
    stream: TcpStream,
    pub(crate) status: u16,
    pub(crate) head: String,
    /// What came and is not decoded yet.
    raw: Vec<u8>,
    is_chunked: bool,
    is_over: bool,
    /// What was decoded and not taken yet.
    body: Vec<u8>,
}

/// Sends a request on a connection of its own. `head` is without the blank line, `Host` and length.
pub(crate) fn send(server: &Server, head: &str, body: &[u8]) -> Response {
    Response::read(begin(server, head, body))
}

/// The same without an answer.
pub(crate) fn begin(server: &Server, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = server.connect();
    let (address, len) = (server.address, body.len());
    let length = if head.starts_with("GET") || head.starts_with("HEAD") {
        String::new()
    } else {
        format!("Content-Length: {len}\r\n")
    };
    let mut request = format!("{head}\r\nHost: {address}\r\n{length}\r\n").into_bytes();
    request.extend_from_slice(body);
    // The server may refuse before it has read everything.
    let _ = stream.write_all(&request);
    stream
}

/// `POST` with a type and no more.
pub(crate) fn post(server: &Server, path: &str, content_type: &str, body: &[u8]) -> Response {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: {content_type}");
    send(server, &head, body)
}

pub(crate) fn get(server: &Server, path: &str) -> Response {
    send(server, &format!("GET {path} HTTP/1.1"), b"")
}

impl Response {
    /// Reads the head of a response.
    pub(crate) fn read(stream: TcpStream) -> Self {
        Self::read_after(stream, Vec::new())
    }

    fn read_after(stream: TcpStream, raw: Vec<u8>) -> Self {
        Self::try_read_after(stream, raw).expect("a head")
    }

    /// The same, where the connection may break.
    pub(crate) fn try_read(stream: TcpStream) -> Result<Self, Broken> {
        Self::try_read_after(stream, Vec::new())
    }

    fn try_read_after(mut stream: TcpStream, mut raw: Vec<u8>) -> Result<Self, Broken> {
        let wait = Wait::new("the head of an answer");
        let end = loop {
            if let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !wait.read(&mut stream, &mut raw) {
                return Err(Broken);
            }
        };
        let head = String::from_utf8(raw.drain(..end).collect()).expect("a head is text");
        let status = head[9..12].parse().expect("a status");
        let is_chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        Ok(Self {
            stream,
            status,
            head,
            raw,
            is_chunked,
            is_over: false,
            body: Vec::new(),
        })
    }

    /// The connection of an answer that gives it to another protocol, and what came behind its head.
    pub(crate) fn into_upgraded(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.raw)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The connection that it comes on.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next chunk as it was sent, `None` at the end of the response.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        self.try_chunk().expect("it goes on")
    }

    /// The same, where the connection may break.
    pub(crate) fn try_chunk(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        assert!(self.is_chunked, "{}", self.head);
        if self.is_over {
            return Ok(None);
        }
        let wait = Wait::new("a chunk");
        let line = loop {
            if let Some(end) = self.raw.windows(2).position(|window| window == b"\r\n") {
                break self.raw.drain(..end + 2).collect::<Vec<_>>();
            }
            self.read_more(&wait)?;
        };
        let line = std::str::from_utf8(&line).expect("a length is text");
        let len = usize::from_str_radix(line.trim(), 16).expect("a length");
        while self.raw.len() < len + 2 {
            self.read_more(&wait)?;
        }
        let chunk: Vec<u8> = self.raw.drain(..len).collect();
        assert_eq!(self.raw.drain(..2).collect::<Vec<_>>(), b"\r\n");
        self.is_over = chunk.is_empty();
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn read_more(&mut self, wait: &Wait) -> Result<(), Broken> {
        let is_more = wait.read(&mut self.stream, &mut self.raw);
        is_more.then_some(()).ok_or(Broken)
    }

    /// What comes up to and with `end`; `None` if the response is over first.
    pub(crate) fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let wait = Wait::new(format!("{:?}", String::from_utf8_lossy(end)));
        loop {
            wait.go_on();
            let found = self.body.windows(end.len()).position(|part| part == end);
            if let Some(found) = found {
                return Some(self.body.drain(..found + end.len()).collect());
            }
            let chunk = self.chunk()?;
            self.body.extend_from_slice(&chunk);
        }
    }

    /// The next line, as JSON.
    pub(crate) fn line(&mut self) -> Option<Value> {
        let line = self.until(b"\n")?;
        Some(serde_json::from_slice(&line).expect("a line is JSON"))
    }

    /// The next line that is no ping.
    pub(crate) fn message(&mut self) -> Value {
        let wait = Wait::new("a line that is no ping");
        loop {
            wait.go_on();
            let line = self.line().expect("the response goes on");
            if line != serde_json::json!({}) {
                return line;
            }
        }
    }

    /// The next event as it was sent, without the blank line at its end.
    pub(crate) fn event(&mut self) -> Option<String> {
        let mut event = self.until(b"\n\n")?;
        event.truncate(event.len() - 2);
        Some(String::from_utf8(event).expect("an event is text"))
    }

    /// The data of the next event that has only that and is no ping.
    pub(crate) fn data(&mut self) -> Value {
        let wait = Wait::new("an event that is no ping");
        loop {
            wait.go_on();
            let event = self.event().expect("the response goes on");
            let data = event.strip_prefix("data: ").expect("data alone");
            let data = serde_json::from_str(data).expect("data is JSON");
            if data != serde_json::json!({}) {
                return data;
            }
        }
    }

    /// All that is left of the response.
    pub(crate) fn rest(self) -> String {
        String::from_utf8(self.rest_bytes()).expect("text")
    }

    /// The same as it was sent.
    pub(crate) fn rest_bytes(mut self) -> Vec<u8> {
        if self.is_chunked {
            while let Some(chunk) = self.chunk() {
                self.body.extend_from_slice(&chunk);
            }
        } else {
            let len = self.header("content-length").unwrap_or("0");
            let len: usize = len.parse().expect("a length");
            let wait = Wait::new(format!("{len} bytes of a body"));
            while self.raw.len() < len && wait.read(&mut self.stream, &mut self.raw) {}
            self.body.append(&mut self.raw);
        }
        self.body
    }

    /// The same, where the connection may break.
    pub(crate) fn try_rest_bytes(mut self) -> Result<Vec<u8>, Broken> {
        if self.is_chunked {
            while let Some(chunk) = self.try_chunk()? {
                self.body.extend_from_slice(&chunk);
            }
            return Ok(self.body);
        }
        let len = self.header("content-length").unwrap_or("0");
        let len: usize = len.parse().expect("a length");
        let wait = Wait::new(format!("{len} bytes of a body"));
        while self.raw.len() < len {
            self.read_more(&wait)?;
        }
        Ok(self.raw)
    }

    /// The response that follows a whole one on the same connection.
    pub(crate) fn into_next(mut self, stream: TcpStream) -> Self {
        let len = self.header("content-length").expect("a length");
        let len: usize = len.parse().expect("a length");
        let wait = Wait::new(format!("{len} bytes of a body"));
        while self.raw.len() < len {
            assert!(wait.read(&mut self.stream, &mut self.raw), "cut off");
        }
        let rest = self.raw.split_off(len);
        Self::read_after(stream, rest)
    }

    /// The response that follows this one, whose body is in chunks, on the same connection.
    pub(crate) fn into_behind(mut self) -> Self {
        while self.chunk().is_some() {}
        Self::read_after(self.stream, self.raw)
    }

    /// So many bytes that came behind the head, as they came.
    pub(crate) fn raw(mut self, len: usize) -> Vec<u8> {
        let wait = Wait::new(format!("{len} bytes"));
        while self.raw.len() < len {
            assert!(wait.read(&mut self.stream, &mut self.raw), "cut off");
        }
        self.raw.truncate(len);
        self.raw
    }

    /// Whether the server ends the connection, and sends nothing more on it.
    pub(crate) fn ends(mut self) -> bool {
        !Wait::new("the end of a connection").read(&mut self.stream, &mut Vec::new())
    }
}

/// A session over a response that goes on, and the way to send it commands.
pub(crate) struct Session<'s> {
    server: &'s Server,
    pub(crate) response: Response,
    pub(crate) session: String,
    pub(crate) node: String,
}

impl<'s> Session<'s> {
    /// By HTTP streaming.
    pub(crate) fn connect(server: &'s Server) -> Self {
        let mut response = post(
            server,
            "/connection/http_stream",
            "application/json",
            br#"{"id":1,"connect":{}}"#,
        );
        assert_eq!(response.status, 200, "{}", response.head);
        let reply = response.message();
        let text = |name: &str| {
            let value = reply["connect"][name].as_str();
            value.unwrap_or_else(|| panic!("{reply}")).to_owned()
        };
        Self {
            server,
            session: text("session"),
            node: text("node"),
            response,
        }
    }

    /// Sends commands, and returns the status.
    pub(crate) fn send(&self, commands: &str) -> u16 {
        emulate(self.server, &self.session, &self.node, commands).status
    }

    /// Sends a command, and returns what comes next.
    pub(crate) fn call(&mut self, command: &str) -> Value {
        assert_eq!(self.send(command), 204);
        self.response.message()
    }
}

pub(crate) fn emulate(server: &Server, session: &str, node: &str, data: &str) -> Response {
    let body = serde_json::json!({"session": session, "node": node, "data": data}).to_string();
    post(server, "/emulation", "application/json", body.as_bytes())
}
