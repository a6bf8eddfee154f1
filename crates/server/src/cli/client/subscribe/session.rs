//! One connection of a watcher: commands out, replies and pushes in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_protocol::ErrorCode;
use tautline_protocol::message::Disconnect;
use tautline_websocket::conn::{ClientStream, WebSocket};
use tautline_websocket::proto::Message;
use tokio::time::Instant;

use super::event::{Event, Position, Source};
use super::wire::{Connected, Page, Presence, Push, Refusal, Reply, Subscribed};
use super::{Ended, View};
use crate::cli::client::call::call;
use crate::cli::client::show::{Stats, Who, clean};
use crate::cli::error::CliError;

pub(super) struct Session<'a, 'v> {
    websocket: WebSocket<ClientStream>,
    view: &'v mut View<'a>,
    url: String,
    is_connected: bool,
    answers_pings: bool,
    /// Nothing for so long means that the line is dead.
    patience: Duration,
    /// What each command was, by number.
    asked: BTreeMap<u64, Asked>,
    next_command: u64,
}

/// What was asked, and about which channel.
enum Asked {
    Connect,
    Subscribe(String),
    PresenceStats(String),
    Presence(String, Stats),
    History(String),
}

/// What a message has done to the connection: `Some` if it is of no use any more.
type After = Result<Option<Ended>, CliError>;

impl<'a, 'v> Session<'a, 'v> {
    pub(super) fn new(websocket: WebSocket<ClientStream>, view: &'v mut View<'a>) -> Self {
        Self {
            websocket,
            view,
            url: String::new(),
            is_connected: false,
            answers_pings: false,
            patience: Duration::from_secs(30),
            asked: BTreeMap::new(),
            next_command: 1,
        }
    }

    /// Whether the server has let it in.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Runs until the connection ends, and says how it did.
    ///
    /// # Errors
    ///
    /// Where there is no use in trying again.
    pub(super) async fn run(&mut self, url: &str, token: &str) -> Result<Ended, CliError> {
        url.clone_into(&mut self.url);
        // Those which the server subscribes by itself go on where they were.
        let of_server = self.view.channels.iter_mut().filter_map(|(name, entry)| {
            // What was waited for is asked for again.
            entry.held = None;
            let (offset, epoch) = entry.position.as_ref().filter(|_| entry.is_by_server)?;
            let position = json!({"recover": true, "offset": offset, "epoch": epoch});
            Some((name.clone(), position))
        });
        let subs: serde_json::Map<_, _> = of_server.collect();
        let connect =
            json!({"token": token, "subs": subs, "name": "tautline", "version": crate::VERSION});
        if let Some(gone) = self.ask(Asked::Connect, "connect", &connect).await {
            return Ok(gone);
        }
        let let_in_until = Instant::now() + self.patience;
        loop {
            // Whatever else it says meanwhile.
            let patience = match self.is_connected {
                true => self.patience,
                false => let_in_until.saturating_duration_since(Instant::now()),
            };
            let received = tokio::time::timeout(patience, self.websocket.recv()).await;
            let message = match received {
                Err(_elapsed) => return Ok(Ended::by("no sign of life")),
                Ok(Err(error)) => return Ok(Ended::by(error.to_string())),
                Ok(Ok(None)) => return self.closed(),
                Ok(Ok(Some(message))) => message,
            };
            let Message::Text(text) = message else {
                return Ok(Ended::by("a message that is no text"));
            };
            for line in text.lines() {
                if let Some(ended) = self.take(line).await? {
                    return Ok(ended);
                }
                if self.view.left == Some(0) {
                    return Ok(Ended::by(""));
                }
            }
        }
    }

    async fn take(&mut self, line: &str) -> After {
        if line == "{}" {
            if self.answers_pings
                && let Err(error) = self.websocket.send("{}").await
            {
                return Ok(Some(Ended::by(error.to_string())));
            }
            return Ok(None);
        }
        let Ok(reply) = serde_json::from_str::<Reply>(line) else {
            return Ok(Some(Ended::by("a message that can't be read")));
        };
        if let Some(push) = reply.push {
            return self.pushed(push).await;
        }
        let Some(asked) = self.asked.remove(&reply.id) else {
            return Ok(None);
        };
        if let Some(refusal) = reply.error {
            return self.refused(asked, &refusal).await;
        }
        match asked {
            Asked::Connect => match reply.connect {
                Some(connected) => self.connected(connected).await,
                None => Ok(None),
            },
            Asked::Subscribe(channel) => {
                let subscribed = reply.subscribe.unwrap_or_default();
                self.subscribed(&channel, subscribed, false).await
            }
            Asked::PresenceStats(channel) => match reply.presence_stats {
                Some(stats) => self.counted(channel, stats).await,
                None => Ok(None),
            },
            Asked::Presence(channel, stats) => {
                let presence = reply.presence.map(|Presence { presence }| presence);
                self.tell_presence(&channel, &stats, presence.as_ref())?;
                Ok(None)
            }
            Asked::History(channel) => {
                if let Some(page) = reply.history {
                    self.tell_history(&channel, page)?;
                }
                Ok(None)
            }
        }
    }

