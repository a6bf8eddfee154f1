//! Telling those who follow somebody ([`crate::trace`]).
//!
//! Every method here is called only where [`Hub::is_traced`] says so: what nobody follows costs that
//! comparison, once for a command, a message to one connection, or a fan-out.

use std::borrow::Cow;

use hashbrown::HashMap;
use tautline_protocol::{Disconnect, Push, Reply, Request};

use super::channel_name::ChannelName;
use super::channels::{Channel, Subscriber};
use super::dispatch::Refusal;
use super::run::Run;
use super::sessions::{Session, Sessions, State};
use super::{Hub, SessionId};
use crate::outbox::Outbox;
use crate::trace::{Follow, Step, TraceEvent, TraceId};

/// Where events go.
type Sink = Box<dyn FnMut(&TraceEvent<'_>)>;

/// All that are followed.
#[derive(Default)]
pub(super) struct Traces {
    all: Vec<(TraceId, Follow, Sink)>,
    serial: u64,
    /// The channels that commands are about which have no reply yet.
    subjects: HashMap<(SessionId, u32), String, foldhash::fast::RandomState>,
}

impl Hub {
    /// Tells `sink` of everything that concerns `follow`, until [`end_trace`](Self::end_trace). The sink is
    /// called in the middle of things and must not call the hub; it should only write down what it is told.
    pub fn trace(
        &mut self,
        follow: Follow,
        sink: impl FnMut(&TraceEvent<'_>) + 'static,
    ) -> TraceId {
        let traces = self.traces.get_or_insert_default();
        traces.serial += 1;
        let id = TraceId(traces.serial);
        traces.all.push((id, follow, Box::new(sink)));
        id
    }

    /// Ends a trace. One that is over already is ignored.
    pub fn end_trace(&mut self, id: TraceId) {
        let Some(traces) = &mut self.traces else {
            return;
        };
        traces.all.retain(|(other, ..)| *other != id);
        if traces.all.is_empty() {
            self.traces = None;
        }
    }

    /// Whether anybody is followed.
    #[inline]
    pub(super) fn is_traced(&self) -> bool {
        self.traces.is_some()
    }

    /// Notes by which rule something is refused, for those who follow.
    pub(super) fn because<E>(&self, why: &'static str, refusal: E) -> E {
        self.why.replace(Cow::Borrowed(why));
        refusal
    }

    /// The same for a rule that takes some words, which are made only if somebody follows.
    pub(super) fn because_of<E>(&self, why: impl std::fmt::Display, refusal: E) -> E {
        if self.is_traced() {
            self.why.replace(Cow::Owned(why.to_string()));
        }
        refusal
    }

    /// A session, or whoever is in a channel, did something beyond a limit that is only tried out.
    #[cold]
    pub(super) fn observe_over_limit(
        &mut self,
        id: SessionId,
        channel: Option<&str>,
        why: &dyn std::fmt::Display,
    ) {
        if self.is_traced() {
            let why = why.to_string();
            self.observe(id, None, channel, Step::OverLimit { why: &why });
        }
    }

    /// Something happened to one session, for which so many bytes wait.
    #[cold]
    pub(super) fn observe(
        &mut self,
        id: SessionId,
        queued: Option<usize>,
        channel: Option<&str>,
        step: Step<'_>,
    ) {
        if let (Some(traces), Some(session)) = (&mut self.traces, self.sessions.get(id)) {
            traces.tell(&event(session, queued, channel, step));
        }
    }

    /// Something happened to one subscription.
    #[cold]
    pub(super) fn observe_subscription(&mut self, id: SessionId, index: u32, step: Step<'_>) {
        let channel = self.channels.get(index);
        let name = channel.map(|channel| channel.name.clone());
        self.observe(id, None, name.as_deref(), step);
    }

    /// A session, which is out of the table already, has ended.
    #[cold]
    pub(super) fn observe_end(&mut self, session: &Session, disconnect: &Disconnect) {
        if let Some(traces) = &mut self.traces {
            traces.tell(&event(session, None, None, Step::Ended(disconnect)));
        }
    }

    #[cold]
    pub(super) fn observe_command<O: Outbox>(
        &mut self,
        id: SessionId,
        number: u32,
        request: Option<&Request<'_>>,
        out: &O,
    ) {
        self.why.take();
        let channel = request.and_then(channel_of);
        let step = Step::Command { number, request };
        self.observe(id, Some(out.queued(id)), channel, step);
        if let (Some(traces), Some(channel)) = (&mut self.traces, channel)
            && number > 0
            && traces.subjects.len() < MAX_SUBJECTS
        {
            traces.subjects.insert((id, number), channel.to_owned());
        }
    }

    #[cold]
    pub(super) fn observe_refusal<O: Outbox>(
        &mut self,
        id: SessionId,
        number: u32,
        refusal: &Refusal,
        out: &O,
    ) {
        let told = match refusal {
            Refusal::Error(error) => format!("error {}: {}", error.code, error.message),
            Refusal::Disconnect(end) => format!("disconnect {}: {}", end.code, end.reason),
        };
        let mut why = self.why.take();
        let traces = self.traces.as_ref();
        let subject = traces.and_then(|traces| traces.subjects.get(&(id, number)).cloned());
        if why.is_empty()
            && let Some(Err(fault)) = subject
                .as_deref()
                .map(|channel| ChannelName::parse_asked(&self.config, channel))
        {
            why = Cow::Owned(fault.to_string());
        }
        let step = Step::Refused {
            number,
            told: &told,
            why: Some(&*why).filter(|why| !why.is_empty()),
        };
        self.observe(id, Some(out.queued(id)), subject.as_deref(), step);
    }

    #[cold]
    pub(super) fn observe_reply<O: Outbox>(&mut self, id: SessionId, reply: &Reply, out: &O) {
        let subject = match (reply, &mut self.traces) {
            (Reply::Answer(number, _), Some(traces)) => traces.subjects.remove(&(id, *number)),
            _ => None,
        };
        let channel = subject.as_deref().or_else(|| pushed_channel(reply));
        self.observe(id, Some(out.queued(id)), channel, Step::Reply(reply));
    }

    /// A run is about to be fanned out to those subscribers who `want` it.
    #[cold]
    pub(super) fn observe_run<O: Outbox>(
        &mut self,
        index: u32,
        run: &Run,
        out: &O,
        wants: impl Fn(&Subscriber, &Sessions) -> bool,
    ) {
        self.observe_fan_out(
            index,
            out,
            &Told::Run(run),
            |channel, subscriber, sessions| {
                let classes = channel.classes.as_deref();
                let mut publications = run.publications().iter();
                let passes = classes.is_none_or(|classes| {
                    publications.any(|publication| classes.passes(subscriber.class, publication))
                });
                passes && wants(subscriber, sessions)
            },
        );
    }

    /// A join or leave is about to be fanned out to those subscribers who `want` it.
    #[cold]
    pub(super) fn observe_event<O: Outbox>(
        &mut self,
        index: u32,
        reply: &Reply,
        out: &O,
        wants: impl Fn(&Subscriber) -> bool,
    ) {
        let wants = |_: &Channel, subscriber: &Subscriber, _: &Sessions| wants(subscriber);
        self.observe_fan_out(index, out, &Told::Reply(reply), wants);
    }

    fn observe_fan_out<O: Outbox>(
        &mut self,
        index: u32,
        out: &O,
        told: &Told<'_>,
        wants: impl Fn(&Channel, &Subscriber, &Sessions) -> bool,
    ) {
        let Self {
            traces: Some(traces),
            channels,
            sessions,
            users,
            clients,
            ..
        } = self
        else {
            return;
        };
        let Some(channel) = channels.get(index) else {
            return;
        };
        for (_, follow, sink) in &mut traces.all {
            let followed = match follow {
                Follow::User(user) => users.sessions_of(user, sessions),
                Follow::Client(client) => clients.get(&**client).copied().into_iter().collect(),
                Follow::Channel(name) if **name == *channel.name => {
                    let subscribers = channel.subscribers.iter();
                    let receivers = subscribers.filter(|one| wants(channel, one, sessions));
                    sink(&TraceEvent {
                        user: "",
                        client: "",
                        transport: None,
                        queued: None,
                        channel: Some(&channel.name),
                        step: told.step(receivers.count()),
                    });
                    continue;
                }
                Follow::Channel(_) | Follow::Refusals => continue,
            };
            for id in followed {
                let Some(session) = sessions.get(id) else {
                    continue;
                };
                let connected = session.connected();
                let subscription = connected.and_then(|connected| connected.subscription(index));
                let slot = subscription.map(|subscription| subscription.slot as usize);
                let subscriber = slot.and_then(|slot| channel.subscribers.get(slot));
                if subscriber.is_some_and(|subscriber| wants(channel, subscriber, sessions)) {
                    let (queued, name) = (Some(out.queued(id)), Some(&*channel.name));
                    sink(&event(session, queued, name, told.step(1)));
                }
            }
        }
    }
}

/// What is fanned out.
enum Told<'a> {
    Run(&'a Run),
    Reply(&'a Reply),
}

impl Told<'_> {
    fn step(&self, receivers: usize) -> Step<'_> {
        match self {
            Self::Run(run) => Step::Publications {
                publications: run.publications(),
                receivers,
            },
            Self::Reply(reply) => Step::Reply(reply),
        }
    }
}

impl Traces {
    fn tell(&mut self, event: &TraceEvent<'_>) {
        for (_, follow, sink) in &mut self.all {
            let is_followed = match follow {
                Follow::User(user) => *event.user == **user && !event.client.is_empty(),
                Follow::Client(client) => *event.client == **client,
                Follow::Channel(channel) => event.channel == Some(&**channel),
                Follow::Refusals => match event.step {
                    Step::Refused { .. } | Step::Unreadable(_) | Step::OverLimit { .. } => true,
                    Step::Ended(disconnect) => *disconnect != Disconnect::CONNECTION_CLOSED,
                    _ => false,
                },
            };
            if is_followed {
                sink(event);
            }
        }
    }
}

fn event<'a>(
    session: &'a Session,
    queued: Option<usize>,
    channel: Option<&'a str>,
    step: Step<'a>,
) -> TraceEvent<'a> {
    let (user, client) = match &session.state {
        State::Connected(connected) => (&*connected.info.user, &*connected.info.client),
        State::Opened {
            user: Some(user), ..
        } => (&**user, ""),
        State::Opened { user: None, .. } | State::Refused { .. } => ("", ""),
    };
    TraceEvent {
        user,
        client,
        transport: Some(session.transport.name),
        queued,
        channel,
        step,
    }
}

/// The channel that a command is about.
pub(super) fn channel_of<'a>(request: &'a Request<'_>) -> Option<&'a str> {
    Some(match request {
        Request::Subscribe(request) => &request.channel,
        Request::Unsubscribe(request) => &request.channel,
        Request::Publish(request) => &request.channel,
        Request::Presence(request) => &request.channel,
        Request::PresenceStats(request) => &request.channel,
        Request::History(request) => &request.channel,
        Request::SubRefresh(request) => &request.channel,
        _ => return None,
    })
}

fn pushed_channel(reply: &Reply) -> Option<&str> {
    let Reply::Push(push) = reply else {
        return None;
    };
    match push {
        Push::Publication(channel, _)
        | Push::Join(channel, _)
        | Push::Leave(channel, _)
        | Push::Unsubscribe(channel, _)
        | Push::Subscribe(channel, _) => Some(channel),
        _ => None,
    }
}

/// Beyond, replies are told without the channel that their command was about.
const MAX_SUBJECTS: usize = 10_000;
