//! Where a worker's hub puts its questions, and handlers answer them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, HeaderName, HeaderValue};
use tautline_hub::SessionId;
use tautline_hub::application::{
    self, Answer, Application, ApplicationOptions, ConnectEvent, Interests, Question, RpcReply,
};
use tautline_hub::engine::{Started, Ticket};
use tautline_protocol::message::Error;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::{ApiRpcEvent, Client, Handler, NodeHandle, Request};
use crate::proxy::Proxies;
use crate::worker::mailbox::WorkerMailbox;

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An answer to the application's backend.
type AnsweringApi = Pin<Box<dyn Future<Output = Result<RpcReply, Error>> + Send>>;

/// A [`Handler`] whose type has been forgotten.
pub(crate) trait AnyHandler: Send + Sync {
    fn interests(&self) -> Interests;

    fn answer(self: Arc<Self>, client: Client, question: Question) -> Answering;

    fn answer_api(self: Arc<Self>, node: NodeHandle, call: ApiRpcEvent) -> AnsweringApi;
}

impl<H: Handler> AnyHandler for H {
    fn interests(&self) -> Interests {
        Handler::interests(self)
    }

    fn answer(self: Arc<Self>, client: Client, question: Question) -> Answering {
        Box::pin(async move {
            match question {
                Question::Connecting(event) => {
                    Answer::Connect(self.on_connecting(&client, event).await)
                }
                Question::Connected => {
                    self.on_connect(&client).await;
                    Answer::Noted
                }
                Question::Subscribe(event) => {
                    Answer::Subscribe(self.on_subscribe(&client, event).await)
                }
                Question::Publish(event) => Answer::Publish(self.on_publish(&client, event).await),
                Question::Rpc(call) => Answer::Rpc(self.on_rpc(&client, call).await),
                Question::Message(message) => {
                    Answer::Message(self.on_message(&client, message).await)
                }
                Question::Refresh(event) => Answer::Refresh(self.on_refresh(&client, event).await),
                Question::SubRefresh(event) => {
                    Answer::SubRefresh(self.on_sub_refresh(&client, event).await)
                }
                Question::Unsubscribed(event) => {
                    self.on_unsubscribe(&client, event).await;
                    Answer::Noted
                }
                Question::Disconnected(event) => {
                    self.on_disconnect(&client, event).await;
                    Answer::Noted
                }
                // Of a hub that knows more than this server.
                _ => Answer::Failed,
            }
        })
    }

    fn answer_api(self: Arc<Self>, node: NodeHandle, call: ApiRpcEvent) -> AnsweringApi {
        Box::pin(async move { self.on_api_rpc(&node, call).await })
    }
}

/// The handlers of a node, and how they are run.
#[derive(Clone)]
pub(crate) struct Handlers {
    pub(crate) handler: Arc<dyn AnyHandler>,
    pub(crate) options: ApplicationOptions,
    /// Where handlers run, if not on the workers.
    pub(crate) runtime: Option<Handle>,
    /// Which header fields are kept of those that clients say they have.
    pub(crate) emulated: Arc<[HeaderName]>,
    /// The same handler, where it is the application's backend.
    pub(crate) proxies: Option<Arc<Proxies>>,
}

impl Handlers {
    /// Has the application's backend decide.
    pub(crate) fn of_backend(proxies: Proxies, options: ApplicationOptions) -> Self {
        let proxies = Arc::new(proxies);
        Self {
            handler: Arc::clone(&proxies) as _,
            options: ApplicationOptions {
                timeout: proxies.patience(),
                ..options
            },
            runtime: None,
            emulated: proxies.emulated_headers(),
            proxies: Some(proxies),
        }
    }
}

/// Header fields that a client says it has, in the extensions of its request.
#[derive(Clone, Debug)]
pub(crate) struct Emulated(pub(crate) HeaderMap);

/// What a worker keeps for handlers.
#[derive(Default)]
pub(crate) struct Files {
    /// The requests by which clients came.
    requests: HashMap<SessionId, Arc<Request>>,
    /// Handlers that are not done, by the serials of their tickets.
    tasks: HashMap<u64, AbortHandle>,
}

impl Files {
    /// Keeps the request of a session for as long as it lasts.
    pub(crate) fn keep(&mut self, id: SessionId, request: Arc<Request>) {
        self.requests.insert(id, request);
    }

    /// Forgets a session.
    pub(crate) fn forget(&mut self, id: SessionId) {
        self.requests.remove(&id);
    }