    async fn connected(&mut self, connected: Connected) -> After {
        let Connected {
            client,
            ping,
            pong,
            subs,
        } = connected;
        self.is_connected = true;
        self.answers_pings = pong;
        // Without pings, nothing tells a dead line from a quiet channel.
        self.patience = match ping {
            0 => Duration::MAX,
            ping => Duration::from_secs(ping).saturating_add(GRACE),
        };
        self.view.output.tell(&Event::Connected {
            url: &self.url,
            client: &client,
        })?;
        let own: Vec<_> = self.view.channels.keys().cloned().collect();
        let own = own.into_iter().filter(|name| !subs.contains_key(name));
        for channel in own.collect::<Vec<_>>() {
            if let Some(gone) = self.subscribe(&channel).await {
                return Ok(Some(gone));
            }
        }
        for (channel, subscribed) in subs {
            if let Some(gone) = self.subscribed(&channel, subscribed, true).await? {
                return Ok(Some(gone));
            }
        }
        Ok(None)
    }

    async fn subscribed(
        &mut self,
        channel: &str,
        subscribed: Subscribed,
        by_server: bool,
    ) -> After {
        let Subscribed {
            recoverable,
            positioned,
            epoch,
            offset,
            was_recovering,
            recovered,
            publications,
        } = subscribed;
        let entry = self.view.channels.entry(channel.to_owned()).or_default();
        entry.is_by_server = by_server;
        let before = entry.position.take();
        let is_told = recoverable || positioned;
        let is_whole = was_recovering && recovered;
        entry.position = match &before {
            // It goes on from there, one by one.
            Some((at, _)) if is_whole => Some((*at, epoch.clone())),
            _ => recoverable.then(|| (offset, epoch.clone())),
        };
        // Gaps are looked for in what is recovered, too.
        entry.last = match &before {
            Some((at, _)) if is_whole => Some(*at),
            _ => None,
        };
        if entry.wants_history {
            entry.held = Some(super::Held::default());
        }
        let wants_history = entry.wants_history;
        self.view.output.tell(&Event::Subscribed {
            channel,
            by_server,
            position: is_told.then_some(Position {
                offset,
                epoch: &epoch,
            }),
            recoverable,
            recovered: is_whole.then_some(publications.len()),
        })?;
        if let Some((after, _)) = before
            && !is_whole
        {
            self.view.output.tell(&Event::Gap {
                channel,
                after,
                before: None,
            })?;
        }
        for publication in publications {
            self.view
                .take(channel, publication, Some(Source::Recovery))?;
        }
        if let Some(entry) = self.view.channels.get_mut(channel)
            && is_told
        {
            entry.last = Some(offset);
        }
        if wants_history {
            let limit = self.view.history.unwrap_or_default();
            let request = json!({"channel": channel, "limit": limit, "reverse": true});
            let asked = Asked::History(channel.to_owned());
            if let Some(gone) = self.ask(asked, "history", &request).await {
                return Ok(Some(gone));
            }
        }
        if self.view.output.shows_presence() {
            let asked = Asked::PresenceStats(channel.to_owned());
            let request = json!({"channel": channel});
            return Ok(self.ask(asked, "presence_stats", &request).await);
        }
        Ok(None)
    }

