//! What an operator's backend does to connections.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Value, json};
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::{ApiPublish, ApiRefresh, ApiSubscribe, Target};
use tautline_protocol::Disconnect;
use tautline_protocol::message::{StreamPosition, Unsubscribe};

use crate::support::{Client, START, Setup, Worker, World};

fn user(user: &str) -> Target {
    Target {
        user: Some(user.into()),
        ..Target::default()
    }
}

fn client_of(world: &mut World, worker: usize, user: &str) -> (Client, String) {
    let client = world.open(worker);
    let token = crate::support::token(user, None);
    let heard = world.tell(client, json!({"id": 1, "connect": {"token": token}}));
    let id = heard[0]["connect"]["client"].as_str().unwrap().to_owned();
    (client, id)
}

fn disconnect(world: &mut World, target: &Target, spared: &[String]) {
    let custom = Disconnect {
        code: 4501,
        reason: "signed out".into(),
    };
    let now = world.now;
    for Worker { hub, out, .. } in &mut world.workers {
        hub.api_disconnect(now, target, spared, &custom, out);
    }
    world.settle();
}

fn unsubscribe(world: &mut World, target: &Target, channel: &str, code: u32) {
    let unsubscribe = Unsubscribe {
        code,
        reason: "for a reason".into(),
    };
    let now = world.now;
    for Worker { hub, out, .. } in &mut world.workers {
        hub.api_unsubscribe(now, target, channel, &unsubscribe, out)
            .unwrap();
    }
}

/// Starts it on all workers; the results come into the list.
fn start_subscribe(
    world: &mut World,
    target: &Target,
    request: &ApiSubscribe,
) -> Rc<RefCell<Vec<u32>>> {
    let results: Rc<RefCell<Vec<u32>>> = Rc::default();
    let now = world.now;
    for Worker { hub, out, .. } in &mut world.workers {
        let results = results.clone();
        let done = move |result: Result<(), tautline_protocol::message::Error>| {
            let code = result.err().map_or(0, |error| error.code);
            results.borrow_mut().push(code);
        };
        hub.api_subscribe(now, target, request.clone(), done, out);
    }
    results
}

fn subscribe(world: &mut World, target: &Target, request: &ApiSubscribe) -> u32 {
    let results = start_subscribe(world, target, request);
    world.settle();
    let results = results.borrow();
    assert_eq!(results.len(), world.workers.len(), "each answers once");
    results.iter().copied().max().unwrap()
}

fn refresh(world: &mut World, target: &Target, request: &ApiRefresh) {
    let now = world.now;
    for Worker { hub, out, .. } in &mut world.workers {
        hub.api_refresh(now, target, request, out).unwrap();
    }
    world.settle();
}

fn publish(world: &mut World, channel: &str, data: u64) -> StreamPosition {
    let position: Rc<RefCell<StreamPosition>> = Rc::default();
    let known = position.clone();
    let request = ApiPublish {
        channel: channel.into(),
        data: data.to_string().into(),
        ..ApiPublish::default()
    };
    let now = world.now;
    world.workers[0].hub.api_publish(now, request, move |done| {
        *known.borrow_mut() = done.unwrap().position.unwrap_or_default();
    });
    world.settle();
    position.take()
}

fn to(channel: &str) -> ApiSubscribe {
    ApiSubscribe {
        channel: channel.into(),
        ..ApiSubscribe::default()
    }
}

/// Time may pass without anybody answering.
fn without_pings() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = std::time::Duration::ZERO;
    setup
}

fn delays() -> [Option<DelayOptions>; 2] {
    [None, Some(DelayOptions::default())]
}

