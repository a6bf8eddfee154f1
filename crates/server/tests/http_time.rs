//! How long the HTTP side waits, with a clock that the tests wind.

#[path = "support/node.rs"]
mod node;

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tautline::Config;
use tautline::http::api::{ApiKeys, ApiLimits};
use tautline::http::{
    HEAD_TIMEOUT, KEPT_TIMEOUT, Service, Settings, serve_connection, serve_kept_connection,
};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

use self::node::FakeNode;

/// The client's side of a connection, and the server's.
struct Connection {
    client: DuplexStream,
    server: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
    node: FakeNode,
    start: Instant,
}

/// A stream that is not good at writing from several places at once, as not all are. The library puts all it has to write
/// into one buffer then.
struct OneSlice(DuplexStream);

impl AsyncRead for OneSlice {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for OneSlice {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Runs `test` on a connection. Time stands still while there is work to do, and jumps to the next
/// timer when there is none.
fn on_a_connection<F: Future<Output = ()>>(test: impl FnOnce(Connection) -> F) {
    on_a_connection_of(4096, test);
}

/// The same where so many bytes may be on their way.
fn on_a_connection_of<F: Future<Output = ()>>(room: usize, test: impl FnOnce(Connection) -> F) {
    on_a_connection_from(None, room, test);
}

/// The same where it is from a proxy that keeps it, if there is one.
fn on_a_connection_from<F: Future<Output = ()>>(
    proxy: Option<SocketAddr>,
    room: usize,
    test: impl FnOnce(Connection) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let settings = Settings {
            api_keys: ApiKeys::single(b"k"),
            api_limits: ApiLimits {
                max_body_size: 1024,
                ..ApiLimits::default()
            },
            health: true,
            write_timeout: write_timeout(),
            ..Settings::default()
        };
        let node = FakeNode::default();
        let service = Rc::new(Service::new(Arc::new(settings), node.clone()));
        let (client, stream) = tokio::io::duplex(room);
        let (shutdown, stopping) = oneshot::channel();
        let stopping = async {
            if stopping.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let stream = OneSlice(stream);
        let server = tokio::task::spawn_local(async move {
            match proxy {
                None => serve_connection(stream, None, service, stopping).await,
                Some(proxy) => serve_kept_connection(stream, proxy, service, stopping).await,
            }
        });
        test(Connection {
            client,
            server,
            shutdown,
            node,
            start: Instant::now(),
        })
        .await;
    });
}

impl Connection {
    async fn send(&mut self, text: &str) {
        self.client
            .write_all(text.as_bytes())
            .await
            .expect("the server still reads");
    }

    /// Everything until the server closes.
    async fn read_to_end(&mut self) -> String {
        let mut text = String::new();
        self.client
            .read_to_string(&mut text)
            .await
            .expect("UTF-8, then the end");
        text
    }

    #[track_caller]
    fn assert_elapsed(&self, expected: Duration) {
        let elapsed = self.start.elapsed();
        // Sleeps of a second on our side may come on top.
        let range = expected..expected + Duration::from_secs(2);
        assert!(
            range.contains(&elapsed),
            "{elapsed:?} went by, expected {expected:?}"
        );
    }
}

/// As a configuration has it that sets it: not what it is by default.
fn write_timeout() -> Option<Duration> {
    let seconds = WRITE_TIMEOUT.as_secs();
    let config = Config::from_toml(&format!("http_server.write_timeout = \"{seconds}s\"\n"));
    config.expect("it is good").http.write_timeout
}

const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

const PUBLISH: &str =
    "POST /api/publish HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\nContent-Length: 25\r\n\r\n";
const BODY: &str = r#"{"channel":"c","data":1 }"#;

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    on_a_connection(|mut connection| async move {
        connection.send("GET /health HTTP/1.1\r\nHost: h\r\n").await;
        connection.read_to_end().await;
        connection.assert_elapsed(HEAD_TIMEOUT);
    });
}

#[test]
fn a_connection_that_idles_ends() {
    on_a_connection(|mut connection| async move {
        connection
            .send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            .await;
        assert!(connection.read_to_end().await.ends_with("{}"));
        connection.assert_elapsed(HEAD_TIMEOUT);
    });
}

#[test]
fn a_body_that_does_not_come_is_answered_with_408() {
    on_a_connection(|mut connection| async move {
        connection.send(PUBLISH).await;
        connection.send(&BODY[..10]).await;
        let answer = connection.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        connection.assert_elapsed(Duration::from_secs(30));
    });
}

#[test]
fn a_body_that_is_announced_as_too_long_is_not_waited_for() {
    on_a_connection(|mut connection| async move {
        connection
            .send(&PUBLISH.replace("Content-Length: 25", "Content-Length: 1025"))
            .await;
        let answer = connection.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        connection.assert_elapsed(Duration::ZERO);
    });
}

