//! Which connections and users do things too often, and what becomes of it. What channels have rates for is in
//! `channel_rates.rs`.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::Operation;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::rate::Rate;

use crate::support::{Client, Setup, Worker, World};

pub(super) fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = Duration::ZERO;
    setup
}

pub(super) fn rate(text: &str) -> Option<Rate> {
    Some(Rate::parse(text).unwrap())
}

/// Sends a command some times in one frame, and returns the codes of the answers; 0 for a result.
pub(super) fn codes(world: &mut World, client: Client, times: usize, command: &Value) -> Vec<u64> {
    let commands = (0..times).map(|index| {
        let mut command = command.clone();
        command["id"] = json!(index + 10);
        command.to_string()
    });
    let frame = commands.collect::<Vec<_>>().join("\n");
    world.send(client, &frame);
    let heard = world.heard(client);
    let answers = heard.iter().filter(|message| message["id"].is_u64());
    answers
        .map(|answer| answer["error"]["code"].as_u64().unwrap_or(0))
        .collect()
}

pub(super) fn publish() -> Value {
    json!({"publish": {"channel": "news", "data": 1}})
}

#[test]
fn a_connection_is_refused_what_it_does_too_often_and_served_again_later() {
    let mut setup = setup();
    setup.client.rate_limit.client_command.publish = rate("2/s");
    let mut world = World::with(setup);
    let (one, other) = (world.connect(0), world.connect(0));
    assert_eq!(codes(&mut world, one, 4, &publish()), [0, 0, 111, 111]);
    assert_eq!(codes(&mut world, other, 1, &publish()), [0], "its own");
    let history = json!({"presence_stats": {"channel": "vault:x"}});
    assert_eq!(codes(&mut world, one, 1, &history), [108], "another kind");
    world.pass(Duration::from_millis(500));
    assert_eq!(codes(&mut world, one, 2, &publish()), [0, 111]);
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!(over.client_command[Operation::Publish.index()], 3);
    assert_eq!(over.client_command.iter().sum::<u64>(), 3);
    assert_eq!(over.user_command, [0; Operation::COUNT]);
}

#[test]
fn an_error_for_too_many_requests_is_temporary() {
    let mut setup = setup();
    setup.client.rate_limit.client_command.publish = rate("1/s");
    let mut world = World::with(setup);
    let client = world.connect(0);
    world.tell(
        client,
        json!({"id": 2, "publish": {"channel": "news", "data": 1}}),
    );
    let heard = world.tell(
        client,
        json!({"id": 3, "publish": {"channel": "news", "data": 1}}),
    );
    let text = "too many requests: more often than client.rate_limit.client_command.publish allows (1/s); try again later";
    let error = json!({"code": 111, "message": text, "temporary": true});
    assert_eq!(heard, [json!({"id": 3, "error": error})]);
}

#[test]
fn all_commands_together_have_a_rate_and_refused_ones_do_not_count() {
    let mut setup = setup();
    setup.client.channel_limit = 2;
    let rates = &mut setup.client.rate_limit.client_command;
    rates.total = rate("5/s");
    rates.publish = rate("2/s");
    let mut world = World::with(setup);
    let client = world.connect(0);
    assert_eq!(codes(&mut world, client, 10, &publish())[..3], [0, 0, 111]);
    let stats = json!({"presence_stats": {"channel": "news"}});
    assert_eq!(codes(&mut world, client, 4, &stats), [108, 108, 108, 111]);
}

#[test]
fn a_users_connections_share_a_rate_whatever_their_worker() {
    let mut setup = setup();
    setup.client.rate_limit.user_command.publish = rate("3/s");
    let mut world = World::with(setup);
    let tabs = [world.connect_as(0, "42"), world.connect_as(1, "42")];
    let (other, nobody) = (world.connect_as(0, "43"), world.connect(0));
    assert_eq!(codes(&mut world, tabs[0], 2, &publish()), [0, 0]);
    assert_eq!(codes(&mut world, tabs[1], 2, &publish()), [0, 111]);
    assert_eq!(codes(&mut world, tabs[0], 1, &publish()), [111]);
    assert_eq!(codes(&mut world, other, 1, &publish()), [0]);
    assert_eq!(
        codes(&mut world, nobody, 9, &publish()),
        [0; 9],
        "the anonymous ones have no user in common"
    );
    // Coming anew gives nobody a new bucket.
    for tab in tabs {
        world.drop_connection(tab);
    }
    let again = world.connect_as(1, "42");
    assert_eq!(codes(&mut world, again, 1, &publish()), [111]);
    let over = |worker: usize| world.workers[worker].hub.counters().over_limit;
    assert_eq!(over(0).user_command[Operation::Publish.index()], 1);
    assert_eq!(over(1).user_command[Operation::Publish.index()], 2);
    world.seconds(1);
    assert_eq!(codes(&mut world, again, 4, &publish()), [0, 0, 0, 111]);
}

