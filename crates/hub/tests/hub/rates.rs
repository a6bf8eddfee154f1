//! Who does things too often, and what becomes of it.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::Operation;
use tautline_hub::config::NamespaceOptions;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::rate::Rate;

use crate::support::{Client, Setup, Worker, World};

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = Duration::ZERO;
    setup
}

fn rate(text: &str) -> Option<Rate> {
    Some(Rate::parse(text).unwrap())
}

/// Sends a command some times in one frame, and returns the codes of the answers; 0 for a result.
fn codes(world: &mut World, client: Client, times: usize, command: &Value) -> Vec<u64> {
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

fn publish() -> Value {
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

/// A namespace with rates; everybody may do everything in it.
fn rated(change: impl FnOnce(&mut NamespaceOptions)) -> Setup {
    let mut setup = setup();
    let room = setup.channel.namespaces.iter();
    let room = room.clone().find(|options| options.name == "room").unwrap();
    let mut rated = NamespaceOptions {
        name: "rated".into(),
        join_leave: false,
        force_push_join_leave: false,
        allow_presence_for_client: true,
        allow_history_for_client: true,
        ..room.clone()
    };
    change(&mut rated);
    setup.channel.namespaces.push(rated);
    setup
}

fn in_channel(command: &str, channel: &str) -> Value {
    json!({command: {"channel": channel, "data": 1}})
}

#[test]
fn a_namespace_has_rates_for_each_connection() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_client = rate("2/s");
        options.presence_rate_for_client = rate("1/s");
        options.history_rate_for_client = rate("1/s");
    }));
    let (one, other) = (world.connect(0), world.connect(0));
    assert_eq!(
        codes(&mut world, one, 1, &in_channel("publish", "rated:a")),
        [0]
    );
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("publish", "rated:b")),
        [0, 111]
    );
    assert_eq!(
        codes(&mut world, one, 3, &in_channel("publish", "room:a")),
        [0; 3],
        "another"
    );
    assert_eq!(
        codes(&mut world, other, 2, &in_channel("publish", "rated:a")),
        [0, 0]
    );
    assert_eq!(
        codes(&mut world, one, 1, &in_channel("presence", "rated:a")),
        [0]
    );
    let stats = in_channel("presence_stats", "rated:a");
    assert_eq!(
        codes(&mut world, one, 1, &stats),
        [111],
        "they are of a kind"
    );
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("history", "rated:a")),
        [0, 111]
    );
    let over = world.workers[0].hub.counters().over_limit;
    for operation in Operation::ALL {
        let is_over = matches!(
            operation,
            Operation::Publish | Operation::PresenceStats | Operation::History
        );
        assert_eq!(
            over.namespace[operation.index()],
            u64::from(is_over),
            "{}",
            operation.name()
        );
    }
    assert_eq!(over.channel, [0; Operation::COUNT]);
    assert_eq!(over.client_command, [0; Operation::COUNT]);
    world.pass(Duration::from_millis(500));
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("publish", "rated:a")),
        [0, 111]
    );
}

#[test]
fn each_namespace_has_its_own() {
    let mut setup = rated(|options| options.publish_rate_for_client = rate("2/s"));
    let mut other = setup.channel.namespaces.last().unwrap().clone();
    other.name = "other".into();
    setup.channel.namespaces.push(other);
    let mut world = World::with(setup);
    let client = world.connect(0);
    for channel in ["rated:a", "other:a"] {
        let publish = in_channel("publish", channel);
        assert_eq!(
            codes(&mut world, client, 3, &publish),
            [0, 0, 111],
            "{channel}"
        );
    }
}

#[test]
fn a_channel_has_rates_for_all_together_whatever_their_worker() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_channel = rate("3/s");
        options.subscribe_rate_for_channel = rate("1/s");
    }));
    let (one, other) = (world.connect(0), world.connect(1));
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("publish", "rated:a")),
        [0, 0]
    );
    assert_eq!(
        codes(&mut world, other, 2, &in_channel("publish", "rated:a")),
        [0, 111]
    );
    assert_eq!(
        codes(&mut world, other, 3, &in_channel("publish", "rated:b")),
        [0; 3]
    );
    assert_eq!(
        codes(&mut world, one, 1, &in_channel("subscribe", "rated:a")),
        [0]
    );
    assert_eq!(
        codes(&mut world, other, 1, &in_channel("subscribe", "rated:a")),
        [111]
    );
    world.seconds(1);
    assert_eq!(
        codes(&mut world, other, 1, &in_channel("subscribe", "rated:a")),
        [0]
    );
    let over = world.workers[1].hub.counters().over_limit;
    assert_eq!(over.channel[Operation::Publish.index()], 1);
    assert_eq!(over.channel[Operation::Subscribe.index()], 1);
}

