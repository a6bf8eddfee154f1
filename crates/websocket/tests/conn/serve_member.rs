//! `WebSocket::serve_member`: groups write to connections whose tasks rest.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tautline_websocket::conn::{Error, Group, GroupOptions, WebSocket};
use tautline_websocket::proto::CloseCode;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::runtime;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::support::{Did, Input, Watched, frame, in_a_day, in_time, server, until};

async fn read(far: &mut DuplexStream, len: usize) -> Vec<u8> {
    let mut read = vec![0; len];
    timeout(Duration::from_secs(30), far.read_exact(&mut read))
        .await
        .expect("in time")
        .expect("sent");
    read
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Messages reach the peer though the member's own task is never polled nor woken, and those of one
/// turn in one write.
#[tokio::test(start_paused = true)]
async fn the_task_of_a_member_is_left_alone() {
    in_time(async {
        let group = Group::new();
        let io = Watched::new([Input::Never]);
        let mut ws = server(io.clone());
        ws.join(&group).unwrap();
        let mut serving = pin!(ws.serve_member(|_, _| ()));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(
            serving
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        for text in ["a", "b"] {
            group.publish(text).unwrap();
        }
        assert_eq!(io.did(), [], "at the end of the turn");
        until(|| !io.did().is_empty()).await;
        group.publish("c").unwrap();
        until(|| io.did().len() > 1).await;
        let did = [b"\x81\x01a\x81\x01b".to_vec(), b"\x81\x01c".to_vec()].map(Did::Wrote);
        assert_eq!(io.did(), did);
        assert_eq!(wakes.count(), 0);
    })
    .await;
}

/// What is sent for a message comes before what is published for it, and each group's messages in their
/// order.
#[tokio::test(start_paused = true)]
async fn replies_and_publications_stay_in_order() {
    in_time(async {
        let (one, two) = (Group::new(), Group::new());
        let mut fars = Vec::new();
        for _ in 0..3 {
            let (near, far) = duplex(1000);
            let mut ws = server(near);
            ws.join(&one).unwrap();
            ws.join(&two).unwrap();
            let (one, two) = (one.clone(), two.clone());
            tokio::spawn(ws.serve_member(move |message, replies| {
                one.publish(message).unwrap();
                replies.send("own").unwrap();
                two.publish("2").unwrap();
            }));
            fars.push(far);
        }
        for round in 0..10 {
            let speaker = round % 3;
            let said = [frame(0x81, b"x"), frame(0x81, b"y")].concat();
            fars[speaker].write_all(&said).await.unwrap();
            for (n, far) in fars.iter_mut().enumerate() {
                let expected: &[u8] = match n == speaker {
                    true => b"\x81\x03own\x81\x03own\x81\x01x\x81\x01y\x81\x012\x81\x012",
                    false => b"\x81\x01x\x81\x01y\x81\x012\x81\x012",
                };
                assert_eq!(read(far, expected.len()).await, expected);
            }
        }
    })
    .await;
}

/// What is published while a task is at work is not lost when it rests again: it is woken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_at_work_is_woken() {
    in_time(async {
        let group = Group::new();
        let said = Input::Bytes(frame(0x81, b"x"));
        let io = Watched::new([Input::Pending, said, Input::Never]);
        let mut ws = server(io.clone());
        ws.join(&group).unwrap();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut serving = pin!(ws.serve_member(|message, _| {
            let before = wakes.count();
            group.publish(message).unwrap();
            // By the task that writes, which finds nothing to be written to.
            let begun = Instant::now();
            while wakes.count() == before {
                assert!(begun.elapsed() < Duration::from_secs(30), "not woken");
                std::thread::yield_now();
            }
        }));
        let mut cx = Context::from_waker(&waker);
        assert!(serving.as_mut().poll(&mut cx).is_pending());
        assert!(serving.as_mut().poll(&mut cx).is_pending());
        assert_eq!(io.did(), [Did::Wrote(b"\x81\x01x".to_vec())]);
    })
    .await;
}

/// Publishes so often, and has a member that reads take each time what there is: so it lies in pieces
/// for those who take later.
fn publish_in_pieces(group: &Group, reader: &mut WebSocket<Watched>, times: usize, payload: &[u8]) {
    for _ in 0..times {
        group.publish(payload).expect("room");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(reader.poll_recv(&mut cx).is_pending());
    }
}

/// A member for whom messages were dropped before it could be written is told so, and given up when it
/// doesn't answer.
#[tokio::test(start_paused = true)]
async fn one_that_was_outrun_while_it_rested_is_closed_in_time() {
    in_a_day(async {
        // Whether or not its stream has room for being told.
        for room in [10_000, 2] {
            let mut options = GroupOptions::default();
            options.backlog = 1000;
            let group = Group::with_options(options);
            let (near, mut far) = duplex(room);
            let mut ws = server(near).with_close_timeout(Duration::from_secs(1));
            ws.join(&group).unwrap();
            let serving = tokio::spawn(ws.serve_member(|_, _| ()));
            yield_now().await;
            let mut fast = server(Watched::new([Input::Never]));
            fast.join(&group).unwrap();
            publish_in_pieces(&group, &mut fast, 10, &[7; 400]);
            if room > 2 {
                let told = read(&mut far, 4).await;
                assert_eq!((told[0], &told[2..]), (0x88, &1013u16.to_be_bytes()[..]));
            }
            let ended = serving.await.unwrap();
            assert!(matches!(ended, Err(Error::TooSlow)), "{ended:?}");
        }
    })
    .await;
}

/// A queue holds so much of what groups have and no more, but a stream that takes all gets all.
#[tokio::test(start_paused = true)]
async fn more_than_a_queue_holds_is_written_in_one_go() {
    in_a_day(async {
        let group = Group::new();
        let io = Watched::new([Input::Never]);
        let mut ws = server(io.clone());
        ws.join(&group).unwrap();
        let mut serving = pin!(ws.serve_member(|_, _| ()));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert!(serving.as_mut().poll(&mut cx).is_pending());
        let mut reader = server(Watched::new([Input::Never]));
        reader.join(&group).unwrap();
        publish_in_pieces(&group, &mut reader, 20, &[7; 9996]);
        until(|| !io.did().is_empty()).await;
        let written: Vec<usize> = io.did().iter().map(Did::len).collect();
        assert_eq!(written.iter().sum::<usize>(), 200_000);
        assert!(written.iter().all(|len| *len <= 80_000), "{written:?}");
        assert_eq!(wakes.count(), 0);
    })
    .await;
}

/// However many members there are to be written, other tasks of the thread have their turn in between.
#[tokio::test(start_paused = true)]
async fn others_have_their_turn_in_between() {
    in_a_day(async {
        let group = Group::new();
        let ios: Vec<_> = (0..600).map(|_| Watched::new([Input::Never])).collect();
        for io in &ios {
            let mut ws = server(io.clone());
            ws.join(&group).unwrap();
            tokio::spawn(ws.serve_member(|_, _| ()));
        }
        // Each is polled once, and rests.
        for _ in 0..3 * ios.len() {
            yield_now().await;
        }
        let written = || ios.iter().filter(|io| !io.did().is_empty()).count();
        group.publish("x").unwrap();
        let mut seen = Vec::new();
        until(|| {
            seen.push(written());
            seen.last() == Some(&ios.len())
        })
        .await;
        seen.retain(|written| (1..ios.len()).contains(written));
        assert!(seen.len() >= 2, "{seen:?}");
    })
    .await;
}

/// The task that writes ends with the last member of its thread, and the next member has one begun.
#[tokio::test(start_paused = true)]
async fn the_task_that_writes_ends_with_its_members() {
    in_a_day(async {
        let tasks = || runtime::Handle::current().metrics().num_alive_tasks();
        for _ in 0..2 {
            let group = Group::new();
            let io = Watched::new([Input::Never]);
            let mut ws = server(io.clone());
            ws.join(&group).unwrap();
            let mut serving = Box::pin(ws.serve_member(|_, _| ()));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(serving.as_mut().poll(&mut cx).is_pending());
            group.publish("x").unwrap();
            yield_now().await;
            assert_eq!(io.did(), [Did::Wrote(b"\x81\x01x".to_vec())]);
            assert_eq!(tasks(), 1);
            drop(serving);
            yield_now().await;
            assert_eq!(tasks(), 0);
        }
    })
    .await;
}

/// One whose stream takes no more gets the rest by its own task, and nobody waits for it.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_full_keeps_nobody_waiting() {
    in_time(async {
        let group = Group::new();
        let (near, mut slow) = duplex(10);
        let mut ws = server(near);
        ws.join(&group).unwrap();
        tokio::spawn(ws.serve_member(|_, _| ()));
        let (near, mut fast) = duplex(10_000);
        let mut ws = server(near);
        ws.join(&group).unwrap();
        tokio::spawn(ws.serve_member(|_, _| ()));
        yield_now().await;
        for n in 0..20u8 {
            group.publish(&[n; 98][..]).unwrap();
            assert_eq!(read(&mut fast, 100).await[2..], [n; 98]);
        }
        for n in 0..20u8 {
            assert_eq!(read(&mut slow, 100).await[2..], [n; 98]);
        }
        group.publish("again").unwrap();
        assert_eq!(read(&mut slow, 7).await, b"\x81\x05again");
    })
    .await;
}

