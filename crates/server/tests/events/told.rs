//! A node of the test's own process, and what the receiver of its events knows.

use std::io::{Read, Write};
use std::net::TcpStream;

use tautline::config::Change;
use tautline::{Config, Node, ReloadError};
use tokio::runtime::Runtime;

use super::process::wait_until;
use super::receiver::Receiver;
use super::{Client, Directory, config, wait_for};

/// A node with these options of events, and what it takes to give it others.
pub(crate) struct Told {
    pub(crate) node: Node,
    pub(crate) runtime: Runtime,
    pub(crate) receiver: Receiver,
    pub(crate) directory: Directory,
}

impl Told {
    pub(crate) fn start(seed: u64, name: &str, events: &str) -> Self {
        let (receiver, directory) = (Receiver::start(seed), Directory::new(name));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let first = Self::config(&receiver, &directory, events);
        Self {
            node: Node::builder(Config::from_toml(&first).unwrap())
                .start()
                .unwrap(),
            runtime: runtime.enable_all().build().unwrap(),
            receiver,
            directory,
        }
    }

    pub(crate) fn config(receiver: &Receiver, directory: &Directory, events: &str) -> String {
        let namespace = "[[channel.namespaces]]\nname = \"room\"\n\
             allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n[prometheus]\nenabled = true\n";
        let of_events =
            format!("debounce = \"0s\"\nrestart_debounce = \"300ms\"\n{events}\n{namespace}");
        let text = config(receiver, directory, &of_events);
        format!("http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\n{text}")
    }

    pub(crate) fn set(&self, events: &str) -> Vec<Change> {
        self.try_to_set(events).unwrap()
    }

    /// The same with events that wait that long for others.
    pub(crate) fn waiting(self, time: &str, events: &str) -> Self {
        let text = Self::config(&self.receiver, &self.directory, events);
        let text = text.replace("batch_time = \"10ms\"", &format!("batch_time = \"{time}\""));
        let config = Config::from_toml(&text).unwrap();
        let reconfigured = self.node.handle().reconfigure(config);
        self.runtime.block_on(reconfigured).unwrap();
        self
    }

    pub(crate) fn try_to_set(&self, events: &str) -> Result<Vec<Change>, ReloadError> {
        let text = Self::config(&self.receiver, &self.directory, events);
        // Off is off, whatever else is said.
        let text = match events.contains("# off") {
            true => text.replace("enabled = true", "enabled = false"),
            false => text,
        };
        let config = Config::from_toml(&text).unwrap();
        let reloaded = self
            .runtime
            .block_on(self.node.handle().reconfigure(config))?;
        Ok(reloaded.changes)
    }

    pub(crate) fn client(&self, user: &str, channels: &[&str]) -> Client {
        let stream = TcpStream::connect(self.node.address().unwrap()).unwrap();
        let mut client = Client::connect(stream, user).unwrap();
        for channel in channels {
            client.toggle(channel).unwrap();
        }
        client
    }

    pub(crate) fn knows(&self, what: &str, users: &[(&str, &[&str])], occupied: &[&str]) {
        let of = |channels: &[&str]| channels.iter().map(ToString::to_string).collect();
        let users = users
            .iter()
            .map(|(user, channels)| (user.to_string(), of(channels)));
        wait_for(&self.receiver, what, &(users.collect(), of(occupied)));
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.receiver.book.lock().unwrap().count(kind)
    }

    /// So many have come and gone by what was told.
    #[track_caller]
    pub(crate) fn has_told(&self, connected: usize, disconnected: usize) {
        let found = ["connected", "disconnected"].map(|kind| self.count(kind));
        assert_eq!(found, [connected, disconnected]);
    }

    /// What a counter on the page of metrics says.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.node.address().unwrap()).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let line = format!("{name} ");
        let found = page.lines().find_map(|one| one.strip_prefix(&line));
        let number = found.unwrap_or_else(|| panic!("no {name}: {page}"));
        number.parse().unwrap()
    }

    pub(crate) fn wait_for_clients(&self, count: u64) {
        wait_until("so many are there", || {
            let info = self.runtime.block_on(self.node.handle().info());
            (info.num_clients == count).then_some(())
        });
    }
}
