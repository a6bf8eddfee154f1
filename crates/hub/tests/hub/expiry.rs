//! Connections and subscriptions with an end, and how they are prolonged.

use std::time::Duration;

use serde_json::json;
use tautline_hub::engine::testkit::DelayOptions;

use crate::recovery::pass_with_pongs;
use crate::support::{Setup, Worker, World, channel_token, token};

#[test]
fn a_connection_that_is_not_refreshed_ends_with_some_patience() {
    let mut world = World::new();
    let client = world.connect_with(0, &token("7", Some(30)));
    pass_with_pongs(&mut world, &[client], 54);
    assert_eq!(world.closed(client), None);
    world.seconds(2);
    assert_eq!(world.closed(client), Some((3005, true)));
}

#[test]
fn a_refreshed_connection_lives_on() {
    let mut world = World::new();
    let client = world.connect_with(0, &token("7", Some(30)));
    pass_with_pongs(&mut world, &[client], 40);
    let refresh = token("7", Some(100));
    let heard = world.tell(client, json!({"id": 2, "refresh": {"token": refresh}}));
    assert_eq!(
        heard,
        [json!({"id": 2, "refresh": {"expires": true, "ttl": 60}})]
    );
    pass_with_pongs(&mut world, &[client], 80);
    assert_eq!(world.closed(client), None);
    let heard = world.tell(
        client,
        json!({"id": 3, "refresh": {"token": token("7", None)}}),
    );
    assert_eq!(heard, [json!({"id": 3, "refresh": {}})]);
    pass_with_pongs(&mut world, &[client], 1000);
    assert_eq!(world.closed(client), None, "no more end");
}

#[test]
fn a_refresh_must_be_genuine() {
    let mut world = World::new();
    for (refresh, code) in [
        (String::new(), 3501),
        (token("7", Some(0)), 3005),
        ("garbage".into(), 3500),
        (token("8", None), 3500),
    ] {
        let client = world.connect_with(0, &token("7", Some(30)));
        world.send(
            client,
            &json!({"id": 2, "refresh": {"token": refresh}}).to_string(),
        );
        assert_eq!(world.closed(client).map(|(code, _)| code), Some(code));
    }
}

#[test]
fn a_subscription_that_is_not_refreshed_ends_with_some_patience() {
    let mut world = World::new();
    let client = world.connect_as(0, "7");
    let request = json!({"channel": "$x", "token": channel_token("7", "$x", Some(30))});
    world.tell(client, json!({"id": 2, "subscribe": request}));
    pass_with_pongs(&mut world, &[client], 54);
    assert!(world.heard(client).is_empty());
    pass_with_pongs(&mut world, &[client], 2);
    let unsubscribe = json!({"code": 2501, "reason": "subscription expired"});
    assert_eq!(
        world.heard(client),
        [json!({"push": {"channel": "$x", "unsubscribe": unsubscribe}})]
    );
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
    assert_eq!(world.closed(client), None);
}

#[test]
fn a_refreshed_subscription_lives_on() {
    let mut world = World::new();
    let client = world.connect_as(0, "7");
    let request = json!({"channel": "$x", "token": channel_token("7", "$x", Some(30))});
    world.tell(client, json!({"id": 2, "subscribe": request}));
    pass_with_pongs(&mut world, &[client], 20);
    let refresh = |world: &mut World, token: String| {
        world.tell(
            client,
            json!({"id": 3, "sub_refresh": {"channel": "$x", "token": token}}),
        )
    };
    let heard = refresh(&mut world, channel_token("7", "$x", Some(80)));
    assert_eq!(
        heard,
        [json!({"id": 3, "sub_refresh": {"expires": true, "ttl": 60}})]
    );
    pass_with_pongs(&mut world, &[client], 70);
    let heard = refresh(&mut world, channel_token("7", "$x", Some(1)));
    let error = json!({"code": 109, "message": "token expired", "temporary": true});
    assert_eq!(
        heard,
        [json!({"id": 3, "error": error})],
        "the client is to try again"
    );
    assert_eq!(world.workers[0].hub.stats().subscriptions, 1);
    let heard = refresh(&mut world, channel_token("7", "$x", None));
    assert_eq!(heard, [json!({"id": 3, "sub_refresh": {}})]);
    pass_with_pongs(&mut world, &[client], 1000);
    assert_eq!(world.workers[0].hub.stats().subscriptions, 1, "no more end");
}

