//! A backend that speaks HTTP/2 and ends streams, or the connection, in the middle of questions: what it says that it has not
//! looked at (RFC 9113, section 8.7) is asked again, whatever it is; all else only if that does no harm.

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::secure::{acceptor, trust};
use super::{run, start, url};
use crate::peer::Peer;

/// What becomes of a question that has come to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Answer,
    /// Its stream is reset: `REFUSED_STREAM`, before anything was looked at.
    Refuse,
    /// Its stream is reset: `INTERNAL_ERROR`.
    Reset,
    /// `GOAWAY`, and it is behind the last stream that counts. The connection stays open.
    GoAwayBefore,
    /// `GOAWAY`, with it as the last stream; and then the end, without an answer.
    GoAwayWithin,
    /// The same, but it is answered.
    GoAwayAfter,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// `END_STREAM` of a request, and `ACK` of settings and pings.
const LAST: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn goaway(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

/// Does one after the other of `acts`, and tells over which connection each question has come.
async fn troubled(acts: Vec<Act>) -> (String, mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, asked) = mpsc::unbounded_channel();
    let acts = std::sync::Arc::new(std::sync::Mutex::new(acts.into_iter()));
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (tell, acts) = (tell.clone(), acts.clone());
            tokio::spawn(async move {
                let stream = acceptor(&[b"h2"]).accept(stream).await.unwrap();
                let next = || {
                    acts.lock()
                        .unwrap()
                        .next()
                        .expect("more questions than acts")
                };
                let _ = serve(stream, || {
                    let _ = tell.send(number);
                    next()
                })
                .await;
            });
        }
    });
    (format!("https://localhost:{port}"), asked)
}

async fn serve(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    mut act: impl FnMut() -> Act,
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await?;
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        io.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes(stream);
        let said = match kind {
            SETTINGS | PING if flags & LAST == 0 => {
                let payload = if kind == PING { &payload[..] } else { &[] };
                frame(kind, LAST, 0, payload)
            }
            HEADERS | DATA if flags & LAST != 0 => {
                let answer = [
                    // `:status: 200` of the static table (RFC 7541, appendix A).
                    frame(HEADERS, END_HEADERS, stream, &[0x88]),
                    frame(DATA, LAST, stream, b"{\"result\":{}}"),
                ]
                .concat();
                match act() {
                    Act::Answer => answer,
                    Act::Refuse => frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes()),
                    Act::Reset => frame(RST_STREAM, 0, stream, &2_u32.to_be_bytes()),
                    Act::GoAwayBefore => goaway(stream.saturating_sub(2)),
                    Act::GoAwayAfter => [goaway(stream), answer].concat(),
                    Act::GoAwayWithin => {
                        io.write_all(&goaway(stream)).await?;
                        return io.shutdown().await;
                    }
                }
            }
            _ => continue,
        };
        io.write_all(&said).await?;
    }
}

async fn call(peer: &mut Peer) -> Value {
    peer.ask("rpc", json!({"method": "m"})).await
}

#[test]
fn what_the_backend_has_not_looked_at_is_asked_again_and_nothing_else_that_does_something() {
    // Each call, with the connections that it is asked over, or none where it comes to nothing after having been asked once.
    for (acts, good) in [
        (&[Act::Refuse, Act::Answer][..], true),
        (&[Act::GoAwayBefore, Act::Answer], true),
        // Not for ever.
        (&[Act::Refuse, Act::Refuse], false),
        (&[Act::GoAwayBefore, Act::GoAwayBefore], false),
        (&[Act::Reset], false),
        (&[Act::GoAwayWithin], false),
        (&[Act::GoAwayAfter], true),
    ] {
        run(async {
            // The first shows that it is one connection, as long as that is good; the last that there is one again.
            let all = [&[Act::Answer], acts, &[Act::Answer]].concat();
            let (backend, mut asked) = troubled(all).await;
            let node = start(&format!(
                "client.allow_anonymous_connect_without_token = true\n\
                 [rpc]\nwithout_namespace.proxy_enabled = true\n\
                 [rpc.proxy]\nendpoint = \"{backend}/rpc\"\ntimeout = \"20s\"\n{}",
                trust()
            ));
            let mut peer = Peer::connect(&url(&node)).await;
            assert!(call(&mut peer).await["rpc"].is_object());
            assert_eq!(call(&mut peer).await["rpc"].is_object(), good, "{acts:?}");
            assert!(call(&mut peer).await["rpc"].is_object(), "{acts:?}");
            let mut over = Vec::new();
            for _ in 0..acts.len() + 2 {
                over.push(asked.recv().await.unwrap());
            }
            assert!(asked.try_recv().is_err(), "{acts:?}");
            // A connection that goes away gets no further question.
            let mut connection = 0;
            for (index, over) in over.iter().enumerate() {
                assert_eq!(*over, connection, "{acts:?}");
                let goes = [&[Act::Answer], acts].concat();
                let goes = goes.get(index).is_some_and(|act| {
                    matches!(
                        act,
                        Act::GoAwayBefore | Act::GoAwayWithin | Act::GoAwayAfter
                    )
                });
                connection += usize::from(goes);
            }
        });
    }
}

#[test]
fn what_only_asks_whether_something_may_be_is_asked_again_in_any_case() {
    for act in [
        Act::Refuse,
        Act::Reset,
        Act::GoAwayBefore,
        Act::GoAwayWithin,
    ] {
        run(async {
            let (backend, mut asked) = troubled(vec![Act::Answer, act, Act::Answer]).await;
            let node = start(&format!(
                "[client.proxy.connect]\nenabled = true\nendpoint = \"{backend}/connect\"\ntimeout = \"20s\"\n{}",
                trust()
            ));
            for _ in 0..2 {
                Peer::connect(&url(&node)).await;
            }
            for _ in 0..3 {
                asked.recv().await.unwrap();
            }
        });
    }
}