#[test]
fn who_may_not_do_it_takes_nothing_from_those_who_may() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_channel = rate("1/s");
        options.allow_publish_for_anonymous = false;
    }));
    let (stranger, user) = (world.connect(0), world.connect_as(0, "42"));
    assert_eq!(
        codes(&mut world, stranger, 9, &in_channel("publish", "rated:a")),
        [103; 9]
    );
    assert_eq!(
        codes(&mut world, user, 2, &in_channel("publish", "rated:a")),
        [0, 111]
    );
}

#[test]
fn who_comes_back_subscribes_to_everything_at_once() {
    let mut setup = rated(|options| options.subscribe_rate_for_client = rate("1/s"));
    setup.client.channel_limit = 5;
    let mut world = World::with(setup);
    let client = world.connect(0);
    for number in 0..5 {
        let subscribe = in_channel("subscribe", &format!("rated:{number}"));
        assert_eq!(codes(&mut world, client, 1, &subscribe), [0], "{number}");
    }
    codes(&mut world, client, 1, &in_channel("unsubscribe", "rated:0"));
    let again = in_channel("subscribe", "rated:0");
    assert_eq!(codes(&mut world, client, 2, &again), [0, 105]);
    codes(&mut world, client, 1, &in_channel("unsubscribe", "rated:0"));
    assert_eq!(codes(&mut world, client, 1, &again), [111]);
}

#[test]
fn rates_of_a_namespace_can_be_tried_out() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_client = rate("2/s");
        options.publish_rate_for_channel = rate("1/s");
        options.rates_dry_run = true;
    }));
    let client = world.connect(0);
    assert_eq!(
        codes(&mut world, client, 4, &in_channel("publish", "rated:a")),
        [0; 4]
    );
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!(over.namespace[Operation::Publish.index()], 2);
    assert_eq!(over.channel[Operation::Publish.index()], 3);
}

