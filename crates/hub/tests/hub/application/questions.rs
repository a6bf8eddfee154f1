//! What is under way with an application: how many at once, for how long, in which order.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::application::{
    Answer, ApplicationOptions, ConnectReply, Interests, PublishReply, Question, SubscribeReply,
};
use tautline_hub::engine::testkit::{DelayOptions, Seeded};
use tautline_protocol::ErrorCode;

use super::{Scripted, answer, quiet, temporary, world, world_with};
use crate::support::{Client, Setup, World};

#[test]
fn calls_of_a_connection_are_under_way_at_once_up_to_a_limit() {
    let application = Scripted::about(Interests::RPC);
    let mut setup = Setup::default();
    setup.client.rpc_limit = 3;
    let mut world = world_with(&application, setup, ApplicationOptions::default());
    let client = world.connect(0);
    for id in 2..=7 {
        world.send(
            client,
            &json!({"id": id, "rpc": {"method": "m"}}).to_string(),
        );
    }
    assert_eq!(application.open(), 3);
    assert!(!world.workers[0].hub.wants_input(client.id));
    // The second is first. The third is what the connection waits for.
    let (first, second, third) = (
        application.take().0,
        application.take().0,
        application.take().0,
    );
    answer(&mut world, second, Answer::Rpc(Ok(().into())));
    answer(
        &mut world,
        first,
        Answer::Rpc(Err(ErrorCode::MethodNotFound.into())),
    );
    let heard = world.heard(client);
    assert_eq!(heard[0], json!({"id": 3, "rpc": {}}));
    assert_eq!(heard[1]["error"]["code"], json!(104));
    assert_eq!(application.open(), 0);
    answer(&mut world, third, Answer::Rpc(Ok(().into())));
    assert_eq!(application.open(), 3, "the next three");
    assert_eq!(world.workers[0].hub.questions(), 3);

    // One of those that the connection doesn't wait for has ended, so another may begin beside what is
    // left.
    let (first, second, third) = (
        application.take().0,
        application.take().0,
        application.take().0,
    );
    answer(&mut world, third, Answer::Rpc(Ok(().into())));
    answer(&mut world, first, Answer::Rpc(Ok(().into())));
    world.send(client, r#"{"id":8,"rpc":{"method":"m"}}"#);
    assert!(world.workers[0].hub.wants_input(client.id));
    answer(&mut world, second, Answer::Rpc(Ok(().into())));
}

#[test]
fn patience_ends_with_a_temporary_error_and_what_comes_later_is_ignored() {
    let application = Scripted::about(Interests::RPC | Interests::SUBSCRIBE);
    let mut world = world(&application);
    let client = world.connect(0);
    world.send(client, r#"{"id":2,"rpc":{"method":"m"}}"#);
    world.pass(Duration::from_secs(2));
    world.send(client, r#"{"id":3,"subscribe":{"channel":"news"}}"#);
    world.send(client, r#"{"id":4,"publish":{"channel":"news","data":1}}"#);
    world.pass(Duration::from_millis(1900));
    assert!(world.heard(client).is_empty());
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(client), [temporary(2)]);
    world.pass(Duration::from_secs(2));
    let heard = world.heard(client);
    assert_eq!(heard, [temporary(3), json!({"id": 4, "publish": {}})]);
    let (call, subscribe) = (application.take().0, application.take().0);
    assert_eq!(application.withdrawn(), [call, subscribe]);
    answer(&mut world, call, Answer::Rpc(Ok(().into())));
    answer(
        &mut world,
        subscribe,
        Answer::Subscribe(Ok(SubscribeReply::default())),
    );
    assert!(world.heard(client).is_empty());
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
    assert_eq!(world.workers[0].hub.questions(), 0);
}

#[test]
fn what_was_asked_of_a_client_that_goes_is_withdrawn() {
    let application = Scripted::about(Interests::RPC | Interests::SUBSCRIBE);
    let mut world = world(&application);
    let client = world.connect(0);
    world.send(client, r#"{"id":2,"rpc":{"method":"m"}}"#);
    world.send(client, r#"{"id":3,"subscribe":{"channel":"news"}}"#);
    world.drop_connection(client);
    let (call, subscribe) = (application.take().0, application.take().0);
    assert_eq!(application.withdrawn(), [call, subscribe]);
    // Its place is another's now.
    let other = world.connect(0);
    assert_eq!(other.id.index, client.id.index);
    answer(
        &mut world,
        subscribe,
        Answer::Subscribe(Ok(SubscribeReply::default())),
    );
    answer(&mut world, call, Answer::Rpc(Ok(().into())));
    assert!(world.heard(other).is_empty());
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
}

/// The default, another one that comes with a reload, and one that is only tried out.
#[test]
fn how_many_calls_a_connection_may_have_is_an_option() {
    for dry_run in [false, true] {
        let application = Scripted::about(Interests::RPC);
        let setup = Setup { dry_run, ..quiet() };
        let (mut options, channel) = (setup.client.clone(), setup.channel.clone());
        assert_eq!(options.rpc_limit, 16);
        let mut world = world_with(&application, setup, ApplicationOptions::default());
        let clients = [world.connect(0), world.connect(0)];
        let call = |world: &mut World, client: Client| {
            for id in 2..22 {
                let command = json!({"id": id, "rpc": {"method": "m"}});
                world.send(client, &command.to_string());
            }
            (
                application.open(),
                world.workers[0].hub.counters().over_limit.calls,
            )
        };
        if dry_run {
            assert_eq!(call(&mut world, clients[0]), (20, [0, 5]));
            continue;
        }
        assert_eq!(call(&mut world, clients[0]), (16, [1, 0]));
        options.rpc_limit = 2;
        world.reconfigure(options, channel);
        assert_eq!(call(&mut world, clients[1]), (16 + 2, [2, 0]));
    }
}

#[test]
fn with_too_many_questions_under_way_commands_are_refused_for_the_moment() {
    let application = Scripted::about(Interests::RPC | Interests::MESSAGE);
    let options = ApplicationOptions {
        max_in_flight: 2,
        ..ApplicationOptions::default()
    };
    let mut world = world_with(&application, Setup::default(), options);
    let (client, other) = (world.connect(0), world.connect(0));
    for id in 2..=3 {
        world.send(
            client,
            &json!({"id": id, "rpc": {"method": "m"}}).to_string(),
        );
    }
    let text = "too many requests: 2 handlers are at work on this worker, as many as there may be (max_in_flight of the \
                handlers' options); try again later";
    let error = json!({"code": 111, "message": text, "temporary": true});
    let heard = world.tell(other, json!({"id": 2, "rpc": {"method": "m"}}));
    assert_eq!(heard, [json!({"id": 2, "error": error})]);
    let stranger = world.open(0);
    let heard = world.tell(stranger, json!({"id": 1, "connect": {}}));
    assert_eq!(heard, [json!({"id": 1, "error": error})]);
    world.send(other, r#"{"send":{"data":1}}"#);
    assert_eq!(world.closed(other).unwrap().0, 3013);
    answer(&mut world, application.take().0, Answer::Rpc(Ok(().into())));
    world.connect(0);
}

/// Clients, answers, goodbyes and the clock in any order: each command is answered once, those that wait
/// in order, and nothing is left in the end.
#[test]
fn in_any_order_every_command_is_answered_once() {
    for seed in 0..200 {
        let mut random = Seeded::new(seed);
        let application = Scripted::default();
        let options = ApplicationOptions {
            max_in_flight: 12,
            ..ApplicationOptions::default()
        };
        let mut setup = Setup {
            seed,
            delays: (seed % 2 == 0).then(DelayOptions::default),
            ..quiet()
        };
        setup.client.rpc_limit = 3;
        let mut world = world_with(&application, setup, options);
        let mut clients: Vec<(Client, u64, Vec<Value>)> = Vec::new();
        for _ in 0..300 {
            match random.below(10) {
                0 if clients.len() < 6 => {
                    let client = world.open(random.below(2));
                    world.send(client, r#"{"id":1,"connect":{}}"#);
                    clients.push((client, 1, Vec::new()));
                }
                1 if !clients.is_empty() => {
                    let (client, ..) = clients.swap_remove(random.below(clients.len()));
                    world.heard(client);
                    world.drop_connection(client);
                    world.settle();
                }
                2..6 if !clients.is_empty() => {
                    let place = random.below(clients.len());
                    let (client, last, _) = &mut clients[place];
                    *last += 1;
                    let request = match random.below(3) {
                        0 => json!({"id": last, "rpc": {"method": "m"}}),
                        1 => json!({"id": last, "publish": {"channel": "a", "data": 1}}),
                        _ => json!({"id": last, "unsubscribe": {"channel": "a"}}),
                    };
                    world.send(*client, &request.to_string());
                }
                6 => world.pass(Duration::from_millis(random.below(5000) as u64)),
                _ => answer_one(&mut world, &application, &mut random),
            }
            for (client, _, heard) in &mut clients {
                heard.extend(world.heard(*client));
            }
            clients.retain(|(client, ..)| world.closed(*client).is_none());
            for worker in &world.workers {
                assert!(worker.hub.questions() <= 12 + 6, "seed {seed}");
            }
        }
        // Nobody answers any more: each command in turn has its patience tried.
        while (0..2).any(|worker| world.workers[worker].hub.questions() > 0) {
            world.seconds(1);
        }
        for (client, last, heard) in &mut clients {
            heard.extend(world.heard(*client));
            if heard
                .first()
                .is_some_and(|first| first["error"].is_object())
            {
                continue; // It was not let in, so nothing else is answered.
            }
            let mut ids: Vec<u64> = heard.iter().filter_map(|m| m["id"].as_u64()).collect();
            ids.sort_unstable();
            assert_eq!(
                ids,
                (1..=*last).collect::<Vec<_>>(),
                "seed {seed}: {heard:?}"
            );
            world.drop_connection(*client);
        }
        world.seconds(10);
        for worker in &world.workers {
            assert_eq!(worker.hub.questions(), 0, "seed {seed}");
            assert_eq!(worker.hub.stats().clients, 0, "seed {seed}");
        }
    }
}

fn answer_one(world: &mut World, application: &Scripted, random: &mut Seeded) {
    if application.open() == 0 {
        return;
    }
    let place = random.below(application.open());
    let (ticket, _, question) = application.0.borrow_mut().asked.remove(place);
    let reply = match question {
        Question::Connecting(_) => Answer::Connect(Ok(ConnectReply::default())),
        Question::Publish(_) => Answer::Publish(Ok(PublishReply::AsSent)),
        Question::Rpc(_) => Answer::Rpc(Ok(().into())),
        _ => Answer::Noted,
    };
    answer(world, ticket, reply);
}
