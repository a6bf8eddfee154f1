//! The unidirectional forms of the protocol.

use std::io::{Read as _, Write as _};

use serde_json::json;
use tautline_auth::{Signer, TokenClaims};

use crate::emulation::WORKERS;
use crate::http::{emulate, get, post, send};
use crate::process::{Server, wait_until};
use crate::socket::{Said, Socket};

const KIND: &str = "application/json";

#[test]
fn pushes_come_alone() {
    let server = Server::dev();
    let request = br#"{"subs":{"uni":{}}}"#;
    let mut stream = post(&server, "/connection/uni_http_stream", KIND, request);
    assert_eq!(stream.status, 200);
    let connect = stream.message();
    let connect = &connect["connect"];
    assert!(connect["client"].is_string(), "{connect}");
    assert!(connect["subs"]["uni"].is_object(), "{connect}");
    assert!(
        connect["ping"].is_number() && connect["pong"].is_null(),
        "{connect}"
    );
    assert!(
        connect["session"].is_string() && connect["node"].is_null(),
        "{connect}"
    );
    let session = connect["session"].as_str().expect("a name").to_owned();

    let parameter = "%7B%22subs%22%3A%7B%22uni%22%3A%7B%7D%7D%7D";
    let path = format!("/connection/uni_sse?cf_connect={parameter}");
    let mut events = get(&server, &path);
    assert_eq!(events.until(b"\r\n").as_deref(), Some(&b"\r\n"[..]));
    assert!(events.data()["connect"]["client"].is_string());

    server.api("publish", r#"{"channel":"uni","data":{"n":1}}"#);
    let expected = json!({"channel": "uni", "pub": {"data": {"n": 1}, "offset": 1}});
    let publication = |mut next: Box<dyn FnMut() -> serde_json::Value + '_>| {
        wait_until("the publication", || {
            let message = next();
            message["pub"].is_object().then_some(message)
        })
    };
    assert_eq!(publication(Box::new(|| stream.message())), expected);
    assert_eq!(publication(Box::new(|| events.data())), expected);
    // Nobody sends commands to what goes one way.
    assert_eq!(emulate(&server, &session, "", "{}").status, 404);
}

#[test]
fn an_empty_request_will_do() {
    let server = Server::dev();
    for body in ["", "null", "{}"] {
        let mut stream = post(
            &server,
            "/connection/uni_http_stream",
            KIND,
            body.as_bytes(),
        );
        assert!(stream.message()["connect"].is_object(), "{body}");
    }
    let mut events = get(&server, "/connection/uni_sse");
    events.until(b"\r\n");
    assert!(events.data()["connect"].is_object());
    for body in ["1", "{", "{}}\n{\"id\":2,\"rpc\":{}}"] {
        let answer = post(
            &server,
            "/connection/uni_http_stream",
            KIND,
            body.as_bytes(),
        );
        assert_eq!(answer.status, 400, "{body}");
    }
}

#[test]
fn who_may_not_connect_is_told_so() {
    let config = WORKERS.replace("allow_anonymous_connect_without_token = true", "");
    let server = Server::serve("uni-refused", &config);
    for (token, code) in [("", 3501), ("x", 3500)] {
        let body = json!({"token": token}).to_string();
        let mut stream = post(
            &server,
            "/connection/uni_http_stream",
            KIND,
            body.as_bytes(),
        );
        let disconnect = &stream.message()["disconnect"];
        assert_eq!(disconnect["code"], code, "{disconnect}");
        assert_eq!(stream.line(), None);
    }
}

#[test]
fn pings_need_no_answer() {
    let config = WORKERS.replace(
        "[client]",
        "[client]\nping_interval = \"1s\"\npong_timeout = \"500ms\"",
    );
    let server = Server::serve("uni-pings", &config);
    let mut stream = post(&server, "/connection/uni_http_stream", KIND, b"{}");
    assert!(stream.message()["connect"].is_object());
    for _ in 0..3 {
        assert_eq!(stream.line(), Some(json!({})));
    }
}

