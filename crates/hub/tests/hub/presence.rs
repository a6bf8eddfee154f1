//! Who is there, who comes and who goes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Value, json};
use tautline_hub::engine::JoinLevel;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::{ApiPresence, PresenceList};
use tautline_protocol::message::Error;

use crate::support::{Client, Setup, World, sign_claims};

pub(crate) fn names(world: &mut World, client: Client) -> Vec<String> {
    let heard = world.tell(client, json!({"id": 8, "presence": {"channel": "room:a"}}));
    let answer = heard
        .iter()
        .find(|message| message["id"] == json!(8))
        .unwrap();
    let presence = answer["presence"]["presence"].as_object().unwrap();
    for (client, info) in presence {
        assert_eq!(info["client"], json!(client));
    }
    let mut names: Vec<String> = presence
        .values()
        .map(|info| info["user"].as_str().unwrap().to_owned())
        .collect();
    names.sort_unstable();
    names
}

/// Joins and leaves among what was heard, as `+user` and `-user`.
pub(crate) fn events(heard: &[Value]) -> Vec<String> {
    let event = |message: &Value| {
        let push = &message["push"];
        let user = |kind: &str| push[kind]["info"]["user"].as_str().map(str::to_owned);
        user("join")
            .map(|user| format!("+{user}"))
            .or_else(|| user("leave").map(|user| format!("-{user}")))
    };
    heard.iter().filter_map(event).collect()
}

pub(crate) fn join(world: &mut World, client: Client) -> Vec<Value> {
    world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}))
}

