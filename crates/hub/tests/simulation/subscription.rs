//! One subscription as its client sees it: what it has heard, and what must come next.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_protocol::{Encoding, delta};

use crate::client::State;
use crate::log::{Entry, Log};
use crate::payload;
use crate::wire;

#[derive(Default)]
pub(crate) struct Subscription {
    pub(crate) wanted: bool,
    /// Id of the connection.
    me: String,
    pub(crate) state: State,
    /// Only publications of this kind are wanted.
    pub(crate) filter: Option<&'static str>,
    /// Takes patches.
    pub(crate) patched: bool,
    /// The last position, kept over disconnections; an empty epoch is none.
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    /// What the next patch is made against.
    base: Option<String>,
    /// The server has said that nothing newer is missing, but not how far that is.
    is_ahead: bool,
    /// Without history: place in the log of the last publication heard.
    place: Option<usize>,
    /// Without history: how long the log was when the subscription began.
    began_at: usize,
    /// When it has to be refreshed, if it has an end.
    pub(crate) refresh_at: Option<Duration>,
    /// Whom this client believes to be there, by join and leave.
    pub(crate) company: BTreeMap<String, bool>,
}

impl Subscription {
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::On | State::Ending)
    }

    pub(crate) fn end(&mut self) {
        self.state = State::Off;
        self.company.clear();
        self.place = None;
        self.refresh_at = None;
    }

    /// A position to recover from, if there is one.
    pub(crate) fn since(&self) -> Option<(u64, String)> {
        (!self.epoch.is_empty()).then(|| (self.offset, self.epoch.clone()))
    }

    /// Adds what it asks for to a request.
    pub(crate) fn ask(&self, request: &mut Value) {
        if let Some((offset, epoch)) = self.since() {
            request["recover"] = json!(true);
            request["epoch"] = json!(epoch);
            request["offset"] = json!(offset);
        }
        if self.patched {
            request["delta"] = json!("fossil");
        }
        if let Some(kind) = self.filter {
            request["tf"] = json!({"key": payload::TAG, "cmp": "eq", "val": kind});
        }
    }

    pub(crate) fn begin(
        &mut self,
        (me, encoding): (&str, Encoding),
        result: &Value,
        since: Option<&(u64, String)>,
        is_cache: bool,
        log: &Log,
    ) {
        assert_eq!(self.state, State::Begun);
        self.state = State::On;
        me.clone_into(&mut self.me);
        self.began_at = log.entries.len();
        self.base = None;
        self.is_ahead = false;
        assert_eq!(result["delta"] == json!(true), self.patched);
        let recovered = result["recovered"] == json!(true);
        if !log.has_history {
            assert!(result["epoch"].is_null() && result["publications"].is_null());
            return;
        }
        let offset = result["offset"].as_u64().unwrap_or(0);
        let epoch = result["epoch"].as_str().unwrap().to_owned();
        assert_eq!(result["was_recovering"] == json!(true), since.is_some());
        if recovered {
            let (asked, epoch_asked) = since.expect("recovered without having asked");
            assert_eq!(*asked, offset, "the position asked for is told");
            assert!(*epoch_asked == epoch || is_cache);
        } else {
            assert!(result["publications"].is_null());
        }
        assert!(
            offset <= log.top(&epoch) || is_cache,
            "a position that does not exist yet"
        );
        let is_new = epoch != self.epoch;
        (self.offset, self.epoch) = (offset, epoch);
        if recovered && is_cache {
            if is_new {
                self.offset = 0;
            }
            self.is_ahead = true;
        }
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.hear_publication(encoding, publication, log);
        }
    }

    /// An operator has it subscribed.
    pub(crate) fn begin_pushed(&mut self, me: &str, told: &Value, log: &Log) {
        assert_eq!(self.state, State::Off, "subscribed already");
        self.state = State::On;
        me.clone_into(&mut self.me);
        self.base = None;
        self.is_ahead = false;
        self.offset = told["offset"].as_u64().unwrap_or(0);
        self.epoch = told["epoch"].as_str().unwrap().to_owned();
        assert_eq!(told["recoverable"], json!(true));
        assert!(
            self.offset <= log.top(&self.epoch),
            "a position that does not exist yet"
        );
    }

    pub(crate) fn hear_publication(&mut self, encoding: Encoding, publication: &Value, log: &Log) {
        let data = wire::data(encoding, self.patched, publication);
        let whole = if publication["delta"] == json!(true) {
            let base = self.base.as_ref().expect("a patch against something");
            let whole = delta::apply(base.as_bytes(), data.as_bytes(), 4096);
            String::from_utf8(whole.expect("a patch that fits")).unwrap()
        } else {
            data
        };
        let number = payload::number(&whole);
        self.base = Some(whole);
        if !log.has_history {
            assert!(publication["offset"].is_null());
            let place = log.place(number).expect("never published");
            assert!(
                self.place.is_none_or(|before| place > before),
                "out of order, or twice"
            );
            assert!(self.gets(&log.entries[place]), "not asked for");
            self.place = Some(place);
            return;
        }
        let offset = publication["offset"].as_u64().unwrap();
        if log.may_skip || std::mem::take(&mut self.is_ahead) {
            assert!(offset > self.offset, "{offset} after {}", self.offset);
        } else {
            let expected = log.next(&self.epoch, self.offset, |entry| self.gets(entry));
            assert_eq!(
                Some(offset),
                expected,
                "{number} follows on {}",
                self.offset
            );
        }
        let entry = log.at(&self.epoch, offset).expect("never published");
        assert_eq!(entry.number, number, "at {offset} of {}", self.epoch);
        assert!(self.gets(entry), "{number} was not asked for");
        self.offset = offset;
    }

    /// Whether a publication is for this subscription.
    fn gets(&self, entry: &Entry) -> bool {
        entry.passes(self.filter) && !entry.is_own(&self.me)
    }

    /// When all is quiet, whoever is subscribed has heard everything.
    pub(crate) fn check_rest(&self, who: &str, log: &Log, lossy: bool) {
        if !self.is_live() {
            return;
        }
        if log.has_history {
            let next = log.next(&self.epoch, self.offset, |entry| self.gets(entry));
            assert!(next.is_none() || self.is_ahead, "{who} misses {next:?}");
        } else if !lossy {
            let heard = self.place.map_or(self.began_at, |place| place + 1);
            let mut rest = log.entries[heard.min(log.entries.len())..].iter();
            assert!(!rest.any(|entry| self.gets(entry)), "{who} is behind");
        }
    }
}
