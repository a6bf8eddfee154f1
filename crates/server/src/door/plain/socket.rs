//! `/ws?channel=…`: a browser's plain `WebSocket`.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tautline_hub::{Pings, Transport};
use tautline_protocol::{Disconnect, Encoding};
use tautline_websocket::proto::handshake::{Acceptance, Opening, Refusal};

use super::super::websocket::{Ear, Manner};
use super::publish::publish_command;
use super::voice::Plain;
use super::wanted::{FIRST_SUBSCRIBE, REPEATED, Wanted, check_names, cookie, token};
use crate::http::query::Query;
use crate::worker::voice::Voice;

/// What a client asks for beside its token, and is given.
const SUBPROTOCOL: &str = "tautline";

/// A subprotocol that is a token: the one thing that a page can send along with a WebSocket.
const TOKEN: &str = "tautline.token.";

const PARAMETERS: [&str; 4] = ["channel", "since", "envelope", "token"];

/// Meets a client with no SDK.
///
/// # Errors
///
/// 400 when it asks for what can't be.
pub(crate) fn accept(
    opening: &Opening<'_>,
    query: Option<&str>,
    cookies: Option<&str>,
) -> Result<(Acceptance<'static>, Manner), Refusal> {
    let bad = |error: String| Refusal::new(400, format!("Bad Request: {error}"));
    let offered = opening.subprotocols().iter().copied();
    let Greeting {
        commands,
        voice,
        publisher,
    } = greet(query, offered, || cookies.and_then(cookie)).map_err(bad)?;
    let manner = Manner {
        transport: Transport::one_way("ws", Encoding::Json).with_pings(Pings::Transport),
        voice: Some(voice),
        opening: Some(commands),
        ear: Some(Box::new(Ear::Publish(publisher))),
        permit: None,
    };
    let subprotocol = opening.select_subprotocol(&[SUBPROTOCOL]);
    Ok((opening.accept(subprotocol), manner))
}

/// How a client of this door is met, whatever carries what it says and hears.
pub(crate) struct Greeting {
    /// Of an SDK that would ask for the same.
    pub(crate) commands: String,
    pub(crate) voice: Box<dyn Voice>,
    /// Makes commands of what the client sends.
    pub(crate) publisher: Publisher,
}

/// Meets a client that asks for `query`. Its token is a parameter, else among the subprotocols that it offers, else what
/// `cookie` finds.
///
/// # Errors
///
/// A sentence that says what was expected.
pub(crate) fn greet<'o>(
    query: Option<&str>,
    offered: impl Iterator<Item = &'o str>,
    cookie: impl FnOnce() -> Option<String>,
) -> Result<Greeting, String> {
    let (query, wanted) = wanted(query)?;
    let token = token(&query, &HeaderMap::new(), false)
        .or_else(|| {
            let mut tokens = offered.filter_map(|offered| offered.strip_prefix(TOKEN));
            tokens.next().map(str::to_owned)
        })
        .or_else(cookie);
    let envelope = wanted.envelope_or(false);
    Ok(Greeting {
        commands: wanted.commands(token.as_deref()),
        voice: Box::new(Plain::new(&wanted, envelope, None)),
        publisher: Publisher::new(&wanted, envelope),
    })
}

/// Checks what a client asks for, whatever it asks by: a page whose WebSocket failed learns nothing of why, and may ask
/// again by a plain request.
///
/// # Errors
///
/// A sentence that says what was expected.
pub(crate) fn check(query: Option<&str>) -> Result<(), String> {
    wanted(query).map(drop)
}

fn wanted(query: Option<&str>) -> Result<(Query<'_>, Wanted), String> {
    let query = Query::parse(query)?;
    check_names(&query, &PARAMETERS, &REPEATED)?;
    let wanted = Wanted::parse(&query, &HeaderMap::new())?;
    Ok((query, wanted))
}

/// Makes commands of what such a client sends.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// The only channel that can be meant; `None` if a message has to say which.
    channel: Option<String>,
    next: u32,
}

/// A message that says where it goes.
#[derive(Deserialize)]
struct Addressed<'m> {
    channel: Option<String>,
    #[serde(borrow)]
    data: &'m RawValue,
}

impl Publisher {
    fn new(wanted: &Wanted, envelope: bool) -> Self {
        let channel = match &*wanted.channels {
            [channel] if !envelope => Some(channel.name.clone()),
            _ => None,
        };
        let subscribes = u32::try_from(wanted.channels.len()).unwrap_or(u32::MAX / 2);
        Self {
            channel,
            next: FIRST_SUBSCRIBE + subscribes,
        }
    }

    /// The command to publish a message.
    ///
    /// # Errors
    ///
    /// The end of the connection, which says what was expected.
    pub(crate) fn command(&mut self, message: &[u8]) -> Result<String, Disconnect> {
        let number = self.next;
        // Wraps around to numbers that mean publications still.
        self.next = self.next.checked_add(1).unwrap_or(u32::MAX / 2);
        let bad = |reason: &'static str| Disconnect {
            code: BAD_MESSAGE,
            reason: reason.into(),
        };
        if let Some(channel) = &self.channel {
            return publish_command(number, channel, message)
                .map_err(|_| bad("expected JSON to publish, such as {\"text\":\"hello\"}"));
        }
        let expected = || bad("expected {\"channel\":\"news\",\"data\":…} to publish");
        let Addressed { channel, data } =
            serde_json::from_slice(message).map_err(|_| expected())?;
        let channel = channel.ok_or_else(expected)?;
        publish_command(number, &channel, data.get().as_bytes()).map_err(|_| expected())
    }
}

/// As error 107 of the protocol, behind 4000.
const BAD_MESSAGE: u32 = 4107;
