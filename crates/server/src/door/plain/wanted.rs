//! What a client asks for, in the parameters of an address and a few headers.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use http::HeaderMap;
use serde_json::json;

use crate::http::query::Query;

/// The cookie in which a token may come.
const COOKIE: &str = "tautline_token";

/// The parameters of which there may be several, where a client listens.
pub(crate) const REPEATED: [&str; 2] = ["channel", "since"];

/// A position in a channel that has none, as an event's id has to have something there.
pub(crate) const NO_POSITION: &str = "-";

/// The header in which an `EventSource` says what it has got (the HTML standard, section 9.2).
const LAST_EVENT_ID: &str = "last-event-id";

/// A place in a channel's stream, written `offset,epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
}

impl Position {
    /// Reads `offset,epoch`.
    ///
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once(',').and_then(|(offset, epoch)| {
            let offset = offset.parse().ok()?;
            Some((offset, epoch)).filter(|_| !epoch.is_empty())
        });
        let (offset, epoch) = parts.ok_or_else(|| {
            format!(
                "expected a position `offset,epoch` as it was told before, such as \
                 12,hKqPwZbd; got `{}`",
                shown(text, 64)
            )
        })?;
        Ok(Self {
            offset,
            epoch: epoch.to_owned(),
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.offset, self.epoch)
    }
}

/// A channel, and what the client has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) name: String,
    pub(crate) since: Option<Position>,
    /// It was here before and doesn't know where, so it is told that it may have missed something: what a browser
    /// comes back with has to open its `EventSource` in any case.
    pub(crate) is_lost: bool,
}

/// What a listener asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// At least one.
    pub(crate) channels: Vec<Channel>,
    /// Whether publications come with channel and position; `None` if the client doesn't say.
    pub(crate) envelope: Option<bool>,
}

impl Wanted {
    /// Reads `channel`, `since` and `envelope`: the nth `since` is the nth channel's.
    ///
    /// # Errors
    ///
    /// A sentence that says what was expected.
    pub(crate) fn parse(query: &Query<'_>, headers: &HeaderMap) -> Result<Self, String> {
        let names: Vec<_> = query.all("channel").collect();
        if names.is_empty() {
            return Err("expected a channel, as in ?channel=news; there is none".to_owned());
        }
        // There may be as many as a body has room for.
        let mut known = HashSet::with_capacity(names.len());
        for name in &names {
            check_channel(name)?;
            if !known.insert(*name) {
                return Err(format!("the channel `{}` is there twice", shown(name, 64)));
            }
        }
        // What an `EventSource` has got since it has the address counts, and not the address.
        let last = headers
            .get(LAST_EVENT_ID)
            .and_then(|id| id.to_str().ok())
            .filter(|id| !id.is_empty());
        if let Some(last) = last {
            return Ok(Self {
                channels: places(&names, last),
                envelope: flag(query, "envelope")?,
            });
        }
        let since: Vec<_> = query.all("since").collect();
        if since.len() > names.len() {
            return Err(format!(
                "expected at most one position for each channel: there are {} for {}",
                since.len(),
                names.len()
            ));
        }
        let mut since = since.into_iter();
        let channels = names.into_iter().map(|name| {
            let position = since.next().filter(|position| !position.is_empty());
            Ok(Channel {
                name: name.to_owned(),
                since: position.map(Position::parse).transpose()?,
                is_lost: false,
            })
        });
        Ok(Self {
            channels: channels.collect::<Result<_, String>>()?,
            envelope: flag(query, "envelope")?,
        })
    }

    /// Whether publications come with channel and position. Where there are several channels they do,
    /// unless the client has said otherwise.
    pub(crate) fn envelope_or(&self, default: bool) -> bool {
        self.envelope.unwrap_or(default || self.channels.len() > 1)
    }

    /// The commands of an SDK that would ask for the same.
    pub(crate) fn commands(&self, token: Option<&str>) -> String {
        let mut commands = connect_command(token);
        for (number, channel) in (FIRST_SUBSCRIBE..).zip(&self.channels) {
            commands.push('\n');
            commands.push_str(&subscribe_command(
                number,
                &channel.name,
                channel.since.as_ref(),
            ));
        }
        commands
    }
}

/// Where the id of an event says that a client was in its channels. What can't be read is no reason to refuse it: a
/// browser would never come back.
fn places(names: &[&str], id: &str) -> Vec<Channel> {
    let positions: Vec<_> = id.split(';').collect();
    let fits = positions.len() == names.len();
    let places = names.iter().enumerate().map(|(index, name)| {
        let position = positions.get(index).copied().unwrap_or_default();
        let since = Position::parse(position).ok().filter(|_| fits);
        Channel {
            name: (*name).to_owned(),
            // Empty is what was never told a position.
            is_lost: since.is_none() && !(fits && position.is_empty()),
            since,
        }
    });
    places.collect()
}

