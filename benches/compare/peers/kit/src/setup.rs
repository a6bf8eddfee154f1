//! The command line that all peers of this kit share, and what it asks for.

use std::env;
use std::net::SocketAddr;

/// When replies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Everything that one read brought in is answered by one write. The default.
    Ready,
    /// Each reply is written by itself (`--send`).
    Each,
}

/// What to answer to an offer of permessage-deflate (`--deflate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deflate {
    /// Nothing. The default.
    Off,
    /// Each message by itself, both ways (`--deflate alone`).
    Alone,
    /// Context is taken over, both ways, with windows of 32 KiB (`--deflate takeover`).
    Takeover,
}

impl Deflate {
    /// The answer's header line, with its end.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Off => "",
            Self::Alone => {
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
            }
            Self::Takeover => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        }
    }

    /// The value of that header, `None` for no compression.
    pub fn agreed(self) -> Option<&'static str> {
        let header = self.header().trim_end();
        header
            .split_once(": ")
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }
}

/// What one process does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arguments {
    pub(crate) address: SocketAddr,
    pub(crate) batching: Batching,
    pub(crate) deflate: Deflate,
    pub(crate) broadcast: bool,
}

impl Arguments {
    pub(crate) fn of_process() -> Result<Self, String> {
        let mut address = None;
        let (mut batching, mut deflate) = (Batching::Ready, Deflate::Off);
        let mut broadcast = false;
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--listen" => {
                    let value = words.next().unwrap_or_default();
                    let parsed = value.parse();
                    address = Some(parsed.map_err(|_| {
                        format!(
                            "--listen wants ADDRESS:PORT, such as 127.0.0.1:9001, not {value:?}"
                        )
                    })?);
                }
                "--deflate" => {
                    deflate = match words.next().as_deref() {
                        Some("alone") => Deflate::Alone,
                        Some("takeover") => Deflate::Takeover,
                        _ => return Err("--deflate wants `alone` or `takeover`".to_owned()),
                    };
                }
                "--send" => batching = Batching::Each,
                "--broadcast" => broadcast = true,
                other => return Err(format!("{other:?} is not known here: {USAGE}")),
            }
        }
        Ok(Self {
            address: address.ok_or("--listen ADDRESS:PORT is missing")?,
            batching,
            deflate,
            broadcast,
        })
    }
}

const USAGE: &str = "--listen ADDRESS:PORT [--send] [--deflate alone|takeover] [--broadcast]";
