//! An application that decides: at once, later, never, or too late.

mod arrivals;
mod channels;
mod questions;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::application::{
    Answer, Application, ApplicationOptions, Client as Asked, Interests, Question,
};
use tautline_hub::config::ClientOptions;
use tautline_hub::engine::{Started, Ticket};

use crate::support::{Setup, World};

/// What the application was asked, and what it says at once.
#[derive(Default)]
pub(crate) struct Script {
    asked: Vec<(Ticket, Asked, Question)>,
    withdrawn: Vec<Ticket>,
    #[expect(clippy::type_complexity, reason = "it is named once")]
    at_once: Option<Box<dyn FnMut(&Question) -> Option<Answer>>>,
}

#[derive(Clone, Default)]
pub(crate) struct Scripted(Rc<RefCell<Script>>, Option<Interests>);

impl Application for Scripted {
    fn interests(&self) -> Interests {
        self.1.unwrap_or(Interests::ALL)
    }

    fn ask(&mut self, ticket: Ticket, client: Asked, question: Question) -> Started<Answer> {
        let script = &mut *self.0.borrow_mut();
        if let Some(answer) = script
            .at_once
            .as_mut()
            .and_then(|at_once| at_once(&question))
        {
            return Started::Done(answer);
        }
        script.asked.push((ticket, client, question));
        Started::Later
    }

    fn withdraw(&mut self, ticket: Ticket) {
        self.0.borrow_mut().withdrawn.push(ticket);
    }
}

impl Scripted {
    /// Of these questions only.
    pub(crate) fn about(interests: Interests) -> Self {
        Self(Rc::default(), Some(interests))
    }

    fn at_once(self, answer: impl FnMut(&Question) -> Option<Answer> + 'static) -> Self {
        self.0.borrow_mut().at_once = Some(Box::new(answer));
        self
    }

    /// The oldest question that is open.
    fn take(&self) -> (Ticket, Asked, Question) {
        self.0.borrow_mut().asked.remove(0)
    }

    fn open(&self) -> usize {
        self.0.borrow().asked.len()
    }

    fn withdrawn(&self) -> Vec<Ticket> {
        std::mem::take(&mut self.0.borrow_mut().withdrawn)
    }
}

fn world(application: &Scripted) -> World {
    world_with(application, quiet(), ApplicationOptions::default())
}

/// Without pings, for nobody here answers them.
fn quiet() -> Setup {
    Setup {
        client: ClientOptions {
            ping_interval: Duration::ZERO,
            allow_anonymous_connect_without_token: true,
            ..ClientOptions::default()
        },
        ..Setup::default()
    }
}

pub(crate) fn world_with(
    application: &Scripted,
    setup: Setup,
    options: ApplicationOptions,
) -> World {
    let mut world = World::with(setup);
    for worker in &mut world.workers {
        worker
            .hub
            .set_application(Box::new(application.clone()), options);
    }
    world
}

fn answer(world: &mut World, ticket: Ticket, answer: Answer) {
    let worker = &mut world.workers[usize::from(ticket.worker.0)];
    worker
        .hub
        .answer(world.now, ticket, answer, &mut worker.out);
    world.settle();
}

fn temporary(id: u64) -> Value {
    json!({"id": id, "error": {"code": 100, "message": "internal server error", "temporary": true}})
}