/// The one channel that is asked for.
pub(crate) fn channel<'q>(query: &'q Query<'_>) -> Result<&'q str, String> {
    let channel = query
        .first("channel")
        .ok_or("expected a channel, as in ?channel=news; there is none")?;
    check_channel(channel)?;
    Ok(channel)
}

fn check_channel(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("expected a channel, as in ?channel=news; its name is empty".to_owned());
    }
    Ok(())
}

/// The number of the command that subscribes to the first channel; the others follow.
pub(crate) const FIRST_SUBSCRIBE: u32 = 2;

/// Command 1: to connect.
pub(crate) fn connect_command(token: Option<&str>) -> String {
    let connect = match token {
        Some(token) => json!({"token": token}),
        None => json!({}),
    };
    json!({"id": 1, "connect": connect}).to_string()
}

/// To subscribe, with recovery from a position if there is one.
pub(crate) fn subscribe_command(number: u32, channel: &str, since: Option<&Position>) -> String {
    let mut subscribe = json!({"channel": channel, "positioned": true, "recoverable": true});
    if let Some(Position { offset, epoch }) = since {
        subscribe["recover"] = true.into();
        subscribe["offset"] = (*offset).into();
        subscribe["epoch"] = epoch.as_str().into();
    }
    json!({"id": number, "subscribe": subscribe}).to_string()
}

/// A parameter that is on or off.
pub(crate) fn flag(query: &Query<'_>, name: &str) -> Result<Option<bool>, String> {
    match query.first(name) {
        None => Ok(None),
        Some("" | "1" | "true") => Ok(Some(true)),
        Some("0" | "false") => Ok(Some(false)),
        Some(other) => Err(format!("{name} is `{}`; expected 1 or 0", shown(other, 20))),
    }
}

/// A parameter that is a number.
pub(crate) fn number(
    query: &Query<'_>,
    name: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, String> {
    let Some(text) = query.first(name) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(format!(
            "{name} is `{}`; expected a number from {} to {}",
            shown(text, 20),
            range.start(),
            range.end()
        )),
    }
}

/// Refuses parameters that this door doesn't know, as most of them are misspelt, and those that come twice, unless
/// they are among `repeated`: one of them would count for nothing.
pub(crate) fn check_names(
    query: &Query<'_>,
    known: &[&str],
    repeated: &[&str],
) -> Result<(), String> {
    for name in known {
        let count = query.all(name).count();
        if count > 1 && !repeated.contains(name) {
            return Err(format!(
                "expected the parameter `{name}` once; it is there {count} times"
            ));
        }
    }
    match query.names().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(unknown) => Err(format!(
            "there is no parameter `{}` here; there are {}",
            shown(unknown, 64),
            known.join(", ")
        )),
    }
}

/// The beginning of what came, in which nothing looks like something else.
fn shown(text: &str, most: usize) -> String {
    text.chars()
        .take(most)
        .flat_map(char::escape_debug)
        .collect()
}

/// The token, wherever it comes: as a parameter, in `Authorization`, or in a cookie if that counts.
pub(crate) fn token(query: &Query<'_>, headers: &HeaderMap, cookies_count: bool) -> Option<String> {
    let bearer = || {
        let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned())
    };
    query
        .first("token")
        .map(str::to_owned)
        .or_else(bearer)
        .or_else(|| cookie_of(headers).filter(|_| cookies_count))
        .filter(|token| !token.is_empty())
}

