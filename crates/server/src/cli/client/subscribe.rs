//! `tautline subscribe`: a client that prints what is published.
//!
//! It speaks the client protocol in JSON, answers pings, and comes back when the connection breaks,
//! from where it was in each channel.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tautline_protocol::message::Disconnect;
use tautline_websocket::conn::{ClientStream, ConnectError, ConnectOptions, WebSocket, connect};
use tautline_websocket::proto::Message;

use super::args::SubscribeArgs;
use super::call::Server;
use super::show::{self, Publication, Reader, clean};
use crate::cli::error::CliError;

/// Prints what is published, until Ctrl-C or until there is nothing more to wait for.
pub(super) async fn run(args: &SubscribeArgs) -> Result<(), CliError> {
    tokio::select! {
        outcome = watch(args) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn watch(args: &SubscribeArgs) -> Result<(), CliError> {
    let server = Server::new(&args.server.url)?;
    let mut view = View {
        reader: Reader::of(&args.server),
        left: args.count,
        channels: args
            .channels
            .iter()
            .map(|channel| (channel.clone(), Channel::default()))
            .collect(),
    };
    let mut attempt = 0;
    let mut was_connected = false;
    loop {
        let url = server.websocket_url();
        let ended = match connect(&url, &ConnectOptions::default()).await {
            Ok(connected) => {
                let token = args.token.as_deref().unwrap_or_default();
                let mut session = Session::new(connected.websocket, &mut view);
                let ended = session.run(token).await;
                if session.is_connected {
                    (was_connected, attempt) = (true, 0);
                }
                ended?
            }
            // Who has never been there has the wrong address, most likely.
            Err(error) if !was_connected => return Err(server.unreachable(&failure(&error))),
            Err(error) => failure(&error),
        };
        if view.left == Some(0) {
            return Ok(());
        }
        attempt += 1;
        notice(&format!(
            "the connection is gone ({}); trying again",
            clean(&ended)
        ));
        tokio::time::sleep(pause(attempt)).await;
    }
}

/// What is watched, and how far it has got.
struct View {
    reader: Reader,
    /// How many publications are still to be printed, if not all.
    left: Option<u64>,
    channels: BTreeMap<String, Channel>,
}

#[derive(Default)]
struct Channel {
    /// Where it can go on after a break, if it can.
    position: Option<(u64, String)>,
}

/// One connection.
struct Session<'a> {
    websocket: WebSocket<ClientStream>,
    view: &'a mut View,
    is_connected: bool,
    answers_pings: bool,
    /// Nothing for so long means that the line is dead.
    patience: Duration,
    /// The channel of each command, by number.
    subscribing: BTreeMap<u64, String>,
    next_command: u64,
}

/// A message of the server, as far as it is understood here.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    id: u64,
    error: Option<Refusal>,
    connect: Option<Connected>,
    subscribe: Option<Subscribed>,
    push: Option<Push>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct Connected {
    #[serde(default)]
    ping: u64,
    #[serde(default)]
    pong: bool,
}

#[derive(Deserialize)]
struct Subscribed {
    #[serde(default)]
    recoverable: bool,
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    was_recovering: bool,
    #[serde(default)]
    recovered: bool,
    #[serde(default)]
    publications: Vec<Publication>,
}

#[derive(Deserialize)]
struct Push {
    #[serde(default)]
    channel: String,
    r#pub: Option<Publication>,
    unsubscribe: Option<Ended>,
}

#[derive(Deserialize)]
struct Ended {
    code: u32,
    #[serde(default)]
    reason: String,
}

impl<'a> Session<'a> {
    fn new(websocket: WebSocket<ClientStream>, view: &'a mut View) -> Self {
        Self {
            websocket,
            view,
            is_connected: false,
            answers_pings: false,
            patience: Duration::from_secs(30),
            subscribing: BTreeMap::new(),
            next_command: 1,
        }
    }

    /// Runs until the connection ends, and says how it did.
    ///
    /// # Errors
    ///
    /// Where there is no use in trying again.
    async fn run(&mut self, token: &str) -> Result<String, CliError> {
        let connect = json!({"token": token, "name": "tautline", "version": crate::VERSION});
        if let Err(gone) = self.command("connect", &connect).await {
            return Ok(gone);
        }
        for channel in self.view.channels.keys().cloned().collect::<Vec<_>>() {
            if let Err(gone) = self.subscribe(&channel).await {
                return Ok(gone);
            }
        }
        loop {
            let received = tokio::time::timeout(self.patience, self.websocket.recv()).await;
            let message = match received {
                Err(_elapsed) => return Ok("no sign of life".to_owned()),
                Ok(Err(error)) => return Ok(error.to_string()),
                Ok(Ok(None)) => return self.closed(),
                Ok(Ok(Some(message))) => message,
            };
            let Message::Text(text) = message else {
                return Ok("a message that is no text".to_owned());
            };
            for line in text.lines() {
                if let Some(ended) = self.take(line).await? {
                    return Ok(ended);
                }
                if self.view.left == Some(0) {
                    return Ok(String::new());
                }
            }
        }
    }

    /// Works on one message. `Some` if the connection is of no use any more.
    async fn take(&mut self, line: &str) -> Result<Option<String>, CliError> {
        if line == "{}" {
            if self.answers_pings
                && let Err(error) = self.websocket.send("{}").await
            {
                return Ok(Some(error.to_string()));
            }
            return Ok(None);
        }
        let Ok(reply) = serde_json::from_str::<Reply>(line) else {
            return Ok(Some("a message that can't be read".to_owned()));
        };
        let channel = self.subscribing.remove(&reply.id);
        if let Some(refusal) = reply.error {
            return self.refused(channel.as_deref(), &refusal);
        }
        if let Some(Connected { ping, pong }) = reply.connect {
            self.is_connected = true;
            self.answers_pings = pong;
            let grace = Duration::from_secs(10);
            // Without pings, nothing tells a dead line from a quiet channel.
            self.patience = match ping {
                0 => Duration::MAX,
                ping => Duration::from_secs(ping) + grace,
            };
        }
        if let (Some(channel), Some(subscribed)) = (channel, reply.subscribe) {
            self.subscribed(&channel, subscribed)?;
        }
        let Some(push) = reply.push else {
            return Ok(None);
        };
        if let Some(publication) = push.r#pub {
            self.print(&push.channel, publication)?;
        }
        match push.unsubscribe {
            Some(ended) if ended.code >= 2500 => Ok(self.subscribe(&push.channel).await.err()),
            Some(ended) => self
                .unsubscribed(&push.channel, &ended.reason)
                .map(|()| None),
            None => Ok(None),
        }
    }

    fn refused(
        &mut self,
        channel: Option<&str>,
        refusal: &Refusal,
    ) -> Result<Option<String>, CliError> {
        let Refusal {
            code,
            message,
            temporary,
        } = refusal;
        let told = format!("{} (error {code})", clean(message));
        match channel {
            _ if *temporary => Ok(Some(told)),
            None => Err(CliError::Failure(format!(
                "the server refused the connection: {told}"
            ))),
            Some(channel) => self.unsubscribed(channel, &told).map(|()| None),
        }
    }

    fn subscribed(&mut self, channel: &str, subscribed: Subscribed) -> Result<(), CliError> {
        if subscribed.was_recovering && !subscribed.recovered {
            notice(&format!(
                "{channel}: some messages were missed, and can't be had any more"
            ));
        }
        if let Some(entry) = self.view.channels.get_mut(channel) {
            let position = (subscribed.offset, subscribed.epoch);
            entry.position = subscribed.recoverable.then_some(position);
        }
        for publication in subscribed.publications {
            self.print(channel, publication)?;
        }
        Ok(())
    }

    /// A channel is not watched any more. With the last, there is nothing to wait for.
    fn unsubscribed(&mut self, channel: &str, reason: &str) -> Result<(), CliError> {
        self.view.channels.remove(channel);
        let told = format!("not subscribed to {}: {}", clean(channel), clean(reason));
        if self.view.channels.is_empty() {
            return Err(CliError::Failure(told));
        }
        notice(&told);
        Ok(())
    }

    fn print(&mut self, channel: &str, mut publication: Publication) -> Result<(), CliError> {
        let View {
            reader,
            left,
            channels,
        } = &mut *self.view;
        if *left == Some(0) {
            return Ok(());
        }
        let entry = channels.get_mut(channel);
        if let Some((offset, _)) = entry.and_then(|entry| entry.position.as_mut()) {
            *offset = publication.offset;
        }
        channel.clone_into(&mut publication.channel);
        match reader {
            Reader::Person => show::print(&publication.line())?,
            Reader::Program => {
                let json = serde_json::to_string(&publication);
                let json = json.map_err(|error| CliError::Failure(error.to_string()))?;
                show::print(&format!("{json}\n"))?;
            }
        }
        if let Some(left) = left {
            *left -= 1;
        }
        Ok(())
    }

    async fn subscribe(&mut self, channel: &str) -> Result<(), String> {
        let mut request = json!({"channel": channel, "recoverable": true});
        let entry = self.view.channels.get(channel);
        if let Some((offset, epoch)) = entry.and_then(|entry| entry.position.as_ref()) {
            request["recover"] = json!(true);
            request["offset"] = json!(offset);
            request["epoch"] = json!(epoch);
        }
        self.subscribing
            .insert(self.next_command, channel.to_owned());
        self.command("subscribe", &request).await
    }

    async fn command(&mut self, name: &str, request: &Value) -> Result<(), String> {
        let command = json!({"id": self.next_command, name: request});
        self.next_command += 1;
        let sent = self.websocket.send(command.to_string().as_str()).await;
        sent.map_err(|error| error.to_string())
    }

    /// How the server has closed the connection.
    fn closed(&self) -> Result<String, CliError> {
        let Some(closed) = self.websocket.closed() else {
            return Ok("closed without a word".to_owned());
        };
        let disconnect = Disconnect {
            code: closed.code.get().into(),
            reason: closed.reason.clone().into(),
        };
        let told = format!("{} ({})", clean(&disconnect.reason), disconnect.code);
        if disconnect.is_reconnectable() {
            return Ok(told);
        }
        let hint = if self.is_connected {
            ""
        } else {
            ". Without a token only anonymous clients get in, where they may: `tautline token` makes one, \
             TAUTLINE_TOKEN hands it over"
        };
        Err(CliError::Failure(format!(
            "the server ended the connection: {told}{hint}"
        )))
    }
}

/// Why there is no connection, with what the server said.
fn failure(error: &ConnectError) -> String {
    clean(&error.to_string())
}

/// Something that isn't a message of a channel.
fn notice(text: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// How long to wait before attempt number `attempt`: twice as long each time, and not the same for
/// all who lost their server at the same moment.
fn pause(attempt: u32) -> Duration {
    let longest = (250_u64 << attempt.min(6)).min(10_000);
    let mut random = [0; 2];
    // Without randomness it is the longest.
    let share = match getrandom::fill(&mut random) {
        Ok(()) => u64::from(u16::from_le_bytes(random)),
        Err(_) => u64::from(u16::MAX),
    };
    Duration::from_millis(longest / 2 + longest / 2 * share / u64::from(u16::MAX))
}
