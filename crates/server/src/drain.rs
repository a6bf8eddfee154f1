//! How a node ends without drama: load balancers hear of it first, then the clients are told to come back
//! elsewhere, one after the other, and only then is it over.
//!
//! | stage | new clients | clients that are there | `GET /ready` |
//! |---|---|---|---|
//! | serving | let in | served | 200 |
//! | unready: `shutdown.readiness_delay` | let in | served | 503 |
//! | draining: their number by `shutdown.reconnect_rate` | disconnect 3001 | served, until each is told 3001 | 503 |
//! | ending: until all connections are closed | the port is closed | | |

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::config::ShutdownOptions;
use crate::embed::NodeHandle;

/// What is kept of the time for connections to be closed, when clients are more than fit into it: at most
/// this.
const GOODBYES: Duration = Duration::from_secs(5);

/// How often it is looked whether the hubs are done, which don't go faster for having been late.
const GLANCE: Duration = Duration::from_millis(50);

/// How far a node is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not on it.
    Serving,
    /// Load balancers are to send nobody any more.
    Unready,
    /// Clients are told, over this time.
    Draining(Duration),
    /// Everything ends.
    Ending,
}

/// Waits until the stage is one that `is_it` takes. Never resolves when the node is gone.
pub(crate) async fn reached(
    stage: &mut watch::Receiver<Stage>,
    is_it: impl FnMut(&Stage) -> bool,
) -> Stage {
    match stage.wait_for(is_it).await {
        Ok(stage) => *stage,
        Err(_gone) => Stage::Ending,
    }
}

/// Brings a node from serving to its end, in `options.timeout` from now at the most.
///
/// # Cancel safety
///
/// The stage that was reached stays.
pub(crate) async fn run(
    node: &NodeHandle,
    stage: &watch::Sender<Stage>,
    ended: &mut mpsc::UnboundedReceiver<()>,
    options: &ShutdownOptions,
) {
    let deadline = Instant::now() + options.timeout;
    if !options.readiness_delay.is_zero() {
        stage.send_replace(Stage::Unready);
        sleep_until((Instant::now() + options.readiness_delay).min(deadline)).await;
    }
    let clients = node.clients().await;
    let left = deadline.saturating_duration_since(Instant::now());
    let plan = Plan::new(clients, options.reconnect_rate, left);
    if let Some(rate) = plan.faster {
        tracing::warn!(
            clients,
            "clients are told to come back elsewhere faster than shutdown.reconnect_rate ({}) says: {rate} a second. \
             Raise shutdown.timeout to at least {} s for that many",
            options.reconnect_rate,
            (plan.wanted + options.timeout.saturating_sub(plan.over)).as_secs() + 1,
        );
    } else {
        tracing::info!(clients, over = ?plan.over, "clients are told to come back elsewhere");
    }
    let begun = Instant::now();
    stage.send_replace(Stage::Draining(plan.over));
    if !plan.over.is_zero() {
        sleep_until((begun + plan.over).min(deadline)).await;
        let left = undrained(node, (begun + plan.most).min(deadline)).await;
        if left > 0 {
            tracing::warn!(
                left,
                "there is no time left: the last clients are told at once to come back elsewhere. Raise shutdown.timeout"
            );
        }
    }
    stage.send_replace(Stage::Ending);
    // Until the last worker has dropped its end of the channel.
    let all = async { while ended.recv().await.is_some() {} };
    if timeout_at(deadline, all).await.is_err() {
        tracing::warn!("some connections did not end within shutdown.timeout");
    }
}

/// Waits until all hubs are done, or until then. How many clients are left.
async fn undrained(node: &NodeHandle, until: Instant) -> usize {
    let mut left = 0;
    let done = async {
        loop {
            left = node.undrained().await;
            if left == 0 {
                return;
            }
            sleep(GLANCE).await;
        }
    };
    // Who has no time left isn't waited for.
    let _ = timeout_at(until, done).await;
    left
}

/// When so many clients are told.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// All of them, over this time.
    over: Duration,
    /// What it may take, if workers are late.
    most: Duration,
    /// Which it should be.
    wanted: Duration,
    /// That many a second, where there is no time for the rate that was set.
    faster: Option<u64>,
}

impl Plan {
    /// `rate` a second, of which 0 is no limit, in the time that is `left`.
    fn new(clients: usize, rate: u32, left: Duration) -> Self {
        let goodbyes = GOODBYES.min(left / 2);
        let most = left.saturating_sub(goodbyes);
        // Workers that are late take of the time for goodbyes, a little.
        let until = most + goodbyes / 5;
        let wanted = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(clients as u64) / rate,
        };
        if wanted <= most {
            return Self {
                over: wanted,
                most: until,
                wanted,
                faster: None,
            };
        }
        let in_a_second = clients as u128 * 1000 / most.as_millis().max(1);
        Self {
            over: most,
            most: until,
            wanted,
            faster: Some(u64::try_from(in_a_second).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_A_MINUTE: Duration = Duration::from_secs(30);

    #[test]
    fn clients_go_at_the_rate_that_was_set() {
        for (clients, milliseconds) in [(0, 0), (1, 1), (20, 20), (10_000, 10_000)] {
            let plan = Plan::new(clients, 1000, HALF_A_MINUTE);
            assert_eq!(plan.over, Duration::from_millis(milliseconds));
            assert_eq!(plan.faster, None);
        }
        assert_eq!(Plan::new(10, 4, HALF_A_MINUTE).over.as_millis(), 2500);
    }

    #[test]
    fn no_rate_is_no_waiting() {
        assert!(Plan::new(100_000, 0, HALF_A_MINUTE).over.is_zero());
    }

    #[test]
    fn too_many_go_in_the_time_there_is() {
        let plan = Plan::new(50_000, 1000, HALF_A_MINUTE);
        assert_eq!(plan.over, Duration::from_secs(25));
        assert_eq!(plan.wanted, Duration::from_secs(50));
        assert_eq!(plan.faster, Some(2000));
        let plan = Plan::new(10, 1, Duration::from_secs(4));
        assert_eq!((plan.over.as_secs(), plan.faster), (2, Some(5)));
        assert!(Plan::new(10, 1, Duration::ZERO).over.is_zero());
    }
}