#[test]
fn no_connection_lives_for_ever() {
    on_a_connection(|mut connection| async move {
        // One request after the other, never idle for long.
        while !connection.server.is_finished() {
            if connection
                .client
                .write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
                .await
                .is_err()
            {
                break;
            }
            let mut answer = Vec::new();
            while !answer.ends_with(b"{}") {
                if connection.client.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        connection.assert_elapsed(Duration::from_secs(5 * 60));
    });
}

/// A load balancer that sends a request on a connection that is being closed answers its client with a 502.
#[test]
fn a_proxy_gives_up_its_connections_itself() {
    let proxy = SocketAddr::from(([192, 0, 2, 1], 1));
    on_a_connection_from(Some(proxy), 4096, |mut connection| async move {
        // Older than others become, and each rest as long as Google's may.
        for _ in 0..3 {
            connection
                .send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
                .await;
            let mut answer = Vec::new();
            while !answer.ends_with(b"{}") {
                let count = connection.client.read_buf(&mut answer).await;
                assert!(count.is_ok_and(|count| count > 0), "it is still there");
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        assert!(!connection.server.is_finished());
        connection.read_to_end().await;
        connection.assert_elapsed(2 * Duration::from_secs(600) + KEPT_TIMEOUT);
    });
}

#[test]
fn a_request_under_way_is_answered_before_a_shutdown() {
    on_a_connection(|mut connection| async move {
        connection.send(PUBLISH).await;
        connection.send(&BODY[..10]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        connection
            .shutdown
            .send(())
            .expect("the server waits for it");
        tokio::time::sleep(Duration::from_secs(1)).await;
        connection
            .client
            .write_all(&BODY.as_bytes()[10..])
            .await
            .unwrap();
        let mut answer = String::new();
        connection.client.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("offset"),
            "{answer}"
        );
        assert!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{answer}"
        );
    });
}

#[test]
fn a_request_that_hangs_does_not_hold_up_a_shutdown() {
    on_a_connection(|mut connection| async move {
        connection.send(PUBLISH).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        connection
            .shutdown
            .send(())
            .expect("the server waits for it");
        let mut nothing = Vec::new();
        let _ = connection.client.read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
        let elapsed = connection.start.elapsed();
        assert!(elapsed < Duration::from_secs(12), "{elapsed:?}");
        assert_eq!(connection.node.dropped("ending"), 1);
    });
}

/// Where the library could not write all of an answer yet, the next must not overtake the rest of it.
#[test]
fn an_answer_that_goes_on_does_not_overtake() {
    for next in ["goes-on", "waits"] {
        on_a_connection_of(64, |mut connection| async move {
            let health = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
            let goes_on = health.replace("health", next);
            // As both come together, and there is hardly room for an answer, the second begins before the first was
            // written.
            connection.send(&format!("{health}{goes_on}")).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let mut came = String::new();
            while !came.ends_with("said\r\n") && !came.ends_with("waited") {
                let mut bytes = [0; 16];
                let count = connection.client.read(&mut bytes).await.unwrap();
                assert!(count > 0, "cut off after {came}");
                came.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
            let (first, second) = came.split_once("\r\n\r\n{}").expect("a whole answer");
            assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{came}");
            assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{came}");
        });
    }
}

#[test]
fn who_goes_away_while_there_is_an_answer_to_wait_for_is_gone() {
    on_a_connection(|mut connection| async move {
        connection
            .send("GET /goes-on HTTP/1.1\r\nHost: h\r\n\r\n")
            .await;
        let mut came = Vec::new();
        while !came.ends_with(b"4\r\nsaid\r\n") {
            assert!(connection.client.read_buf(&mut came).await.unwrap() > 0);
        }
        drop(connection.client);
        connection.server.await.expect("it ends without a panic");
        assert!(connection.start.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn what_hangs_outside_of_the_library_does_not_hold_up_a_shutdown_either() {
    on_a_connection(|mut connection| async move {
        connection
            .send("GET /goes-on HTTP/1.1\r\nHost: h\r\n\r\n")
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        connection
            .shutdown
            .send(())
            .expect("the server waits for it");
        let mut came = Vec::new();
        let _ = connection.client.read_to_end(&mut came).await;
        let elapsed = connection.start.elapsed();
        assert!(elapsed < Duration::from_secs(12), "{elapsed:?}");
        assert_eq!(connection.node.dropped("ending"), 1);
    });
}

#[test]
fn what_is_waited_for_is_answered_before_a_shutdown() {
    on_a_connection(|mut connection| async move {
        connection
            .send("GET /waits HTTP/1.1\r\nHost: h\r\n\r\n")
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        connection
            .shutdown
            .send(())
            .expect("the server waits for it");
        let mut answer = String::new();
        connection.client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("waited"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains("\r\ncontent-length: 6\r\n"), "{answer}");
    });
}

/// What has no room on its way: answers of the library, and those that go on or were waited for.
const ANSWERS: [&str; 3] = ["health", "goes-on", "waits"];

#[test]
fn an_answer_of_which_nothing_is_taken_is_given_up() {
    for path in ANSWERS {
        on_a_connection_of(64, |mut connection| async move {
            let get = format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n");
            connection.send(&get).await;
            (&mut connection.server)
                .await
                .expect("it ends without a panic");
            connection.assert_elapsed(WRITE_TIMEOUT);
        });
    }
}

#[test]
fn who_takes_a_little_gets_all_of_it() {
    for path in ANSWERS {
        on_a_connection_of(64, |mut connection| async move {
            let get = format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n");
            connection.send(&get).await;
            let mut came = String::new();
            while !["{}", "said\r\n", "waited"]
                .iter()
                .any(|end| came.ends_with(end))
            {
                tokio::time::sleep(WRITE_TIMEOUT - Duration::from_secs(2)).await;
                let mut bytes = [0; 24];
                let count = connection.client.read(&mut bytes).await.unwrap();
                assert!(count > 0, "cut off after {came}");
                came.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
            assert!(connection.start.elapsed() > WRITE_TIMEOUT * 2);
        });
    }
}

#[test]
fn who_listens_to_what_has_nothing_to_say_is_left_alone() {
    on_a_connection(|mut connection| async move {
        connection
            .send("GET /goes-on HTTP/1.1\r\nHost: h\r\n\r\n")
            .await;
        tokio::time::sleep(WRITE_TIMEOUT * 9).await;
        assert!(!connection.server.is_finished());
    });
}
