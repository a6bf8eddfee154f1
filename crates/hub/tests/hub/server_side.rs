//! Subscriptions that the server makes when a client connects.

use serde_json::{Value, json};
use tautline_hub::config::PersonalChannelOptions;
use tautline_hub::engine::Delivery;
use tautline_hub::engine::testkit::DelayOptions;

use crate::support::{Client, START, Setup, World, channel_token, sign_claims, token};

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.subscribe_to_user_personal_channel = PersonalChannelOptions {
        enabled: true,
        personal_channel_namespace: "room".into(),
        ..PersonalChannelOptions::default()
    };
    setup
}

/// Connects, and returns what is said in answer and behind it.
fn connect(world: &mut World, worker: usize, request: Value) -> (Client, Vec<Value>) {
    let client = world.open(worker);
    let heard = world.tell(client, json!({"id": 1, "connect": request}));
    (client, heard)
}

fn publish(world: &mut World, channel: &str, data: u64) {
    let request = tautline_hub::ApiPublish {
        channel: channel.into(),
        data: data.to_string().into(),
        ..tautline_hub::ApiPublish::default()
    };
    world.workers[0]
        .hub
        .api_publish(world.now, request, |result| {
            result.unwrap();
        });
    world.settle();
}

fn pushed(heard: &[Value], channel: &str) -> Vec<u64> {
    heard
        .iter()
        .filter(|message| message["push"]["channel"] == json!(channel))
        .filter_map(|message| message["push"]["pub"]["data"].as_u64())
        .collect()
}

#[test]
fn how_the_operators_channels_are_spelt_is_their_business() {
    let mut setup = setup();
    let namespace = setup.channel.namespaces.iter_mut();
    let room = namespace.into_iter().find(|one| one.name == "room");
    room.unwrap().channel_regex = Some(tautline_auth::Pattern::new("^[a-z]+$").unwrap());
    let mut world = World::with(setup);
    let claims = json!({"sub": "jos\u{e9}", "channels": ["caf\u{e9}"]});
    let (client, heard) = connect(&mut world, 0, json!({"token": sign_claims(&claims)}));
    let subs = heard[0]["connect"]["subs"].as_object();
    let subs = subs.unwrap_or_else(|| panic!("not let in: {heard:?}"));
    let expected = ["caf\u{e9}", "room:#jos\u{e9}"];
    assert_eq!(subs.keys().collect::<Vec<_>>(), expected);
    for channel in expected {
        publish(&mut world, channel, 7);
        assert_eq!(pushed(&world.heard(client), channel), [7], "{channel}");
    }
    // What the client makes up is looked at.
    for channel in ["th\u{e9}", "room:Mine"] {
        let request = json!({"id": 2, "subscribe": {"channel": channel}});
        let heard = world.tell(client, request);
        assert_eq!(heard[0]["error"]["code"], json!(107), "{channel}");
    }
    let request = json!({"token": token("42", None), "subs": {"th\u{e9}": {}}});
    let (_, heard) = connect(&mut world, 0, request);
    assert_eq!(heard[0]["connect"]["subs"]["th\u{e9}"], Value::Null);
}

