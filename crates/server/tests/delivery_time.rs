//! How long publications take is told by a histogram.

#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};

use process::{Server, wait_until};

fn metrics(server: &Server) -> String {
    let mut stream = server.connect();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("it listens");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    page
}

fn number(page: &str, name: &str) -> f64 {
    let name = format!("tautline_publication_delivery_duration_seconds{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.expect("it is there").parse().expect("a number")
}

#[test]
fn publications_are_timed_and_what_is_no_publication_is_not() {
    let config = "[node]\nworkers = 1\n[prometheus]\nenabled = true\n[http_api]\nkey = \"dev\"\n[client]\n\
        allow_anonymous_connect_without_token = true\n[channel.without_namespace]\n\
        allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n";
    let server = Server::serve("delivery-time", config);
    let mut stream = server.connect();
    write!(
        stream,
        "GET /events?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    .expect("it listens");
    wait_until("it is subscribed", || {
        let stats = server.api("channels", "{}");
        stats.contains("\"a\"").then_some(())
    });
    assert_eq!(number(&metrics(&server), "_count"), 0.0);
    for _ in 0..300 {
        server.api("publish", "{\"channel\":\"a\",\"data\":1}");
    }
    let page = metrics(&server);
    let count = number(&page, "_count");
    assert!((4.0..=10.0).contains(&count), "{count}");
    assert_eq!(number(&page, "_bucket{le=\"+Inf\"}"), count);
    let sum = number(&page, "_sum");
    assert!(sum > 0.0 && sum < 30.0, "{sum}");
}
