//! A node that answers from memory and remembers what it was asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame};
use tautline::Publish;
use tautline::glob::Glob;
use tautline::http::RequestBody;
use tautline::http::counters::HttpCounters;
use tautline::http::line::HttpLine;
use tautline::http::node::{History, Node, NodeInfo, Presence};
use tautline::http::respond::{Reply, ReplyBody};
use tautline_hub::{ApiRefresh, ApiSubscribe, PresenceList, Target};
use tautline_protocol::ErrorCode;
use tautline_protocol::message::{
    ClientInfo, Disconnect, Error, HistoryResult, PresenceStatsResult, Publication, StreamPosition,
    Unsubscribe,
};

/// Remembers what was published; knows every channel but those that begin with `nobody`.
#[derive(Clone, Default)]
pub(crate) struct FakeNode {
    pub(crate) published: Rc<RefCell<Vec<Publish>>>,
    pub(crate) histories: Rc<RefCell<Vec<History>>>,
    pub(crate) presences: Rc<RefCell<Vec<Presence>>>,
    /// Channels whose history was removed.
    pub(crate) removed: Rc<RefCell<Vec<String>>>,
    /// What was done to connections.
    pub(crate) done: Rc<RefCell<Vec<String>>>,
    /// Requests and connections that came to nothing.
    pub(crate) counts: Rc<RefCell<HttpCounters>>,
}

/// Says one thing, and then nothing.
struct GoesOn(bool);

impl Body for GoesOn {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data("said".into()))))
    }
}

impl FakeNode {
    /// How many connections were dropped for that reason.
    #[allow(dead_code, reason = "each test binary uses another part")]
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        let counts = self.counts.borrow();
        let mut all = counts.all_dropped();
        all.find(|(known, _)| *known == reason)
            .expect("it is counted")
            .1
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.done.borrow_mut().push(what.to_string());
    }
}

fn known(channel: &str) -> Result<(), Error> {
    if channel.starts_with("nobody") {
        Err(ErrorCode::UnknownChannel.into())
    } else {
        Ok(())
    }
}

impl Node for FakeNode {
    fn count_http(&self, count: impl FnOnce(&mut HttpCounters)) {
        count(&mut self.counts.borrow_mut());
    }

    /// At `/goes-on` there is an answer that goes on, and at `/waits` one that is waited for, a second.
    async fn enter(
        &self,
        request: Request<RequestBody>,
        _line: &Rc<HttpLine>,
    ) -> Result<Reply, Request<RequestBody>> {
        match request.uri().path() {
            "/goes-on" => Ok(Reply::Now(Response::new(ReplyBody::stream(GoesOn(false))))),
            "/waits" => Ok(Reply::Later(Box::pin(async {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                Response::new(ReplyBody::Whole("waited".into()))
            }))),
            _ => Err(request),
        }
    }

    async fn publish(&self, request: Publish) -> Result<Option<StreamPosition>, Error> {
        // Some answers come later, so that broadcasts have something to wait for.
        if request.channel.starts_with("slow") {
            tokio::task::yield_now().await;
        }
        known(&request.channel)?;
        let offset = self.published.borrow().len() as u64 + 1;
        let position = StreamPosition {
            offset,
            epoch: "hKqPwZbd".into(),
        };
        let stored = !request.skip_history;
        self.published.borrow_mut().push(request);
        Ok(stored.then_some(position))
    }

    async fn presence(&self, request: Presence) -> Result<PresenceList, Error> {
        known(&request.channel)?;
        let mut presence = BTreeMap::new();
        if request.channel == "chat" {
            let info = ClientInfo {
                user: "7".into(),
                client: "8a3f".into(),
                conn_info: Some(r#"{"name":"Ann"}"#.into()),
                chan_info: None,
            };
            presence.insert("8a3f".into(), Arc::new(info));
        }
        self.presences.borrow_mut().push(request);
        Ok(PresenceList {
            presence,
            stats: PresenceStatsResult {
                num_clients: 2,
                num_users: 1,
            },
            next: Some("8a3f".into()),
        })
    }

    async fn presence_stats(&self, channel: String) -> Result<PresenceStatsResult, Error> {
        known(&channel)?;
        Ok(PresenceStatsResult {
            num_clients: 2,
            num_users: 1,
        })
    }

    async fn history(&self, request: History) -> Result<HistoryResult, Error> {
        known(&request.channel)?;
        if request
            .since
            .as_ref()
            .is_some_and(|since| since.epoch.as_ref() == "old")
        {
            return Err(ErrorCode::UnrecoverablePosition.into());
        }
        self.histories.borrow_mut().push(request);
        let publication = Publication {
            data: r#"{"n":1.0}"#.into(),
            offset: 14,
            ..Default::default()
        };
        let position = StreamPosition {
            offset: 14,
            epoch: "hKqPwZbd".into(),
        };
        Ok(HistoryResult {
            publications: vec![Arc::new(publication)],
            position,
        })
    }

    async fn history_remove(&self, channel: String) -> Result<(), Error> {
        known(&channel)?;
        self.removed.borrow_mut().push(channel);
        Ok(())
    }

    async fn subscribe(&self, target: Target, request: ApiSubscribe) -> Result<(), Error> {
        known(&request.channel)?;
        self.note(format_args!("subscribe {target:?} {request:?}"));
        Ok(())
    }

    async fn unsubscribe(
        &self,
        target: Target,
        channel: String,
        unsubscribe: Unsubscribe,
    ) -> Result<(), Error> {
        known(&channel)?;
        self.note(format_args!(
            "unsubscribe {target:?} {channel} {unsubscribe:?}"
        ));
        Ok(())
    }

    async fn disconnect(
        &self,
        target: Target,
        spared: Vec<String>,
        disconnect: Disconnect,
    ) -> Result<(), Error> {
        self.note(format_args!(
            "disconnect {target:?} {spared:?} {disconnect:?}"
        ));
        Ok(())
    }

    async fn refresh(&self, target: Target, request: ApiRefresh) -> Result<(), Error> {
        self.note(format_args!("refresh {target:?} {request:?}"));
        Ok(())
    }

    async fn channels(&self, pattern: Option<Glob>) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        let all = [("chat:7", 2), ("chat:9", 1), ("news", 5)];
        let all = all.into_iter().filter(|(name, _)| {
            let pattern = pattern.as_ref();
            pattern.is_none_or(|pattern| pattern.matches(name))
        });
        Ok(all.map(|(name, size)| (name.into(), size)).collect())
    }

    async fn rpc(&self, method: String, params: Bytes) -> Result<Option<Bytes>, Error> {
        match method.as_str() {
            "echo" => Ok(Some(params)),
            // Never answers.
            "wait" => std::future::pending().await,
            _ => Err(ErrorCode::MethodNotFound.into()),
        }
    }

    async fn info(&self) -> Result<Vec<NodeInfo>, Error> {
        Ok(vec![NodeInfo {
            uid: "n1".into(),
            name: "a \"node\"".into(),
            num_clients: 2,
            ..NodeInfo::default()
        }])
    }
}