#[test]
fn presence_is_right_as_soon_as_the_reply_is_out() {
    let mut world = World::new();
    let (ann, bob) = (world.connect_as(0, "ann"), world.connect_as(1, "bob"));
    let ann_too = world.connect_as(1, "ann");
    for client in [ann, bob, ann_too] {
        join(&mut world, client);
    }
    assert_eq!(names(&mut world, ann), ["ann", "ann", "bob"]);
    world.heard(bob);
    let heard = world.tell(
        bob,
        json!({"id": 3, "presence_stats": {"channel": "room:a"}}),
    );
    let stats = json!({"num_clients": 3, "num_users": 2});
    assert_eq!(heard, [json!({"id": 3, "presence_stats": stats})]);
    world.send_only(bob, r#"{"id":4,"unsubscribe":{"channel":"room:a"}}"#);
    assert_eq!(names(&mut world, ann), ["ann", "ann"]);
    world.drop_connection(ann_too);
    assert_eq!(names(&mut world, ann), ["ann"]);
}

#[test]
fn joiners_hear_of_themselves_and_leavers_do_not() {
    let mut world = World::new();
    let (ann, bob) = (world.connect_as(0, "ann"), world.connect_as(1, "bob"));
    let heard = join(&mut world, ann);
    assert!(heard[0]["subscribe"].is_object(), "the reply comes first");
    assert_eq!(events(&heard), ["+ann"]);
    assert_eq!(events(&join(&mut world, bob)), ["+bob"]);
    assert_eq!(events(&world.heard(ann)), ["+bob"]);
    let heard = world.tell(bob, json!({"id": 3, "unsubscribe": {"channel": "room:a"}}));
    assert!(events(&heard).is_empty());
    join(&mut world, bob);
    world.drop_connection(bob);
    world.settle();
    assert_eq!(events(&world.heard(ann)), ["-bob", "+bob", "-bob"]);
}

#[test]
fn who_leaves_and_comes_back_does_not_hear_of_the_leaving() {
    let mut world = World::new();
    let (ann, bob) = (world.connect_as(0, "ann"), world.connect_as(0, "bob"));
    // Bob stays, so the worker's feed goes on.
    join(&mut world, bob);
    join(&mut world, ann);
    world.send(
        ann,
        "{\"id\":3,\"unsubscribe\":{\"channel\":\"room:a\"}}\n{\"id\":4,\"subscribe\":{\"channel\":\"room:a\"}}",
    );
    assert!(!events(&world.heard(ann)).contains(&"-ann".to_owned()));
    assert!(events(&world.heard(bob)).contains(&"-ann".to_owned()));
}

#[test]
fn joins_are_told_to_those_who_ask_and_may() {
    let mut setup = Setup::default();
    setup.channel.namespaces[0].force_push_join_leave = false;
    let mut world = World::with(setup);
    let (asks, asks_not) = (world.connect_as(0, "asks"), world.connect_as(0, "asks_not"));
    let request = json!({"channel": "room:a", "join_leave": true});
    world.tell(asks, json!({"id": 2, "subscribe": request}));
    join(&mut world, asks_not);
    let third = world.connect_as(1, "third");
    join(&mut world, third);
    assert_eq!(events(&world.heard(asks)), ["+asks_not", "+third"]);
    assert!(events(&world.heard(asks_not)).is_empty());

    let mut setup = Setup::default();
    let room = &mut setup.channel.namespaces[0];
    (
        room.force_push_join_leave,
        room.allow_presence_for_subscriber,
    ) = (false, false);
    let mut world = World::with(setup);
    let asks = world.connect_as(0, "asks");
    let heard = world.tell(asks, json!({"id": 2, "subscribe": request}));
    assert!(events(&heard).is_empty(), "may not read presence");
}

#[test]
fn presence_has_its_permissions() {
    let mut world = World::new();
    let client = world.connect(0);
    for (channel, code) in [
        ("room:a", 103),
        ("news", 108),
        ("nope:a", 102),
        ("caf\u{e9}", 107),
    ] {
        for command in ["presence", "presence_stats"] {
            let heard = world.tell(client, json!({"id": 3, command: {"channel": channel}}));
            assert_eq!(heard[0]["error"]["code"], json!(code), "{channel}");
        }
    }
    join(&mut world, client);
    assert_eq!(names(&mut world, client), [""]);
    world.send(client, r#"{"id":3,"presence":{}}"#);
    assert_eq!(world.closed(client), Some((3501, true)));
}

/// Asks as the operator does.
fn list(world: &mut World, request: ApiPresence) -> Result<PresenceList, Error> {
    let result = Rc::new(RefCell::new(None));
    let told = result.clone();
    let now = world.now;
    let request = ApiPresence {
        channel: "room:a".into(),
        ..request
    };
    world.workers[0]
        .hub
        .api_presence(now, request, move |answer| {
            told.replace(Some(answer));
        });
    world.settle();
    result.take().expect("answered")
}

/// So many are in `room:a`, all of them quiet.
fn crowd(setup: Setup, count: usize) -> (World, Client) {
    let mut setup = setup;
    let room = &mut setup.channel.namespaces[0];
    (room.join_leave, room.force_push_join_leave) = (false, false);
    let mut world = World::with(setup);
    let clients: Vec<Client> = (0..count)
        .map(|number| world.connect_as(number % 2, &format!("user {}", number / 2)))
        .collect();
    for client in &clients {
        join(&mut world, *client);
    }
    (world, clients[0])
}

#[test]
fn a_client_gets_all_or_is_told_that_they_are_too_many() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut setup = Setup {
            delays,
            ..Setup::default()
        };
        setup.client.presence_max_clients = 10;
        let (mut world, client) = crowd(setup, 10);
        assert_eq!(names(&mut world, client).len(), 10);
        let another = world.connect_as(0, "another");
        join(&mut world, another);
        let heard = world.tell(client, json!({"id": 9, "presence": {"channel": "room:a"}}));
        assert_eq!(heard[0]["error"]["code"], json!(106));
        let message = heard[0]["error"]["message"].as_str().unwrap();
        assert!(message.contains("11 clients") && message.contains("presence stats"));
        let heard = world.tell(
            client,
            json!({"id": 9, "presence_stats": {"channel": "room:a"}}),
        );
        assert_eq!(heard[0]["presence_stats"]["num_clients"], json!(11));
    }
}

#[test]
fn what_clients_attach_is_bounded_too() {
    let mut setup = Setup::default();
    setup.client.queue_max_size = 10_000;
    let mut world = World::with(setup);
    let large = sign_claims(&json!({"sub": "large", "info": "x".repeat(1500)}));
    let clients = [0, 1, 0, 1].map(|worker| world.connect_with(worker, &large));
    for client in &clients[..3] {
        join(&mut world, *client);
    }
    world.heard(clients[0]);
    assert_eq!(names(&mut world, clients[0]).len(), 3);
    join(&mut world, clients[3]);
    world.heard(clients[0]);
    let ask = json!({"id": 9, "presence": {"channel": "room:a"}});
    let heard = world.tell(clients[0], ask);
    assert_eq!(heard[0]["error"]["code"], json!(106), "{heard:?}");
}

