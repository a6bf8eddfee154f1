//! What the node has said on one connection, in the order in which it said it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::Pings;
use tautline_protocol::Encoding;

use crate::accounts::{Account, ConnectionAccounts};
use crate::rules::{ERRORS, EXPIRED_CLOSE_DELAY, EXPIRED_SUB_CLOSE_DELAY};
use crate::tokens::Mint;
use crate::{BYTES, CHANNELS, PUSHED, SERVER_SIDE, TICKET};

/// The connection's state as the node has told it; the client may learn of it later, or never.
pub(crate) struct View {
    pub(crate) encoding: Encoding,
    /// How each end knows that the other is there.
    pings: Pings,
    pub(crate) user: &'static str,
    /// What it may still do.
    pub(crate) accounts: ConnectionAccounts,
    pub(crate) errors: Account,
    /// It has caused too many errors.
    pub(crate) has_erred: bool,
    /// Its place among all connections, by when they asked to be connected; 0 for not yet.
    pub(crate) number: u64,
    /// Id of the connection; empty until it is connected.
    pub(crate) client: String,
    /// Subscriptions, each with its position.
    pub(crate) subscribed: BTreeMap<usize, Position>,
    /// When the connection is ended, if it isn't refreshed.
    cut: Option<Cut>,
    /// The same of subscriptions.
    cuts: BTreeMap<usize, Cut>,
    /// When the connection was opened.
    opened_at: Duration,
    /// When it was last pinged, if the answer has not come to the node.
    pinged_at: Option<Duration>,
    /// The node has ended it, with this code.
    pub(crate) ended: Option<u32>,
    /// From where an operator has it subscribed, if from anywhere.
    pub(crate) pushed_since: Option<Position>,
    /// When that ends, if ever, by each of the operator's calls since it was last subscribed so.
    pushed_ends: Vec<Option<Cut>>,
    /// An operator has it ended just now, if it is meant.
    pub(crate) may_be_cut: bool,
    /// When an operator gave it another end, or none.
    pub(crate) refreshed_at: Option<Duration>,
    /// Commands that the node has, in order, and since when.
    asked: VecDeque<(Duration, Value)>,
}

/// When something is ended that has expired: not before, and no later than a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) not_before: Duration,
    pub(crate) not_after: Duration,
}

impl Cut {
    /// Of a subscription that an operator makes now, for so many seconds.
    pub(crate) fn of_pushed(now: Duration, seconds: u64) -> Self {
        let life = Duration::from_secs(seconds) + EXPIRED_SUB_CLOSE_DELAY;
        Self {
            not_before: now + life,
            not_after: now + life + CLOCKS,
        }
    }

    /// By whichever of these it is.
    fn any_of(cuts: &[Option<Self>]) -> Option<Self> {
        let ends = || cuts.iter().flatten();
        let last = ends().map(|cut| cut.not_after).max();
        Some(Self {
            not_before: ends().map(|cut| cut.not_before).min()?,
            not_after: if cuts.iter().all(Option::is_some) {
                last?
            } else {
                Duration::MAX
            },
        })
    }

    /// Of what was asked for at a time and is told now to live so long.
    fn of(asked_at: Duration, now: Duration, result: &Value, grace: Duration) -> Option<Self> {
        let seconds = result["ttl"].as_u64();
        assert_eq!(result["expires"] == json!(true), seconds.is_some());
        assert_ne!(seconds, Some(0), "clients would refresh for ever");
        let life = Duration::from_secs(seconds?) + grace;
        Some(Self {
            not_before: asked_at + life,
            not_after: now + life + CLOCKS,
        })
    }
}

/// How coarse the node's clocks are.
const CLOCKS: Duration = Duration::from_millis(300);

pub(crate) type Position = (u64, String);

