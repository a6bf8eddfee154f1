//! Connections to the server from addresses that can be told apart, and requests over them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::process::{DEADLINE, Server};

/// Who connects: the last part of an address on the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Whoever abuses the server.
    Stranger = 1,
    /// Users of good will.
    User = 2,
    /// Who looks after the server.
    Operator = 3,
}

/// A connection, with TLS or without.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub(crate) fn open(server: &Server, from: From, tls: Option<&Arc<ClientConfig>>) -> Self {
        let stream = connect(server, from);
        let Some(config) = tls else {
            return Self::Plain(stream);
        };
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self::Tls(Box::new(StreamOwned::new(client, stream)))
    }
}

pub(crate) fn connect(server: &Server, from: From) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let own = SocketAddr::from(([127, 0, 0, from as u8], 0));
    socket.bind(&own.into()).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection of HTTP/1.1 on which one request follows the other.
pub(crate) struct Http<W> {
    pub(crate) wire: W,
    came: Vec<u8>,
}

impl<W: Read + Write> Http<W> {
    pub(crate) fn new(wire: W) -> Self {
        Self {
            wire,
            came: Vec::new(),
        }
    }

    /// Sends a request, `head` being its first line and fields without `Host` and length, and reads the answer.
    pub(crate) fn ask(&mut self, head: &str, body: &[u8]) -> Answer {
        let len = body.len();
        let request = format!("{head}\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        // The server may have answered and closed already.
        let _ = self.wire.write_all(&request);
        self.answer().expect("an answer")
    }

    /// The next answer; `None` when the connection has ended.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.came.windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more() {
                return None;
            }
        };
        let head: Vec<u8> = self.came.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let lower = head.to_ascii_lowercase();
        let len = lower.split_once("content-length: ");
        let len = len.and_then(|(_, rest)| rest.split("\r\n").next());
        let len: usize = len.map_or(0, |len| len.parse().unwrap());
        while self.came.len() < len && self.more() {}
        let body = self.came.drain(..len.min(self.came.len())).collect();
        Some(Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body,
        })
    }

    /// Whether something came; else the connection has ended.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let count = match self.wire.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if has_ended(&error) => 0,
            Err(error) => panic!("reading failed: {error}"),
        };
        self.came.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

/// Whether a connection was ended by the other side, in whatever way.
pub(crate) fn has_ended(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

/// All that comes until the end of a connection.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    match stream.read_to_end(&mut came) {
        Ok(_) => {}
        Err(error) if has_ended(&error) => {}
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&came)),
    }
    came
}
