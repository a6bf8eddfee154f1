//! Publications on their way to readers of several workers, slow ones among them.

use std::io::Read;

use crate::client::Client;
use crate::process::{Server, wait_until};

/// Sixteen subscribers, which the kernel spreads over all workers; two publishers at once, each on
/// a worker of its own or not.
#[test]
fn every_worker_sees_a_channel_in_the_same_order() {
    let server = Server::dev();
    let mut subscribers: Vec<_> = (0..16)
        .map(|_| Client::subscribed(&server, "order"))
        .collect();
    // Until all have subscribed, the first ones also see who joins.
    std::thread::scope(|scope| {
        for publisher in 0..2 {
            let server = &server;
            scope.spawn(move || {
                for number in 0..200 {
                    server.api(
                        "publish",
                        &format!(r#"{{"channel":"order","data":[{publisher},{number}]}}"#),
                    );
                }
            });
        }
    });
    let mut orders = subscribers.iter_mut().map(|client| {
        let mut seen = Vec::new();
        while seen.len() < 400 {
            let push = client.text();
            if let Some((_, publication)) = push.split_once(r#""pub":"#) {
                assert!(
                    publication.contains(&format!(r#""offset":{}"#, seen.len() + 1)),
                    "{push}"
                );
                seen.push(push);
            }
        }
        seen
    });
    let first = orders.next().unwrap();
    assert!(orders.all(|order| order == first));
}

#[test]
fn info_counts_users_and_channels_once() {
    let server = Server::dev();
    let _clients: Vec<_> = (0..8)
        .map(|_| Client::subscribed(&server, "news"))
        .collect();
    let info = server.api("info", "{}");
    for count in [
        r#""num_clients":8"#,
        r#""num_users":1"#,
        r#""num_channels":1"#,
        r#""num_subs":8"#,
    ] {
        assert!(info.contains(count), "{count} in {info}");
    }
}

#[test]
fn a_reader_that_is_too_slow_hurts_itself_only() {
    let server = Server::serve(
        "slow",
        "[client]\nallow_anonymous_connect_without_token = true\nqueue_max_size = 65536\n\
         [http_api]\nkey = \"dev\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n",
    );
    let mut slow = Client::subscribed(&server, "flood");
    let mut fast = Client::subscribed(&server, "flood");
    let publish = format!(r#"{{"channel":"flood","data":"{}"}}"#, "x".repeat(64_000));
    // More than any socket buffer holds.
    for _ in 0..300 {
        server.api("publish", &publish);
        assert!(fast.text().len() > 64_000);
    }
    wait_until("the slow one is gone", || {
        server
            .api("info", "{}")
            .contains(r#""num_clients":1"#)
            .then_some(())
    });
    let mut rest = Vec::new();
    // Ends with the end of the stream or with a reset; either way it ends.
    let _ = slow.stream.read_to_end(&mut rest);
    assert!(rest.len() < 300 * 64_000);
    server.api("publish", &publish);
    assert!(fast.text().len() > 64_000);
}

#[test]
fn a_reader_that_is_too_slow_misses_nothing_where_there_is_history() {
    let server = Server::serve(
        "parked",
        "[client]\nallow_anonymous_connect_without_token = true\n\
         [http_api]\nkey = \"dev\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
         history_size = 1000\nhistory_ttl = \"1h\"\nforce_recovery = true\n",
    );
    let mut slow = Client::subscribed(&server, "flood");
    let mut fast = Client::subscribed(&server, "flood");
    let filling = "x".repeat(64_000);
    let numbered = |number: usize| format!(r#""{number} {filling}""#);
    // More than any socket buffer holds.
    for number in 0..300 {
        let publish = format!(r#"{{"channel":"flood","data":{}}}"#, numbered(number));
        server.api("publish", &publish);
        assert!(fast.text().contains(&numbered(number)));
    }
    assert!(server.api("info", "{}").contains(r#""num_clients":2"#));
    for number in 0..300 {
        assert!(slow.text().contains(&numbered(number)), "{number}");
    }
    server.api("publish", r#"{"channel":"flood","data":"live"}"#);
    assert!(slow.text().contains("live"));
}