#[test]
fn a_subscription_refresh_must_be_genuine() {
    let mut world = World::new();
    for (request, code) in [
        (
            json!({"channel": "other", "token": channel_token("7", "other", None)}),
            103,
        ),
        (json!({"channel": "$x", "token": ""}), 107),
        (json!({"channel": "$x", "type": 1}), 108),
        (json!({"channel": "$x", "token": "garbage"}), 3500),
        (
            json!({"channel": "$x", "token": channel_token("8", "$x", None)}),
            3500,
        ),
        (
            json!({"channel": "$x", "token": channel_token("7", "$y", None)}),
            3500,
        ),
        (json!({}), 3501),
    ] {
        let client = world.connect_as(0, "7");
        let subscribe = json!({"channel": "$x", "token": channel_token("7", "$x", Some(30))});
        world.tell(client, json!({"id": 2, "subscribe": subscribe}));
        let heard = world.tell(client, json!({"id": 3, "sub_refresh": request}));
        let error = heard
            .first()
            .and_then(|message| message["error"]["code"].as_u64());
        let closed = world.closed(client).map(|(code, _)| u64::from(code));
        assert_eq!(error.or(closed), Some(code), "{request}");
    }
}

/// An engine that is silent for longer than the token lives: the client is told in the right order.
#[test]
fn a_subscription_that_expires_before_it_begins() {
    let delays = Some(DelayOptions {
        at_once: 0,
        failures: 0,
    });
    let mut setup = Setup {
        delays,
        ..Setup::default()
    };
    setup.client.ping_interval = Duration::ZERO;
    let mut world = World::with(setup);
    let client = world.connect_as(0, "7");
    let request = json!({"channel": "$room:x", "token": channel_token("7", "$room:x", Some(1))});
    world.send_only(client, &json!({"id": 2, "subscribe": request}).to_string());
    world.now.monotonic += Duration::from_secs(40);
    let Worker { hub, out, .. } = &mut world.workers[0];
    hub.on_deadline(world.now, out);
    assert!(world.heard(client).is_empty(), "nothing is known yet");
    world.settle();
    let heard = world.heard(client);
    let kinds: Vec<_> = heard
        .iter()
        .map(|message| {
            let code = &message["push"]["unsubscribe"]["code"];
            (message["id"].as_u64(), code.as_u64())
        })
        .collect();
    assert_eq!(kinds, [(Some(2), None), (None, Some(2501))], "{heard:?}");
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
    world.settle();
    assert!(world.members("$room:x").is_empty());
}

#[test]
fn patience_is_what_the_options_say() {
    let mut setup = Setup::default();
    setup.client.ping_interval = Duration::ZERO;
    setup.client.expired_close_delay = Duration::from_secs(3);
    setup.client.expired_sub_close_delay = Duration::from_secs(7);
    let mut world = World::with(setup);
    let client = world.connect_with(0, &token("7", Some(30)));
    let subscriber = world.connect_as(0, "7");
    let request = json!({"channel": "$x", "token": channel_token("7", "$x", Some(30))});
    world.tell(subscriber, json!({"id": 2, "subscribe": request}));
    world.seconds(32);
    assert_eq!(world.closed(client), None);
    world.seconds(2);
    assert_eq!(world.closed(client), Some((3005, true)));
    world.seconds(2);
    assert!(world.heard(subscriber).is_empty());
    world.seconds(2);
    assert_eq!(
        world.heard(subscriber)[0]["push"]["unsubscribe"]["code"],
        2501
    );
}

#[test]
fn who_never_connects_has_the_time_of_the_options() {
    for (option, seconds) in [(None, 10), (Some(5), 5)] {
        let mut setup = Setup::default();
        if let Some(option) = option {
            setup.client.stale_close_delay = Duration::from_secs(option);
        }
        let mut world = World::with(setup);
        let client = world.open(0);
        world.seconds(seconds - 1);
        assert_eq!(world.closed(client), None, "{option:?}");
        world.seconds(2);
        assert!(world.closed(client).is_some(), "{option:?}");
    }
}