/// Something that must be true when the node says it.
pub(crate) enum Claim {
    /// A subscription was asked for with a position. Either all behind it is there, or not.
    Recovery(Recovery),
    /// One of these subscriptions can't go on from its position.
    Lost(Vec<(usize, Position)>),
    /// An operator has it subscribed.
    Pushed,
    /// The node ends; to what it was subscribed.
    Told(Vec<usize>),
    /// Who is in a channel.
    Presence {
        channel: usize,
        who: BTreeSet<String>,
    },
    /// Nobody answers.
    NoPong { pinged_at: Option<Duration> },
    /// A command was answered, with this code of an error or 0.
    Answered { command: Value, code: u64 },
    /// It has expired.
    Expired { cut: Option<Cut> },
    /// There is no seat for it, or none any more.
    NoSeat,
    /// It can't be sent what it wants.
    Unfit { wants_bytes: bool },
    /// It has caused too many errors.
    Errors,
    /// Nobody has connected.
    Stale {
        opened_at: Duration,
        is_connected: bool,
    },
}

pub(crate) struct Recovery {
    pub(crate) channel: usize,
    pub(crate) since: Position,
    pub(crate) filter: Option<String>,
    pub(crate) epoch: String,
    pub(crate) recovered: bool,
    /// Offsets of what came with that.
    pub(crate) offsets: Vec<u64>,
}

impl View {
    pub(crate) fn new(encoding: Encoding, pings: Pings, user: &'static str, now: Duration) -> Self {
        Self {
            encoding,
            pings,
            user,
            accounts: ConnectionAccounts::new(),
            errors: Account::new(ERRORS),
            has_erred: false,
            number: 0,
            cut: None,
            cuts: BTreeMap::new(),
            opened_at: now,
            client: String::new(),
            subscribed: BTreeMap::new(),
            pinged_at: None,
            ended: None,
            pushed_since: None,
            pushed_ends: Vec::new(),
            may_be_cut: false,
            refreshed_at: None,
            asked: VecDeque::new(),
        }
    }

    /// The node sends a ping of the transport's own.
    pub(crate) fn was_pinged(&mut self, now: Duration) {
        assert_ne!(self.pings, Pings::Protocol, "nothing would answer");
        self.pinged_at = Some(now);
    }

    /// The node gets the answer to its ping.
    pub(crate) fn answered_ping(&mut self) {
        self.pinged_at = None;
    }

    /// An operator has it subscribed, with this end or with none. It may be subscribed already.
    pub(crate) fn expect_push(&mut self, end: Option<Cut>) {
        if !self.subscribed.contains_key(&PUSHED) {
            self.pushed_ends.push(end);
        }
    }

    /// Whether the connection has an end, as it was told.
    pub(crate) fn has_end(&self) -> bool {
        self.cut.is_some()
    }

    /// The node gets commands.
    pub(crate) fn asked(&mut self, now: Duration, commands: &[Value]) {
        if commands.contains(&json!({})) {
            self.answered_ping();
        }
        let commands = commands.iter().filter(|command| command["id"].is_u64());
        self.asked
            .extend(commands.map(|command| (now, command.clone())));
    }

    /// Whether it is connected, as far as it was told.
    pub(crate) fn is_connected(&self) -> bool {
        !self.client.is_empty() && self.ended.is_none()
    }

    /// Whether it may be connected: it has asked for it.
    pub(crate) fn may_be_connected(&self) -> bool {
        self.number > 0 && self.ended.is_none()
    }

    /// Nothing is there any more that should have been ended.
    pub(crate) fn check_cuts(&self, now: Duration) {
        if self.ended.is_none() {
            for cut in self.cut.iter().chain(self.cuts.values()) {
                assert!(now <= cut.not_after, "{cut:?}, and still there at {now:?}");
            }
        }
    }

