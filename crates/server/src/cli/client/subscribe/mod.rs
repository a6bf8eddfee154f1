//! `tautline subscribe`: a client that shows what goes on in channels, as it happens.
//!
//! It speaks the client protocol in JSON, answers pings, and comes back when the connection breaks,
//! from where it was in each channel. What it sees are events ([`event`]); [`output`] shows them.

mod event;
mod output;
mod session;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use tautline_protocol::ErrorCode;
use tautline_websocket::conn::{ConnectError, ConnectOptions, connect};
use tautline_websocket::proto::Limits;

use self::event::{Event, Source};
use self::output::Output;
use self::session::Session;
use super::args::{ApiArgs, SubscribeArgs};
use super::call::{MAX_ANSWER, Server};
use super::show::{Publication, clean};
use crate::cli::error::CliError;

/// Shows what goes on, until Ctrl-C or until there is nothing more to wait for.
pub(super) async fn run(args: &SubscribeArgs) -> Result<(), CliError> {
    tokio::select! {
        outcome = watch(args) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn watch(args: &SubscribeArgs) -> Result<(), CliError> {
    if args.since.is_some() && args.channels.len() > 1 {
        return Err(CliError::Usage(
            "--since is a position in one channel: name one channel only".to_owned(),
        ));
    }
    let server = Server::new(&args.api.server.url)?;
    let may_ask = args.api.key.is_some() || server.is_loopback();
    let mut view = View::new(args, may_ask.then_some(&args.api));
    let mut attempt = 0;
    let mut was_connected = false;
    let options = ConnectOptions {
        // A page of history is one message.
        limits: Limits::for_messages(MAX_ANSWER),
        ..ConnectOptions::default()
    };
    loop {
        let url = server.websocket_url();
        let ended = match connect(&url, &options).await {
            Ok(connected) => {
                let token = args.token.as_deref().unwrap_or_default();
                let mut session = Session::new(connected.websocket, &mut view);
                let ended = session.run(&url, token).await;
                if session.is_connected() {
                    (was_connected, attempt) = (true, 0);
                }
                ended?
            }
            // Who has never been there has the wrong address, most likely.
            Err(error) if !was_connected => return Err(server.unreachable(&failure(&error))),
            Err(error) => Ended::by(failure(&error)),
        };
        if view.left == Some(0) {
            return Ok(());
        }
        attempt += 1;
        let pause = pause(attempt);
        view.output.tell(&Event::Disconnected {
            code: ended.code,
            reason: &ended.reason,
            retry_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        })?;
        tokio::time::sleep(pause).await;
    }
}

/// How a connection has ended that is worth another one.
struct Ended {
    /// What the server has closed it with.
    code: Option<u32>,
    reason: String,
}

impl Ended {
    /// Without the server having said anything.
    fn by(reason: impl Into<String>) -> Self {
        Self {
            code: None,
            reason: reason.into(),
        }
    }
}

/// What is watched, and how far it has got: what outlives a connection.
struct View<'a> {
    output: Output,
    /// How many publications are still to be shown, if not all.
    left: Option<u64>,
    /// How many old publications are shown first.
    history: Option<u32>,
    /// Who may look at what the client may not see, if anybody.
    api: Option<&'a ApiArgs>,
    channels: BTreeMap<String, Channel>,
}

/// A channel that is watched.
#[derive(Default)]
struct Channel {
    /// Where it can go on after a break, if it can: behind what has been shown.
    position: Option<(u64, String)>,
    /// Offset of what was seen last, by which gaps are noticed.
    last: Option<u64>,
    /// The server has subscribed it by itself.
    is_by_server: bool,
    /// Old publications are still to be shown.
    wants_history: bool,
    /// What comes in while they are waited for.
    held: Option<Held>,
}

/// Publications that are shown later.
#[derive(Default)]
struct Held {
    all: Vec<(Publication, Option<Source>)>,
    /// About so many bytes.
    bytes: usize,
}

impl Held {
    /// Whether there is room for more.
    fn has_room(&self) -> bool {
        self.bytes < MOST_HELD
    }

    fn push(&mut self, publication: Publication, source: Option<Source>) {
        // What a publication takes beside its data.
        const EACH: usize = 256;
        let length = publication.data().len().saturating_add(EACH);
        self.bytes = self.bytes.saturating_add(length);
        self.all.push((publication, source));
    }
}

impl<'a> View<'a> {
    fn new(args: &SubscribeArgs, api: Option<&'a ApiArgs>) -> Self {
        let channel = || Channel {
            position: args.since.clone(),
            wants_history: args.history.is_some(),
            ..Channel::default()
        };
        let channels = args.channels.iter();
        Self {
            output: Output::new(args),
            left: args.count,
            history: args.history,
            api,
            channels: channels.map(|name| (name.clone(), channel())).collect(),
        }
    }

    /// Shows a publication, unless something older has to be shown first.
    fn take(
        &mut self,
        name: &str,
        publication: Publication,
        source: Option<Source>,
    ) -> Result<(), CliError> {
        let entry = self.channels.get_mut(name);
        let Some(held) = entry.and_then(|entry| entry.held.as_mut()) else {
            return self.show(name, publication, source);
        };
        held.push(publication, source);
        if held.has_room() {
            return Ok(());
        }
        // A server that doesn't answer is not waited for at any price.
        self.output.tell(&Event::Refused {
            channel: name,
            what: "history",
            code: ErrorCode::Internal.number(),
            message: "too much was published before the answer came",
        })?;
        self.go_on_without_history(name)
    }

    fn show(
        &mut self,
        name: &str,
        mut publication: Publication,
        source: Option<Source>,
    ) -> Result<(), CliError> {
        if self.left == Some(0) {
            return Ok(());
        }
        let offset = publication.offset;
        if let Some(entry) = self.channels.get_mut(name)
            && offset > 0
        {
            let last = entry.last.replace(offset);
            if let Some((shown, _)) = &mut entry.position {
                *shown = offset.max(*shown);
            }
            if let Some(last) = last
                && offset > last.saturating_add(1)
            {
                self.output.tell(&Event::Gap {
                    channel: name,
                    after: last,
                    before: Some(offset),
                })?;
            }
        }
        name.clone_into(&mut publication.channel);
        let event = Event::Publication {
            source,
            publication: &publication,
        };
        self.output.tell(&event)?;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }

    /// Shows the old ones, the newest first in `page`, and then what has come in meanwhile.
    fn show_history(
        &mut self,
        name: &str,
        page: Vec<Publication>,
        (top, epoch): (u64, String),
    ) -> Result<(), CliError> {
        // It was given up, and what came in since was shown.
        let entry = self.channels.get(name);
        if entry.is_some_and(|entry| !entry.wants_history) {
            return Ok(());
        }
        let held = self.channels.get_mut(name).map(|entry| {
            entry.wants_history = false;
            entry.last = None;
            entry.held.take().unwrap_or_default()
        });
        for publication in page.into_iter().rev() {
            self.show(name, publication, Some(Source::History))?;
        }
        if let Some(entry) = self.channels.get_mut(name) {
            entry.last = Some(top);
            if let Some(position) = &mut entry.position {
                *position = (top.max(position.0), epoch);
            }
        }
        for (publication, source) in held.unwrap_or_default().all {
            // The page has it already.
            if publication.offset == 0 || publication.offset > top {
                self.show(name, publication, source)?;
            }
        }
        Ok(())
    }

    /// There is no history to be had. Goes on with what has come in meanwhile.
    fn go_on_without_history(&mut self, name: &str) -> Result<(), CliError> {
        let held = self.channels.get_mut(name).and_then(|entry| {
            entry.wants_history = false;
            entry.held.take()
        });
        for (publication, source) in held.unwrap_or_default().all {
            self.show(name, publication, source)?;
        }
        Ok(())
    }
}

/// So many bytes of publications may wait for the older ones of their channel.
const MOST_HELD: usize = 16 * 1024 * 1024;

/// Why there is no connection, with what the server said.
fn failure(error: &ConnectError) -> String {
    clean(&error.to_string())
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
