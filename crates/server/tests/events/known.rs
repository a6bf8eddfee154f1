//! The truth: what each client did and what was done to it, between which moments as far as a test can know, and what
//! events may say of that.

use std::collections::{BTreeMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Between which moments something happened, in Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    from: u64,
    to: u64,
}

impl Span {
    /// Of something that is over when `act` is.
    pub(crate) fn of<T>(act: impl FnOnce() -> T) -> (Self, T) {
        let from = unix();
        let result = act();
        (Self { from, to: unix() }, result)
    }

    /// Of something that the server has yet to hear of.
    fn from_now() -> Self {
        Self {
            from: unix(),
            to: u64::MAX,
        }
    }

    fn has(self, time: u64) -> bool {
        // Workers measure the system's time now and then, and go by another clock between: if they lose the processor
        // while they do, theirs is ahead.
        time + BEHIND >= self.from && time <= self.to.saturating_add(AHEAD)
    }
}

/// How a connection ended, as its client was told.
#[derive(Debug)]
struct End {
    code: u32,
    reason: String,
    at: Span,
    /// How often the server had been killed by then.
    round: usize,
}

/// What is known of a connection.
#[derive(Debug)]
struct Life {
    user: String,
    came: Span,
    subscribed: Vec<(String, Span)>,
    /// With the code.
    unsubscribed: Vec<(String, u32, Span)>,
    /// Where it wanted the newest publication, and there was none; and before which kill.
    missed: Vec<(String, Span, usize)>,
    end: Option<End>,
}

/// All of it, by connection.
#[derive(Debug, Default)]
pub(crate) struct Known {
    lives: BTreeMap<String, Life>,
    /// From when on there was no server, until there was one again.
    outages: Vec<Span>,
}

impl Known {
    pub(crate) fn came(&mut self, client: &str, user: &str, came: Span) {
        let life = Life {
            user: user.into(),
            came,
            subscribed: Vec::new(),
            unsubscribed: Vec::new(),
            missed: Vec::new(),
            end: None,
        };
        assert!(self.lives.insert(client.into(), life).is_none());
    }

    pub(crate) fn subscribed(&mut self, client: &str, channel: &str, at: Span) {
        self.life(client).subscribed.push((channel.into(), at));
    }

    pub(crate) fn unsubscribed(&mut self, client: &str, channel: &str, code: u32, at: Span) {
        self.life(client)
            .unsubscribed
            .push((channel.into(), code, at));
    }

    pub(crate) fn missed(&mut self, client: &str, channel: &str, at: Span) {
        let round = self.outages.len();
        self.life(client).missed.push((channel.into(), at, round));
    }

    /// It was told to go.
    pub(crate) fn ended(&mut self, client: &str, code: u32, reason: &str, at: Span) {
        let round = self.outages.len();
        let end = End {
            code,
            reason: reason.into(),
            at,
            round,
        };
        assert!(self.life(client).end.replace(end).is_none());
    }

    /// It goes by itself. To be told before it does: the server hears of it at some time.
    pub(crate) fn goes(&mut self, client: &str) {
        self.ended(client, 3000, "connection closed", Span::from_now());
    }

    /// The server was killed, and all who were there are gone.
    pub(crate) fn killed(&mut self, outage: Span) {
        let round = self.outages.len();
        for life in self.lives.values_mut() {
            let end = life.end.get_or_insert(End {
                code: 0,
                reason: "node crashed".into(),
                at: outage,
                round,
            });
            // Nobody has heard of it later than that.
            end.at.to = end.at.to.min(outage.to);
        }
        self.outages.push(outage);
    }

    fn life(&mut self, client: &str) -> &mut Life {
        self.lives.get_mut(client).unwrap()
    }

    /// Whether the backend was told of all misses since the last kill. What is within the debounce of another is not
    /// told again.
    pub(crate) fn knows_misses(&self, seen: &[Value], debounce: u64) -> bool {
        let told: Vec<_> = seen
            .iter()
            .filter(|event| event["type"] == "cache_miss")
            .map(|event| (event["channel"].as_str(), event["time"].as_u64().unwrap()))
            .collect();
        let missed = self.lives.values().flat_map(|life| &life.missed);
        missed
            .filter(|(.., round)| *round == self.outages.len())
            .all(|(channel, at, _)| {
                let before = Span {
                    from: at.from.saturating_sub(debounce),
                    to: at.to,
                };
                told.iter()
                    .any(|(other, time)| *other == Some(channel) && before.has(*time))
            })
    }

    /// Holds what the backend was told to what happened.
    pub(crate) fn check(&self, seen: &[Value]) {
        let mut misses = HashSet::new();
        for event in seen {
            if let Err(problem) = self.check_event(event, &mut misses) {
                let client = event["client"].as_str().unwrap_or_default();
                let life = self.lives.get(client);
                panic!(
                    "{problem}: {event}; the client: {life:?}; the server was away: {:?}",
                    self.outages
                );
            }
        }
    }

