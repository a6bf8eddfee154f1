//! What those are told who follow somebody.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;
use tautline_hub::config::{DataFormat, NamespaceOptions};
use tautline_hub::rate::Rate;
use tautline_hub::trace::{Follow, Step, TraceEvent, TraceId};
use tautline_protocol::Reply;

use crate::support::{Setup, World, token};

/// What was told, each in a line.
type Told = Rc<RefCell<Vec<String>>>;

fn line(event: &TraceEvent<'_>) -> String {
    let what = match &event.step {
        Step::Command { number, request } => {
            let name = match request {
                Some(request) => format!("{request:?}"),
                None => "pong".to_owned(),
            };
            let end = name.find('(').unwrap_or(name.len());
            format!("> {} #{number}", &name[..end])
        }
        Step::Unreadable(_) => "> unreadable".to_owned(),
        Step::OverLimit { why } => format!("~ {why}"),
        Step::Refused { told, why, .. } => format!("! {told} ({})", why.unwrap_or("?")),
        Step::Reply(Reply::Answer(number, Ok(_))) => format!("< #{number}"),
        Step::Reply(Reply::Answer(number, Err(error))) => format!("< #{number} {}", error.code),
        Step::Reply(Reply::Ping) => "< ping".to_owned(),
        Step::Reply(Reply::Push(push)) => {
            let name = format!("{push:?}");
            let end = name.find('(').unwrap_or(name.len());
            format!("< {}", &name[..end])
        }
        Step::Publications {
            publications,
            receivers,
        } => {
            let offsets = publications.iter().map(|one| one.offset.to_string());
            let offsets: Vec<_> = offsets.collect();
            format!("< publications {} for {receivers}", offsets.join(","))
        }
        Step::Parked { offset } => format!("- parked at {offset}"),
        Step::CaughtUp => "- caught up".to_owned(),
        Step::Ended(disconnect) => format!("- ended {}", disconnect.code),
        other => format!("{other:?}"),
    };
    let (user, channel) = (event.user, event.channel.unwrap_or(""));
    format!("{user}|{channel}|{what}")
}

fn follow(world: &mut World, worker: usize, follow: Follow) -> (Told, TraceId) {
    let told = Told::default();
    let sink = Rc::clone(&told);
    let hub = &mut world.workers[worker].hub;
    let id = hub.trace(follow, move |event| sink.borrow_mut().push(line(event)));
    (told, id)
}

fn take(told: &Told) -> Vec<String> {
    std::mem::take(&mut told.borrow_mut())
}

#[test]
fn a_user_is_followed_from_the_first_reply_to_the_end() {
    let mut world = World::new();
    let (told, id) = follow(&mut world, 0, Follow::User("ann".into()));
    let ann = world.connect_as(0, "ann");
    let bob = world.connect_as(0, "bob");
    for client in [ann, bob] {
        world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    }
    let publish = json!({"id": 3, "publish": {"channel": "room:a", "data": {"secret": 1}}});
    world.tell(bob, publish);
    world.tell(
        ann,
        json!({"id": 4, "publish": {"channel": "vault:a", "data": 1}}),
    );
    world.send(ann, "{}");
    world.drop_connection(ann);
    let closed = world.closed(ann);
    let expected = [
        "ann||< #1",
        "ann|room:a|> Subscribe #2",
        "ann|room:a|< #2",
        "ann|room:a|< Join",
        "ann|room:a|< Join",
        "ann|room:a|< publications 1 for 1",
        "ann|vault:a|> Publish #4",
        "ann|vault:a|! error 103: permission denied (neither the namespace's allow_... options nor a token allow it)",
        "ann|vault:a|< #4 103",
    ];
    let all = take(&told);
    assert_eq!(all[..expected.len()], expected, "{closed:?}");
    assert_eq!(all[expected.len()], "ann||> pong #0");
    assert!(all.last().unwrap().starts_with("ann||- ended"), "{all:?}");
    world.workers[0].hub.end_trace(id);
    world.connect_as(0, "ann");
    assert_eq!(take(&told), Vec::<String>::new());
}

