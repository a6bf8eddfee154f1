//! What systemd and the server tell each other: that it is up, that it ends, that it is alive, and the socket to
//! listen on, where the unit has one (`sd_notify(3)`, `systemd.socket(5)`). Without systemd, nothing.

use std::io;
use std::net::TcpListener;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{attend, inherited, ready, reloaded, reloading, stopping};

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
    /// When what was handed over is no TCP socket that listens, or there are several: those who connect to one that nobody
    /// takes would wait in vain.
    pub(crate) fn inherited() -> io::Result<Option<TcpListener>> {
        let mut handed = listenfd::ListenFd::from_env();
        if handed.len() > 1 {
            return Err(io::Error::other(format!(
                "it hands over {} sockets, and the server takes one: expected a single ListenStream, such as 443 or [::]:443, \
                 which is for IPv4 and IPv6",
                handed.len()
            )));
        }
        handed.take_tcp_listener(0)
    }

    /// Tells that connections are accepted.
    pub(crate) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    /// Tells that the configuration is read again.
    pub(crate) fn reloading() {
        // By this systemd tells the answer to what it has asked for now from one to what it asked for before.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "systemd isn't told of a reload"),
        }
    }

    /// Tells that it was, and what `systemctl status` has to say of it.
    pub(crate) fn reloaded(status: &str) {
        // A line is a variable.
        let status = status.replace('\n', "; ");
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
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
        feed_while_alive(node, patience, || tell(&[NotifyState::Watchdog])).await;
    }

    /// Feeds at half of the watchdog's patience, as long as every worker answers within it: one that is stuck is enough
    /// to starve it. (A worker that has ended has ended the node.)
    async fn feed_while_alive(node: &NodeHandle, patience: Duration, feed: impl Fn()) {
        let pause = (patience / 2).max(Duration::from_millis(1));
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Asks each of them.
            if timeout(patience, node.sessions()).await.is_ok() {
                feed();
            }
        }
    }

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::warn!(%error, "systemd can't be told how the server is");
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::{Mutex, mpsc};

        use tautline_websocket::conn::{ConnectOptions, connect};
        use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

        use super::*;
        use crate::{
            Client, Config, ConnectEvent, ConnectReply, Handler, Interests, Node, Refusal,
        };

        /// Holds up the worker of whoever comes in, until it is let go.
        struct HoldsUp {
            held: UnboundedSender<()>,
            go: Mutex<mpsc::Receiver<()>>,
        }

        impl Handler for HoldsUp {
            fn interests(&self) -> Interests {
                Interests::CONNECTING
            }

            async fn on_connecting(
                &self,
                _: &Client,
                _: ConnectEvent,
            ) -> Result<ConnectReply, Refusal> {
                self.held.send(()).expect("the test waits for it");
                let go = self.go.lock().expect("nobody panics");
                go.recv().expect("the test lets it go");
                Ok(ConnectReply::default())
            }
        }

        const CONFIG: &str = "http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\nnode.workers = 3\n\
                              client.allow_anonymous_connect_without_token = true\n";

        #[tokio::test]
        async fn a_single_worker_that_is_stuck_starves_the_watchdog() {
            let (held, mut is_held) = unbounded_channel();
            let (let_go, go) = mpsc::channel();
            let config = Config::from_toml(CONFIG).expect("it is good");
            let handler = HoldsUp {
                held,
                go: Mutex::new(go),
            };
            let node = Node::builder(config).handler(handler).start();
            let node = node.expect("there is a port");
            let address = node.address().expect("it listens");
            let patience = Duration::from_millis(100);
            let (fed, mut feeds) = unbounded_channel();
            let feed = || fed.send(()).expect("the test waits for it");
            let story = async {
                for _ in 0..3 {
                    feeds.recv().await;
                }
                let url = format!("ws://{address}/connection/websocket");
                let options = ConnectOptions::default();
                let mut socket = connect(&url, &options).await.expect("let in").websocket;
                let command = r#"{"id":1,"connect":{}}"#;
                socket.send(command).await.expect("it is read");
                is_held.recv().await;
                // All that it was fed before, and once more at the most: then nothing, although two of the three answer.
                let mut before = 0;
                while timeout(10 * patience, feeds.recv()).await.is_ok() {
                    before += 1;
                    assert!(before < 100, "it is fed although a worker is stuck");
                }
                let_go.send(()).expect("it waits");
                feeds.recv().await;
            };
            let story = timeout(Duration::from_secs(60), story);
            tokio::select! {
                () = feed_while_alive(node.handle(), patience, feed) => unreachable!("it never ends"),
                told = story => told.expect("within a minute"),
            }
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
pub(crate) fn reloading() {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn reloaded(_: &str) {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn stopping() {}

#[cfg(not(target_os = "linux"))]
pub(crate) async fn attend(_: &crate::embed::NodeHandle) {
    std::future::pending().await
}