#[test]
fn a_token_brings_its_channels_and_a_user_its_own() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup { delays, ..setup() });
        let claims = json!({
            "sub": "42",
            "subs": {
                "news": {"data": {"a": 1}, "info": "reader"},
                "vault:x": {"override": {"presence": {"value": true}}},
            },
        });
        let (client, heard) = connect(&mut world, 1, json!({"token": sign_claims(&claims)}));
        let subs = heard[0]["connect"]["subs"].as_object().unwrap();
        assert_eq!(
            subs.keys().collect::<Vec<_>>(),
            ["news", "room:#42", "vault:x"],
        );
        assert_eq!(subs["news"], json!({"data": {"a": 1}}));
        assert_eq!(subs["room:#42"]["recoverable"], json!(true));
        assert_eq!(
            heard[1]["push"]["join"]["info"]["user"],
            json!("42"),
            "{heard:?}"
        );
        assert_eq!(world.members("vault:x").len(), 1);
        publish(&mut world, "vault:x", 1);
        publish(&mut world, "room:#42", 2);
        let heard = world.heard(client);
        assert_eq!(pushed(&heard, "vault:x"), [1]);
        assert_eq!(pushed(&heard, "room:#42"), [2]);
        let again = world.tell(client, json!({"id": 2, "subscribe": {"channel": "news"}}));
        assert_eq!(
            again[0]["error"]["code"],
            json!(105),
            "it is subscribed already"
        );
        let author = json!({"id": 3, "publish": {"channel": "news", "data": 3}});
        let heard = world.tell(client, author);
        let info = heard
            .iter()
            .find_map(|message| message["push"]["pub"].get("info"));
        assert_eq!(info.unwrap()["chan_info"], json!("reader"));
        world.drop_connection(client);
        world.settle();
        assert_eq!(world.workers[1].hub.stats().subscriptions, 0);
        assert!(world.members("vault:x").is_empty());
    }
}

#[test]
fn anonymous_users_have_no_channel_of_their_own() {
    let mut world = World::with(setup());
    let (_, heard) = connect(&mut world, 0, json!({}));
    assert!(heard[0]["connect"]["subs"].is_null());
}

#[test]
fn who_comes_back_recovers_them() {
    let mut world = World::with(setup());
    let connect_with = token("42", None);
    let (client, heard) = connect(&mut world, 0, json!({"token": connect_with}));
    let epoch = heard[0]["connect"]["subs"]["room:#42"]["epoch"].clone();
    world.drop_connection(client);
    for number in 1..=7 {
        publish(&mut world, "room:#42", number);
    }
    let subs = json!({"room:#42": {"recover": true, "epoch": epoch, "offset": 0}});
    let (client, heard) = connect(&mut world, 1, json!({"token": connect_with, "subs": subs}));
    let result = &heard[0]["connect"]["subs"]["room:#42"];
    assert_eq!(result["recovered"], json!(true));
    assert_eq!(result["publications"].as_array().unwrap().len(), 7);
    publish(&mut world, "room:#42", 8);
    assert_eq!(pushed(&world.heard(client), "room:#42"), [8]);
}

#[test]
fn what_a_client_asks_for_it_gets_if_it_may() {
    let mut world = World::new();
    let subs = json!({"news": {}, "vault:x": {}, "$room:b": {}});
    let (_, heard) = connect(&mut world, 0, json!({"subs": subs}));
    assert_eq!(heard[0]["connect"]["subs"], json!({"news": {}}));
    let client = world.open(0);
    let request = json!({"id": 1, "connect": {"subs": {"nope:x": {}}}});
    assert!(world.tell(client, request).is_empty());
    assert_eq!(world.closed(client), Some((3501, true)));
}

#[test]
fn a_connection_fails_with_its_subscriptions() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup { delays, ..setup() });
        let claims = json!({"sub": "42", "channels": ["news", "nope:x"]});
        let (client, heard) = connect(&mut world, 0, json!({"token": sign_claims(&claims)}));
        assert_eq!(heard[0]["error"]["code"], json!(102));
        assert!(world.tell(client, json!({"id": 2, "rpc": {}})).is_empty());
        let stats = world.workers[0].hub.stats();
        assert_eq!((stats.clients, stats.users, stats.channels), (0, 0, 0));
    }
    let delays = Some(DelayOptions {
        at_once: 0,
        failures: 100,
    });
    let mut world = World::with(Setup { delays, ..setup() });
    let (_, heard) = connect(&mut world, 0, json!({"token": token("42", None)}));
    assert_eq!(heard[0]["error"]["temporary"], json!(true));
    let stats = world.workers[0].hub.stats();
    assert_eq!((stats.clients, stats.users, stats.channels), (0, 0, 0));
    assert!(world.members("room:#42").is_empty());
}

