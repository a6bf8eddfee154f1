//! TCP connections by name: all addresses of a host in a staggered race, so that a broken IPv6
//! route costs a quarter of a second instead of a minute (RFC 8305, "Happy Eyeballs").

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep};

use super::error::ConnectError;

/// Connects to the first address of `host` that answers. Small writes leave at once: whole
/// messages are written, so there is nothing to wait for.
pub(super) async fn dial(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => lookup_host((host, port))
            .await
            .map_err(|source| ConnectError::Resolve {
                host: host.to_owned(),
                source,
            })?
            .take(MAX_ADDRESSES)
            .collect(),
    };
    let connected = race(interleave(addresses), ATTEMPT_DELAY, TcpStream::connect).await;
    connected
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        //= rfc6455 4.1-8
        .map_err(|source| ConnectError::Unreachable {
            host: host.to_owned(),
            port,
            source,
        })
}

/// Alternates between the address families, beginning with that of the first address; within a
/// family the resolver's order stays (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let v6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == v6_first);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = ordered.len();
        ordered.extend(first.next());
        ordered.extend(second.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// Tries the addresses in turn, the next one when an attempt has failed or `delay` has passed, and
/// takes the first that succeeds; the others are dropped (RFC 8305 §5). The error is that of the
/// attempt which failed last.
async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    delay: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut attempts: Vec<Pin<Box<F>>> = Vec::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut timer = pin!(sleep(delay));
    poll_fn(move |cx| {
        loop {
            let before = attempts.len();
            let mut at = 0;
            while let Some(attempt) = attempts.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        failure = error;
                        drop(attempts.remove(at));
                    }
                }
            }
            let has_failed = attempts.len() < before;
            if !attempts.is_empty() && !has_failed && timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match waiting.next() {
                Some(address) => {
                    attempts.push(Box::pin(connect(address)));
                    timer.as_mut().reset(Instant::now() + delay);
                }
                None if attempts.is_empty() => {
                    let none = io::Error::from(io::ErrorKind::NotFound);
                    return Poll::Ready(Err(std::mem::replace(&mut failure, none)));
                }
                None => return Poll::Pending,
            }
        }
    })
    .await
}

/// How long an attempt runs alone; the value that RFC 8305 §5 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried. The name server is a stranger too.
const MAX_ADDRESSES: usize = 32;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        let ordered = interleave(given.map(address).to_vec());
        assert_eq!(ordered, expected.map(address));
        let ordered = interleave(["1.1.1.1:1", "[::1]:1"].map(address).to_vec());
        assert_eq!(ordered, ["1.1.1.1:1", "[::1]:1"].map(address));
        assert_eq!(interleave(Vec::new()), []);
    }

    /// What an address does: succeed or fail, after a time.
    type Plan = fn(SocketAddr) -> (u64, bool);

    /// Races ports 1 to 3 in simulated time. The port that won, when each began, and when it ended,
    /// in milliseconds; to ten of them, as a timer may take one more to fire.
    async fn raced(plan: Plan) -> (io::Result<u16>, Vec<(u16, u128)>, u128) {
        let start = Instant::now();
        let now = || start.elapsed().as_millis() / 10 * 10;
        let begun = RefCell::new(Vec::new());
        let addresses = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let won = race(addresses.collect(), Duration::from_millis(250), |address| {
            begun.borrow_mut().push((address.port(), now()));
            async move {
                let (after, good) = plan(address);
                sleep(Duration::from_millis(after)).await;
                let refused = || io::Error::other(format!("{} refused", address.port()));
                good.then_some(address.port()).ok_or_else(refused)
            }
        })
        .await;
        (won, begun.borrow().clone(), now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_answer_leaves_the_others_alone() {
        let (won, begun, ended) = raced(|_| (100, true)).await;
        assert_eq!((won.ok(), begun, ended), (Some(1), vec![(1, 0)], 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_is_overtaken() {
        let (won, begun, ended) = raced(|a| (if a.port() == 1 { 60_000 } else { 10 }, true)).await;
        assert_eq!(
            (won.ok(), begun, ended),
            (Some(2), vec![(1, 0), (2, 250)], 260)
        );
    }

    /// An attempt goes on when the next has begun.
    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_may_still_win() {
        let (won, begun, ended) = raced(|a| (if a.port() == 1 { 300 } else { 100 }, true)).await;
        assert_eq!(
            (won.ok(), begun, ended),
            (Some(1), vec![(1, 0), (2, 250)], 300)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once() {
        let (won, begun, ended) = raced(|a| (20, a.port() == 3)).await;
        let expected = vec![(1, 0), (2, 20), (3, 40)];
        assert_eq!((won.ok(), begun, ended), (Some(3), expected, 60));
    }

    /// Also when an earlier attempt still runs.
    #[tokio::test(start_paused = true)]
    async fn a_failure_beside_a_silent_address_starts_the_next_at_once() {
        let plan = |a: SocketAddr| match a.port() {
            1 => (60_000, true),
            port => (20, port == 3),
        };
        let (won, begun, ended) = raced(plan).await;
        let expected = vec![(1, 0), (2, 250), (3, 270)];
        assert_eq!((won.ok(), begun, ended), (Some(3), expected, 290));
    }

    #[tokio::test(start_paused = true)]
    async fn all_failures_are_one() {
        let (won, begun, _) = raced(|_| (20, false)).await;
        assert_eq!(won.unwrap_err().to_string(), "3 refused");
        assert_eq!(begun.len(), 3);
        let none = race(Vec::new(), ATTEMPT_DELAY, |_| async { Ok(()) }).await;
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
