//! What a client with no SDK is told.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tautline_protocol::Disconnect;
use tokio::sync::oneshot;

use super::refusal::Refusal;
use super::wanted::{FIRST_SUBSCRIBE, Position, Wanted};
use crate::worker::voice::{Speech, Voice};

/// Says publications, either their data alone or in an envelope with channel and position.
pub(crate) struct Plain {
    envelope: bool,
    channels: Vec<Place>,
    /// Subscriptions that are not answered yet.
    outstanding: usize,
    /// Waits for them, if somebody does.
    opening: Option<oneshot::Sender<Result<(), Refusal>>>,
    is_over: bool,
}

/// Where a client is in a channel.
struct Place {
    name: String,
    /// Where it says it was.
    since: Option<Position>,
    offset: u64,
    /// Empty where there are no positions.
    epoch: String,
}

impl Plain {
    /// Tells `opening` whether all subscriptions have come about.
    pub(crate) fn new(
        wanted: &Wanted,
        envelope: bool,
        opening: Option<oneshot::Sender<Result<(), Refusal>>>,
    ) -> Self {
        let channels = wanted.channels.iter().map(|channel| Place {
            name: channel.name.clone(),
            since: channel.since.clone(),
            offset: 0,
            epoch: String::new(),
        });
        Self {
            envelope,
            channels: channels.collect(),
            outstanding: wanted.channels.len(),
            opening,
            is_over: false,
        }
    }

    fn on_subscribed(
        &mut self,
        index: usize,
        result: &Subscribed<'_>,
        speech: &mut Speech<'_>,
    ) -> Option<Disconnect> {
        let envelope = self.envelope;
        let place = self.channels.get_mut(index)?;
        (place.offset, place.epoch) = (result.offset, result.epoch.to_string());
        let since = place.since.take();
        if let Some(since) = since.filter(|_| !result.recovered) {
            // Without envelopes there is no place for anything but data, unless events have kinds.
            if !envelope && !speech.is_events() {
                let message = format!(
                    "what came behind {since} in {} is not kept any more: begin anew, without `since`",
                    place.name
                );
                return Some(self.refuse(Refusal::new(UNRECOVERABLE, message)));
            }
            self.say_gap(index, &since, speech);
        } else if envelope && !speech.is_events() {
            let place = &self.channels[index];
            let mut told = json!({"event": "subscribed", "channel": place.name});
            place.add_position(&mut told);
            speech.say(told.to_string().as_bytes());
        } else if !place.epoch.is_empty() && speech.is_events() {
            // An event without data sets what the browser comes back with.
            self.say_id(speech);
            speech.end_fields();
        }
        for publication in &result.publications {
            self.say_publication(index, publication, speech);
        }
        self.outstanding -= 1;
        if self.outstanding == 0
            && let Some(opening) = self.opening.take()
        {
            let _ = opening.send(Ok(()));
        }
        None
    }

    fn say_gap(&self, index: usize, since: &Position, speech: &mut Speech<'_>) {
        let place = &self.channels[index];
        let mut told = json!({
            "event": "gap",
            "channel": place.name,
            "since": since.to_string(),
        });
        place.add_position(&mut told);
        speech.field("event", b"gap");
        self.say_id(speech);
        speech.say(told.to_string().as_bytes());
    }

    fn say_publication(
        &mut self,
        index: usize,
        publication: &Publication<'_>,
        speech: &mut Speech<'_>,
    ) {
        let place = &mut self.channels[index];
        if publication.offset > 0 {
            place.offset = publication.offset;
        }
        if !place.epoch.is_empty() {
            self.say_id(speech);
        }
        if !self.envelope {
            return speech.say(publication.data.get().as_bytes());
        }
        let place = &self.channels[index];
        let mut told = json!({"channel": place.name}).to_string();
        told.pop();
        if !place.epoch.is_empty() {
            let epoch = json!(place.epoch);
            told.push_str(&format!(
                r#","offset":{},"epoch":{epoch}"#,
                publication.offset
            ));
        }
        let fields = [
            ("data", Some(publication.data)),
            ("info", publication.info),
            ("tags", publication.tags),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                told.push_str(&format!(r#","{name}":{}"#, value.get()));
            }
        }
        told.push('}');
        speech.say(told.as_bytes());
    }

    /// Where the client is in all of its channels, in their order.
    fn say_id(&self, speech: &mut Speech<'_>) {
        if speech.is_events() {
            let positions: Vec<_> = self.channels.iter().map(Place::position).collect();
            speech.field("id", positions.join(";").as_bytes());
        }
    }

    /// A command was not executed: while the client is coming in that is the end.
    fn on_error(
        &mut self,
        id: u32,
        failure: &Failure<'_>,
        speech: &mut Speech<'_>,
    ) -> Option<Disconnect> {
        let index = id.checked_sub(FIRST_SUBSCRIBE).map(|index| index as usize);
        let channel = index.and_then(|index| self.channels.get(index));
        let is_entry = id < FIRST_SUBSCRIBE || channel.is_some();
        let message = match channel {
            Some(place) => format!("{}: {}", place.name, failure.message),
            None => failure.message.to_string(),
        };
        if is_entry || !self.envelope {
            return Some(self.refuse(Refusal::new(failure.code, message)));
        }
        let told = json!({"event": "error", "code": failure.code, "message": message});
        speech.say(told.to_string().as_bytes());
        None
    }

    fn refuse(&mut self, refusal: Refusal) -> Disconnect {
        self.is_over = true;
        let disconnect = refusal.to_disconnect();
        if let Some(opening) = self.opening.take() {
            let _ = opening.send(Err(refusal));
        }
        disconnect
    }
}

impl Voice for Plain {
    fn message(&mut self, message: &[u8], speech: &mut Speech<'_>) -> Option<Disconnect> {
        if self.is_over {
            return None;
        }
        if message == b"{}" {
            speech.keep_alive();
            return None;
        }
        // The hub's own, so it can be read.
        let reply: Reply<'_> = serde_json::from_slice(message).ok()?;
        if let Some(failure) = reply.error {
            return self.on_error(reply.id, &failure, speech);
        }
        if let Some(result) = reply.subscribe {
            let index = reply.id.checked_sub(FIRST_SUBSCRIBE)? as usize;
            return self.on_subscribed(index, &result, speech);
        }
        let push = reply.push?;
        let places = &self.channels;
        let index = places.iter().position(|place| place.name == push.channel)?;
        if let Some(publication) = push.publication {
            self.say_publication(index, &publication, speech);
        } else if let Some(end) = push.unsubscribe {
            self.is_over = true;
            // Clients of the protocol would subscribe again after the one, and not after the other.
            return Some(if end.code >= RESUBSCRIBE_FROM {
                Disconnect::INSUFFICIENT_STATE
            } else {
                Disconnect::FORCE_DISCONNECT
            });
        }
        None
    }