    /// The node ended the session.
    pub(crate) fn end(&mut self, now: Duration, code: u32, mint: &Mint) -> Option<Claim> {
        self.ended = Some(code);
        let mut subscribed = std::mem::take(&mut self.subscribed);
        let of_pushed = self.cuts.remove(&PUSHED);
        self.cuts.clear();
        match code {
            3001 => Some(Claim::Told(subscribed.into_keys().collect())),
            3005 if self.may_be_cut => None,
            3005 => {
                let refresh = self.asked.front().map(|(_, command)| &command["refresh"]);
                let token = refresh.map(|refresh| &refresh["token"]);
                let is_refused =
                    token.is_some_and(|token| token.is_string() && mint.is_over(token, now));
                (!is_refused).then_some(Claim::Expired { cut: self.cut })
            }
            // Only what the client can't subscribe to again by itself ends the connection.
            3006 => Some(Claim::Expired {
                cut: of_pushed.or_else(|| Cut::any_of(&self.pushed_ends)),
            }),
            3504 => Some(Claim::NoSeat),
            3506 => {
                let name = json!(CHANNELS[BYTES]);
                let mut asked = self.asked.iter();
                let asks = asked.any(|(_, command)| {
                    ["subscribe", "history"]
                        .iter()
                        .any(|kind| command[kind]["channel"] == name)
                });
                let is_json = self.encoding == Encoding::Json;
                Some(Claim::Unfit {
                    wants_bytes: is_json && (asks || subscribed.contains_key(&BYTES)),
                })
            }
            3509 => Some(Claim::Errors),
            // The same.
            3010 => {
                let by_server = [SERVER_SIDE, PUSHED].into_iter();
                let by_server =
                    by_server.filter_map(|channel| Some((channel, subscribed.remove(&channel)?)));
                Some(Claim::Lost(by_server.collect()))
            }
            3012 => Some(Claim::NoPong {
                pinged_at: self.pinged_at,
            }),
            3502 => Some(Claim::Stale {
                opened_at: self.opened_at,
                is_connected: !self.client.is_empty(),
            }),
            _ => None,
        }
    }

    /// The node says something at a time.
    pub(crate) fn said(&mut self, now: Duration, message: &Value, mint: &Mint) -> Vec<Claim> {
        if message["id"].is_u64() {
            let (since, command) = self.asked.pop_front().expect("an answer to nothing");
            self.check_token((since, now), &command, message, mint);
            let mut claims = self.answered((since, now), &command, message);
            claims.push(Claim::Answered {
                command,
                code: message["error"]["code"].as_u64().unwrap_or(0),
            });
            return claims;
        }
        let push = &message["push"];
        if push.is_null() {
            match self.pings {
                Pings::Protocol => self.pinged_at = Some(now),
                // Told, and not to be answered.
                Pings::OneWayAndTransport => {}
                other => panic!("a ping, where they are {other:?}"),
            }
            return Vec::new();
        }
        if push["refresh"].is_object() {
            self.cut = Cut::of(now, now, &push["refresh"], EXPIRED_CLOSE_DELAY);
            self.refreshed_at = Some(now);
            return Vec::new();
        }
        let channel = crate::index(&push["channel"]);
        if push["subscribe"].is_object() {
            return self.pushed(channel, &push["subscribe"]);
        }
        let position = self.subscribed.get_mut(&channel).expect("not subscribed");
        if push["pub"].is_object() {
            position.0 = push["pub"]["offset"].as_u64().unwrap_or(0).max(position.0);
        } else if push["unsubscribe"].is_object() {
            let position = self.subscribed.remove(&channel).expect("subscribed");
            let cut = self.cuts.remove(&channel);
            return match push["unsubscribe"]["code"].as_u64() {
                Some(2000) => {
                    assert_eq!(channel, PUSHED, "nobody has asked for that");
                    Vec::new()
                }
                Some(2501) => vec![Claim::Expired { cut }],
                _ => vec![Claim::Lost(vec![(channel, position)])],
            };
        }
        Vec::new()
    }

    /// An operator has it subscribed, from a position that says whether the one named was recovered.
    fn pushed(&mut self, channel: usize, told: &Value) -> Vec<Claim> {
        assert_eq!(channel, PUSHED);
        let offset = told["offset"].as_u64().unwrap_or(0);
        let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
        let before = self.subscribed.insert(channel, (offset, epoch.clone()));
        assert_eq!(before, None, "subscribed already");
        let cut = Cut::any_of(&std::mem::take(&mut self.pushed_ends));
        self.cuts.extend(cut.map(|cut| (channel, cut)));
        let recovery = self.pushed_since.take().map(|since| {
            let recovered = since == (offset, epoch.clone());
            Claim::Recovery(Recovery {
                channel,
                since,
                filter: None,
                epoch,
                recovered,
                offsets: Vec::new(),
            })
        });
        [Some(Claim::Pushed), recovery]
            .into_iter()
            .flatten()
            .collect()
    }

