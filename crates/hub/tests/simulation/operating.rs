//! What operators do to connections: subscribe them, end that again, prolong and shorten them.

use std::time::Duration;

use tautline_hub::{ApiRefresh, ApiSubscribe, Target};
use tautline_protocol::message::{StreamPosition, Unsubscribe};

use crate::client::State;
use crate::faults::Fault;
use crate::view::Cut;
use crate::world::{Simulation, Who};
use crate::{CHANNELS, PUSHED, WORKERS};

impl Simulation {
    /// Does something to one connection of a client's, or to all of its user.
    pub(crate) fn operate(&mut self, client: usize) {
        let model = &self.clients[client];
        let one = Some(model.id.clone()).filter(|id| !id.is_empty() && self.random.chance(50));
        let user = Some(model.user.to_owned()).filter(|_| one.is_none() || self.random.chance(50));
        let target = Target {
            user,
            client: one,
            session: None,
        };
        match self.random.below(4) {
            0 | 1 => self.push_subscription(client, &target),
            2 => self.end_subscription(&target),
            _ => self.prolong(&target),
        }
    }

    /// The connections that an operator means, as far as they have been told that they are connected.
    fn meant(&self, target: &Target) -> Vec<Who> {
        let views = self.views.iter().filter(|(_, view)| {
            let is_user = target.user.as_ref().is_none_or(|user| *user == view.user);
            let client = target.client.as_ref();
            view.is_connected() && is_user && client.is_none_or(|client| *client == view.client)
        });
        views.map(|(who, _)| *who).collect()
    }

    /// The workers are asked one after the other.
    fn workers(&self) -> impl Iterator<Item = usize> + use<> {
        let first = usize::from(self.weather.fault == Some(Fault::ForgetWorker));
        first..WORKERS
    }

    /// Subscribes to a channel to which clients can't by themselves. Now and then from where a client is: it must
    /// have heard all that it was told, or the operator would name a position of the past.
    fn push_subscription(&mut self, client: usize, target: &Target) {
        let model = &self.clients[client];
        let own = &model.subscriptions[PUSHED];
        let link = self.links[client].as_ref();
        let is_quiet = link.is_some_and(|link| self.node.is_quiet(link));
        let knows = is_quiet && own.state == State::Off && target.client.is_some();
        let since = own.since().filter(|_| knows && self.random.chance(70));
        if let (Some(since), Some(link)) = (&since, link)
            && let Some(view) = self.views.get_mut(&(link.worker, link.id))
        {
            view.pushed_since = Some(since.clone());
        }
        let seconds = 2 + self.random.below(25) as u64;
        let ends = self.random.chance(30);
        let expire_at = (self.node.now.unix + Duration::from_secs(seconds)).as_secs();
        let meant = self.meant(target);
        for who in &meant {
            let end = ends.then(|| Cut::of_pushed(self.node.now.monotonic, seconds));
            self.views.get_mut(who).unwrap().expect_push(end);
        }
        let is_told = ends && self.weather.fault != Some(Fault::ForgetSubscriptionEnd);
        let request = ApiSubscribe {
            channel: CHANNELS[PUSHED].into(),
            expire_at: is_told.then_some(expire_at),
            recover_since: since.map(|(offset, epoch)| StreamPosition {
                offset,
                epoch: epoch.into(),
            }),
            ..ApiSubscribe::default()
        };
        let now = self.node.now;
        for worker in self.workers() {
            let fails = self.fails();
            let worker = &mut self.node.workers[worker];
            let done = move |result: Result<(), _>| assert!(fails || result.is_ok());
            worker
                .hub
                .api_subscribe(now, target, request.clone(), done, &mut worker.net);
        }
        self.check_node();
        if self.is_exact() {
            for who in meant {
                let view = &self.views[&who];
                let is_there = view.subscribed.contains_key(&PUSHED);
                assert!(is_there || view.ended.is_some(), "{who:?} is forgotten");
            }
        }
    }

    fn end_subscription(&mut self, target: &Target) {
        let unsubscribe = Unsubscribe {
            code: 2000,
            reason: "enough".into(),
        };
        let now = self.node.now;
        for worker in self.workers() {
            let worker = &mut self.node.workers[worker];
            let done = worker.hub.api_unsubscribe(
                now,
                target,
                CHANNELS[PUSHED],
                &unsubscribe,
                &mut worker.net,
            );
            done.unwrap();
        }
        let meant = self.meant(target);
        self.check_node();
        for who in meant {
            let is_there = self.views[&who].subscribed.contains_key(&PUSHED);
            assert!(!is_there, "{who:?} is subscribed still");
        }
    }

    /// Gives connections another end, or none, or ends them now.
    fn prolong(&mut self, target: &Target) {
        let expired = self.random.chance(15);
        let seconds = 2 + self.random.below(25) as u64;
        let expire_at = (self.node.now.unix + Duration::from_secs(seconds)).as_secs();
        let ends = self.random.chance(60);
        let is_told = ends && self.weather.fault != Some(Fault::ForgetConnectionEnd);
        let request = ApiRefresh {
            expired,
            expire_at: is_told.then_some(expire_at),
            info: None,
        };
        let meant = self.meant(target);
        if expired {
            // Others may be about to be told that they are connected.
            for view in self.views.values_mut() {
                view.may_be_cut = true;
            }
        }
        let now = self.node.now;
        for worker in self.workers() {
            let worker = &mut self.node.workers[worker];
            let done = worker
                .hub
                .api_refresh(now, target, &request, &mut worker.net);
            done.unwrap();
        }
        self.check_node();
        for view in self.views.values_mut() {
            view.may_be_cut = false;
        }
        for who in meant {
            let view = &self.views[&who];
            if expired {
                assert_eq!(view.ended, Some(3005), "{who:?} lives on");
            } else {
                let refreshed_at = view.refreshed_at;
                assert_eq!(refreshed_at, Some(now.monotonic), "{who:?} isn't told");
                assert_eq!(view.has_end(), ends, "what {who:?} is told of its end");
            }
        }
    }
}