/// What a backend knows of such a WebSocket may be its session alone, too. Nobody sends commands by it.
#[test]
fn a_backend_finds_a_websocket_by_its_session() {
    let server = Server::serve("uni-socket-session", WORKERS);
    let path = "/connection/uni_websocket?cf_connect={}";
    let open = || {
        let mut socket = Socket::open(&server, path, "").expect("a socket");
        let connect = socket.json();
        assert!(connect["connect"]["node"].is_null(), "{connect}");
        let session = connect["connect"]["session"].as_str();
        let session = session.unwrap_or_else(|| panic!("no name: {connect}"));
        (socket, session.to_owned())
    };
    let ((mut meant, session), (mut other, _)) = (open(), open());
    let call = json!({"user": "", "session": session, "channel": "uni"});
    server.api("subscribe", &call.to_string());
    let push = wait_until("the subscription", || {
        let message = meant.json();
        message["subscribe"].is_object().then_some(message)
    });
    assert_eq!(push["channel"], "uni");
    assert_eq!(emulate(&server, &session, "", "{}").status, 404);
    let call =
        json!({"user": "", "session": session, "disconnect": {"code": 4501, "reason": "bye"}});
    server.api("disconnect", &call.to_string());
    let end = json!({"disconnect": {"code": 4501, "reason": "bye"}});
    wait_until("the end", || (meant.json() == end).then_some(()));
    server.api("publish", r#"{"channel": "uni", "data": 1}"#);
    let call = json!({"user": "", "disconnect": {"code": 4502, "reason": "all"}});
    server.api("disconnect", &call.to_string());
    let message = other.json();
    assert_eq!(message["disconnect"]["code"], 4502, "only now: {message}");
}

/// A WebSocket's own are sent as well, and have to be answered: whoever is gone would be noticed late.
#[test]
fn a_websocket_answers_its_own_pings() {
    let config = WORKERS.replace(
        "[client]",
        "[client]\nping_interval = \"2s\"\npong_timeout = \"1900ms\"",
    );
    let server = Server::serve("uni-frame-pings", &config);
    let path = "/connection/uni_websocket?cf_connect={}";
    let mut socket = Socket::open(&server, path, "").expect("a socket");
    let connect = socket.json();
    assert_eq!(connect["connect"]["ping"], 2, "{connect}");
    assert!(connect["connect"]["pong"].is_null(), "{connect}");
    assert_eq!(socket.json(), json!({}));
    assert_eq!(socket.json(), json!({}));
    assert_eq!(socket.pings, 1, "the second is behind the message");
    socket.is_silent = true;
    assert_eq!(socket.closed(), (3012, "no pong".into()));
    assert_eq!(socket.pings, 2);
}

/// What a backend knows of such a connection may be its session alone.
#[test]
fn a_backend_finds_a_connection_by_its_session() {
    let server = Server::serve("uni-session", WORKERS);
    let open = || {
        let mut stream = post(&server, "/connection/uni_http_stream", KIND, b"{}");
        let connect = stream.message();
        let session = connect["connect"]["session"]
            .as_str()
            .expect("a name")
            .to_owned();
        (stream, session)
    };
    let ((mut meant, session), (mut other, _)) = (open(), open());
    let target = |session: &str, more: serde_json::Value| {
        let mut call = json!({"user": "", "session": session});
        call.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("another").clone());
        call.to_string()
    };
    server.api("subscribe", &target(&session, json!({"channel": "uni"})));
    let push = wait_until("the subscription", || {
        let message = meant.message();
        message["subscribe"].is_object().then_some(message)
    });
    assert_eq!(push["channel"], "uni");
    server.api("disconnect", &target("nobody's", json!({})));
    server.api(
        "disconnect",
        &target(&session, json!({"disconnect": {"code": 4501}})),
    );
    let end = wait_until("the end", || {
        let message = meant.message();
        message["disconnect"].is_object().then_some(message)
    });
    assert_eq!(
        end["disconnect"],
        json!({"code": 4501, "reason": "disconnect"})
    );
    // The other is there still, and hears nothing of it.
    server.api("disconnect", r#"{"user":""}"#);
    let message = other.message();
    assert_eq!(message["disconnect"]["code"], 3503, "{message}");
}

#[test]
fn a_proxy_in_front_says_who_it_is() {
    let config = WORKERS.replace(
        "allow_anonymous_connect_without_token = true",
        "user_id_http_header = \"X-User-Id\"",
    ) + "[client.subscribe_to_user_personal_channel]\nenabled = true\n";
    let server = Server::serve("uni-header", &config);
    let path = "/connection/uni_http_stream";
    let connect = |more: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: {KIND}{more}");
        send(&server, &head, b"{}").message()
    };
    let message = connect("\r\nx-user-id: 42");
    assert!(message["connect"]["subs"]["#42"].is_object(), "{message}");
    for more in ["", "\r\nX-User-Id: 42\r\nX-User-Id: 42"] {
        let message = connect(more);
        assert_eq!(message["disconnect"]["code"], 3501, "{message}");
    }

    let mut socket = server.connect();
    let request = format!(
        "GET /connection/uni_websocket?cf_connect=%7B%7D HTTP/1.1\r\nHost: {}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-User-Id: 43\r\n\r\n",
        server.address
    );
    socket.write_all(request.as_bytes()).expect("it listens");
    let mut heard = Vec::new();
    while !heard.windows(5).any(|part| part == b"\"#43\"") {
        let mut buffer = [0; 1024];
        let count = socket.read(&mut buffer).expect("it answers");
        assert!(count > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..count]);
    }
}

