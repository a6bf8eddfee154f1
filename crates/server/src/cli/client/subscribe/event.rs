//! What happens in a channel that is watched, and to the watcher.
//!
//! As JSON each is an object with its name in `event`, of which fields that say nothing are left out;
//! for a person it is a line of text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::client::show::{Publication, Who, clean, counted, named};

/// Something to be told.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    /// A connection is there.
    Connected {
        url: &'a str,
        client: &'a str,
    },
    /// A channel is watched from now on, or again.
    Subscribed {
        channel: &'a str,
        /// The client hasn't asked for it.
        #[serde(skip_serializing_if = "is_not")]
        by_server: bool,
        /// Where the channel stands, where that is told.
        #[serde(flatten)]
        position: Option<Position<'a>>,
        /// After a break nothing is missed.
        #[serde(skip_serializing_if = "is_not")]
        recoverable: bool,
        /// So many publications had been missed, and follow.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<usize>,
    },
    /// Who is there.
    Presence {
        channel: &'a str,
        num_clients: u64,
        num_users: u64,
        /// By the ids of their connections; absent where they are too many.
        #[serde(skip_serializing_if = "Option::is_none")]
        clients: Option<&'a BTreeMap<String, Who>>,
    },
    /// A message.
    Publication {
        /// Where it comes from, unless it was published just now.
        #[serde(rename = "from", skip_serializing_if = "Option::is_none")]
        source: Option<Source>,
        #[serde(flatten)]
        publication: &'a Publication,
    },
    Join {
        channel: &'a str,
        info: &'a Who,
    },
    Leave {
        channel: &'a str,
        info: &'a Who,
    },
    /// Publications are missing between these offsets. With no `before`, all up to where the channel stands.
    Gap {
        channel: &'a str,
        after: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
    },
    /// Something can't be seen.
    Refused {
        channel: &'a str,
        what: &'a str,
        code: u32,
        message: &'a str,
    },
    /// A channel is watched no more.
    Unsubscribed {
        channel: &'a str,
        code: u32,
        reason: &'a str,
    },
    /// The connection is gone, and another is tried for in so many milliseconds.
    Disconnected {
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u32>,
        reason: &'a str,
        retry_ms: u64,
    },
}

/// In a channel.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Position<'a> {
    pub(super) offset: u64,
    pub(super) epoch: &'a str,
}

/// Where a publication comes from that wasn't published just now.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// It was asked for.
    History,
    /// It was published while there was no connection, or since the position that was asked for.
    Recovery,
}

/// How an event is shown to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// What it is all about.
    Plain,
    Good,
    Dim,
    Warning,
}

impl Event<'_> {
    pub(super) fn channel(&self) -> Option<&str> {
        match self {
            Self::Connected { .. } | Self::Disconnected { .. } => None,
            Self::Publication { publication, .. } => Some(&publication.channel),
            Self::Subscribed { channel, .. }
            | Self::Presence { channel, .. }
            | Self::Join { channel, .. }
            | Self::Leave { channel, .. }
            | Self::Gap { channel, .. }
            | Self::Refused { channel, .. }
            | Self::Unsubscribed { channel, .. } => Some(channel),
        }
    }

    pub(super) fn tone(&self) -> Tone {
        match self {
            Self::Publication { source: None, .. } => Tone::Plain,
            Self::Connected { .. } | Self::Subscribed { .. } | Self::Join { .. } => Tone::Good,
            Self::Publication { .. } | Self::Presence { .. } | Self::Leave { .. } => Tone::Dim,
            Self::Gap { .. }
            | Self::Refused { .. }
            | Self::Unsubscribed { .. }
            | Self::Disconnected { .. } => Tone::Warning,
        }
    }

    /// What is told a person, behind the channel's name: no line's end.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Connected { url, client } => {
                format!("connected to {} as {}", clean(url), clean(client))
            }
            Self::Subscribed {
                by_server,
                position,
                recoverable,
                recovered,
                ..
            } => subscribed(*by_server, *position, *recoverable, *recovered),
            Self::Presence {
                num_clients,
                num_users,
                clients,
                ..
            } => presence(*num_clients, *num_users, *clients),
            Self::Publication { publication, .. } => publication.text(),
            Self::Join { info, .. } => format!("+ {} {}", named(&info.user), clean(&info.client)),
            Self::Leave { info, .. } => format!("- {} {}", named(&info.user), clean(&info.client)),
            Self::Gap { after, before, .. } => match before {
                Some(before) => format!(
                    "GAP: {} missing, between #{after} and #{before}",
                    counted(before - after - 1, "message is", "messages are")
                ),
                None => format!(
                    "GAP: what came behind #{after} can't be had any more; what is published from now on follows"
                ),
            },
            Self::Refused {
                what,
                code,
                message,
                ..
            } => {
                format!("no {what}: {} (error {code})", clean(message))
            }
            Self::Unsubscribed { code, reason, .. } => {
                format!("not watched any more: {} ({code})", clean(reason))
            }
            Self::Disconnected {
                code,
                reason,
                retry_ms,
            } => {
                let code = code.map_or_else(String::new, |code| format!(" ({code})"));
                let (seconds, tenths) = (retry_ms / 1000, retry_ms / 100 % 10);
                format!(
                    "the connection is gone: {}{code}; trying again in {seconds}.{tenths} s",
                    clean(reason)
                )
            }
        }
    }
}

fn subscribed(
    by_server: bool,
    position: Option<Position<'_>>,
    recoverable: bool,
    recovered: Option<usize>,
) -> String {
    let mut text = String::from("subscribed");
    if by_server {
        text.push_str(" by the server");
    }
    if let Some(Position { offset, epoch }) = position {
        let _ = write!(text, " at {offset}:{}", clean(epoch));
    }
    match recovered {
        Some(0) => text.push_str("; nothing was missed"),
        Some(count) => {
            let count = counted(count as u64, "message was", "messages were");
            let _ = write!(text, "; {count} missed, and follow");
        }
        None if !recoverable => {
            text.push_str("; what is published while the connection is broken will be missed");
        }
        None => {}
    }
    text
}

