//! Idle connections: what the server holds for each, after the handshake and after one large message has gone through.
//!
//! The second figure tells a server that gives its buffers back from one that keeps its high-water mark for ever.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, bail};
use clap::Args;

use super::ring::Ring;
use crate::client::frame::Opcode;
use crate::client::upgrade::{Dialect, connect};
use crate::memory::Footprint;

/// The figures of an idle load.
#[derive(Debug, Clone, Args)]
pub(crate) struct IdleLoad {
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    connections: u32,
    /// Bytes of the message that each connection echoes before the second reading
    #[arg(long, default_value_t = 64 * 1024, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    burst: u32,
}

/// Memory of the server for each connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) after_handshake: PerConnection,
    pub(crate) after_burst: PerConnection,
}

/// Memory divided by the number of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PerConnection {
    pub(crate) heap: f64,
    pub(crate) blocks: f64,
    pub(crate) resident: f64,
}

impl IdleLoad {
    /// So many connections, which each echo one message of `burst` bytes in the middle.
    pub(crate) fn new(connections: u32, burst: u32) -> Self {
        Self { connections, burst }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self { connections, burst } = self;
        format!(
            "idle: {connections} connections; memory of the server for each, before and after one echo of {burst} B"
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
        let ring = Ring::new(self.burst as usize, 1, Opcode::Binary, dialect);
        // What a server sets up once is not any connection's: one goes through everything and away before.
        echo(&mut connect(address, dialect)?, &ring)?;
        let before = footprint()?;
        let mut connections = Vec::with_capacity(self.connections as usize);
        for _ in 0..self.connections {
            connections.push(connect(address, dialect)?);
        }
        let after_handshake = self.share(before, footprint()?);
        for connection in &mut connections {
            echo(connection, &ring)?;
        }
        let after_burst = self.share(before, footprint()?);
        Ok(Idle {
            after_handshake,
            after_burst,
        })
    }

    fn share(&self, before: Footprint, after: Footprint) -> PerConnection {
        let share = |before: i64, after: i64| (after - before) as f64 / f64::from(self.connections);
        PerConnection {
            heap: share(before.heap, after.heap),
            blocks: share(before.blocks, after.blocks),
            resident: share(before.resident, after.resident),
        }
    }
}

fn echo(connection: &mut TcpStream, ring: &Ring) -> Result<()> {
    connection.write_all(ring.frames(0, 1))?;
    let mut reply = vec![0; ring.reply_length()];
    connection.read_exact(&mut reply)?;
    match ring.difference(0, &reply) {
        Some(at) => bail!("byte {at} of the reply is wrong"),
        None => Ok(()),
    }
}
