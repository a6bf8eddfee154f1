//! What must be true at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tautline_hub::engine::{Delivery, Started, Ticket, WorkerId};

use crate::network::{PAGE, Said};
use crate::payload::{self, TAG};
use crate::rules::{HISTORY, PONG_TIMEOUT, STALE_CLOSE_DELAY};
use crate::support;
use crate::view::{Claim, Position, Recovery};
use crate::wire;
use crate::world::{Simulation, Told, Who};
use crate::{BYTES, CHANNELS, EXCLUDING, PUSHED};

/// How long somebody who is gone may be listed: the ping that finds out comes within its interval (25 s),
/// is given its time (8 s), twice if it waited behind something, and clocks are coarse.
const LEASE: Duration = Duration::from_secs(25 + 8 + 8 + 4);

/// How large a page may be with what is around its payloads.
const MOST_OF_A_PAGE: usize = 3 * PAGE / 2;

impl Simulation {
    /// What the node has said just now must be true now.
    pub(crate) fn check_node(&mut self) {
        self.read_tap();
        self.read_told();
        let now = self.node.now.monotonic;
        let mut claims = Vec::new();
        for (index, worker) in self.node.workers.iter_mut().enumerate() {
            for Said { to, message, waits } in worker.net.said.drain(..) {
                let id = to;
                let view = self.views.get_mut(&(index, id)).unwrap();
                for reply in wire::replies(view.encoding, &message) {
                    let push = &reply["push"];
                    // With an operator's subscription comes what would come with the reply of another.
                    let is_of_a_page =
                        push["pub"].is_object() && crate::index(&push["channel"]) != PUSHED;
                    if let Some((before, now)) = waits.filter(|_| is_of_a_page) {
                        let is_fine = before < PAGE && now <= before + MOST_OF_A_PAGE;
                        assert!(is_fine, "a page to a reader of {before} bytes, now {now}");
                    }
                    let said = view.said(now, &reply, &self.mint);
                    claims.extend(said.into_iter().map(|claim| ((index, id), claim)));
                }
            }
            for id in worker.net.pinged.drain(..) {
                let view = self.views.get_mut(&(index, id)).unwrap();
                view.was_pinged(now);
            }
            for (id, code) in worker.net.ended.drain(..) {
                let view = self.views.get_mut(&(index, id)).unwrap();
                let claim = view.end(now, code, &self.mint);
                claims.extend(claim.map(|claim| ((index, id), claim)));
            }
        }
        for (who, claim) in claims {
            self.check_claim(who, claim);
        }
        for (channel, client, user) in std::mem::take(&mut self.left) {
            self.check_left(channel, &client, &user);
        }
        self.check_views();
        self.check_draining();
        if self.is_exact() {
            for &channel in &self.used {
                let members = self.members(channel);
                assert_eq!(members, self.present(channel), "who is in {channel}");
            }
            for ghost in &self.ghosts {
                let view = &self.views[&(ghost.link.worker, ghost.link.id)];
                let is_late = now > ghost.died_at + LEASE;
                assert!(
                    view.ended.is_some() || !is_late,
                    "{} is gone for {:?} and still there",
                    view.client,
                    now - ghost.died_at
                );
            }
        }
    }

    fn read_tap(&mut self) {
        for delivery in self.tap.take() {
            if let Delivery::Leave { channel, info, .. } = &delivery {
                let index = CHANNELS.iter().position(|name| **name == **channel);
                let (client, user) = (info.client.to_string(), info.user.to_string());
                self.left.push((index.unwrap(), client, user));
            }
            if let Delivery::Publication {
                channel,
                publication,
                epoch,
                ..
            } = delivery
            {
                let index = CHANNELS.iter().position(|name| **name == *channel).unwrap();
                let number = payload::number(&payload::text(&publication.data));
                let is_text = std::str::from_utf8(&publication.data).is_ok();
                let kind = publication.tags.get(TAG).cloned();
                let time = self.node.now.monotonic;
                let position = (&*epoch, publication.offset);
                let info = publication.info.as_ref().filter(|_| index == EXCLUDING);
                let by = info.map(|info| info.client.to_string());
                let by = by.or_else(|| self.excluded.get(&number).cloned());
                self.logs[index].has_bytes |= !is_text;
                self.logs[index].append(position, number, (kind, by), time);
            }
        }
    }

    fn read_told(&mut self) {
        let told = std::mem::take(&mut *self.told.borrow_mut());
        for told in told {
            match told {
                Told::Published {
                    channel,
                    number,
                    is_stale,
                } => {
                    let log = &mut self.logs[channel];
                    assert_eq!(
                        log.place(number).is_none(),
                        is_stale,
                        "{number} in {channel}"
                    );
                    if is_stale {
                        let newest = log.last_version(log.epoch());
                        let is_old = newest >= log.versions.get(&number).copied();
                        // Otherwise it may have been old when that was decided.
                        assert!(is_old || self.weather.delays.is_some());
                        log.stale.insert(number);
                    } else {
                        log.acknowledged.push(number);
                    }
                }
                Told::Removed { channel } => {
                    let log = &mut self.logs[channel];
                    log.removals -= 1;
                    log.remove();
                }
            }
        }
    }

