//! An application that decides: at once, later, never, or too late.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_auth::Overrides;
use tautline_hub::application::{
    Answer, Application, ApplicationOptions, Client as Asked, ConnectReply, Interests,
    PublishInstead, PublishReply, Question, RefreshBy, RefreshReply, Refusal, SubscribeReply,
};
use tautline_hub::config::ClientOptions;
use tautline_hub::engine::testkit::{DelayOptions, Seeded};
use tautline_hub::engine::{Started, Ticket};
use tautline_protocol::{Disconnect, ErrorCode};

use crate::support::{Client, START, Setup, World, channel_token, sign_claims, token};

/// What the application was asked, and what it says at once.
#[derive(Default)]
struct Script {
    asked: Vec<(Ticket, Asked, Question)>,
    withdrawn: Vec<Ticket>,
    #[expect(clippy::type_complexity, reason = "it is named once")]
    at_once: Option<Box<dyn FnMut(&Question) -> Option<Answer>>>,
}

#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<Script>>, Option<Interests>);

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
    fn about(interests: Interests) -> Self {
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

fn world_with(application: &Scripted, setup: Setup, options: ApplicationOptions) -> World {
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

#[test]
fn who_comes_in_is_the_applications_to_say_and_commands_wait_for_it() {
    let application = Scripted::about(Interests::CONNECTING);
    let mut world = world(&application);
    let client = world.open(0);
    world.send(
        client,
        "{\"id\":1,\"connect\":{\"name\":\"js\",\"data\":{\"k\": 1},\"headers\":{\"x-a\":\"b\"}}}\n\
         {\"id\":2,\"subscribe\":{\"channel\":\"news\"}}",
    );
    assert!(world.heard(client).is_empty());
    assert!(!world.workers[0].hub.wants_input(client.id));
    let (ticket, asked, question) = application.take();
    let Question::Connecting(event) = question else {
        panic!("{question:?}")
    };
    assert_eq!(
        (
            &*event.name,
            event.data.as_deref(),
            event.permitted,
            event.identity
        ),
        ("js", Some(&b"{\"k\": 1}"[..]), true, None)
    );
    assert_eq!(event.headers, BTreeMap::from([("x-a".into(), "b".into())]));
    assert_eq!(asked.transport.name, "test");

    let reply = ConnectReply {
        info: Some(r#"{"name":"Ann"}"#.into()),
        data: Some("[1]".into()),
        expire_at: Some(START.as_secs() + 60),
        ..ConnectReply::user("7").subscribe("own")
    };
    answer(&mut world, ticket, Answer::Connect(Ok(reply)));
    let heard = world.heard(client);
    let result = &heard[0]["connect"];
    assert_eq!(
        result["client"],
        json!(&*asked.info.client),
        "the id that it was told"
    );
    assert_eq!(
        (&result["data"], &result["ttl"], &result["subs"]),
        (&json!([1]), &json!(60), &json!({"own": {}}))
    );
    assert_eq!(heard[1], json!({"id": 2, "subscribe": {}}));
    assert_eq!(world.workers[0].out.resumed, [client.id]);
    assert_eq!(
        world.workers[0]
            .hub
            .users()
            .map(|user| &**user)
            .collect::<Vec<_>>(),
        ["7"]
    );
}

#[test]
fn an_answer_that_says_nothing_leaves_it_to_token_and_options() {
    let answer = |_: &Question| Some(Answer::Connect(Ok(ConnectReply::default())));
    let application = Scripted::about(Interests::CONNECTING).at_once(answer);
    let mut world = world_with(
        &application,
        Setup {
            client: ClientOptions::default(),
            ..Setup::default()
        },
        ApplicationOptions::default(),
    );
    world.connect_as(0, "7");
    assert_eq!(
        world.workers[0]
            .hub
            .users()
            .map(|user| &**user)
            .collect::<Vec<_>>(),
        ["7"]
    );
    let stranger = world.open(0);
    world.tell(stranger, json!({"id": 1, "connect": {}}));
    assert_eq!(
        world.closed(stranger).unwrap().0,
        3501,
        "nobody vouches for it"
    );
    let forger = world.open(0);
    world.tell(forger, json!({"id": 1, "connect": {"token": "x.y.z"}}));
    assert_eq!(
        world.closed(forger).unwrap().0,
        3500,
        "not for the application to judge"
    );
}

#[test]
fn a_client_is_refused_with_an_error_or_a_disconnect() {
    for (refusal, code) in [
        (Refusal::error(1000, "not today"), None),
        (Refusal::disconnect(4501, "never"), Some(4501)),
    ] {
        let application = Scripted::about(Interests::CONNECTING);
        let mut world = world(&application);
        let client = world.open(0);
        world.send(
            client,
            "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}",
        );
        answer(
            &mut world,
            application.take().0,
            Answer::Connect(Err(refusal)),
        );
        let heard = world.heard(client);
        assert_eq!(world.closed(client).map(|(code, _)| code), code);
        if code.is_none() {
            let error = json!({"code": 1000, "message": "not today"});
            assert_eq!(
                heard,
                [json!({"id": 1, "error": error})],
                "and nothing else"
            );
        }
    }
}

#[test]
fn who_has_come_in_waits_until_the_application_has_taken_note() {
    let application = Scripted::about(Interests::CONNECTED | Interests::RPC);
    let mut world = world(&application);
    let client = world.open(0);
    world.send(
        client,
        "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"rpc\":{\"method\":\"now\"}}",
    );
    assert_eq!(world.heard(client).len(), 1, "connected already");
    let (ticket, _, question) = application.take();
    assert_eq!((question, application.open()), (Question::Connected, 0));
    answer(&mut world, ticket, Answer::Noted);
    let (ticket, _, question) = application.take();
    assert!(matches!(question, Question::Rpc(_)));
    answer(&mut world, ticket, Answer::Rpc(Ok("5".into())));
    assert_eq!(world.heard(client), [json!({"id": 2, "rpc": {"data": 5}})]);
}

#[test]
fn calls_of_a_connection_are_under_way_at_once_up_to_a_limit() {
    let application = Scripted::about(Interests::RPC);
    let options = ApplicationOptions {
        max_concurrent_rpc: 3,
        ..ApplicationOptions::default()
    };
    let mut world = world_with(&application, Setup::default(), options);
    let client = world.connect(0);
    for id in 2..=7 {
        world.send(
            client,
            &json!({"id": id, "rpc": {"method": "m"}}).to_string(),
        );
    }
    assert_eq!(application.open(), 3);
    assert!(!world.workers[0].hub.wants_input(client.id));
    // The second is first. The third is what the connection waits for.
    let (first, second, third) = (
        application.take().0,
        application.take().0,
        application.take().0,
    );
    answer(&mut world, second, Answer::Rpc(Ok(().into())));
    answer(
        &mut world,
        first,
        Answer::Rpc(Err(ErrorCode::MethodNotFound.into())),
    );
    let heard = world.heard(client);
    assert_eq!(heard[0], json!({"id": 3, "rpc": {}}));
    assert_eq!(heard[1]["error"]["code"], json!(104));
    assert_eq!(application.open(), 0);
    answer(&mut world, third, Answer::Rpc(Ok(().into())));
    assert_eq!(application.open(), 3, "the next three");
    assert_eq!(world.workers[0].hub.questions(), 3);

    // One of those that the connection doesn't wait for has ended, so another may begin beside what is
    // left.
    let (first, second, third) = (
        application.take().0,
        application.take().0,
        application.take().0,
    );
    answer(&mut world, third, Answer::Rpc(Ok(().into())));
    answer(&mut world, first, Answer::Rpc(Ok(().into())));
    world.send(client, r#"{"id":8,"rpc":{"method":"m"}}"#);
    assert!(world.workers[0].hub.wants_input(client.id));
    answer(&mut world, second, Answer::Rpc(Ok(().into())));
}

#[test]
fn patience_ends_with_a_temporary_error_and_what_comes_later_is_ignored() {
    let application = Scripted::about(Interests::RPC | Interests::SUBSCRIBE);
    let mut world = world(&application);
    let client = world.connect(0);
    world.send(client, r#"{"id":2,"rpc":{"method":"m"}}"#);
    world.pass(Duration::from_secs(2));
    world.send(client, r#"{"id":3,"subscribe":{"channel":"news"}}"#);
    world.send(client, r#"{"id":4,"publish":{"channel":"news","data":1}}"#);
    world.pass(Duration::from_millis(1900));
    assert!(world.heard(client).is_empty());
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(client), [temporary(2)]);
    world.pass(Duration::from_secs(2));
    let heard = world.heard(client);
    assert_eq!(heard, [temporary(3), json!({"id": 4, "publish": {}})]);
    let (call, subscribe) = (application.take().0, application.take().0);
    assert_eq!(application.withdrawn(), [call, subscribe]);
    answer(&mut world, call, Answer::Rpc(Ok(().into())));
    answer(
        &mut world,
        subscribe,
        Answer::Subscribe(Ok(SubscribeReply::default())),
    );
    assert!(world.heard(client).is_empty());
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
    assert_eq!(world.workers[0].hub.questions(), 0);
}

#[test]
fn what_was_asked_of_a_client_that_goes_is_withdrawn() {
    let application = Scripted::about(Interests::RPC | Interests::SUBSCRIBE);
    let mut world = world(&application);
    let client = world.connect(0);
    world.send(client, r#"{"id":2,"rpc":{"method":"m"}}"#);
    world.send(client, r#"{"id":3,"subscribe":{"channel":"news"}}"#);
    world.drop_connection(client);
    let (call, subscribe) = (application.take().0, application.take().0);
    assert_eq!(application.withdrawn(), [call, subscribe]);
    // Its place is another's now.
    let other = world.connect(0);
    assert_eq!(other.id.index, client.id.index);
    answer(
        &mut world,
        subscribe,
        Answer::Subscribe(Ok(SubscribeReply::default())),
    );
    answer(&mut world, call, Answer::Rpc(Ok(().into())));
    assert!(world.heard(other).is_empty());
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
}

#[test]
fn with_too_many_questions_under_way_commands_are_refused_for_the_moment() {
    let application = Scripted::about(Interests::RPC | Interests::MESSAGE);
    let options = ApplicationOptions {
        max_in_flight: 2,
        ..ApplicationOptions::default()
    };
    let mut world = world_with(&application, Setup::default(), options);
    let (client, other) = (world.connect(0), world.connect(0));
    for id in 2..=3 {
        world.send(
            client,
            &json!({"id": id, "rpc": {"method": "m"}}).to_string(),
        );
    }
    let error = json!({"code": 111, "message": "too many requests", "temporary": true});
    let heard = world.tell(other, json!({"id": 2, "rpc": {"method": "m"}}));
    assert_eq!(heard, [json!({"id": 2, "error": error})]);
    let stranger = world.open(0);
    let heard = world.tell(stranger, json!({"id": 1, "connect": {}}));
    assert_eq!(heard, [json!({"id": 1, "error": error})]);
    world.send(other, r#"{"send":{"data":1}}"#);
    assert_eq!(world.closed(other).unwrap().0, 3013);
    answer(&mut world, application.take().0, Answer::Rpc(Ok(().into())));
    world.connect(0);
}

#[test]
fn a_publication_is_replaced_denied_allowed_or_dealt_with() {
    let decide = |question: &Question| {
        let Question::Publish(event) = question else {
            return None;
        };
        let reply = match &*event.data {
            b"\"change\"" => Ok(PublishReply::Instead(PublishInstead {
                data: Some(r#""changed""#.into()),
                tags: BTreeMap::from([("by".into(), "us".into())]),
                ..PublishInstead::default()
            })),
            b"\"broken\"" => Ok(PublishReply::Instead(PublishInstead {
                data: Some("no JSON".into()),
                ..PublishInstead::default()
            })),
            b"\"done\"" => Ok(PublishReply::Done),
            b"\"deny\"" => Err(ErrorCode::PermissionDenied.into()),
            _ => Ok(PublishReply::AsSent),
        };
        assert_eq!(event.permitted, !event.channel.starts_with("vault"));
        Some(Answer::Publish(reply))
    };
    let application = Scripted::about(Interests::PUBLISH).at_once(decide);
    let mut world = world(&application);
    let (publisher, watcher) = (world.connect_as(0, "7"), world.connect(1));
    world.tell(watcher, json!({"id": 2, "subscribe": {"channel": "news"}}));
    let mut publish = |channel: &str, data: &str| {
        let request = json!({"channel": channel, "data": data});
        let heard = world.tell(publisher, json!({"id": 3, "publish": request}));
        (heard[0]["error"]["code"].clone(), world.heard(watcher))
    };
    let (error, heard) = publish("news", "plain");
    assert!(error.is_null() && heard[0]["push"]["pub"]["data"] == json!("plain"));
    let (error, heard) = publish("news", "change");
    let publication = &heard[0]["push"]["pub"];
    assert!(error.is_null());
    assert_eq!(publication["data"], json!("changed"));
    assert_eq!(publication["tags"], json!({"by": "us"}));
    assert_eq!(publication["info"]["user"], json!("7"));
    assert_eq!(publish("news", "done"), (Value::Null, vec![]));
    assert_eq!(publish("news", "deny"), (json!(103), vec![]));
    assert_eq!(
        publish("news", "broken"),
        (json!(100), vec![]),
        "our mistake, not the client's"
    );
    assert_eq!(
        publish("vault:a", "plain"),
        (Value::Null, vec![]),
        "options are overruled"
    );
}

#[test]
fn a_subscription_is_allowed_and_furnished() {
    let application = Scripted::about(Interests::SUBSCRIBE);
    let mut world = world(&application);
    let client = world.connect_as(0, "7");
    world.send(
        client,
        r#"{"id":2,"subscribe":{"channel":"vault:a","data":{"a":1}}}"#,
    );
    let (ticket, asked, question) = application.take();
    let Question::Subscribe(event) = question else {
        panic!("{question:?}")
    };
    assert_eq!((&*event.channel, event.permitted), ("vault:a", false));
    assert_eq!(
        (event.data.as_deref(), &*asked.info.user),
        (Some(&b"{\"a\":1}"[..]), "7")
    );
    let reply = SubscribeReply {
        info: Some(r#"{"role":"guest"}"#.into()),
        data: Some("9".into()),
        expire_at: Some(START.as_secs() + 30),
        overrides: Overrides {
            presence: Some(true),
            ..Overrides::default()
        },
        ..SubscribeReply::default()
    };
    answer(&mut world, ticket, Answer::Subscribe(Ok(reply)));
    let result = json!({"expires": true, "ttl": 30, "data": 9});
    assert_eq!(world.heard(client), [json!({"id": 2, "subscribe": result})]);
    assert_eq!(world.members("vault:a").len(), 1);

    // What is unknown is refused without a question, and so is a token for somebody else.
    let heard = world.tell(
        client,
        json!({"id": 3, "subscribe": {"channel": "nowhere:a"}}),
    );
    assert_eq!(heard[0]["error"]["code"], json!(102));
    let token = channel_token("8", "vault:b", None);
    let request = json!({"channel": "vault:b", "token": token});
    world.tell(client, json!({"id": 4, "subscribe": request}));
    assert_eq!(
        (world.closed(client).unwrap().0, application.open()),
        (3500, 0)
    );
}

#[test]
fn what_a_subscription_token_says_stays_unless_the_application_says_otherwise() {
    let decide = |question: &Question| match question {
        Question::Subscribe(event) if event.permitted => {
            Some(Answer::Subscribe(Ok(SubscribeReply::default())))
        }
        _ => Some(Answer::Subscribe(Err(ErrorCode::PermissionDenied.into()))),
    };
    let application = Scripted::about(Interests::SUBSCRIBE).at_once(decide);
    let mut world = world(&application);
    let client = world.connect_as(0, "7");
    let token = channel_token("7", "vault:a", Some(50));
    let request = json!({"channel": "vault:a", "token": token});
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    assert_eq!(
        heard,
        [json!({"id": 2, "subscribe": {"expires": true, "ttl": 50}})]
    );
    let heard = world.tell(
        client,
        json!({"id": 3, "subscribe": {"channel": "vault:b"}}),
    );
    assert_eq!(heard[0]["error"]["code"], json!(103));
}

#[test]
fn messages_are_dealt_with_one_after_the_other() {
    let application = Scripted::about(Interests::MESSAGE);
    let mut world = world(&application);
    let client = world.connect(0);
    world.send(
        client,
        "{\"send\":{\"data\":1}}\n{\"send\":{\"data\":2}}\n{\"send\":{}}",
    );
    for expected in ["1", "2"] {
        assert_eq!(application.open(), 1);
        let (ticket, _, question) = application.take();
        let Question::Message(event) = question else {
            panic!("{question:?}")
        };
        assert_eq!(event.data, expected);
        answer(&mut world, ticket, Answer::Message(Ok(())));
    }
    let ticket = application.take().0;
    let disconnect = Disconnect {
        code: 4000,
        reason: "enough".into(),
    };
    answer(&mut world, ticket, Answer::Message(Err(disconnect)));
    assert_eq!(
        (world.closed(client).unwrap().0, world.heard(client).len()),
        (4000, 0)
    );
}

#[test]
fn connections_that_expire_are_the_applications_to_prolong() {
    let application = Scripted::about(Interests::CONNECTING | Interests::REFRESH);
    let mut world = world(&application);
    let client = world.open(0);
    world.send(client, r#"{"id":1,"connect":{}}"#);
    let reply = ConnectReply {
        expire_at: Some(START.as_secs() + 30),
        refresh: RefreshBy::Server,
        meta: Some(r#"{"plan":"pro"}"#.into()),
        ..ConnectReply::user("7")
    };
    answer(&mut world, application.take().0, Answer::Connect(Ok(reply)));
    let heard = world.heard(client);
    assert!(
        heard[0]["connect"]["expires"].is_null(),
        "not the client's duty: {heard:?}"
    );

    world.seconds(29);
    assert_eq!(application.open(), 0);
    world.seconds(2);
    let (ticket, asked, question) = application.take();
    assert!(matches!(question, Question::Refresh(event) if event.token.is_empty()));
    assert_eq!(asked.meta.as_deref(), Some(&br#"{"plan":"pro"}"#[..]));
    let reply = RefreshReply {
        expire_at: Some(START.as_secs() + 90),
        info: Some(r#"{"name":"Ann"}"#.into()),
        meta: Some("1".into()),
    };
    answer(&mut world, ticket, Answer::Refresh(Ok(reply)));

    // No answer: it lives on for a minute.
    world.seconds(61);
    let (_, asked, _) = application.take();
    assert_eq!(
        asked.info.conn_info.as_deref(),
        Some(&br#"{"name":"Ann"}"#[..])
    );
    assert_eq!(asked.meta.as_deref(), Some(&b"1"[..]));
    world.seconds(50);
    assert_eq!((world.closed(client), application.open()), (None, 0));
    world.seconds(15);
    let gone = Answer::Refresh(Err(Disconnect::EXPIRED.into()));
    answer(&mut world, application.take().0, gone);
    assert_eq!(world.closed(client).unwrap().0, 3005);
}

#[test]
fn subscriptions_that_expire_are_the_applications_to_prolong() {
    let application = Scripted::about(Interests::SUBSCRIBE | Interests::SUB_REFRESH);
    let mut world = world(&application);
    let client = world.connect(0);
    world.send(client, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    let reply = SubscribeReply {
        expire_at: Some(START.as_secs() + 10),
        refresh: RefreshBy::Server,
        ..SubscribeReply::default()
    };
    answer(
        &mut world,
        application.take().0,
        Answer::Subscribe(Ok(reply)),
    );
    assert_eq!(world.heard(client), [json!({"id": 2, "subscribe": {}})]);
    world.seconds(11);
    let reply = RefreshReply {
        expire_at: Some(START.as_secs() + 20),
        ..RefreshReply::default()
    };
    let (ticket, _, question) = application.take();
    assert!(matches!(question, Question::SubRefresh(event) if &*event.channel == "news"));
    answer(&mut world, ticket, Answer::SubRefresh(Ok(reply)));
    world.seconds(10);
    let expired = Answer::SubRefresh(Err(ErrorCode::Expired.into()));
    answer(&mut world, application.take().0, expired);
    let heard = world.heard(client);
    assert_eq!(heard[0]["push"]["unsubscribe"]["code"], json!(2501));
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
}

#[test]
fn comings_and_goings_are_told_once_and_in_order() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let notes = told.clone();
    let note = move |question: &Question| {
        let text = match question {
            Question::Connected => "connected".to_owned(),
            Question::Unsubscribed(event) => format!("{} {}", event.channel, event.code),
            Question::Disconnected(event) => format!("gone {}", event.disconnect.code),
            _ => return None,
        };
        notes.borrow_mut().push(text);
        Some(Answer::Noted)
    };
    let interests = Interests::CONNECTED | Interests::UNSUBSCRIBED | Interests::DISCONNECTED;
    let application = Scripted::about(interests).at_once(note);
    let mut world = world_with(
        &application,
        Setup {
            delays: Some(DelayOptions::default()),
            ..quiet()
        },
        ApplicationOptions::default(),
    );
    let client = world.connect(0);
    for (id, channel) in [(2, "a"), (3, "b")] {
        world.tell(client, json!({"id": id, "subscribe": {"channel": channel}}));
    }
    world.tell(client, json!({"id": 4, "unsubscribe": {"channel": "a"}}));
    world.tell(client, json!({"id": 5, "unsubscribe": {"channel": "a"}}));
    // One that has not begun when the client goes.
    world.send_only(client, r#"{"id":6,"subscribe":{"channel":"room:c"}}"#);
    world.drop_connection(client);
    world.settle();
    assert_eq!(*told.borrow(), ["connected", "a 0", "b 1", "gone 3000"]);

    told.borrow_mut().clear();
    let stranger = world.open(0);
    world.tell(stranger, json!({"id": 1, "connect": {"token": "x"}}));
    assert_eq!(*told.borrow(), [""; 0], "it never came in");
    // One that goes while the engine is still at the channels it begins with.
    let hasty = world.open(0);
    let claims = sign_claims(&json!({"sub": "7", "channels": ["room:a"]}));
    let connect = json!({"id": 1, "connect": {"token": claims}});
    world.send_only(hasty, &connect.to_string());
    assert!(!world.workers[0].hub.wants_input(hasty.id));
    world.drop_connection(hasty);
    world.settle();
    assert_eq!(*told.borrow(), [""; 0], "it was on its way in");
    let expiring = world.connect_with(0, &token("7", Some(5)));
    world.seconds(60);
    assert_eq!(world.closed(expiring).unwrap().0, 3005);
    assert_eq!(*told.borrow(), ["connected", "gone 3005"]);
}

#[test]
fn what_the_application_says_must_be_json_where_json_is_read() {
    let application = Scripted::about(Interests::RPC);
    let mut world = world(&application);
    let client = world.connect(0);
    world.send(client, r#"{"id":2,"rpc":{"method":"m"}}"#);
    answer(
        &mut world,
        application.take().0,
        Answer::Rpc(Ok("{".into())),
    );
    assert_eq!(world.heard(client), [temporary(2)]);
    world.send(client, r#"{"id":3,"rpc":{"method":"m"}}"#);
    answer(&mut world, application.take().0, Answer::Message(Ok(())));
    assert_eq!(
        world.heard(client),
        [temporary(3)],
        "an answer to another question"
    );
}

#[test]
fn without_an_application_calls_and_messages_are_not_available() {
    let mut world = World::new();
    let client = world.connect(0);
    let heard = world.tell(client, json!({"id": 2, "rpc": {"method": "m"}}));
    assert_eq!(heard[0]["error"]["code"], json!(108));
    world.send(client, r#"{"send":{"data":1}}"#);
    assert_eq!(world.closed(client).unwrap().0, 3508);
}

/// Clients, answers, goodbyes and the clock in any order: each command is answered once, those that wait
/// in order, and nothing is left in the end.
#[test]
fn in_any_order_every_command_is_answered_once() {
    for seed in 0..200 {
        let mut random = Seeded::new(seed);
        let application = Scripted::default();
        let options = ApplicationOptions {
            max_concurrent_rpc: 3,
            max_in_flight: 12,
            ..ApplicationOptions::default()
        };
        let setup = Setup {
            seed,
            delays: (seed % 2 == 0).then(DelayOptions::default),
            ..quiet()
        };
        let mut world = world_with(&application, setup, options);
        let mut clients: Vec<(Client, u64, Vec<Value>)> = Vec::new();
        for _ in 0..300 {
            match random.below(10) {
                0 if clients.len() < 6 => {
                    let client = world.open(random.below(2));
                    world.send(client, r#"{"id":1,"connect":{}}"#);
                    clients.push((client, 1, Vec::new()));
                }
                1 if !clients.is_empty() => {
                    let (client, ..) = clients.swap_remove(random.below(clients.len()));
                    world.heard(client);
                    world.drop_connection(client);
                    world.settle();
                }
                2..6 if !clients.is_empty() => {
                    let place = random.below(clients.len());
                    let (client, last, _) = &mut clients[place];
                    *last += 1;
                    let request = match random.below(3) {
                        0 => json!({"id": last, "rpc": {"method": "m"}}),
                        1 => json!({"id": last, "publish": {"channel": "a", "data": 1}}),
                        _ => json!({"id": last, "unsubscribe": {"channel": "a"}}),
                    };
                    world.send(*client, &request.to_string());
                }
                6 => world.pass(Duration::from_millis(random.below(5000) as u64)),
                _ => answer_one(&mut world, &application, &mut random),
            }
            for (client, _, heard) in &mut clients {
                heard.extend(world.heard(*client));
            }
            clients.retain(|(client, ..)| world.closed(*client).is_none());
            for worker in &world.workers {
                assert!(worker.hub.questions() <= 12 + 6, "seed {seed}");
            }
        }
        // Nobody answers any more: each command in turn has its patience tried.
        while (0..2).any(|worker| world.workers[worker].hub.questions() > 0) {
            world.seconds(1);
        }
        for (client, last, heard) in &mut clients {
            heard.extend(world.heard(*client));
            if heard
                .first()
                .is_some_and(|first| first["error"].is_object())
            {
                continue; // It was not let in, so nothing else is answered.
            }
            let mut ids: Vec<u64> = heard.iter().filter_map(|m| m["id"].as_u64()).collect();
            ids.sort_unstable();
            assert_eq!(
                ids,
                (1..=*last).collect::<Vec<_>>(),
                "seed {seed}: {heard:?}"
            );
            world.drop_connection(*client);
        }
        world.seconds(10);
        for worker in &world.workers {
            assert_eq!(worker.hub.questions(), 0, "seed {seed}");
            assert_eq!(worker.hub.stats().clients, 0, "seed {seed}");
        }
    }
}

fn answer_one(world: &mut World, application: &Scripted, random: &mut Seeded) {
    if application.open() == 0 {
        return;
    }
    let place = random.below(application.open());
    let (ticket, _, question) = application.0.borrow_mut().asked.remove(place);
    let reply = match question {
        Question::Connecting(_) => Answer::Connect(Ok(ConnectReply::default())),
        Question::Publish(_) => Answer::Publish(Ok(PublishReply::AsSent)),
        Question::Rpc(_) => Answer::Rpc(Ok(().into())),
        _ => Answer::Noted,
    };
    answer(world, ticket, reply);
}