    /// A token that is over opens nothing, and any other does.
    fn check_token(
        &self,
        (since, now): (Duration, Duration),
        command: &Value,
        message: &Value,
        mint: &Mint,
    ) {
        for kind in ["connect", "subscribe", "refresh", "sub_refresh"] {
            let token = &command[kind]["token"];
            if !token.is_string() {
                continue;
            }
            let code = message["error"]["code"].as_u64();
            if matches!(code, Some(109 | 110)) {
                assert!(mint.is_over(token, now), "{kind} was refused: {message}");
            } else if code.is_none() {
                assert!(
                    !mint.is_over(token, since),
                    "{kind} by a token that is over"
                );
            }
        }
    }

    fn answered(
        &mut self,
        (since, now): (Duration, Duration),
        asked: &Value,
        message: &Value,
    ) -> Vec<Claim> {
        if let Some(client) = message["connect"]["client"].as_str() {
            self.client = client.to_owned();
            self.cut = Cut::of(since, now, &message["connect"], EXPIRED_CLOSE_DELAY);
            let name = CHANNELS[SERVER_SIDE];
            if let Some(result) = message["connect"]["subs"].get(name) {
                let request = &asked["connect"]["subs"][name];
                return self.subscribed(SERVER_SIDE, request, result);
            }
        } else if message["refresh"].is_object() {
            self.cut = Cut::of(since, now, &message["refresh"], EXPIRED_CLOSE_DELAY);
        } else if message["sub_refresh"].is_object() {
            assert!(self.subscribed.contains_key(&TICKET));
            self.end_in((since, now), &message["sub_refresh"]);
        } else if asked["sub_refresh"].is_object() {
            // If it has ended meanwhile.
            let is_there = self.subscribed.contains_key(&TICKET);
            assert_eq!(message["error"]["code"] != json!(103), is_there);
        } else if message["unsubscribe"].is_object() {
            let channel = crate::index(&asked["unsubscribe"]["channel"]);
            self.subscribed.remove(&channel);
            self.cuts.remove(&channel);
        } else if message["presence"].is_object() {
            let presence = message["presence"]["presence"].as_object();
            return vec![Claim::Presence {
                channel: crate::index(&asked["presence"]["channel"]),
                who: presence
                    .into_iter()
                    .flat_map(|who| who.keys().cloned())
                    .collect(),
            }];
        } else if message["subscribe"].is_object() {
            let request = &asked["subscribe"];
            let channel = crate::index(&request["channel"]);
            if channel == TICKET {
                self.end_in((since, now), &message["subscribe"]);
            }
            return self.subscribed(channel, request, &message["subscribe"]);
        }
        Vec::new()
    }

    /// The subscription that needs a token ends, or not.
    fn end_in(&mut self, (since, now): (Duration, Duration), result: &Value) {
        match Cut::of(since, now, result, EXPIRED_SUB_CLOSE_DELAY) {
            Some(cut) => self.cuts.insert(TICKET, cut),
            None => self.cuts.remove(&TICKET),
        };
    }

    fn subscribed(&mut self, channel: usize, request: &Value, result: &Value) -> Vec<Claim> {
        let publications = result["publications"].as_array().into_iter().flatten();
        let offsets: Vec<u64> = publications
            .map(|publication| publication["offset"].as_u64().unwrap())
            .collect();
        let told = result["offset"].as_u64().unwrap_or(0);
        let epoch = result["epoch"].as_str().unwrap_or_default().to_owned();
        let position = offsets.last().copied().unwrap_or(told);
        self.subscribed.insert(channel, (position, epoch.clone()));
        if request["recover"] != json!(true) {
            return Vec::new();
        }
        let since = request["offset"].as_u64().unwrap_or(0);
        vec![Claim::Recovery(Recovery {
            channel,
            since: (since, request["epoch"].as_str().unwrap().to_owned()),
            filter: request["tf"]["val"].as_str().map(str::to_owned),
            epoch,
            recovered: result["recovered"] == json!(true),
            offsets,
        })]
    }
}