#[test]
fn a_channel_is_told_of_once_for_all() {
    let mut world = World::new();
    let (told, _) = follow(&mut world, 0, Follow::Channel("room:a".into()));
    let (ann, bob) = (world.connect_as(0, "ann"), world.connect_as(0, "bob"));
    world.tell(ann, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    world.tell(ann, json!({"id": 3, "subscribe": {"channel": "room:b"}}));
    take(&told);
    world.tell(bob, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    world.tell(
        bob,
        json!({"id": 3, "publish": {"channel": "room:a", "data": 1}}),
    );
    let expected = [
        "bob|room:a|> Subscribe #2",
        "bob|room:a|< #2",
        "|room:a|< Join",
        "bob|room:a|> Publish #3",
        "bob|room:a|< #3",
        "|room:a|< publications 1 for 2",
    ];
    assert_eq!(take(&told), expected);
}

#[test]
fn refusals_are_told_with_their_reason_whoever_it_was() {
    let mut setup = Setup::default();
    setup.client.allow_anonymous_connect_without_token = false;
    let mut world = World::with(setup);
    let (told, _) = follow(&mut world, 0, Follow::Refusals);
    for connect in [
        json!({}),
        json!({"token": "x.y.z"}),
        json!({"token": token("ann", Some(0))}),
    ] {
        let client = world.open(0);
        world.tell(client, json!({"id": 1, "connect": connect}));
    }
    let reasons: Vec<String> = take(&told)
        .into_iter()
        .filter(|line| line.contains('!'))
        .collect();
    assert_eq!(
        reasons[0],
        "||! disconnect 3501: bad request \
         (there is no token, and client.allow_anonymous_connect_without_token is off)"
    );
    assert!(
        reasons[1].starts_with(
            "||! disconnect 3500: invalid token (invalid token: the token is not a JWT"
        ),
        "{reasons:?}"
    );
    assert_eq!(
        reasons[2],
        "||! error 109: token expired (the token has expired)"
    );

    let ann = world.connect_as(0, "ann");
    world.tell(ann, json!({"id": 5, "subscribe": {"channel": "own:x#bob"}}));
    world.tell(ann, json!({"id": 6, "subscribe": {"channel": "$own:x"}}));
    let expected = [
        "ann|own:x#bob|! error 103: permission denied (the users in the channel's name are others)",
        "ann|$own:x|! error 103: permission denied \
         (the channel's name begins with the private prefix: it takes a subscription token)",
    ];
    assert_eq!(take(&told), expected);
    world.send(ann, "nonsense");
    let expected = ["ann||> unreadable", "ann||- ended 3501"];
    assert_eq!(take(&told), expected);
}

#[test]
fn a_connection_is_followed_by_its_id_and_no_other() {
    let mut world = World::new();
    let ann = world.open(0);
    let connect = json!({"id": 1, "connect": {"token": token("ann", None)}});
    let reply = world.tell(ann, connect);
    let id = reply[0]["connect"]["client"].as_str().unwrap().to_owned();
    let other = world.connect_as(0, "ann");
    let (told, _) = follow(&mut world, 0, Follow::Client(id));
    for client in [ann, other] {
        world.tell(client, json!({"id": 2, "subscribe": {"channel": "news"}}));
    }
    assert_eq!(take(&told), ["ann|news|> Subscribe #2", "ann|news|< #2"]);
}

fn rate(text: &str) -> Option<Rate> {
    Some(Rate::parse(text).unwrap())
}

/// What is said of the refusal of each command, which a client that is connected sends once more than it may.
#[test]
fn each_rule_is_told_by_its_name() {
    let mut setup = Setup::default();
    let namespace = |setup: &mut Setup, name: &str, change: fn(&mut NamespaceOptions)| {
        let mut options = NamespaceOptions {
            name: name.to_owned(),
            allow_subscribe_for_client: true,
            allow_publish_for_client: true,
            ..NamespaceOptions::default()
        };
        change(&mut options);
        setup.channel.namespaces.push(options);
    };
    namespace(&mut setup, "mine", |options| {
        options.publish_rate_for_client = rate("1/h");
    });
    namespace(&mut setup, "all", |options| {
        options.publish_rate_for_channel = rate("1/h");
    });
    namespace(&mut setup, "tried", |options| {
        options.publish_rate_for_channel = rate("1/h");
        options.rates_dry_run = true;
    });
    namespace(&mut setup, "object", |options| {
        options.publication_data_format = DataFormat::JsonObject;
    });
    setup.client.rate_limit.client_command.presence_stats = rate("1/h");
    setup.client.rate_limit.user_command.enabled = true;
    setup.client.rate_limit.user_command.history = rate("1/h");
    let mut world = World::with(setup);
    let ann = world.connect_as(0, "ann");
    let (told, _) = follow(&mut world, 0, Follow::Refusals);
    let publish = |channel: &str| json!({"id": 2, "publish": {"channel": channel, "data": 1}});
    let long = "x".repeat(300);
    for (command, times, expected) in [
        (
            publish("mine:a"),
            2,
            "ann|mine:a|! error 111: too many requests: more often than the namespace's publish_rate_for_client allows (1/h); try again later (more often than the namespace's publish_rate_for_client allows (1/h); try again later)",
        ),
        (
            publish("all:a"),
            2,
            "ann|all:a|! error 111: too many requests: more often than the namespace's publish_rate_for_channel allows (1/h); try again later (more often than the namespace's publish_rate_for_channel allows (1/h); try again later)",
        ),
        (
            publish("tried:a"),
            2,
            "ann|tried:a|~ more often than the namespace's publish_rate_for_channel allows (1/h); try again later",
        ),
        (
            json!({"id": 2, "presence_stats": {"channel": "mine:a"}}),
            2,
            "ann|mine:a|! error 111: too many requests: more often than client.rate_limit.client_command.presence_stats allows (1/h); try again later (more often than client.rate_limit.client_command.presence_stats allows (1/h); try again later)",
        ),
        (
            json!({"id": 2, "history": {"channel": "mine:a"}}),
            2,
            "ann|mine:a|! error 111: too many requests: more often than client.rate_limit.user_command.history allows (1/h); try again later (more often than client.rate_limit.user_command.history allows (1/h); try again later)",
        ),
        (
            publish("nope:a"),
            1,
            "ann|nope:a|! error 102: unknown channel (no namespace is that of the channel's name)",
        ),
        (
            publish("object:a"),
            1,
            "ann|object:a|! error 107: bad request: the namespace wants data that is a JSON object (publication_data_format) (?)",
        ),
        (
            json!({"id": 2, "subscribe": {"channel": "mine:a", "tf": {"op": "eq"}}}),
            1,
            "ann|mine:a|! error 107: bad request: the namespace takes no tags filters (allow_tags_filter) (?)",
        ),
        (
            json!({"id": 2, "subscribe": {"channel": "mine:a", "type": 7}}),
            1,
            "ann|mine:a|! error 107: bad request: there is no subscription of type 7 (?)",
        ),
        (
            publish(&long),
            1,
            &format!(
                "ann|{long}|! error 107: bad request: the channel's name has 300 bytes, at most 255 are allowed \
                      (channel.max_length) (the channel's name has 300 bytes, at most 255 are allowed (channel.max_length))"
            ),
        ),
    ] {
        for _ in 0..times {
            world.tell(ann, command.clone());
        }
        let all = take(&told);
        assert_eq!(
            all.last().map(String::as_str),
            Some(expected),
            "{command}: {all:?}"
        );
    }
    // What ends the connection.
    world.send(ann, "{}");
    let all = take(&told);
    assert_eq!(
        all[0],
        "ann||! disconnect 3501: bad request (it answers a ping that was not sent)"
    );
    let ends = |world: &mut World, command: serde_json::Value| {
        let client = world.connect_as(0, "ann");
        world.tell(client, command);
        take(&told).swap_remove(0)
    };
    let twice = json!({"id": 2, "connect": {}});
    assert_eq!(
        ends(&mut world, twice),
        "ann||! disconnect 3501: bad request (it is connected already)"
    );
    let nowhere = json!({"id": 2, "unsubscribe": {"channel": ""}});
    assert_eq!(
        ends(&mut world, nowhere),
        "ann||! disconnect 3501: bad request (the channel's name is missing or empty)"
    );
    let client = world.open(0);
    world.tell(
        client,
        json!({"id": 1, "publish": {"channel": "a", "data": 1}}),
    );
    assert_eq!(
        take(&told)[0],
        "|a|! disconnect 3501: bad request (the first command has to be connect, with an id)"
    );
}

/// What is tried out is told to those who follow the user, the channel, or refusals, and costs nobody anything.
#[test]
fn limits_that_are_tried_out_are_told() {
    let mut setup = Setup::default();
    setup.client.rate_limit.client_command.total = rate("1/h");
    setup.client.rate_limit.client_command.dry_run = true;
    setup.client.rate_limit.user_command.enabled = true;
    setup.client.rate_limit.user_command.connect = rate("1/h");
    setup.client.rate_limit.user_command.dry_run = true;
    setup.client.channel_limit = 1;
    let mut world = World::with(setup);
    world.connect_as(0, "ann");
    let (told, _) = follow(&mut world, 0, Follow::Refusals);
    let ann = world.connect_as(0, "ann");
    assert_eq!(
        take(&told),
        [
            "||~ more often than client.rate_limit.user_command.connect allows (1/h); try again later"
        ]
    );
    for id in 2..6 {
        world.tell(
            ann,
            json!({"id": id, "publish": {"channel": "room:a", "data": 1}}),
        );
    }
    let over = "ann||~ more often than client.rate_limit.client_command.total allows (1/h, burst 2); try again later";
    assert_eq!(take(&told).last().map(String::as_str), Some(over));
}
