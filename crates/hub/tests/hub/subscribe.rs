//! Who may subscribe to what, and what a subscription then is.

use serde_json::{Value, json};
use tautline_auth::TokenClaims;
use tautline_hub::config::ClientOptions;

use crate::support::{Client, START, Setup, World, channel_token, sign, token};

/// Subscribes and returns the error's code, the close code, or 0.
fn subscribe(world: &mut World, client: Client, request: Value) -> u64 {
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    if let Some((code, _)) = world.closed(client) {
        return u64::from(code);
    }
    assert_eq!(heard[0]["id"], json!(2));
    heard[0]["error"]["code"].as_u64().unwrap_or_else(|| {
        assert!(heard[0]["subscribe"].is_object());
        0
    })
}

#[test]
fn checks_come_in_the_protocols_order() {
    let mut world = World::new();
    let client = world.connect(0);
    let long = "x".repeat(256);
    for (request, code) in [
        (json!({"channel": "news", "type": 1}), 103),
        (json!({"channel": "news", "type": 3}), 103),
        (json!({"channel": "news", "type": 4}), 108),
        (json!({"channel": "news", "type": 5}), 107),
        (json!({"channel": long}), 107),
        (json!({"channel": "caf\u{e9}"}), 107),
        (json!({"channel": "nope:1"}), 102),
        (json!({"channel": "$news"}), 103),
        (json!({"channel": "vault:1"}), 103),
        (
            json!({"channel": "news", "tf": {"key": "a", "cmp": "ex"}}),
            107,
        ),
        (json!({"channel": "vault:1", "tf": {}}), 103),
        (json!({"channel": "news", "delta": "fossil"}), 0),
        (json!({"channel": "news"}), 105),
        (json!({"channel": "news", "token": "garbage"}), 105),
    ] {
        assert_eq!(
            subscribe(&mut world, client, request.clone()),
            code,
            "{request}"
        );
    }
    // A failed subscribe leaves nothing behind.
    assert_eq!(world.workers[0].hub.stats().subscriptions, 1);
    assert_eq!(
        subscribe(&mut world, client, json!({"channel": "more", "delta": "?"})),
        3501
    );
    let client = world.connect(0);
    assert_eq!(subscribe(&mut world, client, json!({})), 3501);
}