fn presence(clients: u64, users: u64, named_ones: Option<&BTreeMap<String, Who>>) -> String {
    let mut text = counted(clients, "connection", "connections");
    let _ = write!(text, " of {}", counted(users, "user", "users"));
    let Some(named_ones) = named_ones else {
        return text;
    };
    let mut times = BTreeMap::<&str, usize>::new();
    for who in named_ones.values() {
        *times.entry(&who.user).or_default() += 1;
    }
    for (number, (user, count)) in times.iter().take(SHOWN_USERS).enumerate() {
        text.push_str(if number == 0 { ": " } else { ", " });
        text.push_str(&named(user));
        if *count > 1 {
            let _ = write!(text, " \u{d7}{count}");
        }
    }
    if times.len() > SHOWN_USERS {
        let _ = write!(text, " and {} more", times.len() - SHOWN_USERS);
    }
    text
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands it over like that"
)]
fn is_not(flag: &bool) -> bool {
    !flag
}

/// So many users are told a person by name.
const SHOWN_USERS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: &str, client: &str) -> Who {
        serde_json::from_str(&format!(r#"{{"user":"{user}","client":"{client}"}}"#)).unwrap()
    }

    #[test]
    fn events_are_lines_for_programs_and_for_people() {
        let ann = who("ann", "8a3f");
        let all: BTreeMap<_, _> = [("ann", "a"), ("", "b"), ("ann", "c")]
            .map(|(user, client)| (client.to_owned(), who(user, client)))
            .into();
        let json = r#"{"data":{"a": 1},"offset":3,"tags":{"k":"v"},"info":{"user":"ann","client":"8a3f"}}"#;
        let mut publication: Publication = serde_json::from_str(json).unwrap();
        publication.channel = "chat".to_owned();
        let channel = "chat";
        let position = Some(Position {
            offset: 3,
            epoch: "e",
        });
        let subscribed = |position, by_server, recoverable, recovered| Event::Subscribed {
            channel,
            by_server,
            position,
            recoverable,
            recovered,
        };
        let gap = |after, before| Event::Gap {
            channel,
            after,
            before,
        };
        for (event, json, text) in [
            (
                Event::Connected {
                    url: "ws://h/x",
                    client: "8a3f\u{1b}[2J",
                },
                r#"{"event":"connected","url":"ws://h/x","client":"8a3f\u001b[2J"}"#,
                "connected to ws://h/x as 8a3f\u{fffd}[2J",
            ),
            (
                subscribed(position, false, true, None),
                r#"{"event":"subscribed","channel":"chat","offset":3,"epoch":"e","recoverable":true}"#,
                "subscribed at 3:e",
            ),
            (
                subscribed(position, true, true, Some(2)),
                r#"{"event":"subscribed","channel":"chat","by_server":true,"offset":3,"epoch":"e","recoverable":true,"recovered":2}"#,
                "subscribed by the server at 3:e; 2 messages were missed, and follow",
            ),
            (
                subscribed(None, false, false, None),
                r#"{"event":"subscribed","channel":"chat"}"#,
                "subscribed; what is published while the connection is broken will be missed",
            ),
            (
                Event::Presence {
                    channel,
                    num_clients: 3,
                    num_users: 2,
                    clients: Some(&all),
                },
                r#"{"event":"presence","channel":"chat","num_clients":3,"num_users":2,"clients":{"a":{"user":"ann","client":"a"},"b":{"user":"","client":"b"},"c":{"user":"ann","client":"c"}}}"#,
                "3 connections of 2 users: (anonymous), ann \u{d7}2",
            ),
            (
                Event::Publication {
                    source: Some(Source::History),
                    publication: &publication,
                },
                r#"{"event":"publication","from":"history","channel":"chat","offset":3,"data":{"a": 1},"info":{"user":"ann","client":"8a3f"},"tags":{"k":"v"}}"#,
                "#3 ann: {\"a\": 1}  k=v",
            ),
            (
                Event::Join {
                    channel,
                    info: &ann,
                },
                r#"{"event":"join","channel":"chat","info":{"user":"ann","client":"8a3f"}}"#,
                "+ ann 8a3f",
            ),
            (
                Event::Leave {
                    channel,
                    info: &ann,
                },
                r#"{"event":"leave","channel":"chat","info":{"user":"ann","client":"8a3f"}}"#,
                "- ann 8a3f",
            ),
            (
                gap(3, Some(5)),
                r#"{"event":"gap","channel":"chat","after":3,"before":5}"#,
                "GAP: 1 message is missing, between #3 and #5",
            ),
            (
                gap(3, None),
                r#"{"event":"gap","channel":"chat","after":3}"#,
                "GAP: what came behind #3 can't be had any more; what is published from now on follows",
            ),
            (
                Event::Refused {
                    channel,
                    what: "history",
                    code: 103,
                    message: "permission denied",
                },
                r#"{"event":"refused","channel":"chat","what":"history","code":103,"message":"permission denied"}"#,
                "no history: permission denied (error 103)",
            ),
            (
                Event::Disconnected {
                    code: Some(4000),
                    reason: "moving",
                    retry_ms: 1260,
                },
                r#"{"event":"disconnected","code":4000,"reason":"moving","retry_ms":1260}"#,
                "the connection is gone: moving (4000); trying again in 1.2 s",
            ),
        ] {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
            assert_eq!(event.text(), text);
        }
    }
}
