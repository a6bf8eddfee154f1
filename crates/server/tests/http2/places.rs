//! What an address may have counts the streams of an HTTP/2 connection that are clients of their own.

use http::Request;
use serde_json::json;
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::conn::{ConnectError, ConnectOptions, connect};

use crate::client::Client;
use crate::process::Server;
use crate::{CONFIG, in_time};

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// The limits, and who may say from where a client is.
fn serve(name: &str, connections: usize, trusted: &str) -> Server {
    let limits = format!(
        "[limits]\nexempt_loopback = false\n[limits.address]\nconnections = {connections}\n"
    );
    Server::serve(name, &format!("{trusted}{limits}{CONFIG}"))
}

/// The status and `Retry-After` that a WebSocket is refused with.
fn refused<T>(opened: Result<T, ConnectError>) -> (u16, String) {
    match opened {
        Err(ConnectError::Refused(rejection)) => {
            let field = |name: &str| rejection.head.header(name).map(<[u8]>::to_vec);
            let seconds = field("retry-after").expect("when to come again");
            let seconds = String::from_utf8(seconds).unwrap();
            (rejection.head.status(), seconds)
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it should have been refused"),
    }
}

#[tokio::test]
async fn streams_that_are_clients_count_for_their_address() {
    in_time(async {
        let server = serve("http2-places", 6, "");
        let url = format!("ws://{}/connection/websocket", server.address);
        let options = ConnectOptions::default();
        // Two connections, and four clients on them.
        let requests = Client::connect(&server).await;
        let http2 = Http2Options::default();
        let sockets = Http2Client::connect(&url, &options, &http2).await.unwrap();
        let first = sockets.open(&url, &options).await.unwrap();
        let _second = sockets.open(&url, &options).await.unwrap();
        let mut stream = requests.post("/connection/http_stream", CONNECT).await;
        assert!(stream.message().await["connect"].is_object());
        let poll = format!("{}\n{CONNECT}", json!({"open": 1}));
        let polled = requests.post("/connection/poll", &poll).await;
        assert_eq!(polled.status, 200);

        // Whatever it would be, it is one too many.
        let (status, seconds) = refused(sockets.open(&url, &options).await);
        assert_eq!((status, &*seconds), (429, "5"));
        for (path, body) in [
            ("/connection/http_stream", CONNECT),
            ("/connection/sse", CONNECT),
            ("/connection/poll", &*poll),
            ("/connection/uni_http_stream", "{}"),
        ] {
            let answer = requests.post(path, body).await;
            assert_eq!(
                (answer.status, answer.header("retry-after")),
                (429, Some("5")),
                "{path}"
            );
        }
        assert_eq!(requests.get("/events?channel=c").await.status, 429);
        // A request that is no client's is answered.
        assert_eq!(requests.get("/health").await.status, 200);

        // A stream that ends gives its place back.
        drop(first);
        let another = loop {
            match sockets.open(&url, &options).await {
                Ok(opened) => break opened,
                Err(ConnectError::Refused(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        refused(sockets.open(&url, &options).await);
        drop((another, stream));
        loop {
            let mut answer = requests.post("/connection/http_stream", CONNECT).await;
            if answer.status == 200 {
                assert!(answer.message().await["connect"].is_object());
                break;
            }
            assert_eq!(answer.status, 429);
        }
    })
    .await;
}

/// What the node takes of new clients is for all: nobody uses it up by being refused.
#[tokio::test]
async fn who_is_over_what_an_address_may_have_takes_nothing_from_others() {
    in_time(async {
        let trusted = "trusted_proxies = [\"127.0.0.1\"]\n";
        // Two clients, and no more for as long as a test takes.
        let rate = "[client]\nconnection_rate_limit = \"2/1h\"\n";
        let config = CONFIG.replace("[client]\n", rate);
        let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nconnections = 1\n";
        let server = Server::serve("http2-places-rate", &format!("{trusted}{limits}{config}"));
        let url = format!("ws://{}/connection/websocket", server.address);
        let from = |address: &str| ConnectOptions {
            headers: vec![("X-Forwarded-For".into(), address.into())],
            ..ConnectOptions::default()
        };
        let http2 = Http2Options::default();
        let options = ConnectOptions::default();
        let sockets = Http2Client::connect(&url, &options, &http2).await.unwrap();
        let requests = Client::connect(&server).await;
        let _first = sockets.open(&url, &from("192.0.2.1")).await.unwrap();
        for _ in 0..3 {
            assert_eq!(refused(sockets.open(&url, &from("192.0.2.1")).await).0, 429);
            let over_http1 = connect(&url, &from("192.0.2.1")).await;
            assert_eq!(refused(over_http1).0, 429);
            let request: Request<()> = requests
                .request("POST", "/connection/http_stream")
                .header("x-forwarded-for", "192.0.2.1")
                .body(())
                .unwrap();
            let streamed = requests.send(request, CONNECT.as_bytes()).await;
            assert_eq!(streamed.status, 429);
        }
        let _other = sockets.open(&url, &from("192.0.2.2")).await.unwrap();
        let (status, _) = refused(sockets.open(&url, &from("192.0.2.3")).await);
        assert_eq!(status, 503, "those were the two");
    })
    .await;
}

/// A proxy's connection is nobody's, and its streams are those of whom it names.
#[tokio::test]
async fn behind_a_proxy_they_count_for_its_clients() {
    in_time(async {
        let trusted = "trusted_proxies = [\"127.0.0.1\"]\n";
        let server = serve("http2-places-proxy", 1, trusted);
        let url = format!("ws://{}/connection/websocket", server.address);
        let from = |address: &str| ConnectOptions {
            headers: vec![("X-Forwarded-For".into(), address.into())],
            ..ConnectOptions::default()
        };
        let options = ConnectOptions::default();
        let http2 = Http2Options::default();
        let sockets = Http2Client::connect(&url, &options, &http2).await.unwrap();
        let _first = sockets.open(&url, &from("192.0.2.1")).await.unwrap();
        refused(sockets.open(&url, &from("192.0.2.1")).await);
        let _second = sockets.open(&url, &from("192.0.2.2")).await.unwrap();

        let requests = Client::connect(&server).await;
        let stream = |address: &str| {
            let request: Request<()> = requests
                .request("POST", "/connection/http_stream")
                .header("x-forwarded-for", address)
                .body(())
                .unwrap();
            requests.send(request, CONNECT.as_bytes())
        };
        assert_eq!(stream("192.0.2.1").await.status, 429);
        let mut third = stream("192.0.2.3").await;
        assert!(third.message().await["connect"].is_object());
        assert_eq!(stream("192.0.2.3").await.status, 429);
    })
    .await;
}