#[test]
fn a_users_connections_have_a_rate() {
    let mut setup = setup();
    setup.client.rate_limit.user_command.connect = rate("2/s");
    let mut world = World::with(setup);
    let token = crate::support::token("42", None);
    world.connect_with(0, &token);
    world.connect_with(1, &token);
    let client = world.open(0);
    let heard = world.tell(client, json!({"id": 1, "connect": {"token": token}}));
    assert_eq!(heard[0]["error"]["code"], json!(111));
    assert_eq!(heard[0]["error"]["temporary"], json!(true));
    world.connect_as(0, "43");
    world.connect(0);
    world.seconds(1);
    world.connect_with(0, &token);
}

#[test]
fn a_dry_run_counts_and_refuses_nothing() {
    let mut setup = setup();
    let rates = &mut setup.client.rate_limit;
    rates.client_command.publish = rate("1/s");
    rates.client_command.dry_run = true;
    rates.user_command.publish = rate("2/s");
    rates.user_command.connect = rate("1/s");
    rates.user_command.dry_run = true;
    rates.client_error.total = rate("1/s");
    rates.client_error.dry_run = true;
    setup.client.channel_limit = 0;
    let mut world = World::with(setup);
    let client = world.connect_as(0, "42");
    world.connect_as(0, "42");
    assert_eq!(codes(&mut world, client, 5, &publish()), [0; 5]);
    let denied = json!({"publish": {"channel": "vault:x", "data": 1}});
    assert_eq!(codes(&mut world, client, 3, &denied), [103; 3]);
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!(over.client_command[Operation::Publish.index()], 7);
    assert_eq!(over.user_command[Operation::Publish.index()], 6);
    assert_eq!(over.user_command[Operation::Connect.index()], 1);
    assert_eq!(over.client_error, 2);
    assert_eq!(world.closed(client), None);
}

#[test]
fn who_causes_too_many_errors_is_sent_away_for_good() {
    let mut setup = setup();
    setup.client.channel_limit = 2;
    setup.client.rate_limit.client_error.total = rate("3/s");
    let mut world = World::with(setup);
    let client = world.connect(0);
    let denied = json!({"publish": {"channel": "vault:x", "data": 1}});
    assert_eq!(codes(&mut world, client, 3, &denied), [103; 3]);
    world.seconds(1);
    assert_eq!(codes(&mut world, client, 5, &denied)[..3], [103; 3]);
    assert_eq!(world.closed(client), Some((3509, true)));
    assert_eq!(world.workers[0].hub.counters().over_limit.client_error, 1);
}

#[test]
fn errors_end_nobody_where_they_are_not_counted() {
    let mut setup = setup();
    // As many as a client may subscribe to may fail at once.
    setup.client.channel_limit = 2;
    setup.client.rate_limit.client_error.total = rate("3/s");
    setup.client.rate_limit.client_error.enabled = false;
    let mut world = World::with(setup);
    let client = world.connect(0);
    let denied = json!({"publish": {"channel": "vault:a", "data": 1}});
    assert_eq!(codes(&mut world, client, 20, &denied), [103; 20]);
    assert_eq!(world.closed(client), None);
}

#[test]
fn leaving_is_never_refused_and_still_counts() {
    let mut setup = setup();
    setup.client.channel_limit = 1;
    setup.client.rate_limit.client_command.unsubscribe = rate("2/s");
    setup.client.rate_limit.client_error.total = rate("3/s");
    let mut world = World::with(setup);
    let client = world.connect(0);
    let leave = json!({"unsubscribe": {"channel": "news"}});
    assert_eq!(codes(&mut world, client, 5, &leave), [0; 5]);
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!(over.client_command[Operation::Unsubscribe.index()], 3);
    assert_eq!(codes(&mut world, client, 1, &leave).len(), 0);
    assert_eq!(world.closed(client), Some((3509, true)));
}

