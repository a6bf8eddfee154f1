//! Publishing and fan-out.

use serde_json::{Value, json};

use crate::support::{Client, Setup, World};
use tautline_hub::config::{DataFormat, NamespaceOptions};

fn publish(world: &mut World, client: Client, channel: &str) -> u64 {
    let heard = world.tell(
        client,
        json!({"id": 9, "publish": {"channel": channel, "data": {}}}),
    );
    heard[0]["error"]["code"].as_u64().unwrap_or(0)
}

#[test]
fn a_publication_reaches_every_subscriber_with_who_sent_it() {
    let mut world = World::new();
    let (ann, bob) = (world.connect_as(0, "ann"), world.connect_as(1, "bob"));
    for client in [ann, bob] {
        world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    }
    world.heard(ann);
    let heard = world.tell(
        ann,
        json!({"id": 3, "publish": {"channel": "room:a", "data": {"x": 1}}}),
    );
    let push = &heard[1]["push"];
    assert_eq!(heard[0], json!({"id": 3, "publish": {}}));
    assert_eq!(push["channel"], json!("room:a"));
    assert_eq!(push["pub"]["data"], json!({"x": 1}));
    assert_eq!(push["pub"]["offset"], json!(1));
    assert_eq!(push["pub"]["info"]["user"], json!("ann"));
    assert!(push["pub"]["info"]["client"].is_string());
    let heard_by_bob = world.heard(bob);
    assert_eq!(heard_by_bob.last(), Some(&heard[1]));
}

#[test]
fn payloads_pass_unchanged() {
    let mut world = World::new();
    let client = world.connect(0);
    world.tell(client, json!({"id": 2, "subscribe": {"channel": "news"}}));
    for payload in [
        r#"{"b":1,"a":1.0,"a":1e400}"#,
        r#""\u00e9 \ud83d\ude00 </script>""#,
        "null",
        "[ 1,\t2 ]",
        "-0.10",
    ] {
        let frame = format!(r#"{{"id":3,"publish":{{"channel":"news","data":{payload}}}}}"#);
        world.send(client, &frame);
        let messages = world.workers[0].out.messages.remove(&client.id).unwrap();
        let push = std::str::from_utf8(&messages[1]).unwrap();
        assert!(
            push.contains(&format!(r#""data":{payload},"info""#)),
            "{push}"
        );
    }
}

#[test]
fn one_encoding_serves_all_subscribers_of_a_worker() {
    let mut world = World::new();
    let clients: Vec<Client> = (0..50).map(|index| world.connect(index % 2)).collect();
    for client in &clients {
        world.tell(*client, json!({"id": 2, "subscribe": {"channel": "news"}}));
    }
    world.tell(
        clients[0],
        json!({"id": 3, "publish": {"channel": "news", "data": 1}}),
    );
    for worker in &world.workers {
        assert_eq!(worker.out.prepared, 1);
    }
    for client in &clients[1..] {
        assert_eq!(world.heard(*client).len(), 1);
    }
    // Nobody is there: nothing is encoded.
    world.tell(
        clients[0],
        json!({"id": 3, "publish": {"channel": "other", "data": 1}}),
    );
    assert_eq!(
        world.workers[0].out.prepared + world.workers[1].out.prepared,
        2
    );
}

#[test]
fn permissions_and_names_are_checked() {
    let mut setup = Setup::default();
    let members = NamespaceOptions {
        name: "members".into(),
        allow_publish_for_subscriber: true,
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        ..NamespaceOptions::default()
    };
    setup.channel.namespaces.push(members);
    let mut world = World::with(setup);
    let (user, anonymous) = (world.connect_as(0, "7"), world.connect(0));
    assert_eq!(publish(&mut world, user, "nope:1"), 102);
    assert_eq!(publish(&mut world, user, &"x".repeat(256)), 107);
    assert_eq!(publish(&mut world, user, "vault:1"), 103);
    assert_eq!(publish(&mut world, user, "members:1"), 103);
    for client in [user, anonymous] {
        world.tell(
            client,
            json!({"id": 2, "subscribe": {"channel": "members:1"}}),
        );
    }
    assert_eq!(publish(&mut world, user, "members:1"), 0);
    assert_eq!(publish(&mut world, user, "members:2"), 103);
    world.heard(anonymous);
    assert_eq!(publish(&mut world, anonymous, "members:1"), 103);
    let heard = world.tell(user, json!({"id": 3, "publish": {"channel": "news"}}));
    assert_eq!(heard[0]["error"]["code"], json!(107), "no data");
    world.send(user, r#"{"id":4,"publish":{"data":1}}"#);
    assert_eq!(world.closed(user), Some((3501, true)));
}

#[test]
fn a_namespace_may_want_objects() {
    let mut setup = Setup::default();
    setup.channel.without_namespace.publication_data_format = DataFormat::JsonObject;
    let mut world = World::with(setup);
    let client = world.connect(0);
    for (data, code) in [
        ("{}", 0),
        (" {\"a\":1}", 0),
        ("[]", 107),
        ("1", 107),
        ("null", 107),
    ] {
        let frame = format!(r#"{{"id":3,"publish":{{"channel":"news","data":{data}}}}}"#);
        world.send(client, &frame);
        let heard = world.heard(client);
        assert_eq!(
            heard[0]["error"]["code"].as_u64().unwrap_or(0),
            code,
            "{data}"
        );
    }
}

#[test]
fn what_all_namespaces_want_is_said_once() {
    let mut setup = Setup::default();
    setup.channel.publication_data_format = DataFormat::JsonObject;
    let room = &mut setup.channel.namespaces[0];
    room.publication_data_format = DataFormat::Json;
    let mut world = World::with(setup);
    let client = world.connect(0);
    for (channel, code) in [("news", 107), ("room:a", 0)] {
        let request = json!({"channel": channel, "data": 1});
        let heard = world.tell(client, json!({"id": 3, "publish": request}));
        let found = heard[0]["error"]["code"].as_u64().unwrap_or(0);
        assert_eq!(found, code, "{channel}");
    }
}

#[test]
fn an_entry_of_a_map_is_refused() {
    let mut world = World::new();
    let client = world.connect(0);
    world.tell(client, json!({"id": 2, "subscribe": {"channel": "news"}}));
    for (publish, code) in [
        (
            json!({"channel": "news", "type": 1, "key": "k", "data": {}}),
            108,
        ),
        (
            json!({"channel": "news", "type": 1, "key": "k", "removed": true}),
            108,
        ),
    ] {
        let heard = world.tell(client, json!({"id": 3, "publish": publish}));
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0]["error"]["code"], json!(code));
    }
    // Any other type is a publication like all.
    let publish = json!({"channel": "news", "type": 2, "data": 1});
    let heard = world.tell(client, json!({"id": 3, "publish": publish}));
    assert!(
        heard.contains(&json!({"id": 3, "publish": {}})),
        "{heard:?}"
    );
    let is_push = |message: &Value| message["push"]["pub"]["data"] == json!(1);
    assert!(heard.iter().any(is_push), "{heard:?}");
}
