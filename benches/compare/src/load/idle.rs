//! Idle connections: what the server holds for each, after the handshake and after some traffic has gone through.
//!
//! The second figure tells a server that gives its buffers back from one that keeps its high-water mark for ever.

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::deflate::{Player, Script};
use super::ring::Ring;
use crate::client::frame::Opcode;
use crate::client::upgrade::{Dialect, Offer, connect, connect_deflate, connect_tls};
use crate::memory::Footprint;
use crate::peers::Service;

/// Compressed messages that go through before the second reading: enough to fill a small window.
const COMPRESSED_BURST: usize = 16;
const COMPRESSED_PAYLOAD: usize = 512;

/// The figures of an idle load.
#[derive(Debug, Clone, Args)]
pub(crate) struct IdleLoad {
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    connections: u32,
    /// Bytes of the message that each connection echoes before the second reading
    #[arg(long, default_value_t = 64 * 1024, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    burst: u32,
    /// How the connections come
    #[arg(long, value_enum, default_value_t = Way::Plain)]
    way: Way,
}

/// How connections come to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Over TCP.
    Plain,
    /// With permessage-deflate and context takeover; what they echo are 16 JSON messages of 512 B.
    Deflate,
    /// Through axum.
    Axum,
    /// Over TLS 1.3.
    Tls,
}

/// Memory of the server for each connection.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) after_handshake: PerConnection,
    pub(crate) after_burst: PerConnection,
}

/// Memory divided by the number of connections.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct PerConnection {
    pub(crate) heap: f64,
    pub(crate) blocks: f64,
    pub(crate) resident: f64,
}

impl IdleLoad {
    /// So many connections, which come this way.
    pub(crate) fn new(connections: u32, way: Way) -> Self {
        Self {
            connections,
            burst: 64 * 1024,
            way,
        }
    }

    /// What the server must be able to do.
    pub(crate) fn service(&self) -> Service {
        match self.way {
            Way::Plain => Service::Echo,
            Way::Deflate => Service::DeflateTakeover,
            Way::Axum => Service::Axum,
            Way::Tls => Service::Tls,
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            connections,
            burst,
            way,
        } = self;
        let (way, traffic) = match way {
            Way::Plain => ("", format!("one echo of {burst} B")),
            Way::Axum => (" through axum", format!("one echo of {burst} B")),
            Way::Tls => (" over TLS 1.3", format!("one echo of {burst} B")),
            Way::Deflate => (
                " with compression and takeover",
                format!("{COMPRESSED_BURST} echoes of {COMPRESSED_PAYLOAD} B of JSON"),
            ),
        };
        format!(
            "idle: {connections} connections{way}; memory of the server for each, before and after {traffic}"
        )
    }

    /// One turn; `footprint` reads the server's memory.
    ///
    /// # Errors
    /// A wrong reply or a connection that ends.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        footprint: impl Fn() -> Result<Footprint>,
    ) -> Result<Idle> {
        if self.way == Way::Deflate {
            let open = || connect_deflate(address, dialect, Offer::Takeover);
            let (first, agreed) = open()?;
            let script = Script::new(COMPRESSED_PAYLOAD, COMPRESSED_BURST, agreed)?;
            let mut first = Player::new(first, agreed);
            return self.measure(
                || converse(&mut first, &script),
                || open().map(|(stream, agreed)| Player::new(stream, agreed)),
                |player| converse(player, &script),
                footprint,
            );
        }
        let ring = Ring::new(self.burst as usize, 1, Opcode::Binary, dialect);
        if self.way == Way::Tls {
            return self.measure(
                || echo(&mut connect_tls(address, dialect)?, &ring),
                || connect_tls(address, dialect),
                |stream| echo(stream, &ring),
                footprint,
            );
        }
        self.measure(
            || echo(&mut connect(address, dialect)?, &ring),
            || connect(address, dialect),
            |stream| echo(stream, &ring),
            footprint,
        )
    }

    /// What a server sets up once is not any connection's: `first` goes through everything before.
    fn measure<C>(
        &self,
        mut first: impl FnMut() -> Result<()>,
        mut open: impl FnMut() -> Result<C>,
        mut use_it: impl FnMut(&mut C) -> Result<()>,
        footprint: impl Fn() -> Result<Footprint>,
    ) -> Result<Idle> {
        first()?;
        let before = footprint()?;
        let mut connections = Vec::with_capacity(self.connections as usize);
        for _ in 0..self.connections {
            connections.push(open()?);
        }
        let after_handshake = self.share(before, footprint()?);
        for connection in &mut connections {
            use_it(connection)?;
        }
        let after_burst = self.share(before, footprint()?);
        Ok(Idle {
            after_handshake,
            after_burst,
        })
    }

    fn share(&self, before: Footprint, after: Footprint) -> PerConnection {
        PerConnection::share(before, after, self.connections)
    }
}

impl PerConnection {
    /// What has been added since `before`, for each of so many connections.
    pub(super) fn share(before: Footprint, after: Footprint, connections: u32) -> Self {
        let share = |before: i64, after: i64| (after - before) as f64 / f64::from(connections);
        Self {
            heap: share(before.heap, after.heap),
            blocks: share(before.blocks, after.blocks),
            resident: share(before.resident, after.resident),
        }
    }
}

fn echo(connection: &mut (impl Read + Write), ring: &Ring) -> Result<()> {
    connection.write_all(ring.frames(0, 1))?;
    let mut reply = vec![0; ring.reply_length()];
    connection.read_exact(&mut reply)?;
    match ring.difference(0, &reply) {
        Some(at) => bail!("byte {at} of the reply is wrong"),
        None => Ok(()),
    }
}

fn converse(player: &mut Player, script: &Script) -> Result<()> {
    player.send(script)?;
    let mut buffer = [0; 16 * 1024];
    while !player.is_done(script) {
        player.receive(script, &mut buffer)?;
    }
    Ok(())
}
