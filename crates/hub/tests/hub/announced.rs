//! Crowds that come and go: what of that is told is bounded, and comes later rather than not at all.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::engine::testkit::DelayOptions;

use crate::presence::{events, join, names};
use crate::support::{Client, Setup, World, replies};

fn setup(most: u64) -> Setup {
    let mut setup = Setup::default();
    setup.channel.namespaces[0].join_leave_deliveries_per_second = most;
    setup
}

fn leave(world: &mut World, client: Client) -> Vec<Value> {
    world.tell(
        client,
        json!({"id": 3, "unsubscribe": {"channel": "room:a"}}),
    )
}

fn untold(world: &World) -> usize {
    let hubs = world.workers.iter().map(|worker| &worker.hub);
    hubs.map(tautline_hub::Hub::unannounced).sum()
}

/// How many had to wait, and how many would have had to.
fn counted(world: &World) -> [u64; 2] {
    let hubs = world.workers.iter().map(|worker| &worker.hub);
    hubs.fold([0, 0], |[enforced, tried], hub| {
        let [more, more_tried] = hub.counters().over_limit.join_leave;
        [enforced + more, tried + more_tried]
    })
}

#[test]
fn who_comes_beyond_what_may_be_told_is_told_later() {
    let mut world = World::with(setup(10));
    let watchers = [0, 1].map(|worker| world.connect_as(worker, "eve"));
    for watcher in watchers {
        join(&mut world, watcher);
    }
    let listen = |world: &mut World| {
        let [one, other] = watchers.map(|watcher| events(&world.heard(watcher)));
        assert_eq!(one, other, "the same on all workers");
        one
    };
    world.heard(watchers[0]);
    for (worker, user) in [(0, "bob"), (1, "cat"), (0, "dan"), (1, "fay"), (1, "gus")] {
        let client = world.connect_as(worker, user);
        let heard = join(&mut world, client);
        assert!(heard[0]["subscribe"].is_object(), "nobody is refused");
    }
    // Two seconds' worth at once: one, two, three, four and five deliveries, and not six more.
    assert_eq!(listen(&mut world), ["+bob", "+cat", "+dan"]);
    assert_eq!((untold(&world), counted(&world)), (2, [2, 0]));
    assert_eq!(names(&mut world, watchers[0]).len(), 7);
    // Seven deliveries each by now.
    for (millis, expected) in [(199, ""), (2, "+fay"), (690, ""), (20, "+gus")] {
        world.pass(Duration::from_millis(millis));
        let told = listen(&mut world);
        assert_eq!(told.concat(), expected);
    }
    assert_eq!((untold(&world), counted(&world)), (0, [2, 0]));
}

#[test]
fn where_it_is_tried_out_or_there_is_no_limit_all_are_told_at_once() {
    for (most, dry_run, expected) in [(10, true, [0, 2]), (0, false, [0, 0])] {
        let mut setup = setup(most);
        setup.channel.namespaces[0].rates_dry_run = dry_run;
        let mut world = World::with(setup);
        let watcher = world.connect_as(0, "eve");
        join(&mut world, watcher);
        for user in ["ann", "bob", "cat", "dan", "fay", "gus"] {
            let client = world.connect_as(1, user);
            join(&mut world, client);
        }
        // Six deliveries, and then seven, are more than there were left.
        assert_eq!(events(&world.heard(watcher)).len(), 6, "{most}");
        assert_eq!((untold(&world), counted(&world)), (0, expected));
    }
}

/// Watchers, and a channel in which nothing more may be told for a moment.
fn exhausted(delays: Option<DelayOptions>) -> (World, Client, Vec<Client>) {
    let mut world = World::with(Setup {
        delays,
        ..setup(10)
    });
    let watcher = world.connect_as(0, "eve");
    join(&mut world, watcher);
    let crowd: Vec<_> = (0..6)
        .map(|number| world.connect_as(number % 2, &format!("user {number}")))
        .collect();
    for client in &crowd {
        join(&mut world, *client);
    }
    assert!(untold(&world) > 0);
    (world, watcher, crowd)
}