    async fn pushed(&mut self, push: Push) -> After {
        let Push {
            channel,
            r#pub,
            join,
            leave,
            subscribe,
            unsubscribe,
        } = push;
        let channel = &*channel;
        if let Some(publication) = r#pub {
            self.view.take(channel, publication, None)?;
        }
        if let Some(join) = join {
            let info = &join.info;
            self.view.output.tell(&Event::Join { channel, info })?;
        }
        if let Some(leave) = leave {
            let info = &leave.info;
            self.view.output.tell(&Event::Leave { channel, info })?;
        }
        if let Some(subscribed) = subscribe {
            return self.subscribed(channel, subscribed, true).await;
        }
        match unsubscribe {
            // The client is to subscribe again.
            Some(ended) if ended.code >= 2500 => Ok(self.subscribe(channel).await),
            Some(ended) => {
                let told = format!("{} ({})", clean(&ended.reason), ended.code);
                self.unsubscribed(channel, ended.code, &ended.reason, &told)?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    async fn refused(&mut self, asked: Asked, refusal: &Refusal) -> After {
        let Refusal {
            code,
            message,
            temporary,
        } = refusal;
        let told = format!("{} (error {code})", clean(message));
        match asked {
            Asked::Connect | Asked::Subscribe(_) if *temporary => Ok(Some(Ended::by(told))),
            Asked::Connect => Err(CliError::Failure(format!(
                "the server refused the connection: {told}"
            ))),
            // The server has done it by itself, meanwhile.
            Asked::Subscribe(_) if *code == ErrorCode::AlreadySubscribed.number() => Ok(None),
            Asked::Subscribe(channel) => {
                self.unsubscribed(&channel, *code, message, &told)?;
                Ok(None)
            }
            Asked::PresenceStats(channel) | Asked::Presence(channel, _) => {
                self.presence_by_key(&channel).await?;
                Ok(None)
            }
            Asked::History(channel) => {
                self.history_by_key(&channel, refusal).await?;
                Ok(None)
            }
        }
    }

    /// A channel is not watched any more. With the last, there is nothing to wait for.
    fn unsubscribed(
        &mut self,
        channel: &str,
        code: u32,
        reason: &str,
        told: &str,
    ) -> Result<(), CliError> {
        self.view.channels.remove(channel);
        if self.view.channels.is_empty() {
            let channel = clean(channel);
            return Err(CliError::Failure(format!(
                "not subscribed to {channel}: {told}"
            )));
        }
        self.view.output.tell(&Event::Unsubscribed {
            channel,
            code,
            reason,
        })
    }

    /// It is known how many are there. If they aren't too many, it is asked who.
    async fn counted(&mut self, channel: String, stats: Stats) -> After {
        if stats.num_clients > MOST_NAMED {
            self.tell_presence(&channel, &stats, None)?;
            return Ok(None);
        }
        let request = json!({"channel": channel});
        let asked = Asked::Presence(channel, stats);
        Ok(self.ask(asked, "presence", &request).await)
    }

    /// As the application's backend sees it, where somebody may.
    async fn presence_by_key(&mut self, channel: &str) -> Result<(), CliError> {
        let Some(api) = self.view.api else {
            return Ok(());
        };
        let request = json!({"channel": channel});
        // That there is none is no news: the client was told already.
        let Ok(stats) = call(api, "presence_stats", &request).await else {
            return Ok(());
        };
        let Ok(stats) = serde_json::from_str::<Stats>(stats.get()) else {
            return Ok(());
        };
        let mut list = None;
        if stats.num_clients <= MOST_NAMED
            && let Ok(presence) = call(api, "presence", &request).await
        {
            list = serde_json::from_str::<Presence>(presence.get()).ok();
        }
        let list = list.map(|Presence { presence }| presence);
        self.tell_presence(channel, &stats, list.as_ref())
    }

    fn tell_presence(
        &self,
        channel: &str,
        stats: &Stats,
        clients: Option<&BTreeMap<String, Who>>,
    ) -> Result<(), CliError> {
        self.view.output.tell(&Event::Presence {
            channel,
            num_clients: stats.num_clients,
            num_users: stats.num_users,
            clients,
        })
    }

    /// As the application's backend sees it, where somebody may.
    async fn history_by_key(&mut self, channel: &str, refusal: &Refusal) -> Result<(), CliError> {
        let mut why = (refusal.code, refusal.message.clone());
        if let Some(api) = self.view.api {
            let limit = self.view.history.unwrap_or_default();
            let request = json!({"channel": channel, "limit": limit, "reverse": true});
            let page = call(api, "history", &request).await;
            match page.map(|page| serde_json::from_str::<Page>(page.get())) {
                Ok(Ok(page)) => return self.tell_history(channel, page),
                Ok(Err(error)) => why.1 = error.to_string(),
                Err(error) if api.key.is_some() => why.1 = error.to_string(),
                // There was no key that could be wrong.
                Err(_) => {}
            }
        }
        let (code, message) = why;
        self.view.output.tell(&Event::Refused {
            channel,
            what: "history",
            code,
            message: &message,
        })?;
        self.view.go_on_without_history(channel)
    }

    fn tell_history(&mut self, channel: &str, page: Page) -> Result<(), CliError> {
        let Page {
            publications,
            epoch,
            offset,
        } = page;
        self.view
            .show_history(channel, publications, (offset, epoch))
    }

    async fn subscribe(&mut self, channel: &str) -> Option<Ended> {
        let mut request = json!({"channel": channel, "recoverable": true, "join_leave": true});
        let entry = self.view.channels.get(channel);
        if let Some((offset, epoch)) = entry.and_then(|entry| entry.position.as_ref()) {
            request["recover"] = json!(true);
            request["offset"] = json!(offset);
            request["epoch"] = json!(epoch);
        }
        let asked = Asked::Subscribe(channel.to_owned());
        self.ask(asked, "subscribe", &request).await
    }

    /// Sends a command. `Some` if that can't be done any more.
    async fn ask(&mut self, asked: Asked, name: &str, request: &Value) -> Option<Ended> {
        // It can have subscribed to whatever it likes, and had this ask about each.
        if self.asked.len() >= MOST_ASKED || self.view.channels.len() > MOST_CHANNELS {
            return Some(Ended::by("more is subscribed than can be asked about"));
        }
        self.asked.insert(self.next_command, asked);
        let command = json!({"id": self.next_command, name: request});
        self.next_command += 1;
        let sent = self.websocket.send(command.to_string().as_str()).await;
        sent.err().map(|error| Ended::by(error.to_string()))
    }

    /// How the server has closed the connection.
    fn closed(&self) -> Result<Ended, CliError> {
        let Some(closed) = self.websocket.closed() else {
            return Ok(Ended::by("closed without a word"));
        };
        let disconnect = Disconnect {
            code: closed.code.get().into(),
            reason: closed.reason.clone().into(),
        };
        if disconnect.is_reconnectable() {
            return Ok(Ended {
                code: Some(disconnect.code),
                reason: disconnect.reason.into_owned(),
            });
        }
        let hint = if self.is_connected {
            ""
        } else {
            ". Without a token only anonymous clients get in, where they may: `tautline token` makes one, \
             TAUTLINE_TOKEN hands it over"
        };
        Err(CliError::Failure(format!(
            "the server ended the connection: {} ({}){hint}",
            clean(&disconnect.reason),
            disconnect.code
        )))
    }
}

/// Beyond the time between two pings.
const GRACE: Duration = Duration::from_secs(10);

/// So many commands may wait for their answers; a few for each channel.
const MOST_ASKED: usize = 10_000;

/// So many channels can be watched.
const MOST_CHANNELS: usize = 10_000;

/// Of so many it is asked who they are, not only how many.
const MOST_NAMED: u64 = 100;

#[cfg(test)]
mod tests {
    use tautline_websocket::conn::{AcceptOptions, ConnectOptions, accept, connect};
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::client::args::{ApiArgs, ServerArgs, SubscribeArgs};

    /// In simulated time: one that pings, and never says whether the client is in.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_lets_nobody_in_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it listens");
        let serve = async {
            let (stream, _) = listener.accept().await.expect("a client");
            // Simulated time goes on while a segment waits for what real time brings.
            stream.set_nodelay(true).expect("a connection");
            let accepted = accept(stream, &AcceptOptions::default()).await;
            let mut socket = accepted.expect("a WebSocket").websocket;
            for _ in 0..100 {
                socket.send("{}").await.expect("it listens");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let watch = async {
            let args = SubscribeArgs {
                channels: vec!["chat".to_owned()],
                history: None,
                since: None,
                count: None,
                data: true,
                token: None,
                api: ApiArgs {
                    server: ServerArgs::at(format!("http://{address}")),
                    key: None,
                },
            };
            let mut view = View::new(&args, None);
            let url = format!("ws://{address}/");
            let connected = connect(&url, &ConnectOptions::default()).await;
            let connected = connected.expect("a WebSocket");
            let mut session = Session::new(connected.websocket, &mut view);
            session.run(&url, "").await.expect("it is worth another")
        };
        let ended = tokio::select! {
            ended = watch => ended,
            () = serve => panic!("it is still there"),
        };
        assert_eq!(ended.reason, "no sign of life");
    }
}