/// A stream that can't be written, in one way or the other. Why, it tells once, as a socket does.
struct Broken {
    panics: bool,
    reason: Option<io::ErrorKind>,
}

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Broken {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.panics, "as the test wants it");
        let error = self.reason.take().unwrap_or(io::ErrorKind::BrokenPipe);
        Poll::Ready(Err(error.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The connection's own future tells how writing has failed, and the group goes on.
#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_or_panics_is_its_own_affair() {
    in_time(async {
        for panics in [false, true] {
            let group = Group::new();
            let mut ends = Vec::new();
            for _ in 0..3 {
                let (near, far) = duplex(1000);
                let mut ws = server(near);
                ws.join(&group).unwrap();
                tokio::spawn(ws.serve_member(|_, _| ()));
                ends.push(far);
                let mut ws = server(Broken {
                    panics,
                    reason: Some(io::ErrorKind::ConnectionReset),
                });
                ws.join(&group).unwrap();
                let broken = tokio::spawn(ws.serve_member(|_, _| ()));
                yield_now().await;
                group.publish("hello").unwrap();
                for far in &mut ends {
                    assert_eq!(read(far, 7).await, b"\x81\x05hello");
                }
                match broken.await {
                    Ok(Err(Error::Io(error))) if !panics => {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    }
                    Err(error) if panics => assert!(error.is_panic()),
                    other => panic!("{other:?}"),
                }
                assert_eq!(group.len(), ends.len());
            }
        }
    })
    .await;
}

/// On a paused clock, which runs on when nothing happens any more.
fn new_runtime() -> runtime::Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// A thread may have several runtimes, and one of them waits for nobody's turn on another.
#[test]
fn each_runtime_of_a_thread_has_a_task_that_writes() {
    let group = Group::new();
    let [one, two] = [new_runtime(), new_runtime()];
    let mut members = Vec::new();
    for runtime in [&one, &two] {
        let (near, far) = duplex(1000);
        let mut ws = server(near);
        ws.join(&group).unwrap();
        runtime.block_on(async {
            tokio::spawn(ws.serve_member(|_, _| ()));
            yield_now().await;
        });
        members.push((runtime, far));
    }
    for text in ["x", "y"] {
        group.publish(text).unwrap();
        for (runtime, far) in members.iter_mut().rev() {
            let expected = [b"\x81\x01", text.as_bytes()].concat();
            assert_eq!(runtime.block_on(read(far, 3)), expected);
        }
    }
}

/// When the runtime is gone on which the writing was to be done, a member that lives on somewhere else does
/// it itself.
#[test]
fn a_member_may_outlive_its_runtime() {
    let group = Group::new();
    let (near, mut far) = duplex(1000);
    let mut ws = server(near);
    ws.join(&group).unwrap();
    let mut serving = Box::pin(ws.serve_member(|_, _| ()));
    let first = new_runtime();
    first.block_on(poll_fn(|cx| {
        assert!(serving.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    group.publish("one").unwrap();
    drop(first);
    new_runtime().block_on(async {
        tokio::spawn(serving);
        assert_eq!(read(&mut far, 5).await, b"\x81\x03one");
        group.publish("two").unwrap();
        assert_eq!(read(&mut far, 5).await, b"\x81\x03two");
        // A new member of this thread finds the old one's writer gone.
        let (near, mut other) = duplex(1000);
        let mut ws = server(near);
        ws.join(&group).unwrap();
        tokio::spawn(ws.serve_member(|_, _| ()));
        yield_now().await;
        group.publish("all").unwrap();
        for far in [&mut far, &mut other] {
            assert_eq!(read(far, 5).await, b"\x81\x03all");
        }
    });
}

#[test]
fn it_works_without_a_runtime() {
    let group = Group::new();
    let io = Watched::new([Input::Never]);
    let mut ws = server(io.clone());
    ws.join(&group).unwrap();
    let mut serving = pin!(ws.serve_member(|_, _| ()));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    for n in 1..4 {
        assert!(serving.as_mut().poll(&mut cx).is_pending());
        group.publish("x").unwrap();
        assert_eq!((wakes.count(), io.did().len()), (n, n - 1));
    }
}

/// Dropping the future drops the stream and leaves the group, also while a publication is under way.
#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_keeps_nothing() {
    in_time(async {
        let group = Group::new();
        for publish in [false, true] {
            let io = Watched::new([Input::Never]);
            let handle = Arc::downgrade(&io.0);
            let mut ws = server(io);
            ws.join(&group).unwrap();
            let mut serving = Box::pin(ws.serve_member(|_, _| ()));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(serving.as_mut().poll(&mut cx).is_pending());
            if publish {
                group.publish("x").unwrap();
            }
            drop(serving);
            assert_eq!((group.len(), handle.strong_count()), (0, 0));
        }
    })
    .await;
}

/// A close by the peer is answered and reported as with `serve`.
#[tokio::test(start_paused = true)]
async fn it_ends_as_serving_does() {
    in_time(async {
        let group = Group::new();
        let (near, mut far) = duplex(1000);
        let mut ws = server(near);
        ws.join(&group).unwrap();
        let serving = tokio::spawn(ws.serve_member(|_, _| ()));
        yield_now().await;
        group.publish("x").unwrap();
        assert_eq!(read(&mut far, 3).await, b"\x81\x01x");
        far.write_all(&frame(0x88, b"\x03\xE9bye")).await.unwrap();
        assert_eq!(read(&mut far, 4).await, b"\x88\x02\x03\xE9");
        let closed = serving.await.unwrap().unwrap().unwrap();
        assert_eq!(
            (closed.code, &closed.reason[..]),
            (CloseCode::GOING_AWAY, "bye")
        );
        assert!(group.is_empty());
    })
    .await;
}