/// The token in the cookies of a request.
pub(crate) fn cookie_of(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(http::header::COOKIE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .find_map(cookie)
}

/// The token in a `Cookie` header.
pub(crate) fn cookie(header: &str) -> Option<String> {
    header.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then(|| value.trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn wanted(query: &str, last: Option<&'static str>) -> Result<Wanted, String> {
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(last));
        }
        Wanted::parse(&Query::parse(Some(query)).unwrap(), &headers)
    }

    fn channel(name: &str, since: Option<(u64, &str)>) -> Channel {
        Channel {
            name: name.to_owned(),
            since: since.map(|(offset, epoch)| Position {
                offset,
                epoch: epoch.to_owned(),
            }),
            is_lost: false,
        }
    }

    #[test]
    fn channels_have_positions_by_their_order() {
        let all = "channel=a&since=1,x&channel=b&channel=c&since=&since=3,y";
        for (query, last, expected) in [
            ("channel=a", None, vec![channel("a", None)]),
            (
                "since=7,x&channel=a",
                None,
                vec![channel("a", Some((7, "x")))],
            ),
            (
                all,
                None,
                vec![
                    channel("a", Some((1, "x"))),
                    channel("b", None),
                    channel("c", Some((3, "y"))),
                ],
            ),
            // What the browser says is newer than the address.
            (
                "channel=a&since=1,x&channel=b",
                Some("5,x;2,z"),
                vec![channel("a", Some((5, "x"))), channel("b", Some((2, "z")))],
            ),
            (
                "channel=a&channel=b",
                Some(";2,z"),
                vec![channel("a", None), channel("b", Some((2, "z")))],
            ),
        ] {
            assert_eq!(wanted(query, last).unwrap().channels, expected, "{query}");
        }
    }

    #[test]
    fn what_can_not_be_is_told() {
        for (query, part) in [
            ("", "channel"),
            ("channel=a&channel=a", "twice"),
            ("channel=a&since=1", "offset,epoch"),
            ("channel=a&since=x,y", "offset,epoch"),
            ("channel=a&since=1,", "offset,epoch"),
            ("channel=a&since=-1,x", "offset,epoch"),
            ("channel=a&since=1,x&since=2,x", "one position"),
            ("channel=a&envelope=maybe", "envelope"),
            ("channel=", "empty"),
            ("channel=a&channel=", "empty"),
        ] {
            let error = wanted(query, None).expect_err(query);
            assert!(error.contains(part), "{query}: {error}");
        }
        let query = Query::parse(Some("chanel=a")).unwrap();
        let error = check_names(&query, &["channel", "since"], &[]).unwrap_err();
        assert!(
            error.contains("`chanel`") && error.contains("channel, since"),
            "{error}"
        );
        let query = Query::parse(Some("channel=a&token=t&channel=b&token=u")).unwrap();
        let known = ["channel", "token"];
        let error = check_names(&query, &known, &REPEATED).unwrap_err();
        assert!(
            error.contains("`token` once") && error.contains("2 times"),
            "{error}"
        );
        let error = check_names(&query, &known, &[]).unwrap_err();
        assert!(error.contains("`channel` once"), "{error}");
    }

    #[test]
    fn whoever_comes_back_and_does_not_say_where_it_was_is_lost() {
        for (last, expected) in [
            ("5,x;2,z", [(Some(5), false), (Some(2), false)]),
            (";2,z", [(None, false), (Some(2), false)]),
            ("-;2,z", [(None, true), (Some(2), false)]),
            ("what;2,z", [(None, true), (Some(2), false)]),
            // The address is another page's by now.
            ("5,x", [(None, true), (None, true)]),
            ("5,x;2,z;3,y", [(None, true), (None, true)]),
        ] {
            let channels = wanted("channel=a&channel=b", Some(last)).unwrap().channels;
            let got = [&channels[0], &channels[1]].map(|channel| {
                let offset = channel.since.as_ref().map(|since| since.offset);
                (offset, channel.is_lost)
            });
            assert_eq!(got, expected, "{last}");
        }
    }

    #[test]
    fn a_token_comes_in_many_ways() {
        let token = |query: &str, fields: &[(&'static str, &'static str)], cookies| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            token(&Query::parse(Some(query)).unwrap(), &headers, cookies)
        };
        let cookie = ("cookie", "a=b; tautline_token=c; d=e");
        let bearer = ("authorization", "bearer b");
        assert_eq!(
            token("token=q", &[bearer, cookie], true).as_deref(),
            Some("q")
        );
        assert_eq!(token("", &[bearer, cookie], true).as_deref(), Some("b"));
        assert_eq!(token("", &[cookie], true).as_deref(), Some("c"));
        assert_eq!(token("", &[cookie], false), None);
        assert_eq!(token("", &[("authorization", "Basic x")], true), None);
        assert_eq!(
            token("", &[("cookie", "other_tautline_token=c")], true),
            None
        );
        assert_eq!(token("", &[], true), None);
    }

    #[test]
    fn commands_are_an_sdks() {
        let wanted = wanted("channel=a%0Ab&since=5,x&channel=%22", None).unwrap();
        let commands = wanted.commands(Some("t"));
        let lines: Vec<serde_json::Value> = commands
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0], json!({"id": 1, "connect": {"token": "t"}}));
        assert_eq!(lines[1]["subscribe"]["channel"], "a\nb");
        assert_eq!(lines[1]["subscribe"]["recover"], true);
        assert_eq!(lines[1]["subscribe"]["offset"], 5);
        assert_eq!(lines[2]["subscribe"]["channel"], "\"");
        assert!(lines[2]["subscribe"].get("recover").is_none());
        assert_eq!(lines.len(), 3);
    }
}
