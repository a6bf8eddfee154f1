//! What is in a page of history, and how long caches may keep it.

use crate::emulation::WORKERS;
use crate::http::get;
use crate::process::Server;

fn serve(name: &str, doors: &str) -> Server {
    let may_read = "allow_history_for_client = true\nallow_history_for_anonymous = true\n";
    let server = Server::serve(name, &format!("{WORKERS}{may_read}\n[doors]\n{doors}\n"));
    for data in DATA {
        server.api("publish", &format!(r#"{{"channel":"a","data":{data}}}"#));
    }
    server
}

/// What no parser gives back as it was.
const DATA: [&str; 4] = [
    r#"{"text":"first","a":12345678901234567890123456789}"#,
    r#"{"z":1,"z":2,"a":0.1000000000000000000000000000001}"#,
    r#"[1e999,-0,"\u0041\/"]"#,
    r#"{"last" : [ ]}"#,
];

#[test]
fn data_is_what_was_published_to_the_byte() {
    let server = serve("history-bytes", "");
    let page = get(&server, "/history?channel=a").rest();
    for data in DATA {
        assert!(page.contains(&format!("\"data\":{data}")), "{page}");
    }
}

#[test]
fn how_long_caches_keep_a_page_is_an_option() {
    for (doors, expected) in [
        ("", "public, max-age=3600, immutable"),
        ("history_max_age = \"90s\"", "public, max-age=90, immutable"),
        ("history_max_age = \"0s\"", "public, max-age=1"),
    ] {
        let server = serve("history-age", doors);
        let first = get(&server, "/history?channel=a&limit=1").rest();
        let (_, next) = first.split_once("\"next\":\"").expect("a position");
        let (next, _) = next.split_once('"').expect("its end");
        let page = get(&server, &format!("/history?channel=a&limit=2&since={next}"));
        assert_eq!(page.header("cache-control"), Some(expected), "{doors}");
        // One that isn't full changes with the next publication.
        let last = get(&server, &format!("/history?channel=a&limit=9&since={next}"));
        assert_eq!(last.header("cache-control"), Some("public, max-age=1"));
    }
}