#[test]
fn too_many_of_them_end_the_connection() {
    for (dry_run, closed, counted) in [(false, Some((3505, true)), [1, 0]), (true, None, [0, 1])] {
        let mut setup = setup();
        setup.dry_run = dry_run;
        setup.client.channel_limit = 2;
        let mut world = World::with(setup);
        let claims = json!({"sub": "42", "channels": ["a", "b"]});
        let (client, _) = connect(&mut world, 0, json!({"token": sign_claims(&claims)}));
        assert_eq!(world.closed(client), closed);
        let over = world.workers[0].hub.counters().over_limit;
        assert_eq!(over.subscriptions, counted);
    }
}

#[test]
fn one_that_the_client_names_too_is_one() {
    for (enabled, claims, channel) in [
        (
            false,
            json!({"sub": "42", "channels": ["room:a"]}),
            "room:a",
        ),
        (true, json!({"sub": "42"}), "room:#42"),
    ] {
        let mut setup = setup();
        setup.client.channel_limit = 1;
        let personal = &mut setup.client.subscribe_to_user_personal_channel;
        personal.enabled = enabled;
        let mut world = World::with(setup);
        let request = json!({"token": sign_claims(&claims), "subs": {channel: {}}});
        let (client, heard) = connect(&mut world, 0, request);
        assert_eq!(world.closed(client), None, "{channel}");
        let subs = heard[0]["connect"]["subs"].as_object().unwrap();
        assert_eq!(subs.keys().collect::<Vec<_>>(), [channel]);
        // It could have had the channel by asking for it alone.
        let (_, heard) = connect(&mut world, 0, json!({"subs": {channel: {}}}));
        let subs = heard[0]["connect"]["subs"].as_object().unwrap();
        assert_eq!(subs.keys().collect::<Vec<_>>(), [channel]);
    }
}

/// Whether it may subscribe to them or not: each is looked at.
#[test]
fn a_client_names_no_more_of_them_than_it_could_have() {
    for (limit, dry_run, most) in [(2, false, 256), (300, false, 300), (2, true, 1_000)] {
        let mut setup = setup();
        setup.dry_run = dry_run;
        setup.client.channel_limit = limit;
        let mut world = World::with(setup);
        let mut connect_naming = |count: usize| {
            let names = (0..count).map(|number| (format!("vault:{number}"), json!({})));
            let subs: Value = names.collect::<serde_json::Map<_, _>>().into();
            let (client, heard) = connect(
                &mut world,
                0,
                json!({"token": token("42", None), "subs": subs}),
            );
            (heard, world.closed(client))
        };
        let (heard, closed) = connect_naming(most);
        let subs = heard[0]["connect"]["subs"].as_object().unwrap();
        assert_eq!(subs.keys().collect::<Vec<_>>(), ["room:#42"]);
        assert_eq!(closed, None);
        let (_, closed) = connect_naming(most + 1);
        assert_eq!(closed, (!dry_run).then_some((3505, true)));
    }
}

/// No SDK does it. Whoever does gets what the reply says, until it connects again: an acknowledgement is a promise.
#[test]
fn a_client_may_leave_one_until_it_connects_again() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup { delays, ..setup() });
        let claims = json!({"sub": "42", "channels": ["room:a", "room:b"]});
        let by_token = json!({"token": sign_claims(&claims)});
        let (client, _) = connect(&mut world, 1, by_token.clone());
        for (id, channel) in [(2, "room:a"), (3, "room:#42")] {
            let leave = json!({"id": id, "unsubscribe": {"channel": channel}});
            assert_eq!(
                world.tell(client, leave),
                [json!({"id": id, "unsubscribe": {}})],
                "nothing is pushed besides"
            );
            assert!(world.members(channel).is_empty(), "{channel}");
            publish(&mut world, channel, 1);
        }
        publish(&mut world, "room:b", 2);
        let heard = world.heard(client);
        assert_eq!(pushed(&heard, "room:b"), [2], "{heard:?}");
        assert_eq!(heard.len(), 1, "{heard:?}");

        // Not subscribed any more, it may be by itself; what its token names it gets by connecting again.
        let again = json!({"id": 4, "subscribe": {"channel": "room:a"}});
        assert!(world.tell(client, again)[0]["subscribe"].is_object());
        let leave = json!({"id": 5, "unsubscribe": {"channel": "room:b"}});
        world.tell(client, leave);
        let refresh = json!({"id": 6, "refresh": by_token});
        assert!(world.tell(client, refresh).is_empty());
        assert_eq!(world.closed(client), Some((3010, true)));
        let (_, heard) = connect(&mut world, 0, by_token);
        let subs = heard[0]["connect"]["subs"].as_object().unwrap();
        let names: Vec<_> = subs.keys().collect();
        assert_eq!(names, ["room:#42", "room:a", "room:b"]);
    }
}