    fn check_event(
        &self,
        event: &Value,
        misses: &mut HashSet<(String, usize)>,
    ) -> Result<(), &'static str> {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let time = event["time"].as_u64().ok_or("no time")?;
        let (client, channel) = (text("client"), text("channel"));
        let is_of_channel = text("type").starts_with("channel_");
        let life = self.lives.get(client);
        if is_of_channel {
            require(client.is_empty(), "a channel's event names a client")?;
            require(text("key") == format!("channel:{channel}"), "another key")?;
        } else {
            let life = life.ok_or("nobody has that id")?;
            require(life.user == text("user"), "another user")?;
        }
        let is_visit = !is_of_channel && text("type") != "cache_miss";
        if is_visit {
            let first = self.lives.get(text("visit")).ok_or("no such visit")?;
            require(first.user == text("user"), "somebody else's visit")?;
            let key = match &*first.user {
                "" => format!("visit:{}", text("visit")),
                user => format!("user:{user}"),
            };
            require(text("key") == key, "another key")?;
        }
        let was_away = || self.outages.iter().any(|outage| outage.has(time));
        match (text("type"), life) {
            ("connected", Some(life)) => {
                require(text("visit") == client, "the visit is another's")?;
                require(text("transport") == "websocket", "another transport")?;
                require(life.came.has(time), "it did not come at that time")
            }
            ("disconnected", Some(life)) => {
                let code = event["code"].as_u64().ok_or("no code")?;
                if code == 0 {
                    require(text("reason") == "node crashed", "another reason")?;
                    require(was_away(), "the server was there then")?;
                    // Whoever went right before it may be found gone as all others are.
                    let outages = self.outages.iter();
                    let mut rounds = outages.zip(0..).filter(|(outage, _)| outage.has(time));
                    return require(
                        rounds.any(|(_, round)| self.was_there(&life.user, client, round)),
                        "nobody of that user was there when the server was killed",
                    );
                }
                let end = life.end.as_ref().ok_or("it is still there")?;
                require(code == u64::from(end.code), "another code")?;
                require(text("reason") == end.reason, "another reason")?;
                require(end.at.has(time), "it did not go at that time")
            }
            ("subscribed", Some(life)) => {
                let mut all = life.subscribed.iter();
                let is_one = all.any(|(name, at)| name == channel && at.has(time));
                require(is_one, "it did not subscribe at that time")
            }
            ("unsubscribed", Some(life)) => {
                let code = event["code"].as_u64().ok_or("no code")?;
                if code != 1 {
                    let mut all = life.unsubscribed.iter();
                    let is_one = all.any(|(name, other, at)| {
                        name == channel && u64::from(*other) == code && at.has(time)
                    });
                    return require(is_one, "it did not unsubscribe so at that time");
                }
                // Of the connections of a visit, the one that is there now need not be the one that has gone.
                let mut all = self.lives.iter();
                let has_gone = all.any(|(name, other)| {
                    let is_it =
                        other.user == life.user && (!life.user.is_empty() || name == client);
                    is_it && other.end.as_ref().is_some_and(|end| end.at.has(time))
                });
                require(has_gone || was_away(), "nobody of that user went then")
            }
            ("channel_occupied", None) => {
                let all = self.lives.values().flat_map(|life| &life.subscribed);
                let mut of_it = all.filter(|(name, _)| name == channel);
                require(of_it.any(|(_, at)| at.has(time)), "nobody came then")
            }
            ("channel_vacated", None) => {
                let all = self.lives.values();
                let is_left = all.clone().any(|life| {
                    let mut all = life.unsubscribed.iter();
                    let left = all.any(|(name, _, at)| name == channel && at.has(time));
                    left || life.end.as_ref().is_some_and(|end| {
                        let mut all = life.subscribed.iter();
                        end.at.has(time) && all.any(|(name, _)| name == channel)
                    })
                });
                require(is_left || was_away(), "nobody left it then")
            }
            ("cache_miss", Some(life)) => {
                let mut all = life.missed.iter().enumerate();
                let one = all.find(|(place, (name, at, _))| {
                    let is_new = !misses.contains(&(client.to_owned(), *place));
                    name == channel && at.has(time) && is_new
                });
                let (place, _) = one.ok_or("it did not miss anything there then")?;
                misses.insert((client.to_owned(), place));
                Ok(())
            }
            _ => Err("no such event"),
        }
    }

    /// Whether that connection, or another of its user if he has a name, was there at that kill, or went in the round
    /// before it.
    fn was_there(&self, user: &str, client: &str, round: usize) -> bool {
        self.lives.iter().any(|(name, life)| {
            let is_it = life.user == user && (!user.is_empty() || name == client);
            is_it && life.end.as_ref().is_some_and(|end| end.round == round)
        })
    }
}

fn require(is_so: bool, problem: &'static str) -> Result<(), &'static str> {
    if is_so { Ok(()) } else { Err(problem) }
}

fn unix() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// By how many milliseconds the clock of a server's worker may be off.
const BEHIND: u64 = 5;
const AHEAD: u64 = 250;
