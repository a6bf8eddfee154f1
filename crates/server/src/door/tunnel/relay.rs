//! Between the two ends of a tunnel: messages both ways, with no more of them here than there is room for, and the
//! end of one told to the other.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};
use std::time::Duration;

use tautline_websocket::proto::{CloseCode, Message};
use tokio::sync::watch;
use tokio::time::sleep;

use super::asked::Far;
use super::{Counts, Way};
use crate::drain::{Stage, reached};
use crate::worker::relays::Relayed;

/// One end.
pub(super) trait End {
    /// What comes from there. What waits for it to take leaves meanwhile, if there is room.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next>;

    /// The same with nothing taken: there is no room for it. Ready when all that waited has left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Bye>>;

    /// Whether it takes one more message.
    fn has_room(&self) -> bool;

    /// Queues a message for it. Where it is over, the next [`poll_next`](Self::poll_next) says so.
    fn put(&mut self, message: Message);

    /// Bytes of memory that wait there: for it to take them, or for the rest of their message.
    fn held(&self) -> usize;

    /// Lets go of it, and of all that waits there, without a word.
    fn abandon(self);

    /// Tells it that the other one is over.
    fn finish(self, bye: Bye) -> impl Future<Output = ()>;
}

/// What comes from an end.
pub(super) enum Next {
    Message(Message),
    Over(Bye),
}

/// How an end ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bye {
    /// In order, with what its Close said.
    Closed(CloseCode, String),
    /// In order, and without a word.
    Nameless,
    /// It is gone.
    Cut,
}

/// Carries messages between a client and the server behind until one of them is over or `leaves` is, and tells the
/// other. What it holds meanwhile is written down in `relayed`, and where that is too much, both are cut off.
pub(super) async fn relay<N: End, F: End>(
    mut near: N,
    mut far: F,
    counts: impl Fn(Way, u64, u64),
    leaves: impl Future<Output = ()>,
    relayed: &Relayed,
) {
    let mut passing = Passing::default();
    let over = tokio::select! {
        over = poll_fn(|cx| {
            let over = passing.poll(cx, &mut near, &mut far);
            for (way, tally) in [(Way::ToUpstream, &mut passing.up), (Way::ToClient, &mut passing.down)] {
                let Tally { messages, bytes } = std::mem::take(tally);
                counts(way, messages, bytes);
            }
            relayed.hold(near.held() + far.held());
            over
        }) => over,
        () = leaves => Over::Both,
        () = relayed.cut() => {
            near.abandon();
            return far.abandon();
        }
    };
    let finishing = async {
        match over {
            Over::Near(bye) => far.finish(bye).await,
            Over::Far(bye) => near.finish(bye).await,
            Over::Both => {
                let bye = || {
                    Bye::Closed(
                        CloseCode::GOING_AWAY,
                        "the server is about to end".to_owned(),
                    )
                };
                tokio::join!(near.finish(bye()), far.finish(bye()));
            }
        }
    };
    // Who has still to take what waits for it counts until then.
    tokio::select! {
        () = finishing => {}
        () = relayed.cut() => {}
    }
}

/// Resolves when a tunnel's client is to come back elsewhere: each at a moment of its own of the time that the node
/// gives, which `number` decides.
pub(super) async fn leaving(mut stage: watch::Receiver<Stage>, number: u64) {
    let is_leaving = |stage: &Stage| matches!(stage, Stage::Draining(_) | Stage::Ending);
    let Stage::Draining(over) = reached(&mut stage, is_leaving).await else {
        return;
    };
    tokio::select! {
        () = sleep(share(over, number)) => {}
        _ = reached(&mut stage, |stage| *stage == Stage::Ending) => {}
    }
}

/// Numbers that follow each other are spread evenly over the time, however many they are: steps of the golden ratio.
fn share(over: Duration, number: u64) -> Duration {
    let step = 0x9e37_79b9_u32.wrapping_mul(number as u32);
    over.mul_f64(f64::from(step) / f64::from(u32::MAX))
}

/// Which end is over, and how.
enum Over {
    Near(Bye),
    Far(Bye),
    Both,
}

