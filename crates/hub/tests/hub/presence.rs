//! Who is there, who comes and who goes.

use serde_json::{Value, json};

use crate::support::{Client, Setup, World};

fn names(world: &mut World, client: Client) -> Vec<String> {
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
fn events(heard: &[Value]) -> Vec<String> {
    let event = |message: &Value| {
        let push = &message["push"];
        let user = |kind: &str| push[kind]["info"]["user"].as_str().map(str::to_owned);
        user("join")
            .map(|user| format!("+{user}"))
            .or_else(|| user("leave").map(|user| format!("-{user}")))
    };
    heard.iter().filter_map(event).collect()
}

fn join(world: &mut World, client: Client) -> Vec<Value> {
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
