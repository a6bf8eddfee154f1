//! What is published, by clients and by operators, and what is removed.

use tautline_hub::ApiPublish;

use crate::client::is_binary;
use crate::payload::{KINDS, TAG, bytes, payload};
use crate::world::{Simulation, Told};
use crate::{CHANNELS, CLIENTS, WORKERS};

impl Simulation {
    pub(crate) fn publish(&mut self, client: usize, channel: usize) {
        // Now and then a lot at once.
        let burst = if self.random.chance(8) { 30 } else { 1 };
        let by_client = if burst == 1 { 60 } else { 25 };
        let by_client = self.random.chance(by_client) && self.clients[client].is_connected;
        let numbers = self.next_number + 1..=self.next_number + burst;
        self.next_number += burst;
        if by_client {
            let model = &mut self.clients[client];
            let commands = numbers.map(|number| model.publish(channel, number));
            let commands = commands.collect();
            self.send(client, commands);
        } else {
            for number in numbers {
                self.publish_as_operator(channel, number);
            }
        }
    }

    /// With a tag or without, now and then with a version, or twice with a key, or for all but one.
    fn publish_as_operator(&mut self, channel: usize, number: u64) {
        let random = &mut self.random;
        let kind = random.chance(70).then(|| KINDS[random.below(KINDS.len())]);
        let version = random
            .chance(20)
            .then(|| 1 + random.below(number as usize + 5) as u64);
        // Not where a key may be forgotten between the two.
        let is_repeated = random.chance(10) && !self.weather.forgetful;
        let excluded = random.below(2 * CLIENTS);
        let excluded = self.clients.get(excluded).map(|client| client.id.clone());
        let excluded = excluded.filter(|_| !crate::is_cache(channel));
        let excluded = excluded.unwrap_or_default();
        if !excluded.is_empty() {
            self.excluded.insert(number, excluded.clone());
        }
        let data = if is_binary(channel, number) {
            bytes(number)
        } else {
            payload(number).to_string().into_bytes()
        };
        let request = ApiPublish {
            channel: CHANNELS[channel].into(),
            data: data.into(),
            tags: kind
                .map(|kind| (TAG.into(), kind.into()))
                .into_iter()
                .collect(),
            delta: random.chance(50),
            version: version.unwrap_or_default(),
            idempotency_key: is_repeated.then(|| format!("key {number}")),
            exclude_client: excluded,
            ..ApiPublish::default()
        };
        let log = &mut self.logs[channel];
        log.started += usize::from(version.is_none());
        log.versions
            .extend(version.map(|version| (number, version)));
        for _ in 0..=usize::from(is_repeated) {
            let (fails, told) = (self.fails(), self.told.clone());
            let worker = self.random.below(WORKERS);
            let now = self.node.now;
            let hub = &mut self.node.workers[worker].hub;
            hub.api_publish(now, request.clone(), move |result| {
                assert!(fails || result.is_ok());
                if let Ok(outcome) = result {
                    let is_stale = outcome.stale;
                    let outcome = Told::Published {
                        channel,
                        number,
                        is_stale,
                    };
                    // The second of the same key is told what the first was, but not that it was old.
                    if !is_repeated {
                        told.borrow_mut().push(outcome);
                    }
                }
            });
        }
    }

    pub(crate) fn remove_history(&mut self, channel: usize) {
        if !self.logs[channel].has_history {
            return;
        }
        self.logs[channel].removals += 1;
        let (fails, told) = (self.fails(), self.told.clone());
        let worker = self.random.below(WORKERS);
        let now = self.node.now;
        let hub = &mut self.node.workers[worker].hub;
        hub.api_history_remove(now, CHANNELS[channel], move |result| {
            assert!(fails || result.is_ok());
            told.borrow_mut().push(Told::Removed { channel });
        });
    }
}
