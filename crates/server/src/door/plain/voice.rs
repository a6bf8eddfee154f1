//! What a client with no SDK is told.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tautline_protocol::Disconnect;
use tokio::sync::oneshot;

use super::refusal::Refusal;
use super::wanted::{FIRST_SUBSCRIBE, NO_POSITION, Position, Wanted};
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
    /// It was somewhere and doesn't say where.
    is_lost: bool,
    is_subscribed: bool,
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
            is_lost: channel.is_lost,
            is_subscribed: false,
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
        place.is_subscribed = true;
        let since = place.since.take().filter(|_| !result.recovered);
        let since = since.map(|since| since.to_string());
        if let Some(since) = since.or_else(|| place.is_lost.then(|| NO_POSITION.to_owned())) {
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
            speech.say(&place.told("subscribed", None));
        } else if speech.is_events() {
            // An event without data sets what the browser comes back with: without it, that it was here at all would
            // not be known.
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

    fn say_gap(&self, index: usize, since: &str, speech: &mut Speech<'_>) {
        let told = self.channels[index].told("gap", Some(since));
        speech.field("event", b"gap");
        self.say_id(speech);
        speech.say(&told);
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
        speech.say(&told(&Ended {
            event: "error",
            code: failure.code,
            reason: None,
            message: Some(&message),
        }));
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
            say_end(speech, disconnect.code, &disconnect.reason);
        }
    }
}

impl Place {
    fn position(&self) -> String {
        match (self.is_subscribed, self.epoch.is_empty()) {
            (false, _) => String::new(),
            (true, true) => NO_POSITION.to_owned(),
            (true, false) => format!("{},{}", self.offset, self.epoch),
        }
    }

    /// What has come about in this channel.
    fn told(&self, event: &str, since: Option<&str>) -> Vec<u8> {
        let has_position = !self.epoch.is_empty();
        told(&Happened {
            event,
            channel: &self.name,
            since,
            offset: has_position.then_some(self.offset),
            epoch: has_position.then_some(&self.epoch),
        })
    }
}

/// Says why nothing more comes.
pub(super) fn say_end(speech: &mut Speech<'_>, code: u32, reason: &str) {
    speech.field("event", b"end");
    speech.say(&told(&Ended {
        event: "end",
        code,
        reason: Some(reason),
        message: None,
    }));
}

/// What has come about in a channel. The position is last, and its parts side by side, as in publications: scripts look
/// for it in the text.
#[derive(Serialize)]
struct Happened<'a> {
    event: &'a str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
}

/// What came to nothing, or to an end.
#[derive(Serialize)]
struct Ended<'a> {
    event: &'a str,
    code: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

fn told(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::http::query::Query;
    use crate::worker::voice::Framing;

    /// All that a client hears that asked for a channel, to these messages.
    fn heard(framing: Framing, query: &str, last: Option<&str>, messages: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert("last-event-id", last.parse().unwrap());
        }
        let wanted = Wanted::parse(&Query::parse(Some(query)).unwrap(), &headers).unwrap();
        let mut voice = Plain::new(&wanted, wanted.envelope_or(framing == Framing::Lines), None);
        let mut out = Vec::new();
        for message in messages {
            let mut speech = Speech::new(framing, &mut out);
            let end = voice.message(message.as_bytes(), &mut speech);
            assert_eq!(end, None, "{message}");
        }
        let end = Disconnect {
            code: 3001,
            reason: "shutdown".into(),
        };
        voice.end(&end, &mut Speech::new(framing, &mut out));
        String::from_utf8(out).unwrap()
    }

    /// A subscription with positions, and one without.
    const KEPT: &str = r#"{"id":2,"subscribe":{"recoverable":true,"offset":7,"epoch":"hKqPwZbd"}}"#;
    const PASSING: &str = r#"{"id":2,"subscribe":{}}"#;
    const NEWS: &str = r#"{"push":{"channel":"news","pub":{"data":1}}}"#;

    #[test]
    fn lines_are_as_the_book_has_them() {
        let query = "channel=news&since=1,another";
        assert_eq!(
            heard(Framing::Lines, query, None, &[KEPT]),
            "{\"event\":\"gap\",\"channel\":\"news\",\"since\":\"1,another\",\"offset\":7,\"epoch\":\"hKqPwZbd\"}\n\
             {\"event\":\"end\",\"code\":3001,\"reason\":\"shutdown\"}\n"
        );
        let subscribed = heard(Framing::Lines, "channel=news", None, &[KEPT]);
        assert!(
            subscribed.starts_with(
                "{\"event\":\"subscribed\",\"channel\":\"news\",\"offset\":7,\"epoch\":\"hKqPwZbd\"}\n"
            ),
            "{subscribed}"
        );
        let error = r#"{"id":9,"error":{"code":103,"message":"permission denied"}}"#;
        let refused = heard(Framing::Lines, "channel=news", None, &[PASSING, error]);
        let line = "{\"event\":\"error\",\"code\":103,\"message\":\"permission denied\"}\n";
        assert!(refused.contains(line), "{refused}");
    }

    #[test]
    fn whoever_comes_back_to_a_channel_without_positions_is_told_of_the_gap() {
        let end = "event: end\ndata: {\"event\":\"end\",\"code\":3001,\"reason\":\"shutdown\"}\n\n";
        assert_eq!(
            heard(Framing::Events, "channel=news", None, &[PASSING, NEWS]),
            format!("id: -\n\ndata: 1\n\n{end}")
        );
        assert_eq!(
            heard(Framing::Events, "channel=news", Some("-"), &[PASSING]),
            format!(
                "event: gap\nid: -\ndata: {{\"event\":\"gap\",\"channel\":\"news\",\"since\":\"-\"}}\n\n{end}"
            )
        );
        // History is kept by now.
        assert_eq!(
            heard(Framing::Events, "channel=news", Some("-"), &[KEPT]),
            format!(
                "event: gap\nid: 7,hKqPwZbd\ndata: {{\"event\":\"gap\",\"channel\":\"news\",\"since\":\"-\",\
                 \"offset\":7,\"epoch\":\"hKqPwZbd\"}}\n\n{end}"
            )
        );
    }
}