    fn end(&mut self, disconnect: &Disconnect, speech: &mut Speech<'_>) {
        if let Some(opening) = self.opening.take() {
            let _ = opening.send(Err(disconnect.into()));
            return;
        }
        if self.envelope || speech.is_events() {
            let told = json!({
                "event": "end",
                "code": disconnect.code,
                "reason": disconnect.reason,
            });
            speech.field("event", b"end");
            speech.say(told.to_string().as_bytes());
        }
    }
}

impl Place {
    fn position(&self) -> String {
        if self.epoch.is_empty() {
            return String::new();
        }
        format!("{},{}", self.offset, self.epoch)
    }

    fn add_position(&self, told: &mut serde_json::Value) {
        if !self.epoch.is_empty() {
            told["offset"] = self.offset.into();
            told["epoch"] = self.epoch.as_str().into();
        }
    }
}

/// Error 112 of the protocol.
const UNRECOVERABLE: u32 = 112;

/// Ends of subscriptions from this code on are temporary.
const RESUBSCRIBE_FROM: u32 = 2500;

/// What of a reply matters here.
#[derive(Deserialize)]
pub(super) struct Reply<'m> {
    #[serde(default)]
    pub(super) id: u32,
    #[serde(borrow)]
    pub(super) error: Option<Failure<'m>>,
    #[serde(borrow)]
    subscribe: Option<Subscribed<'m>>,
    #[serde(borrow)]
    pub(super) history: Option<&'m RawValue>,
    #[serde(borrow)]
    push: Option<Push<'m>>,
}

impl Reply<'_> {
    /// The end of the connection, if this is it.
    pub(super) fn disconnect(&self) -> Option<Disconnect> {
        let end = self.push.as_ref()?.disconnect.as_ref()?;
        Some(Disconnect {
            code: end.code,
            reason: end.reason.to_string().into(),
        })
    }

    /// Whether something was published.
    pub(super) fn is_publication(&self) -> bool {
        self.push
            .as_ref()
            .is_some_and(|push| push.publication.is_some())
    }

    /// Whether a subscription has come about.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribe.is_some()
    }
}

#[derive(Deserialize)]
pub(super) struct Failure<'m> {
    pub(super) code: u32,
    #[serde(borrow, default)]
    pub(super) message: Cow<'m, str>,
}

#[derive(Deserialize)]
struct Subscribed<'m> {
    #[serde(default)]
    offset: u64,
    #[serde(borrow, default)]
    epoch: Cow<'m, str>,
    #[serde(default)]
    recovered: bool,
    #[serde(borrow, default)]
    publications: Vec<Publication<'m>>,
}

#[derive(Deserialize)]
struct Push<'m> {
    #[serde(borrow, default)]
    channel: Cow<'m, str>,
    #[serde(borrow, rename = "pub")]
    publication: Option<Publication<'m>>,
    #[serde(borrow)]
    unsubscribe: Option<End<'m>>,
    #[serde(borrow)]
    disconnect: Option<End<'m>>,
}

#[derive(Deserialize)]
struct End<'m> {
    #[serde(default)]
    code: u32,
    #[serde(borrow, default)]
    reason: Cow<'m, str>,
}

#[derive(Deserialize)]
struct Publication<'m> {
    #[serde(borrow)]
    data: &'m RawValue,
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    tags: Option<&'m RawValue>,
    #[serde(borrow)]
    info: Option<&'m RawValue>,
}