#[test]
fn a_users_connections_are_ended_but_for_those_to_be_spared() {
    let mut world = World::new();
    let (first, _) = client_of(&mut world, 0, "ann");
    let (second, second_id) = client_of(&mut world, 1, "ann");
    let (third, _) = client_of(&mut world, 1, "ann");
    let (other, other_id) = client_of(&mut world, 1, "bob");
    let anonymous = world.connect(0);
    // Not connected: nobody's.
    let silent = world.open(0);

    disconnect(&mut world, &user("ann"), &[second_id, "nobody".into()]);
    assert_eq!(world.closed(first), Some((4501, true)));
    assert_eq!(world.closed(third), Some((4501, true)));
    for stays in [second, other, anonymous, silent] {
        assert_eq!(world.closed(stays), None);
    }

    let target = |user: Option<&str>, client: &str| Target {
        user: user.map(Into::into),
        client: Some(client.into()),
        session: None,
    };
    // The connection is somebody else's.
    disconnect(&mut world, &target(Some("ann"), &other_id), &[]);
    disconnect(&mut world, &target(Some(""), &other_id), &[]);
    disconnect(&mut world, &Target::default(), &[]);
    let session = Target {
        session: Some("secret".into()),
        ..user("bob")
    };
    disconnect(&mut world, &session, &[]);
    assert_eq!(world.closed(other), None);
    disconnect(&mut world, &target(None, &other_id), &[]);
    assert_eq!(world.closed(other), Some((4501, true)));
    disconnect(&mut world, &user(""), &[]);
    assert_eq!(world.closed(anonymous), Some((4501, true)));
    assert_eq!(world.closed(second), None);
}

/// The list of a user's connections is right whatever order they come and go in.
/// SDKs take an end for final only if it has a reason, and one that is JSON for something else.
#[test]
fn an_end_is_put_so_that_clients_believe_it() {
    for (said, told) in [
        ("", "disconnect"),
        (" ", "disconnect"),
        ("true", "disconnect: true"),
        ("{}", "disconnect: {}"),
        ("\"bye\"", "disconnect: \"bye\""),
        ("bye", "bye"),
        ("404 days", "404 days"),
    ] {
        let mut world = World::new();
        let client = world.connect(0);
        let disconnect = Disconnect {
            code: 4501,
            reason: said.to_owned().into(),
        };
        let now = world.now;
        let worker = &mut world.workers[0];
        worker
            .hub
            .disconnect(now, client.id, disconnect, &mut worker.out);
        let (end, _) = &worker.out.closed[&client.id];
        assert_eq!((end.code, &*end.reason), (4501, told), "{said:?}");
    }
}

#[test]
fn users_are_found_however_their_connections_came_and_went() {
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut world = World::with(Setup {
        workers: 1,
        ..Setup::default()
    });
    let mut here: Vec<(Client, usize)> = Vec::new();
    for round in 0..400 {
        match random(8) {
            0..4 => {
                let who = random(3);
                here.push((world.connect_as(0, &format!("user{who}")), who));
            }
            4..7 if !here.is_empty() => {
                let (gone, _) = here.swap_remove(random(here.len()));
                world.drop_connection(gone);
            }
            _ => {
                let who = random(3);
                disconnect(&mut world, &user(&format!("user{who}")), &[]);
                let (ended, stay): (Vec<_>, Vec<_>) =
                    here.into_iter().partition(|(_, user)| *user == who);
                for (client, _) in ended {
                    assert_eq!(world.closed(client), Some((4501, true)), "round {round}");
                }
                here = stay;
            }
        }
        for (client, _) in &here {
            assert_eq!(world.closed(*client), None, "round {round}");
        }
        let users: BTreeSet<usize> = here.iter().map(|(_, user)| *user).collect();
        let stats = world.workers[0].hub.stats();
        assert_eq!((stats.clients, stats.users), (here.len(), users.len()));
        // What was closed is of no interest any more, and its place is used again.
        world.workers[0].out.closed.clear();
    }
}

