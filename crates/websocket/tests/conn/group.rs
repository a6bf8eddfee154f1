//! `Group`: one message to many connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tautline_websocket::conn::{
    ConnectOptions, Error, Group, GroupOptions, JoinError, SlowMember, WebSocket, client,
};
use tautline_websocket::proto::{CloseCode, Message, Misuse};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::support::{Did, Input, Scripted, Watched, frame, in_a_day, in_time, server, until};

/// A member, and the other end of its stream.
fn member(group: &Group) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    let mut ws = server(near);
    ws.join(group).expect("open");
    (ws, far)
}

/// How members are served.
#[derive(Clone, Copy, Debug)]
enum Way {
    Serve,
    ServeMember,
}

const WAYS: [Way; 2] = [Way::Serve, Way::ServeMember];

impl Way {
    /// Serves a member that has nothing to say.
    async fn serve(self, ws: WebSocket<DuplexStream>) -> Result<(), Error> {
        match self {
            Self::Serve => ws.serve(|_, _| ()).await.map(drop),
            Self::ServeMember => ws.serve_member(|_, _| ()).await.map(drop),
        }
    }
}

async fn read(far: &mut DuplexStream, len: usize) -> Vec<u8> {
    let mut read = vec![0; len];
    far.read_exact(&mut read).await.expect("sent");
    read
}

#[tokio::test(start_paused = true)]
async fn what_one_says_all_hear_the_speaker_too() {
    in_time(async {
        let group = Group::new();
        let mut fars = Vec::new();
        for _ in 0..3 {
            let (ws, far) = member(&group);
            let room = group.clone();
            tokio::spawn(ws.serve(move |message, _| room.publish(message).expect("room")));
            fars.push(far);
        }
        fars[1].write_all(&frame(0x81, b"hi")).await.unwrap();
        fars[1].write_all(&frame(0x82, b"\x07")).await.unwrap();
        for far in &mut fars {
            assert_eq!(read(far, 7).await, b"\x81\x02hi\x82\x01\x07");
        }
        assert_eq!(group.len(), 3);
        // A member leaves with its connection.
        drop(fars.remove(0));
        until(|| group.len() == 2).await;
        group.publish("still here").unwrap();
        for far in &mut fars {
            assert_eq!(read(far, 12).await, b"\x81\x0Astill here");
        }
    })
    .await;
}

/// However many messages came between two polls: one write.
#[tokio::test(start_paused = true)]
async fn what_was_published_meanwhile_leaves_in_one_write() {
    in_time(async {
        let group = Group::new();
        let mut io = Scripted::new([Input::Never]);
        let mut ws = server(&mut io);
        ws.join(&group).unwrap();
        ws.queue("own").unwrap();
        for text in ["a", "b", "c"] {
            group.publish(text).unwrap();
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ws.poll_recv(&mut cx).is_pending());
        assert!(ws.leave(&group) && !ws.leave(&group));
        group.publish("d").unwrap();
        assert!(ws.poll_recv(&mut cx).is_pending());
        drop(ws);
        assert_eq!(
            io.did,
            [Did::Wrote(b"\x81\x03own\x81\x01a\x81\x01b\x81\x01c".into())]
        );
    })
    .await;
}

/// A connection may go from one task to another: the one that was the last to poll it is woken.
#[test]
fn a_member_that_has_moved_is_woken_where_it_is() {
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let group = Group::new();
    let mut ws = server(Watched::new([Input::Never]));
    ws.join(&group).unwrap();
    let tasks = [(); 3].map(|()| Arc::new(Woken::default()));
    for task in &tasks {
        let waker = Waker::from(Arc::clone(task));
        let mut cx = Context::from_waker(&waker);
        assert!(ws.poll_recv(&mut cx).is_pending());
    }
    group.publish("x").unwrap();
    let woken = tasks.map(|task| task.0.load(Ordering::Relaxed));
    assert_eq!(woken, [false, false, true]);
}

