//! What systemd and the server tell each other: that it is up, that it ends, that it is alive, and the socket to
//! listen on, where the unit has one (`sd_notify(3)`, `systemd.socket(5)`). Without systemd, nothing.

use std::io;
use std::net::TcpListener;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{attend, inherited, ready, stopping};

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Duration;

    use sd_notify::NotifyState;
    use tokio::time::{MissedTickBehavior, interval, timeout};

    use super::{TcpListener, io};
    use crate::drain::{Stage, reached};
    use crate::embed::NodeHandle;

    /// The socket that the unit listens on already, if there is one: so no connection is refused while the server
    /// is started anew.
    ///
    /// # Errors
    ///
    /// When what was handed over is no TCP socket that listens.
    pub(crate) fn inherited() -> io::Result<Option<TcpListener>> {
        listenfd::ListenFd::from_env().take_tcp_listener(0)
    }

    /// Tells that connections are accepted.
    pub(crate) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    /// Tells that the node is on its way out. Twice does no harm.
    pub(crate) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    /// Tells when the node is on its way out, and in time that all of its workers are alive. Never ends.
    pub(crate) async fn attend(node: &NodeHandle) {
        tokio::join!(say_goodbye(node), feed_watchdog(node));
        std::future::pending::<()>().await;
    }

    async fn say_goodbye(node: &NodeHandle) {
        let mut stage = node.stage();
        reached(&mut stage, |stage| *stage != Stage::Serving).await;
        stopping();
    }

    /// A process whose workers don't answer is started anew by systemd (`WatchdogSec`).
    async fn feed_watchdog(node: &NodeHandle) {
        let Some(patience) = sd_notify::watchdog_enabled() else {
            return;
        };
        let pause = (patience / 2).max(Duration::from_millis(1));
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Asks each of them.
            if timeout(patience, node.sessions()).await.is_ok() {
                tell(&[NotifyState::Watchdog]);
            }
        }
    }

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::warn!(%error, "systemd can't be told how the server is");
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn inherited() -> io::Result<Option<TcpListener>> {
    Ok(None)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn ready() {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn stopping() {}

#[cfg(not(target_os = "linux"))]
pub(crate) async fn attend(_: &crate::embed::NodeHandle) {
    std::future::pending().await
}