#[test]
fn who_comes_and_goes_all_the_time_is_told_of_now_and_then() {
    for delays in [None, Some(DelayOptions::default())] {
        let (mut world, watcher, crowd) = exhausted(delays);
        let before = untold(&world);
        let flapping = [crowd[0], crowd[1]];
        for _ in 0..100 {
            for client in flapping {
                leave(&mut world, client);
                join(&mut world, client);
            }
            assert!(untold(&world) <= before + 4, "{}", untold(&world));
        }
        let late = world.connect_as(0, "late");
        for _ in 0..100 {
            join(&mut world, late);
            leave(&mut world, late);
        }
        assert!(untold(&world) <= before + 4, "it was never told of");
        leave(&mut world, flapping[1]);
        world.seconds(20);
        assert_eq!(untold(&world), 0);
        let heard = events(&world.heard(watcher));
        let of = |user: &str| -> Vec<String> {
            let all = heard.iter().filter(|event| event[1..] == *user);
            all.map(|event| event[..1].to_owned()).collect()
        };
        assert_eq!(of("user 0"), ["+", "-", "+"]);
        assert_eq!(of("user 1"), ["+", "-"]);
        assert_eq!(
            of("user 5"),
            ["+"],
            "it had to wait, and no longer for them"
        );
        assert_eq!(of("late"), [""; 0]);
    }
}

/// Although there is time again to tell of one, by then.
#[test]
fn who_comes_behind_those_who_wait_is_told_of_behind_them() {
    let mut world = World::with(setup(400));
    let [watcher, flapping, late] = ["eve", "bob", "late"].map(|user| world.connect_as(0, user));
    join(&mut world, watcher);
    let mut rounds = 0;
    while untold(&world) == 0 {
        join(&mut world, flapping);
        if untold(&world) == 0 {
            leave(&mut world, flapping);
        }
        rounds += 1;
        assert!(rounds < 1_000, "nobody had to wait");
    }
    let before = events(&world.heard(watcher)).len();
    assert!(before > 100);
    // Lines go on every 10 ms, and this is time for three deliveries.
    world.pass(Duration::from_millis(8));
    assert_eq!(events(&world.heard(watcher)), [""; 0]);
    join(&mut world, late);
    assert_eq!((events(&world.heard(watcher)), untold(&world)), (vec![], 2));
    world.seconds(1);
    let told = events(&world.heard(watcher));
    assert_eq!(told.len(), 2);
    assert!(told[0].ends_with("bob") && told[1] == "+late", "{told:?}");
}

/// Whom others are to be told of may have gone by then, and its channel with it.
#[test]
fn those_who_go_are_told_of_when_nobody_of_their_worker_is_there_any_more() {
    let (mut world, watcher, crowd) = exhausted(None);
    for client in &crowd {
        world.drop_connection(*client);
    }
    world.settle();
    // Those cost less who are told when there are few to tell them to.
    world.seconds(10);
    let heard = events(&world.heard(watcher));
    for number in 0..6 {
        let of = |sign| heard.contains(&format!("{sign}user {number}"));
        assert_eq!(of('+'), of('-'), "{heard:?}");
    }
    assert!(heard.contains(&"-user 0".to_owned()), "{heard:?}");
    assert_eq!(untold(&world), 0);
    assert_eq!(names(&mut world, watcher), ["eve"]);
    world.drop_connection(watcher);
    world.seconds(10);
    assert_eq!(untold(&world), 0);
}

