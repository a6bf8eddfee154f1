//! Who gets in, and what goes before and after.

use std::time::Duration;

use serde_json::json;
use tautline_auth::TokenClaims;
use tautline_hub::config::ClientOptions;
use tautline_hub::{Frame, HubStats, TokenRefusal};

use crate::support::{Client, Setup, World, channel_token, sign, sign_claims, token};

fn strict() -> World {
    World::with(Setup {
        client: ClientOptions::default(),
        ..Setup::default()
    })
}

/// Connects with a token and returns the close code, or the error's code, or 0.
fn outcome(world: &mut World, token: &str) -> u64 {
    let client = world.open(0);
    let heard = world.tell(client, json!({"id": 1, "connect": {"token": token}}));
    match world.closed(client) {
        Some((code, _)) => {
            assert!(heard.is_empty());
            u64::from(code)
        }
        None => heard[0]["error"]["code"].as_u64().unwrap_or(0),
    }
}

#[test]
fn an_anonymous_client_gets_in_where_that_is_allowed() {
    let mut world = World::new();
    let client = world.open(0);
    let heard = world.tell(client, json!({"id": 7, "connect": {"name": "js"}}));
    let id = heard[0]["connect"]["client"].as_str().unwrap().to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let result = json!({"client": id, "version": version, "ping": 25, "pong": true});
    assert_eq!(heard, [json!({"id": 7, "connect": result})]);
    // A UUID of version 4.
    assert_eq!(id.len(), 36);
    assert_eq!((&id[14..15], &id[8..9], &id[23..24]), ("4", "-", "-"));

    assert_eq!(outcome(&mut strict(), ""), 3501);
}

#[test]
fn tokens_are_believed_or_not() {
    let mut world = strict();
    assert_eq!(outcome(&mut world, &token("7", None)), 0);
    assert_eq!(outcome(&mut world, &token("7", Some(60))), 0);
    assert_eq!(
        outcome(&mut world, &token("", None)),
        0,
        "a token without a user"
    );
    assert_eq!(outcome(&mut world, &token("7", Some(0))), 109);
    assert_eq!(outcome(&mut world, "garbage"), 3500);
    let forged = token("7", None).replace('.', ".x");
    assert_eq!(outcome(&mut world, &forged), 3500);
    let channel_token = sign(&TokenClaims {
        channel: Some("x"),
        ..TokenClaims::default()
    });
    assert_eq!(outcome(&mut world, &channel_token), 3500);
}

#[test]
fn anonymous_tokens_can_be_forbidden() {
    let client = ClientOptions {
        disallow_anonymous_connection_tokens: true,
        ..ClientOptions::default()
    };
    let mut world = World::with(Setup {
        client,
        ..Setup::default()
    });
    assert_eq!(outcome(&mut world, &token("", None)), 3507);
    assert_eq!(outcome(&mut world, &token("7", None)), 0);
}

#[test]
fn the_time_to_live_is_told() {
    let mut world = strict();
    let client = world.open(0);
    let heard = world.tell(
        client,
        json!({"id": 1, "connect": {"token": token("7", Some(60))}}),
    );
    assert_eq!(heard[0]["connect"]["expires"], json!(true));
    assert_eq!(heard[0]["connect"]["ttl"], json!(60));
    let client = world.open(0);
    let century = token("7", Some(100 * 365 * 24 * 3600));
    let heard = world.tell(client, json!({"id": 1, "connect": {"token": century}}));
    assert_eq!(
        heard[0]["connect"]["ttl"],
        json!(365 * 24 * 3600),
        "no more than a year"
    );
}