#[derive(Default)]
struct Passing {
    up: Tally,
    down: Tally,
}

#[derive(Default)]
struct Tally {
    messages: u64,
    bytes: u64,
}

impl Passing {
    fn poll<N: End, F: End>(
        &mut self,
        cx: &mut Context<'_>,
        near: &mut N,
        far: &mut F,
    ) -> Poll<Over> {
        for _ in 0..MESSAGES_PER_POLL {
            let (up, down) = (far.has_room(), near.has_room());
            let mut any = false;
            match pass(cx, near, far, up, &mut self.up) {
                Poll::Ready(Some(bye)) => return Poll::Ready(Over::Near(bye)),
                Poll::Ready(None) => any = true,
                Poll::Pending => {}
            }
            match pass(cx, far, near, down, &mut self.down) {
                Poll::Ready(Some(bye)) => return Poll::Ready(Over::Far(bye)),
                Poll::Ready(None) => any = true,
                Poll::Pending => {}
            }
            // What has left since has made room, of which nobody else tells.
            let has_made_room = (!up && far.has_room()) || (!down && near.has_room());
            if !any && !has_made_room {
                return Poll::Pending;
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Takes a message from one end to the other, if there is room. Ready with how an end is over, if it is.
fn pass<A: End, B: End>(
    cx: &mut Context<'_>,
    from: &mut A,
    to: &mut B,
    has_room: bool,
    tally: &mut Tally,
) -> Poll<Option<Bye>> {
    if !has_room {
        return match from.poll_flush(cx) {
            Poll::Ready(Err(bye)) => Poll::Ready(Some(bye)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        };
    }
    match from.poll_next(cx) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Next::Over(bye)) => Poll::Ready(Some(bye)),
        Poll::Ready(Next::Message(message)) => {
            tally.messages += 1;
            tally.bytes += message.len() as u64;
            to.put(message);
            Poll::Ready(None)
        }
    }
}

/// Begins a relay to the server behind: what it counts is its tunnel's.
pub(super) async fn run<N: End>(
    near: N,
    far: Far,
    stage: watch::Receiver<Stage>,
    number: u64,
    relayed: Relayed,
) {
    let Far {
        websocket,
        tunnel,
        place,
        ..
    } = far;
    let counts: &Counts = &tunnel.counts;
    let far = super::socket::Socket::upstream(websocket);
    let carried = |way, messages, bytes| counts.carried(way, messages, bytes);
    relay(near, far, carried, leaving(stage, number), &relayed).await;
    drop(place);
}

/// How many messages pass each way before others have their turn.
const MESSAGES_PER_POLL: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use super::*;
    use crate::worker::relays::Relays;

    /// An end whose room and words the test has.
    #[derive(Clone, Default)]
    struct Fake(Rc<RefCell<Inside>>);

    #[derive(Default)]
    struct Inside {
        says: VecDeque<Message>,
        over: Option<Bye>,
        queued: Vec<Message>,
        room: usize,
        told: Option<Bye>,
        is_abandoned: bool,
        waker: Option<std::task::Waker>,
    }

    impl Fake {
        fn change(&self, change: impl FnOnce(&mut Inside)) {
            let mut inside = self.0.borrow_mut();
            change(&mut inside);
            if let Some(waker) = inside.waker.take() {
                waker.wake();
            }
        }
    }

    impl End for Fake {
        fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
            let mut inside = self.0.borrow_mut();
            inside.waker = Some(cx.waker().clone());
            if let Some(message) = inside.says.pop_front() {
                return Poll::Ready(Next::Message(message));
            }
            match inside.over.clone() {
                Some(bye) => Poll::Ready(Next::Over(bye)),
                None => Poll::Pending,
            }
        }

        fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Bye>> {
            self.0.borrow_mut().waker = Some(cx.waker().clone());
            Poll::Pending
        }

        fn has_room(&self) -> bool {
            let inside = self.0.borrow();
            inside.queued.len() < inside.room
        }

        fn put(&mut self, message: Message) {
            self.0.borrow_mut().queued.push(message);
        }

        fn held(&self) -> usize {
            self.0.borrow().queued.iter().map(Message::len).sum()
        }

        fn abandon(self) {
            self.0.borrow_mut().is_abandoned = true;
        }

        async fn finish(self, bye: Bye) {
            self.0.borrow_mut().told = Some(bye);
        }
    }

    #[tokio::test]
    async fn nothing_is_taken_for_which_there_is_no_room_and_all_of_it_later() {
        let (near, far) = (Fake::default(), Fake::default());
        // Who has no room isn't told of anything, the end included.
        near.change(|inside| inside.room = 1);
        let messages: Vec<_> = (0..200)
            .map(|n: i32| Message::from(n.to_string()))
            .collect();
        near.change(|inside| inside.says.extend(messages.iter().cloned()));
        let counted = Rc::new(RefCell::new([0; 2]));
        let its = Rc::clone(&counted);
        let count = move |way, messages, _| its.borrow_mut()[way as usize] += messages;
        let relays = Relays::default();
        let relayed = relays.begin();
        let never = std::future::pending();
        let relaying = relay(near.clone(), far.clone(), count, never, &relayed);
        let mut relaying = std::pin::pin!(relaying);
        let turn = tokio::task::yield_now;
        for room in [0, 3, 200] {
            far.change(|inside| inside.room = room);
            for _ in 0..20 {
                tokio::select! {
                    biased;
                    () = &mut relaying => panic!("nobody is over"),
                    () = turn() => {}
                }
            }
            let queued = far.0.borrow().queued.clone();
            assert_eq!(queued, messages[..room]);
            let held: usize = queued.iter().map(Message::len).sum();
            assert_eq!(relays.held(), held);
        }
        assert_eq!(*counted.borrow(), [200, 0]);
        let bye = Bye::Closed(CloseCode::from(4001), "enough".to_owned());
        far.change(|inside| inside.over = Some(bye.clone()));
        relaying.await;
        assert_eq!(
            (near.0.borrow().told.clone(), far.0.borrow().told.clone()),
            (Some(bye), None)
        );
    }

    #[tokio::test]
    async fn a_tunnel_that_holds_too_much_is_cut_off() {
        let (near, far) = (Fake::default(), Fake::default());
        far.change(|inside| inside.room = 10);
        near.change(|inside| inside.says.extend([Message::from("a message".to_owned())]));
        let (relays, never) = (Relays::default(), std::future::pending());
        let relayed = relays.begin();
        let relaying = relay(near.clone(), far.clone(), |_, _, _| (), never, &relayed);
        let cut = async {
            while relays.held() == 0 {
                tokio::task::yield_now().await;
            }
            let now = tokio::time::Instant::now();
            assert_eq!(relays.let_go(now, 1, Duration::ZERO, false), 1);
        };
        tokio::join!(relaying, cut);
        for end in [near, far] {
            let inside = end.0.borrow();
            assert!(inside.is_abandoned && inside.told.is_none());
        }
        assert_eq!(relays.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_drains_tells_both_ends_within_its_time() {
        let (sender, stage) = watch::channel(Stage::Serving);
        let (near, far) = (Fake::default(), Fake::default());
        let relayed = Relays::default().begin();
        let leaves = leaving(stage, 7);
        let relaying = relay(near.clone(), far.clone(), |_, _, _| (), leaves, &relayed);
        let start = tokio::time::Instant::now();
        let over = Duration::from_secs(100);
        sender.send_replace(Stage::Draining(over));
        relaying.await;
        assert!(start.elapsed() <= over && start.elapsed() > Duration::ZERO);
        for end in [near, far] {
            let told = end.0.borrow().told.clone();
            assert!(
                matches!(told, Some(Bye::Closed(CloseCode::GOING_AWAY, _))),
                "{told:?}"
            );
        }
    }

    #[test]
    fn shares_are_even() {
        let over = Duration::from_secs(10);
        let mut shares: Vec<_> = (0..100).map(|number| share(over, number)).collect();
        shares.sort_unstable();
        for pair in shares.windows(2) {
            assert!(pair[1] - pair[0] < Duration::from_millis(300), "{shares:?}");
        }
        assert!(shares[99] <= over && shares[99] > Duration::from_secs(9));
    }
}