/// Another limit counts at once, for those who wait already.
#[test]
fn those_who_wait_are_told_soon_when_the_limit_is_gone() {
    let setup = setup(0);
    let (client, mut channel) = (setup.client.clone(), setup.channel.clone());
    let mut world = World::with(setup);
    let watcher = world.connect_as(0, "eve");
    join(&mut world, watcher);
    let come = |world: &mut World, count: usize| {
        for number in 0..count {
            let client = world.connect_as(number % 2, "one of many");
            join(world, client);
        }
    };
    come(&mut world, 40);
    channel.namespaces[0].join_leave_deliveries_per_second = 1;
    world.reconfigure(client.clone(), channel.clone());
    come(&mut world, 4);
    assert!(untold(&world) >= 3);
    // It would be some 40 seconds until the next.
    channel.namespaces[0].join_leave_deliveries_per_second = 0;
    world.reconfigure(client, channel);
    world.seconds(2);
    assert_eq!(untold(&world), 0);
    assert_eq!(events(&world.heard(watcher)).len(), 44);
}

#[test]
fn a_crowd_that_comes_at_once_is_told_in_few_messages() {
    let mut world = World::new();
    let watcher = world.connect_as(1, "eve");
    join(&mut world, watcher);
    let crowd: Vec<_> = (0..70)
        .map(|number| world.connect_as(0, &format!("user {number}")))
        .collect();
    let joined: Vec<_> = (0..70).map(|number| format!("+user {number}")).collect();
    let left: Vec<_> = (0..70).map(|number| format!("-user {number}")).collect();
    for client in &crowd {
        world.send_only(*client, r#"{"id":2,"subscribe":{"channel":"room:a"}}"#);
    }
    world.deliver(1);
    let told = |world: &mut World| {
        let messages = world.workers[1].out.messages.remove(&watcher.id);
        let messages = messages.unwrap_or_default();
        let messages = messages
            .iter()
            .map(|message| events(&replies(message).collect::<Vec<_>>()));
        messages.collect::<Vec<_>>()
    };
    assert_eq!(told(&mut world), [&joined[..64], &joined[64..]]);
    world.settle();
    for client in &crowd {
        world.drop_connection(*client);
    }
    world.deliver(1);
    assert_eq!(told(&mut world), [&left[..64], &left[64..]]);
    let delivered = world.workers[1].hub.client_counters().received;
    assert_eq!((delivered.joins, delivered.leaves), (71, 70));
}

/// Of those who go together, one may be back by the time that it is told.
#[test]
fn who_is_back_does_not_hear_of_its_leaving_among_others() {
    let mut world = World::new();
    let [watcher, goes, returns] = ["eve", "goes", "returns"].map(|user| world.connect_as(0, user));
    for client in [watcher, goes, returns] {
        join(&mut world, client);
    }
    for client in [watcher, returns] {
        world.heard(client);
    }
    let leave = r#"{"id":3,"unsubscribe":{"channel":"room:a"}}"#;
    world.send_only(goes, leave);
    world.send_only(returns, leave);
    world.send_only(returns, r#"{"id":4,"subscribe":{"channel":"room:a"}}"#);
    world.settle();
    assert_eq!(
        events(&world.heard(watcher)),
        ["-goes", "-returns", "+returns"]
    );
    assert!(!events(&world.heard(returns)).contains(&"-returns".to_owned()));
}

/// What people attach to themselves may be long.
#[test]
fn a_message_of_many_joins_is_no_longer_than_one_of_many_publications() {
    let mut world = World::new();
    let watcher = world.connect_as(1, "eve");
    join(&mut world, watcher);
    let info = "x".repeat(3_000);
    let token = crate::support::sign_claims(&json!({"sub": "long", "info": info}));
    let crowd: Vec<_> = (0..20).map(|_| world.connect_with(0, &token)).collect();
    for client in &crowd {
        world.send_only(*client, r#"{"id":2,"subscribe":{"channel":"room:a"}}"#);
    }
    world.deliver(1);
    let messages = world.workers[1].out.messages.remove(&watcher.id).unwrap();
    assert!(messages.len() >= 4);
    assert!(messages.iter().all(|message| message.len() < 20_000));
}