#[test]
fn channels_are_limited() {
    let options = ClientOptions {
        channel_limit: 2,
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let mut world = World::with(Setup {
        client: options,
        ..Setup::default()
    });
    let client = world.connect(0);
    for (channel, code) in [("a", 0), ("b", 0), ("c", 106), ("b", 105)] {
        assert_eq!(
            subscribe(&mut world, client, json!({"channel": channel})),
            code
        );
    }
    world.tell(client, json!({"id": 3, "unsubscribe": {"channel": "a"}}));
    assert_eq!(subscribe(&mut world, client, json!({"channel": "c"})), 0);
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!((over.subscriptions, over.channel_names), ([1, 0], [0, 0]));
}

#[test]
fn names_of_channels_are_as_long_as_the_options_say() {
    let mut setup = Setup::default();
    setup.channel.max_length = 10;
    let mut world = World::with(setup);
    let client = world.connect_as(0, "42");
    for (length, code) in [(10, 0), (11, 107), (255, 107)] {
        let channel = "x".repeat(length);
        let found = subscribe(&mut world, client, json!({"channel": channel}));
        assert_eq!(found, code, "{length}");
    }
}

#[test]
fn limits_of_numbers_can_be_tried_out() {
    let mut setup = Setup {
        dry_run: true,
        ..Setup::default()
    };
    setup.client.channel_limit = 2;
    setup.client.user_connection_limit = 1;
    let mut world = World::with(setup);
    let client = world.connect_as(0, "42");
    let other = world.connect_as(0, "42");
    for channel in ["a", "b", "c", "d"] {
        assert_eq!(
            subscribe(&mut world, client, json!({"channel": channel})),
            0
        );
    }
    let long = "x".repeat(256);
    assert_eq!(subscribe(&mut world, other, json!({"channel": long})), 0);
    let longest = "x".repeat(4097);
    assert_eq!(
        subscribe(&mut world, other, json!({"channel": longest})),
        107
    );
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!(over.subscriptions, [0, 2]);
    assert_eq!(over.user_connections, [0, 1]);
    assert_eq!(over.channel_names, [1, 1]);
}

#[test]
fn tokens_open_doors_for_their_bearer() {
    let mut world = World::new();
    for (user, channel, token, code) in [
        ("7", "$vault:x", channel_token("7", "$vault:x", None), 0),
        ("7", "vault:x", channel_token("7", "vault:x", None), 0),
        ("", "vault:x", channel_token("", "vault:x", None), 0),
        (
            "7",
            "$vault:x",
            channel_token("7", "$vault:x", Some(0)),
            109,
        ),
        ("7", "$vault:x", "garbage".into(), 103),
        ("7", "news", "garbage".into(), 103),
        ("7", "$vault:x", token("7", None), 103),
        ("7", "$vault:x", channel_token("8", "$vault:x", None), 3500),
        ("7", "$vault:x", channel_token("7", "$vault:y", None), 3500),
    ] {
        let client = world.connect_as(0, user);
        let request = json!({"channel": channel, "token": token});
        assert_eq!(
            subscribe(&mut world, client, request),
            code,
            "{user} {channel} {code}"
        );
    }
}

#[test]
fn listed_users_need_no_token() {
    let mut world = World::new();
    for (user, channel, code) in [
        ("42", "own:a#42,43", 0),
        ("43", "own:a#42,43", 0),
        ("4", "own:a#42,43", 103),
        ("", "own:a#", 103),
    ] {
        let client = world.connect_as(0, user);
        assert_eq!(
            subscribe(&mut world, client, json!({"channel": channel})),
            code,
            "{user}"
        );
    }
    let client = world.connect_as(0, "4");
    let token = channel_token("4", "own:a#42", None);
    assert_eq!(
        subscribe(
            &mut world,
            client,
            json!({"channel": "own:a#42", "token": token})
        ),
        0
    );
}

#[test]
fn an_expiring_subscription_tells_when() {
    let mut world = World::new();
    let client = world.connect_as(0, "7");
    let token = channel_token("7", "$x", Some(30));
    let heard = world.tell(
        client,
        json!({"id": 2, "subscribe": {"channel": "$x", "token": token}}),
    );
    assert_eq!(
        heard,
        [json!({"id": 2, "subscribe": {"expires": true, "ttl": 30}})]
    );
}

#[test]
fn what_a_token_says_about_the_subscriber_is_seen_in_the_channel() {
    let mut world = World::new();
    let info = serde_json::value::RawValue::from_string(r#"{"role": "admin"}"#.into()).unwrap();
    let token = sign(&TokenClaims {
        user: "7",
        channel: Some("room:a"),
        info: Some(&info),
        expires_at: Some(START.as_secs() + 60),
        ..TokenClaims::default()
    });
    let client = world.connect_as(0, "7");
    world.tell(
        client,
        json!({"id": 2, "subscribe": {"channel": "room:a", "token": token}}),
    );
    let heard = world.tell(
        client,
        json!({"id": 3, "publish": {"channel": "room:a", "data": 1}}),
    );
    let shown = &heard[1]["push"]["pub"]["info"];
    assert_eq!(shown["chan_info"], json!({"role": "admin"}));
    let heard = world.tell(client, json!({"id": 4, "presence": {"channel": "room:a"}}));
    let presence = heard[0]["presence"]["presence"].as_object().unwrap();
    assert_eq!(presence.values().next().unwrap(), shown);
}

#[test]
fn unsubscribing_ends_it_and_is_never_wrong() {
    let mut world = World::new();
    let (client, other) = (world.connect(0), world.connect(1));
    for channel in ["news", "never", "nope:x"] {
        if channel == "news" {
            assert_eq!(
                subscribe(&mut world, client, json!({"channel": channel})),
                0
            );
        }
        let heard = world.tell(
            client,
            json!({"id": 3, "unsubscribe": {"channel": channel}}),
        );
        assert_eq!(heard, [json!({"id": 3, "unsubscribe": {}})]);
    }
    world.tell(
        other,
        json!({"id": 4, "publish": {"channel": "news", "data": 1}}),
    );
    assert!(world.heard(client).is_empty());
    assert_eq!(world.workers[0].hub.stats().channels, 0);
    assert_eq!(subscribe(&mut world, client, json!({"channel": "news"})), 0);
    assert_eq!(
        subscribe(&mut world, client, json!({"channel": "news"})),
        105
    );
    world.send(client, r#"{"id":5,"unsubscribe":{}}"#);
    assert_eq!(world.closed(client), Some((3501, true)));
}

#[test]
fn subscribers_come_and_go_in_any_order() {
    let mut world = World::new();
    let clients: Vec<Client> = (0..9).map(|_| world.connect(0)).collect();
    for client in &clients {
        subscribe(&mut world, *client, json!({"channel": "a"}));
        subscribe(&mut world, *client, json!({"channel": "b"}));
    }
    for index in [0, 8, 4] {
        world.tell(
            clients[index],
            json!({"id": 3, "unsubscribe": {"channel": "a"}}),
        );
    }
    world.drop_connection(clients[1]);
    for (channel, gone) in [("a", &[0, 8, 4, 1][..]), ("b", &[1])] {
        let publisher = world.connect(1);
        world.tell(
            publisher,
            json!({"id": 4, "publish": {"channel": channel, "data": 1}}),
        );
        for (index, client) in clients.iter().enumerate() {
            let count = usize::from(!gone.contains(&index));
            assert_eq!(world.heard(*client).len(), count, "{channel} {index}");
        }
    }
}

#[test]
fn extras_are_honoured_where_allowed_and_ignored_otherwise() {
    let mut setup = Setup::default();
    let room = &mut setup.channel.namespaces[0];
    (room.force_recovery, room.allow_history_for_subscriber) = (false, false);
    let mut asking = room.clone();
    (asking.name, asking.allow_recovery) = ("ask".into(), true);
    let mut reading = room.clone();
    (reading.name, reading.allow_history_for_subscriber) = ("read".into(), true);
    let mut position = room.clone();
    (position.name, position.allow_positioning) = ("pos".into(), true);
    setup.channel.namespaces.extend([asking, reading, position]);
    let mut world = World::with(setup);
    for (channel, positioned, recoverable) in [
        ("room:a", false, false),
        ("ask:a", true, true),
        ("read:a", true, true),
        ("pos:a", true, false),
        ("plain", false, false),
    ] {
        for (asks_position, asks_recovery) in [(false, false), (true, false), (true, true)] {
            let client = world.connect(0);
            let request = json!({"channel": channel, "positioned": asks_position, "recoverable": asks_recovery});
            let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
            let result = &heard[0]["subscribe"];
            let has_recovery = recoverable && asks_recovery;
            // Recovery was not asked for by name, but whoever may recover may be positioned.
            let has_position = has_recovery
                || asks_position && (positioned && channel != "ask:a" || channel == "read:a");
            assert_eq!(
                result["recoverable"] == json!(true),
                has_recovery,
                "{request}"
            );
            assert_eq!(
                result["positioned"] == json!(true),
                has_position,
                "{request}"
            );
            assert_eq!(result["epoch"].is_string(), has_position, "{request}");
        }
    }
}

#[test]
fn without_subscribers_nothing_is_fed_and_old_feeds_are_for_nobody() {
    let mut world = World::new();
    let (client, publisher) = (world.connect(0), world.connect(1));
    let publish = r#"{"id":4,"publish":{"channel":"news","data":1}}"#;
    let unsubscribe = r#"{"id":3,"unsubscribe":{"channel":"news"}}"#;
    assert_eq!(subscribe(&mut world, client, json!({"channel": "news"})), 0);
    world.send_only(publisher, publish);
    world.send_only(client, unsubscribe);
    assert_eq!(
        world.workers[0].inbox.len(),
        1,
        "what was fed before stays in the mailbox"
    );
    world.send_only(publisher, publish);
    assert_eq!(world.workers[0].inbox.len(), 1, "the feed has ended");
    world.send_only(client, r#"{"id":5,"subscribe":{"channel":"news"}}"#);
    world.send_only(publisher, publish);
    world.heard(client);
    assert_eq!(world.workers[0].inbox.len(), 2);
    world.settle();
    assert_eq!(
        world.heard(client).len(),
        1,
        "only what was published since"
    );
    world.drop_connection(client);
    world.send_only(publisher, publish);
    assert_eq!(world.workers[0].inbox.len(), 0);
}

#[test]
fn what_is_imposed_needs_not_be_asked_for() {
    for (positioning, recovery) in [(false, false), (true, false), (false, true)] {
        let mut setup = Setup::default();
        let room = &mut setup.channel.namespaces[0];
        (room.force_positioning, room.force_recovery) = (positioning, recovery);
        let mut world = World::with(setup);
        let client = world.connect(0);
        let heard = world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
        let result = &heard[0]["subscribe"];
        assert_eq!(result["recoverable"] == json!(true), recovery, "{result}");
        assert_eq!(
            result["positioned"] == json!(true),
            positioning || recovery,
            "{result}"
        );
    }
}