#[test]
fn subscriptions_of_either_kind_are_ended_with_a_push() {
    for delays in delays() {
        let mut world = World::with(Setup {
            delays,
            ..Setup::default()
        });
        let (ann, _) = client_of(&mut world, 0, "ann");
        let (bob, _) = client_of(&mut world, 0, "bob");
        for client in [ann, bob] {
            world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
        }
        assert_eq!(subscribe(&mut world, &user("ann"), &to("room:b")), 0);
        world.heard(ann);
        world.heard(bob);
        for (channel, code) in [("room:a", 2000), ("room:b", 2500)] {
            unsubscribe(&mut world, &user("ann"), channel, code);
            world.settle();
            let push = json!({"code": code, "reason": "for a reason"});
            let expected = json!({"push": {"channel": channel, "unsubscribe": push}});
            assert_eq!(world.heard(ann), [expected]);
            // Once: she isn't subscribed any more.
            unsubscribe(&mut world, &user("ann"), channel, code);
            assert_eq!(world.heard(ann), [Value::Null; 0]);
        }
        assert_eq!(world.members("room:a").len(), 1, "bob is there still");
        assert!(world.members("room:b").is_empty());
        let heard = world.heard(bob);
        assert!(heard[0]["push"]["leave"].is_object(), "{heard:?}");
        assert_eq!(heard.len(), 1);
        unsubscribe(&mut world, &user("ann"), "room:nobody", 2000);
        let now = world.now;
        let Worker { hub, out, .. } = &mut world.workers[0];
        for (channel, code) in [("nope:1", 102), ("", 107)] {
            let nothing = tautline_protocol::UnsubscribeCode::Server.into();
            let refused = hub.api_unsubscribe(now, &user("ann"), channel, &nothing, out);
            assert_eq!(refused.unwrap_err().code, code);
        }
    }
}