#[test]
fn a_client_does_not_prolong_what_the_server_has_made() {
    let mut setup = setup();
    setup.client.ping_interval = std::time::Duration::ZERO;
    let mut world = World::with(setup);
    let claims = json!({"sub": "42", "channels": ["room:a"]});
    let (client, _) = connect(&mut world, 0, json!({"token": sign_claims(&claims)}));
    let request = tautline_hub::ApiSubscribe {
        channel: "room:b".into(),
        expire_at: Some(START.as_secs() + 30),
        ..tautline_hub::ApiSubscribe::default()
    };
    let target = tautline_hub::Target {
        user: Some("42".into()),
        ..tautline_hub::Target::default()
    };
    let crate::support::Worker { hub, out, .. } = &mut world.workers[0];
    hub.api_subscribe(world.now, &target, request, Result::unwrap, out);
    world.settle();
    assert!(world.heard(client)[0]["push"]["subscribe"].is_object());
    let denied = json!({"code": 103, "message": "permission denied"});
    for (id, channel) in [(2, "room:a"), (3, "room:b"), (4, "room:#42")] {
        // However good the token is.
        let token = channel_token("42", channel, Some(1000));
        let refresh = json!({"id": id, "sub_refresh": {"channel": channel, "token": token}});
        let heard = world.tell(client, refresh);
        assert_eq!(heard, [json!({"id": id, "error": denied})], "{channel}");
    }
    assert_eq!(world.workers[0].hub.stats().subscriptions, 3);
    // It ends when its maker said (and some patience later).
    world.seconds(54);
    assert_eq!(world.closed(client), None);
    world.seconds(2);
    assert_eq!(world.closed(client), Some((3006, true)));
}

#[test]
fn a_place_that_is_lost_ends_the_connection() {
    let mut world = World::with(setup());
    let (client, _) = connect(&mut world, 1, json!({"token": token("42", None)}));
    for number in 1..=11 {
        let request = tautline_hub::ApiPublish {
            channel: "room:#42".into(),
            data: number.to_string().into(),
            ..tautline_hub::ApiPublish::default()
        };
        world.workers[0].hub.api_publish(world.now, request, |_| ());
    }
    let lost = world.workers[1].inbox.take();
    assert!(matches!(lost[0], Delivery::Publication { .. }));
    publish(&mut world, "room:#42", 12);
    assert_eq!(world.closed(client), Some((3010, true)));
}

#[test]
fn a_new_token_that_names_other_channels_has_its_client_come_back() {
    let came_back = Some((3010, true));
    for (channels, end) in [
        (json!(["b", "a"]), None),
        (json!(["a", "b", "c"]), came_back),
        (json!(["a"]), came_back),
        (json!([]), came_back),
        (json!(["a", "c"]), came_back),
    ] {
        // The user's own channel, which comes of no token, is not held against it.
        let mut world = World::with(setup());
        let claims = json!({"sub": "42", "channels": ["a", "b"]});
        let (client, _) = connect(&mut world, 0, json!({"token": sign_claims(&claims)}));
        let claims = json!({"sub": "42", "channels": channels});
        let refresh = json!({"id": 2, "refresh": {"token": sign_claims(&claims)}});
        let heard = world.tell(client, refresh);
        assert_eq!(world.closed(client), end, "{claims}: {heard:?}");
        if end.is_none() {
            assert!(heard[0]["refresh"].is_object(), "{heard:?}");
        }
    }
}