#[test]
fn a_message_that_can_not_be_refused_ends_the_connection() {
    let mut setup = setup();
    setup.client.rate_limit.client_command.send = rate("1/h");
    let mut world = World::with(setup);
    let client = world.connect(0);
    world.send(client, "{\"send\":{\"data\":1}}\n{\"send\":{\"data\":1}}");
    // The first one because there is nobody to take it.
    assert_eq!(world.closed(client), Some((3508, true)));
}

#[test]
fn a_client_may_subscribe_to_all_it_may_have_at_once() {
    let mut setup = setup();
    setup.client.channel_limit = 300;
    let rates = &mut setup.client.rate_limit;
    rates.client_command.subscribe = rate("1/s");
    rates.client_command.total = rate("1/s");
    rates.client_error.total = rate("1/s");
    let mut world = World::with(setup);
    let client = world.connect(0);
    let commands = (0..300).map(|index| {
        json!({"id": index + 2, "subscribe": {"channel": format!("vault:{index}")}}).to_string()
    });
    world.send(client, &commands.collect::<Vec<_>>().join("\n"));
    let heard = world.heard(client);
    assert_eq!(heard.len(), 300);
    let is_denied = |answer: &Value| answer["error"]["code"] == json!(103);
    assert!(heard.iter().all(is_denied), "refused, but not for the rate");
    assert_eq!(world.closed(client), None);
}

#[test]
fn the_servers_own_errors_are_nobodys_fault() {
    let mut setup = setup();
    setup.client.channel_limit = 0;
    setup.client.rate_limit.client_error.total = rate("1/s");
    setup.delays = Some(DelayOptions {
        at_once: 0,
        failures: 100,
    });
    let mut world = World::with(setup);
    let client = world.connect(0);
    assert_eq!(codes(&mut world, client, 5, &publish()), [100; 5]);
    assert_eq!(world.closed(client), None);
}

/// How often each kind of command was over the rates of a connection, and of a user, when each came twice.
fn over_limit(setup: Setup) -> (Vec<u64>, Vec<u64>) {
    let mut world = World::with(setup);
    let refresh = crate::support::token("7", Some(1000));
    for command in [
        json!({"subscribe": {"channel": "vault:a"}}),
        json!({"unsubscribe": {"channel": "news"}}),
        json!({"publish": {"channel": "news", "data": 1}}),
        json!({"presence": {"channel": "news"}}),
        json!({"presence_stats": {"channel": "news"}}),
        json!({"history": {"channel": "news"}}),
        json!({"rpc": {"method": "m"}}),
        json!({"refresh": {"token": refresh}}),
        json!({"sub_refresh": {"channel": "news", "token": "x"}}),
    ] {
        // Another connection of the same user for each, as some of these end it.
        let client = world.connect_with(0, &crate::support::token("7", Some(1000)));
        for id in [2, 3] {
            let mut command = command.clone();
            command["id"] = json!(id);
            world.send(client, &command.to_string());
        }
    }
    let over = world.workers[0].hub.counters().over_limit;
    (over.client_command.to_vec(), over.user_command.to_vec())
}

