//! A client of a tunnel over plain HTTP (`docs/tunnel.md`): a connection for what it sends, another for an answer that
//! goes on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Echoed, Result, TIME, window};

/// A session.
pub(crate) struct Polled {
    session: String,
    next: u64,
    sends: Http,
    polls: Http,
}

impl Polled {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let mut sends = Http::connect(address)?;
        sends.ask(b"{\"open\":1}\n")?;
        let head = sends.head()?;
        let body = sends.take(length(&head)?)?;
        let opened: serde_json::Value = serde_json::from_slice(&body)?;
        let session = opened["session"].as_str().ok_or("no session")?.to_owned();
        Ok(Self {
            session,
            next: 0,
            sends,
            polls: Http::connect(address)?,
        })
    }

    /// Asks for an answer that goes on, and reads its first part, which is empty.
    pub(crate) fn poll(&mut self) -> Result<()> {
        let (session, next) = (&self.session, self.next);
        let ask = format!(r#"{{"session":"{session}","poll":{next},"hold":55,"stream":true}}"#);
        self.polls.ask(ask.as_bytes())?;
        let head = self.polls.head()?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(head.into());
        }
        Ok(())
    }

    /// Sends for `TIME` and hears the echoes: how many, and how long it took.
    pub(crate) fn echo(mut self, len: usize) -> Echoed {
        let (tell, told) = mpsc::channel::<usize>();
        let (mut sends, session) = (self.sends.again()?, self.session.clone());
        let start = Instant::now();
        let sending = thread::spawn(move || -> Result<usize> {
            let frame = framed(len);
            let (mut sent, mut heard, mut number) = (0, 0, 0);
            while start.elapsed() < TIME {
                while let Ok(count) = told.try_recv() {
                    heard += count;
                }
                let room = (heard + window(len)).saturating_sub(sent);
                if room == 0 {
                    heard += told.recv()?;
                    continue;
                }
                let count = room.min(MOST / frame.len()).max(1);
                number += 1;
                let mut body =
                    format!("{{\"session\":\"{session}\",\"send\":{number}}}\n").into_bytes();
                for _ in 0..count {
                    body.extend_from_slice(&frame);
                }
                loop {
                    sends.ask(&body)?;
                    let head = sends.head()?;
                    match head.get(9..12) {
                        Some("204") => break,
                        // There is no room yet.
                        Some("202") => drop(sends.take(length(&head)?)?),
                        _ => return Err(head.into()),
                    }
                }
                sent += count;
            }
            Ok(sent)
        });
        let (mut heard, mut all) = (0, None);
        let mut sending = Some(sending);
        while all.is_none_or(|all| heard < all) {
            self.poll()?;
            // Parts, each a chunk, until the answer has carried as much as one may.
            while let Some(part) = self.polls.chunk()? {
                let feed = part
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .ok_or("no head")?;
                let head: serde_json::Value = serde_json::from_slice(&part[..feed])?;
                self.next = head["next"].as_u64().ok_or("no number")?;
                let count = (part.len() - feed - 1) / framed(len).len();
                heard += count;
                // Nobody hears it any more once all is sent.
                let _ = tell.send(count);
                if sending
                    .as_ref()
                    .is_some_and(thread::JoinHandle::is_finished)
                    && let Some(sending) = sending.take()
                {
                    all = Some(sending.join().map_err(|_| "it broke off")??);
                }
                if all.is_some_and(|all| heard >= all) {
                    break;
                }
            }
        }
        Ok((heard, start.elapsed()))
    }
}

/// What a request carries at the most.
const MOST: usize = 60_000;

/// A message as it is set apart: binary.
fn framed(len: usize) -> Vec<u8> {
    let (mut out, mut left) = (vec![2], len);
    while left > 0x7f {
        out.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    out.push(left.to_le_bytes()[0]);
    out.resize(out.len() + len, b'x');
    out
}

fn length(head: &str) -> Result<usize> {
    let head = head.to_ascii_lowercase();
    let (_, rest) = head.split_once("content-length: ").ok_or("no length")?;
    let (length, _) = rest.split_once('\r').ok_or("no end of a line")?;
    Ok(length.parse()?)
}

/// A connection of HTTP/1.1.
struct Http {
    stream: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
}

impl Http {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream,
            address,
            received: Vec::new(),
        })
    }

    /// The same connection, for another thread. Nothing may wait to be taken.
    fn again(&self) -> Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            address: self.address,
            received: Vec::new(),
        })
    }

    fn ask(&mut self, body: &[u8]) -> Result<()> {
        let (address, len) = (self.address, body.len());
        let head = format!(
            "POST /tunnel/echo HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\n\r\n"
        );
        self.stream.write_all(&[head.as_bytes(), body].concat())?;
        Ok(())
    }

    fn head(&mut self) -> Result<String> {
        Ok(String::from_utf8(self.until(b"\r\n\r\n")?)?)
    }

    /// The next chunk; `None` at the end of the answer.
    fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let line = String::from_utf8(self.until(b"\r\n")?)?;
        let len = usize::from_str_radix(line.trim(), 16)?;
        let mut chunk = self.take(len + 2)?;
        chunk.truncate(len);
        Ok((len > 0).then_some(chunk))
    }

    /// All up to and with `end`.
    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            let mut parts = self.received.windows(end.len());
            if let Some(found) = parts.position(|part| part == end) {
                return Ok(self.received.drain(..found + end.len()).collect());
            }
            self.read()?;
        }
    }

    /// So many bytes.
    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        while self.received.len() < len {
            self.read()?;
        }
        Ok(self.received.drain(..len).collect())
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            let got = String::from_utf8_lossy(&self.received).into_owned();
            return Err(format!("cut off after {got}").into());
        }
        self.received.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}