    fn check_claim(&mut self, who: Who, claim: Claim) {
        let now = self.node.now.monotonic;
        match claim {
            Claim::Recovery(recovery) => {
                let log = &self.logs[recovery.channel];
                if log.has_history && self.is_exact() {
                    self.check_recovery(&recovery);
                }
            }
            Claim::Lost(positions) => {
                let may_be_lost = |(channel, (offset, epoch)): &(usize, Position)| {
                    let log = &self.logs[*channel];
                    let is_kept = *epoch == log.epoch()
                        && log.keeps_all_behind(*offset, epoch, &HISTORY, now);
                    !is_kept || self.weather.forgetful || log.removals > 0
                };
                assert!(
                    positions.iter().any(may_be_lost),
                    "{positions:?} are kept and one was lost"
                );
            }
            Claim::Pushed => {
                if let Some(code) = &self.node.code {
                    code.is_subscribed_by_operator(&self.views[&who].client);
                }
            }
            Claim::Told(channels) => self.check_told(who, channels),
            Claim::Presence { channel, who } => {
                if self.is_exact() {
                    assert_eq!(who, self.present(channel), "who is in {channel}");
                }
            }
            Claim::Answered { command, code } => self.charge(who, &command, code),
            Claim::Expired { cut } => {
                // It may have an end of which nobody was told yet.
                assert!(cut.is_some() || !self.is_prompt(), "it has no end");
                let is_early = cut.is_some_and(|cut| now < cut.not_before);
                assert!(!is_early, "{cut:?}, ended at {now:?}");
            }
            Claim::NoSeat => self.check_seat(who),
            Claim::Unfit { wants_bytes } => {
                assert!(wants_bytes && self.logs[BYTES].has_bytes);
            }
            Claim::Errors => assert!(!self.is_prompt() || self.views[&who].has_erred),
            Claim::Stale {
                opened_at,
                is_connected,
            } => {
                assert!(!is_connected, "stale, and connected");
                assert!(
                    now >= opened_at + STALE_CLOSE_DELAY,
                    "opened {opened_at:?}, stale at {now:?}"
                );
            }
            Claim::NoPong { pinged_at } => {
                let pinged_at = pinged_at.expect("ended for want of a pong, and owed none");
                assert!(
                    now >= pinged_at + PONG_TIMEOUT,
                    "pinged {pinged_at:?}, at {now:?}"
                );
            }
        }
    }

    fn check_recovery(&self, claim: &Recovery) {
        let Recovery {
            channel,
            since: (offset, epoch),
            filter,
            epoch: current,
            recovered,
            offsets,
        } = claim;
        let log = &self.logs[*channel];
        let now = self.node.now.monotonic;
        let is_same = epoch == current;
        if !crate::is_cache(*channel) {
            let is_kept = is_same && log.keeps_all_behind(*offset, epoch, &HISTORY, now);
            assert_eq!(*recovered, is_kept, "recovery from {offset} in {channel}");
            return;
        }
        let top = log.top(current);
        let is_current = is_same && *offset > 0 && *offset == top;
        let kept = log.kept(current, &HISTORY, now);
        let has_newest = kept.last().is_some_and(|last| last.offset == top);
        assert_eq!(
            *recovered,
            is_current || has_newest,
            "the newest of {channel}"
        );
        let mut wanted = kept.iter().rev();
        let newest = wanted
            .find(|entry| entry.passes(filter.as_deref()))
            .filter(|_| *recovered)
            // Unless it has it.
            .filter(|entry| !is_same || entry.offset > *offset);
        let newest: Vec<u64> = newest.map(|entry| entry.offset).into_iter().collect();
        assert_eq!(*offsets, newest, "the newest of {channel} for {filter:?}");
    }

    /// Connection ids of those whom the node holds to be subscribed.
    pub(crate) fn subscribers(&self, channel: usize) -> BTreeSet<String> {
        let views = self.views.values();
        views
            .filter(|view| view.subscribed.contains_key(&channel))
            .map(|view| view.client.clone())
            .collect()
    }

    /// Those, and those who were told to come back elsewhere.
    pub(crate) fn present(&self, channel: usize) -> BTreeSet<String> {
        let mut present = self.subscribers(channel);
        present.extend(self.away(channel));
        present
    }

    /// Who the engine says is in a channel, by connection id.
    pub(crate) fn members(&self, channel: usize) -> BTreeSet<String> {
        self.everybody(channel).into_keys().collect()
    }

    /// The same with their users.
    pub(crate) fn everybody(&self, channel: usize) -> BTreeMap<String, String> {
        let ticket = Ticket {
            worker: WorkerId(0),
            serial: 0,
        };
        let everybody = support::everybody(CHANNELS[channel]);
        match self.memory.presence(self.node.now, ticket, everybody) {
            Started::Done(page) => {
                let members = page.unwrap().members;
                let members = members.iter();
                members
                    .map(|(client, info)| (client.to_string(), info.user.to_string()))
                    .collect()
            }
            Started::Later => panic!("the memory engine does everything at once"),
        }
    }
}