#[test]
fn each_kind_of_command_has_the_rate_of_its_option() {
    use tautline_hub::config::RateLimitOptions;
    type Set = fn(&mut RateLimitOptions) -> [&mut Option<Rate>; 2];
    let options: [(Operation, Set); 9] = [
        (Operation::Subscribe, |all| {
            [
                &mut all.client_command.subscribe,
                &mut all.user_command.subscribe,
            ]
        }),
        (Operation::Unsubscribe, |all| {
            [
                &mut all.client_command.unsubscribe,
                &mut all.user_command.unsubscribe,
            ]
        }),
        (Operation::Publish, |all| {
            [
                &mut all.client_command.publish,
                &mut all.user_command.publish,
            ]
        }),
        (Operation::Presence, |all| {
            [
                &mut all.client_command.presence,
                &mut all.user_command.presence,
            ]
        }),
        (Operation::PresenceStats, |all| {
            [
                &mut all.client_command.presence_stats,
                &mut all.user_command.presence_stats,
            ]
        }),
        (Operation::History, |all| {
            [
                &mut all.client_command.history,
                &mut all.user_command.history,
            ]
        }),
        (Operation::Rpc, |all| {
            [&mut all.client_command.rpc, &mut all.user_command.rpc]
        }),
        (Operation::Refresh, |all| {
            [
                &mut all.client_command.refresh,
                &mut all.user_command.refresh,
            ]
        }),
        (Operation::SubRefresh, |all| {
            [
                &mut all.client_command.sub_refresh,
                &mut all.user_command.sub_refresh,
            ]
        }),
    ];
    let mut open = setup();
    // What a connection may do at any rate, it may not do at this one.
    open.client.channel_limit = 0;
    open.client.rate_limit.client_command.total = None;
    open.client.rate_limit.user_command.total = None;
    // Connects count in the total, too, where they have a rate.
    open.client.rate_limit.user_command.connect = None;
    let with = |change: &dyn Fn(&mut RateLimitOptions)| {
        let mut setup = setup();
        setup.client = open.client.clone();
        change(&mut setup.client.rate_limit);
        over_limit(setup)
    };
    let (client, user) = with(&|_| ());
    assert_eq!(client.iter().chain(&user).sum::<u64>(), 0);
    for (operation, set) in options {
        for whose in [0, 1] {
            let (client, user) = with(&|all| *set(all)[whose] = rate("1/1h"));
            let (limited, other) = if whose == 0 {
                (client, user)
            } else {
                (user, client)
            };
            assert!(limited[operation.index()] > 0, "{operation:?} {whose}");
            let all: u64 = limited.iter().sum();
            assert_eq!(
                all,
                limited[operation.index()],
                "{operation:?} and no other"
            );
            assert_eq!(other.iter().sum::<u64>(), 0, "{operation:?} {whose}");
        }
    }
    // All together; and none where they are off.
    let (client, user) = with(&|all| all.user_command.total = rate("3/1h"));
    assert!(client.iter().sum::<u64>() == 0 && user.iter().sum::<u64>() > 10);
    let (_, user) = with(&|all| {
        all.user_command.total = rate("3/1h");
        all.user_command.enabled = false;
    });
    assert_eq!(user.iter().sum::<u64>(), 0);
}

#[test]
fn who_sends_too_many_bytes_is_ended() {
    let mut setup = setup();
    let input = &mut setup.client.rate_limit.client_input;
    (input.bytes_per_second, input.burst) = (100_000, 300_000);
    for dry_run in [false, true] {
        setup.client.rate_limit.client_input.dry_run = dry_run;
        let mut world = World::with(Setup {
            client: setup.client.clone(),
            ..Setup::default()
        });
        let stranger = world.open(0);
        let client = world.connect(0);
        let send = |world: &mut World, client: Client, bytes| {
            let Worker { hub, out, .. } = &mut world.workers[0];
            hub.charge_input(world.now, client.id, bytes, out)
        };
        assert!(send(&mut world, stranger, 1_000_000), "nobody yet");
        for _ in 0..10_000 {
            assert!(send(&mut world, client, 100), "as good as nothing");
        }
        for _ in 0..3 {
            assert!(send(&mut world, client, 100_000));
        }
        world.pass(Duration::from_millis(990));
        assert_eq!(send(&mut world, client, 100_000), dry_run);
        let over = |world: &World| world.workers[0].hub.counters().over_limit.input;
        assert_eq!(over(&world), [u64::from(!dry_run), u64::from(dry_run)]);
        if dry_run {
            assert_eq!(world.closed(client), None);
            world.pass(Duration::from_millis(10));
            assert!(send(&mut world, client, 100_000));
            assert_eq!(over(&world), [0, 1]);
        } else {
            assert_eq!(world.closed(client).map(|(code, _)| code), Some(3013));
        }
    }
    setup.client.rate_limit.client_input.enabled = false;
    let mut world = World::with(setup);
    let client = world.connect(0);
    for _ in 0..10 {
        let Worker { hub, out, .. } = &mut world.workers[0];
        assert!(hub.charge_input(world.now, client.id, 1_000_000, out));
    }
    assert_eq!(world.workers[0].hub.counters().over_limit.input, [0, 0]);
}

#[test]
fn rates_are_written_as_people_write_them() {
    for (text, expected) in [
        ("100/s", "100/s"),
        ("20/5s", "4/s, burst 20"),
        ("100/s, burst 500", "100/s, burst 500"),
        ("3/m", "3/m"),
        ("1/h", "1/h"),
        ("1000000/1ms", "1000000000/s, burst 1000000"),
    ] {
        assert_eq!(rate(text).unwrap().to_string(), expected, "{text}");
    }
}