/// Members on several threads, publishers too: each gets everything once, those of one publisher
/// in order, and all in the same order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_get_all_messages_in_one_order() {
    in_time(async {
        const PUBLISHERS: u8 = 4;
        const EACH: u16 = 500;
        let group = Group::new();
        let mut readers = Vec::new();
        for n in 0..20 {
            let (ws, mut far) = member(&group);
            tokio::spawn(WAYS[n % 2].serve(ws));
            readers.push(tokio::spawn(async move {
                read(&mut far, usize::from(PUBLISHERS) * usize::from(EACH) * 5).await
            }));
        }
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let group = group.clone();
                tokio::spawn(async move {
                    for n in 0..EACH {
                        let [high, low] = n.to_be_bytes();
                        group.publish(&[publisher, high, low][..]).unwrap();
                        if n % 7 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for publisher in publishers {
            publisher.await.unwrap();
        }
        let mut first: Option<Vec<u8>> = None;
        for reader in readers {
            let read = reader.await.unwrap();
            if let Some(first) = &first {
                assert!(*first == read, "two members saw different orders");
                continue;
            }
            let mut next = [0; PUBLISHERS as usize];
            for message in read.chunks(5) {
                let [0x82, 3, publisher, high, low] = *message else {
                    panic!("{message:x?}");
                };
                let n = u16::from_be_bytes([high, low]);
                assert_eq!(n, next[usize::from(publisher)]);
                next[usize::from(publisher)] += 1;
            }
            first = Some(read);
        }
    })
    .await;
}

/// A peer that doesn't read, with a group that keeps 10,000 bytes.
async fn slow(way: Way, policy: SlowMember) -> (Result<(), Error>, Vec<u8>) {
    let mut options = GroupOptions::default();
    (options.backlog, options.slow) = (10_000, policy);
    let group = Group::with_options(options);
    let (near, mut far) = duplex(1000);
    let mut ws = server(near).with_close_timeout(Duration::from_secs(1));
    ws.join(&group).expect("open");
    let serving = tokio::spawn(way.serve(ws));
    let (fast, mut fast_far) = member(&group);
    tokio::spawn(way.serve(fast));
    for n in 0..100u8 {
        group.publish(&[n; 1996][..]).expect("room");
        // The others are not affected.
        assert_eq!(read(&mut fast_far, 2000).await[4], n);
    }
    let mut got = Vec::new();
    while let Ok(Ok(len @ 1..)) = tokio::time::timeout(Duration::from_millis(100), async {
        let mut bytes = [0; 4096];
        let len = far.read(&mut bytes).await?;
        got.extend_from_slice(&bytes[..len]);
        std::io::Result::Ok(len)
    })
    .await
    {
        assert!(len > 0);
    }
    drop(far);
    (serving.await.expect("no panic"), got)
}

/// The numbers of the messages of [`slow`] that came whole, and what came behind them.
fn numbers(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut numbers = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 2000 && rest[..4] == [0x82, 126, 7, 204] {
        assert!(rest[5..2000].iter().all(|byte| *byte == rest[4]));
        numbers.push(rest[4]);
        rest = &rest[2000..];
    }
    (numbers, rest)
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_is_disconnected_and_told() {
    in_a_day(async {
        for way in WAYS {
            let (ended, got) = slow(way, SlowMember::Disconnect).await;
            assert!(matches!(ended, Err(Error::TooSlow)), "{ended:?}");
            let (numbers, rest) = numbers(&got);
            assert!(
                numbers.windows(2).all(|two| two[0] + 1 == two[1]),
                "no gap before the end"
            );
            assert!(
                rest.starts_with(&[0x88]) && rest[2..4] == 1013u16.to_be_bytes(),
                "{rest:x?}"
            );
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_may_miss_the_oldest() {
    in_a_day(async {
        for way in WAYS {
            let (ended, got) = slow(way, SlowMember::DropOldest).await;
            assert!(matches!(ended, Err(Error::CutOff)), "{ended:?}");
            let (numbers, rest) = numbers(&got);
            assert!(rest.is_empty());
            let gaps = numbers
                .windows(2)
                .filter(|two| two[0] + 1 != two[1])
                .count();
            assert!(gaps >= 1 && numbers.is_sorted(), "{numbers:?}");
            assert_eq!(numbers.last(), Some(&99));
            // 4 pieces of 2,000 bytes and what they are charged with fit into the backlog.
            assert!(numbers.ends_with(&[96, 97, 98, 99]), "{numbers:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_may_skip_to_the_newest() {
    in_a_day(async {
        for way in WAYS {
            let (ended, got) = slow(way, SlowMember::SkipToNewest).await;
            assert!(matches!(ended, Err(Error::CutOff)), "{ended:?}");
            let (numbers, rest) = numbers(&got);
            assert!(rest.is_empty());
            assert!(numbers.is_sorted() && numbers.len() < 50, "{numbers:?}");
            // What had piled up was skipped, but for the last.
            assert!(
                numbers.ends_with(&[99]) && !numbers.contains(&98),
                "{numbers:?}"
            );
        }
    })
    .await;
}

/// Who publishes without end before any member had its turn is told, and no member suffers.
#[tokio::test(start_paused = true)]
async fn a_group_is_bounded_though_nobody_is_polled() {
    in_time(async {
        let mut options = GroupOptions::default();
        options.backlog = 1000;
        let group = Group::with_options(options);
        let (mut ws, mut far) = member(&group);
        let mut published = 0;
        let full = loop {
            match group.publish(&[7; 96][..]) {
                Ok(()) => published += 1,
                Err(full) => break full,
            }
            assert!(published < 100);
        };
        assert_eq!((published, full.waiting, full.limit), (10, 980, 1000));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ws.poll_recv(&mut cx).is_pending());
        assert_eq!(read(&mut far, 980).await.len(), 980);
        // One that is too large by itself goes when nothing else waits.
        group.publish(&[7; 5000][..]).unwrap();
        assert!(ws.poll_recv(&mut cx).is_pending());
        assert_eq!(read(&mut far, 5004).await.len(), 5004);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_can_not_be_a_member() {
    in_time(async {
        let group = Group::new();
        let (mut ws, far) = member(&group);
        ws.join(&group).unwrap();
        assert_eq!(group.len(), 1, "once is enough");
        let (client_end, server_end) = duplex(1000);
        let accepting = tokio::spawn(async move {
            let options = tautline_websocket::conn::AcceptOptions::default();
            tautline_websocket::conn::accept(server_end, &options).await
        });
        let options = ConnectOptions::default();
        let mut connected = client(client_end, "ws://localhost/", &options)
            .await
            .unwrap()
            .websocket;
        assert_eq!(connected.join(&group), Err(JoinError::Client));
        accepting.await.unwrap().unwrap();
        drop(far);
        // Nothing follows a Close.
        let (mut ws, mut far) = member(&group);
        far.write_all(&frame(0x88, b"\x03\xE8")).await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), None);
        assert_eq!(ws.join(&group), Err(JoinError::Closing));
        assert!(matches!(ws.queue("x"), Err(Misuse::Closing)));
        group.publish("too late").unwrap();
        drop(ws);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x88\x02\x03\xE8");
    })
    .await;
}

/// A handler may join and leave; what it is sent for one message comes behind that.
#[tokio::test(start_paused = true)]
async fn rooms_can_be_entered_and_left_while_serving() {
    in_time(async {
        let group = Group::new();
        let room = group.clone();
        let (near, mut far) = duplex(1000);
        tokio::spawn(server(near).serve(move |message, replies| {
            let answer = match message {
                tautline_websocket::proto::MessageRef::Text("in") => replies.join(&room).is_ok(),
                _ => replies.leave(&room),
            };
            replies.send(if answer { "yes" } else { "no" }).unwrap();
        }));
        for (asked, answered) in [
            ("in", &b"\x81\x03yes"[..]),
            ("out", b"\x81\x03yes"),
            ("out", b"\x81\x02no"),
        ] {
            far.write_all(&frame(0x81, asked.as_bytes())).await.unwrap();
            assert_eq!(read(&mut far, answered.len()).await, answered);
            assert_eq!(group.len(), usize::from(asked == "in"));
            group.publish("x").unwrap();
            if asked == "in" {
                assert_eq!(read(&mut far, 3).await, b"\x81\x01x");
            }
        }
    })
    .await;
}

/// Everybody gets the form that was agreed on: plain, or compressed once for the window.
#[cfg(feature = "deflate")]
#[tokio::test(start_paused = true)]
async fn each_member_gets_its_form() {
    in_time(async {
        use tautline_websocket::conn::{AcceptOptions, accept};
        use tautline_websocket::proto::deflate::{ClientConfig, ServerConfig};

        let group = Group::new();
        let text = "a text that repeats, and ".repeat(40);
        // Another one: what a connection's own messages refer to must not be looked for in it.
        // Its halves are alike, and further from one another than the smallest window reaches.
        let half: String = (1..=120_u32)
            .map(|n| format!("{:08x}", n.wrapping_mul(0x9e37_79b9)))
            .collect();
        let told = half.repeat(2);
        let mut ends = Vec::new();
        for bits in [None, Some(15), Some(10), Some(9), Some(8)] {
            let (near, far) = duplex(1 << 16);
            let room = group.clone();
            tokio::spawn(async move {
                let options = AcceptOptions {
                    deflate: Some(ServerConfig::default()),
                    ..AcceptOptions::default()
                };
                let mut ws = accept(near, &options).await.unwrap().websocket;
                ws.join(&room).unwrap();
                // Messages of its own before and behind: their context must fit.
                ws.serve(|message, replies| replies.send(message).unwrap())
                    .await
            });
            let options = ConnectOptions {
                deflate: bits.map(|bits| ClientConfig {
                    server_max_window_bits: Some(bits),
                    ..ClientConfig::default()
                }),
                ..ConnectOptions::default()
            };
            ends.push(
                client(far, "ws://localhost/", &options)
                    .await
                    .unwrap()
                    .websocket,
            );
        }
        for _ in 0..3 {
            for end in &mut ends {
                end.send(&text).await.unwrap();
                assert_eq!(end.recv().await.unwrap(), Some(Message::from(&text[..])));
            }
            group.publish(&told).unwrap();
            group.publish(&told).unwrap();
            group.publish("short").unwrap();
            for end in &mut ends {
                for expected in [&told[..], &told[..], "short"] {
                    assert_eq!(end.recv().await.unwrap(), Some(Message::from(expected)));
                }
            }
        }
        for mut end in ends {
            end.close(CloseCode::NORMAL, "").await.unwrap();
        }
    })
    .await;
}
