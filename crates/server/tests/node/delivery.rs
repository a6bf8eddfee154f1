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

/// However much is hidden from a client: what is behind it is found, and what the client asks for next comes
/// next.
#[test]
fn a_page_of_history_is_looked_for_behind_all_that_is_hidden() {
    let server = Server::serve(
        "hidden",
        "[client]\nallow_anonymous_connect_without_token = true\n\
         [http_api]\nkey = \"dev\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
         allow_history_for_client = true\nallow_history_for_anonymous = true\n\
         history_size = 20000\nhistory_ttl = \"1h\"\n\
         server_tags_filter = '{\"key\":\"for\",\"cmp\":\"eq\",\"val\":\"all\"}'\n",
    );
    let hidden = [r#"{"publish":{"channel":"log","data":1}}"#; 1000].join(",");
    let hidden = format!(r#"{{"commands":[{hidden}]}}"#);
    for _ in 0..11 {
        server.api("batch", &hidden);
    }
    server.api(
        "publish",
        r#"{"channel":"log","data":"found","tags":{"for":"all"}}"#,
    );
    let mut client = Client::subscribed(&server, "log");
    client.send("{\"id\":3,\"history\":{\"channel\":\"log\",\"limit\":5}}\n{\"id\":4,\"history\":{\"channel\":\"log\"}}");
    let page = client.text();
    assert!(page.starts_with(r#"{"id":3,"#), "{page}");
    assert!(page.contains(r#""data":"found""#), "{page}");
    assert!(page.contains(r#""offset":11001"#), "{page}");
    let position = client.text();
    assert!(position.starts_with(r#"{"id":4,"#), "{position}");
    client.send(r#"{"id":5,"history":{"channel":"log"}}"#);
    assert!(client.text().starts_with(r#"{"id":5,"#));
}

/// What some can't keep up with, the others have at once; and each slow one comes out as its channel's
/// policy says: with everything, or with the newest.
#[test]
fn a_few_slow_readers_among_many_fast_ones() {
    let server = Server::serve(
        "mixed",
        "[client]\nallow_anonymous_connect_without_token = true\n\
         [http_api]\nkey = \"dev\"\n\
         [[channel.namespaces]]\nname = \"news\"\nallow_subscribe_for_client = true\n\
         allow_subscribe_for_anonymous = true\nhistory_size = 1000\nhistory_ttl = \"1h\"\nforce_recovery = true\n\
         [[channel.namespaces]]\nname = \"price\"\nallow_subscribe_for_client = true\n\
         allow_subscribe_for_anonymous = true\nhistory_size = 1000\nhistory_ttl = \"1h\"\n\
         slow_consumer = \"latest\"\n",
    );
    const PUBLICATIONS: usize = 300;
    let several = |channel: &str, count: usize| -> Vec<_> {
        (0..count)
            .map(|_| Client::subscribed(&server, channel))
            .collect()
    };
    let mut slow = several("news:a", 3);
    let mut conflated = several("price:a", 3);
    let mut fast = several("news:a", 15);
    fast.append(&mut several("price:a", 15));
    let filling = "x".repeat(40_000);
    // In all more than any socket buffer holds.
    for number in 0..PUBLICATIONS {
        let data = format!(r#"{{"n":{number},"f":"{filling}"}}"#);
        let publish = format!(r#"{{"channels":["news:a","price:a"],"data":{data}}}"#);
        server.api("broadcast", &publish);
        for client in &mut fast {
            assert_eq!(number_in(&client.text()), number, "a fast reader's next");
        }
    }
    for client in &mut slow {
        for number in 0..PUBLICATIONS {
            assert_eq!(number_in(&client.text()), number, "a parked reader's next");
        }
    }
    for client in &mut conflated {
        let mut heard = vec![number_in(&client.text())];
        while heard.last() != Some(&(PUBLICATIONS - 1)) {
            heard.push(number_in(&client.text()));
        }
        assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
        assert!(heard.len() < PUBLICATIONS, "nothing was left out");
    }
}

/// The number of the publication in a push.
fn number_in(push: &str) -> usize {
    let (_, behind) = push.split_once(r#""n":"#).expect("a publication");
    let digits = behind.split(',').next().expect("a number");
    digits.parse().expect("a number")
}

/// It waits for more of its kind, and for nothing else: what a client asks for is answered meanwhile.
#[test]
fn what_others_publish_may_wait_and_comes_all_the_same() {
    let config = "[node]\nworkers = 2\n\
                  [client]\nwrite_delay = \"1s\"\nallow_anonymous_connect_without_token = true\n\
                  [channel.without_namespace]\nallow_subscribe_for_client = true\n\
                  allow_subscribe_for_anonymous = true\nallow_publish_for_client = true\n\
                  allow_publish_for_anonymous = true\n";
    let server = Server::serve("write-delay", config);
    let mut readers: Vec<_> = (0..4)
        .map(|_| Client::subscribed(&server, "news"))
        .collect();
    let mut publisher = Client::connected(&server);
    for number in 0..100 {
        let publish = format!(r#"{{"id":9,"publish":{{"channel":"news","data":{number}}}}}"#);
        publisher.send(&publish);
        assert_eq!(publisher.text(), r#"{"id":9,"publish":{}}"#);
    }
    for reader in &mut readers {
        for number in 0..100 {
            let text = reader.text();
            assert!(
                text.contains(&format!(r#""data":{number},"#)),
                "{number}: {text}"
            );
        }
    }
}

/// One worker, which writes what is published before it says so, unless that may wait.
#[test]
fn what_is_published_waits_for_more_where_the_options_say_so() {
    let config = |delay: &str| {
        format!(
            "[node]\nworkers = 1\n[http_api]\nkey = \"dev\"\n\
             [client]\n{delay}allow_anonymous_connect_without_token = true\n\
             [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n"
        )
    };
    let mut server = Server::serve("write-waits", &config(""));
    let has_waited = |server: &Server| {
        let mut reader = Client::subscribed(server, "news");
        server.api("publish", r#"{"channel":"news","data":1}"#);
        reader.stream.set_nonblocking(true).expect("it can be");
        let is_there = reader.stream.peek(&mut [0]).is_ok();
        reader.stream.set_nonblocking(false).expect("it can be");
        assert!(reader.text().contains(r#""data":1"#));
        !is_there
    };
    assert!((0..20).all(|_| !has_waited(&server)));
    server.reload(&config("write_delay = \"1s\"\n"));
    wait_until("one has waited", || has_waited(&server).then_some(()));
}
