//! What tokens let their bearers do in channels.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Setup, World, sign_claims, token};

/// `vault` allows nothing to anybody; this one keeps and knows things, too.
fn setup() -> Setup {
    let mut setup = Setup::default();
    let mut safe = setup.channel.namespaces[1].clone();
    safe.name = "safe".into();
    safe.presence = true;
    safe.join_leave = true;
    safe.history_size = 10;
    safe.history_ttl = Duration::from_secs(60);
    safe.allow_user_limited_channels = true;
    setup.channel.namespaces.push(safe);
    setup
}

fn connect(world: &mut World, caps: Value) -> Client {
    let claims = json!({"sub": "42", "exp": 1_700_000_600, "caps": caps});
    world.connect_with(0, &sign_claims(&claims))
}

/// The code of the answer to a command; 0 for a result.
fn code(world: &mut World, client: Client, mut command: Value) -> u64 {
    command["id"] = json!(9);
    let heard = world.tell(client, command);
    let answer = heard.iter().find(|message| message["id"] == json!(9));
    answer.unwrap()["error"]["code"].as_u64().unwrap_or(0)
}

/// The codes of subscribing, publishing, reading presence and history, and unsubscribing again.
fn codes(world: &mut World, client: Client, channel: &str) -> [u64; 4] {
    let codes = [
        json!({"subscribe": {"channel": channel}}),
        json!({"publish": {"channel": channel, "data": 1}}),
        json!({"presence": {"channel": channel}}),
        json!({"history": {"channel": channel}}),
    ]
    .map(|command| code(world, client, command));
    code(world, client, json!({"unsubscribe": {"channel": channel}}));
    codes
}

#[test]
fn a_connection_may_do_what_its_token_says_of_the_channel_and_nothing_else() {
    let mut world = World::with(setup());
    let client = connect(
        &mut world,
        json!([
            {"channels": ["safe:a"], "allow": ["sub"]},
            {"channels": ["safe:b", "safe:a"], "allow": ["pub", "hst"]},
            {"channels": ["safe:c*"], "match": "wildcard", "allow": ["prs"]},
            {"channels": ["^safe:\\d+$"], "match": "regex", "allow": ["sub", "pub", "prs", "hst"]},
        ]),
    );
    for (channel, expected) in [
        ("safe:a", [0, 103, 103, 103]),
        ("safe:b", [103, 0, 103, 0]),
        ("safe:c1", [103, 103, 0, 103]),
        ("safe:42", [0, 0, 0, 0]),
        ("safe:d", [103; 4]),
    ] {
        assert_eq!(codes(&mut world, client, channel), expected, "{channel}");
    }
    let other = world.connect_as(0, "42");
    assert_eq!(
        codes(&mut world, other, "safe:42"),
        [103; 4],
        "another token"
    );
}

#[test]
fn what_the_namespace_allows_is_allowed_all_the_same() {
    let mut world = World::with(setup());
    let client = connect(&mut world, json!([{"channels": ["news"], "allow": []}]));
    let subscribe = json!({"subscribe": {"channel": "news"}});
    assert_eq!(code(&mut world, client, subscribe), 0);
}

#[test]
fn listed_channels_can_be_opened_and_private_ones_need_their_own_token() {
    let mut world = World::with(setup());
    let client = connect(
        &mut world,
        json!([{"channels": ["*"], "match": "wildcard", "allow": ["sub", "pub"]}]),
    );
    for (channel, expected) in [("safe:x#7", 0), ("$safe:x", 103), ("nope:x", 102)] {
        let subscribe = json!({"subscribe": {"channel": channel}});
        assert_eq!(code(&mut world, client, subscribe), expected, "{channel}");
    }
}

#[test]
fn history_and_presence_bring_what_subscribers_may_ask_for() {
    let mut world = World::with(setup());
    let rules = json!([
        {"channels": ["safe:all"], "allow": ["sub", "prs", "hst"]},
        {"channels": ["safe:none"], "allow": ["sub"]},
    ]);
    let client = connect(&mut world, rules);
    for (channel, is_granted) in [("safe:all", true), ("safe:none", false)] {
        let request = json!({"channel": channel, "recoverable": true, "join_leave": true});
        let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
        let result = &heard[0]["subscribe"];
        assert_eq!(
            result["recoverable"] == json!(true),
            is_granted,
            "{channel}"
        );
        let has_joined = heard
            .iter()
            .any(|message| message["push"]["join"].is_object());
        assert_eq!(has_joined, is_granted, "{channel}");
    }
}

