//! What `/ws` is, over long-polling.

use serde_json::{Value, json};

use crate::emulation::WORKERS;
use crate::http::{Response, post, send};
use crate::plain_tokens::{guarded, token};
use crate::process::{Server, Wait};

const PATH: &str = "/connection/poll";

/// A page's session.
struct Page<'s> {
    server: &'s Server,
    session: String,
    next: u64,
    sent: u64,
    /// What was said so far.
    said: Vec<String>,
    /// The last word, with its code.
    end: Option<(u64, String)>,
}

fn ask(server: &Server, fields: &str, head: &Value, data: &str) -> Response {
    let body = format!("{head}\n{data}");
    let head = format!("POST {PATH} HTTP/1.1\r\nContent-Type: text/plain{fields}");
    send(server, &head, body.as_bytes())
}

impl<'s> Page<'s> {
    fn open(server: &'s Server, fields: &str, query: &str, protocols: &[&str]) -> Self {
        let head = json!({"open": 1, "ws": query, "protocols": protocols});
        let response = ask(server, fields, &head, "");
        assert_eq!(response.status, 200, "{}", response.head);
        let told: Value = serde_json::from_str(&response.rest()).expect("a head");
        assert_eq!(told["next"], 0);
        Self {
            server,
            session: told["session"].as_str().expect("a name").to_owned(),
            next: 0,
            sent: 0,
            said: Vec::new(),
            end: None,
        }
    }

    /// Polls until so much was said in all, or the session is over.
    fn hear(&mut self, count: usize) -> &[String] {
        let wait = Wait::new("what the page waits for");
        while self.said.len() < count && self.end.is_none() {
            wait.go_on();
            let head = json!({"session": self.session, "poll": self.next, "hold": 1});
            let body = ask(self.server, "", &head, "").rest();
            let (head, messages) = body.split_once('\n').expect("a head");
            let head: Value = serde_json::from_str(head).expect("a head");
            self.next = head["next"].as_u64().expect("a number");
            let messages = messages.lines().filter(|line| !line.is_empty());
            self.said.extend(messages.map(str::to_owned));
            if let Some(code) = head["end"]["code"].as_u64() {
                let reason = head["end"]["reason"].as_str().expect("a reason");
                self.end = Some((code, reason.to_owned()));
            }
        }
        &self.said
    }

    fn closed(&mut self) -> (u64, String) {
        self.hear(usize::MAX);
        self.end.clone().expect("it is over")
    }

    fn send(&mut self, lines: &str) {
        self.sent += 1;
        let head = json!({"session": self.session, "send": self.sent});
        assert_eq!(ask(self.server, "", &head, lines).status, 204);
    }
}

#[test]
fn it_says_and_takes_what_a_websocket_does() {
    let server = Server::dev();
    let mut page = Page::open(&server, "", "channel=a&envelope=1", &[]);
    let told: Value = serde_json::from_str(&page.hear(1)[0]).expect("JSON");
    let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(
        told,
        json!({"event": "subscribed", "channel": "a", "offset": 0, "epoch": epoch})
    );
    // Each line is a message; data is never read, so that numbers stay what they are.
    page.send("{\"channel\":\"a\",\"data\":9007199254740993}\n{\"channel\":\"a\",\"data\":[1, 2]}");
    // Behind the data stands who has published.
    let begins = |said: &str, offset: u64, data: &str| {
        let begin =
            format!(r#"{{"channel":"a","offset":{offset},"epoch":"{epoch}","data":{data},"info""#);
        assert!(said.starts_with(&begin), "{said}");
    };
    let said = &page.hear(3)[1..];
    begins(&said[0], 1, "9007199254740993");
    begins(&said[1], 2, "[1, 2]");

    let query = format!("channel=a&since=1,{epoch}");
    let mut since = Page::open(&server, "", &query, &["tautline"]);
    assert_eq!(since.hear(1), ["[1, 2]"]);
    // What stands before it is still done, and nothing behind it.
    since.send("3\nno JSON\n4");
    let (code, reason) = since.closed();
    assert_eq!(code, 4107, "{reason}");
    assert!(reason.contains("expected JSON"), "{reason}");
    begins(&page.hear(4)[3], 3, "3");
    page.send(r#"{"channel":"a","data":5}"#);
    begins(&page.hear(5)[4], 4, "5");

    let mut gone = Page::open(&server, "", "channel=a&since=1,other", &[]);
    let (code, reason) = gone.closed();
    assert_eq!(code, 4112, "{reason}");
    assert!(reason.contains("not kept any more"), "{reason}");
}

#[test]
fn a_token_comes_by_every_way_that_it_may() {
    let server = guarded("plain-poll-token");
    let token = token("");
    let own = format!("\r\nOrigin: http://{}", server.address);
    let offered = format!("tautline.token.{token}");
    for (fields, query, protocols) in [
        (String::new(), format!("&token={token}"), vec![]),
        (String::new(), String::new(), vec!["tautline", &*offered]),
        (
            format!("\r\nCookie: tautline_token={token}"),
            String::new(),
            vec![],
        ),
        (
            format!("\r\nCookie: tautline_token={token}{own}"),
            String::new(),
            vec![],
        ),
    ] {
        let query = format!("channel=t&envelope=1{query}");
        let mut page = Page::open(&server, &fields, &query, &protocols);
        assert!(page.hear(1)[0].contains("subscribed"), "{:?}", page.end);
    }
    let mut nobody = Page::open(&server, "", "channel=t", &[]);
    assert_eq!(nobody.closed().0, 3501);
}

#[test]
fn a_cookie_does_nothing_for_pages_that_only_a_star_lets_in() {
    let config = "hmac_secret_key = \"a secret that is long enough for the tests\"";
    let config = WORKERS
        .replace(
            "allow_anonymous_connect_without_token = true",
            "allowed_origins = [\"*\"]",
        )
        .replace(
            "[http_api]",
            &format!("[client.token]\n{config}\n[http_api]"),
        );
    let server = Server::serve("plain-poll-cookie", &config);
    let token = token("");
    for page in ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"] {
        let fields = format!("\r\nCookie: tautline_token={token}\r\n{page}");
        let mut page = Page::open(&server, &fields, "channel=t&envelope=1", &[]);
        assert_eq!(page.closed().0, 3501, "{fields}");
        assert!(page.said.is_empty());
    }
}

#[test]
fn what_can_not_be_is_refused_before_there_is_a_session() {
    let server = Server::dev();
    for (query, part) in [
        ("", "expected a channel"),
        ("chanel=a", "no parameter `chanel`"),
        ("channel=a&channel=a", "twice"),
        ("channel=a&since=zzz", "offset,epoch"),
    ] {
        let response = ask(&server, "", &json!({"open": 1, "ws": query}), "");
        assert_eq!(response.status, 400, "{query}");
        let text = response.rest();
        assert!(text.contains(part), "{query}: {text}");
    }
    let head = json!({"open": 1, "ws": "channel=a"});
    let body = format!("{head}\n{{}}");
    let response = post(&server, PATH, "text/plain", body.as_bytes());
    assert_eq!(response.status, 400);
    let binary = head.to_string();
    let response = post(&server, PATH, "application/octet-stream", binary.as_bytes());
    assert_eq!(response.status, 400);

    let shut = format!("{WORKERS}\n[doors]\nplain = false\n");
    let shut = Server::serve("plain-poll-shut", &shut);
    assert_eq!(ask(&shut, "", &head, "").status, 404);
}
