//! What a request asks for: the first line of its body.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tautline_websocket::proto::MAX_REASON;

/// How long a poll waits that doesn't say, and how long it may.
pub(crate) const HOLD: Duration = Duration::from_secs(25);
const MAX_HOLD: u64 = 55;

/// The version that there is.
const VERSION: u64 = 1;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Open {
        /// Subprotocols that are offered: to the server behind a tunnel, or with a token among them.
        protocols: Vec<String>,
        /// What would stand behind the `?` of `/ws`, where the session is one of that door's.
        plain: Option<String>,
    },
    Poll {
        session: String,
        number: u64,
        hold: Duration,
        /// Whether the answer goes on, with what comes while it is held.
        goes_on: bool,
    },
    Send {
        session: String,
        number: u64,
    },
    Close {
        session: String,
        /// What the client of a tunnel says of it.
        code: Option<u16>,
        reason: String,
    },
}

impl Ask {
    /// Whether it says something that only the server behind a tunnel could understand.
    pub(super) fn is_of_tunnels(&self) -> bool {
        match self {
            Self::Open { protocols, plain } => !protocols.is_empty() && plain.is_none(),
            Self::Close { code, reason, .. } => code.is_some() || !reason.is_empty(),
            Self::Poll { .. } | Self::Send { .. } => false,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    open: Option<u64>,
    #[serde(default)]
    protocols: Vec<String>,
    ws: Option<String>,
    session: Option<String>,
    poll: Option<u64>,
    hold: Option<u64>,
    stream: Option<bool>,
    send: Option<u64>,
    close: Option<bool>,
    code: Option<u16>,
    #[serde(default)]
    reason: String,
}

/// Reads a body: what it asks for, and the data behind that.
///
/// # Errors
///
/// What was expected, in words.
pub(super) fn parse(body: &Bytes) -> Result<(Ask, Bytes), String> {
    let end = body.iter().position(|byte| *byte == b'\n');
    let (line, data) = match end {
        Some(end) => (body.slice(..end), body.slice(end + 1..)),
        None => (body.clone(), Bytes::new()),
    };
    let head: Head =
        serde_json::from_slice(&line).map_err(|error| format!("{EXPECTED}: {error}"))?;
    let Head {
        protocols,
        code,
        reason,
        ..
    } = &head;
    let says_why = code.is_some() || !reason.is_empty();
    if says_why && head.close.is_none() || !protocols.is_empty() && head.open.is_none() {
        return Err(EXPECTED.to_owned());
    }
    let ask = match head {
        Head {
            protocols,
            ws: plain,
            code: _,
            reason: _,
            open: Some(version),
            session: None,
            poll: None,
            hold: None,
            stream: None,
            send: None,
            close: None,
        } => {
            if version != VERSION {
                return Err(format!(
                    "this server knows version {VERSION} of long-polling; asked for was {version}"
                ));
            }
            Ask::Open { protocols, plain }
        }
        Head {
            session: Some(session),
            poll: Some(number),
            hold,
            stream,
            open: None,
            send: None,
            close: None,
            ws: None,
            protocols: _,
            code: _,
            reason: _,
        } => {
            if hold.is_some_and(|hold| hold > MAX_HOLD) {
                return Err(format!(
                    "hold must be a number of seconds from 0 to {MAX_HOLD}"
                ));
            }
            Ask::Poll {
                session,
                number,
                hold: hold.map_or(HOLD, Duration::from_secs),
                goes_on: stream.unwrap_or(false),
            }
        }
        Head {
            session: Some(session),
            send: Some(number),
            open: None,
            poll: None,
            hold: None,
            stream: None,
            close: None,
            ws: None,
            protocols: _,
            code: _,
            reason: _,
        } => {
            if number == 0 {
                return Err("frames are numbered from 1; this one has 0".to_owned());
            }
            Ask::Send { session, number }
        }
        Head {
            session: Some(session),
            close: Some(true),
            ws: None,
            protocols: _,
            code,
            reason,
            open: None,
            poll: None,
            hold: None,
            stream: None,
            send: None,
        } => {
            check_close(code, &reason)?;
            Ask::Close {
                session,
                code,
                reason,
            }
        }
        _ => return Err(EXPECTED.to_owned()),
    };
    let takes_data = matches!(ask, Ask::Open { .. } | Ask::Send { .. });
    if !takes_data && !data.is_empty() {
        return Err("only what opens a session or sends has data behind its first line".to_owned());
    }
    Ok((ask, data))
}

/// What a page may say with a Close, and what its browser says when it goes (the WebSockets standard, sections 3.1
/// and 5).
fn check_close(code: Option<u16>, reason: &str) -> Result<(), String> {
    if code.is_some_and(|code| !matches!(code, 1000 | 1001 | 3000..=4999)) {
        return Err("code must be 1000, 1001 or from 3000 to 4999".to_owned());
    }
    if reason.len() > MAX_REASON {
        return Err(format!("reason must have at most {MAX_REASON} bytes"));
    }
    if code.is_none() && !reason.is_empty() {
        return Err("a reason needs a code".to_owned());
    }
    Ok(())
}

const EXPECTED: &str = r#"expected a first line such as {"open":1}, {"session":"…","poll":0}, {"session":"…","send":1} or {"session":"…","close":true}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &'static str) -> Result<(Ask, Bytes), String> {
        super::parse(&Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn a_head_says_what_is_asked_for() {
        let session = || "s".to_owned();
        let open = |protocols: &[&str]| Ask::Open {
            protocols: protocols.iter().map(|&name| name.to_owned()).collect(),
            plain: None,
        };
        let close = |code, reason: &str| Ask::Close {
            session: session(),
            code,
            reason: reason.to_owned(),
        };
        let poll = |number, hold| Ask::Poll {
            session: session(),
            number,
            hold: Duration::from_secs(hold),
            goes_on: false,
        };
        let stream = Ask::Poll {
            session: session(),
            number: 3,
            hold: HOLD,
            goes_on: true,
        };
        for (body, ask, data) in [
            (r#"{"open":1}"#, open(&[]), ""),
            ("{\"open\":1}\n{}\n{}", open(&[]), "{}\n{}"),
            (
                r#"{"open":1,"protocols":["mqtt","b"]}"#,
                open(&["mqtt", "b"]),
                "",
            ),
            (
                r#"{"open":1,"ws":"channel=a","protocols":["tautline"]}"#,
                Ask::Open {
                    protocols: vec!["tautline".to_owned()],
                    plain: Some("channel=a".to_owned()),
                },
                "",
            ),
            (
                r#"{"session":"s","close":true,"code":4001,"reason":"bye"}"#,
                close(Some(4001), "bye"),
                "",
            ),
            (r#"{"session":"s","poll":7}"#, poll(7, 25), ""),
            (
                "{\"poll\":0,\"session\":\"s\",\"hold\":0}\n",
                poll(0, 0),
                "",
            ),
            (r#"{"session":"s","poll":0,"hold":55}"#, poll(0, 55), ""),
            (r#"{"session":"s","poll":3,"stream":true}"#, stream, ""),
            (
                r#"{"session":"s","poll":3,"stream":false}"#,
                poll(3, 25),
                "",
            ),
            (
                "{\"session\":\"s\",\"send\":1}\nx",
                Ask::Send {
                    session: session(),
                    number: 1,
                },
                "x",
            ),
            (r#"{"session":"s","close":true}"#, close(None, ""), ""),
        ] {
            assert_eq!(
                parse(body),
                Ok((ask, Bytes::from_static(data.as_bytes()))),
                "{body}"
            );
        }
    }

    #[test]
    fn what_can_not_be_is_told_so() {
        for (body, part) in [
            ("", "expected a first line"),
            ("{}", "expected a first line"),
            ("\n{\"open\":1}", "expected a first line"),
            ("[1]", "expected a first line"),
            (r#"{"open":2}"#, "version 1"),
            (r#"{"open":1,"session":"s"}"#, "expected"),
            (r#"{"open":1,"more":1}"#, "more"),
            (r#"{"poll":1}"#, "expected"),
            (r#"{"session":"s","poll":1,"send":1}"#, "expected"),
            (r#"{"session":"s","poll":-1}"#, "-1"),
            (r#"{"session":"s","poll":1,"hold":56}"#, "0 to 55"),
            (r#"{"session":"s","send":1,"stream":true}"#, "expected"),
            (r#"{"open":1,"stream":true}"#, "expected"),
            (r#"{"session":"s","send":0}"#, "from 1"),
            (r#"{"session":"s","close":false}"#, "expected"),
            (r#"{"session":"s","poll":1,"code":1000}"#, "expected"),
            (r#"{"session":"s","send":1,"protocols":["a"]}"#, "expected"),
            (r#"{"session":"s","poll":1,"ws":"channel=a"}"#, "expected"),
            (r#"{"session":"s","close":true,"code":1002}"#, "1000"),
            (r#"{"session":"s","close":true,"reason":"r"}"#, "code"),
            ("{\"session\":\"s\",\"poll\":1}\nx", "data"),
            ("{\"session\":\"s\",\"close\":true}\nx", "data"),
        ] {
            let error = parse(body).expect_err(body);
            assert!(error.contains(part), "{body}: {error}");
        }
    }
}
