//! An application that answers when it pleases: at once, later, in any order. It keeps account of what it
//! is told, for each client of each worker.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tautline_hub::application::{
    Answer, Application, Client, ConnectReply, PublishInstead, PublishReply, Question,
    SubscribeReply,
};
use tautline_hub::engine::testkit::Seeded;
use tautline_hub::engine::{Started, Ticket};
use tautline_protocol::message::ClientInfo;

use crate::faults::Fault;
use crate::{CHANNELS, PUSHED, SERVER_SIDE, TOKEN_SUBSCRIBED};

/// Shared by the applications of all workers.
#[derive(Clone)]
pub(crate) struct Code(Rc<RefCell<Account>>);

struct Account {
    random: Seeded,
    fault: Option<Fault>,
    /// Users are subscribed to a channel of their own.
    has_personal: bool,
    /// Questions that are open, with the answers to come.
    open: Vec<Open>,
    /// Who has come in and has not gone, by connection id.
    present: BTreeSet<String>,
    /// How many subscriptions it has allowed, and has not heard the end of.
    /// Of what an operator does it hears the end only, which may come first here.
    allowed: BTreeMap<Subscription, isize>,
}

/// Connection id and channel.
type Subscription = (String, String);

struct Open {
    ticket: Ticket,
    answer: Answer,
    /// What the answer allows.
    allows: Option<Subscription>,
}

impl Code {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, has_personal: bool) -> Self {
        Self(Rc::new(RefCell::new(Account {
            random: Seeded::new(seed),
            fault,
            has_personal,
            open: Vec::new(),
            present: BTreeSet::new(),
            allowed: BTreeMap::new(),
        })))
    }

    /// One of the open questions, and the answer to it.
    pub(crate) fn next(&self) -> Option<(Ticket, Answer)> {
        let account = &mut *self.0.borrow_mut();
        if account.open.is_empty() {
            return None;
        }
        let place = account.random.below(account.open.len());
        let Open { ticket, answer, .. } = account.open.swap_remove(place);
        Some((ticket, answer))
    }

    /// A connection was subscribed by an operator, who asks nobody.
    pub(crate) fn is_subscribed_by_operator(&self, client: &str) {
        let subscription = (client.to_owned(), CHANNELS[PUSHED].to_owned());
        self.0.borrow_mut().allow(subscription);
    }

    /// Everybody has gone, and it was told so. What was allowed has begun, so it must have ended, unless an
    /// engine that answers later or fails came between.
    pub(crate) fn check_empty(&self, is_exact: bool) {
        let account = self.0.borrow();
        assert!(account.open.is_empty(), "questions are open");
        assert_eq!(
            account.present,
            BTreeSet::new(),
            "not told that they have gone"
        );
        let left: Vec<_> = account
            .allowed
            .iter()
            .filter(|(_, count)| **count != 0)
            .collect();
        assert!(
            !is_exact || left.is_empty(),
            "not told of the end of {left:?}"
        );
    }
}

impl Application for Code {
    fn ask(&mut self, ticket: Ticket, client: Client, question: Question) -> Started<Answer> {
        let account = &mut *self.0.borrow_mut();
        let allows = match &question {
            Question::Subscribe(event) => {
                Some((client.info.client.to_string(), event.channel.clone()))
            }
            _ => None,
        };
        let answer = account.decide(&client.info, question);
        if account.random.chance(30) {
            return Started::Done(answer);
        }
        account.open.push(Open {
            ticket,
            answer,
            allows,
        });
        Started::Later
    }

    fn withdraw(&mut self, ticket: Ticket) {
        let account = &mut *self.0.borrow_mut();
        let place = account.open.iter().position(|open| open.ticket == ticket);
        let open = account
            .open
            .swap_remove(place.expect("withdrawn though it was answered"));
        if let Some(subscription) = open.allows {
            account.ended(&subscription);
        }
    }
}

impl Account {
    fn decide(&mut self, info: &ClientInfo, question: Question) -> Answer {
        let client = &*info.client;
        match question {
            Question::Connecting(event) => {
                assert!(event.permitted && event.identity.is_some());
                assert!(!self.present.contains(client), "it has come in already");
                Answer::Connect(Ok(ConnectReply::default()))
            }
            Question::Connected => {
                assert!(self.present.insert(client.to_owned()), "told twice");
                if *info.user == *TOKEN_SUBSCRIBED {
                    self.allow((client.to_owned(), CHANNELS[SERVER_SIDE].to_owned()));
                }
                if self.has_personal {
                    self.allow((client.to_owned(), format!("#{}", info.user)));
                }
                Answer::Noted
            }
            Question::Subscribe(event) => {
                assert!(self.present.contains(client) && event.permitted);
                self.allow((client.to_owned(), event.channel));
                Answer::Subscribe(Ok(SubscribeReply::default()))
            }
            Question::Publish(event) => {
                assert!(self.present.contains(client) && event.permitted);
                Answer::Publish(Ok(if self.random.chance(50) {
                    PublishReply::AsSent
                } else {
                    PublishReply::Instead(PublishInstead {
                        data: Some(event.data),
                        ..PublishInstead::default()
                    })
                }))
            }
            Question::Unsubscribed(event) => {
                assert!(self.present.contains(client), "it has gone");
                let is_forgotten =
                    self.fault == Some(Fault::ForgetUnsubscribed) && self.random.chance(10);
                if !is_forgotten {
                    self.ended(&(client.to_owned(), event.channel.to_string()));
                }
                Answer::Noted
            }
            Question::Disconnected(_) => {
                let is_forgotten =
                    self.fault == Some(Fault::ForgetDisconnected) && self.random.chance(10);
                assert!(
                    is_forgotten || self.present.remove(client),
                    "it had never come in"
                );
                Answer::Noted
            }
            question => panic!("nobody asks for this here: {question:?}"),
        }
    }

    fn allow(&mut self, subscription: Subscription) {
        *self.allowed.entry(subscription).or_insert(0) += 1;
    }

    fn ended(&mut self, subscription: &Subscription) {
        let is_pushed = subscription.1 == CHANNELS[PUSHED];
        let allowed = self.allowed.entry(subscription.clone()).or_insert(0);
        *allowed -= 1;
        assert!(
            *allowed >= 0 || is_pushed,
            "it was never allowed, or has ended before"
        );
    }
}