/// Nobody gets in without a token.
fn strict(more: &str) -> String {
    WORKERS.replace("allow_anonymous_connect_without_token = true", "") + more
}

#[test]
fn who_may_not_connect_may_be_told_by_a_status() {
    let config = strict(
        r#"
        [client.token]
        hmac_secret_key = "a secret of more than 32 bytes, at least"
        [doors.connect_code_to_http_response]
        enabled = true
        [[doors.connect_code_to_http_response.transforms]]
        code = 3500
        to = { status_code = 401, body = "who are you?" }
        [[doors.connect_code_to_http_response.transforms]]
        code = 109
        to = { status_code = 419 }
        "#,
    );
    let server = Server::serve("uni-status", &config);
    let sign = |claims: &TokenClaims<'_>| {
        let secret = "a secret of more than 32 bytes, at least".into();
        let signer = Signer::hs256(&secret).expect("a good secret");
        signer.sign(claims).expect("claims that can be signed")
    };
    let claims = |expires_at| TokenClaims {
        user: "7",
        expires_at,
        ..TokenClaims::default()
    };
    let (good, expired) = (sign(&claims(None)), sign(&claims(Some(1))));
    for (token, status, body) in [
        ("x", 401, "who are you?"),
        (&*expired, 419, ""),
        ("", 500, "The client can't connect: bad request.\n"),
    ] {
        let request = json!({"token": token}).to_string();
        let path = "/connection/uni_http_stream";
        let answer = post(&server, path, KIND, request.as_bytes());
        assert_eq!((answer.status, &*answer.rest()), (status, body), "{token}");
        let answer = post(&server, "/connection/uni_sse", KIND, request.as_bytes());
        assert_eq!((answer.status, &*answer.rest()), (status, body), "{token}");
    }
    let request = json!({"token": good}).to_string();
    let path = "/connection/uni_http_stream";
    let mut stream = post(&server, path, KIND, request.as_bytes());
    assert_eq!(stream.status, 200);
    assert!(stream.message()["connect"].is_object());
    let mut events = post(&server, "/connection/uni_sse", KIND, request.as_bytes());
    assert_eq!(events.until(b"\r\n").as_deref(), Some(&b"\r\n"[..]));
    assert!(events.data()["connect"].is_object());
}