#[test]
fn the_operator_reads_page_by_page_or_takes_a_sample() {
    for delays in [None, Some(DelayOptions::default())] {
        let setup = Setup {
            delays,
            ..Setup::default()
        };
        let (mut world, _) = crowd(setup, 50);
        let everybody = world.members("room:a");
        let all = list(&mut world, ApiPresence::default()).unwrap();
        assert_eq!(all.presence.len(), 50);
        assert_eq!(all.next, None);

        let mut seen = BTreeSet::new();
        let mut cursor = None;
        let mut pages = 0;
        loop {
            pages += 1;
            let request = ApiPresence {
                limit: Some(20),
                cursor,
                ..ApiPresence::default()
            };
            let page = list(&mut world, request).unwrap();
            assert_eq!((page.stats.num_clients, page.stats.num_users), (50, 25));
            for client in page.presence.keys() {
                assert!(seen.insert(client.to_string()), "{client} twice");
            }
            match page.next {
                Some(next) => cursor = Some(next.to_string()),
                None => break,
            }
        }
        assert_eq!((&seen, pages), (&everybody, 3));

        let mut sampled = BTreeSet::new();
        for _ in 0..200 {
            let request = ApiPresence {
                limit: Some(5),
                sample: true,
                ..ApiPresence::default()
            };
            let sample = list(&mut world, request).unwrap();
            assert_eq!((sample.presence.len(), sample.next), (5, None));
            sampled.extend(sample.presence.keys().map(ToString::to_string));
        }
        assert_eq!(sampled, everybody, "everybody has a chance");
    }
}

#[test]
fn pages_have_their_errors() {
    let (mut world, _) = crowd(Setup::default(), 2);
    let nobody = ApiPresence {
        limit: Some(0),
        ..ApiPresence::default()
    };
    let both = ApiPresence {
        sample: true,
        cursor: Some("x".into()),
        ..ApiPresence::default()
    };
    for request in [nobody, both] {
        assert_eq!(list(&mut world, request).unwrap_err().code, 107);
    }
    let beyond = ApiPresence {
        cursor: Some("~".into()),
        ..ApiPresence::default()
    };
    assert!(list(&mut world, beyond).unwrap().presence.is_empty());
}

#[test]
fn too_many_for_one_answer_to_the_operator() {
    let mut world = World::new();
    for number in 0..10_001 {
        let info = std::sync::Arc::new(tautline_protocol::message::ClientInfo {
            client: format!("{number:05}").into(),
            ..Default::default()
        });
        let ticket = tautline_hub::engine::Ticket {
            worker: tautline_hub::engine::WorkerId(0),
            serial: 0,
        };
        let channel = "room:a".into();
        let _ = world
            .memory
            .presence_add(world.now, ticket, &channel, &info);
    }
    let error = list(&mut world, ApiPresence::default()).unwrap_err();
    assert_eq!(error.code, 106);
    assert!(error.message.contains("10001 clients") && error.message.contains("cursor"));
    let request = ApiPresence {
        limit: Some(1_000_000),
        ..ApiPresence::default()
    };
    let page = list(&mut world, request).unwrap();
    assert_eq!(page.presence.len(), 10_000);
    assert_eq!(page.next.as_deref(), Some("09999"));
}

#[test]
fn where_joins_are_those_of_users_more_tabs_are_no_news() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut setup = Setup {
            delays,
            ..Setup::default()
        };
        setup.channel.namespaces[0].join_leave_level = JoinLevel::User;
        let mut world = World::with(setup);
        let watcher = world.connect_as(0, "eve");
        join(&mut world, watcher);
        world.heard(watcher);
        let tabs = [0, 1, 1].map(|worker| world.connect_as(worker, "ann"));
        let heard = join(&mut world, tabs[0]);
        assert_eq!(events(&heard), ["+ann"], "the first tab hears of itself");
        for tab in &tabs[1..] {
            let heard = join(&mut world, *tab);
            assert_eq!(events(&heard), [""; 0]);
        }
        assert_eq!(events(&world.heard(watcher)), ["+ann"]);
        assert_eq!(
            world.members("room:a").len(),
            4,
            "presence is of connections"
        );
        // By command, by a lost connection, by a last one.
        world.tell(
            tabs[0],
            json!({"id": 3, "unsubscribe": {"channel": "room:a"}}),
        );
        world.drop_connection(tabs[1]);
        world.settle();
        assert_eq!(events(&world.heard(watcher)), [""; 0]);
        world.drop_connection(tabs[2]);
        world.settle();
        assert_eq!(events(&world.heard(watcher)), ["-ann"]);
        join(&mut world, tabs[0]);
        assert_eq!(events(&world.heard(watcher)), ["+ann"], "anew");
        let nobodies = [0, 1].map(|worker| world.connect(worker));
        for nobody in nobodies {
            join(&mut world, nobody);
        }
        assert_eq!(events(&world.heard(watcher)), ["+", "+"]);
    }
}
