//! Subscriptions, publications and messages, where an application decides.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tautline_auth::Overrides;
use tautline_hub::ApiPublish;
use tautline_hub::application::{
    Answer, ApplicationOptions, Interests, PublishInstead, PublishReply, Question, RefreshBy,
    RefreshReply, SubscribeReply,
};
use tautline_hub::rate::Rate;
use tautline_protocol::{Disconnect, ErrorCode};

use super::{Scripted, answer, quiet, temporary, world, world_with};
use crate::support::{START, World, channel_token, sign_claims};

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
fn what_the_application_imposes_is_beside_what_the_token_does() {
    let only = |key: &str| json!({"key": key, "cmp": "eq", "val": "1"});
    let imposed = only("b").to_string();
    let decide = move |question: &Question| {
        matches!(question, Question::Subscribe(_)).then(|| {
            Answer::Subscribe(Ok(SubscribeReply {
                tags_filter: Some(imposed.clone()),
                ..SubscribeReply::default()
            }))
        })
    };
    let application = Scripted::about(Interests::SUBSCRIBE).at_once(decide);
    let mut world = world(&application);
    let client = world.connect_as(0, "7");
    let claims = json!({"sub": "7", "channel": "news", "server_tags_filter": only("a")});
    let request = json!({"channel": "news", "token": sign_claims(&claims)});
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    assert!(heard[0]["subscribe"].is_object(), "{heard:?}");
    for (number, keys) in [&[][..], &["a"], &["b"], &["a", "b"]].iter().enumerate() {
        let tags = keys.iter().map(|key| ((*key).into(), "1".into()));
        let request = ApiPublish {
            channel: "news".into(),
            data: number.to_string().into(),
            tags: tags.collect(),
            ..ApiPublish::default()
        };
        let now = world.now;
        let hub = &mut world.workers[1].hub;
        hub.api_publish(now, request, |result| {
            result.unwrap();
        });
    }
    world.settle();
    let heard = world.heard(client);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["push"]["pub"]["data"], json!(3));
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

#[test]
fn messages_have_a_rate_of_a_connection_and_one_of_a_user() {
    let once = Rate::parse("1/1h").ok();
    for of_user in [false, true] {
        let application = Scripted::about(Interests::MESSAGE);
        let application = application.at_once(|_| Some(Answer::Message(Ok(()))));
        let mut setup = quiet();
        let rates = &mut setup.client.rate_limit;
        if of_user {
            rates.user_command.send = once;
        } else {
            rates.client_command.send = once;
        }
        let mut world = world_with(&application, setup, ApplicationOptions::default());
        let (client, other) = (world.connect_as(0, "7"), world.connect_as(0, "7"));
        let message = r#"{"send":{"data":1}}"#;
        world.send(client, message);
        assert_eq!(world.closed(client), None);
        // Another connection has a rate of its own, where it isn't the user's.
        world.send(other, message);
        assert_eq!(world.closed(other).is_some(), of_user);
        world.send(client, message);
        assert_eq!(world.closed(client).map(|(code, _)| code), Some(3013));
    }
}