#[test]
fn an_error_may_end_a_connection_in_another_way() {
    let config = strict(
        r#"
        [client.token]
        hmac_secret_key = "a secret of more than 32 bytes, at least"
        [client.connect_code_to_unidirectional_disconnect]
        enabled = true
        transforms = [{ code = 109, to = { code = 4501, reason = "log in again" } }]
        [doors]
        uni_websocket_disconnect_push = false
        "#,
    );
    let server = Server::serve("uni-transform", &config);
    let secret = "a secret of more than 32 bytes, at least".into();
    let signer = Signer::hs256(&secret).expect("a good secret");
    let expired = TokenClaims {
        user: "7",
        expires_at: Some(1),
        ..TokenClaims::default()
    };
    let expired = signer.sign(&expired).expect("claims that can be signed");
    let request = json!({"token": expired}).to_string();
    let path = "/connection/uni_http_stream";
    let mut stream = post(&server, path, KIND, request.as_bytes());
    let expected = json!({"code": 4501, "reason": "log in again"});
    assert_eq!(stream.message()["disconnect"], expected);
    let path = format!("/connection/uni_websocket?cf_connect=%7B%22token%22:%22{expired}%22%7D");
    let mut socket = Socket::open(&server, &path, "").expect("it opens");
    assert_eq!(socket.next(), Said::Close(4501, "log in again".into()));
}

#[test]
fn a_node_takes_so_many_connections() {
    let config = WORKERS.replace("[client]", "[client]\nconnection_limit = 2");
    let config = config + "[prometheus]\nenabled = true\n";
    let server = Server::serve("uni-limit", &config);
    let path = "/connection/uni_http_stream";
    let mut stream = post(&server, path, KIND, b"{}");
    assert!(stream.message()["connect"].is_object());
    let websocket = "/connection/websocket";
    let socket = Socket::open(&server, websocket, "").expect("there is room");
    let (status, body) = Socket::open(&server, websocket, "").err().expect("no room");
    assert_eq!(status, 503);
    assert!(body.contains("client.connection_limit"), "{body}");
    let answer = post(&server, path, KIND, b"{}");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(answer.rest().contains("client.connection_limit"));
    // What is no client's connection is answered.
    let page = get(&server, "/metrics").rest();
    let refused = "tautline_node_client_connection_limit{limit=\"connections\"} 2\n";
    assert!(page.contains(refused), "{page}");
    for line in [
        "\ntautline_limits_num_clients 2\n",
        "\ntautline_limits_max_clients 2\n",
    ] {
        assert!(page.contains(line), "{page}");
    }
    drop(socket);
    wait_until("a place is free", || {
        Socket::open(&server, websocket, "").ok()
    });
}

#[test]
fn a_node_takes_new_connections_at_a_rate() {
    let config = WORKERS.replace("[client]", "[client]\nconnection_rate_limit = \"2/1h\"");
    let server = Server::serve("uni-rate", &config);
    let path = "/connection/uni_http_stream";
    let opened: Vec<_> = (0..4).map(|_| post(&server, path, KIND, b"{}")).collect();
    let statuses: Vec<_> = opened.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 503, 503]);
}

/// One turn of one worker takes all that is in a message, so that what it publishes leaves together.
#[test]
fn what_leaves_together_is_one_message_where_the_options_say_so() {
    let config = WORKERS.replace("workers = 3", "workers = 1");
    let mut server = Server::serve("uni-joined", &config);
    let together = |server: &Server| {
        let mut socket = Socket::open(server, "/connection/uni_websocket", "").expect("it opens");
        socket.send(r#"{"subs":{"uni":{}}}"#);
        assert!(socket.json()["connect"].is_object());
        let mut publisher = Socket::open(server, "/connection/websocket", "").expect("it opens");
        let publish =
            |id| json!({"id": id, "publish": {"channel": "uni", "data": id - 1}}).to_string();
        let connect = r#"{"id":1,"connect":{}}"#.to_owned();
        let commands: Vec<_> = [connect].into_iter().chain((2..=4).map(publish)).collect();
        publisher.send(&commands.join("\n"));
        let (mut messages, mut data) = (Vec::new(), Vec::new());
        while data.len() < 3 {
            let message = socket.text();
            let lines = message.lines().map(|line| {
                let push: serde_json::Value = serde_json::from_str(line).expect("a push");
                push["pub"]["data"].as_u64().expect("a number")
            });
            let before = data.len();
            data.extend(lines);
            messages.push(data.len() - before);
        }
        assert_eq!(data, [1, 2, 3]);
        messages
    };
    assert_eq!(together(&server), [1, 1, 1]);
    server.reload(&format!(
        "{config}[doors]\nuni_websocket_join_messages = true\n"
    ));
    assert_eq!(together(&server), [3]);
}
