//! Who comes in, stays and goes, where an application decides.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::json;
use tautline_auth::{Revocation, TokenId};
use tautline_hub::application::{
    Answer, ApplicationOptions, ConnectReply, Interests, Question, RefreshBy, RefreshReply,
    Refusal, SubscribeReply,
};
use tautline_hub::config::ClientOptions;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_protocol::Disconnect;

use super::{Scripted, answer, quiet, world, world_with};
use crate::support::{START, Setup, World, sign_claims, token};

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

/// What a client sends is kept while the application is asked, and an entry of a list takes more than its bytes.
#[test]
fn the_application_is_not_asked_about_lists_without_an_end() {
    let list = |count: usize, value: serde_json::Value| -> serde_json::Value {
        let entries = (0..count).map(|number| (format!("x-{number}"), value.clone()));
        entries.collect::<serde_json::Map<_, _>>().into()
    };
    for (name, value, most, code) in [
        ("subs", json!({}), 256, 3505),
        ("headers", json!("y"), 64, 3501),
    ] {
        let application = Scripted::about(Interests::CONNECTING);
        let mut world = world(&application);
        let client = world.open(0);
        let connect = json!({"id": 1, "connect": {name: list(most, value.clone())}});
        assert!(world.tell(client, connect).is_empty());
        assert_eq!(application.open(), 1, "{name}");
        let Question::Connecting(event) = application.take().2 else {
            panic!("another question")
        };
        assert_eq!(event.channels.len() + event.headers.len(), most);
        let client = world.open(0);
        let connect = json!({"id": 1, "connect": {name: list(most + 1, value)}});
        assert!(world.tell(client, connect).is_empty());
        assert_eq!(application.open(), 0, "{name}");
        assert_eq!(world.closed(client), Some((code, true)), "{name}");
    }
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
            let worker = &world.workers[0];
            assert!(
                worker.hub.wants_input(client.id) && worker.out.resumed == [client.id],
                "its door listens, and so notices when it goes"
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

/// Between the question and the answer a token may be revoked.
#[test]
fn a_token_that_is_revoked_while_the_application_thinks_lets_nobody_in() {
    let application = Scripted::about(Interests::CONNECTING | Interests::SUBSCRIBE);
    let mut world = world(&application);
    let revoke = |world: &World, jti: &str| {
        let revocation = Revocation::Token {
            id: TokenId::of_jti(jti),
            expire_at: None,
        };
        let revocations = world.config.revocations();
        revocations.add(&revocation, world.now.unix).unwrap();
    };
    let connect = |world: &mut World, jti: &str| {
        let client = world.open(0);
        let token = sign_claims(&json!({"sub": "7", "jti": jti}));
        world.tell(client, json!({"id": 1, "connect": {"token": token}}));
        (client, application.take().0)
    };
    let (client, ticket) = connect(&mut world, "a");
    revoke(&world, "a");
    answer(
        &mut world,
        ticket,
        Answer::Connect(Ok(ConnectReply::default())),
    );
    assert_eq!(world.heard(client)[0]["error"]["code"], 109);

    let (client, ticket) = connect(&mut world, "b");
    answer(
        &mut world,
        ticket,
        Answer::Connect(Ok(ConnectReply::default())),
    );
    world.heard(client);
    let token = sign_claims(&json!({"sub": "7", "channel": "vault:1", "jti": "c"}));
    let request = json!({"channel": "vault:1", "token": token});
    world.tell(client, json!({"id": 2, "subscribe": request}));
    let (ticket, ..) = application.take();
    revoke(&world, "c");
    answer(
        &mut world,
        ticket,
        Answer::Subscribe(Ok(SubscribeReply::default())),
    );
    assert_eq!(world.heard(client)[0]["error"]["code"], 109);
}