    /// Keeps header fields that a client says it has, with its request.
    fn emulate(&mut self, id: SessionId, headers: HeaderMap) {
        let request = self.requests.entry(id).or_default();
        let extensions = &mut Arc::make_mut(request).extensions;
        extensions.insert(Emulated(headers));
    }

    /// A handler is done.
    fn done(&mut self, serial: u64) {
        self.tasks.remove(&serial);
    }
}

/// One worker's desk.
pub(crate) struct Desk {
    handlers: Handlers,
    files: Rc<RefCell<Files>>,
    mailbox: Arc<WorkerMailbox>,
    node: NodeHandle,
    nothing: Arc<Request>,
}

impl Desk {
    pub(crate) fn new(
        handlers: Handlers,
        files: Rc<RefCell<Files>>,
        mailbox: Arc<WorkerMailbox>,
        node: NodeHandle,
    ) -> Self {
        Self {
            handlers,
            files,
            mailbox,
            node,
            nothing: Arc::default(),
        }
    }

    /// Keeps what is wanted of the header fields that a client says it has.
    fn note_headers(&self, id: SessionId, event: &ConnectEvent) {
        if event.headers.is_empty() || self.handlers.emulated.is_empty() {
            return;
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &event.headers {
            let wanted = self.handlers.emulated.iter();
            let mut wanted = wanted.filter(|wanted| name.eq_ignore_ascii_case(wanted.as_str()));
            if let (Some(name), Ok(value)) = (wanted.next(), HeaderValue::from_str(value)) {
                headers.insert(name.clone(), value);
            }
        }
        if !headers.is_empty() {
            self.files.borrow_mut().emulate(id, headers);
        }
    }

    fn client(&self, view: application::Client) -> Client {
        let files = self.files.borrow();
        let request = files.requests.get(&view.session);
        Client {
            request: Arc::clone(request.unwrap_or(&self.nothing)),
            view,
            mailbox: Arc::clone(&self.mailbox),
            node: self.node.clone(),
        }
    }
}

impl Application for Desk {
    fn interests(&self) -> Interests {
        self.handlers.handler.interests()
    }

    fn ask(
        &mut self,
        ticket: Ticket,
        client: application::Client,
        question: Question,
    ) -> Started<Answer> {
        if let Question::Connecting(event) = &question {
            self.note_headers(client.session, event);
        }
        let client = self.client(client);
        let handler = Arc::clone(&self.handlers.handler);
        let mailbox = &self.mailbox;
        let slip = || Slip {
            ticket,
            mailbox: Arc::clone(mailbox),
            answer: Answer::Failed,
        };
        let task = if let Some(runtime) = &self.handlers.runtime {
            let slip = slip();
            runtime.spawn(async move {
                slip.bring(handler.answer(client, question).await);
            })
        } else {
            // Most handlers have nothing to wait for, and need no task.
            let first = catch_unwind(AssertUnwindSafe(|| {
                let mut answering = handler.answer(client, question);
                let mut cx = Context::from_waker(Waker::noop());
                match answering.as_mut().poll(&mut cx) {
                    Poll::Ready(answer) => Ok(answer),
                    Poll::Pending => Err(answering),
                }
            }));
            let answering = match first {
                Ok(Err(answering)) => answering,
                Ok(Ok(answer)) => return Started::Done(answer),
                // The panic hook has told of it.
                Err(_) => return Started::Done(Answer::Failed),
            };
            let slip = slip();
            tokio::task::spawn_local(async move {
                slip.bring(answering.await);
            })
        };
        let mut files = self.files.borrow_mut();
        files.tasks.insert(ticket.serial, task.abort_handle());
        Started::Later
    }

    fn withdraw(&mut self, ticket: Ticket) {
        let task = self.files.borrow_mut().tasks.remove(&ticket.serial);
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Brings an answer to the hub when it is dropped: also where its handler has panicked.
struct Slip {
    ticket: Ticket,
    mailbox: Arc<WorkerMailbox>,
    answer: Answer,
}

impl Slip {
    fn bring(mut self, answer: Answer) {
        self.answer = answer;
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        let answer = std::mem::replace(&mut self.answer, Answer::Failed);
        let ticket = self.ticket;
        self.mailbox.call(Box::new(move |now, state| {
            if let Some(files) = &state.files {
                files.borrow_mut().done(ticket.serial);
            }
            let connections = &mut state.connections;
            state.hub.answer(now, ticket, answer, connections);
        }));
    }
}