#[test]
fn insecure_mode_lets_everybody_in_for_ever() {
    let client = ClientOptions {
        insecure: true,
        ..ClientOptions::default()
    };
    let mut world = World::with(Setup {
        client,
        ..Setup::default()
    });
    assert_eq!(outcome(&mut world, ""), 0);
    assert_eq!(
        outcome(&mut world, "garbage"),
        3500,
        "a token that is there is still verified"
    );
    let client = world.connect_with(0, &token("7", Some(60)));
    world.workers[0].out.messages.clear();
    let heard = world.tell(
        client,
        json!({"id": 2, "subscribe": {"channel": "vault:x"}}),
    );
    assert_eq!(heard, [json!({"id": 2, "subscribe": {}})]);
}

#[test]
fn the_servers_time_is_told_where_configured() {
    let client = ClientOptions {
        connect_include_server_time: true,
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let mut world = World::with(Setup {
        client,
        ..Setup::default()
    });
    let client = world.open(0);
    let heard = world.tell(client, json!({"id": 1, "connect": {}}));
    assert_eq!(heard[0]["connect"]["time"], json!(1_700_000_000_000_u64));
}

#[test]
fn nothing_goes_before_connecting() {
    for frame in [
        r#"{"id":1,"subscribe":{"channel":"news"}}"#,
        r#"{"id":1,"rpc":{}}"#,
        r#"{"send":{"data":1}}"#,
        "{}",
        r#"{"connect":{}}"#,
    ] {
        let mut world = World::new();
        let client = world.open(0);
        world.send(client, frame);
        assert_eq!(world.closed(client), Some((3501, true)), "{frame}");
        assert!(world.heard(client).is_empty());
    }
}

#[test]
fn nobody_connects_twice() {
    let mut world = World::new();
    let client = world.connect(0);
    world.send(client, r#"{"id":2,"connect":{}}"#);
    assert_eq!(world.closed(client), Some((3501, true)));
}

#[test]
fn the_first_frame_may_hold_it_all() {
    let mut world = World::new();
    let client = world.open(0);
    world.send(
        client,
        "{\"connect\":{},\"id\":1}\n{\"subscribe\":{\"channel\":\"news\",\"flag\":1},\"id\":2}\n\
         {\"subscribe\":{\"channel\":\"$vip\"},\"id\":3}",
    );
    let heard = world.heard(client);
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[1], json!({"id": 2, "subscribe": {}}));
    assert_eq!(
        heard[2],
        json!({"id": 3, "error": {"code": 103, "message": "permission denied"}})
    );
}

#[test]
fn after_a_refusal_nothing_is_listened_to_any_more() {
    let mut world = strict();
    let client = world.open(0);
    let expired = token("7", Some(0));
    let frame = format!(
        "{{\"id\":1,\"connect\":{{\"token\":\"{expired}\"}}}}\n\
         {{\"id\":2,\"subscribe\":{{\"channel\":\"news\"}}}}\nnot json"
    );
    world.send(client, &frame);
    let error = json!({"code": 109, "message": "token expired"});
    assert_eq!(world.heard(client), [json!({"id": 1, "error": error})]);
    let valid = token("7", None);
    for frame in [
        &*format!("{{\"id\":3,\"connect\":{{\"token\":\"{valid}\"}}}}"),
        "{}",
        "",
    ] {
        world.send(client, frame);
    }
    assert!(world.heard(client).is_empty());
    assert_eq!(world.closed(client), None);
    world.seconds(11);
    assert_eq!(world.closed(client), Some((3502, true)));
}

#[test]
fn what_cannot_be_read_ends_the_connection_and_what_went_before_counts() {
    for bad in [
        "",
        "nonsense",
        "{\"id\":-1}",
        "[]",
        "{\"id\":3,\"nothing\":{}}",
        "{\"id\":3}",
    ] {
        let mut world = World::new();
        let client = world.connect(0);
        let frame = format!("{{\"id\":2,\"subscribe\":{{\"channel\":\"news\"}}}}\n{bad}\n{{}}");
        world.send(client, &frame);
        assert_eq!(
            world.heard(client),
            [json!({"id": 2, "subscribe": {}})],
            "{bad}"
        );
        assert_eq!(world.closed(client), Some((3501, true)), "{bad}");
    }
}

#[test]
fn some_commands_are_answered_plainly() {
    let mut world = World::new();
    let client = world.connect(0);
    let heard = world.tell(client, json!({"id": 2, "rpc": {"method": "x"}}));
    assert_eq!(
        heard,
        [json!({"id": 2, "error": {"code": 108, "message": "not available"}})]
    );
    for frame in [r#"{"send":{"data":1}}"#, r#"{"id":3,"send":{"data":1}}"#] {
        let client = world.connect(0);
        world.send(client, frame);
        assert_eq!(world.closed(client), Some((3508, true)));
    }
    let client = world.connect(0);
    world.send(client, r#"{"id":3,"ping":{}}"#);
    assert_eq!(world.closed(client), Some((3501, true)));
}

#[test]
fn stats_count_and_everything_is_forgotten() {
    let mut world = World::new();
    let clients = ["7", "7", "8", ""].map(|user| world.connect_as(0, user));
    world.open(0);
    for (index, client) in clients.into_iter().enumerate() {
        let channel = format!("c{}", index / 2);
        world.tell(client, json!({"id": 2, "subscribe": {"channel": channel}}));
    }
    let stats = HubStats {
        clients: 4,
        users: 3,
        channels: 2,
        subscriptions: 4,
    };
    assert_eq!(world.workers[0].hub.stats(), stats);
    world.drop_connection(clients[0]);
    let stats = HubStats {
        clients: 3,
        users: 3,
        channels: 2,
        subscriptions: 3,
    };
    assert_eq!(world.workers[0].hub.stats(), stats);
    world.drop_connection(clients[1]);
    let stats = HubStats {
        clients: 2,
        users: 2,
        channels: 1,
        subscriptions: 2,
    };
    assert_eq!(world.workers[0].hub.stats(), stats);

    let now = world.now;
    let worker = &mut world.workers[0];
    worker.hub.drain(now, Duration::ZERO, &mut worker.out);
    assert_eq!(worker.hub.stats(), HubStats::default());
    assert_eq!(
        worker.out.closed.len(),
        3,
        "the one that never connected, too"
    );
    for (disconnect, flush) in worker.out.closed.values() {
        assert_eq!((disconnect.code, *flush), (3001, true));
    }
}

#[test]
fn ids_of_the_past_find_nothing() {
    let mut world = World::new();
    let old = world.connect(0);
    world.drop_connection(old);
    let new = world.connect(0);
    assert_eq!(old.id.index, new.id.index, "the slot is used again");
    world.send(old, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    world.drop_connection(old);
    assert!(world.heard(old).is_empty() && world.closed(old).is_none());
    assert!(world.workers[0].hub.wants_input(old.id));
    assert_eq!(world.workers[0].hub.stats().clients, 1);
    let Client { worker, id } = new;
    let unknown = tautline_hub::SessionId {
        index: id.index + 1000,
        ..id
    };
    let now = world.now;
    let worker = &mut world.workers[worker];
    worker
        .hub
        .receive(now, unknown, Frame::Json("{}"), &mut worker.out);
}

#[test]
fn what_is_not_offered_is_left_out() {
    // Compression by dictionaries, and numbers instead of names of channels: SDKs offer them unasked, and
    // take what answers them at its word.
    let mut world = World::new();
    let client = world.open(0);
    let offer = json!({"flag": 1, "dict": "d", "profile": "p"});
    let heard = world.tell(client, json!({"id": 1, "connect": offer}));
    assert!(heard[0]["connect"]["client"].is_string(), "{heard:?}");
    for name in ["flag", "dict", "profile"] {
        assert!(heard[0]["connect"][name].is_null(), "{heard:?}");
    }
    let request = json!({"channel": "news", "flag": 1});
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    assert!(heard[0]["subscribe"].is_object(), "{heard:?}");
    assert!(heard[0]["subscribe"]["id"].is_null(), "{heard:?}");
    let publish = tautline_hub::ApiPublish {
        channel: "news".into(),
        data: "1".into(),
        ..tautline_hub::ApiPublish::default()
    };
    let now = world.now;
    let hub = &mut world.workers[0].hub;
    hub.api_publish(now, publish, |result| drop(result.unwrap()));
    world.settle();
    let heard = world.heard(client);
    let push = heard
        .iter()
        .map(|message| &message["push"])
        .find(|push| push["pub"].is_object());
    let push = push.unwrap_or_else(|| panic!("{heard:?}"));
    assert_eq!(push["channel"], json!("news"));
    assert!(push["id"].is_null(), "{push}");
}

#[test]
fn who_has_been_found_out_already_needs_no_token() {
    let mut setup = Setup {
        client: ClientOptions::default(),
        ..Setup::default()
    };
    setup.client.subscribe_to_user_personal_channel.enabled = true;
    let mut world = World::with(setup);
    for (token, channel) in [(String::new(), "#7"), (token("8", None), "#8")] {
        let client = world.open_as(0, "7");
        let heard = world.tell(client, json!({"id": 1, "connect": {"token": token}}));
        let subs = &heard[0]["connect"]["subs"];
        assert!(subs[channel].is_object(), "{heard:?}");
        assert_eq!(subs.as_object().map(serde_json::Map::len), Some(1));
    }
    // A token that is no good is not made good by that.
    let client = world.open_as(0, "7");
    world.tell(client, json!({"id": 1, "connect": {"token": "garbage"}}));
    assert_eq!(world.closed(client).map(|(code, _)| code), Some(3500));
}

#[test]
fn tokens_that_let_nobody_in_are_counted_by_reason() {
    let mut setup = Setup::default();
    setup.client.disallow_anonymous_connection_tokens = true;
    let mut world = World::with(setup);
    let refused = |world: &World| world.workers[0].hub.counters().refused_tokens;
    let on_connect = [
        (token("7", Some(0)), TokenRefusal::Expired),
        (
            sign_claims(&json!({"sub": "7", "nbf": 4_000_000_000_u64})),
            TokenRefusal::NotYet,
        ),
        (token("7", None).replace('.', ".x"), TokenRefusal::Signature),
        ("garbage".into(), TokenRefusal::Malformed),
        ("x".repeat(20_000), TokenRefusal::TooLong),
        (channel_token("7", "vault:1", None), TokenRefusal::Kind),
        (token("", None), TokenRefusal::Anonymous),
    ];
    for (token, refusal) in &on_connect {
        let before = refused(&world).connection;
        assert_ne!(outcome(&mut world, token), 0);
        let mut expected = before;
        expected[refusal.index()] += 1;
        assert_eq!(refused(&world).connection, expected, "{}", refusal.name());
    }
    let client = world.connect_as(0, "7");
    let subscribe = |world: &mut World, token: &str| {
        let request = json!({"channel": "vault:1", "token": token});
        world.tell(client, json!({"id": 2, "subscribe": request}));
    };
    subscribe(&mut world, &channel_token("7", "vault:1", Some(0)));
    subscribe(&mut world, &token("7", None));
    subscribe(&mut world, &channel_token("8", "vault:1", None));
    let subscription = refused(&world).subscription;
    for refusal in TokenRefusal::ALL {
        let expected = [
            TokenRefusal::Expired,
            TokenRefusal::Kind,
            TokenRefusal::Bearer,
        ];
        let count = subscription[refusal.index()];
        assert_eq!(
            count,
            u64::from(expected.contains(&refusal)),
            "{}",
            refusal.name()
        );
    }
    // The last one was for somebody else, which ended the connection.
    let client = world.connect_as(0, "7");
    let other = token("8", None);
    world.tell(client, json!({"id": 2, "refresh": {"token": other}}));
    assert_eq!(refused(&world).connection[TokenRefusal::Bearer.index()], 1);
}