#[test]
fn so_it_has_for_what_is_only_read() {
    let mut world = World::with(rated(|options| {
        options.presence_rate_for_channel = rate("1/s");
        options.history_rate_for_channel = rate("1/s");
    }));
    let (one, other) = (world.connect_as(0, "1"), world.connect_as(1, "2"));
    for command in ["presence", "history"] {
        let command = json!({command: {"channel": "rated:a"}});
        assert_eq!(codes(&mut world, one, 1, &command), [0], "{command}");
        assert_eq!(codes(&mut world, other, 1, &command), [111], "{command}");
    }
    world.seconds(1);
    for command in ["presence", "history"] {
        let command = json!({command: {"channel": "rated:a"}});
        assert_eq!(codes(&mut world, other, 1, &command), [0], "{command}");
    }
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
fn a_channel_has_so_many_subscribers_of_all_workers() {
    for dry_run in [false, true] {
        let mut setup = Setup {
            dry_run,
            ..Setup::default()
        };
        setup.channel.without_namespace.max_subscribers = 2;
        let mut world = World::with(setup);
        let subscribe = |world: &mut World, client: Client, channel: &str| {
            let heard = world.tell(client, json!({"id": 2, "subscribe": {"channel": channel}}));
            heard.into_iter().find(|reply| reply["id"] == 2).unwrap()["error"].clone()
        };
        let clients = [0, 1, 0, 1].map(|worker| world.connect(worker));
        for client in &clients[..2] {
            assert_eq!(subscribe(&mut world, *client, "news"), Value::Null);
        }
        let error = subscribe(&mut world, clients[2], "news");
        let over = world.workers[0].hub.counters().over_limit.subscribers;
        if dry_run {
            assert_eq!((error, over), (Value::Null, [0, 1]));
            continue;
        }
        assert_eq!(over, [1, 0]);
        assert_eq!(error["code"], 106);
        let text = error["message"].as_str().unwrap();
        assert!(
            text.starts_with("limit exceeded: the channel has 2 subscribers"),
            "{text}"
        );
        assert_eq!(subscribe(&mut world, clients[2], "other"), Value::Null);
        assert_eq!(
            subscribe(&mut world, clients[2], "room:a"),
            Value::Null,
            "no limit"
        );
        // One leaves, and one goes.
        world.tell(
            clients[0],
            json!({"id": 3, "unsubscribe": {"channel": "news"}}),
        );
        assert_eq!(subscribe(&mut world, clients[3], "news"), Value::Null);
        assert_eq!(subscribe(&mut world, clients[0], "news")["code"], 106);
        world.drop_connection(clients[1]);
        assert_eq!(subscribe(&mut world, clients[0], "news"), Value::Null);
    }
}

/// What the options are when nobody says anything.
#[test]
fn channels_have_limits_where_nobody_has_set_any() {
    let options = NamespaceOptions::default();
    assert_eq!(options.publish_rate_for_channel, rate("10000/s"));
    assert_eq!(options.client_deliveries_per_second, 5_000_000);
    assert_eq!(options.max_subscribers, 250_000);
    // Connections enough that none of them meets its own limits, in one channel.
    let mut world = World::with(setup());
    let crowd: Vec<_> = (0..12).map(|index| world.connect(index % 2)).collect();
    let mut answers = Vec::new();
    for client in &crowd {
        answers.extend(codes(&mut world, *client, 1000, &publish()));
    }
    assert!(answers[..10_000].iter().all(|code| *code == 0));
    assert!(answers[10_000..].iter().all(|code| *code == 111));
    assert_eq!(
        codes(
            &mut world,
            crowd[0],
            1,
            &json!({"publish": {"channel": "other", "data": 1}})
        ),
        [0]
    );
    let over = |worker: usize| world.workers[worker].hub.counters().over_limit;
    let refused = [0, 1].map(|worker| over(worker).channel[Operation::Publish.index()]);
    assert_eq!(refused, [1000, 1000]);
}

/// A publication to many costs more than one to few, whichever worker they are on and whoever has subscribed them.
#[test]
fn what_clients_publish_may_come_to_so_many_deliveries() {
    for dry_run in [false, true] {
        let mut world = World::with(rated(|options| {
            options.client_deliveries_per_second = 10;
            options.rates_dry_run = dry_run;
        }));
        let publisher = world.connect(0);
        let crowd: Vec<_> = (0..4).map(|index| world.connect(index % 2)).collect();
        for client in &crowd {
            codes(&mut world, *client, 1, &in_channel("subscribe", "rated:a"));
        }
        let one = in_channel("publish", "rated:a");
        // Two seconds' worth at once, four for each.
        let refused = if dry_run { 0 } else { 111 };
        assert_eq!(
            codes(&mut world, publisher, 7, &one),
            [0, 0, 0, 0, 0, refused, refused],
        );
        let over = world.workers[0].hub.counters().over_limit.deliveries;
        if dry_run {
            assert_eq!(over, [0, 2]);
            continue;
        }
        assert_eq!(over, [2, 0]);
        assert_eq!(
            codes(&mut world, publisher, 9, &in_channel("publish", "rated:b")),
            [0; 9],
            "nobody is there"
        );
        world.pass(Duration::from_millis(400));
        assert_eq!(codes(&mut world, publisher, 2, &one), [0, 111]);
        // With half of them gone it comes to half as many.
        for client in &crowd[..2] {
            world.drop_connection(*client);
        }
        world.pass(Duration::from_millis(400));
        assert_eq!(codes(&mut world, publisher, 3, &one), [0, 0, 111]);
        let heard = world.tell(publisher, {
            let mut command = one.clone();
            command["id"] = json!(3);
            command
        });
        let text = heard[0]["error"]["message"].as_str().unwrap();
        assert!(
            text.contains("client_deliveries_per_second allows (10)"),
            "{text}"
        );
    }
}

/// More subscribers than may be reached in all the time that counts.
#[test]
fn a_crowd_of_any_size_is_told_something_now_and_then() {
    let mut world = World::with(rated(|options| options.client_deliveries_per_second = 1));
    let publisher = world.connect(0);
    for index in 0..4 {
        let client = world.connect(index % 2);
        codes(&mut world, client, 1, &in_channel("subscribe", "rated:a"));
    }
    let one = in_channel("publish", "rated:a");
    assert_eq!(codes(&mut world, publisher, 2, &one), [0, 111]);
    world.seconds(3);
    assert_eq!(codes(&mut world, publisher, 1, &one), [111]);
    world.seconds(1);
    assert_eq!(codes(&mut world, publisher, 2, &one), [0, 111]);
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
