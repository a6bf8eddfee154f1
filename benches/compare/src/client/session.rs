//! The client's side of the client protocol, by hand, in both of its encodings: commands out, replies in.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use memchr::memmem;

use super::Random;
use super::frame::{Opcode, parse_server, put_client};
use super::upgrade::{Dialect, connect};

const READ_BUFFER: usize = 16 * 1024;

/// How commands and replies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command<'a> {
    Connect,
    Subscribe {
        channel: &'a str,
    },
    /// The same in a way of its own, in JSON.
    SubscribeWith {
        channel: &'a str,
        feature: Feature,
    },
    Publish {
        channel: &'a str,
        data: &'a str,
    },
}

/// How a subscriber wants publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// As patches.
    Delta,
    /// Those that lack the tag of this number: all, if nobody makes any.
    Filter(u32),
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// To be answered with a pong.
    Ping,
    /// To command `id`; refused, or not.
    Answer {
        id: u64,
        refused: bool,
        message: &'a [u8],
    },
    /// Of its own accord.
    Push(&'a [u8]),
}

/// A connection that has been upgraded.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    pub(crate) encoding: Encoding,
    /// What has come and is not a whole frame yet.
    rest: Vec<u8>,
}

impl Encoding {
    /// Appends command `id` to `out`, by itself in a message's payload.
    pub(crate) fn put(self, out: &mut Vec<u8>, id: u64, command: Command<'_>) {
        match self {
            Self::Json => out.extend_from_slice(json(id, command).as_bytes()),
            Self::Protobuf => {
                let command = protobuf(id, command);
                put_varint(out, command.len() as u64);
                out.extend_from_slice(&command);
            }
        }
    }

    /// Appends another command to those that are there.
    pub(crate) fn put_next(self, out: &mut Vec<u8>, id: u64, command: Command<'_>) {
        if self == Self::Json {
            out.push(b'\n');
        }
        self.put(out, id, command);
    }

    pub(crate) fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::Protobuf => Opcode::Binary,
        }
    }

    fn pong(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => b"\0",
        }
    }

    /// Where clients of this encoding connect.
    fn dialect(self, dialect: Dialect) -> Dialect {
        match (self, dialect) {
            (Self::Protobuf, Dialect::WebSocket("/connection/websocket")) => {
                Dialect::WebSocket("/connection/websocket?cf_protocol=protobuf")
            }
            (_, dialect) => dialect,
        }
    }

    /// Each reply of a message.
    fn replies<'a>(
        self,
        mut payload: &'a [u8],
        reply: &mut impl FnMut(Reply<'a>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Json => payload
                .split(|byte| *byte == b'\n')
                .try_for_each(|line| reply(read_json(line)?)),
            Self::Protobuf => {
                while !payload.is_empty() {
                    let length = usize::try_from(take_varint(&mut payload)?)?;
                    let (one, behind) = payload
                        .split_at_checked(length)
                        .context("a reply ends before its length")?;
                    reply(read_protobuf(one)?)?;
                    payload = behind;
                }
                Ok(())
            }
        }
    }
}

impl Session {
    /// Opens a connection, past the WebSocket handshake.
    pub(crate) fn open(address: SocketAddr, dialect: Dialect, encoding: Encoding) -> Result<Self> {
        let stream = connect(address, encoding.dialect(dialect))?;
        Ok(Self::over(stream, encoding))
    }

    /// Over one that is past it already.
    pub(crate) fn over(stream: TcpStream, encoding: Encoding) -> Self {
        Self {
            stream,
            encoding,
            rest: Vec::new(),
        }
    }

