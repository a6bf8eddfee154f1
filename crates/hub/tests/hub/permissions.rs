//! Who may do what, by each of a namespace's `allow_…` options: all of them that there can be, by commands.

use serde_json::{Value, json};
use tautline_hub::config::NamespaceOptions;

use crate::support::{Client, Setup, World};

/// What a namespace says of one thing that clients do.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    for_client: bool,
    for_subscriber: bool,
    for_anonymous: bool,
}

impl Allowed {
    fn all() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self {
            for_client: bits & 1 != 0,
            for_subscriber: bits & 2 != 0,
            for_anonymous: bits & 4 != 0,
        })
    }
}

/// A client in a world in which all that is said of a namespace is what `set` says.
fn client(is_anonymous: bool, set: impl FnOnce(&mut NamespaceOptions)) -> (World, Client) {
    let mut setup = Setup::default();
    let mut options = NamespaceOptions {
        name: "rules".into(),
        history_size: 1,
        history_ttl: std::time::Duration::from_secs(60),
        presence: true,
        ..NamespaceOptions::default()
    };
    set(&mut options);
    setup.channel.namespaces.push(options);
    let mut world = World::with(setup);
    let client = match is_anonymous {
        true => world.connect(0),
        false => world.connect_as(0, "42"),
    };
    (world, client)
}

/// Whether it may; nothing else is in the way.
fn may(world: &mut World, client: Client, command: &str, mut request: Value) -> bool {
    if request["channel"].is_null() {
        request["channel"] = json!("rules:a");
    }
    let heard = world.tell(client, json!({"id": 7, command: request}));
    let reply = heard.iter().find(|message| message["id"] == json!(7));
    match reply.unwrap()["error"]["code"].as_u64() {
        None => true,
        Some(103) => false,
        Some(other) => panic!("{command}: {other}"),
    }
}

#[test]
fn who_may_subscribe_is_what_the_options_say() {
    for allowed in Allowed::all().filter(|allowed| !allowed.for_subscriber) {
        for is_anonymous in [false, true] {
            let (mut world, client) = client(is_anonymous, |options| {
                options.allow_subscribe_for_client = allowed.for_client;
                options.allow_subscribe_for_anonymous = allowed.for_anonymous;
            });
            let expected = allowed.for_client && (allowed.for_anonymous || !is_anonymous);
            let found = may(&mut world, client, "subscribe", json!({}));
            assert_eq!(found, expected, "{allowed:?}, anonymous: {is_anonymous}");
        }
    }
}

/// Where names list no users, what stands behind the `#` neither lets anybody in nor keeps anybody out.
#[test]
fn whether_names_list_users_is_what_the_options_say() {
    for (lists_users, for_client) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut setup = Setup::default();
        setup.channel.without_namespace = NamespaceOptions {
            allow_user_limited_channels: lists_users,
            allow_subscribe_for_client: for_client,
            ..NamespaceOptions::default()
        };
        let mut world = World::with(setup);
        let client = world.connect_as(0, "42");
        for (channel, is_listed) in [("a#42", true), ("a#43", false)] {
            let expected = if lists_users { is_listed } else { for_client };
            let found = may(&mut world, client, "subscribe", json!({"channel": channel}));
            assert_eq!(found, expected, "{channel}: {lists_users}, {for_client}");
        }
    }
}

type Set = fn(&mut NamespaceOptions, Allowed);

#[test]
fn who_may_publish_and_read_is_what_the_options_say() {
    let publish: Set = |options, allowed| {
        options.allow_publish_for_client = allowed.for_client;
        options.allow_publish_for_subscriber = allowed.for_subscriber;
        options.allow_publish_for_anonymous = allowed.for_anonymous;
    };
    let presence: Set = |options, allowed| {
        options.allow_presence_for_client = allowed.for_client;
        options.allow_presence_for_subscriber = allowed.for_subscriber;
        options.allow_presence_for_anonymous = allowed.for_anonymous;
    };
    let history: Set = |options, allowed| {
        options.allow_history_for_client = allowed.for_client;
        options.allow_history_for_subscriber = allowed.for_subscriber;
        options.allow_history_for_anonymous = allowed.for_anonymous;
    };
    for (command, request, set) in [
        ("publish", json!({"data": 1}), publish),
        ("presence", json!({}), presence),
        ("presence_stats", json!({}), presence),
        ("history", json!({}), history),
    ] {
        for allowed in Allowed::all() {
            for (is_anonymous, is_subscribed) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let (mut world, client) = client(is_anonymous, |options| {
                    options.allow_subscribe_for_client = true;
                    options.allow_subscribe_for_anonymous = true;
                    set(options, allowed);
                });
                if is_subscribed {
                    assert!(may(&mut world, client, "subscribe", json!({})));
                }
                let by_role = allowed.for_client || allowed.for_subscriber && is_subscribed;
                let expected = by_role && (allowed.for_anonymous || !is_anonymous);
                assert_eq!(
                    may(&mut world, client, command, request.clone()),
                    expected,
                    "{command}: {allowed:?}, anonymous: {is_anonymous}, subscribed: {is_subscribed}"
                );
            }
        }
    }
}