#[test]
fn a_new_token_takes_away_what_it_does_not_allow() {
    let mut world = World::with(setup());
    let rules = json!([{"channels": ["safe:*"], "match": "wildcard", "allow": ["sub", "pub"]}]);
    let client = connect(&mut world, rules);
    for channel in ["safe:a", "safe:b", "news"] {
        assert_eq!(
            code(
                &mut world,
                client,
                json!({"subscribe": {"channel": channel}})
            ),
            0
        );
    }
    let ticket = crate::support::channel_token("42", "safe:c", None);
    let subscribe = json!({"subscribe": {"channel": "safe:c", "token": ticket}});
    assert_eq!(code(&mut world, client, subscribe), 0);
    let claims = json!({
        "sub": "42",
        "exp": 1_700_001_200,
        "caps": [{"channels": ["safe:b"], "allow": ["sub"]}],
    });
    let refresh = json!({"id": 3, "refresh": {"token": sign_claims(&claims)}});
    let heard = world.tell(client, refresh);
    let ended: Vec<&Value> = heard
        .iter()
        .filter(|message| message["push"]["unsubscribe"].is_object())
        .collect();
    assert_eq!(ended.len(), 1, "{heard:?}");
    assert_eq!(ended[0]["push"]["channel"], json!("safe:a"));
    assert_eq!(ended[0]["push"]["unsubscribe"]["code"], json!(2000));
    let publish = json!({"publish": {"channel": "safe:b", "data": 1}});
    assert_eq!(code(&mut world, client, publish), 103);
    // A token that says nothing allows nothing.
    let heard = world.tell(
        client,
        json!({"id": 4, "refresh": {"token": token("42", None)}}),
    );
    let ended = heard
        .iter()
        .filter(|message| message["push"]["unsubscribe"].is_object());
    assert_eq!(ended.count(), 1, "{heard:?}");
}

#[test]
fn a_subscription_token_allows_things_in_its_channel_for_as_long_as_it_says() {
    let mut world = World::with(setup());
    let client = world.connect_as(0, "42");
    let ticket = |allow: Value| {
        let claims = json!({"sub": "42", "channel": "safe:a", "allow": allow});
        sign_claims(&claims)
    };
    let request = json!({"channel": "safe:a", "token": ticket(json!(["pub", "prs"]))});
    assert_eq!(code(&mut world, client, json!({"subscribe": request})), 0);
    let ask = |world: &mut World| {
        [
            json!({"publish": {"channel": "safe:a", "data": 1}}),
            json!({"presence": {"channel": "safe:a"}}),
            json!({"history": {"channel": "safe:a"}}),
            json!({"publish": {"channel": "safe:b", "data": 1}}),
        ]
        .map(|command| code(world, client, command))
    };
    assert_eq!(ask(&mut world), [0, 0, 103, 103]);
    let request = json!({"channel": "safe:a", "token": ticket(json!(["hst"]))});
    assert_eq!(code(&mut world, client, json!({"sub_refresh": request})), 0);
    assert_eq!(ask(&mut world), [103, 103, 0, 103]);
    code(
        &mut world,
        client,
        json!({"unsubscribe": {"channel": "safe:a"}}),
    );
    assert_eq!(ask(&mut world), [103; 4]);
}

#[test]
fn a_connection_begins_with_what_its_token_allows() {
    let mut world = World::with(setup());
    let claims = json!({
        "sub": "42",
        "subs": {"safe:a": {"allow": ["pub"]}},
        "caps": [{"channels": ["safe:b"], "allow": ["sub"]}],
    });
    let client = world.open(0);
    let request = json!({"token": sign_claims(&claims), "subs": {"safe:b": {}, "safe:c": {}}});
    let heard = world.tell(client, json!({"id": 1, "connect": request}));
    let subs = heard[0]["connect"]["subs"].as_object().unwrap();
    assert_eq!(subs.keys().collect::<Vec<_>>(), ["safe:a", "safe:b"]);
    for (channel, expected) in [("safe:a", 0), ("safe:b", 103)] {
        let publish = json!({"publish": {"channel": channel, "data": 1}});
        assert_eq!(code(&mut world, client, publish), expected);
    }
}

#[test]
fn rules_that_can_not_be_read_make_a_token_invalid() {
    let mut world = World::with(setup());
    for caps in [
        json!({"channels": ["a"]}),
        json!([{"channels": "a"}]),
        json!([{"channels": ["("], "match": "regex"}]),
        json!([{"channels": ["a"], "match": "prefix"}]),
        json!(vec![json!({}); 101]),
    ] {
        let client = world.open(0);
        let claims = json!({"sub": "42", "caps": caps});
        world.tell(
            client,
            json!({"id": 1, "connect": {"token": sign_claims(&claims)}}),
        );
        assert_eq!(world.closed(client), Some((3500, true)), "{caps}");
    }
}

#[test]
fn channels_named_like_paths_are_for_those_who_stand_in_them() {
    let mut setup = setup();
    setup.channel.patterns = true;
    let mut orders = setup.channel.namespaces[1].clone();
    orders.name = "orders".into();
    orders.pattern =
        Some(tautline_hub::config::ChannelPattern::parse("/users/:user/orders").unwrap());
    orders.allow_user_limited_channels = true;
    setup.channel.namespaces.push(orders);
    let mut world = World::with(setup);
    let (client, nobody) = (world.connect_as(0, "42"), world.connect(0));
    for (channel, expected) in [
        ("/users/42/orders", [0, 103]),
        ("/users/43/orders", [103, 103]),
        ("/users/42/letters", [102, 102]),
    ] {
        let subscribe = json!({"subscribe": {"channel": channel}});
        let codes = [client, nobody].map(|client| code(&mut world, client, subscribe.clone()));
        assert_eq!(codes, expected, "{channel}");
    }
}