    /// Connects and does `commands`, in one message as SDKs do it, and waits until each is answered.
    ///
    /// # Errors
    /// A command that is refused.
    pub(crate) fn begin(&mut self, random: &mut Random, commands: &[Command<'_>]) -> Result<()> {
        self.ask(random, commands)?;
        self.wait(commands.len() + 1)
    }

    /// The first half of [`begin`](Self::begin).
    pub(crate) fn ask(&mut self, random: &mut Random, commands: &[Command<'_>]) -> Result<()> {
        let mut payload = Vec::new();
        self.encoding.put(&mut payload, 1, Command::Connect);
        for (id, &command) in (2..).zip(commands) {
            self.encoding.put_next(&mut payload, id, command);
        }
        self.send(random, &payload)
    }

    /// Sends a message as it is.
    pub(crate) fn send(&mut self, random: &mut Random, payload: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        put_client(&mut out, self.encoding.opcode(), payload, random.key());
        Ok(self.stream.write_all(&out)?)
    }

    /// The second half, for so many answers.
    pub(crate) fn wait(&mut self, mut unanswered: usize) -> Result<()> {
        let mut buffer = [0; READ_BUFFER];
        while unanswered > 0 {
            self.receive(&mut buffer, |reply| {
                if let Reply::Answer { id, refused, .. } = reply {
                    if refused {
                        bail!("command {id} was refused");
                    }
                    unanswered -= 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// One read, and each reply of each message that it completed. Pings are answered here.
    ///
    /// # Errors
    /// What no server may send, or the end of the connection.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut reply: impl FnMut(Reply<'_>) -> Result<()>,
    ) -> Result<()> {
        let n = self.stream.read(buffer).context("nothing more came")?;
        if n == 0 {
            bail!("the server closed the connection");
        }
        let mut bytes: &[u8] = &buffer[..n];
        let joined;
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.rest);
            bytes = &joined;
        }
        let mut pings = 0;
        while let Some(header) = parse_server(bytes)?.filter(|header| header.end <= bytes.len()) {
            let payload = &bytes[header.start..header.end];
            match header.opcode {
                Opcode::Close => bail!("the server closed: {}", String::from_utf8_lossy(payload)),
                opcode if opcode == self.encoding.opcode() => {
                    self.encoding.replies(payload, &mut |one| match one {
                        Reply::Ping => {
                            pings += 1;
                            Ok(())
                        }
                        other => reply(other),
                    })?;
                }
                other => bail!("the server sent a {other:?} frame: not this encoding's"),
            }
            bytes = &bytes[header.end..];
        }
        self.rest.extend_from_slice(bytes);
        for _ in 0..pings {
            let mut out = Vec::new();
            let (opcode, pong) = (self.encoding.opcode(), self.encoding.pong());
            put_client(&mut out, opcode, pong, [0x37, 0xfa, 0x21, 0x3d]);
            self.stream.write_all(&out)?;
        }
        Ok(())
    }
}

fn json(id: u64, command: Command<'_>) -> String {
    match command {
        Command::Connect => format!(r#"{{"id":{id},"connect":{{}}}}"#),
        Command::Subscribe { channel } => {
            format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#)
        }
        Command::SubscribeWith { channel, feature } => {
            let wish = match feature {
                Feature::Delta => r#""delta":"fossil""#.to_owned(),
                Feature::Filter(tag) => format!(r#""tf":{{"key":"tag-{tag}","cmp":"nex"}}"#),
            };
            format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}",{wish}}}}}"#)
        }
        Command::Publish { channel, data } => {
            format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{data}}}}}"#)
        }
    }
}

fn read_json(line: &[u8]) -> Result<Reply<'_>> {
    if line == b"{}" {
        return Ok(Reply::Ping);
    }
    if line.starts_with(br#"{"push":"#) {
        return Ok(Reply::Push(line));
    }
    let Some(behind) = line.strip_prefix(br#"{"id":"#) else {
        bail!("this is no reply: {}", String::from_utf8_lossy(line));
    };
    let digits = behind.iter().take_while(|byte| byte.is_ascii_digit());
    Ok(Reply::Answer {
        id: digits.fold(0, |id, digit| id * 10 + u64::from(digit - b'0')),
        refused: memmem::find(behind, br#""error":{"#).is_some(),
        message: line,
    })
}

/// The fields of `Command` and of what it holds, by the numbers of the protocol's schema.
fn protobuf(id: u64, command: Command<'_>) -> Vec<u8> {
    let (number, fields) = match command {
        Command::Connect => (4, vec![]),
        Command::Subscribe { channel } | Command::SubscribeWith { channel, .. } => {
            (5, vec![(1, channel)])
        }
        Command::Publish { channel, data } => (7, vec![(1, channel), (2, data)]),
    };
    let mut request = Vec::new();
    for (number, text) in fields {
        put_field(&mut request, number, text.as_bytes());
    }
    let mut out = vec![0x08];
    put_varint(&mut out, id);
    put_field(&mut out, number, &request);
    out
}

fn read_protobuf(mut reply: &[u8]) -> Result<Reply<'_>> {
    let message = reply;
    let (mut id, mut refused) = (0, false);
    if reply.is_empty() {
        return Ok(Reply::Ping);
    }
    while !reply.is_empty() {
        let tag = take_varint(&mut reply)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => id = take_varint(&mut reply)?,
            (number, 2) => {
                let length = usize::try_from(take_varint(&mut reply)?)?;
                let (value, behind) = reply
                    .split_at_checked(length)
                    .context("a field ends before its length")?;
                match number {
                    2 => refused = true,
                    4 => return Ok(Reply::Push(value)),
                    _ => {}
                }
                reply = behind;
            }
            _ => bail!("a reply has a field with tag {tag}"),
        }
    }
    Ok(Reply::Answer {
        id,
        refused,
        message,
    })
}

fn put_field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().context("a number is cut off")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number has more than ten bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(encoding: Encoding, payload: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut reply = |reply: Reply<'_>| {
            seen.push(match reply {
                Reply::Ping => "ping".to_owned(),
                Reply::Answer { id, refused, .. } => format!("{id} {refused}"),
                Reply::Push(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            });
            Ok(())
        };
        encoding.replies(payload, &mut reply).unwrap();
        seen
    }

    #[test]
    fn replies_are_told_apart() {
        let json = br#"{"id":12,"connect":{}}
{}
{"id":3,"error":{"code":103,"message":"permission denied"}}
{"push":{"channel":"a"}}"#;
        let seen = read(Encoding::Json, json);
        assert_eq!(
            seen,
            ["12 false", "ping", "3 true", r#"{"push":{"channel":"a"}}"#]
        );
        let protobuf = [
            4, 0x08, 12, 0x2a, 0, // id 12, an empty connect result
            0, // ping
            6, 0x08, 3, 0x12, 2, 0x08, 103, // id 3, error 103
            5, 0x22, 3, 0x12, 1, b'a', // a push
        ];
        let seen = read(Encoding::Protobuf, &protobuf);
        assert_eq!(seen, ["12 false", "ping", "3 true", "\u{12}\u{1}a"]);
    }

    #[test]
    fn a_command_in_protobuf_is_what_the_schema_says() {
        let mut out = Vec::new();
        let publish = Command::Publish {
            channel: "ab",
            data: "1",
        };
        Encoding::Protobuf.put(&mut out, 300, publish);
        assert_eq!(
            out,
            [
                12, 0x08, 0xac, 0x02, 0x3a, 7, 0x0a, 2, b'a', b'b', 0x12, 1, b'1'
            ]
        );
    }
}
