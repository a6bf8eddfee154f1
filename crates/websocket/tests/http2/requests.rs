//! A server that serves all of HTTP beside WebSockets: requests taken apart, and answered piece by piece.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tautline_websocket::conn::http2::{Flood, Http2Error, Http2Options, Http2Request, Http2Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::support::{in_time, raw_client};

/// Answers each request with its own body.
async fn echo(request: Http2Request) -> Result<(), Box<dyn std::error::Error>> {
    let (request, responder) = request.into_parts();
    let mut body = request.into_body();
    let mut reply = responder.send(http::Response::new(()), false)?;
    while let Some(bytes) = poll_fn(|cx| body.poll_data(cx)).await {
        let mut bytes = bytes?;
        poll_fn(|cx| reply.poll_send(cx, &mut bytes)).await?;
        assert!(bytes.is_empty());
    }
    assert!(body.is_end_stream());
    reply.finish()?;
    poll_fn(|cx| reply.poll_sent(cx)).await;
    Ok(())
}

fn post(path: &str) -> http::Request<()> {
    let request = http::Request::post(format!("http://a{path}"));
    request.body(()).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn bodies_go_both_ways() {
    in_time(async {
        let (near, far) = duplex(1000);
        tokio::spawn(async move {
            let options = Http2Options::default();
            let mut server = Http2Server::new(far, &options).await.unwrap();
            while let Some(request) = server.next().await.unwrap() {
                assert_eq!(request.http_head().method, "POST");
                assert_eq!(request.http_head().uri.path(), "/echo");
                assert_eq!(request.protocol(), None);
                tokio::spawn(async move { echo(request).await.unwrap() });
            }
        });
        let requests = raw_client(near).await;
        // More than any window; a second one beside it that is short.
        for len in [500_000, 0, 3] {
            let mut requests = requests.clone().ready().await.unwrap();
            let (response, mut send) = requests.send_request(post("/echo"), false).unwrap();
            let sent = Bytes::from(vec![b'x'; len]);
            send.send_data(sent, true).unwrap();
            let mut body = response.await.unwrap().into_body();
            let mut came = 0;
            while let Some(bytes) = body.data().await {
                let bytes = bytes.unwrap();
                body.flow_control().release_capacity(bytes.len()).unwrap();
                came += bytes.len();
            }
            assert_eq!(came, len);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_answers_hears_that_nobody_listens() {
    in_time(async {
        let (near, far) = duplex(1000);
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let options = Http2Options::default();
            let mut server = Http2Server::new(far, &options).await.unwrap();
            while let Some(request) = server.next().await.unwrap() {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let is_early = request.http_head().uri.path() == "/early";
                    let (_request, mut responder) = request.into_parts();
                    let gone = if is_early {
                        poll_fn(|cx| responder.poll_gone(cx)).await
                    } else {
                        let mut reply = responder.send(http::Response::new(()), false).unwrap();
                        poll_fn(|cx| reply.poll_gone(cx)).await
                    };
                    tell.send((is_early, gone)).unwrap();
                });
            }
        });
        let requests = raw_client(near).await;
        for path in ["/early", "/late"] {
            let mut requests = requests.clone().ready().await.unwrap();
            let (response, mut send) = requests.send_request(post(path), false).unwrap();
            if path == "/late" {
                response.await.unwrap();
            }
            send.send_reset(h2::Reason::CANCEL);
            let (is_early, gone) = heard.recv().await.unwrap();
            assert_eq!(is_early, path == "/early");
            assert!(
                matches!(
                    gone,
                    Http2Error::Reset {
                        code: 8,
                        by_peer: true,
                        ..
                    }
                ),
                "{gone}"
            );
        }
    })
    .await;
}

/// Says what a client says first, and nothing more.
async fn begin(io: &mut DuplexStream) {
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .expect("room");
    io.write_all(settings).await.expect("room");
}

fn alive() -> Http2Options {
    Http2Options {
        keep_alive: Some(Duration::from_secs(30)),
        idle_timeout: Duration::from_secs(10_000),
        ..Http2Options::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_gone() {
    let (mut near, far) = duplex(1000);
    begin(&mut near).await;
    let start = tokio::time::Instant::now();
    let mut server = Http2Server::new(far, &alive()).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.map(|_| all)
    });
    let error = server.next().await.unwrap_err();
    assert!(matches!(error, Http2Error::NoPong(patience) if patience == Duration::from_secs(10)));
    assert_eq!(start.elapsed().as_secs(), 40);
    drop(server);
    let all = reading.await.unwrap().unwrap();
    assert_eq!(all[all.len() - 17 + 3], 7, "a GOAWAY is the last");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays() {
    let (near, far) = duplex(1000);
    let driving = tokio::spawn(async move {
        let mut server = Http2Server::new(far, &alive()).await.unwrap();
        server.next().await.map(|request| request.is_none())
    });
    let requests = raw_client(near).await;
    // Longer than many pings, and less than it may be idle.
    tokio::time::sleep(Duration::from_secs(9_000)).await;
    assert!(!driving.is_finished());
    drop(requests);
    assert!(driving.await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_flood_ends_the_connection() {
    in_time(async {
        let (mut near, far) = duplex(1000);
        let serving = tokio::spawn(async move {
            let options = Http2Options {
                max_control_rate: 10,
                ..Http2Options::default()
            };
            let mut server = Http2Server::new(far, &options).await.unwrap();
            server.next().await.map(|_| ())
        });
        begin(&mut near).await;
        let (mut read, mut write) = tokio::io::split(near);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.map(|_| all)
        });
        let ping = [&b"\0\0\x08\x06\0\0\0\0\0"[..], &[1; 8]].concat();
        let mut sent = 0;
        while write.write_all(&ping).await.is_ok() {
            sent += 1;
            assert!(sent < 10_000, "it takes any number of them");
        }
        let error = serving.await.unwrap().unwrap_err();
        assert!(
            matches!(error, Http2Error::Flooded(Flood::Control)),
            "{error}"
        );
        drop(write);
        let all = reading.await.unwrap().unwrap();
        let last = &all[all.len() - 17..];
        assert_eq!(
            (last[3], last[16]),
            (7, 11),
            "a GOAWAY with ENHANCE_YOUR_CALM"
        );
    })
    .await;
}