#[test]
fn a_pushed_subscription_begins_where_the_stream_is() {
    for delays in delays() {
        let mut world = World::with(Setup {
            delays,
            ..Setup::default()
        });
        let (ann, _) = client_of(&mut world, 0, "ann");
        let (elsewhere, _) = client_of(&mut world, 1, "ann");
        let (bob, _) = client_of(&mut world, 1, "bob");
        let top = publish(&mut world, "room:a", 1);
        let request = ApiSubscribe {
            data: Some(r#"{"welcome":true}"#.into()),
            info: Some(r#""vip""#.into()),
            ..to("room:a")
        };
        assert_eq!(subscribe(&mut world, &user("ann"), &request), 0);
        publish(&mut world, "room:a", 2);
        for client in [ann, elsewhere] {
            let heard = world.heard(client);
            let expected = json!({"recoverable": true, "positioned": true, "epoch": &*top.epoch,
                "offset": 1, "data": {"welcome": true}});
            assert_eq!(
                heard[0],
                json!({"push": {"channel": "room:a", "subscribe": expected}})
            );
            let joined = &heard[1]["push"]["join"]["info"];
            assert_eq!(joined["chan_info"], json!("vip"), "{heard:?}");
            let last = &heard[heard.len() - 1];
            assert_eq!(last["push"]["pub"]["offset"], json!(2));
        }
        assert_eq!(world.heard(bob), [Value::Null; 0]);
        assert_eq!(world.members("room:a").len(), 2);
        // Again is the same as once.
        assert_eq!(subscribe(&mut world, &user("ann"), &request), 0);
        assert_eq!(world.heard(ann), [Value::Null; 0]);
    }
}

#[test]
fn a_pushed_subscription_brings_what_was_missed_and_all_behind_it() {
    for delays in delays() {
        let mut world = World::with(Setup {
            delays,
            ..Setup::default()
        });
        let (ann, _) = client_of(&mut world, 1, "ann");
        let since = publish(&mut world, "room:a", 1);
        publish(&mut world, "room:a", 2);
        publish(&mut world, "room:a", 3);
        let request = ApiSubscribe {
            recover_since: Some(since.clone()),
            ..to("room:a")
        };
        assert_eq!(subscribe(&mut world, &user("ann"), &request), 0);
        publish(&mut world, "room:a", 4);
        let heard = world.heard(ann);
        assert_eq!(heard[0]["push"]["subscribe"]["offset"], json!(1));
        let came: Vec<_> = heard
            .iter()
            .filter_map(|message| message["push"]["pub"]["data"].as_u64())
            .collect();
        assert_eq!(came, [2, 3, 4]);

        // A position that is nothing to this stream: it begins at the top.
        unsubscribe(&mut world, &user("ann"), "room:a", 2000);
        world.settle();
        world.heard(ann);
        let request = ApiSubscribe {
            recover_since: Some(StreamPosition {
                offset: 1,
                epoch: "another".into(),
            }),
            ..to("room:a")
        };
        assert_eq!(subscribe(&mut world, &user("ann"), &request), 0);
        let heard = world.heard(ann);
        assert_eq!(heard[0]["push"]["subscribe"]["offset"], json!(4));
        assert!(heard.iter().all(|message| message["push"]["pub"].is_null()));
    }
}

#[test]
fn what_can_not_be_subscribed_to_is_refused() {
    let mut world = World::new();
    let (ann, _) = client_of(&mut world, 0, "ann");
    let bad_json = |field: &str| {
        let bad = Some("{".into());
        match field {
            "info" => ApiSubscribe {
                info: bad,
                ..to("room:a")
            },
            _ => ApiSubscribe {
                data: bad,
                ..to("room:a")
            },
        }
    };
    let late = ApiSubscribe {
        expire_at: Some(START.as_secs()),
        ..to("room:a")
    };
    for (request, code) in [
        (to("nope:a"), 102),
        (to(""), 107),
        (bad_json("info"), 107),
        (bad_json("data"), 107),
        (late, 110),
    ] {
        assert_eq!(subscribe(&mut world, &user("ann"), &request), code);
    }
    assert_eq!(world.heard(ann), [Value::Null; 0]);
    assert_eq!(subscribe(&mut world, &user("nobody"), &to("room:a")), 0);
}

#[test]
fn one_channel_too_many_ends_the_connection() {
    for (dry_run, closed, counted) in [(false, Some((3505, true)), [1, 0]), (true, None, [0, 1])] {
        let mut setup = Setup {
            dry_run,
            ..Setup::default()
        };
        setup.client.channel_limit = 1;
        let mut world = World::with(setup);
        let (ann, _) = client_of(&mut world, 0, "ann");
        assert_eq!(subscribe(&mut world, &user("ann"), &to("room:a")), 0);
        assert_eq!(subscribe(&mut world, &user("ann"), &to("room:b")), 0);
        assert_eq!(world.closed(ann), closed);
        let over = world.workers[0].hub.counters().over_limit;
        assert_eq!(over.subscriptions, counted);
        for room in ["room:a", "room:b"] {
            assert_eq!(world.members(room).is_empty(), closed.is_some(), "{room}");
        }
    }
}

#[test]
fn a_pushed_subscription_ends_with_its_time() {
    let mut world = World::with(without_pings());
    let (ann, _) = client_of(&mut world, 0, "ann");
    let request = ApiSubscribe {
        expire_at: Some(START.as_secs() + 20),
        ..to("news")
    };
    assert_eq!(subscribe(&mut world, &user("ann"), &request), 0);
    world.seconds(40);
    assert_eq!(world.closed(ann), None);
    world.seconds(10);
    assert_eq!(world.closed(ann), Some((3006, true)));
}

/// Whatever happens while the engine takes its time, a call is answered once, and what is told to the
/// client makes sense.
#[test]
fn what_happens_while_a_subscription_begins() {
    let setup = || Setup {
        delays: Some(DelayOptions::default()),
        ..Setup::default()
    };
    // The operator takes it back.
    let mut world = World::with(setup());
    let (ann, _) = client_of(&mut world, 0, "ann");
    let results = start_subscribe(&mut world, &user("ann"), &to("room:a"));
    unsubscribe(&mut world, &user("ann"), "room:a", 2000);
    world.settle();
    assert_eq!(*results.borrow(), [0, 0]);
    let heard = world.heard(ann);
    assert!(heard[0]["push"]["subscribe"].is_object(), "{heard:?}");
    let last = &heard[heard.len() - 1]["push"]["unsubscribe"];
    assert_eq!(last["code"], json!(2000));
    assert!(world.members("room:a").is_empty());

    // The same with a subscription of the client's own.
    let mut world = World::with(setup());
    let (ann, _) = client_of(&mut world, 0, "ann");
    world.send_only(ann, r#"{"id":2,"subscribe":{"channel":"room:a"}}"#);
    unsubscribe(&mut world, &user("ann"), "room:a", 2000);
    // It counts, so it isn't made again.
    let results = start_subscribe(&mut world, &user("ann"), &to("room:a"));
    world.settle();
    assert_eq!(*results.borrow(), [0, 0]);
    let heard = world.heard(ann);
    assert_eq!(heard[0]["id"], json!(2));
    let last = &heard[heard.len() - 1]["push"]["unsubscribe"];
    assert_eq!(last["code"], json!(2000), "{heard:?}");

    // The connection goes.
    let mut world = World::with(setup());
    let (ann, _) = client_of(&mut world, 0, "ann");
    let results = start_subscribe(&mut world, &user("ann"), &to("room:a"));
    world.drop_connection(ann);
    world.settle();
    assert_eq!(*results.borrow(), [0, 0]);
    assert!(world.members("room:a").is_empty());
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
}

#[test]
fn connections_are_prolonged_shortened_and_ended() {
    let mut world = World::with(without_pings());
    let client = world.open(0);
    let token = crate::support::token("ann", Some(30));
    world.tell(client, json!({"id": 1, "connect": {"token": token}}));
    let expire_at = |seconds: u64| ApiRefresh {
        expire_at: Some(START.as_secs() + seconds),
        ..ApiRefresh::default()
    };
    refresh(&mut world, &user("ann"), &expire_at(600));
    let push = json!({"push": {"refresh": {"expires": true, "ttl": 600}}});
    assert_eq!(world.heard(client), [push]);
    world.seconds(100);
    assert_eq!(world.closed(client), None, "it was prolonged");
    refresh(&mut world, &user("ann"), &ApiRefresh::default());
    assert_eq!(world.heard(client), [json!({"push": {"refresh": {}}})]);
    world.seconds(1000);
    assert_eq!(world.closed(client), None, "it doesn't expire any more");
    refresh(&mut world, &user("ann"), &expire_at(1));
    assert_eq!(
        world.closed(client),
        Some((3005, true)),
        "that was long ago"
    );

    let (again, _) = client_of(&mut world, 1, "ann");
    let expired = ApiRefresh {
        expired: true,
        ..expire_at(1_000_000)
    };
    refresh(&mut world, &user("ann"), &expired);
    assert_eq!(world.closed(again), Some((3005, true)));
}

#[test]
fn a_new_info_is_shown_in_presence_and_publications() {
    let mut world = World::new();
    let (ann, _) = client_of(&mut world, 0, "ann");
    world.tell(ann, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    let request = ApiRefresh {
        info: Some(r#"{"name":"Ann"}"#.into()),
        ..ApiRefresh::default()
    };
    refresh(&mut world, &user("ann"), &request);
    world.heard(ann);
    let heard = world.tell(ann, json!({"id": 3, "presence": {"channel": "room:a"}}));
    let presence = heard[0]["presence"]["presence"].as_object().unwrap();
    assert_eq!(presence.len(), 1);
    let (_, shown) = presence.iter().next().unwrap();
    assert_eq!(shown["conn_info"], json!({"name": "Ann"}));
    let heard = world.tell(
        ann,
        json!({"id": 4, "publish": {"channel": "room:a", "data": 1}}),
    );
    let push = heard.iter().find(|message| message["push"].is_object());
    let info = &push.unwrap()["push"]["pub"]["info"];
    assert_eq!(info["conn_info"], json!({"name": "Ann"}));
    let bad = ApiRefresh {
        info: Some("{".into()),
        ..ApiRefresh::default()
    };
    let now = world.now;
    let Worker { hub, out, .. } = &mut world.workers[0];
    let refused = hub.api_refresh(now, &user("ann"), &bad, out);
    assert_eq!(refused.unwrap_err().code, 107);
}
